//! `capture.json`: what a directory of captured activations is, written before anything else.
//!
//! Every byte of every shard follows from it, so that shards made by different workers, or on
//! different days, belong together. A call that asks for anything else is refused.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use thalweg::tch::Kind;
use thalweg::{Config, Model, Plan, Site, Tokens};

use crate::disk;

/// The manifest's name in its directory.
pub(crate) const NAME: &str = "capture.json";
const FORMAT: &str = "thalweg capture 1";

/// Of which tokens of a prompt the activations are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    /// Of all.
    #[default]
    All,
    /// Of the last alone.
    Last,
}

/// What a capture is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    format: String,
    /// The model that was run.
    pub model: ModelFacts,
    /// The sites' names, in the order in which their tensors lie in a shard.
    pub sites: Vec<String>,
    /// How activations are stored: `f32`, `bf16`, `f16` or `f64`; statistics are always f64.
    pub kind: String,
    /// Of which tokens.
    pub positions: Which,
    /// Longer prompts are cut to so many tokens.
    pub max_tokens: usize,
    /// Tokens that are run at once, padding included.
    pub batch_tokens: usize,
    /// The file of prompts.
    pub prompts: PromptFacts,
    /// Rows of that file that go into one shard.
    pub prompts_per_shard: u64,
    /// What is counted, where statistics are kept and not the activations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics: Option<crate::statistics::Asked>,
    /// What came of it, once everything is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totals: Option<Totals>,
}

/// The model of a capture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelFacts {
    /// Where it came from; the one thing about it that may differ between workers.
    pub source: String,
    /// Hash of its weights.
    pub weights: String,
    /// The kind it computes in.
    pub kind: String,
    /// Its `config.json`.
    pub config: Value,
}

/// The prompts of a capture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromptFacts {
    /// Name of the file; may differ, as long as its content does not.
    pub file: String,
    /// The column, in a file that has columns.
    pub column: Option<String>,
    /// Size of the file.
    pub bytes: u64,
    /// Its hash.
    pub sha256: String,
    /// Its lines or rows, empty ones included.
    pub rows: u64,
}

/// What was captured in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Prompts that were run.
    pub prompts: u64,
    /// Empty rows, which were skipped.
    pub empty: u64,
    /// Prompts that were longer than `max_tokens` and were cut.
    pub cut: u64,
    /// Tokens that were run.
    pub tokens: u64,
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Totals) {
        self.prompts += other.prompts;
        self.empty += other.empty;
        self.cut += other.cut;
        self.tokens += other.tokens;
    }
}

impl ModelFacts {
    /// One token is run, with the plan that will be: what a model cannot give it refuses at once.
    pub(crate) fn of(model: &Model, plan: &Plan) -> Result<Self> {
        let record = model.run(&Tokens::from_ids(&[vec![0]])?, plan)?.record()?;
        let (source, weights, kind) = (record.model, record.weights, record.kind);
        Ok(ModelFacts { source, weights, kind, config: record.config })
    }
}

impl Manifest {
    /// Blank but for what is given; the rest is filled in by the one who asks.
    pub(crate) fn new(model: ModelFacts, sites: &[Site], prompts: PromptFacts) -> Self {
        Manifest {
            format: FORMAT.to_owned(),
            model,
            sites: sites.iter().map(Site::to_string).collect(),
            kind: String::new(),
            positions: Which::All,
            max_tokens: 0,
            batch_tokens: 0,
            prompts,
            prompts_per_shard: 1,
            statistics: None,
            totals: None,
        }
    }

