//! Writing a shard in place: its size is known from the tokens, so that each batch goes where it
//! belongs and no more than a few batches are in memory.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use thalweg::tch::{Device, Kind, Tensor};

use super::{Column, columns, first_kept, path, places};
use crate::batches::Row;
use crate::disk;
use crate::index;
use crate::manifest::{Manifest, Totals, Which};

/// What one pass gave: a tensor `[Batch, Pos, ..]` for each site.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The rows of the unit that were run.
    pub(crate) rows: Vec<usize>,
    pub(crate) tensors: Vec<Tensor>,
}

/// A shard that is being written. Dropped before it is finished, it leaves nothing.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    dir: &'a Path,
    k: usize,
    partial: PathBuf,
    file: File,
    rows: &'a [Row],
    which: Which,
    columns: Vec<Column>,
    /// Where each column begins.
    starts: Vec<u64>,
    /// The first row of the shard that each prompt takes.
    firsts: Vec<u64>,
    written: usize,
    buffer: Vec<u8>,
    finished: bool,
}

impl<'a> Writer<'a> {
    /// Begins shard `k`, which holds `rows`.
    pub(crate) fn create(
        dir: &'a Path,
        k: usize,
        manifest: &Manifest,
        rows: &'a [Row],
        totals: Totals,
    ) -> Result<Self> {
        let (columns, which) = (columns(manifest)?, manifest.positions);
        let places = places(rows, which);
        let n = places[0].len() as u64;
        let (header, starts) = header(manifest, k, &columns, n, totals)?;
        let mut firsts = Vec::with_capacity(rows.len());
        let mut first = 0;
        for row in rows {
            firsts.push(first);
            first += (row.ids.len() - first_kept(row.ids.len(), which)) as u64;
        }
        let partial = disk::partial(&path(dir, k));
        let file = File::create(&partial);
        let file = file.with_context(|| format!("cannot write {}", path(dir, k).display()))?;
        let mut writer = Writer {
            dir,
            k,
            partial,
            file,
            rows,
            which,
            columns,
            starts,
            firsts,
            written: 0,
            buffer: Vec::new(),
            finished: false,
        };
        writer.put(0, &header)?;
        for (column, values) in places.iter().enumerate() {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            writer.put(writer.starts[column], &bytes)?;
        }
        Ok(writer)
    }

    /// Writes the activations of a batch.
    pub(crate) fn write(&mut self, batch: &Batch) -> Result<()> {
        for (site, tensor) in batch.tensors.iter().enumerate() {
            self.write_site(super::COLUMNS.len() + site, tensor, &batch.rows)?;
        }
        self.written += batch.rows.len();
        Ok(())
    }

    fn write_site(&mut self, column: usize, tensor: &Tensor, rows: &[usize]) -> Result<()> {
        let Column { name, kind, inner } = self.columns[column].clone();
        let size = tensor.size();
        ensure!(
            size.len() == inner.len() + 2 && size[0] == rows.len() as i64 && size[2..] == inner[..],
            "{name} came as {size:?}, expected [{}, Pos] and {inner:?}",
            rows.len()
        );
        // Of `last`, a model may give the last position alone.
        let width = size[1];
        let tensor = match self.which {
            Which::All => tensor.shallow_clone(),
            Which::Last => tensor.narrow(1, width - 1, 1),
        };
        let stored = tensor.detach().to_device(Device::Cpu).to_kind(kind).contiguous();
        if kind == Kind::Half {
            let overflow = stored.isfinite().logical_not().any().int64_value(&[]) != 0;
            ensure!(
                !overflow || tensor.isfinite().all().int64_value(&[]) == 0,
                "{name} holds values beyond f16's 65504: capture as bf16 or f32"
            );
        }
        let (width, row_bytes) = (stored.size()[1] as usize, self.columns[column].row_bytes());
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(stored.numel() * kind.elt_size_in_bytes(), 0);
        stored.copy_data_u8(&mut buffer, stored.numel());
        for (i, row) in rows.iter().enumerate() {
            let len = self.rows[*row].ids.len();
            let kept = len - first_kept(len, self.which);
            ensure!(kept <= width, "{name} came with {width} positions, expected {kept}");
            let own = |position: usize| position * row_bytes as usize;
            let bytes = &buffer[own((i + 1) * width - kept)..own((i + 1) * width)];
            self.put(self.starts[column] + self.firsts[*row] * row_bytes, bytes)?;
        }
        self.buffer = buffer;
        Ok(())
    }

    fn put(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        crash::here();
        let written = self.file.seek(SeekFrom::Start(at)).and_then(|_| self.file.write_all(bytes));
        written.with_context(|| format!("cannot write {}", path(self.dir, self.k).display()))
    }

    /// Writes the shard's part of the index and gives the shard its name.
    pub(crate) fn finish(mut self, manifest: &Manifest) -> Result<()> {
        ensure!(
            self.written == self.rows.len(),
            "shard {}: {} of {} prompts were run",
            self.k,
            self.written,
            self.rows.len()
        );
        index::write(self.dir, self.k, manifest, &places(self.rows, self.which))?;
        crash::here();
        disk::settle(&self.partial, &path(self.dir, self.k))?;
        self.finished = true;
        crash::here();
        Ok(())
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        if !self.finished {
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

/// The header of a shard of `n` rows, and where each column begins in the file.
fn header(
    manifest: &Manifest,
    k: usize,
    columns: &[Column],
    n: u64,
    totals: Totals,
) -> Result<(Vec<u8>, Vec<u64>)> {
    let notes = json!({
        "format": "thalweg shard 1",
        "capture": manifest.hash()?,
        "shard": k.to_string(),
        "n_layers": manifest.config()?.n_layers.to_string(),
        "totals": serde_json::to_string(&totals)?,
    });
    let mut entries = Map::from_iter([("__metadata__".to_owned(), notes)]);
    let (mut end, mut begins) = (0, Vec::new());
    for column in columns {
        let begin = end;
        end += n * column.row_bytes();
        let shape: Vec<i64> = std::iter::once(n as i64).chain(column.inner.clone()).collect();
        let dtype = match column.kind {
            Kind::Int64 => "I64",
            Kind::Double => "F64",
            Kind::Float => "F32",
            Kind::Half => "F16",
            _ => "BF16",
        };
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, end]});
        entries.insert(column.name.clone(), entry);
        begins.push(begin);
    }
    let mut text = serde_json::to_string(&Value::Object(entries))?;
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    let data = 8 + text.len() as u64;
    let header = [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    Ok((header, begins.iter().map(|begin| data + begin).collect()))
}

/// A sudden end at any write, for the tests of resuming; nothing in a release.
mod crash {
    #[cfg(debug_assertions)]
    pub(super) fn here() {
        use std::sync::atomic::{AtomicI64, Ordering};
        static LEFT: AtomicI64 = AtomicI64::new(i64::MIN);
        if LEFT.load(Ordering::Relaxed) == i64::MIN {
            let writes = std::env::var("CAPTURE_TEST_ABORT_AFTER").ok();
            let writes = writes.and_then(|writes| writes.parse().ok());
            LEFT.store(writes.unwrap_or(i64::MAX), Ordering::Relaxed);
        }
        if LEFT.fetch_sub(1, Ordering::Relaxed) == 0 {
            std::process::abort();
        }
    }

    #[cfg(not(debug_assertions))]
    pub(super) fn here() {}
}
