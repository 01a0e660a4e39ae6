//! `cargo verify`: sets up what is missing, then runs every test, and closes with one line of counts.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::browser;
use crate::command::{self, minutes};
use crate::lab;
use crate::places::Places;
use crate::served::Served;
use crate::setup::{self, Ready};
use crate::vllm;

/// What a notebook may take, in seconds, with the start of its kernel.
const LONGEST: u64 = 90;

/// The variable by which the last notebook is given a model, and the one it is given here, so that the tests do not
/// depend on what the user has.
const GIVEN: (&str, &str) = ("THALWEG_LLAMA", "../data/models/tiny-world");

/// The variables that say where a vLLM server is, and where it leaves residuals.
const SERVER: (&str, &str) = ("THALWEG_SERVER", "THALWEG_SHARED");

/// Counts of one step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed, or one for a step that broke off.
    pub failed: usize,
    /// Tests that could not run here.
    pub skipped: usize,
}

impl Counts {
    const PASSED: Counts = Counts { passed: 1, failed: 0, skipped: 0 };
    const FAILED: Counts = Counts { passed: 0, failed: 1, skipped: 0 };
    const SKIPPED: Counts = Counts { passed: 0, failed: 0, skipped: 1 };

    fn of(passed: bool) -> Counts {
        if passed { Counts::PASSED } else { Counts::FAILED }
    }

