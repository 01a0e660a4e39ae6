//! `capture merge`

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use thalweg_capture::statistics;

/// Merges the parts that workers of `capture statistics` made, one file a site.
#[derive(Debug, Args)]
pub(crate) struct Merge {
    /// Directory of the parts
    dir: PathBuf,
}

impl Merge {
    pub(crate) fn run(self) -> Result<()> {
        let totals = statistics::merge(&self.dir)?;
        println!(
            "{}: merged, {} prompts, {} tokens",
            self.dir.display(),
            totals.prompts,
            totals.tokens
        );
        Ok(())
    }
}
