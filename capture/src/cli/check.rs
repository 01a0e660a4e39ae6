//! `capture check`

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use thalweg_capture::check;

/// Whether a directory is whole: manifest, shards and index agree, nothing is missing or there twice.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Directory of a capture
    dir: PathBuf,
}

impl Check {
    pub(crate) fn run(self) -> Result<()> {
        let faults = check(&self.dir)?;
        let dir = self.dir.display();
        match faults.as_slice() {
            [] => println!("{dir}: whole"),
            [one] => bail!("{one}"),
            several => {
                several.iter().for_each(|fault| println!("{fault}"));
                bail!("{dir}: {} faults", several.len());
            }
        }
        Ok(())
    }
}
