//! One file from the hub into the cache: asked for from where an earlier try stopped, held to its
//! size and its SHA-256.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use super::client::{Client, Trouble};
use super::names::is_sha256;
use super::store::{Store, cannot_write, etag, make_parent};
use crate::http::one_line;
use crate::interrupt::Interrupt;
use crate::show::Bar;

/// Bytes read at a time; between two reads an interrupt is looked for.
const CHUNK: usize = 1 << 18;
/// The largest file that holds no weights.
const LARGEST_SMALL: u64 = 500_000_000;

/// Files of one commit, from the hub into the cache.
pub(super) struct Fetching<'a> {
    pub(super) client: &'a Client<'a>,
    pub(super) store: &'a Store<'a>,
    pub(super) commit: &'a str,
}

/// A file of the hub, and what it must turn out to be.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) file: String,
    /// SHA-256 of large files, another hash of small ones.
    pub(super) etag: String,
    pub(super) size: u64,
}

impl Wanted {
    pub(super) fn is_weights(&self) -> bool {
        self.file.ends_with(".safetensors")
    }
}

impl Fetching<'_> {
    /// Asks for a file's hash and size.
    pub(super) fn ask(&self, file: &str) -> Result<Wanted> {
        let (place, url) = (self.client.place, self.client.place.file(self.commit, file));
        let reply = self.client.patiently(|| {
            let reply = self.client.get(&url, Some((0, Some(0))))?;
            match reply.status {
                // 416: the file is empty, no byte can be had of it.
                200 | 206 | 416 => Ok(reply),
                _ => Err(self.client.refusal(&reply, Some(file))),
            }
        })?;
        let tag = reply.hub("x-linked-etag").or(reply.hub("etag"));
        let tag = tag.with_context(|| format!("{place}: the hub gives no etag for {file}"))?;
        let linked = reply.hub("x-linked-size").and_then(|size| size.parse().ok());
        let whole = reply.range().map(|(_, whole)| whole);
        let size = linked.or(whole).or(reply.length().filter(|_| reply.status == 200));
        let size = size.with_context(|| format!("{place}: the hub gives no size for {file}"))?;
        let wanted = Wanted {
            file: file.to_owned(),
            etag: etag(tag).map_err(|error| anyhow::anyhow!("{place}, {file}: {error}"))?,
            size,
        };
        ensure!(
            wanted.is_weights() || size <= LARGEST_SMALL,
            "{place}: {file} claims {size} bytes, expected at most {LARGEST_SMALL}"
        );
        Ok(wanted)
    }

    /// Bytes of a file that are not yet here.
    pub(super) fn left(&self, wanted: &Wanted) -> u64 {
        let size = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
        match self.is_here(wanted) {
            true => 0,
            false => wanted.size.saturating_sub(size(&self.store.part(&wanted.etag))),
        }
    }

    fn is_here(&self, wanted: &Wanted) -> bool {
        let whole = |path: &Path| fs::metadata(path).is_ok_and(|found| found.len() == wanted.size);
        whole(&self.store.blob(&wanted.etag))
            || whole(&self.store.snapshot(self.commit).join(&wanted.file))
    }

    /// Puts a file into the cache, unless it is there.
    pub(super) fn bring(&self, wanted: &Wanted, bar: &mut Bar) -> Result<()> {
        if !self.is_here(wanted) {
            let _lock = self.lock(&wanted.etag)?;
            // Another process may have brought it meanwhile.
            if !self.is_here(wanted) {
                self.download(wanted, bar)?;
            }
        }
        self.store.link(self.commit, &wanted.file, &wanted.etag)
    }

    /// Waits until no other process fetches the same contents.
    fn lock(&self, etag: &str) -> Result<File> {
        let path = self.store.lock(etag);
        make_parent(&path)?;
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(cannot_write(&path))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(cannot_write(&path)(error)),
            }
            Interrupt::new().check(|| "interrupted".to_owned())?;
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn download(&self, wanted: &Wanted, bar: &mut Bar) -> Result<()> {
        let path = self.store.part(&wanted.etag);
        let mut part = Part::open(&path, wanted)?;
        let mut tried = 0;
        while part.len < wanted.size {
            let before = part.len;
            match self.go_on(wanted, &mut part, bar) {
                Ok(()) => {}
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Passing(why)) => {
                    if part.len > before {
                        tried = 0;
                    }
                    self.client.pause(&mut tried, &format!("{}: {why}", wanted.file))?;
                }
            }
        }
        part.close(&self.store.blob(&wanted.etag), self.client.place)
    }

    /// Asks for the rest of a file, and writes what comes of it.
    fn go_on(&self, wanted: &Wanted, part: &mut Part<'_>, bar: &mut Bar) -> Result<(), Trouble> {
        let place = self.client.place;
        let url = place.file(self.commit, &wanted.file);
        let from = (part.len > 0).then_some((part.len, None));
        let mut reply = self.client.get(&url, from)?;
        match (reply.status, reply.range()) {
            (206, Some((Some(from), _))) if from == part.len => {}
            // The host knows no ranges, or not this one: from the start.
            (200 | 206 | 416, _) if part.len > 0 => {
                part.clear()?;
                if reply.status != 200 {
                    return Err(Trouble::Passing(
                        "another part came than was asked for".to_owned(),
                    ));
                }
            }
            (200, _) => {}
            _ => return Err(self.client.refusal(&reply, Some(&wanted.file))),
        }
        let (interrupt, mut buffer) = (Interrupt::new(), vec![0; CHUNK]);
        while part.len < wanted.size {
            interrupt.check(|| {
                let (done, size) = (part.len / 1_000_000, wanted.size / 1_000_000);
                format!("interrupted at {done} of {size} MB of {}, which are kept", wanted.file)
            })?;
            let n = match reply.body.read(&mut buffer) {
                Ok(0) => return Err(Trouble::Passing("the connection was dropped".to_owned())),
                Ok(n) => n,
                Err(error) => {
                    return Err(Trouble::Passing(format!("stopped: {}", one_line(&error))));
                }
            };
            part.write(&buffer[..n])?;
            bar.add(n);
        }
        Ok(())
    }
}

