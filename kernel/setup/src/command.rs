//! Running other programs: quietly into a log, with a line of progress now and then and a one-line error.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const HEARTBEAT: Duration = Duration::from_secs(30);

/// What a program printed on its standard output, without the last line break.
pub fn output(command: &mut Command) -> Result<String> {
    let name = program(command);
    let output =
        command.stderr(Stdio::piped()).output().with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("{name}: {}", telling_line(&errors).unwrap_or("failed without a word"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// Runs a long step: everything it prints goes to `log`, and twice a minute a line says how far it is.
/// `what` starts those lines. An error is the first line of the log that tells what went wrong, and the log's path.
pub fn logged(what: &str, log: &Path, command: &mut Command) -> Result<()> {
    if let Some(parent) = log.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
    }
    let name = program(command);
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("{what}: cannot start {name}"))?;
    let started = Instant::now();
    let mut next = HEARTBEAT;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > next {
            next += HEARTBEAT;
            println!("  {what}: {}, {} so far", progress(log), minutes(started.elapsed()));
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    if !status.success() {
        let text = fs::read_to_string(log).unwrap_or_default();
        let line = telling_line(&text).unwrap_or("failed without a word").to_owned();
        bail!("{what}: {line} (the whole log: {})", log.display());
    }
    Ok(())
}

/// Runs a program in the foreground, its output shown; the error names `what`.
pub fn shown(what: &str, command: &mut Command) -> Result<()> {
    let name = program(command);
    let status = command.status().with_context(|| format!("{what}: cannot start {name}"))?;
    if !status.success() {
        bail!("{what} failed");
    }
    Ok(())
}

/// Runs a program with its standard output shown and also returned.
pub fn shown_and_read(command: &mut Command) -> Result<(bool, String)> {
    let name = program(command);
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {name}"))?;
    let mut text = String::new();
    let stdout = child.stdout.take().context("no standard output")?;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        println!("{line}");
        text.push_str(&line);
        text.push('\n');
    }
    Ok((child.wait()?.success(), text))
}

/// `2 min 05 s`, or `7 s`.
pub fn minutes(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 {
        format!("{seconds} s")
    } else {
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    }
}

fn program(command: &Command) -> String {
    Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn progress(log: &Path) -> String {
    let text =
        fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let built = text.lines().filter(|line| line.trim_start().starts_with("Compiling ")).count();
    if built > 0 {
        return format!("{built} packages compiled or begun");
    }
    text.lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or("begun")
        .chars()
        .take(100)
        .collect()
}

/// The line of a log that a reader wants first: the first error, or else the last line with something on it.
fn telling_line(text: &str) -> Option<&str> {
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines()
        .find(|line| {
            line.starts_with("error") || line.starts_with("ERROR") || line.contains("Error: ")
        })
        .or_else(|| lines().next_back())
}
