//! Repeats the rustc command of a recorded build and says of it what cargo would say.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::record::Record;
use super::{FAILED, Tools};

/// How often a running compilation looks whether it shall stop.
const LOOK: Duration = Duration::from_millis(20);

/// Errors of rustc that speak of missing or foreign libraries: the record may be to blame.
const DOUBTS: [&str; 7] = ["E0460", "E0461", "E0462", "E0463", "E0464", "E0514", "E0786"];

/// Compiles the cell as recorded. The exit status, or none where the real cargo must decide.
pub(super) fn run(tools: &Tools, record: &Record) -> Result<Option<i32>> {
    let _ = fs::remove_file(&record.made); // it may be in use: evcxr only gave it a second name
    let (compiler, arguments) = record.command.split_first().context("no compiler is recorded")?;
    let mut child = Command::new(compiler)
        .args(arguments.iter().map(|word| uncoloured(word)))
        .arg(format!("-Clinker={}", tools.bin().join("cell-linker").display()))
        .env_clear()
        .envs(record.environment.iter().map(|(name, value)| (name, value)))
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("cannot start rustc")?;
    let watch = Watch::on(child.id());
    let said = Said::read(child.stderr.take().context("rustc has no output")?, &record.unit)?;
    let status = child.wait()?;
    if watch.stopped() {
        return Ok(Some(say_interrupted()));
    }
    match status.code() {
        Some(0) if put(&record.made, &record.put).is_ok() => {
            said.pass_on(&[
                artifact(record),
                json!({ "reason": "build-finished", "success": true }),
            ])?;
            Ok(Some(0))
        }
        Some(1) if !said.doubtful => {
            said.pass_on(&[json!({ "reason": "build-finished", "success": false })])?;
            eprintln!("error: could not compile `ctx` (lib)");
            Ok(Some(FAILED))
        }
        _ => Ok(None),
    }
}

/// Cargo asks rustc for colours and takes them out again.
fn uncoloured(word: &str) -> String {
    match word.strip_prefix("--json=") {
        Some(list) => format!("--json={}", list.replace("diagnostic-rendered-ansi,", "")),
        None => word.to_owned(),
    }
}

/// As cargo does: a second name, in the folder above.
pub(super) fn put(made: &Path, put: &Path) -> std::io::Result<()> {
    let _ = fs::remove_file(put);
    fs::hard_link(made, put).or_else(|_| fs::copy(made, put).map(|_| ()))
}

/// The line by which cargo says where the cell's library is.
pub(super) fn artifact(record: &Record) -> Value {
    let unit = &record.unit;
    json!({
        "reason": "compiler-artifact",
        "package_id": unit["package_id"],
        "manifest_path": unit["manifest_path"],
        "target": unit["target"],
        "profile": unit["profile"],
        "features": [],
        "filenames": [record.put],
        "executable": null,
        "fresh": false,
    })
}

/// What rustc said.
struct Said {
    /// Its messages, in cargo's wrapping.
    messages: Vec<Value>,
    /// Lines that are no message.
    other: Vec<u8>,
    doubtful: bool,
}

impl Said {
    fn read(output: impl std::io::Read, unit: &Value) -> Result<Said> {
        let mut said = Said { messages: Vec::new(), other: Vec::new(), doubtful: false };
        for line in BufReader::new(output).split(b'\n') {
            let line = line?;
            match serde_json::from_slice::<Value>(&line) {
                Ok(message) if message["$message_type"] == "diagnostic" => {
                    let code = message["code"]["code"].as_str().unwrap_or_default();
                    said.doubtful |= DOUBTS.contains(&code);
                    if !is_count(&message) {
                        said.messages.push(wrapped(message, unit));
                    }
                }
                Ok(message) if message.is_object() => {}
                _ => {
                    said.other.extend(line);
                    said.other.push(b'\n');
                }
            }
        }
        Ok(said)
    }

    fn pass_on(self, last: &[Value]) -> Result<()> {
        std::io::stderr().write_all(&self.other)?;
        let mut out = std::io::stdout().lock();
        for message in self.messages.iter().chain(last) {
            writeln!(out, "{message}")?;
        }
        out.flush()?;
        Ok(())
    }
}

/// How many errors or warnings there were: cargo counts for itself.
fn is_count(message: &Value) -> bool {
    let text = message["message"].as_str().unwrap_or_default();
    text.starts_with("aborting due to")
        || text.ends_with("warning emitted")
        || text.ends_with("warnings emitted")
}

fn wrapped(message: Value, unit: &Value) -> Value {
    json!({
        "reason": "compiler-message",
        "package_id": unit["package_id"],
        "manifest_path": unit["manifest_path"],
        "target": unit["target"],
        "message": message,
    })
}

/// Stops a program and all that it started as soon as the kernel asks for it.
pub(super) struct Watch {
    stopped: Arc<AtomicBool>,
}

impl Watch {
    /// On the process group `id`.
    pub(super) fn on(id: u32) -> Watch {
        let stopped = Arc::new(AtomicBool::new(false));
        let seen = stopped.clone();
        // It ends with this process.
        std::thread::spawn(move || {
            while !interrupted() {
                std::thread::sleep(LOOK);
            }
            seen.store(true, Ordering::SeqCst);
            let _ = Command::new("kill").args(["-KILL", "--", &format!("-{id}")]).status();
        });
        Watch { stopped }
    }

    pub(super) fn stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }
}

/// Whether the kernel asks cells to stop.
pub(super) fn interrupted() -> bool {
    env::var_os("THALWEG_INTERRUPT").map(PathBuf::from).is_some_and(|file| file.exists())
}

/// Says so where evcxr looks for it.
pub(super) fn say_interrupted() -> i32 {
    eprintln!("error: the compilation was interrupted");
    FAILED
}
