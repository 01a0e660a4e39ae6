//! From a file of prompts to shards: what is asked for, and the pass that makes it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};

use anyhow::{Context, Result, anyhow, bail, ensure};
use thalweg::tch::{Device, Kind};
use thalweg::{Bar, Config, Model, Plan, Site, Sites};

use crate::batches::{self, Row};
use crate::manifest::{Manifest, ModelFacts, PromptFacts, Totals, Which, kind_name};
use crate::prompts::{Prompts, Start};
use crate::shard::{self, Batch, Shard, Writer};
use crate::units::{Stop, Units, Worker};

/// Bytes of a shard, about, unless the prompts in one are given.
const SHARD: f64 = (1u64 << 30) as f64;
/// Tokens that are run for a shard, at most: a kill should not cost more work than that.
const TOKENS: f64 = (1u64 << 22) as f64;
/// Prompts whose mean length says how many make a shard.
const SAMPLE: usize = 1000;

/// Activations of all prompts of a file, in a directory of safetensors shards.
///
/// A capture that was stopped, or killed, goes on when it is run again; several workers may run it
/// side by side. Whoever makes a shard, its bytes are the same: what is run together follows from the
/// arguments. (On machines of one kind, that is; another processor may round otherwise, and a server
/// does so from one time to the next, for it batches prompts as they happen to come.)
///
/// ```no_run
/// use thalweg::{Model, Point};
/// use thalweg_capture::{Capture, Captured, Prompts};
/// let model = Model::load("data/models/tiny-world")?;
/// let prompts = Prompts::open("prompts.txt", "text")?;
/// let done = Capture::new(prompts, "captured").sites(Point::ResidPost).run(&model)?;
/// assert_eq!(done.missing, 0);
/// let captured = Captured::open("captured")?;
/// let rows = captured.rows(Point::ResidPost.at(2), 0..100)?; // [100, DModel]
/// # thalweg::anyhow::Ok(())
/// ```
#[derive(Debug, Clone)]
pub struct Capture {
    pub(crate) prompts: Prompts,
    pub(crate) dir: PathBuf,
    sites: Sites,
    kind: Option<Kind>,
    positions: Which,
    max_tokens: Option<usize>,
    batch_tokens: usize,
    per_shard: Option<u64>,
    worker: Option<Worker>,
    pub(crate) stop: Stop,
}

/// What a call did.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    /// Shards made by this call.
    pub made: usize,
    /// Shards of the whole capture.
    pub shards: usize,
    /// Shards that are not there yet: other workers make them, or the call was stopped.
    pub missing: usize,
    /// Whether it was asked to stop.
    pub stopped: bool,
    /// What the whole capture holds, once nothing is missing.
    pub totals: Option<Totals>,
}

impl Capture {
    /// Prompts and the directory to make; sites are still to be named.
    pub fn new(prompts: Prompts, dir: impl AsRef<Path>) -> Self {
        Capture {
            prompts,
            dir: dir.as_ref().to_owned(),
            sites: Sites::default(),
            kind: None,
            positions: Which::All,
            max_tokens: None,
            batch_tokens: 4096,
            per_shard: None,
            worker: None,
            stop: Stop::default(),
        }
    }

    /// The sites to keep: one vector for each token, so none of queries and keys.
    pub fn sites(mut self, sites: impl Into<Sites>) -> Self {
        self.sites = sites.into();
        self
    }

    /// The kind to store in; the default is the model's.
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Of which tokens activations are kept; the default is all.
    pub fn positions(mut self, which: Which) -> Self {
        self.positions = which;
        self
    }

    /// Cuts longer prompts to their first `n` tokens; the default is the longest the model takes.
    pub fn max_tokens(mut self, n: usize) -> Self {
        self.max_tokens = Some(n);
        self
    }

    /// Tokens to run at once, padding included; the default is 4096.
    pub fn batch_tokens(mut self, n: usize) -> Self {
        self.batch_tokens = n;
        self
    }

    /// Rows of the prompt file in a shard; the default makes shards of about 1 GiB, of at most four
    /// million tokens.
    pub fn prompts_per_shard(mut self, n: u64) -> Self {
        self.per_shard = Some(n);
        self
    }

    /// Makes this worker's share alone; by default each takes the next shard that nobody has begun.
    pub fn worker(mut self, worker: Worker) -> Self {
        self.worker = Some(worker);
        self
    }

    /// Stops between two batches once this says so.
    pub fn stop(mut self, stop: &Stop) -> Self {
        self.stop = stop.clone();
        self
    }

    /// Captures what is not there yet.
    pub fn run(&self, model: &Model) -> Result<Done> {
        let (manifest, starts) = self.settled(model)?;
        self.work(
            &manifest,
            |k| shard::path(&self.dir, k).exists(),
            |k, bar| self.shard(model, &manifest, k, starts[k], bar),
        )
    }

