//! Which files of a repository make a model: its config, its tokenizer's files and its safetensors
//! weights; never a pickle.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::names::is_plain;

/// All weights in one file.
pub(super) const SINGLE: &str = "model.safetensors";
/// Which weights are in which file.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// Files that come where there are such, beside `config.json` and the weights.
pub(super) const OPTIONAL: [&str; 5] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
];
/// How files end that hold weights in a form that is not read.
const OTHER_WEIGHTS: [&str; 8] =
    [".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".safetensors"];

/// The files of a repository that are fetched.
#[derive(Debug)]
pub(super) struct Choice {
    /// The small ones, less `config.json` and the index.
    pub(super) small: Vec<String>,
    /// The index, where the weights are in several files.
    pub(super) index: Option<&'static str>,
}

impl Choice {
    pub(super) fn of(files: &BTreeSet<String>) -> Result<Self> {
        ensure!(
            files.contains("config.json"),
            "there is no config.json: expected a model in Hugging Face's format"
        );
        if !files.contains(SINGLE) && !files.contains(INDEX) {
            return Err(no_weights(files));
        }
        let index = (!files.contains(SINGLE)).then_some(INDEX);
        let wanted = |file: &&String| OPTIONAL.contains(&file.as_str()) || is_template(file);
        Ok(Choice { small: files.iter().filter(wanted).cloned().collect(), index })
    }
}

fn is_template(file: &str) -> bool {
    let name = file.strip_prefix("chat_templates/").and_then(|name| name.strip_suffix(".jinja"));
    name.is_some_and(is_plain)
}

fn no_weights(files: &BTreeSet<String>) -> anyhow::Error {
    let found = files.iter().filter(|file| OTHER_WEIGHTS.iter().any(|end| file.ends_with(end)));
    let found: Vec<_> = found.filter(|file| is_plain(file)).map(String::as_str).collect();
    match found.as_slice() {
        [] => anyhow::anyhow!("there are no weights: expected {SINGLE} or {INDEX}"),
        [first, rest @ ..] => anyhow::anyhow!(
            "the weights are in {first}{}: expected {SINGLE} or {INDEX}, other forms (pickles can run code) are not opened; look for a revision or a copy with safetensors",
            if rest.is_empty() { "" } else { " and the like" }
        ),
    }
}

/// The files that an index names, each in the directory of the index itself.
pub(super) fn shards(index: &Path) -> Result<BTreeSet<String>> {
    let text = std::fs::read_to_string(index)
        .with_context(|| format!("cannot read {}", index.display()))?;
    let json: serde_json::Value = serde_json::from_str(&text)
        .map_err(|error| anyhow::anyhow!("{}: not JSON: {error}", index.display()))?;
    let map = json["weight_map"]
        .as_object()
        .with_context(|| format!("{}: weight_map is missing", index.display()))?;
    let mut shards = BTreeSet::new();
    for (name, file) in map {
        let file = file.as_str().unwrap_or_default();
        ensure!(
            is_plain(file) && file.ends_with(".safetensors"),
            "{}: weight_map[{name:?}] = {file:?}: expected the name of a .safetensors file beside it",
            index.display()
        );
        shards.insert(file.to_owned());
    }
    ensure!(!shards.is_empty(), "{}: weight_map is empty", index.display());
    Ok(shards)
}
