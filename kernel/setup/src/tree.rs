//! Copying a build folder cheaply: hard links for what no build writes again, copies for the rest.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// How a file of a build folder is brought along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bring {
    /// A second name for the same bytes.
    Link,
    /// Bytes of its own, with the same modification time (cargo compares those).
    Copy,
    /// Not at all.
    Leave,
}

/// Copies the folder `from` to `to`; `bring` decides for each path, given relative to `from`, folders included
/// (`Leave` skips a whole folder, anything else enters it).
pub fn copy(from: &Path, to: &Path, bring: &dyn Fn(&Path) -> Bring) -> Result<()> {
    copy_below(from, to, Path::new(""), bring)
}

fn copy_below(from: &Path, to: &Path, below: &Path, bring: &dyn Fn(&Path) -> Bring) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    for item in fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
        let item = item?;
        let (source, target, relative) =
            (item.path(), to.join(item.file_name()), below.join(item.file_name()));
        let how = bring(&relative);
        if how == Bring::Leave {
            continue;
        }
        if item.file_type()?.is_dir() {
            copy_below(&source, &target, &relative, bring)?;
        } else if how == Bring::Copy || fs::hard_link(&source, &target).is_err() {
            copy_file(&source, &target)?;
        }
    }
    keep_time(from, to)
}

fn copy_file(source: &Path, target: &Path) -> Result<()> {
    fs::copy(source, target).with_context(|| format!("cannot copy {}", source.display()))?;
    keep_time(source, target)
}

fn keep_time(source: &Path, target: &Path) -> Result<()> {
    let time = fs::metadata(source)?.modified()?;
    fs::File::open(target)?
        .set_modified(time)
        .with_context(|| format!("cannot date {}", target.display()))
}

/// The folder of a template that no kernel's folder gets.
pub const STARTS: &str = "starts";

/// How the file at `path` of a notebook build folder (relative to it) is brought along: what is made from a registry package is
/// linked; what is made from the notebook's own cell (`ctx`) is left, being compiled anew; the rest, thalweg's own
/// among it, is copied, or left where `with_thalweg` is false.
pub fn of_notebook(path: &Path, with_thalweg: bool) -> Bring {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let bare = name.strip_prefix("lib").unwrap_or(&name);
    if name == "incremental"
        || path == Path::new(STARTS)
        || bare.starts_with("ctx")
        || bare.starts_with("code_")
    {
        return Bring::Leave;
    }
    if bare.starts_with("thalweg") {
        return if with_thalweg { Bring::Copy } else { Bring::Leave };
    }
    let within = |folder: &str| path.components().any(|part| part.as_os_str() == folder);
    let of_thalweg =
        path.components().any(|part| part.as_os_str().to_string_lossy().starts_with("thalweg-"));
    if (within("deps") || within("build")) && !of_thalweg { Bring::Link } else { Bring::Copy }
}
