//! Who makes which part: each worker takes the next one that is neither there nor claimed.
//!
//! A claim is a lock on a file, which ends with its process: what a killed worker had begun is free
//! at once. A part that is there under its name is whole.

use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};

const CLAIMS: &str = "claims";

/// One of `n` workers that share the parts beforehand: parts i, i+n, i+2n ..
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worker {
    i: usize,
    n: usize,
}

impl Worker {
    /// Worker `i` of 0..n.
    pub fn new(i: usize, n: usize) -> Result<Self> {
        ensure!(i < n, "worker {i}/{n}: expected i/n with i from 0 to n-1");
        Ok(Worker { i, n })
    }

    /// Whether a part is in its share.
    pub(crate) fn has(self, k: usize) -> bool {
        k % self.n == self.i
    }
}

impl std::str::FromStr for Worker {
    type Err = anyhow::Error;

    /// `0/4`
    fn from_str(text: &str) -> Result<Self> {
        let parts =
            text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        let (i, n) =
            parts.with_context(|| format!("worker {text:?}: expected i/n, such as 0/4"))?;
        Worker::new(i, n)
    }
}

/// A wish to stop, seen between two batches. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Stop(pub(crate) Arc<AtomicBool>);

impl Stop {
    /// Asks to stop.
    pub fn now(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked.
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The flag itself, for a handler of signals.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

/// The parts of one output directory, as one worker sees them.
#[derive(Debug)]
pub(crate) struct Units<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) n: usize,
    pub(crate) worker: Option<Worker>,
    pub(crate) stop: &'a Stop,
}

/// What became of them.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Made {
    /// Parts made here.
    pub(crate) made: usize,
    /// Parts that are not there: others make them, or the wish to stop came first.
    pub(crate) missing: usize,
}

impl Units<'_> {
    /// Makes what is to be made here. `done` says whether a part is there.
    pub(crate) fn work(
        &self,
        done: impl Fn(usize) -> bool,
        mut make: impl FnMut(usize) -> Result<()>,
    ) -> Result<Made> {
        let mut made = 0;
        let own = |k: &usize| self.worker.is_none_or(|worker| worker.has(*k));
        loop {
            let before = made;
            for k in (0..self.n).filter(own) {
                if self.stop.asked() || done(k) {
                    continue;
                }
                let Some(_claim) = self.claim(k)? else { continue };
                if done(k) {
                    continue; // while the claim was on its way
                }
                match make(k) {
                    Ok(()) => made += 1,
                    Err(_) if self.stop.asked() => {}
                    Err(error) => return Err(error),
                }
            }
            // What another worker had claimed may be free by now, if that one was killed.
            if made == before {
                break;
            }
        }
        let missing = (0..self.n).filter(|k| !done(*k)).count();
        if missing == 0 {
            let _ = fs::remove_dir_all(self.dir.join(CLAIMS));
        }
        Ok(Made { made, missing })
    }

    /// The claim on a part, held until it is dropped; none if another process holds it.
    fn claim(&self, k: usize) -> Result<Option<File>> {
        let claims = self.dir.join(CLAIMS);
        let path = claims.join(format!("{k:05}"));
        let open = || -> std::io::Result<File> {
            fs::create_dir_all(&claims)?;
            File::options().create(true).truncate(false).write(true).open(&path)
        };
        // The last of all workers takes the folder away when everything is there.
        let file = open().or_else(|_| open());
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(_)) if self.worker.is_some() => Ok(Some(file)), // nobody else's
            Err(TryLockError::Error(error)) => bail!(
                "cannot lock {}: {error}: on a file system without locks give each worker its share (--worker i/n)",
                path.display()
            ),
        }
    }
}
