//! `cargo lab`: JupyterLab on notebooks/, or one notebook without a browser.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command;
use crate::install::Spec;
use crate::kernel;
use crate::places::Places;
use crate::setup::{self, Ready};

/// Opens JupyterLab on notebooks/, with its own `options`, and returns when it is closed. While the browser opens, a
/// kernel warms up for the first notebook.
pub fn open(places: &Places, options: &[&str]) -> Result<()> {
    let ready = setup::ready(places)?;
    let mut lab = ready.python.command();
    lab.args(["-m", "jupyterlab"]).args(options).current_dir(places.clone.join("notebooks"));
    jupyter(&mut lab, &ready);
    let mut running = lab.spawn().context("cannot start JupyterLab")?;
    if let Err(error) = warm_up(places, running.id()) {
        eprintln!("the first notebook will start cold: {error:#}");
    }
    let status = running.wait().context("JupyterLab")?;
    if !status.success() {
        bail!("JupyterLab ended with {status}");
    }
    Ok(())
}

/// Starts a spare kernel for the Jupyter that is process `jupyter`; it ends with it.
fn warm_up(places: &Places, jupyter: u32) -> Result<()> {
    let dir = kernel::prepared(places).join("kernels").join(kernel::NAME);
    let spec = Spec::read(&dir)?.context("set-up left no kernelspec")?;
    let mut spare = Command::new(spec.binary);
    spare
        .arg("spare")
        .env("JPY_PARENT_PID", jupyter.to_string())
        .env("THALWEG_KERNEL_SETTINGS", spec.settings)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    forget_cargo(&mut spare);
    spare.process_group(0); // what is typed in the terminal is not meant for it
    spare.spawn().context("cannot start a spare kernel")?;
    Ok(())
}

/// Runs the notebooks whose name starts with `prefix`, writes lab/<name>.html, and runs the hidden solutions of their
/// exercises; with `save` the notebooks keep their outputs.
pub fn run(places: &Places, prefix: &str, save: bool) -> Result<()> {
    let found = notebooks(&places.clone, prefix)?;
    let ready = setup::ready(places)?;
    for notebook in found {
        let page = page_of(&places.clone, &notebook);
        command::shown(&name(&notebook), &mut runner(places, &ready, &notebook, &page, save))?;
    }
    Ok(())
}

/// Runs the notebooks whose name starts with `prefix` on models of shuffled weights: their assertions must fail.
pub fn mutate(places: &Places, prefix: &str) -> Result<()> {
    let found = notebooks(&places.clone, prefix)?;
    let ready = setup::ready(places)?;
    command::shown("the mutation check", &mut mutation(places, &ready, &found))
}

/// The notebooks in notebooks/ whose name starts with `prefix`, sorted.
pub fn notebooks(clone: &Path, prefix: &str) -> Result<Vec<PathBuf>> {
    let dir = clone.join("notebooks");
    let listing = fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let mut all: Vec<PathBuf> = listing.flatten().map(|item| item.path()).collect();
    all.retain(|path| path.extension().is_some_and(|extension| extension == "ipynb"));
    all.sort();
    let names: Vec<String> = all.iter().map(|path| name(path)).collect();
    all.retain(|path| name(path).starts_with(prefix));
    if all.is_empty() {
        bail!("no notebook starts with {prefix}; there are {}", names.join(", "));
    }
    Ok(all)
}

/// The HTML page that a notebook's run writes.
pub fn page_of(clone: &Path, notebook: &Path) -> PathBuf {
    clone.join("lab").join(notebook.with_extension("html").file_name().unwrap_or_default())
}

/// The command that runs one notebook and its solutions; it prints a line for each cell and fails with the first
/// failing one. Its last line has counts as cargo's test runner writes them.
pub fn runner(places: &Places, ready: &Ready, notebook: &Path, page: &Path, save: bool) -> Command {
    let mut python = python(places, ready, "run_notebook.py");
    python.arg(notebook).arg("--html").arg(page);
    if save {
        python.arg("--save");
    }
    python.env("THALWEG_SPARE", "0"); // nobody restarts this kernel
    python
}

/// The command that runs `notebooks` on models of shuffled weights.
pub fn mutation(places: &Places, ready: &Ready, notebooks: &[PathBuf]) -> Command {
    let mut python = python(places, ready, "mutate.py");
    python.args(notebooks).arg("--data").arg(places.clone.join("data"));
    python.env("THALWEG_SPARE", "0");
    python
}

/// The command that writes pages of `notebooks` as they are stored, nothing being run, into the folder `into`.
pub fn stored(places: &Places, ready: &Ready, notebooks: &[PathBuf], into: &Path) -> Command {
    let mut python = python(places, ready, "stored.py");
    python.args(notebooks).arg("--into").arg(into);
    python
}

/// The command that runs one of kernel/python's scripts, with our kernel among those it finds.
pub fn python(places: &Places, ready: &Ready, script: &str) -> Command {
    let mut python = ready.python.command();
    python.arg(places.python_files().join(script)).env("PYTHONDONTWRITEBYTECODE", "1");
    jupyter(&mut python, ready);
    python
}

/// Measures the kernel beside the stock one, `rounds` times, and prints a table.
pub fn latency(places: &Places, rounds: &str) -> Result<()> {
    let ready = setup::ready(places)?;
    let mut bench = python(places, &ready, "bench_latency.py");
    command::shown("the latency bench", bench.args(["--rounds", rounds]))
}

/// Tells a Jupyter program where our kernelspec lies, and lets it read none of the caller's notebook settings.
fn jupyter(command: &mut Command, ready: &Ready) {
    let old = std::env::var_os("JUPYTER_PATH").unwrap_or_default();
    let all = std::iter::once(ready.jupyter.clone()).chain(std::env::split_paths(&old));
    command.env("JUPYTER_PATH", std::env::join_paths(all).unwrap_or(old));
    forget_cargo(command);
}

/// Takes out of a command's environment what `cargo lab` itself was given by cargo: build scripts that look at it
/// would be run again, and the notebook's dependencies compiled once more.
fn forget_cargo(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if (text.starts_with("CARGO_") && text != "CARGO_HOME")
            || text == "CARGO"
            || text == "RUST_BACKTRACE"
            || text == "LD_LIBRARY_PATH"
        {
            command.env_remove(name); // set by `cargo lab` itself for us alone
        }
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
