//! Where the programs and packages lie that look at figures, if they are here.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

fn home(variable: &str, inner: &str) -> PathBuf {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    std::env::var_os(variable).map_or(home.join(inner), PathBuf::from)
}

fn below(dir: PathBuf) -> Vec<PathBuf> {
    let mut all: Vec<_> =
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    all.sort();
    all
}

/// The lab's environments.
fn lab() -> Vec<PathBuf> {
    below(home("XDG_CACHE_HOME", ".cache").join("thalweg/python"))
}

/// plotly.js as `THALWEG_PLOTLY_JS` says, or of the lab's environment, or of the plotly crate.
pub(super) fn plotly_js() -> Option<PathBuf> {
    if let Some(told) = std::env::var_os("THALWEG_PLOTLY_JS") {
        return Some(PathBuf::from(told));
    }
    let inner = "site-packages/plotly/package_data/plotly.min.js";
    let lab =
        lab().into_iter().flat_map(|one| below(one.join("lib"))).map(|python| python.join(inner));
    let crates =
        below(home("CARGO_HOME", ".cargo").join("registry/src")).into_iter().flat_map(below);
    let crates = crates.filter(|dir| dir.to_string_lossy().contains("/plotly-0."));
    lab.chain(crates.map(|dir| dir.join("resource/plotly.min.js"))).find(|file| file.is_file())
}

/// The lab's Python, which has the plotly package.
pub(super) fn python() -> Option<PathBuf> {
    lab().into_iter().map(|one| one.join("bin/python")).find(|file| file.is_file())
}

pub(super) fn chromium() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    let path = std::env::var_os("PATH")?;
    let each = std::env::split_paths(&path).flat_map(|dir| names.map(|name| dir.join(name)));
    each.into_iter().find(|file| file.is_file())
}

/// Says past the test runner's capture that a test cannot run here; in CI it must.
pub(super) fn skip(why: &str) {
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "not skipped in CI: {why}");
    std::io::stdout().write_all(format!("skipped: {why}\n").as_bytes()).unwrap();
}
