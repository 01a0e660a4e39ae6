//! Files that are there whole or not at all, also after a kill or a loss of power.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const SUFFIX: &str = ".partial";

/// Where `path` is written until it is whole. One process at a time writes a given file.
pub(crate) fn partial(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}{SUFFIX}"))
}

/// Whether a path is such a file, of a process that may have been killed.
pub(crate) fn is_partial(path: &Path) -> bool {
    path.to_string_lossy().ends_with(SUFFIX)
}

/// Gives a file that is whole its name; afterwards it survives a loss of power.
pub(crate) fn settle(partial: &Path, path: &Path) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    File::open(partial).and_then(|file| file.sync_all()).with_context(failed)?;
    fs::rename(partial, path).with_context(failed)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    // Not every file system can sync a directory; the name is there in any case.
    let _ = File::open(dir.unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all());
    Ok(())
}

/// Writes a small file.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = own_partial(path, bytes)?;
    settle(&partial, path)
}

/// Writes a small file unless there is one by now: of several processes the first one's stays.
pub(crate) fn write_first(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = own_partial(path, bytes)?;
    let linked = fs::hard_link(&partial, path);
    match linked {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(_) => return settle(&partial, path), // a file system without links
    }
    fs::remove_file(&partial).with_context(|| format!("cannot write {}", path.display()))
}

/// A partial file that no other process writes, whatever its host.
fn own_partial(path: &Path, bytes: &[u8]) -> Result<PathBuf> {
    use std::hash::{BuildHasher, Hasher};
    let random = std::hash::RandomState::new().build_hasher().finish();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = path.with_file_name(format!(".{name}.{random:016x}{SUFFIX}"));
    let written = File::create(&partial).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    if let Err(error) = written {
        let _ = fs::remove_file(&partial);
        return Err(error).with_context(|| format!("cannot write {}", path.display()));
    }
    Ok(partial)
}
