//! Statistics of a whole data set and not its activations: a part for each unit, merged in the order
//! of the units, so that the result is the same bytes however many workers there were.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};
use thalweg::{Bar, Model, Site, Statistics};

use crate::batches;
use crate::capture::{self, Capture, Done};
use crate::disk;
use crate::manifest::{Manifest, Totals};
use crate::prompts::Start;

/// What is counted beside mean and variance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// Tokens left out at the beginning of each prompt: 1 is usual, the first token is an attention
    /// sink far from all others.
    pub first: usize,
    /// The covariance too.
    pub covariance: bool,
    /// So many largest values of each feature too.
    pub top: usize,
    /// A histogram of each feature too: from, up to, number of bins.
    pub histogram: Option<(f64, f64, usize)>,
}

impl Default for Asked {
    /// Mean and variance, without each prompt's first token.
    fn default() -> Self {
        Asked { first: 1, covariance: false, top: 0, histogram: None }
    }
}

impl Asked {
    fn at(&self, site: Site) -> Statistics {
        let mut statistics = Statistics::at(site).first(self.first).top(self.top);
        if self.covariance {
            statistics = statistics.covariance();
        }
        match self.histogram {
            Some((low, high, bins)) => statistics.histogram(low, high, bins),
            None => statistics,
        }
    }

    fn check(&self) -> Result<()> {
        if let Some((low, high, bins)) = self.histogram {
            ensure!(
                low < high && (high - low).is_finite() && bins > 0,
                "histogram of {bins} bins from {low} to {high}: expected low < high and at least one bin"
            );
        }
        Ok(())
    }
}

/// What lies beside a unit's statistics.
#[derive(Debug, Serialize, Deserialize)]
struct Part {
    /// Hash of the manifest.
    capture: String,
    unit: usize,
    totals: Totals,
}

const PART: &str = "part.json";

/// The folder of unit `k`.
fn part(dir: &Path, k: usize) -> PathBuf {
    dir.join(format!("part-{k:05}"))
}

/// The file of a site's statistics.
fn file(dir: &Path, site: Site) -> PathBuf {
    dir.join(format!("{site}.safetensors"))
}

impl Capture {
    /// Takes statistics of every site instead of keeping its activations. A row that was empty
    /// counts as a prompt without vectors, so that the prompts of the maxima are rows of the file.
    ///
    /// When the last part is there they are merged: `Statistics::open` reads the file of each site,
    /// named like the site, in the directory.
    pub fn statistics(&self, model: &Model, asked: &Asked) -> Result<Done> {
        asked.check()?;
        let (mut manifest, starts) = self.manifest(model)?;
        manifest.kind = "f64".to_owned();
        manifest.statistics = Some(asked.clone());
        manifest.settle(&self.dir)?;
        let make = |k: usize, bar: &mut Bar| self.part(model, &manifest, asked, k, starts[k], bar);
        let mut done = self.work(&manifest, |k| part(&self.dir, k).exists(), make)?;
        if done.missing == 0 {
            done.totals = Some(merge(&self.dir)?);
        }
        Ok(done)
    }

    fn part(
        &self,
        model: &Model,
        manifest: &Manifest,
        asked: &Asked,
        k: usize,
        start: Start,
        bar: &mut Bar,
    ) -> Result<()> {
        let (rows, totals) = self.unit(model, manifest, k, start)?;
        let sites = manifest.sites()?;
        let plan = capture::plan(model, &sites);
        let mut list: Vec<Statistics> = sites.iter().map(|site| asked.at(*site)).collect();
        let (mut next, all) = (manifest.rows_of(k).start, manifest.rows_of(k).end);
        let mut skip_to = |list: &mut [Statistics], number: u64, after: u64| {
            list.iter_mut().for_each(|one| one.skip((number - next) as usize));
            next = after;
        };
        for batch in batches::in_order(&rows, manifest.batch_tokens) {
            ensure!(!self.stop.asked(), "stopped");
            let first = rows[batch[0]].number;
            skip_to(&mut list, first, first + batch.len() as u64);
            let run = model.run(&batches::tokens(&rows, &batch)?, &plan);
            let cache =
                run.map_err(|error| anyhow!("{}: {error:#}", capture::names(&rows, &batch)))?.cache;
            list.iter_mut().try_for_each(|one| one.add(&cache))?;
            bar.add(batch.len());
        }
        skip_to(&mut list, all, all);
        bar.add(totals.empty as usize);
        let facts = Part { capture: manifest.hash()?, unit: k, totals };
        write(&self.dir, k, &list, &facts)
    }
}

