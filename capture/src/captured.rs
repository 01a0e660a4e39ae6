//! Reading what was captured: nothing is read but what is asked for.

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use thalweg::tch::Tensor;
use thalweg::{Config, Model, Site};

use crate::manifest::{Manifest, Which};
use crate::shard::{self, COLUMNS, Shard};

/// A directory of captured activations whose shards are all there.
///
/// Rows are counted over all shards: one row for each token kept, in the order of the prompts.
#[derive(Debug, Clone)]
pub struct Captured {
    dir: PathBuf,
    manifest: Manifest,
    config: Config,
    shards: Vec<Shard>,
    /// The first row of each shard, and the number of all.
    firsts: Vec<u64>,
    /// Whose tokenizer says what tokens are called.
    pub(crate) labels: Option<Model>,
}

/// Which token a row is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Row of the prompt in its file, 0 first.
    pub prompt: u64,
    /// Position in the prompt.
    pub position: usize,
    /// The token's id.
    pub token: i64,
}

impl Captured {
    /// Opens a directory; every shard's header is compared with the manifest.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref().to_owned();
        let manifest = Manifest::open(&dir)?;
        ensure!(
            manifest.statistics.is_none(),
            "{}: it holds statistics: open one with Statistics::open",
            dir.display()
        );
        let n = manifest.shards();
        let missing: Vec<usize> = (0..n).filter(|k| !shard::path(&dir, *k).exists()).collect();
        ensure!(
            missing.is_empty(),
            "{}: {} of {n} shards are missing, the first is {}: run the capture again, it goes on",
            dir.display(),
            missing.len(),
            missing[0]
        );
        let shards = (0..n).map(|k| Shard::open(&dir, k, &manifest)).collect::<Result<Vec<_>>>()?;
        let mut firsts = vec![0];
        for shard in &shards {
            firsts.push(firsts[firsts.len() - 1] + shard.rows);
        }
        let config = manifest.config()?;
        Ok(Captured { dir, manifest, config, shards, firsts, labels: None })
    }

    /// What was captured, and how.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The model's dimensions.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The sites, in the order of the shards' tensors.
    pub fn sites(&self) -> Result<Vec<Site>> {
        self.manifest.sites()
    }

    /// Number of rows: tokens whose activations are kept.
    pub fn len(&self) -> u64 {
        self.firsts[self.shards.len()]
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// The rows of shard `k`.
    pub fn rows_of(&self, k: usize) -> Range<u64> {
        self.firsts[k]..self.firsts[k + 1]
    }

    /// Activations at a site, `[n, ..]`, as they are stored.
    pub fn rows(&self, site: impl Into<Site>, rows: Range<u64>) -> Result<Tensor> {
        let site = site.into();
        self.has(site)?;
        self.join(&site.to_string(), rows)
    }

    /// An error that says what there is, if a site is not.
    pub(crate) fn has(&self, site: Site) -> Result<()> {
        ensure!(
            self.manifest.sites.contains(&site.to_string()),
            "{}: {site} was not captured; captured: {}",
            self.dir.display(),
            self.manifest.sites.join(", ")
        );
        Ok(())
    }

    /// Which token each row is of.
    pub fn places(&self, rows: Range<u64>) -> Result<Vec<Place>> {
        let column = |name: &str| -> Result<Vec<i64>> {
            Ok(Vec::<i64>::try_from(self.join(name, rows.clone())?)?)
        };
        let [prompts, positions, tokens] = COLUMNS.map(column);
        let each = prompts?.into_iter().zip(positions?).zip(tokens?);
        let place = |((prompt, position), token)| Place {
            prompt: prompt as u64,
            position: position as usize,
            token,
        };
        Ok(each.map(place).collect())
    }

    /// A tensor over all shards.
    fn join(&self, name: &str, rows: Range<u64>) -> Result<Tensor> {
        ensure!(
            rows.start <= rows.end && rows.end <= self.len(),
            "{}: rows {rows:?} of {}",
            self.dir.display(),
            self.len()
        );
        let mut parts = Vec::new();
        for (k, shard) in self.shards.iter().enumerate() {
            let own = self.rows_of(k);
            let (from, to) = (rows.start.max(own.start), rows.end.min(own.end));
            if from < to || (parts.is_empty() && k + 1 == self.shards.len()) {
                let from = from.min(own.end).max(own.start);
                parts.push(shard.read(name, from - own.start..to.max(from) - own.start)?);
            }
        }
        match parts.len() {
            1 => parts.pop().context("no part"),
            _ => Ok(Tensor::cat(&parts, 0)),
        }
    }

    /// Whether activations of all tokens are kept, or those of each prompt's last.
    pub fn positions(&self) -> Which {
        self.manifest.positions
    }
}
