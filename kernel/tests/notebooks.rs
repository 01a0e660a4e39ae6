//! The kernel as notebooks meet it: real Jupyter, real cells. `cargo verify` runs these in the folder where evcxr is
//! already compiled; they set up what is missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use thalweg_setup::notebook::Settings;
use thalweg_setup::places::Places;
use thalweg_setup::setup::{self, Ready};
use thalweg_setup::{kernel, lab};

/// A kernel takes a gigabyte and both cores while it starts: one test at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

struct Bench {
    places: Places,
    ready: Ready,
    dir: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl Bench {
    fn new(name: &str) -> Result<Bench> {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let places = Places::here()?;
        let ready = setup::ready(&places)?;
        let dir = std::env::temp_dir().join(format!("thalweg-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir)?;
        Ok(Bench { places, ready, dir, _turn: turn })
    }

    /// Writes a notebook of these code cells.
    fn notebook(&self, name: &str, cells: &[&str]) -> Result<PathBuf> {
        let cells: Vec<Value> = (cells.iter().enumerate())
            .map(|(index, source)| {
                json!({ "cell_type": "code", "id": format!("c{index}"), "metadata": {}, "source": source,
                        "outputs": [], "execution_count": null })
            })
            .collect();
        let path = self.dir.join(name);
        let text = json!({ "cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5 });
        fs::write(&path, text.to_string())?;
        Ok(path)
    }

    /// The command that runs a notebook and keeps its outputs in it.
    fn runner(&self, notebook: &Path) -> Command {
        lab::runner(&self.places, &self.ready, notebook, &notebook.with_extension("html"), true)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The text that each cell of an executed notebook left.
fn outputs(notebook: &Path) -> Result<Vec<String>> {
    let value: Value = serde_json::from_str(&fs::read_to_string(notebook)?)?;
    let cells = value["cells"].as_array().context("no cells")?;
    Ok(cells
        .iter()
        .map(|cell| cell["outputs"].as_array().into_iter().flatten().map(shown).collect())
        .collect())
}

fn shown(output: &Value) -> String {
    let text =
        if output["text"].is_null() { &output["data"]["text/plain"] } else { &output["text"] };
    match text {
        Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect(),
        other => other.as_str().unwrap_or_default().to_owned(),
    }
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_cell_that_panics_or_returns_an_error_fails_the_run() -> Result<()> {
    let bench = Bench::new("failing")?;
    let panics = bench
        .notebook("panics.ipynb", &["let depth = 3;", "panic!(\"the boat sank at {depth}\");"])?;
    let cell = "use thalweg::anyhow::Context;\nstd::fs::read(\"no-such-chart\").context(\"no chart of the river\")?;";
    let returns =
        bench.notebook("returns.ipynb", &["let depth = 3;", "1 + depth", cell, "depth"])?;
    let running = bench
        .runner(&returns)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()?;
    let panicked = bench.runner(&panics).output()?;
    let returned = running.wait_with_output()?;
    for (output, words) in [
        (panicked, ["panics.ipynb", "cell 2 failed", "panic!(\"the boat", "the boat sank at 3"]),
        (returned, ["returns.ipynb", "cell 3 failed", "no-such-chart", "no chart of the river"]),
    ] {
        assert!(!output.status.success(), "{}", errors(&output));
        for word in words {
            assert!(errors(&output).contains(word), "`{word}` is not in\n{}", errors(&output));
        }
    }
    Ok(())
}

#[test]
fn an_edit_of_the_library_or_of_the_kernel_shows_in_the_next_notebook() -> Result<()> {
    let mut bench = Bench::new("edited")?;
    let clone = bench.dir.join("clone");
    copy_clone(&bench.places.clone, &clone)?;
    bench.places.clone = clone.clone();
    let notebook =
        bench.notebook("edited.ipynb", &["println!(\"{} {}\", library_edit(), kernel_edit())"])?;
    append(&clone.join("kernel/src/prelude.rs"), "pub fn kernel_edit() -> u32 { 7 }\n")?;
    let prelude = clone.join("src/prelude.rs");
    let before = fs::read_to_string(&prelude)?;
    for number in [1, 2] {
        fs::write(
            &prelude,
            format!("{before}/// A number.\npub fn library_edit() -> u32 {{ {number} }}\n"),
        )?;
        use_clone(&mut bench)?;
        assert!(bench.runner(&notebook).status()?.success());
        assert_eq!(outputs(&notebook)?, [format!("{number} 7\n")]);
    }
    Ok(())
}

/// Builds the kernel of the clone at `bench.places` and makes the bench use it, with the stores that are there.
fn use_clone(bench: &mut Bench) -> Result<()> {
    let recipe = kernel::Recipe::of(&bench.places, &bench.ready.toolchain)?;
    assert!(recipe.is_warm(), "evcxr would be compiled again");
    let binary = kernel::ready(&bench.places, &recipe, &bench.ready.toolchain)?;
    let settings = Settings { clone: bench.places.clone.clone(), ..bench.ready.settings.clone() };
    bench.ready.jupyter = kernel::install(&bench.places, &binary, &settings)?;
    Ok(())
}

/// All that cargo reads of a clone.
fn copy_clone(from: &Path, to: &Path) -> Result<()> {
    for item in fs::read_dir(from)? {
        let name = item?.file_name();
        if !["target", ".git", "data", "lab", "notebooks"].iter().any(|left| name == *left) {
            copy(&from.join(&name), &to.join(&name))?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        fs::create_dir_all(to.parent().context("no parent")?)?;
        fs::copy(from, to)?;
        return Ok(());
    }
    for item in fs::read_dir(from)? {
        let name = item?.file_name();
        copy(&from.join(&name), &to.join(&name))?;
    }
    Ok(())
}

fn append(path: &Path, text: &str) -> Result<()> {
    let old =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(fs::write(path, format!("{old}{text}"))?)
}