    /// Reads the manifest of a directory.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let path = dir.as_ref().join(NAME);
        let text = fs::read_to_string(&path).with_context(|| {
            format!("{}: expected a directory that `capture run` made", path.display())
        })?;
        let read = || -> Result<Self> {
            let value: Value = serde_json::from_str(&text)?;
            let format = value["format"].as_str().unwrap_or("nothing");
            ensure!(format == FORMAT, "its format is {format:?}, expected {FORMAT:?}");
            let manifest: Manifest = serde_json::from_value(value)?;
            ensure!(manifest.prompts_per_shard > 0, "prompts_per_shard is 0");
            manifest.sites()?;
            manifest.kind()?;
            Ok(manifest)
        };
        read().map_err(|error| anyhow::anyhow!("{}: not a manifest: {error:#}", path.display()))
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.prompts.rows.div_ceil(self.prompts_per_shard) as usize
    }

    /// Rows of the prompt file that shard `k` holds.
    pub fn rows_of(&self, k: usize) -> std::ops::Range<u64> {
        let first = k as u64 * self.prompts_per_shard;
        first..(first + self.prompts_per_shard).min(self.prompts.rows)
    }

    /// The sites.
    pub fn sites(&self) -> Result<Vec<Site>> {
        self.sites.iter().map(|name| name.parse()).collect()
    }

    /// The model's dimensions.
    pub fn config(&self) -> Result<Config> {
        Config::from_json(&self.model.config)
    }

    /// The kind activations are stored in.
    pub fn kind(&self) -> Result<Kind> {
        parse_kind(&self.kind)
    }

    /// Hash of all that decides a shard's bytes: every shard carries it.
    pub(crate) fn hash(&self) -> Result<String> {
        let text = serde_json::to_string(&self.deciding())?;
        Ok(Sha256::digest(text).iter().take(16).map(|byte| format!("{byte:02x}")).collect())
    }

    /// Without what may differ from worker to worker, and what is known only in the end.
    fn deciding(&self) -> Manifest {
        let mut deciding = self.clone();
        deciding.model.source.clear();
        deciding.prompts.file.clear();
        deciding.totals = None;
        deciding
    }

    /// Writes the manifest of a new directory, or compares it with the one that is there.
    pub(crate) fn settle(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let path = dir.join(NAME);
        if !path.exists() {
            let empty = fs::read_dir(dir)?.flatten().all(|entry| disk::is_partial(&entry.path()));
            ensure!(
                empty,
                "{}: neither empty nor a capture: it has no {NAME}; expected a new directory",
                dir.display()
            );
            disk::write_first(&path, self.text()?.as_bytes())?;
        }
        let [theirs, own] = [Manifest::open(dir)?, self.clone()].map(|one| one.deciding());
        let [theirs, own] = [serde_json::to_value(theirs)?, serde_json::to_value(own)?];
        if let Some((name, theirs, own)) = difference("", &theirs, &own) {
            bail!(
                "{}: begun with {name} {theirs}, and now it is {own}: repeat the call as it was, or capture into another directory",
                dir.display()
            );
        }
        Ok(())
    }

    /// Writes the totals into the manifest.
    pub(crate) fn conclude(&self, dir: &Path, totals: Totals) -> Result<()> {
        let mut done = Manifest::open(dir)?;
        if done.totals == Some(totals) {
            return Ok(());
        }
        done.totals = Some(totals);
        disk::write(&dir.join(NAME), done.text()?.as_bytes())
    }

    fn text(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

/// A few lines: model, prompts, what is kept, and what came of it.
impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Manifest { model, prompts, positions, .. } = self;
        writeln!(f, "model {} in {}, weights {}", model.source, model.kind, model.weights)?;
        let column = prompts.column.as_ref().map(|c| format!(", column {c}")).unwrap_or_default();
        writeln!(
            f,
            "prompts {}{column}: {} rows, {} in a shard, cut to {} tokens",
            prompts.file, prompts.rows, self.prompts_per_shard, self.max_tokens
        )?;
        match &self.statistics {
            Some(asked) => writeln!(f, "statistics {asked:?} of {}", self.sites.join(", "))?,
            None => writeln!(
                f,
                "{} positions as {} at {}",
                if *positions == Which::All { "all" } else { "last" },
                self.kind,
                self.sites.join(", ")
            )?,
        }
        match self.totals {
            Some(Totals { prompts, empty, cut, tokens }) => {
                write!(
                    f,
                    "done: {prompts} prompts, {tokens} tokens; {cut} prompts cut, {empty} empty rows skipped"
                )
            }
            None => write!(f, "not done yet"),
        }
    }
}

/// The first place where two JSON values differ: its name and both.
fn difference(at: &str, a: &Value, b: &Value) -> Option<(String, Value, Value)> {
    let (Value::Object(x), Value::Object(y)) = (a, b) else {
        return (a != b).then(|| (at.to_owned(), a.clone(), b.clone()));
    };
    let keys = x.keys().chain(y.keys().filter(|key| !x.contains_key(*key)));
    keys.filter_map(|key| {
        let name = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        let [a, b] = [x, y].map(|map| map.get(key).unwrap_or(&Value::Null));
        difference(&name, a, b)
    })
    .next()
}

/// `f32`, `bf16`, `f16`, `f64`.
pub fn parse_kind(name: &str) -> Result<Kind> {
    Ok(match name {
        "f32" => Kind::Float,
        "bf16" => Kind::BFloat16,
        "f16" => Kind::Half,
        "f64" => Kind::Double,
        other => bail!("kind {other:?}: expected f32, bf16, f16 or f64"),
    })
}

/// The name of a kind in a manifest.
pub(crate) fn kind_name(kind: Kind) -> Result<&'static str> {
    Ok(match kind {
        Kind::Float => "f32",
        Kind::BFloat16 => "bf16",
        Kind::Half => "f16",
        Kind::Double => "f64",
        other => bail!("kind {other:?}: expected f32, bf16, f16 or f64"),
    })
}
