//! What rust-analyzer is told of a cell's dependencies: those that a cell can name.
//!
//! rust-analyzer reads every crate that `cargo metadata` lists and searches all of them for trait implementations, at
//! the start and again for each new variable. Of more than 180 crates most only serve thalweg's own dependencies; no
//! type of theirs is in a signature that a cell meets. Left out, start-up and inference take about a third of the
//! time. What the reader adds by `:dep` is listed whole. `THALWEG_ANALYSIS=all` lists everything.

use std::collections::{BTreeSet, HashMap};
use std::env;
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{FAILED, Tools, same};

/// Dependencies of thalweg that offer what their own dependencies define: number and serialisation traits.
const TRANSPARENT: [&str; 2] = ["ndarray", "serde"];

/// Dependencies of thalweg of which no type is in its signatures.
const INNER: [&str; 10] = [
    "half",
    "hdbscan",
    "hf-hub",
    "kodama",
    "minijinja",
    "minijinja-contrib",
    "safetensors",
    "sha2",
    "statrs",
    "torch-sys",
];

/// Whether this is rust-analyzer's question for the graph of a cell's crates.
pub(super) fn asks(tools: &Tools, arguments: &[OsString]) -> bool {
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    let manifest = arguments.iter().skip_while(|word| *word != "--manifest-path").nth(1);
    has("metadata")
        && !has("--no-deps")
        && env::var_os("THALWEG_ANALYSIS").is_none_or(|value| value != "all")
        && manifest.is_some_and(|path| same(Path::new(path), &tools.work().join("Cargo.toml")))
}

/// Asks cargo and passes on the answer without the crates that no cell can name.
pub(super) fn answer(tools: &Tools, arguments: &[OsString]) -> Result<i32> {
    let output = Command::new(tools.cargo())
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    let known = serde_json::from_slice(&output.stdout).ok().and_then(without_unnamed);
    let text = known.map_or(output.stdout, |metadata| metadata.to_string().into_bytes());
    std::io::stdout().write_all(&text)?;
    Ok(output.status.code().unwrap_or(FAILED))
}

/// None where the answer is not understood.
fn without_unnamed(mut metadata: Value) -> Option<Value> {
    let kept = kept(&metadata)?;
    let keeps = |id: &Value| id.as_str().is_some_and(|id| kept.contains(id));
    metadata["packages"].as_array_mut()?.retain(|package| keeps(&package["id"]));
    let nodes = metadata["resolve"]["nodes"].as_array_mut()?;
    nodes.retain(|node| keeps(&node["id"]));
    for node in nodes {
        node["deps"].as_array_mut()?.retain(|dependency| keeps(&dependency["pkg"]));
        node["dependencies"].as_array_mut()?.retain(keeps);
    }
    Some(metadata)
}

/// The ids of the cell's crate, of thalweg and what it directly depends on, and of all that anything else brings.
fn kept(metadata: &Value) -> Option<BTreeSet<String>> {
    let names: HashMap<&str, &str> = (metadata["packages"].as_array()?.iter())
        .filter_map(|package| Some((package["id"].as_str()?, package["name"].as_str()?)))
        .collect();
    let below: HashMap<&str, Vec<&str>> = (metadata["resolve"]["nodes"].as_array()?.iter())
        .filter_map(|node| {
            let ids = node["dependencies"].as_array()?.iter().filter_map(Value::as_str).collect();
            Some((node["id"].as_str()?, ids))
        })
        .collect();
    let of = |id: &str| below.get(id).cloned().unwrap_or_default();
    let name = |id: &str| names.get(id).copied().unwrap_or_default();
    let cell = metadata["workspace_members"][0].as_str()?;
    let mut kept = BTreeSet::from([cell]);
    let mut open = Vec::new();
    for direct in of(cell) {
        if name(direct) != "thalweg" {
            open.push(direct);
            continue;
        }
        kept.insert(direct);
        for used in of(direct).into_iter().filter(|used| !INNER.contains(&name(used))) {
            kept.insert(used);
            if TRANSPARENT.contains(&name(used)) {
                kept.extend(of(used));
            }
        }
    }
    // A crate above may be here for thalweg alone; what is under `open` comes with everything below it.
    let mut whole = BTreeSet::new();
    while let Some(id) = open.pop() {
        if whole.insert(id) {
            open.extend(of(id));
        }
    }
    Some(kept.into_iter().chain(whole).map(str::to_owned).collect())
}
