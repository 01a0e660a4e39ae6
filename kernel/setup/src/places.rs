//! Where the clone and the user's cache lie.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The two roots that everything else is found from.
#[derive(Debug, Clone)]
pub struct Places {
    /// The clone at hand: the folder of the workspace's Cargo.toml.
    pub clone: PathBuf,
    /// This user's cache for thalweg, shared by all clones.
    pub cache: PathBuf,
}

impl Places {
    /// The clone that cargo was called in, and `XDG_CACHE_HOME` or `~/.cache`.
    pub fn here() -> Result<Places> {
        let manifest = std::env::var("CARGO_MANIFEST_DIR")
            .unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").into());
        let clone = Places::around(Path::new(&manifest)).with_context(|| {
            format!("no thalweg clone around {manifest}; call cargo inside one")
        })?;
        Places::of(clone)
    }

    /// The clone given, and the user's cache.
    pub fn of(clone: PathBuf) -> Result<Places> {
        let cache = match std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
            Some(folder) => PathBuf::from(folder),
            None => std::env::home_dir()
                .context("HOME is not set; it says where the cache goes")?
                .join(".cache"),
        };
        Ok(Places { clone, cache: cache.join("thalweg") })
    }

    /// The clone that `path` lies in.
    pub fn around(path: &Path) -> Option<PathBuf> {
        let is_clone = |folder: &&Path| {
            folder.join("Cargo.lock").exists() && folder.join("kernel/setup").exists()
        };
        path.ancestors().find(is_clone).map(Path::to_path_buf)
    }

    /// Python's part of the kernel: requirement lists and the headless runner.
    pub fn python_files(&self) -> PathBuf {
        self.clone.join("kernel/python")
    }

    /// Logs of the long steps.
    pub fn logs(&self) -> PathBuf {
        self.cache.join("logs")
    }
}
