//! The builds of a kernel's start, kept with the template: each kernel of a clone starts with the same cells.
//!
//! A kernel compiles five cells before the reader's first, a second and a half of cargo, rustc and the linker. Their
//! libraries are kept under a key of all that goes into them (the cell and its manifest, the variables that compilers
//! read, this program), each with the record of its build; a later kernel takes one whose record still stands, every
//! file that it rests on being what it was. What names the kernel's private folder is written without it.

use std::collections::HashSet;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::record::{self, Record, stamp_of};
use super::{Tools, replay};

/// Stands for the private folder in what is kept.
const PRIVATE: &str = "{private folder}";

/// The variables, by the beginnings of their names, that compilers and linkers read.
const READ: [&str; 10] = [
    "CARGO",
    "RUST",
    "CC",
    "CFLAGS",
    "LDFLAGS",
    "LD_",
    "LIBRARY_PATH",
    "LIBTORCH",
    "PATH",
    "SDKROOT",
];

/// A kept build. Its library lies beside it.
#[derive(Serialize, Deserialize)]
struct Kept {
    record: Record,
    lock: String,
}

/// Until the kernel has started, its private folder holds this file.
pub(super) fn marker(private: &Path) -> PathBuf {
    private.join("starting")
}

/// Whether the kernel is still starting, and has a place for its builds.
pub(super) fn starting(tools: &Tools) -> bool {
    marker(&tools.private).exists() && folder().is_some()
}

fn folder() -> Option<PathBuf> {
    env::var_os("THALWEG_STARTS").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Answers a build with the kept one. None where there is none, or it does not stand.
pub(super) fn answer(tools: &Tools, arguments: &[OsString]) -> Result<Option<i32>> {
    let Some((name, kept)) = find(tools, arguments) else { return Ok(None) };
    let Kept { mut record, lock } = kept;
    // Of the same manifest and the same locked sources cargo has made the same lock file, or would.
    let lock_file = tools.work().join("Cargo.lock");
    fs::write(&lock_file, lock)?;
    let written: Vec<PathBuf> = written(tools).into_iter().chain([lock_file]).collect();
    if !record.stands_here(&written, arguments) {
        return Ok(None);
    }
    let parent = record.made.parent().context("the cell's library lies nowhere")?;
    fs::create_dir_all(parent)?;
    let _ = fs::remove_file(&record.made);
    if fs::copy(name.with_extension("so"), &record.made).is_err() {
        return Ok(None);
    }
    replay::put(&record.made, &record.put)?;
    bring_shared(tools);
    record::write(tools, &record)?;
    let mut out = std::io::stdout().lock();
    for line in [replay::artifact(&record), json!({ "reason": "build-finished", "success": true })]
    {
        writeln!(out, "{line}")?;
    }
    Ok(Some(0))
}

/// Keeps the build that just succeeded. A failure to costs the next kernel time and nothing else.
pub(super) fn keep(tools: &Tools, arguments: &[OsString]) {
    let kept = || -> Option<()> {
        let name = name(tools, arguments)?;
        let mut record = record::standing(tools, arguments)?;
        let own: HashSet<(String, String)> = record::environment()?.into_iter().collect();
        record.environment.retain(|pair| !own.contains(pair));
        let lock = fs::read_to_string(tools.work().join("Cargo.lock")).ok()?;
        let text = serde_json::to_string(&Kept { record: record.clone(), lock }).ok()?;
        let private = tools.private.to_str()?;
        let part = name.with_extension(std::process::id().to_string());
        fs::create_dir_all(name.parent()?).ok()?;
        fs::copy(&record.made, &part).ok()?;
        fs::rename(&part, name.with_extension("so")).ok()?;
        fs::write(&part, text.replace(private, PRIVATE)).ok()?;
        fs::rename(&part, name.with_extension("json")).ok()
    };
    let _ = kept();
}

/// evcxr writes a cell's items in an order that changes from run to run, which is all that can change in these cells.
fn lines_of_cell(tools: &Tools) -> Option<Vec<String>> {
    let source = fs::read_to_string(tools.work().join("src/lib.rs")).ok()?;
    let mut lines: Vec<String> = source.lines().map(str::to_owned).collect();
    lines.sort();
    Some(lines)
}

/// What evcxr writes anew at each start, besides the cell.
fn written(tools: &Tools) -> [PathBuf; 2] {
    ["Cargo.toml", ".cargo/config.toml"].map(|name| tools.work().join(name))
}

/// Keeps the library that all cells share. It is named by what it is made of.
pub(super) fn keep_shared(tools: &Tools, made: &Path) {
    if let (Some(folder), Some(name)) = (folder().filter(|_| starting(tools)), made.file_name()) {
        // A failure to costs the next kernel time and nothing else.
        let _ = fs::create_dir_all(&folder).and_then(|()| fs::hard_link(made, folder.join(name)));
    }
}

/// Brings what [`keep_shared`] kept: the cell may need it.
fn bring_shared(tools: &Tools) {
    let listing = folder().and_then(|folder| fs::read_dir(folder).ok());
    for item in listing.into_iter().flatten().flatten() {
        if item.file_name().as_bytes().starts_with(b"libcells-") {
            let _ = fs::hard_link(item.path(), tools.kept().join(item.file_name()));
        }
    }
}

fn find(tools: &Tools, arguments: &[OsString]) -> Option<(PathBuf, Kept)> {
    let name = name(tools, arguments)?;
    let text = fs::read_to_string(name.with_extension("json")).ok()?;
    let kept = serde_json::from_str(&text.replace(PRIVATE, tools.private.to_str()?)).ok()?;
    Some((name, kept))
}

/// Where the build that is asked for is kept, without an ending.
fn name(tools: &Tools, arguments: &[OsString]) -> Option<PathBuf> {
    let private = tools.private.to_str()?;
    let mut hash = DefaultHasher::new();
    arguments.hash(&mut hash);
    stamp_of(&env::current_exe().ok()?.canonicalize().ok()?).hash(&mut hash);
    for path in written(tools) {
        fs::read_to_string(path).unwrap_or_default().replace(private, PRIVATE).hash(&mut hash);
    }
    lines_of_cell(tools)?.hash(&mut hash);
    let mut read: Vec<(OsString, OsString)> = env::vars_os()
        .filter(|(name, _)| READ.iter().any(|start| name.as_bytes().starts_with(start.as_bytes())))
        .collect();
    read.sort();
    {
        let mut f = fs::OpenOptions::new().append(true).create(true).open("/tmp/keys").unwrap();
        let _ = writeln!(
            f,
            "=== {arguments:?}\n{}\n{}",
            fs::read_to_string(tools.work().join("src/lib.rs")).unwrap(),
            read.iter()
                .map(|x| format!("{x:?}"))
                .collect::<Vec<_>>()
                .join("\n")
                .replace(private, PRIVATE)
        );
    }
    for (name, value) in read {
        (name.as_bytes(), value.to_str()?.replace(private, PRIVATE)).hash(&mut hash);
    }
    Some(folder()?.join(format!("{:016x}", hash.finish())))
}
