//! Whether a directory is what its manifest says.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

use crate::manifest::{Manifest, NAME, Totals, Which};
use crate::shard::{self, COLUMNS, Shard};
use crate::{disk, index, statistics};

/// What is there of a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct There {
    /// Shards, or parts of statistics.
    pub parts: usize,
    /// Bytes of all files.
    pub bytes: u64,
}

/// What is there of a capture, whole or not.
pub fn there(dir: impl AsRef<Path>, manifest: &Manifest) -> There {
    let dir = dir.as_ref();
    let name = |k: usize| match manifest.statistics {
        Some(_) => dir.join(format!("part-{k:05}")),
        None => shard::path(dir, k),
    };
    let parts = (0..manifest.shards()).filter(|k| name(*k).exists()).count();
    There { parts, bytes: bytes(dir) }
}

fn bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// What is wrong with a directory, a line each; nothing if it is whole. Reads every index and the
/// columns that say which token a row is of, not the activations.
pub fn check(dir: impl AsRef<Path>) -> Result<Vec<String>> {
    let dir = dir.as_ref();
    let manifest = Manifest::open(dir)?;
    if manifest.statistics.is_some() {
        return statistics::faults(dir, &manifest);
    }
    let (mut faults, mut totals) = (Vec::new(), Totals::default());
    for k in 0..manifest.shards() {
        let path = shard::path(dir, k);
        if !path.exists() {
            faults.push(format!("{}: missing: run the capture again, it goes on", path.display()));
            continue;
        }
        match Shard::open(dir, k, &manifest) {
            Ok(shard) => {
                totals += shard.totals;
                let wrong = content(dir, k, &manifest, &shard).err();
                faults.extend(wrong.map(|error| format!("{error:#}")));
            }
            Err(error) => faults.push(format!("{error:#}")),
        }
    }
    faults.extend(strangers(dir, &manifest));
    if faults.is_empty() && manifest.totals != Some(totals) {
        let path = dir.join(NAME);
        faults.push(format!(
            "{}: its totals are not those of the shards: run the capture again",
            path.display()
        ));
    }
    Ok(faults)
}

/// Whether a shard's rows are those of its prompts, each once, and its index says the same.
fn content(dir: &Path, k: usize, manifest: &Manifest, shard: &Shard) -> Result<()> {
    let path = shard::path(dir, k).display().to_string();
    let [prompts, positions, tokens] = COLUMNS.map(|name| shard.column(name, 0..shard.rows));
    let places = [prompts?, positions?, tokens?];
    let (rows, mut seen, mut last) = (manifest.rows_of(k), 0, None);
    for (row, (prompt, position)) in places[0].iter().zip(&places[1]).enumerate() {
        ensure!(
            rows.contains(&(*prompt as u64)),
            "{path}: row {row} is of prompt {prompt}, outside {rows:?}"
        );
        let fits = match (last, manifest.positions) {
            (Some((before, at)), Which::All) if before == *prompt => *position == at + 1,
            (Some((before, _)), _) if before >= *prompt => false,
            (_, Which::All) => *position == 0,
            (_, Which::Last) => *position >= 0,
        };
        ensure!(
            fits,
            "{path}: row {row} is of prompt {prompt}, position {position}: missing or twice"
        );
        seen += u64::from(last.is_none_or(|(before, _)| before != *prompt));
        last = Some((*prompt, *position));
    }
    let totals = shard.totals;
    ensure!(
        totals.prompts == seen && totals.prompts + totals.empty == rows.end - rows.start,
        "{path}: {seen} prompts are in it, its totals are {totals:?}"
    );
    ensure!(
        manifest.positions == Which::Last || totals.tokens == shard.rows,
        "{path}: {} rows of {} tokens",
        shard.rows,
        totals.tokens
    );
    index::compare(dir, k, manifest, &places)
}

/// Files that are not of this capture; what a killed worker left is none of them.
fn strangers(dir: &Path, manifest: &Manifest) -> Vec<String> {
    let mut known = BTreeSet::from([dir.join(NAME), dir.join("index"), dir.join("claims")]);
    for k in 0..manifest.shards() {
        known.extend([shard::path(dir, k), index::path(dir, k)]);
    }
    let entries = [dir.to_owned(), dir.join("index")].map(fs::read_dir);
    let entries = entries.into_iter().flatten().flatten().flatten().map(|entry| entry.path());
    let strange = entries.filter(|path| !known.contains(path) && !disk::is_partial(path));
    strange.map(|path| format!("{}: not of this capture", path.display())).collect()
}