    fn add(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Runs every step, also after a failed one; an error if any failed.
pub fn run(places: &Places) -> Result<()> {
    let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    let mut report = Report::default();
    let began = Instant::now();
    let ready = setup::ready(places)?;
    report.note("set-up", began.elapsed(), Counts::default());
    report.step("format", || {
        Ok(Counts::of(cargo(places, &ready).args(["fmt", "--all", "--check"]).status()?.success()))
    })?;
    report.step("clippy", || clippy(places, &ready, ci))?;
    report.step("tests of the library and of set-up", || {
        tests(cargo(places, &ready).args([
            "test",
            "--locked",
            "--package",
            "thalweg",
            "--package",
            "thalweg-setup",
        ]))
    })?;
    report.step("tests of the kernel", || {
        let mut command = cargo(places, &ready);
        command.env_remove("CI"); // as when the kernel was built, see kernel.rs
        command.args([
            "test",
            "--locked",
            "--release",
            "--package",
            "thalweg-kernel",
            "--target-dir",
        ]);
        tests(command.arg(&ready.kernel_target))
    })?;
    report.step("tests of captures", || {
        let mut command = cargo(places, &ready);
        command.args(["test", "--locked", "--package", "thalweg-capture", "--"]);
        tests(command.args(["--skip", "served::"])) // those have a step of their own
    })?;
    report.step("book", || {
        // By itself: together with the library cargo would build plotly with plotly.js for both.
        tests(cargo(places, &ready).args(["test", "--locked", "--package", "thalweg-book"]))
    })?;
    let all = lab::notebooks(&places.clone, "").unwrap_or_default();
    report
        .step("notebooks as they are stored, in Chromium", || stored(places, &ready, &all, ci))?;
    report.step("notebooks in JupyterLab", || {
        tests(lab::python(places, &ready, "run_tests.py").arg("test_lab"))
    })?;
    for notebook in &all {
        let page = lab::page_of(&places.clone, notebook);
        let name = notebook.file_stem().unwrap_or_default().to_string_lossy();
        let mut slow = None;
        report.step(&format!("notebook {name}"), || {
            let mut runner = lab::runner(places, &ready, notebook, &page, false);
            let (counts, text) = counted(runner.env(GIVEN.0, GIVEN.1))?;
            slow = seconds_of(&text).filter(|seconds| *seconds > LONGEST);
            Ok(counts)
        })?;
        report.slow.extend(slow.map(|seconds| format!("{name} {seconds} s")));
        report.step(&format!("{name} in Chromium"), || figures(&page, ci))?;
        if std::fs::read_to_string(notebook)?.contains(GIVEN.0) {
            report.step(&format!("{name} without a model"), || {
                let mut runner = lab::runner(places, &ready, notebook, &page, false);
                tests(runner.env(GIVEN.0, ""))
            })?;
        }
    }
    report
        .step("residuals through vLLM, tensor parallel 2", || served(places, &ready, &all, ci))?;
    report.step("notebooks on shuffled weights fail", || {
        tests(&mut lab::mutation(places, &ready, &all))
    })?;
    report.close(began.elapsed())
}

#[derive(Debug, Default)]
struct Report {
    lines: Vec<String>,
    /// Notebooks that took longer than [`LONGEST`]: told, and no failure, for machines are shared.
    slow: Vec<String>,
    total: Counts,
}

impl Report {
    fn step(&mut self, name: &str, work: impl FnOnce() -> Result<Counts>) -> Result<()> {
        println!("\n== {name}");
        let began = Instant::now();
        let counts = work().unwrap_or_else(|error| {
            println!("error: {error:#}");
            Counts::FAILED
        });
        self.note(name, began.elapsed(), counts);
        Ok(())
    }

    fn note(&mut self, name: &str, time: Duration, counts: Counts) {
        self.total.add(counts);
        let outcome = match counts {
            Counts { failed: 1.., .. } => "FAILED",
            Counts { passed: 0, skipped: 1.., .. } => "skipped",
            _ => "ok",
        };
        self.lines.push(format!(
            "{name:<40} {outcome:<8} {:>6} passed {:>13}",
            counts.passed,
            minutes(time)
        ));
    }

    fn close(self, time: Duration) -> Result<()> {
        println!("\n{}\nin all {}", self.lines.join("\n"), minutes(time));
        let Counts { passed, failed, skipped } = self.total;
        let slow = match self.slow.as_slice() {
            [] => String::new(),
            some => format!("; notebooks over {LONGEST} s: {}", some.join(", ")),
        };
        println!("{passed} passed, {failed} failed, {skipped} skipped{slow}");
        if failed > 0 {
            bail!("cargo verify found failures");
        }
        Ok(())
    }
}

/// Cargo as the user would call it in the clone: set-up's own call leaves nothing of its environment in it.
fn cargo(places: &Places, ready: &Ready) -> Command {
    let mut command = Command::new(ready.toolchain.cargo());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_")
            && !["CARGO_HOME", "CARGO_TARGET_DIR"].contains(&text.as_ref())
        {
            command.env_remove(name);
        }
    }
    command
        .current_dir(&places.clone)
        .env_remove("LD_LIBRARY_PATH")
        .env("LIBTORCH", &ready.settings.libtorch);
    command.env("PATH", crate::notebook::path_for(&ready.toolchain.sysroot));
    command
}

/// Clippy on the packages that hold the code; under CI a warning fails.
fn clippy(places: &Places, ready: &Ready, ci: bool) -> Result<Counts> {
    let mut command = cargo(places, ready);
    command.args([
        "clippy",
        "--quiet",
        "--locked",
        "--package",
        "thalweg",
        "--package",
        "thalweg-setup",
        "--package",
        "thalweg-capture",
        "--all-targets",
    ]);
    if ci {
        command.args(["--", "-D", "warnings"]);
    } else {
        println!("warnings are shown; under CI=true they fail");
    }
    Ok(Counts::of(command.status()?.success()))
}

fn tests(command: &mut Command) -> Result<Counts> {
    Ok(counted(command)?.0)
}

/// Runs something that closes with counts as cargo's test runner does; the counts, and all that it printed.
fn counted(command: &mut Command) -> Result<(Counts, String)> {
    let (succeeded, text) = command::shown_and_read(command)?;
    let mut counts = count(&text);
    if !succeeded && counts.failed == 0 {
        counts.failed = 1; // it did not compile, or broke off
    }
    Ok((counts, text))
}

/// How long a notebook took, from the runner's line "01_x.ipynb: ran in 41 s, see ..".
fn seconds_of(text: &str) -> Option<u64> {
    let (_, after) = text.split_once(": ran in ")?;
    after.split(' ').next()?.parse().ok()
}

/// Adds up the closing lines of cargo's test runners, and the lines in which a test says that it had
/// not what it needs (`skipped: ..`), which the runner counts as passed.
pub fn count(text: &str) -> Counts {
    let left_out = text.lines().filter(|line| line.contains("skipped: ")).count();
    let mut counts = Counts { skipped: left_out, ..Counts::default() };
    for line in text.lines().filter(|line| line.trim_start().starts_with("test result: ")) {
        for part in line.split([';', '.']) {
            let mut words = part.split_whitespace();
            let (Some(number), Some(what)) =
                (words.next().and_then(|word| word.parse::<usize>().ok()), words.next())
            else {
                continue;
            };
            match what {
                "passed" => counts.passed += number,
                "failed" => counts.failed += number,
                "ignored" => counts.skipped += number,
                _ => {}
            }
        }
    }
    counts.passed = counts.passed.saturating_sub(left_out);
    counts
}

/// Starts a vLLM server, compares what it shows with what is computed here, and runs the notebooks that use one; then
/// the recipe for replicas, which starts a server of its own.
fn served(places: &Places, ready: &Ready, all: &[PathBuf], ci: bool) -> Result<Counts> {
    let told = std::env::var_os("THALWEG_VLLM_PYTHON").filter(|value| !value.is_empty());
    let Some(python) = told.map(PathBuf::from).or_else(|| vllm::existing(places)) else {
        println!("skipped: vLLM is not installed: cargo vllm");
        return Ok(if ci { Counts::FAILED } else { Counts::SKIPPED });
    };
    let package = ["--quiet", "--locked", "--package", "thalweg-capture"];
    let capture = || {
        let mut command = cargo(places, ready);
        command.arg("run").args(package).arg("--");
        command
    };
    let server = Served::start(capture, &places.clone.join("data/models/tiny-world"), &python)?;
    let tell = |command: &mut Command| {
        command.env(SERVER.0, &server.url).env(SERVER.1, &server.shared);
    };
    let test = |words: &[&str]| {
        let mut command = cargo(places, ready);
        command.arg("test").args(package).args(["--test", "integration", "--"]).args(words);
        command
    };
    let mut command = test(&["served::", "--skip", "served::replicas"]);
    tell(&mut command);
    let mut counts = tests(&mut command)?;
    for notebook in all {
        if std::fs::read_to_string(notebook)?.contains(SERVER.0) {
            let page = lab::page_of(&places.clone, notebook);
            let mut runner = lab::runner(places, ready, notebook, &page, false);
            tell(&mut runner);
            counts.add(tests(&mut runner)?);
        }
    }
    drop(server);
    let mut replicas = test(&["served::replicas"]);
    replicas.env("THALWEG_REPLICAS", "2").env("THALWEG_VLLM_PYTHON", &python);
    counts.add(tests(&mut replicas)?);
    Ok(counts)
}

/// Looks at the pages of all notebooks with the outputs that they were committed with.
fn stored(places: &Places, ready: &Ready, all: &[PathBuf], ci: bool) -> Result<Counts> {
    let folder = places.clone.join("lab/stored");
    command::shown("stored.py", &mut lab::stored(places, ready, all, &folder))?;
    let mut counts = Counts::default();
    for notebook in all {
        let name = notebook.with_extension("html");
        let page = folder.join(name.file_name().unwrap_or_default());
        counts.add(figures(&page, ci)?);
    }
    Ok(counts)
}

fn figures(page: &Path, ci: bool) -> Result<Counts> {
    let Some(chromium) = browser::chromium() else {
        println!(
            "no Chromium here, the figures were not looked at (Debian: apt-get install chromium)"
        );
        return Ok(if ci { Counts::FAILED } else { Counts::SKIPPED });
    };
    let seen = browser::look(&chromium, page)?;
    println!(
        "{} figures, {} drawn by plotly.js, see {}",
        seen.figures,
        seen.drawn,
        page.with_extension("png").display()
    );
    Ok(Counts::of(seen.is_whole() && seen.figures > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notebooks_time_is_read_from_the_runners_line() {
        let text = "  cell 12/12: 1.5 s\n01_first_look.ipynb: ran in 92 s, see lab/01.html\n  solution 1: 3.0 s\n";
        assert_eq!(seconds_of(text), Some(92));
        assert_eq!(seconds_of("test result: FAILED. 0 passed; 1 failed; 0 ignored"), None);
    }

    #[test]
    fn the_closing_lines_of_all_test_binaries_are_added_up() {
        let text = "running 3 tests\ntest result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.49s
test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.49s\n";
        assert_eq!(count(text), Counts { passed: 4, failed: 2, skipped: 1 });
        let told = format!("..skipped: bf16 kernels: no such instructions\n{text}");
        assert_eq!(count(&told), Counts { passed: 3, failed: 2, skipped: 2 });
    }
}
