//! Which clone of thalweg a command means, and the libtorch that was set up for it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use thalweg_setup::notebook::Settings;
use thalweg_setup::places::Places;

/// The clone around `path`, else around the current folder, else the one whose kernel this is.
pub(crate) fn near(path: &Path) -> Result<PathBuf> {
    let here = std::env::current_dir().unwrap_or_default();
    let around = Places::around(path).or_else(|| Places::around(&here));
    if let Some(clone) = around.or_else(|| settings().map(|settings| settings.clone)) {
        return Ok(clone);
    }
    let places = Places::here().context("no thalweg clone here; call this inside one")?;
    Ok(places.clone)
}

/// `LIBTORCH`, or what set-up wrote into the clone.
pub(crate) fn libtorch(clone: &Path) -> Option<PathBuf> {
    if let Some(dir) = std::env::var_os("LIBTORCH").filter(|value| !value.is_empty()) {
        return Some(dir.into());
    }
    let told = std::fs::read_to_string(clone.join(".cargo/local.toml")).ok();
    let told = told.as_deref().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("LIBTORCH = "))?;
        Some(PathBuf::from(line.trim_matches('"')))
    });
    told.or_else(|| settings().map(|settings| settings.libtorch))
}

fn settings() -> Option<Settings> {
    let file = std::env::var_os("THALWEG_KERNEL_SETTINGS")?;
    Settings::read(Path::new(&file)).ok()
}
