//! A safetensors file written tensor by tensor: no more than a piece of one is held in memory.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tch::{Device, Tensor};

use super::dtype;

/// Bytes copied out of a tensor at a time.
const PIECE: usize = 1 << 16;

/// Appends tensors under a temporary name; [`finish`](Self::finish) writes the header, for which
/// room was left in front, and gives the file its name. Dropped before that, it leaves nothing.
#[derive(Debug)]
pub(crate) struct Writer {
    path: PathBuf,
    partial: PathBuf,
    file: File,
    room: usize,
    /// The header's entries so far. This and the buffer are allocated once: what is allocated and
    /// kept between the large tensors of a pass would keep their memory from being used again.
    entries: String,
    buffer: Vec<u8>,
    end: u64,
    finished: bool,
}

impl Writer {
    /// A file whose header will take at most `room` bytes.
    pub(crate) fn create(path: &Path, room: usize) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let partial = path.with_file_name(format!(".{name}.{}.partial", std::process::id()));
        let failed = || format!("cannot write {}", path.display());
        let mut file = File::create(&partial).with_context(failed)?;
        let room = room.next_multiple_of(8); // where the format wants its data to begin
        file.seek(SeekFrom::Start(8 + room as u64)).with_context(failed)?;
        let (path, entries) = (path.to_owned(), String::with_capacity(room));
        let buffer = vec![0; PIECE];
        Ok(Writer { path, partial, file, room, entries, buffer, end: 0, finished: false })
    }

    /// Appends a tensor. Its name must be a new one.
    pub(crate) fn add(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        let kind = dtype(tensor.kind())?;
        let size = tensor.kind().elt_size_in_bytes();
        let flat = tensor.detach().to_device(Device::Cpu).contiguous().view([-1]);
        let (mut at, n) = (0, flat.size()[0]);
        while at < n {
            let part = flat.narrow(0, at, ((PIECE / size) as i64).min(n - at));
            let bytes = &mut self.buffer[..part.numel() * size];
            part.copy_data_u8(bytes, part.numel());
            self.file
                .write_all(bytes)
                .with_context(|| format!("cannot write {}", self.path.display()))?;
            at += part.size()[0];
        }
        let end = self.end + tensor.numel() as u64 * size as u64;
        let entry = json!({"dtype": kind, "shape": tensor.size(), "data_offsets": [self.end, end]});
        let _ = write!(self.entries, ",{}:{entry}", json!(name));
        self.end = end;
        Ok(())
    }

    /// Writes the header, with a few lines of metadata, and gives the file its name.
    pub(crate) fn finish(&mut self, metadata: &HashMap<String, String>) -> Result<()> {
        let sorted: BTreeMap<_, _> = metadata.iter().collect(); // the same bytes each time
        let mut text = format!("{{\"__metadata__\":{}{}}}", json!(sorted), self.entries);
        let (room, path) = (self.room, &self.path);
        ensure!(
            text.len() <= room,
            "{}: its header takes {} bytes, {room} were set aside",
            path.display(),
            text.len()
        );
        text.push_str(&" ".repeat(room - text.len()));
        let mut write = || -> std::io::Result<()> {
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(&(room as u64).to_le_bytes())?;
            self.file.write_all(text.as_bytes())?;
            std::fs::rename(&self.partial, path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished {
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}