/// Contents on their way.
struct Part<'a> {
    path: &'a Path,
    wanted: &'a Wanted,
    file: File,
    len: u64,
    hash: Sha256,
}

impl<'a> Part<'a> {
    /// With what an earlier try left.
    fn open(path: &'a Path, wanted: &'a Wanted) -> Result<Self> {
        make_parent(path)?;
        let file = OpenOptions::new().create(true).append(true).read(true).open(path);
        let file = file.map_err(cannot_write(path))?;
        let mut part = Part { path, wanted, file, len: 0, hash: Sha256::new() };
        let mut buffer = vec![0; CHUNK];
        loop {
            let n = part.file.read(&mut buffer).map_err(cannot_write(path))?;
            if n == 0 {
                break;
            }
            part.hash.update(&buffer[..n]);
            part.len += n as u64;
        }
        if part.len > wanted.size {
            part.clear()?;
        }
        Ok(part)
    }

    fn clear(&mut self) -> Result<()> {
        self.file.set_len(0).map_err(cannot_write(self.path))?;
        self.hash = Sha256::new();
        self.len = 0;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let len = self.len + bytes.len() as u64;
        if len > self.wanted.size {
            let _ = fs::remove_file(self.path);
            bail!("{}: more bytes came than expected, {}", self.wanted.file, self.wanted.size);
        }
        self.file.write_all(bytes).map_err(cannot_write(self.path))?;
        self.hash.update(bytes);
        self.len = len;
        Ok(())
    }

    /// Gives whole contents their name, if they are what the hub has.
    fn close(self, blob: &Path, place: &dyn std::fmt::Display) -> Result<()> {
        let Wanted { file, etag, .. } = self.wanted;
        let found =
            self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        if is_sha256(etag) && found != *etag {
            let _ = fs::remove_file(self.path);
            bail!(
                "{place}: {file} was damaged on its way: its SHA-256 is {found}, expected {etag}; it is removed, load again"
            );
        }
        let synced = self.file.sync_all().and_then(|()| fs::rename(self.path, blob));
        synced.map_err(cannot_write(blob))
    }
}
