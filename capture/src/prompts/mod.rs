//! Prompts in a file, read a row at a time: text, JSON lines or Parquet.
//!
//! A prompt's number is that of its line or row, 0 first, empty ones included, so that what comes
//! out can be joined with what went in.

mod lines;
mod parquet_rows;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use sha2::{Digest, Sha256};
use thalweg::Bar;

/// One row of a prompt file.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// Text, to be tokenized.
    Text(String),
    /// Token ids, taken as they are.
    Ids(Vec<i64>),
    /// Nothing: an empty line, a null, an empty list.
    Empty,
}

impl Prompt {
    fn of_text(text: &str) -> Self {
        match text.trim().is_empty() {
            true => Prompt::Empty,
            false => Prompt::Text(text.to_owned()),
        }
    }

    fn of_json(value: &Value) -> Result<Self> {
        let id = |value: &Value| {
            value.as_i64().with_context(|| format!("{value} among token ids: expected integers"))
        };
        match value {
            Value::Null => Ok(Prompt::Empty),
            Value::String(text) => Ok(Prompt::of_text(text)),
            Value::Array(list) if list.is_empty() => Ok(Prompt::Empty),
            Value::Array(list) => Ok(Prompt::Ids(list.iter().map(id).collect::<Result<_>>()?)),
            other => bail!("{other}: expected text or a list of token ids"),
        }
    }
}

/// A file of prompts, by its extension: `.txt` (one a line), `.jsonl` or `.ndjson` (an object a
/// line), `.parquet`. Nothing is held in memory but the row that is read.
#[derive(Debug, Clone)]
pub struct Prompts {
    path: PathBuf,
    format: Format,
    column: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Format {
    Text,
    JsonLines,
    Parquet,
}

/// Where a row begins.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Start {
    pub(crate) row: u64,
    /// In a file of lines.
    byte: u64,
}

/// What a file holds, found in one pass over its bytes.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    pub(crate) rows: u64,
    /// Where rows 0, n, 2n .. begin.
    pub(crate) starts: Vec<Start>,
}

type Rows = Box<dyn Iterator<Item = Result<Prompt>>>;

impl Prompts {
    /// A prompt file; of a file with columns, the one that holds the prompts.
    pub fn open(path: impl AsRef<Path>, column: &str) -> Result<Self> {
        let (path, column) = (path.as_ref().to_owned(), column.to_owned());
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        let format = match extension.as_deref() {
            Some("txt" | "text") => Format::Text,
            Some("jsonl" | "ndjson") => Format::JsonLines,
            Some("parquet") => Format::Parquet,
            _ => bail!(
                "{}: expected a file of prompts that ends in .txt (one a line), .jsonl or .parquet",
                path.display()
            ),
        };
        File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let prompts = Prompts { path, format, column };
        if format == Format::Parquet {
            parquet_rows::rows(&prompts.path, &prompts.column)?; // says what columns there are
        }
        Ok(prompts)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The column, in a file that has columns.
    pub fn column(&self) -> Option<&str> {
        (self.format != Format::Text).then_some(self.column.as_str())
    }

    /// All rows, one after the other.
    pub fn rows(&self) -> Result<impl Iterator<Item = Result<Prompt>> + use<>> {
        self.rows_from(Start::default())
    }

    pub(crate) fn rows_from(&self, start: Start) -> Result<Rows> {
        Ok(match self.format {
            Format::Text => Box::new(lines::rows(&self.path, start, |line| {
                Ok(Prompt::of_text(line)) //
            })?),
            Format::JsonLines => {
                let column = self.column.clone();
                Box::new(lines::rows(&self.path, start, move |line| of_object(line, &column))?)
            }
            Format::Parquet => {
                Box::new(parquet_rows::rows_from(&self.path, &self.column, start.row)?)
            }
        })
    }

    /// Reads the file once: its hash, its rows, and where every `n`-th of them begins.
    pub(crate) fn survey(&self, n: u64) -> Result<Survey> {
        let failed = || format!("cannot read {}", self.path.display());
        let mut file = File::open(&self.path).with_context(failed)?;
        let total = file.metadata().with_context(failed)?.len();
        let mut bar = Bar::new("reading the prompts", (total >> 20) as usize).unit("MiB");
        let (mut hash, mut seen, mut lines) = (Sha256::new(), 0, lines::Counter::new(n));
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = file.read(&mut buffer).with_context(failed)?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
            if self.format != Format::Parquet {
                lines.add(&buffer[..read]);
            }
            bar.add(((seen + read as u64) >> 20) as usize - (seen >> 20) as usize);
            seen += read as u64;
        }
        bar.finish();
        let (rows, starts) = match self.format {
            Format::Parquet => {
                let rows = parquet_rows::rows(&self.path, &self.column)?;
                let starts = (0..rows.div_ceil(n)).map(|k| Start { row: k * n, byte: 0 });
                (rows, starts.collect())
            }
            _ => lines.finish(),
        };
        ensure!(rows > 0, "{}: no prompts in it", self.path.display());
        let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Survey { bytes: seen, sha256, rows, starts })
    }
}

/// The prompt in one line of JSON lines.
fn of_object(line: &str, column: &str) -> Result<Prompt> {
    if line.trim().is_empty() {
        return Ok(Prompt::Empty);
    }
    let value: Value = serde_json::from_str(line).context("not JSON")?;
    let Value::Object(object) = &value else { bail!("expected an object, {{\"{column}\": ..}}") };
    let value = object.get(column).with_context(|| {
        let keys: Vec<_> = object.keys().map(String::as_str).collect();
        format!("no column {column:?}, there are {}: choose with --column", keys.join(", "))
    })?;
    Prompt::of_json(value).with_context(|| format!("column {column:?}"))
}
