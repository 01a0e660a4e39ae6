//! What happens before evcxr takes over.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::process::parent_id;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use thalweg_setup::notebook::{self, Private, Settings};

const PRELUDE: &str = include_str!("prelude.rs");

/// Makes the private build folder and sets the environment that evcxr reads.
pub(crate) fn prepare() -> Result<Private> {
    let file = env::var_os("THALWEG_KERNEL_SETTINGS")
        .context("THALWEG_KERNEL_SETTINGS is not set; run cargo lab")?;
    let settings = Settings::read(Path::new(&file))?;
    if Path::new("evcxr.toml").exists() {
        eprintln!(
            "warning: evcxr.toml in the notebook's folder overrides thalweg's kernel settings; move it away"
        );
    }
    let private = notebook::private(&settings, std::process::id())?;
    let config = private.dir.join("config");
    write_config(&config, &settings.clone)?;
    set_environment(&settings, &private.dir.join("work"), &config);
    Ok(private)
}

fn write_config(dir: &Path, clone: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let start = format!(":linker system\n:efmt {{:?}}\n:dep {}\n", notebook::dependency(clone));
    let files = [
        ("evcxr.toml", "[evcxr]\noffline_mode = true\nopt_level = \"0\"\n"),
        ("init.evcxr", &start),
        ("prelude.rs", PRELUDE),
    ];
    for (name, text) in files {
        fs::write(dir.join(name), text).with_context(|| format!("cannot write {name}"))?;
    }
    Ok(())
}

fn set_environment(settings: &Settings, work: &Path, config: &Path) {
    set("EVCXR_TMPDIR", work);
    set("EVCXR_CONFIG_DIR", config);
    set("PATH", notebook::path_for(&settings.sysroot));
    set("LIBTORCH", &settings.libtorch);
    set("LD_LIBRARY_PATH", library_path(settings));
    set("CARGO_HOME", &settings.cargo_home);
    // A failed `?` shows the chain of causes; without this, anyhow would add a backtrace of evcxr's own frames.
    set("RUST_LIB_BACKTRACE", "0");
    // evcxr_jupyter renews an installed stock kernel in this folder; in an empty one it finds none.
    set("JUPYTER_PATH", config);
}

/// Where a cell's library finds Rust's own (it is built one folder deeper than evcxr puts it, so that its relative
/// path to them leads nowhere) and libtorch.
fn library_path(settings: &Settings) -> OsString {
    let old = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let rust = settings.sysroot.join("lib/rustlib").join(&settings.host).join("lib");
    let others = env::split_paths(&old).filter(|path| !path.as_os_str().is_empty());
    env::join_paths([rust, settings.libtorch.join("lib")].into_iter().chain(others))
        .unwrap_or(old.clone())
}

fn set(name: &str, value: impl AsRef<OsStr>) {
    // SAFETY: only the watch of `end_with_parent` runs beside this thread, and it reads no variable.
    unsafe { env::set_var(name, value) }
}

/// Ends this process when the one that started it is gone: a Jupyter that crashed would leave a gigabyte behind.
pub(crate) fn end_with_parent() {
    let parent = parent_id();
    std::thread::spawn(move || {
        while parent_id() == parent {
            std::thread::sleep(Duration::from_millis(500));
        }
        std::process::exit(1);
    });
}
