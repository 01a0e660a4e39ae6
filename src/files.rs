//! Safetensors files -> tensors, read in chunks of rows so that loading needs little extra memory.
//!
//! The whole header is checked against the file's length before a byte of data is read.
//! Format: <https://huggingface.co/docs/safetensors>.

mod writer;

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use safetensors::tensor::{Dtype, TensorInfo};
use tch::{Kind, Tensor};

pub(crate) use writer::Writer;

/// Bytes read at a time. Loading holds two or three such pieces, but an allocator may keep many
/// more that were freed: with 16 MiB a process was seen to keep 100 MiB, with 1 MiB it keeps 20.
const CHUNK: usize = 1 << 20;
/// Larger headers are taken for corruption, as in the reference reader.
const LARGEST_HEADER: u64 = 100_000_000;

/// The tensors of one or several safetensors files, by name.
#[derive(Debug, Default)]
pub(crate) struct Files {
    entries: BTreeMap<String, Entry>,
    notes: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Entry {
    path: PathBuf,
    kind: Kind,
    shape: Vec<i64>,
    /// First byte in the file.
    start: u64,
}

impl Files {
    /// Opens `model.safetensors`, or the shards named in `model.safetensors.index.json`.
    pub(crate) fn open_dir(dir: &Path) -> Result<Self> {
        let single = dir.join("model.safetensors");
        let index = dir.join("model.safetensors.index.json");
        if single.is_file() {
            return Self::open(&single);
        }
        ensure!(
            index.is_file(),
            "{}: neither model.safetensors nor model.safetensors.index.json",
            dir.display()
        );
        Self::open_index(dir, &index)
    }

    /// Opens one file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut files = Files::default();
        files
            .add(path)
            .with_context(|| format!("{} is damaged", path.display()))
            .map_err(|error| anyhow::anyhow!("{error:#}"))?;
        Ok(files)
    }

    fn open_index(dir: &Path, index: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(index)
            .with_context(|| format!("cannot read {}", index.display()))?;
        let json: serde_json::Value = serde_json::from_str(&text)
            .map_err(|error| anyhow::anyhow!("{}: not JSON: {error}", index.display()))?;
        let map = json["weight_map"]
            .as_object()
            .with_context(|| format!("{}: weight_map is missing", index.display()))?;
        let mut files = Files::default();
        let mut opened = HashSet::new();
        for (name, file) in map {
            let file = file.as_str().with_context(|| {
                format!("{}: weight_map.{name} = {file}: expected a file name", index.display())
            })?;
            ensure!(
                is_plain(name) && is_plain(file),
                "{}: weight_map names {name:?} in {file:?}: expected plain names",
                index.display()
            );
            let plain = Path::new(file).components().collect::<Vec<_>>();
            ensure!(
                matches!(plain.as_slice(), [Component::Normal(_)]),
                "{}: weight_map.{name} = {file:?} points outside the directory",
                index.display()
            );
            let path = dir.join(file);
            if opened.insert(file.to_owned()) {
                ensure!(path.is_file(), "{}: shard {file} is missing", index.display());
                files
                    .add(&path)
                    .map_err(|error| anyhow::anyhow!("{} is damaged: {error:#}", path.display()))?;
            }
            let entry = files.entries.get(name);
            ensure!(
                entry.is_some_and(|entry| entry.path == path),
                "{}: {name} should be in {file} and is not",
                index.display()
            );
        }
        Ok(files)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let mut file = File::open(path)?;
        let len = file.metadata()?.len();
        let mut first = [0; 8];
        file.read_exact(&mut first).context("shorter than 8 bytes")?;
        let header_len = u64::from_le_bytes(first);
        ensure!(
            header_len <= LARGEST_HEADER && header_len <= len - 8,
            "the header claims {header_len} bytes, the file has {len}"
        );
        let mut header = vec![0; header_len as usize];
        file.read_exact(&mut header)?;
        let map: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&header).context("the header is not a JSON object")?;
        let data = len - 8 - header_len;
        let mut spans = Vec::new();
        for (name, value) in map {
            if name == "__metadata__" {
                self.notes = serde_json::from_value(value).context("__metadata__ is not text")?;
                continue;
            }
            ensure!(is_plain(&name), "{name:?} is no name of a tensor");
            let info: TensorInfo = serde_json::from_value(value)
                .map_err(|error| anyhow::anyhow!("header entry {name:?}: {error}"))?;
            let (begin, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
            let kind = kind_of(info.dtype).with_context(|| {
                format!("{name} is stored as {:?}: have F64, F32, F16, BF16", info.dtype)
            })?;
            // Without its zeros too the product must fit: rows are counted by parts of it.
            let times = |n: u64, d: &usize| n.checked_mul(*d as u64);
            let size = kind.elt_size_in_bytes() as u64;
            let full = info.shape.iter().filter(|d| **d > 0).try_fold(size, times);
            let fits = full.is_some_and(|n| n <= i64::MAX as u64);
            let bytes = info.shape.iter().try_fold(size, times).filter(|_| fits);
            ensure!(
                begin <= end && end <= data && bytes == Some(end - begin),
                "{name} claims bytes {begin}..{end} for shape {:?}, the data has {data} bytes",
                info.shape
            );
            spans.push((begin, end, name.clone()));
            let shape = info.shape.iter().map(|d| *d as i64).collect();
            let entry = Entry { path: path.to_owned(), kind, shape, start: 8 + header_len + begin };
            if let Some(other) = self.entries.insert(name.clone(), entry) {
                bail!("{name} is also in {}", other.path.display());
            }
        }
        spans.sort();
        let mut covered = 0;
        for (begin, end, name) in &spans {
            ensure!(
                *begin == covered,
                "{name} begins at byte {begin}, expected {covered}: overlap or gap"
            );
            covered = *end;
        }
        ensure!(covered == data, "the tensors cover {covered} bytes of {data}");
        Ok(())
    }

