//! A safetensors file written tensor by tensor: no more than a piece of one is held in memory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use tch::{Device, Tensor};

use super::dtype;

/// Bytes copied out of a tensor at a time.
const PIECE: usize = 1 << 22;

/// Appends tensors under a temporary name; [`finish`](Self::finish) writes the header, for which
/// room was left in front, and gives the file its name. Dropped before that, it leaves nothing.
#[derive(Debug)]
pub(crate) struct Writer {
    path: PathBuf,
    partial: PathBuf,
    file: File,
    room: usize,
    entries: Map<String, Value>,
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
        let (path, entries) = (path.to_owned(), Map::new());
        Ok(Writer { path, partial, file, room, entries, end: 0, finished: false })
    }

    /// Appends a tensor.
    pub(crate) fn add(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        let kind = dtype(tensor.kind())?;
        let size = tensor.kind().elt_size_in_bytes();
        let flat = tensor.detach().contiguous().view([-1]);
        let (mut at, n) = (0, flat.size()[0]);
        let mut bytes = Vec::new();
        while at < n {
            let part = flat.narrow(0, at, ((PIECE / size) as i64).min(n - at));
            let part = part.to_device(Device::Cpu);
            bytes.resize(part.numel() * size, 0);
            part.copy_data_u8(&mut bytes, part.numel());
            self.file
                .write_all(&bytes)
                .with_context(|| format!("cannot write {}", self.path.display()))?;
            at += part.size()[0];
        }
        let end = self.end + tensor.numel() as u64 * size as u64;
        let entry = json!({"dtype": kind, "shape": tensor.size(), "data_offsets": [self.end, end]});
        let twice = self.entries.insert(name.to_owned(), entry);
        ensure!(twice.is_none(), "{}: {name} was written twice", self.path.display());
        self.end = end;
        Ok(())
    }

    /// Writes the header, with a few lines of metadata, and gives the file its name.
    pub(crate) fn finish(&mut self, metadata: &HashMap<String, String>) -> Result<()> {
        let mut header = Map::from_iter([("__metadata__".to_owned(), json!(metadata))]);
        header.append(&mut self.entries);
        let mut text = Value::Object(header).to_string();
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
