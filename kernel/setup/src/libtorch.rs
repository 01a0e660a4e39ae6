//! libtorch: the one the user names, the one of an active Python, or a copy kept in the user's cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;
use crate::places::Places;
use crate::python::Python;
use crate::store;

/// The libtorch that the tch of Cargo.lock speaks to.
pub const VERSION: &str = "2.13.0";

/// What is kept of the torch wheel: the CPU libraries and the headers.
const KEPT: &str =
    "libtorch_cpu.so libtorch.so libc10.so libgomp.so.1 libcupti.so.13 libcudart.so.13";

/// A folder with `lib/` and `include/`, as the variable LIBTORCH names one.
#[derive(Debug, Clone)]
pub struct Libtorch {
    /// The folder.
    pub dir: PathBuf,
}

impl Libtorch {
    /// The libtorch that needs no download: `LIBTORCH`, else the torch of an active Python, else the cached copy.
    pub fn find(places: &Places) -> Result<Option<Libtorch>> {
        if let Some(dir) = std::env::var_os("LIBTORCH").filter(|value| !value.is_empty()) {
            let dir = PathBuf::from(dir);
            match check(&dir) {
                Ok(()) => return Ok(Some(Libtorch { dir })),
                Err(error) if !told_by_us(&places.clone, &dir) => {
                    return Err(error.context("LIBTORCH names no fitting libtorch"));
                }
                Err(_) => {} // cargo passes on what an earlier set-up wrote; that is gone or too old now
            }
        }
        let active = ["VIRTUAL_ENV", "CONDA_PREFIX", "LIBTORCH_USE_PYTORCH"];
        if active.iter().any(|name| std::env::var_os(name).is_some())
            && let Some(dir) = of_python()
        {
            return Ok(Some(Libtorch { dir }));
        }
        let dir = cached(places);
        if !dir.exists() {
            return Ok(None);
        }
        store::touch(&dir)?;
        Ok(Some(Libtorch { dir }))
    }

    /// The libtorch to build against, fetched with `python` where none is found.
    pub fn ready(places: &Places, python: &Python) -> Result<Libtorch> {
        if let Some(found) = Libtorch::find(places)? {
            return Ok(found);
        }
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            bail!(
                "set LIBTORCH to a libtorch {VERSION}, or activate a Python with torch {VERSION}: set-up fetches only the Linux x86-64 one"
            );
        }
        println!("fetching libtorch {VERSION} (0.5 GB to load, 0.5 GB kept, 1 to 5 minutes)");
        let dir = cached(places);
        store::entry(&dir, |partial| fetch(places, python, partial))?;
        Ok(Libtorch { dir })
    }

    /// Writes `.cargo/local.toml`, which the tracked `.cargo/config.toml` includes: plain cargo finds libtorch by it.
    pub fn tell_cargo(&self, clone: &Path) -> Result<()> {
        let path = clone.join(".cargo/local.toml");
        let text = format!(
            "# Written by set-up.\n[env]\nLIBTORCH = {:?}\n",
            self.dir.display().to_string()
        );
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            return Ok(()); // an unchanged file lets cargo see that nothing changed
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Its version, as it says itself.
    pub fn version(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.dir.join(name)).ok();
        let python = || {
            let text = read("version.py")?; // torch's wheel
            let line = text.lines().find(|line| line.starts_with("__version__"))?.to_owned();
            Some(line.split(['\'', '"']).nth(1)?.to_owned())
        };
        let version = read("build-version").map(|text| text.trim().to_owned()).or_else(python);
        version.unwrap_or_else(|| "unknown version".to_owned())
    }

    /// What distinguishes this libtorch from another: its path and version.
    pub fn key(&self) -> String {
        let version = fs::read_to_string(self.dir.join("build-version")).unwrap_or_default();
        format!("{} {}", self.dir.display(), version.trim())
    }
}

/// The line of `.cargo/local.toml` that names `dir`.
fn told(dir: &Path) -> String {
    format!("LIBTORCH = {:?}", dir.display().to_string())
}

