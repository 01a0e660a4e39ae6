//! The folders that notebook cells are compiled in.
//!
//! Three layers, each made from the one before, third-party crates as hard links:
//!
//! - the store, one per user and key: locked sources and what is compiled from them, thalweg left out;
//! - the template, one per clone: the store, and thalweg compiled from that clone as it is now;
//! - the private folder, one per running kernel: two kernels in one folder would run each other's cells.
//!
//! evcxr writes the manifest of a cell's crate, builds it with its own flags, and drops Cargo.lock at every start;
//! [`build`] uses the same manifest and flags, and a directory of locked sources stands in for the registry, so that
//! nothing compiled here is ever compiled again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::command;
use crate::install;
use crate::lockfile::{self, LockFile};
use crate::places::Places;
pub use crate::settings::Settings;
use crate::store::{self, Key};
use crate::toolchain::Toolchain;
use crate::tree::{self, Bring};

/// The cargo configuration of notebooks: libraries are optimised fully and cells not at all, since a cell is compiled
/// at each run; locked sources stand in for the registry.
const CONFIG: &str = r#"[profile.dev]
opt-level = 0

[profile.dev.package."*"]
opt-level = 3
debug-assertions = false
overflow-checks = false

[net]
offline = true

[source.crates-io]
replace-with = "locked"

[source.locked]
directory = "crates"
"#;

/// What the store is made from.
#[derive(Debug)]
pub struct Recipe {
    section: String,
    closure: String,
    version: String,
    key: String,
}

