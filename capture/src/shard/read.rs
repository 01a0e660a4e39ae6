//! Reading a shard: the header when it is opened, rows of a tensor when they are asked for.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use safetensors::tensor::{Dtype, Metadata};
use thalweg::tch::{Kind, Tensor};

use super::{Column, columns, path};
use crate::manifest::{Manifest, Totals};

/// Larger headers are taken for corruption, as in the reference reader.
const LARGEST_HEADER: u64 = 100_000_000;

/// A shard whose header is known to agree with its manifest and with the length of its file.
#[derive(Debug, Clone)]
pub(crate) struct Shard {
    path: PathBuf,
    columns: Vec<(Column, u64)>,
    pub(crate) rows: u64,
    pub(crate) totals: Totals,
}

impl Shard {
    /// Opens shard `k` of a directory.
    pub(crate) fn open(dir: &Path, k: usize, manifest: &Manifest) -> Result<Self> {
        let path = path(dir, k);
        read(&path, k, manifest).map_err(|error| anyhow::anyhow!("{}: {error:#}", path.display()))
    }

    /// Rows of a tensor, `[n, ..]`.
    pub(crate) fn read(&self, name: &str, rows: Range<u64>) -> Result<Tensor> {
        let found = self.columns.iter().find(|(column, _)| column.name == name);
        let (column, start) =
            found.with_context(|| format!("{}: no tensor {name}", self.path.display()))?;
        ensure!(
            rows.start <= rows.end && rows.end <= self.rows,
            "{}: rows {rows:?} of {}",
            self.path.display(),
            self.rows
        );
        let n = rows.end - rows.start;
        let mut bytes = vec![0; (n * column.row_bytes()) as usize];
        let mut read = || -> std::io::Result<()> {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(start + rows.start * column.row_bytes()))?;
            file.read_exact(&mut bytes)
        };
        read().with_context(|| format!("cannot read {name} in {}", self.path.display()))?;
        let shape: Vec<i64> = std::iter::once(n as i64).chain(column.inner.clone()).collect();
        Ok(Tensor::f_from_data_size(&bytes, &shape, column.kind)?)
    }

    /// One of the columns that say which token a row is of.
    pub(crate) fn column(&self, name: &str, rows: Range<u64>) -> Result<Vec<i64>> {
        Ok(Vec::<i64>::try_from(self.read(name, rows)?)?)
    }
}

fn read(path: &Path, k: usize, manifest: &Manifest) -> Result<Shard> {
    let mut file = File::open(path).context("cannot be read")?;
    let len = file.metadata()?.len();
    let mut first = [0; 8];
    file.read_exact(&mut first).context("damaged: shorter than 8 bytes")?;
    let header_len = u64::from_le_bytes(first);
    ensure!(
        header_len <= LARGEST_HEADER && header_len <= len - 8,
        "damaged: the header claims {header_len} bytes, the file has {len}"
    );
    let mut header = vec![0; header_len as usize];
    file.read_exact(&mut header)?;
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|error| anyhow::anyhow!("damaged: its header: {error}"))?;
    let notes = metadata.metadata().clone().unwrap_or_default();
    belongs(&notes, k, manifest)?;
    let found = len - 8 - header_len;
    let claimed = metadata.data_len() as u64;
    ensure!(found == claimed, "damaged: {found} bytes of data, its header says {claimed}");
    let expected = columns(manifest)?;
    let mut tensors = metadata.tensors();
    let rows = tensors.get(super::COLUMNS[0]).and_then(|info| info.shape.first().copied());
    let rows = rows.context("damaged: it has no prompts")?;
    let mut known = Vec::new();
    for column in expected {
        let info = tensors.remove(&column.name);
        let info = info.with_context(|| format!("it lacks {}", column.name))?;
        let shape: Vec<usize> =
            std::iter::once(rows).chain(column.inner.iter().map(|n| *n as usize)).collect();
        ensure!(
            info.shape == shape && info.dtype == dtype(column.kind),
            "{} is {:?} {:?}, expected {:?} {shape:?}",
            column.name,
            info.dtype,
            info.shape,
            dtype(column.kind)
        );
        known.push((column, 8 + header_len + info.data_offsets.0 as u64));
    }
    if let Some(name) = tensors.keys().next() {
        anyhow::bail!("{name:?} is in it, which the manifest does not know");
    }
    let totals = serde_json::from_str(&notes["totals"]).context("damaged: its totals")?;
    Ok(Shard { path: path.to_owned(), columns: known, rows: rows as u64, totals })
}

/// Whether the notes of a file are those of part `k` of this capture.
fn belongs(notes: &HashMap<String, String>, k: usize, manifest: &Manifest) -> Result<()> {
    let note = |key: &str| notes.get(key).map_or("nothing", String::as_str);
    ensure!(
        note("format") == "thalweg shard 1" && notes.contains_key("totals"),
        "its format is {:?}, expected \"thalweg shard 1\"",
        note("format")
    );
    ensure!(
        note("capture") == manifest.hash()?,
        "it belongs to another capture ({}, this is {}): take it out of the directory and run again",
        note("capture"),
        manifest.hash()?
    );
    ensure!(note("shard") == k.to_string(), "it is shard {} under a wrong name", note("shard"));
    Ok(())
}

fn dtype(kind: Kind) -> Dtype {
    match kind {
        Kind::Int64 => Dtype::I64,
        Kind::Double => Dtype::F64,
        Kind::Float => Dtype::F32,
        Kind::Half => Dtype::F16,
        _ => Dtype::BF16,
    }
}