/// Writes a part's folder, whole or not at all.
fn write(dir: &Path, k: usize, list: &[Statistics], facts: &Part) -> Result<()> {
    let path = part(dir, k);
    let partial = disk::partial(&path);
    let write = || -> Result<()> {
        if partial.exists() {
            fs::remove_dir_all(&partial)?; // of a worker that was killed
        }
        fs::create_dir_all(&partial)?;
        fs::write(partial.join(PART), serde_json::to_string(facts)? + "\n")?;
        File::open(partial.join(PART))?.sync_all()?;
        for statistics in list {
            let file = file(&partial, statistics.site());
            statistics.save(&file)?;
            File::open(&file)?.sync_all()?;
        }
        disk::settle(&partial, &path)
    };
    write().map_err(|error| {
        let _ = fs::remove_dir_all(&partial);
        anyhow!("cannot write {}: {error:#}", path.display())
    })
}

/// Merges the parts of a directory in their order, one file a site, and returns what they hold.
pub fn merge(dir: impl AsRef<Path>) -> Result<Totals> {
    let dir = dir.as_ref();
    let (manifest, asked) = opened(dir)?;
    let n = manifest.shards();
    let missing: Vec<usize> = (0..n).filter(|k| !part(dir, *k).exists()).collect();
    ensure!(
        missing.is_empty(),
        "{}: {} of {n} parts are missing, the first is {}: run the same command again, it goes on",
        dir.display(),
        missing.len(),
        missing[0]
    );
    let mut totals = Totals::default();
    for k in 0..n {
        totals += facts(dir, k, &manifest)?;
    }
    let mut bar = Bar::new("merging", manifest.sites.len() * n).unit("parts");
    for site in manifest.sites()? {
        let mut whole = asked.at(site);
        for k in 0..n {
            let path = file(&part(dir, k), site);
            let one = Statistics::open(&path)?;
            whole.merge(&one).map_err(|error| anyhow!("{}: {error:#}", path.display()))?;
            bar.add(1);
        }
        let path = file(dir, site);
        whole.save(&path)?;
        File::open(&path).and_then(|file| file.sync_all())?;
    }
    manifest.conclude(dir, totals)?;
    Ok(totals)
}

/// A directory of statistics: its manifest and what was asked for.
fn opened(dir: &Path) -> Result<(Manifest, Asked)> {
    let manifest = Manifest::open(dir)?;
    let asked = manifest.statistics.clone().with_context(|| {
        format!(
            "{}: it holds activations; `capture statistics` makes parts to merge",
            dir.display()
        )
    })?;
    Ok((manifest, asked))
}

/// What a part's facts say, if it belongs here.
fn facts(dir: &Path, k: usize, manifest: &Manifest) -> Result<Totals> {
    let path = part(dir, k).join(PART);
    let text = fs::read_to_string(&path);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    let facts: Part = serde_json::from_str(&text)
        .map_err(|error| anyhow!("{}: damaged: {error}", path.display()))?;
    let own = manifest.hash()?;
    ensure!(
        facts.capture == own,
        "{}: it belongs to another capture ({}, this is {own}): take it out of the directory and run again",
        part(dir, k).display(),
        facts.capture
    );
    ensure!(facts.unit == k, "{}: it is part {} under a wrong name", path.display(), facts.unit);
    Ok(facts.totals)
}

/// What is wrong with a directory of statistics, a line each.
pub(crate) fn faults(dir: &Path, manifest: &Manifest) -> Result<Vec<String>> {
    let (mut faults, mut totals) = (Vec::new(), Totals::default());
    let asked = opened(dir)?.1;
    for k in 0..manifest.shards() {
        if !part(dir, k).exists() {
            faults.push(format!("{}: missing", part(dir, k).display()));
            continue;
        }
        match facts(dir, k, manifest) {
            Ok(own) => totals += own,
            Err(error) => faults.push(format!("{error:#}")),
        }
        let rows = manifest.rows_of(k);
        for site in manifest.sites()? {
            let path = file(&part(dir, k), site);
            match Statistics::open(&path) {
                Ok(one) if one.prompts() as u64 != rows.end - rows.start => faults.push(format!(
                    "{}: it counts {} prompts, expected {}",
                    path.display(),
                    one.prompts(),
                    rows.end - rows.start
                )),
                Ok(one) => {
                    let merged = asked.at(site).merge(&one);
                    faults.extend(merged.err().map(|e| format!("{}: {e:#}", path.display())));
                }
                Err(error) => faults.push(format!("{error:#}")),
            }
        }
    }
    if faults.is_empty() && manifest.totals != Some(totals) {
        faults.push(format!("{}: not merged: run `capture merge` on it", dir.display()));
    }
    Ok(faults)
}