impl Recipe {
    /// The recipe for the clone as it is now.
    pub fn of(clone: &Path, toolchain: &Toolchain, libtorch_key: &str) -> Result<Recipe> {
        let read = |name: &str| {
            let path = clone.join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let (names, section) = lockfile::dependencies(&read("Cargo.toml")?)?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let closure = LockFile::parse(&read("Cargo.lock")?)?.closure(&names)?;
        let parts = [&section, &closure, &toolchain.version, libtorch_key, CONFIG, &manifest("")];
        let key = parts.iter().fold(Key::new(), |key, part| key.with(part)).name();
        Ok(Recipe { section, closure, version: toolchain.version.clone(), key })
    }

    /// The store's folder for this recipe.
    pub fn dir(&self, places: &Places) -> PathBuf {
        places.cache.join("notebook").join(&self.key)
    }

    /// The folder of locked sources, which depends on the lock file and, for those of the standard library, on Rust.
    fn sources(&self, places: &Places) -> PathBuf {
        let key = [&self.section, &self.closure, &self.version]
            .iter()
            .fold(Key::new(), |key, part| key.with(part));
        places.cache.join("sources").join(key.name())
    }

    /// CARGO_HOME of notebooks.
    pub fn cargo_home(&self, places: &Places) -> PathBuf {
        self.sources(places).join("home")
    }
}

/// Makes the store: sources first, then one build of them.
pub fn ready(
    places: &Places,
    recipe: &Recipe,
    toolchain: &Toolchain,
    libtorch: &Path,
) -> Result<PathBuf> {
    let dir = recipe.dir(places);
    store::entry(&recipe.sources(places), |partial| vendor(places, recipe, toolchain, partial))?;
    store::entry(&dir, |partial| {
        println!("compiling the dependencies of notebooks, optimised (7 to 11 minutes on 2 cores)");
        let stand_in = partial.join("stand-in");
        write_stand_in(&stand_in, &recipe.section)?;
        let prebuilt = partial.join("prebuilt");
        write(&prebuilt.join("src/lib.rs"), "")?;
        write(&prebuilt.join("Cargo.toml"), &manifest(&dependency(&stand_in)))?;
        let cargo =
            Builder { toolchain, libtorch, cargo_home: &recipe.cargo_home(places), dir: &prebuilt };
        cargo.run("build", "notebook dependencies", &places.logs().join("notebook.log"))?;
        // evcxr looks for errors with `cargo check`: without this, the first mistyped cell would take minutes.
        cargo.run("check", "notebook dependencies", &places.logs().join("notebook-check.log"))
    })?;
    Ok(dir)
}

/// Brings the clone's template up to date with its sources and returns it, with the lock that keeps it so.
pub fn template(settings: &Settings) -> Result<(PathBuf, File)> {
    let dir = template_dir(settings);
    let lock = store::lock(&dir)?;
    if !dir.exists() {
        let partial = store::beside(&dir, "partial");
        store::remove(&partial)?;
        tree::copy(&settings.store.join("prebuilt"), &partial, &|path| {
            tree::of_notebook(path, false)
        })?;
        write(&partial.join("Cargo.toml"), &manifest(&dependency(&settings.clone)))?;
        write(&partial.join("src/lib.rs"), "")?;
        fs::rename(&partial, &dir)
            .with_context(|| format!("cannot rename {}", partial.display()))?;
    }
    store::touch(&dir)?;
    install::keep(settings)?;
    let sources = source_key(&settings.clone)?;
    let note = store::beside(&dir, "sources");
    if fs::read_to_string(&note).is_ok_and(|built| built == sources) {
        return Ok((dir, lock));
    }
    let _ = fs::remove_file(&note);
    forget_thalweg(&dir, &settings.host)?;
    store::remove(&starts_dir(settings))?;
    let log = store::beside(&dir, "log");
    let (toolchain, libtorch, cargo_home) =
        (&settings.toolchain(), &*settings.libtorch, &*settings.cargo_home);
    let cargo = Builder { toolchain, libtorch, cargo_home, dir: &dir };
    cargo.run("build", "thalweg for notebooks", &log)?;
    cargo.run("check", "thalweg for notebooks", &log)?;
    fs::write(&note, sources).with_context(|| format!("cannot write {}", note.display()))?;
    Ok((dir, lock))
}

fn template_dir(settings: &Settings) -> PathBuf {
    let key = Key::new().with(settings.clone.as_os_str().as_encoded_bytes()).name();
    settings.store.join("clones").join(key)
}

/// Where kernels of the clone keep what they compile at their start, for the next kernel. It goes when the template is
/// made anew.
pub fn starts_dir(settings: &Settings) -> PathBuf {
    template_dir(settings).join(tree::STARTS)
}

/// A folder for one kernel: `work` for evcxr's builds, `config` for its start-up files. It goes with the process:
/// the lock is given back when the process ends, and the next kernel removes the folder.
#[derive(Debug)]
pub struct Private {
    /// The folder.
    pub dir: PathBuf,
    _lock: File,
}

/// Where the private folder of the kernel that is process `id` lies.
pub fn private_dir(settings: &Settings, id: u32) -> PathBuf {
    settings.store.join("kernels").join(id.to_string())
}

/// Makes the private folder of the kernel that is process `id`.
pub fn private(settings: &Settings, id: u32) -> Result<Private> {
    let (template, _template_lock) = template(settings)?;
    let dir = private_dir(settings, id);
    let lock = store::lock(&dir)?;
    store::remove(&dir)?;
    tree::copy(&template, &dir.join("work"), &|path| tree::of_notebook(path, true))?;
    let kernels = settings.store.join("kernels");
    // Seconds for each: the notebook does not wait. What fails is left to the next kernel.
    std::thread::spawn(move || remove_dead(&kernels));
    Ok(Private { dir, _lock: lock })
}

/// Removes the folders of kernels that are gone, however they went.
pub fn remove_dead(kernels: &Path) -> Result<()> {
    let Ok(listing) = fs::read_dir(kernels) else { return Ok(()) };
    for dir in listing.flatten().map(|item| item.path()).filter(|path| path.is_dir()) {
        if let Some(_lock) = store::lock_if_free(&dir)? {
            store::remove(&dir)?;
            let _ = fs::remove_file(store::beside(&dir, "lock"));
        }
    }
    Ok(())
}

/// Removes stores, sources and templates that nobody used for `age`, and the templates of clones that are gone.
pub fn prune(places: &Places, age: Duration) -> Result<()> {
    store::prune(&places.cache.join("sources"), age)?;
    store::prune(&places.cache.join("notebook"), age)?;
    let Ok(listing) = fs::read_dir(places.cache.join("notebook")) else { return Ok(()) };
    for clones in listing.flatten().map(|item| item.path().join("clones")) {
        store::prune(&clones, age)?;
        forget_gone(&clones)?;
    }
    Ok(())
}

fn forget_gone(clones: &Path) -> Result<()> {
    let Ok(listing) = fs::read_dir(clones) else { return Ok(()) };
    for note in listing
        .flatten()
        .map(|item| item.path())
        .filter(|path| path.extension().is_some_and(|it| it == "clone"))
    {
        let template = note.with_extension("");
        let gone = fs::read_to_string(&note).is_ok_and(|clone| !Path::new(&clone).exists());
        if gone && let Some(_lock) = store::lock_if_free(&template)? {
            store::remove(&template)?;
            for word in ["clone", "sources", "log", "used", "lock"] {
                let _ = fs::remove_file(store::beside(&template, word));
            }
        }
    }
    Ok(())
}

/// A key of everything that thalweg is compiled from in this clone.
pub fn source_key(clone: &Path) -> Result<String> {
    let mut key = Key::new().with_files(&clone.join("src"), &[])?;
    for name in ["Cargo.toml", "build.rs"] {
        key = key.with(fs::read(clone.join(name)).unwrap_or_default());
    }
    Ok(key.name())
}

/// Makes cargo compile thalweg again whatever the dates of its files say: a clone may have been put back in time.
fn forget_thalweg(template: &Path, host: &str) -> Result<()> {
    for folder in
        [format!("target/{host}/debug/.fingerprint"), "target/debug/.fingerprint".to_owned()]
    {
        let Ok(listing) = fs::read_dir(template.join(folder)) else { continue };
        for item in listing
            .flatten()
            .filter(|item| item.file_name().to_string_lossy().starts_with("thalweg-"))
        {
            fs::remove_dir_all(item.path())
                .with_context(|| format!("cannot remove {}", item.path().display()))?;
        }
    }
    Ok(())
}

/// Fetches the locked sources of all that thalweg depends on, and of what the standard library depends on: without
/// those, type inference in cells does not understand the standard library.
fn vendor(places: &Places, recipe: &Recipe, toolchain: &Toolchain, partial: &Path) -> Result<()> {
    println!("fetching the sources of notebook dependencies (1 minute)");
    let work = partial.join("work");
    write_stand_in(&work, &recipe.section)?;
    let locked =
        fs::read_to_string(places.clone.join("Cargo.lock")).context("cannot read Cargo.lock")?;
    write(&work.join("Cargo.lock"), &locked)?;
    let mut cargo = Command::new(toolchain.cargo());
    cargo
        .args(["vendor", "--quiet", "--versioned-dirs", "--manifest-path"])
        .arg(work.join("Cargo.toml"));
    cargo.arg("--sync").arg(toolchain.library().join("Cargo.toml")).arg(partial.join("crates"));
    cargo.env("RUSTC_BOOTSTRAP", "1"); // the standard library's manifests use what only its own build may
    command::logged("sources", &places.logs().join("sources.log"), cargo.current_dir(&work))?;
    let used =
        fs::read_to_string(work.join("Cargo.lock")).context("cargo vendor left no Cargo.lock")?;
    let strangers = LockFile::parse(&used)?.not_in(&LockFile::parse(&locked)?);
    if !strangers.is_empty() {
        bail!(
            "Cargo.lock is not up to date, it lacks {}; run `cargo metadata` once",
            strangers.join(", ")
        );
    }
    write(&partial.join("home/config.toml"), CONFIG)?;
    store::remove(&work)
}

/// A package that has thalweg's name and dependencies and nothing in it: what depends on it builds all of them.
fn write_stand_in(dir: &Path, section: &str) -> Result<()> {
    let head =
        "[package]\nname = \"thalweg\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n";
    write(&dir.join("Cargo.toml"), &format!("{head}{section}"))?;
    write(&dir.join("src/lib.rs"), "")
}

/// Calls cargo on a cell's crate exactly as evcxr does, so that evcxr finds everything built.
struct Builder<'a> {
    toolchain: &'a Toolchain,
    libtorch: &'a Path,
    cargo_home: &'a Path,
    dir: &'a Path,
}

