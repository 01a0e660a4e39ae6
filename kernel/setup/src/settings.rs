//! What a kernel is told of where things lie.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::toolchain::Toolchain;

/// What a kernel must know; set-up writes it beside the kernelspec.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The clone whose thalweg the cells use.
    pub clone: PathBuf,
    /// The store's folder, see the module's page.
    pub store: PathBuf,
    /// CARGO_HOME of notebooks: where cargo is told of the locked sources.
    pub cargo_home: PathBuf,
    /// libtorch, as LIBTORCH names it.
    pub libtorch: PathBuf,
    /// The toolchain's folder.
    pub sysroot: PathBuf,
    /// The target that `rustc` builds for.
    pub host: String,
}

impl Settings {
    /// Reads what [`Settings::write`] wrote.
    pub fn read(path: &Path) -> Result<Settings> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read {}; run cargo lab", path.display()))?;
        let value: Value = serde_json::from_str(&text)
            .with_context(|| format!("{} is not JSON", path.display()))?;
        let word = |name: &str| {
            value[name]
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("{} lacks {name}; run cargo lab", path.display()))
        };
        Ok(Settings {
            clone: word("clone")?.into(),
            store: word("store")?.into(),
            cargo_home: word("cargo_home")?.into(),
            libtorch: word("libtorch")?.into(),
            sysroot: word("sysroot")?.into(),
            host: word("host")?,
        })
    }

    /// Writes the settings as JSON.
    pub fn write(&self, path: &Path) -> Result<()> {
        let value = json!({ "clone": self.clone, "store": self.store, "cargo_home": self.cargo_home, "libtorch": self.libtorch,
                            "sysroot": self.sysroot, "host": self.host });
        fs::write(path, format!("{value:#}\n"))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    pub(crate) fn toolchain(&self) -> Toolchain {
        Toolchain { sysroot: self.sysroot.clone(), version: String::new(), host: self.host.clone() }
    }
}