    /// The manifest of what is asked for, agreed on with the directory, and where units begin.
    pub(crate) fn settled(&self, model: &Model) -> Result<(Manifest, Vec<Start>)> {
        let (manifest, starts) = self.manifest(model)?;
        manifest.settle(&self.dir)?;
        Ok((manifest, starts))
    }

    pub(crate) fn manifest(&self, model: &Model) -> Result<(Manifest, Vec<Start>)> {
        let config = model.config();
        let sites = self.checked_sites(config)?;
        let longest = config.longest_prompt();
        let max_tokens = self.max_tokens.unwrap_or(longest);
        ensure!(
            (1..=longest).contains(&max_tokens),
            "at most {max_tokens} tokens a prompt: expected 1 to {longest}, the longest this model takes"
        );
        ensure!(self.batch_tokens > 0, "batches of 0 tokens: expected at least 1");
        let kind = self.kind.unwrap_or(model.kind());
        let width =
            |site: &Site| -> Result<i64> { Ok(shard::inner(*site, config)?.iter().product()) };
        let width: i64 = sites.iter().map(width).sum::<Result<i64>>()?;
        let row_bytes = width as u64 * kind.elt_size_in_bytes() as u64 + 24;
        let per_shard = match self.per_shard {
            Some(n) => n,
            None => {
                let tokens = self.mean_tokens(model, max_tokens)?;
                let kept = if self.positions == Which::Last { 1.0 } else { tokens };
                (SHARD / (kept * row_bytes as f64)).min(TOKENS / tokens).max(1.0) as u64
            }
        };
        ensure!(per_shard > 0, "0 prompts a shard: expected at least 1");
        let survey = self.prompts.survey(per_shard)?;
        let file = self.prompts.path().file_name().unwrap_or_default().to_string_lossy();
        let facts = PromptFacts {
            file: file.into_owned(),
            column: self.prompts.column().map(str::to_owned),
            bytes: survey.bytes,
            sha256: survey.sha256,
            rows: survey.rows,
        };
        let mut manifest =
            Manifest::new(ModelFacts::of(model, &plan(model, &sites))?, &sites, facts);
        manifest.kind = kind_name(kind)?.to_owned();
        (manifest.positions, manifest.max_tokens) = (self.positions, max_tokens);
        (manifest.batch_tokens, manifest.prompts_per_shard) = (self.batch_tokens, per_shard);
        Ok((manifest, survey.starts))
    }

    fn checked_sites(&self, config: &Config) -> Result<Vec<Site>> {
        let mut sites = self.sites.resolve(config.n_layers);
        sites.sort();
        sites.dedup();
        ensure!(
            !sites.is_empty(),
            "no site to capture: name at least one, such as hook_resid_post"
        );
        for site in &sites {
            ensure!(
                site.layer().is_none_or(|layer| layer < config.n_layers),
                "{site}: the model has layers 0..{}",
                config.n_layers - 1
            );
            shard::inner(*site, config)?;
        }
        Ok(sites)
    }

    /// Tokens of a prompt, in the mean over the first ones.
    fn mean_tokens(&self, model: &Model, max_tokens: usize) -> Result<f64> {
        let (mut tokens, mut n) = (0, 0);
        for prompt in self.prompts.rows()?.take(SAMPLE) {
            let ids = batches::encode(model, prompt?).map_err(|error| {
                anyhow!("{}, prompt {n}: {error:#}", self.prompts.path().display())
            })?;
            tokens += ids.map_or(0, |ids| ids.len().min(max_tokens));
            n += 1;
        }
        Ok((tokens as f64 / f64::from(n.max(1))).max(1.0))
    }

    /// Makes the units that are this worker's, with a bar over their prompts.
    pub(crate) fn work(
        &self,
        manifest: &Manifest,
        done: impl Fn(usize) -> bool,
        mut make: impl FnMut(usize, &mut Bar) -> Result<()>,
    ) -> Result<Done> {
        let n = manifest.shards();
        let rows = |k: usize| manifest.rows_of(k).count();
        let own = |k: &usize| self.worker.is_none_or(|worker| worker.has(*k));
        // Those that others make meanwhile count as done, so that the time left is that of all.
        let mut open: BTreeSet<usize> = (0..n).filter(own).filter(|k| !done(*k)).collect();
        let mut bar = Bar::new("capture", open.iter().map(|k| rows(*k)).sum::<usize>());
        bar = bar.unit("prompts");
        let units = Units { dir: &self.dir, n, worker: self.worker, stop: &self.stop };
        let made = units.work(&done, |k| {
            open.remove(&k);
            let others: Vec<usize> = open.iter().copied().filter(|k| done(*k)).collect();
            bar.add(others.iter().map(|k| rows(*k)).sum());
            open.retain(|k| !others.contains(k));
            make(k, &mut bar)
        });
        let made = made.map_err(|error| {
            let there = (0..n).filter(|k| done(*k)).count();
            anyhow!("{error:#} ({there} of {n} parts are there, whole: the same command goes on)")
        })?;
        if !self.stop.asked() {
            bar.finish();
        }
        let (stopped, missing) = (self.stop.asked(), made.missing);
        self.concluded(
            manifest,
            Done { made: made.made, shards: n, missing, stopped, totals: None },
        )
    }

