//! The kernel as Jupyter's front ends meet it, message by message: kernel/python's tests, and a notebook in the stock
//! kernel. The lines and counts that Python prints stand beside cargo's own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use thalweg_setup::lab;
use thalweg_setup::places::Places;
use thalweg_setup::setup::{self, Ready};

/// A kernel takes a gigabyte and both cores while it starts: one test at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

struct Bench {
    places: Places,
    ready: Ready,
    _turn: MutexGuard<'static, ()>,
}

impl Bench {
    fn new() -> Result<Bench> {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let places = Places::here()?;
        let ready = setup::ready(&places)?;
        Ok(Bench { places, ready, _turn: turn })
    }

    fn python(&self, script: &str) -> Command {
        lab::python(&self.places, &self.ready, script)
    }

    fn passes(&self, modules: &[&str]) -> Result<()> {
        let status = self.python("run_tests.py").args(modules).status()?;
        assert!(status.success(), "see the failures of {} above", modules.join(", "));
        Ok(())
    }
}

#[test]
fn jupyters_own_test_of_kernels_passes_whole() -> Result<()> {
    Bench::new()?.passes(&["test_protocol"])
}

#[test]
fn what_jupyters_test_lacks_passes_too() -> Result<()> {
    Bench::new()?.passes(&[
        "test_behaviour",
        "test_failure",
        "test_help",
        "test_lifetime",
        "test_runner",
    ])
}

#[test]
fn the_first_notebook_runs_in_the_stock_kernel_after_one_more_cell() -> Result<()> {
    let bench = Bench::new()?;
    let notebooks = bench.places.clone.join("notebooks");
    let original = lab::notebooks(&bench.places.clone, "01")?.remove(0);
    let mut notebook: Value = serde_json::from_str(&fs::read_to_string(original)?)?;
    let first = json!({ "cell_type": "code", "id": "stock", "metadata": {}, "outputs": [], "execution_count": null,
                        "source": ":dep thalweg = { path = \"..\" }\nuse thalweg::prelude::*;" });
    notebook["cells"].as_array_mut().context("no cells")?.insert(0, first);
    let copy =
        Copy(std::env::temp_dir().join(format!("thalweg-stock-{}.ipynb", std::process::id())));
    fs::write(&copy.0, notebook.to_string())?;
    let mut run = bench.python("run_notebook.py");
    run.arg(&copy.0)
        .arg("--folder")
        .arg(&notebooks)
        .arg("--no-solutions")
        .env("THALWEG_STOCK", "1");
    assert!(run.status()?.success());
    Ok(())
}

/// A file that goes with the test.
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
