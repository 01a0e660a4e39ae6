//! Watches a build by the real cargo: which rustc command compiled the cell, and all that it depended on.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{FAILED, Tools, become_program, replay};

/// One build of a cell by the real cargo, and what must not have changed for its command to be right again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// The compiler and its arguments.
    pub(super) command: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    /// What cargo said of the cell's crate: `package_id`, `manifest_path`, `target`, `profile`.
    pub(super) unit: Value,
    /// Where rustc writes the cell's library, and where cargo then puts it.
    pub(super) made: PathBuf,
    pub(super) put: PathBuf,
    /// A hash of the arguments and of the whole environment of the call.
    call: u64,
    files: Vec<(PathBuf, Stamp)>,
}

/// Length and time of a file in nanoseconds; none where there is no such file.
type Stamp = Option<(u64, u64)>;

/// The record of the last build, if nothing that it rests on has changed.
pub(super) fn standing(tools: &Tools, arguments: &[OsString]) -> Option<Record> {
    let text = fs::read(file(tools)).ok()?;
    let record: Record = serde_json::from_slice(&text).ok()?;
    (record.call == call(arguments) && record.stands()).then_some(record)
}

/// Keeps the record of a build.
pub(super) fn write(tools: &Tools, record: &Record) -> Result<()> {
    fs::write(file(tools), serde_json::to_vec(record)?).context("cannot keep the record of a build")
}

impl Record {
    /// Makes the record of another kernel's build one of this kernel, where `written` is known to be the same. Whether
    /// all else that it rests on is what it was.
    pub(super) fn stands_here(&mut self, written: &[PathBuf], arguments: &[OsString]) -> bool {
        for (path, stamp) in self.files.iter_mut().filter(|(path, _)| written.contains(path)) {
            *stamp = stamp_of(path);
        }
        self.call = call(arguments);
        let Some(own) = environment() else { return false };
        let added = std::mem::replace(&mut self.environment, own);
        self.environment.retain(|(name, _)| added.iter().all(|(other, _)| other != name));
        self.environment.extend(added);
        self.stands()
    }

    fn stands(&self) -> bool {
        self.files.iter().all(|(path, stamp)| stamp_of(path) == *stamp)
    }
}

/// Has the real cargo build, and keeps a record if all of it is understood.
pub(super) fn build(tools: &Tools, arguments: &[OsString]) -> Result<i32> {
    for path in [file(tools), command_file(tools)] {
        let _ = fs::remove_file(path);
    }
    let mut child = Command::new(tools.cargo())
        .args(arguments)
        .env("RUSTC_WRAPPER", tools.bin().join("watched-rustc"))
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("cannot start cargo")?;
    let watch = replay::Watch::on(child.id());
    let messages = pass_on(child.stdout.take().context("cargo has no output")?)?;
    let status = child.wait()?;
    if watch.stopped() {
        return Ok(replay::say_interrupted());
    }
    if let Some(record) = understand(tools, arguments, &messages) {
        // A failure to keep it costs time and nothing else.
        let _ = write(tools, &record);
    }
    Ok(status.code().unwrap_or(FAILED))
}

/// Stands before rustc: notes the command that compiles a cell, and is rustc.
pub(super) fn watch(tools: &Tools, arguments: &[OsString]) -> Result<i32> {
    let (rustc, rest) = arguments.split_first().context("no compiler is named")?;
    if after(rest, "--crate-name").is_some_and(|name| name == "ctx")
        && after(rest, "--crate-type").is_some_and(|name| name == "cdylib")
    {
        let note = command_note(arguments);
        let _ = fs::write(command_file(tools), serde_json::to_vec(&note)?);
    }
    become_program(Command::new(rustc).args(rest))
}

/// Where cargo tells of its job server, which ends with cargo.
const JOB_SERVERS: [&str; 3] = ["CARGO_MAKEFLAGS", "MAKEFLAGS", "MFLAGS"];

type Note = (Vec<String>, Vec<(String, String)>);

/// The command and its environment, without cargo's job server. None if not all is text.
fn command_note(arguments: &[OsString]) -> Option<Note> {
    let command = arguments
        .iter()
        .map(|word| word.to_str().map(str::to_owned))
        .collect::<Option<Vec<String>>>()?;
    Some((command, environment()?))
}