    fn concluded(&self, manifest: &Manifest, mut done: Done) -> Result<Done> {
        if done.missing == 0 && manifest.statistics.is_none() {
            let mut totals = Totals::default();
            for k in 0..done.shards {
                totals += Shard::open(&self.dir, k, manifest)?.totals;
            }
            manifest.conclude(&self.dir, totals)?;
            done.totals = Some(totals);
        }
        Ok(done)
    }

    /// Prompts of unit `k`.
    pub(crate) fn unit(
        &self,
        model: &Model,
        manifest: &Manifest,
        k: usize,
        start: Start,
    ) -> Result<(Vec<Row>, Totals)> {
        let rows = manifest.rows_of(k);
        let n = (rows.end - rows.start) as usize;
        let prompts = self.prompts.rows_from(start)?.take(n);
        let (list, totals) = batches::tokenized(model, manifest, rows.start, prompts).map_err(
            |(number, error)| match number {
                Some(number) => {
                    anyhow!("{}, prompt {number}: {error:#}", self.prompts.path().display())
                }
                None => error,
            },
        )?;
        let seen = (totals.prompts + totals.empty) as usize;
        ensure!(
            seen == n,
            "{}: it has changed since it was read first",
            self.prompts.path().display()
        );
        Ok((list, totals))
    }

    fn shard(
        &self,
        model: &Model,
        manifest: &Manifest,
        k: usize,
        start: Start,
        bar: &mut Bar,
    ) -> Result<()> {
        let (rows, totals) = self.unit(model, manifest, k, start)?;
        let mut writer = Writer::create(&self.dir, k, manifest, &rows, totals)?;
        // While one batch is computed the one before is written, and one may wait between them.
        let (send, receive) = sync_channel::<Batch>(1);
        std::thread::scope(|scope| {
            let writing = scope.spawn(move || -> Result<Writer<'_>> {
                for batch in receive {
                    writer.write(&batch)?;
                }
                Ok(writer)
            });
            let fed = self.feed(model, manifest, &rows, &send, bar);
            drop(send);
            let written =
                writing.join().unwrap_or_else(|_| bail!("the writer of shard {k} panicked"));
            // Where writing failed, feeding did so only for that.
            let writer = written?;
            fed?;
            writer.finish(manifest)
        })?;
        bar.add(totals.empty as usize);
        Ok(())
    }

    /// Runs the unit's batches and hands them on.
    fn feed(
        &self,
        model: &Model,
        manifest: &Manifest,
        rows: &[Row],
        send: &SyncSender<Batch>,
        bar: &mut Bar,
    ) -> Result<()> {
        let sites = manifest.sites()?;
        let plan = plan(model, &sites);
        for batch in batches::by_length(rows, manifest.batch_tokens) {
            ensure!(!self.stop.asked(), "stopped");
            let tokens = batches::tokens(rows, &batch)?;
            let cache = model.run(&tokens, &plan).with_context(|| names(rows, &batch));
            let cache = cache.map_err(|error| anyhow!("{error:#}"))?.cache;
            let tensors = sites.iter().map(|site| cache.get(*site)).collect::<Result<_>>()?;
            let n = batch.len();
            send.send(Batch { rows: batch, tensors }).map_err(|_| anyhow!("the writer stopped"))?;
            bar.add(n);
        }
        Ok(())
    }
}

/// Records the sites and computes no logits that nobody asked for.
pub(crate) fn plan(model: &Model, sites: &[Site]) -> Plan {
    let mut plan = Plan::new().cache(sites);
    if !sites.contains(&Site::Logits) {
        plan = plan.logits_at(-1);
    }
    match model.device() {
        Device::Cpu => plan,
        _ => plan.offload(Device::Cpu),
    }
}

/// The prompts of a batch, for messages.
pub(crate) fn names(rows: &[Row], batch: &[usize]) -> String {
    let numbers = batch.iter().map(|at| rows[*at].number);
    match (numbers.clone().min(), numbers.max()) {
        (Some(low), Some(high)) if low != high => format!("prompts {low} to {high}"),
        (Some(low), _) => format!("prompt {low}"),
        _ => "no prompts".to_owned(),
    }
}
