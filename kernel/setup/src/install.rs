//! The kernelspec for every Jupyter and editor of this user, and what keeps it alive.
//!
//! `cargo lab` writes a kernelspec into the cache, for its own JupyterLab. [`install`] writes the same into a folder that
//! every Jupyter looks at, and notes that in the cache, so that what it names is never removed as unused.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::kernel::{self, NAME};
use crate::notebook::Settings;
use crate::places::Places;
use crate::store::{self, Key};

/// What the two commands understand.
pub const HELP: &str = "thalweg-kernel install [--prefix DIR] [--no-spare]   writes the kernelspec for this user, or into an environment
thalweg-kernel uninstall [--prefix DIR]              removes it";

/// Where and how to install.
#[derive(Debug, Default)]
pub struct Options {
    /// The folder of an environment (its `share/jupyter`); this user's Jupyter folder where absent.
    pub prefix: Option<PathBuf>,
    /// Start no kernel in advance.
    pub no_spare: bool,
}

impl Options {
    /// Reads the words after `install` or `uninstall`.
    pub fn parse(words: &[String]) -> Result<Options> {
        let mut options = Options::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--prefix" => {
                    let dir =
                        words.next().with_context(|| format!("--prefix needs a folder\n{HELP}"))?;
                    options.prefix = Some(std::path::absolute(dir).context("--prefix")?);
                }
                "--no-spare" => options.no_spare = true,
                other => bail!("no option {other}\n{HELP}"),
            }
        }
        Ok(options)
    }

    /// The kernelspec's folder.
    pub fn dir(&self) -> Result<PathBuf> {
        let jupyter = match &self.prefix {
            Some(prefix) => prefix.join("share/jupyter"),
            None => user_dir()?,
        };
        Ok(jupyter.join("kernels").join(NAME))
    }
}

/// The kernelspec that is there.
#[derive(Debug)]
pub struct Spec {
    /// The program it starts.
    pub binary: PathBuf,
    /// The file that tells it of the clone.
    pub settings: PathBuf,
}

impl Spec {
    /// Reads the kernelspec in `dir`: nothing if there is none, an error if it is not ours.
    pub fn read(dir: &Path) -> Result<Option<Spec>> {
        let path = dir.join("kernel.json");
        if !path.exists() {
            return Ok(None);
        }
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        let word = |value: &Value| value.as_str().map(PathBuf::from);
        let (binary, settings) =
            (word(&value["argv"][0]), word(&value["env"]["THALWEG_KERNEL_SETTINGS"]));
        match (binary, settings) {
            (Some(binary), Some(settings)) => Ok(Some(Spec { binary, settings })),
            _ => bail!("{} was not written by thalweg; move it away", path.display()),
        }
    }

    /// The settings, if all that they and the kernelspec name is there.
    pub fn whole(&self) -> Option<Settings> {
        let settings = Settings::read(&self.settings).ok()?;
        let named = [
            &self.binary,
            &settings.clone,
            &settings.store,
            &settings.cargo_home,
            &settings.libtorch,
        ];
        named.iter().all(|path| path.exists()).then_some(settings)
    }

    fn keep(&self) -> Result<()> {
        if let Some(dir) = self.binary.parent() {
            touch(dir)?;
        }
        Settings::read(&self.settings).map_or(Ok(()), |settings| keep(&settings))
    }
}

/// `install ..` or `uninstall ..`: does it and says what it did.
pub fn run(places: &Places, words: &[String]) -> Result<()> {
    let (command, words) = words.split_first().context(HELP)?;
    let options = Options::parse(words)?;
    if command == "install" {
        let dir = install(places, &options)?;
        println!("installed {}, for the clone {}", dir.display(), places.clone.display());
        return Ok(());
    }
    match uninstall(places, &options)? {
        Some(dir) => println!("removed {}", dir.display()),
        None => println!("nothing to remove, {} is not there", options.dir()?.display()),
    }
    Ok(())
}

/// Installs the kernel that `cargo lab` set up for the clone at hand, and returns the kernelspec's folder.
pub fn install(places: &Places, options: &Options) -> Result<PathBuf> {
    let prepared = kernel::prepared(places).join("kernels").join(NAME);
    let found = Spec::read(&prepared)?.and_then(|spec| Some((spec.whole()?, spec)));
    let Some((settings, spec)) = found else {
        bail!("nothing is set up for {}; run `cargo lab` there once", places.clone.display())
    };
    let dir = options.dir()?;
    Spec::read(&dir)?; // never over somebody else's
    let env: &[_] = if options.no_spare { &[("THALWEG_SPARE", "0")] } else { &[] };
    kernel::write_spec(&dir, &spec.binary, &settings, env)?;
    let note = note(places, &dir);
    fs::create_dir_all(note.parent().unwrap_or(&note)).context("cannot make the cache folder")?;
    fs::write(&note, dir.as_os_str().as_encoded_bytes())
        .with_context(|| format!("cannot write {}", note.display()))?;
    Ok(dir)
}

/// Removes what [`install`] wrote, and nothing else; returns the folder if there was something.
pub fn uninstall(places: &Places, options: &Options) -> Result<Option<PathBuf>> {
    let dir = options.dir()?;
    let _ = fs::remove_file(note(places, &dir));
    if Spec::read(&dir)?.is_none() {
        return Ok(None);
    }
    for name in ["kernel.json", "settings.json"] {
        let path = dir.join(name);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    let _ = fs::remove_dir(&dir); // stays if somebody else put something there
    Ok(Some(dir))
}

/// Notes that a kernel uses its parts of the cache. A folder of the user's own has no such note and gets none.
pub fn keep(settings: &Settings) -> Result<()> {
    touch(&settings.store)?;
    touch(&settings.libtorch)?;
    if let Some(sources) = settings.cargo_home.parent() {
        touch(sources)?;
    }
    match std::env::current_exe().ok().as_deref().and_then(Path::parent) {
        Some(dir) => touch(dir),
        None => Ok(()),
    }
}

/// Notes that everything which an installed kernelspec names is in use, however long nobody opened a notebook.
pub fn keep_installed(places: &Places) -> Result<()> {
    let Ok(listing) = fs::read_dir(places.cache.join("installed")) else { return Ok(()) };
    for note in listing.flatten().map(|item| item.path()) {
        let dir = PathBuf::from(fs::read_to_string(&note).unwrap_or_default());
        match Spec::read(&dir) {
            Ok(Some(spec)) => spec.keep()?,
            _ => fs::remove_file(&note)
                .with_context(|| format!("cannot remove {}", note.display()))?,
        }
    }
    Ok(())
}

fn touch(dir: &Path) -> Result<()> {
    if store::beside(dir, "used").exists() { store::touch(dir) } else { Ok(()) }
}

fn note(places: &Places, dir: &Path) -> PathBuf {
    places.cache.join("installed").join(Key::new().with(dir.as_os_str().as_encoded_bytes()).name())
}

/// Where Jupyter looks for what this user installed.
fn user_dir() -> Result<PathBuf> {
    let folder =
        |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(dir) = folder("JUPYTER_DATA_DIR") {
        return Ok(dir);
    }
    let home = || std::env::home_dir().context("HOME is not set; it says where Jupyter looks");
    if cfg!(target_os = "macos") {
        return Ok(home()?.join("Library/Jupyter"));
    }
    Ok(match folder("XDG_DATA_HOME") {
        Some(data) => data.join("jupyter"),
        None => home()?.join(".local/share/jupyter"),
    })
}