/// The variables of this call, without cargo's job server. None if not all are text.
pub(super) fn environment() -> Option<Vec<(String, String)>> {
    env::vars_os()
        .filter(|(name, _)| !JOB_SERVERS.iter().any(|server| name == server))
        .map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn pass_on(output: impl std::io::Read) -> Result<Vec<Value>> {
    let mut messages = Vec::new();
    let mut out = std::io::stdout().lock();
    for line in BufReader::new(output).split(b'\n') {
        let mut line = line?;
        messages.extend(serde_json::from_slice(&line).ok());
        line.push(b'\n');
        out.write_all(&line)?;
    }
    Ok(messages)
}

fn understand(tools: &Tools, arguments: &[OsString], messages: &[Value]) -> Option<Record> {
    let note: Option<Note> = serde_json::from_slice(&fs::read(command_file(tools)).ok()?).ok()?;
    let (command, environment) = note?;
    let of_cell = |message: &&Value| message["target"]["name"] == "ctx";
    let unit = messages.iter().rev().find(of_cell)?.clone();
    let words: Vec<OsString> = command.iter().map(OsString::from).collect();
    let made = Path::new(after(&words, "--out-dir")?).join("libctx.so");
    let put = made.parent()?.parent()?.join("libctx.so");
    let mut paths = settings_files(tools);
    paths.insert(PathBuf::from(&command[0]));
    for message in messages.iter().filter(|message| !of_cell(message)) {
        paths.extend(rests_on(message)?);
    }
    let files = paths.into_iter().map(|path| (path.clone(), stamp_of(&path))).collect();
    Some(Record { command, environment, unit, made, put, call: call(arguments), files })
}

/// What tells cargo how to build, present or not.
fn settings_files(tools: &Tools) -> BTreeSet<PathBuf> {
    let work = tools.work();
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let mut paths: BTreeSet<PathBuf> =
        ["Cargo.toml", "Cargo.lock"].iter().map(|name| work.join(name)).collect();
    let folders = work.ancestors().map(|folder| folder.join(".cargo")).chain(home);
    for folder in folders {
        paths.extend(["config", "config.toml"].iter().map(|name| folder.join(name)));
    }
    for name in ["rust-toolchain", "rust-toolchain.toml"] {
        paths.insert(work.join(name));
    }
    paths.insert(tools.cargo());
    paths
}

/// The files that one of cargo's messages says the build rests on; none where that is not known.
fn rests_on(message: &Value) -> Option<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> = message["filenames"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(PathBuf::from)
        .collect();
    let local = message["package_id"].as_str().is_some_and(|id| id.starts_with("path+"));
    match message["reason"].as_str() {
        Some("compiler-artifact") if local => {
            let made = paths.clone();
            paths.push(message["manifest_path"].as_str()?.into());
            paths.push(message["target"]["src_path"].as_str()?.into());
            paths.extend(sources(&made)?);
        }
        Some("build-script-executed") if local => paths.extend(watched(message)?),
        _ => {}
    }
    Some(paths)
}

/// The sources of what was made, as rustc wrote them beside it; none if one is younger than what was made of it.
fn sources(made: &[PathBuf]) -> Option<Vec<PathBuf>> {
    let first = made.first()?;
    let beside = first.parent()?;
    let stem = first.file_stem()?.to_str()?;
    let stem = stem.strip_prefix("lib").unwrap_or(stem);
    let named = beside.join(format!("{stem}.d"));
    let note = if named.exists() {
        named
    } else {
        let mut listing = fs::read_dir(beside).ok()?.flatten().map(|item| item.path());
        listing.find(|path| path.extension().is_some_and(|ending| ending == "d"))?
    };
    let text = fs::read_to_string(note).ok()?;
    let (_, list) = text.lines().next()?.split_once(": ")?;
    let paths: Vec<PathBuf> = list
        .replace("\\ ", "\u{0}")
        .split_whitespace()
        .map(|word| PathBuf::from(word.replace('\u{0}', " ")))
        .collect();
    let age = stamp_of(first)?.1;
    let known = paths
        .iter()
        .all(|path| path.is_absolute() && stamp_of(path).is_some_and(|(_, time)| time <= age));
    known.then_some(paths)
}

/// What a build script told cargo to watch; none if it told nothing, for then cargo watches the whole package.
fn watched(message: &Value) -> Option<Vec<PathBuf>> {
    let output = Path::new(message["out_dir"].as_str()?).parent()?.join("output");
    let id = message["package_id"].as_str()?;
    let package = Path::new(id.strip_prefix("path+file://")?.split('#').next()?).to_path_buf();
    let text = fs::read_to_string(output).ok()?;
    let paths: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| line.split_once("rerun-if-changed="))
        .map(|(_, path)| package.join(path))
        .collect();
    (!paths.is_empty() && paths.iter().all(|path| path.is_file())).then_some(paths)
}

fn after<'a>(words: &'a [OsString], name: &str) -> Option<&'a OsString> {
    words.iter().position(|word| word == name).and_then(|at| words.get(at + 1))
}

fn call(arguments: &[OsString]) -> u64 {
    let mut hash = DefaultHasher::new();
    arguments.hash(&mut hash);
    let mut all: Vec<(OsString, OsString)> = env::vars_os().collect();
    all.sort();
    for (name, value) in all {
        (name.as_bytes(), value.as_bytes()).hash(&mut hash);
    }
    hash.finish()
}

pub(super) fn stamp_of(path: &Path) -> Stamp {
    let about = fs::metadata(path).ok()?;
    let time = about.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some((about.len(), u64::try_from(time.as_nanos()).ok()?))
}

fn file(tools: &Tools) -> PathBuf {
    tools.kept().join("record.json")
}

fn command_file(tools: &Tools) -> PathBuf {
    tools.kept().join("command.json")
}
