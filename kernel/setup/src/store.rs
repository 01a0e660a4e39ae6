//! Directories that are either absent or whole: built under a temporary name and renamed, under a lock.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

/// Makes `dir` by `build` unless it is there. `build` gets a temporary folder beside it, which keeps what an
/// interrupted try left in it, so that a long build goes on where it stopped.
pub fn entry(dir: &Path, build: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if dir.exists() {
        return touch(dir);
    }
    let _lock = lock(dir)?;
    if dir.exists() {
        return Ok(()); // another process built it while this one waited
    }
    let partial = beside(dir, "partial");
    fs::create_dir_all(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
    build(&partial)?;
    fs::rename(&partial, dir)
        .with_context(|| format!("cannot rename {} to {}", partial.display(), dir.display()))?;
    touch(dir)
}

/// Waits for the lock of `dir`, the file `<dir>.lock`; dropping the returned file gives it back.
pub fn lock(dir: &Path) -> Result<File> {
    let file = lock_file(dir)?;
    if let Err(TryLockError::WouldBlock) = file.try_lock() {
        eprintln!("waiting for another process that works on {}", dir.display());
        file.lock().with_context(|| format!("cannot lock {}", dir.display()))?;
    }
    Ok(file)
}

/// The lock of `dir` if nobody holds it.
pub fn lock_if_free(dir: &Path) -> Result<Option<File>> {
    let file = lock_file(dir)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", dir.display()))
        }
    }
}

fn lock_file(dir: &Path) -> Result<File> {
    let path = beside(dir, "lock");
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
    }
    OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))
}

/// `<dir>.<word>`: a name beside `dir`.
pub fn beside(dir: &Path, word: &str) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_os_string();
    name.push(".");
    name.push(word);
    dir.with_file_name(name)
}

/// Notes that `dir` is in use, for [`prune`].
pub fn touch(dir: &Path) -> Result<()> {
    let path = beside(dir, "used");
    fs::write(&path, "").with_context(|| format!("cannot write {}", path.display()))
}

/// Removes the entries of `parent` (and what interrupted builds left) that nobody used for `age` or holds a lock on.
pub fn prune(parent: &Path, age: Duration) -> Result<()> {
    let Ok(listing) = fs::read_dir(parent) else { return Ok(()) };
    for item in listing.flatten() {
        let path = item.path();
        let name = item.file_name().to_string_lossy().into_owned();
        if !path.is_dir() {
            continue;
        }
        let entry = path.with_file_name(name.strip_suffix(".partial").unwrap_or(&name));
        if last_use(&entry, &path).is_some_and(|time| time > age) {
            let Some(_lock) = lock_if_free(&entry)? else { continue };
            remove(&path)?;
            for word in ["used", "lock"] {
                let _ = fs::remove_file(beside(&entry, word));
            }
        }
    }
    Ok(())
}

fn last_use(entry: &Path, path: &Path) -> Option<Duration> {
    let modified = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    let time = modified(&beside(entry, "used")).into_iter().chain(modified(path)).max()?;
    SystemTime::now().duration_since(time).ok()
}

/// Removes a folder in one step as others see it: renamed first, then emptied.
pub fn remove(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let doomed = beside(dir, &format!("removed-{}", std::process::id()));
    fs::rename(dir, &doomed).with_context(|| format!("cannot rename {}", dir.display()))?;
    fs::remove_dir_all(&doomed).with_context(|| format!("cannot remove {}", doomed.display()))
}

/// A key of everything that goes into an entry: the parts in order, each with its length (FNV-1a, 128 bits).
#[derive(Debug, Clone)]
pub struct Key(u128);

impl Key {
    /// The key of nothing, to which parts are added.
    pub fn new() -> Key {
        Key(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }

    /// The key with one more part. `"ab"` and then `"c"` is not `"a"` and then `"bc"`.
    pub fn with(mut self, part: impl AsRef<[u8]>) -> Key {
        let part = part.as_ref();
        for byte in (part.len() as u64).to_le_bytes().iter().chain(part) {
            self.0 = (self.0 ^ u128::from(*byte))
                .wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
        self
    }

    /// The key with every file under `dir`, names and contents, in the order of names; folders named in `skip` are left out.
    pub fn with_files(self, dir: &Path, skip: &[&str]) -> Result<Key> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .with_context(|| format!("cannot list {}", dir.display()))?
            .flatten()
            .map(|item| item.file_name())
            .filter(|name| !skip.iter().any(|skipped| name == skipped))
            .collect();
        names.sort();
        let mut key = self;
        for name in names {
            let path = dir.join(&name);
            key = key.with(name.as_encoded_bytes());
            key = if path.is_dir() {
                key.with_files(&path, skip)?
            } else {
                key.with(
                    fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?,
                )
            };
        }
        Ok(key)
    }

    /// The key as it stands in file names: 16 hexadecimal digits.
    pub fn name(&self) -> String {
        format!("{:016x}", (self.0 >> 64) as u64 ^ self.0 as u64)
    }
}

impl Default for Key {
    fn default() -> Self {
        Key::new()
    }
}
