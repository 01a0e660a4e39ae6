//! `capture show`

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use thalweg_capture::{Manifest, there};

/// What a directory holds, and how far it is.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Directory of a capture
    dir: PathBuf,
}

impl Show {
    pub(crate) fn run(self) -> Result<()> {
        let manifest = Manifest::open(&self.dir)?;
        let there = there(&self.dir, &manifest);
        println!("{manifest}");
        let bytes = match there.bytes {
            bytes if bytes < 10_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
            bytes => format!("{:.1} MB", bytes as f64 / 1e6),
        };
        println!("there: {} of {} shards, {bytes} with the index", there.parts, manifest.shards());
        Ok(())
    }
}
