//! Prompt sets: texts with their corruptions, right and wrong answers and named places.
//!
//! A set is text. [`Prompts::aligned`] turns it into token ids through a model's tokenizer and
//! proves what comparisons between rows need: equal lengths, equal places, one-token answers.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};

mod aligned;
mod mean;

pub use aligned::{Aligned, Encode};
pub use mean::{Mean, mean};

/// One prompt: a text that ends where the model is to answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// The text as it is meant.
    pub clean: String,
    /// Corrupted texts by the name of the corruption: `ABC`, `swap`, `random name`, ...
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub corrupt: BTreeMap<String, String>,
    /// Every right answer; usually one.
    pub right: Vec<String>,
    /// Tempting wrong answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wrong: Vec<String>,
    /// Named places: first token and one past the last, counted with BOS as token 0.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub roles: BTreeMap<String, [usize; 2]>,
    /// The kind of prompt within the task, such as a template.
    #[serde(default)]
    pub label: String,
    /// `test`: of a kind trained on, though this very text was not; `held out`: of a kind that
    /// training never showed.
    #[serde(default)]
    pub split: String,
}

/// A set of prompts for one task, with its origin.
///
/// ```
/// use thalweg::prompts::Prompts;
/// let text = r#"{"task": "capital", "generator": "by hand", "seed": 0, "licence": "MIT", "prompts": [
///     {"clean": "The capital of Peru is", "right": ["Lima"], "label": "plain", "split": "test"}]}"#;
/// let prompts = Prompts::from_json(text)?;
/// assert_eq!(prompts.clean(), ["The capital of Peru is"]);
/// assert!(prompts.labelled("other").unwrap_err().to_string().contains("plain"));
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompts {
    /// The name of the task.
    pub task: String,
    /// What wrote the set.
    pub generator: String,
    /// The seed it was drawn with.
    pub seed: u64,
    /// The licence of the set.
    pub licence: String,
    /// The prompts themselves.
    pub prompts: Vec<Prompt>,
}

