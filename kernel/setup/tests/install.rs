//! An installed kernelspec keeps what it names.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use thalweg_setup::install::{self, Options};
use thalweg_setup::notebook::{self, Settings};
use thalweg_setup::places::Places;
use thalweg_setup::{kernel, store};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// An entry of the cache that nobody used for a hundred days.
fn old_entry(cache: &Path, name: &str) -> Result<PathBuf> {
    let dir = cache.join(name);
    fs::create_dir_all(&dir)?;
    store::touch(&dir)?;
    for path in [&dir, &store::beside(&dir, "used")] {
        File::open(path)?.set_modified(SystemTime::now() - 100 * DAY)?;
    }
    Ok(dir)
}

fn prune(places: &Places) -> Result<()> {
    install::keep_installed(places)?;
    store::prune(&places.cache.join("kernel"), 60 * DAY)?;
    store::prune(&places.cache.join("libtorch"), 60 * DAY)?;
    notebook::prune(places, 60 * DAY)
}

#[test]
fn what_an_installed_kernel_needs_is_never_pruned_and_goes_when_it_is_uninstalled() -> Result<()> {
    let dir = std::env::temp_dir().join(format!("thalweg-installed-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    let places = Places { clone: dir.join("clone"), cache: dir.join("cache") };
    fs::create_dir_all(&places.clone)?;
    let kernel = old_entry(&places.cache, "kernel/mine")?;
    let binary = kernel.join("thalweg-kernel");
    fs::write(&binary, "")?;
    File::open(&kernel)?.set_modified(SystemTime::now() - 100 * DAY)?;
    let settings = Settings {
        clone: places.clone.clone(),
        store: old_entry(&places.cache, "notebook/mine")?,
        cargo_home: old_entry(&places.cache, "sources/mine")?.join("home"),
        libtorch: old_entry(&places.cache, "libtorch/mine")?,
        sysroot: dir.clone(),
        host: "here".to_owned(),
    };
    fs::create_dir_all(&settings.cargo_home)?;
    File::open(places.cache.join("sources/mine"))?.set_modified(SystemTime::now() - 100 * DAY)?;
    let other = old_entry(&places.cache, "notebook/other")?;
    kernel::install(&places, &binary, &settings)?;
    let options = Options { prefix: Some(dir.join("env")), no_spare: false };
    install::install(&places, &options)?;
    prune(&places)?;
    let parts = [&kernel, &settings.store, &settings.cargo_home, &settings.libtorch];
    assert!(parts.iter().all(|part| part.exists()), "{parts:?}");
    assert!(!other.exists());
    install::uninstall(&places, &options)?;
    for part in [&kernel, &settings.store, &settings.libtorch] {
        for path in [part.to_path_buf(), store::beside(part, "used")] {
            File::open(path)?.set_modified(SystemTime::now() - 100 * DAY)?;
        }
    }
    prune(&places)?;
    assert!([&kernel, &settings.store, &settings.libtorch].iter().all(|part| !part.exists()));
    fs::remove_dir_all(&dir)?;
    Ok(())
}
