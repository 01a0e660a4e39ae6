//! Captured prompts as caches, so that what the crate does with a run's activations it does with
//! these.

use std::ops::Range;

use anyhow::{Context, Result, anyhow};
use thalweg::tch::Tensor;
use thalweg::{Cache, Model, Site, Sites, Tokens};

use crate::captured::Captured;

impl Captured {
    /// Shows tokens as the model's tokenizer does, in whatever is made of the caches.
    pub fn labelled(mut self, model: &Model) -> Self {
        self.labels = Some(model.clone());
        self
    }

    /// All prompts, some at a time, as caches of these sites: `[Batch, Pos, ..]`, padded on the left.
    /// A batch ends with its shard. Where the last position alone was kept, that is all a prompt has.
    ///
    /// ```no_run
    /// use thalweg::{Point, Statistics};
    /// use thalweg_capture::Captured;
    /// let captured = Captured::open("captured")?;
    /// let mut statistics = Statistics::at(Point::ResidPost.at(2)).covariance();
    /// for cache in captured.caches(Point::ResidPost.at(2), 64)? {
    ///     statistics.add(&cache?)?;
    /// }
    /// let pca = statistics.pca(3)?;
    /// # thalweg::anyhow::Ok(())
    /// ```
    pub fn caches(&self, sites: impl Into<Sites>, prompts: usize) -> Result<Caches<'_>> {
        let sites = sites.into().resolve(self.config().n_layers);
        sites.iter().try_for_each(|site| self.has(*site))?;
        Ok(Caches { captured: self, sites, prompts: prompts.max(1), shard: 0, left: Vec::new() })
    }

    /// One prompt, by its row in the prompt file.
    pub fn prompt(&self, number: u64, sites: impl Into<Sites>) -> Result<Cache> {
        let sites = sites.into().resolve(self.config().n_layers);
        sites.iter().try_for_each(|site| self.has(*site))?;
        let k = number / self.manifest().prompts_per_shard;
        let missing = || {
            anyhow!(
                "prompt {number} was not captured: an empty row, or none of 0..{}",
                self.manifest().prompts.rows
            )
        };
        if k >= self.shards() as u64 {
            return Err(missing());
        }
        let runs = self.runs(k as usize)?;
        let one = runs.into_iter().find(|run| run.number == number).ok_or_else(missing)?;
        self.cache(&[one], &sites)
    }

    /// The prompts of a shard.
    fn runs(&self, k: usize) -> Result<Vec<Run>> {
        let rows = self.rows_of(k);
        let mut runs: Vec<Run> = Vec::new();
        for (row, place) in rows.clone().zip(self.places(rows)?) {
            match runs.last_mut() {
                Some(run) if run.number == place.prompt => {
                    run.rows.end = row + 1;
                    run.ids.push(place.token);
                }
                _ => runs.push(Run {
                    number: place.prompt,
                    rows: row..row + 1,
                    ids: vec![place.token],
                }),
            }
        }
        Ok(runs)
    }

    /// Consecutive prompts of one shard as a cache.
    fn cache(&self, runs: &[Run], sites: &[Site]) -> Result<Cache> {
        let ids: Vec<Vec<i64>> = runs.iter().map(|run| run.ids.clone()).collect();
        let mut tokens = Tokens::from_ids(&ids)?;
        if let Some(model) = &self.labels {
            let pieces = |ids: &Vec<i64>| ids.iter().map(|id| model.piece(*id)).collect();
            tokens = tokens.labelled(ids.iter().map(pieces).collect())?;
        }
        let rows = runs[0].rows.start..runs[runs.len() - 1].rows.end;
        let own = |row: usize| {
            let first = row * tokens.width() + tokens.padding(row);
            (first..first + ids[row].len()).map(|at| at as i64)
        };
        let at: Vec<i64> = (0..ids.len()).flat_map(own).collect();
        let at = Tensor::from_slice(&at);
        let part = |site: &Site| -> Result<(Site, Tensor)> {
            let x = self.rows(*site, rows.clone())?;
            let inner = x.size()[1..].to_vec();
            let of = |first: &[i64]| [first, &inner].concat();
            let (batch, width) = (tokens.batch() as i64, tokens.width() as i64);
            let padded = match tokens.is_padded() {
                true => Tensor::zeros(of(&[batch * width]), (x.kind(), x.device()))
                    .index_copy(0, &at, &x),
                false => x,
            };
            Ok((*site, padded.view(&of(&[batch, width])[..])))
        };
        let parts = sites.iter().map(part).collect::<Result<_>>()?;
        Cache::from_parts(&tokens, self.config().n_layers, parts)
    }
}

/// A prompt, where it stands in its capture.
#[derive(Debug, Clone)]
struct Run {
    number: u64,
    rows: Range<u64>,
    ids: Vec<i64>,
}

/// Caches of consecutive prompts, read when they are asked for: see [`Captured::caches`].
#[derive(Debug)]
pub struct Caches<'a> {
    captured: &'a Captured,
    sites: Vec<Site>,
    prompts: usize,
    /// The next shard.
    shard: usize,
    /// Prompts of the one before, the last first.
    left: Vec<Run>,
}

impl Caches<'_> {
    fn batch(&mut self) -> Result<Option<Cache>> {
        while self.left.is_empty() {
            if self.shard == self.captured.shards() {
                return Ok(None);
            }
            self.left = self.captured.runs(self.shard)?;
            self.left.reverse();
            self.shard += 1;
        }
        let from = self.left.len().saturating_sub(self.prompts);
        let mut runs = self.left.split_off(from);
        runs.reverse();
        let cache = self.captured.cache(&runs, &self.sites);
        cache.map(Some).with_context(|| format!("prompts from {} on", runs[0].number))
    }
}

impl Iterator for Caches<'_> {
    type Item = Result<Cache>;

    fn next(&mut self) -> Option<Self::Item> {
        self.batch().map_err(|error| anyhow!("{error:#}")).transpose()
    }
}
