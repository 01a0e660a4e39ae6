//! The stock kernel on the same prebuilt folder: evcxr_jupyter as it is, to measure against and to see that notebooks
//! run there too (after `:dep thalweg = { path = ".." }` and the prelude's import).
//!
//! Its cells have the optimisation that evcxr gives them; no prelude, no fallback display, no start-up file. It does
//! find the toolchain without rustup's proxies, which would cost it more than a second a start.

use std::env;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use thalweg_setup::notebook::{self, Settings};

use crate::start::{library_path, set};

/// Whether this process is to be the stock kernel, or the process that runs its cells.
pub(crate) fn is_asked_for() -> bool {
    env::var_os("THALWEG_STOCK").is_some()
}

/// Makes a private folder and hands over to evcxr_jupyter.
pub(crate) fn run() -> Result<()> {
    if env::var_os("EVCXR_IS_RUNTIME").is_some() {
        return evcxr_jupyter::main();
    }
    let file =
        env::var_os("THALWEG_KERNEL_SETTINGS").context("THALWEG_KERNEL_SETTINGS is not set")?;
    let settings = Settings::read(Path::new(&file))?;
    let private = notebook::private(&settings, std::process::id())?;
    let config = private.dir.join("config");
    fs::create_dir_all(&config).with_context(|| format!("cannot create {}", config.display()))?;
    set("EVCXR_TMPDIR", private.dir.join("work"));
    set("EVCXR_CONFIG_DIR", &config);
    set("PATH", notebook::path_for(&settings.sysroot));
    set("LIBTORCH", &settings.libtorch);
    set("LD_LIBRARY_PATH", library_path(&settings));
    set("CARGO_HOME", &settings.cargo_home);
    set("CARGO_PROFILE_DEV_OPT_LEVEL", "2"); // as in evcxr's own manifest; notebooks' CARGO_HOME says 0
    set("JUPYTER_PATH", &config); // evcxr_jupyter renews an installed stock kernel in this folder; here it finds none
    evcxr_jupyter::main()
}