fn told_by_us(clone: &Path, dir: &Path) -> bool {
    fs::read_to_string(clone.join(".cargo/local.toml")).is_ok_and(|text| text.contains(&told(dir)))
}

fn cached(places: &Places) -> PathBuf {
    places.cache.join("libtorch").join(format!("{VERSION}-linux-x86_64"))
}

fn check(dir: &Path) -> Result<()> {
    if !dir.join("lib").exists() || !dir.join("include").exists() {
        bail!("{} lacks lib/ or include/", dir.display());
    }
    match fs::read_to_string(dir.join("build-version")) {
        Ok(version) if !version.trim().starts_with(VERSION) => {
            bail!("{} is libtorch {}, needed is {VERSION}", dir.display(), version.trim())
        }
        _ => Ok(()), // torch's wheel has no such file
    }
}

/// The folder of an active Python's torch, if that is the right version.
fn of_python() -> Option<PathBuf> {
    let program =
        "import os, torch; print(torch.__version__); print(os.path.dirname(torch.__file__))";
    let answer = command::output(Command::new("python3").args(["-c", program])).ok()?;
    let (version, dir) = answer.split_once('\n')?;
    let dir = PathBuf::from(dir);
    (version.starts_with(VERSION) && dir.join("lib").exists()).then_some(dir)
}

fn fetch(places: &Places, python: &Python, partial: &Path) -> Result<()> {
    let wheels = places.cache.join("downloads");
    fs::create_dir_all(&wheels).with_context(|| format!("cannot create {}", wheels.display()))?;
    let list = fs::read_to_string(places.python_files().join("libtorch.txt"))
        .context("cannot read libtorch.txt")?;
    for line in list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let [package, platform, hash] = line.split(' ').collect::<Vec<_>>()[..] else {
            bail!("libtorch.txt: `{line}` is not: package platform hash");
        };
        download(places, python, &wheels, (package, platform, hash))?;
    }
    unpack(python, &wheels, partial)?;
    fs::write(partial.join("build-version"), format!("{VERSION}\n"))?;
    fs::remove_dir_all(&wheels).context("cannot remove the downloaded wheels")
}

/// One wheel by hash, for the interpreter tag it was published with, whatever Python asks.
fn download(
    places: &Places,
    python: &Python,
    wheels: &Path,
    wheel: (&str, &str, &str),
) -> Result<()> {
    let (package, platform, hash) = wheel;
    let list = wheels.join("wanted.txt");
    fs::write(&list, format!("{package} --hash={hash}\n"))?;
    let mut pip = python.command();
    pip.args([
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
        "--no-input",
    ]);
    pip.args(["--disable-pip-version-check", "--no-cache-dir", "--progress-bar=off"]);
    pip.args([
        "--implementation",
        "cp",
        "--python-version",
        "3.11",
        "--abi",
        "cp311",
        "--abi",
        "none",
    ]);
    pip.args(["--platform", platform, "--dest"]).arg(wheels).arg("-r").arg(list);
    command::logged(package, &places.logs().join("libtorch.log"), &mut pip)
}

fn unpack(python: &Python, wheels: &Path, partial: &Path) -> Result<()> {
    let program = "
import pathlib, shutil, sys, zipfile
wheels, out, kept = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3].split()
for wheel in wheels.glob('*.whl'):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            path = pathlib.PurePosixPath(name)
            if name.startswith('torch/include/') and not name.endswith('/'):
                target = out / path.relative_to('torch')
            elif path.name in kept and path.parent.name == 'lib':
                target = out / 'lib' / path.name
            else:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as source, open(target, 'wb') as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
missing = [name for name in kept if not (out / 'lib' / name).exists()]
sys.exit('error: the wheels lack ' + ' '.join(missing) if missing else 0)
";
    command::output(python.command().args(["-c", program]).arg(wheels).arg(partial).arg(KEPT))?;
    Ok(())
}