impl Builder<'_> {
    fn run(&self, verb: &str, what: &str, log: &Path) -> Result<()> {
        let mut cargo = Command::new(self.toolchain.cargo());
        cargo.args([verb, "--target", &self.toolchain.host]).current_dir(self.dir);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CARGO_") {
                cargo.env_remove(name); // what cargo tells a program that it runs is not meant for another build
            }
        }
        cargo
            .env("CARGO_HOME", self.cargo_home)
            .env("CARGO_TARGET_DIR", "target")
            .env("CARGO_BUILD_BUILD_DIR", "target");
        cargo
            .env("RUSTC", self.toolchain.rustc())
            .env("RUSTFLAGS", "-Cprefer-dynamic")
            .env_remove("RUSTC_WRAPPER");
        cargo.env("LIBTORCH", self.libtorch).env_remove("LIBTORCH_USE_PYTORCH");
        cargo.env("PATH", path_for(&self.toolchain.sysroot));
        command::logged(what, log, &mut cargo)
    }
}

/// PATH with the toolchain first: rustup's proxies cost a tenth of a second a call.
pub fn path_for(sysroot: &Path) -> std::ffi::OsString {
    let old = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(sysroot.join("bin")).chain(std::env::split_paths(&old));
    std::env::join_paths(all).unwrap_or(old)
}

/// The line of evcxr's `:dep` for the thalweg in `clone`.
pub fn dependency(clone: &Path) -> String {
    format!("thalweg = {{ path = {:?} }}", clone.display().to_string())
}

/// The manifest of a cell's crate, as evcxr 0.22 writes it (its `module.rs`).
fn manifest(dependencies: &str) -> String {
    format!(
        "[package]\nname = \"ctx\"\nversion = \"1.0.0\"\nedition = \"2024\"\n\n[lib]\ncrate-type = [\"cdylib\"]\n\
         path = \"src/lib.rs\"\n\n[profile.dev]\nopt-level = 2\ndebug = false\nstrip = \"debuginfo\"\nrpath = true\n\
         lto = false\ndebug-assertions = true\ncodegen-units = 16\npanic = 'unwind'\nincremental = true\n\
         overflow-checks = true\n\n[dependencies]\n{dependencies}\n"
    )
}

/// Whether `path` is brought along from a template; here so that the kernel's tests can ask.
pub fn brings(path: &Path) -> Bring {
    tree::of_notebook(path, true)
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
