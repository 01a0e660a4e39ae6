//! Lines of a file, from any row on.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::{Prompt, Start};

/// A longer line is taken for a file of another kind: it would have to be held in memory.
const LONGEST: u64 = 64 << 20;

/// Prompts from `start` on; `parse` makes one of a line.
pub(super) fn rows<F: Fn(&str) -> Result<Prompt>>(
    path: &Path,
    start: Start,
    parse: F,
) -> Result<impl Iterator<Item = Result<Prompt>> + use<F>> {
    let failed = format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(|| failed.clone())?;
    file.seek(SeekFrom::Start(start.byte)).with_context(|| failed.clone())?;
    let (mut reader, name) = (BufReader::new(file), path.display().to_string());
    let (mut line, mut number) = (Vec::new(), start.row);
    let mut parse = move || -> Result<Option<Prompt>> {
        line.clear();
        reader.by_ref().take(LONGEST + 1).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        if line.len() as u64 > LONGEST {
            bail!("longer than {} MiB: expected one prompt a line", LONGEST >> 20);
        }
        let text = std::str::from_utf8(&line).context("not UTF-8 text")?;
        parse(text.trim_end_matches(['\n', '\r'])).map(Some)
    };
    Ok(std::iter::from_fn(move || {
        number += 1;
        let prompt = parse().with_context(|| format!("{name}, line {number}"));
        prompt.map_err(|error| anyhow::anyhow!("{error:#}")).transpose()
    }))
}

/// Counts lines, and notes where every n-th begins.
#[derive(Debug)]
pub(super) struct Counter {
    every: u64,
    rows: u64,
    byte: u64,
    /// The last byte ended a line, or there is none yet.
    fresh: bool,
    starts: Vec<Start>,
}

impl Counter {
    pub(super) fn new(every: u64) -> Self {
        Counter { every, rows: 0, byte: 0, fresh: true, starts: Vec::new() }
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.fresh {
                if self.rows.is_multiple_of(self.every) {
                    self.starts.push(Start { row: self.rows, byte: self.byte });
                }
                self.rows += 1;
            }
            self.fresh = byte == b'\n';
            self.byte += 1;
        }
    }

    pub(super) fn finish(self) -> (u64, Vec<Start>) {
        (self.rows, self.starts)
    }
}