    /// Names of all tensors.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// A line of the file's metadata.
    pub(crate) fn note(&self, key: &str) -> Option<&str> {
        self.notes.get(key).map(String::as_str)
    }

    /// Kind a tensor is stored in.
    pub(crate) fn kind(&self, name: &str) -> Option<Kind> {
        self.entries.get(name).map(|entry| entry.kind)
    }

    /// Shape a tensor is stored in.
    pub(crate) fn shape(&self, name: &str) -> Option<&[i64]> {
        self.entries.get(name).map(|entry| entry.shape.as_slice())
    }

    /// The file a tensor is in, for messages.
    pub(crate) fn file(&self, name: &str) -> String {
        let file = self.entries.get(name).and_then(|entry| entry.path.file_name());
        file.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Calls `chunk` with consecutive rows of a tensor: the first row's number, and the rows.
    pub(crate) fn read(
        &self,
        name: &str,
        mut chunk: impl FnMut(i64, &Tensor) -> Result<()>,
    ) -> Result<()> {
        let entry = self.entries.get(name).with_context(|| format!("no tensor {name}"))?;
        let mut file = File::open(&entry.path)?;
        file.seek(SeekFrom::Start(entry.start))?;
        let rows = entry.shape.first().copied().unwrap_or(1);
        let row_shape = entry.shape.get(1..).unwrap_or_default();
        let row_bytes = row_shape.iter().product::<i64>() as usize * entry.kind.elt_size_in_bytes();
        let at_once = (CHUNK / row_bytes.max(1)).max(1) as i64;
        let mut buffer = Vec::new();
        let mut row = 0;
        while row < rows {
            let n = at_once.min(rows - row);
            buffer.resize(n as usize * row_bytes, 0);
            file.read_exact(&mut buffer)
                .with_context(|| format!("{} ends within {name}", entry.path.display()))?;
            let mut shape = entry.shape.clone();
            if let Some(first) = shape.first_mut() {
                *first = n;
            }
            chunk(row, &Tensor::f_from_data_size(&buffer, &shape, entry.kind)?)?;
            row += n;
        }
        Ok(())
    }

    /// A whole tensor, on the CPU, as stored.
    pub(crate) fn tensor(&self, name: &str) -> Result<Tensor> {
        let entry = self.entries.get(name).with_context(|| format!("no tensor {name}"))?;
        let whole = Tensor::empty(&entry.shape, (entry.kind, tch::Device::Cpu));
        self.read(name, |row, rows| {
            if entry.shape.is_empty() {
                whole.shallow_clone().copy_(rows);
            } else {
                whole.narrow(0, row, rows.size()[0]).copy_(rows);
            }
            Ok(())
        })?;
        Ok(whole)
    }
}

/// Whether a name can stand in a message of one line.
fn is_plain(name: &str) -> bool {
    !name.chars().any(char::is_control)
}

fn kind_of(dtype: Dtype) -> Option<Kind> {
    match dtype {
        Dtype::F64 => Some(Kind::Double),
        Dtype::F32 => Some(Kind::Float),
        Dtype::F16 => Some(Kind::Half),
        Dtype::BF16 => Some(Kind::BFloat16),
        Dtype::I64 => Some(Kind::Int64),
        _ => None,
    }
}

/// How a kind is stored.
fn dtype(kind: Kind) -> Result<Dtype> {
    Ok(match kind {
        Kind::Double => Dtype::F64,
        Kind::Float => Dtype::F32,
        Kind::Half => Dtype::F16,
        Kind::BFloat16 => Dtype::BF16,
        Kind::Int64 => Dtype::I64,
        other => bail!("a {other:?} tensor cannot be saved: have Double, Float, Half, BFloat16"),
    })
}

/// Writes tensors, in the order of their names, with a few lines of metadata.
pub(crate) fn write(
    path: &Path,
    tensors: &[(String, Tensor)],
    metadata: std::collections::HashMap<String, String>,
) -> Result<()> {
    let views = tensors.iter().map(|(name, tensor)| Ok((name.as_str(), Stored::new(tensor)?)));
    let views = views.collect::<Result<Vec<_>>>()?;
    safetensors::serialize_to_file(views, Some(metadata), path)
        .map_err(|error| anyhow::anyhow!("cannot write {}: {error}", path.display()))
}

/// A tensor as the safetensors writer wants it; its bytes are made when they are written.
struct Stored {
    tensor: Tensor,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl Stored {
    fn new(tensor: &Tensor) -> Result<Self> {
        let dtype = dtype(tensor.kind())?;
        let shape = tensor.size().iter().map(|d| *d as usize).collect();
        Ok(Stored { tensor: tensor.shallow_clone(), dtype, shape })
    }
}

impl safetensors::View for Stored {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        let mut bytes = vec![0; self.data_len()];
        let tensor = self.tensor.detach().to_device(tch::Device::Cpu).contiguous();
        tensor.copy_data_u8(&mut bytes, self.tensor.numel());
        bytes.into()
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * self.tensor.kind().elt_size_in_bytes()
    }
}