impl Prompts {
    /// Read a set from a JSON file, as [`Prompts::save`] writes it.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|e| anyhow!("cannot read the prompt set {}: {e}", path.display()))?;
        Self::from_json(&text).map_err(|e| anyhow!("{}: {e:#}", path.display()))
    }

    /// Read a set from JSON. Every prompt needs a text, an answer, and roles that are not empty.
    pub fn from_json(text: &str) -> Result<Self> {
        let set: Prompts =
            serde_json::from_str(text).map_err(|e| anyhow!("this is not a prompt set: {e}"))?;
        for (i, p) in set.prompts.iter().enumerate() {
            ensure!(!p.clean.trim().is_empty(), "prompt {i} of `{}` has no text", set.task);
            ensure!(!p.right.is_empty(), "prompt {i} of `{}` has no right answer", set.task);
            if let Some((role, [from, to])) = p.roles.iter().find(|(_, [a, b])| a >= b) {
                bail!("prompt {i} of `{}`: role `{role}` spans {from}..{to}, no token", set.task);
            }
        }
        Ok(set)
    }

    /// Write the set as JSON, one prompt a line.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        std::fs::write(path, self.to_json()?)
            .map_err(|e| anyhow!("cannot write the prompt set {}: {e}", path.display()))
    }

    /// The set as JSON, one prompt a line.
    pub fn to_json(&self) -> Result<String> {
        let lines: Vec<String> =
            self.prompts.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        let quoted = |s: &str| serde_json::to_string(s);
        Ok(format!(
            "{{\"task\": {}, \"generator\": {}, \"seed\": {}, \"licence\": {}, \"prompts\": [\n{}\n]}}\n",
            quoted(&self.task)?,
            quoted(&self.generator)?,
            self.seed,
            quoted(&self.licence)?,
            lines.join(",\n")
        ))
    }

    /// Number of prompts.
    pub fn len(&self) -> usize {
        self.prompts.len()
    }

    /// Whether the set holds no prompt.
    pub fn is_empty(&self) -> bool {
        self.prompts.is_empty()
    }

    /// The clean texts, in order: what `model.batch` takes.
    pub fn clean(&self) -> Vec<&str> {
        self.prompts.iter().map(|p| p.clean.as_str()).collect()
    }

    /// The texts under the corruption of this name; an error if a prompt lacks it.
    pub fn corrupted(&self, name: &str) -> Result<Vec<&str>> {
        let find = |(i, p): (usize, &Prompt)| match p.corrupt.get(name) {
            Some(_) => Ok(i),
            None => bail!(
                "prompt {i} of `{}` has no corruption `{name}`; {}",
                self.task,
                one_of("it has", p.corrupt.keys())
            ),
        };
        let rows = self.prompts.iter().enumerate().map(find).collect::<Result<Vec<_>>>()?;
        Ok(rows.into_iter().map(|i| self.prompts[i].corrupt[name].as_str()).collect())
    }

    /// The label of each prompt.
    pub fn labels(&self) -> Vec<&str> {
        self.prompts.iter().map(|p| p.label.as_str()).collect()
    }

    /// The right answer of each prompt, the first of several: labels for a probe.
    pub fn right_answers(&self) -> Vec<String> {
        self.prompts.iter().map(|p| p.right.first().cloned().unwrap_or_default()).collect()
    }

    /// The prompts for which `keep` holds.
    pub fn filter(&self, keep: impl Fn(&Prompt) -> bool) -> Prompts {
        self.with(self.prompts.iter().filter(|p| keep(p)).cloned().collect())
    }

    /// The prompts with this label; if there is none, an error that lists the labels.
    pub fn labelled(&self, label: &str) -> Result<Prompts> {
        self.chosen("label", label, |p| &p.label)
    }

    /// The prompts of this split (`test`, `held out`); if there is none, an error that lists them.
    pub fn split(&self, name: &str) -> Result<Prompts> {
        self.chosen("split", name, |p| &p.split)
    }

    /// The set cut into batches of at most `n` prompts, in order; `n` = 0 is an error.
    pub fn batches(&self, n: usize) -> Result<Vec<Prompts>> {
        ensure!(n > 0, "a batch of 0 prompts: ask for at least 1");
        Ok(self.prompts.chunks(n).map(|part| self.with(part.to_vec())).collect())
    }

    /// The first `n` prompts, or all if there are fewer.
    pub fn first(&self, n: usize) -> Prompts {
        self.with(self.prompts.iter().take(n).cloned().collect())
    }

    /// Mean of one value per prompt within each label, with its interval: see [`mean`].
    pub fn mean_by_label(&self, values: &[f64]) -> Result<Vec<(String, Mean)>> {
        ensure!(
            values.len() == self.len(),
            "{} values for the {} prompts of `{}`: one value a prompt is needed",
            values.len(),
            self.len(),
            self.task
        );
        let mut groups: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (prompt, value) in self.prompts.iter().zip(values) {
            groups.entry(&prompt.label).or_default().push(*value);
        }
        groups.into_iter().map(|(label, v)| Ok((label.to_string(), mean(&v)?))).collect()
    }

    fn chosen(&self, what: &str, name: &str, key: fn(&Prompt) -> &String) -> Result<Prompts> {
        let found = self.filter(|p| key(p) == name);
        if found.is_empty() {
            let mut known: Vec<&String> = self.prompts.iter().map(key).collect();
            known.sort_unstable();
            known.dedup();
            bail!(
                "no prompt of `{}` has the {what} `{name}`; {}",
                self.task,
                one_of("there is", known)
            );
        }
        Ok(found)
    }

    fn with(&self, prompts: Vec<Prompt>) -> Prompts {
        Prompts {
            task: self.task.clone(),
            generator: self.generator.clone(),
            seed: self.seed,
            licence: self.licence.clone(),
            prompts,
        }
    }
}

/// "it has `a`, `b`", or "it has none".
fn one_of<T: std::fmt::Display>(start: &str, names: impl IntoIterator<Item = T>) -> String {
    let names: Vec<String> = names.into_iter().map(|n| format!("`{n}`")).collect();
    if names.is_empty() { format!("{start} none") } else { format!("{start} {}", names.join(", ")) }
}
