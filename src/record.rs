//! Where numbers come from: what must be known to get them again.
//!
//! A run's cache, and every grid and figure made from it, carries the record of that run. It costs a
//! run next to nothing: the weights are hashed when a record is first asked for.

mod fingerprint;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tch::Kind;

use crate::text::Tokens;

pub(crate) use fingerprint::{Fingerprint, Weighed};

/// What one run was: model, arithmetic, prompts and plan.
///
/// ```no_run
/// use thalweg::{Model, Plan, Record};
/// let model = Model::load("data/models/tiny-world")?;
/// let run = model.run(&model.tokens("Mary and John")?, &Plan::new())?;
/// let record = run.record()?;
/// assert!(record.weights.starts_with("sha256:"));
/// record.save("run.record.json")?;
/// assert_eq!(Record::open("run.record.json")?, record);
/// # thalweg::anyhow::Ok(())
/// ```
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Record {
    /// Version of this crate.
    pub thalweg: String,
    /// Version of libtorch that it was built with.
    pub libtorch: String,
    /// Where the model came from: its directory, and what was done to it since.
    pub model: String,
    /// `sha256:` and the hash of the weights, see [`Model::weights_hash`](crate::Model::weights_hash);
    /// otherwise the reason why it cannot be told.
    pub weights: String,
    /// The model's `config.json`.
    pub config: serde_json::Value,
    /// Kind of weights and residual stream.
    pub kind: String,
    /// Devices of the weights.
    pub device: String,
    /// How attention was computed.
    pub attention: String,
    /// What was recorded and changed, as `Debug` prints the plan.
    pub plan: String,
    /// Token ids, one row a prompt.
    pub ids: Vec<Vec<i64>>,
    /// What the ids stand for.
    pub pieces: Vec<Vec<String>>,
    /// What was drawn from, where the run itself drew.
    pub seed: Option<u64>,
    /// What the reader of the numbers should know.
    pub notes: Vec<String>,
}

impl Record {
    /// Writes the record as JSON.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let json = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads a record that [`save`](Self::save) wrote.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text)
            .map_err(|error| anyhow::anyhow!("{}: not a record: {error}", path.display()))
    }
}

impl Record {
    /// Of activations that a server sent.
    pub(crate) fn served(server: &str, kind: Kind, (tokens, plan): (&Tokens, String)) -> Self {
        Record {
            thalweg: env!("CARGO_PKG_VERSION").to_owned(),
            libtorch: "the server's".to_owned(),
            model: server.to_owned(),
            weights: "on the server, not hashed".to_owned(),
            config: serde_json::Value::Null,
            kind: format!("{kind:?}"),
            device: "the server's".to_owned(),
            attention: "vLLM".to_owned(),
            plan,
            ids: tokens.ids().to_vec(),
            pieces: tokens.pieces().to_vec(),
            seed: None,
            notes: Vec::new(),
        }
    }
}

/// A few lines: versions and arithmetic, the model, the plan, the prompts.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record { thalweg, libtorch, kind, device, attention, .. } = self;
        writeln!(
            f,
            "thalweg {thalweg}, libtorch {libtorch}, {kind} on {device}, {attention} attention"
        )?;
        writeln!(f, "model {}, weights {}", self.model, self.weights)?;
        let seed = self.seed.map(|seed| format!(", seed {seed}")).unwrap_or_default();
        writeln!(f, "{}{seed}", self.plan)?;
        let first: String = self.pieces.first().map(|row| row.join("|")).unwrap_or_default();
        let shown: String = first.chars().take(80).collect();
        let more = if shown.len() < first.len() || self.ids.len() > 1 { " ..." } else { "" };
        let tokens: usize = self.ids.iter().map(Vec::len).sum();
        write!(f, "prompts {}, {tokens} tokens: {}{more}", self.ids.len(), shown.escape_debug())?;
        self.notes.iter().try_for_each(|note| write!(f, "\n{note}"))
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_string().replace('\n', "; "))
    }
}

/// A record whose weights are hashed when it is asked for. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Origin {
    record: Arc<Record>,
    weights: Option<Weighed>,
}

impl Origin {
    /// The weights' entry of `record` is filled in when it is read.
    pub(crate) fn new(record: Record, weights: Weighed) -> Self {
        Origin { record: Arc::new(record), weights: Some(weights) }
    }

    /// A record that is complete.
    pub(crate) fn known(record: Record) -> Self {
        Origin { record: Arc::new(record), weights: None }
    }

    /// The same run without its prompts, for what is made of any number of them.
    pub(crate) fn without_prompts(&self) -> Self {
        let mut record = (*self.record).clone();
        record.ids.clear();
        record.pieces.clear();
        record.notes.push("the prompts were not kept".to_owned());
        Origin { record: Arc::new(record), weights: self.weights.clone() }
    }

    pub(crate) fn record(&self) -> Record {
        let mut record = (*self.record).clone();
        if let Some(weights) = &self.weights {
            record.weights = weights.hash();
        }
        record
    }
}

impl PartialEq for Origin {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.record, &other.record)
            || self.record == other.record && self.weights == other.weights
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "run of {}", self.record.model)
    }
}
