//! The kernel's binary, built once per state of `kernel/`, and the kernelspec by which Jupyter starts it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;

use crate::command;
use crate::install::Spec;
use crate::lockfile::LockFile;
use crate::notebook::Settings;
use crate::places::Places;
use crate::store::{self, Key};
use crate::toolchain::Toolchain;

/// Name of the kernelspec: its own, so that a stock evcxr beside it is left alone.
pub const NAME: &str = "thalweg";

/// Where the kernel is built, and where the finished binary is kept.
#[derive(Debug)]
pub struct Recipe {
    /// cargo's target folder: one for all states of the lock file and of `kernel/`. cargo knows by itself what it must
    /// compile anew, and a change elsewhere in the lock file does not compile evcxr again.
    pub target: PathBuf,
    entry: PathBuf,
}

impl Recipe {
    /// The recipe for the clone as it is now.
    pub fn of(places: &Places, toolchain: &Toolchain) -> Result<Recipe> {
        let locked = fs::read_to_string(places.clone.join("Cargo.lock"))
            .context("cannot read Cargo.lock")?;
        let closure = LockFile::parse(&locked)?.closure(&["thalweg-kernel"])?;
        let compiler = Key::new().with(&toolchain.version);
        let files = compiler.clone().with(closure).with_files(
            &places.clone.join("kernel"),
            &["target", "python", "tests", "__pycache__", ".ipynb_checkpoints"], // the binary has none of these
        )?;
        let kernels = places.cache.join("kernel");
        Ok(Recipe {
            target: kernels.join(format!("build-{}", compiler.name())),
            entry: kernels.join(files.name()),
        })
    }

    /// Whether the binary is there.
    pub fn is_built(&self) -> bool {
        self.entry.exists()
    }

    /// Whether the costly part, evcxr, has been compiled.
    pub fn is_warm(&self) -> bool {
        self.target.join("release/thalweg-kernel").exists()
    }
}

/// Builds the kernel and returns the path of its binary.
pub fn ready(places: &Places, recipe: &Recipe, toolchain: &Toolchain) -> Result<PathBuf> {
    store::entry(&recipe.entry, |partial| {
        let cost = if recipe.is_warm() {
            "seconds, unless evcxr changed"
        } else {
            "evcxr: 13 to 18 minutes on 2 cores"
        };
        println!("compiling the notebook kernel ({cost})");
        let mut cargo = Command::new(toolchain.cargo());
        cargo
            .args(["build", "--release", "--locked", "--package", "thalweg-kernel", "--target-dir"])
            .arg(&recipe.target);
        cargo.current_dir(&places.clone).env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
        // rust-analyzer's crates read CI when they are compiled: with and without it they would be
        // compiled anew each time, for 15 minutes.
        cargo.env_remove("CI");
        command::logged("kernel", &places.logs().join("kernel.log"), &mut cargo)?;
        let name = "thalweg-kernel";
        fs::copy(recipe.target.join("release").join(name), partial.join(name))
            .context("cannot keep the kernel")?;
        Ok(())
    })?;
    store::touch(&recipe.target)?;
    Ok(recipe.entry.join("thalweg-kernel"))
}

/// `cargo kernel ..`: sets up what is missing, then hands the words to the kernel's program.
pub fn run(places: &Places, words: &[String]) -> Result<()> {
    crate::setup::ready(places)?;
    let spec = Spec::read(&prepared(places).join("kernels").join(NAME))?;
    let spec = spec.context("set-up left no kernelspec")?;
    command::shown("thalweg-kernel", Command::new(spec.binary).args(words))
}

/// The folder of Jupyter data that `cargo lab` gives its JupyterLab, for this clone.
pub fn prepared(places: &Places) -> PathBuf {
    let clone = Key::new().with(places.clone.as_os_str().as_encoded_bytes()).name();
    places.cache.join("jupyter").join(clone)
}

/// Writes the kernelspec for this clone into the cache and returns the folder to name in `JUPYTER_PATH`.
pub fn install(places: &Places, binary: &Path, settings: &Settings) -> Result<PathBuf> {
    let jupyter = prepared(places);
    write_spec(&jupyter.join("kernels").join(NAME), binary, settings, &[])?;
    Ok(jupyter)
}

/// Writes a kernelspec into `dir`, with the kernel's settings beside it; `env` is added to its environment.
pub fn write_spec(
    dir: &Path,
    binary: &Path,
    settings: &Settings,
    env: &[(&str, &str)],
) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let settings_file = dir.join("settings.json");
    settings.write(&settings_file)?;
    let mut spec = json!({
        "argv": [binary, "--control_file", "{connection_file}"],
        "display_name": "Rust (thalweg)",
        "language": "rust",
        "interrupt_mode": "message",
        "env": { "THALWEG_KERNEL_SETTINGS": settings_file },
    });
    for (name, value) in env {
        spec["env"][name] = json!(value);
    }
    fs::write(dir.join("kernel.json"), format!("{spec:#}\n"))
        .with_context(|| format!("cannot write the kernelspec in {}", dir.display()))
}
