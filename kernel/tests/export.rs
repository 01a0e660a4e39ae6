//! A notebook exported, built against this clone and run: it shows what the notebook shows.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

fn clone() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Where plain `cargo test` in the clone builds: thalweg's dependencies are compiled there.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| clone().join("target"), PathBuf::from)
}

/// A new folder, gone at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        let name = format!("thalweg-exported-{}", std::process::id());
        Scratch(std::env::temp_dir().join(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The text of every output stored in a notebook.
fn stored(notebook: &Path) -> Result<String> {
    let value: Value = serde_json::from_str(&fs::read_to_string(notebook)?)?;
    let text = |value: &Value| match value {
        Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect::<String>(),
        other => other.as_str().unwrap_or_default().to_owned(),
    };
    let outputs = value["cells"].as_array().context("no cells")?.iter();
    let outputs = outputs.flat_map(|cell| cell["outputs"].as_array().into_iter().flatten());
    Ok(outputs.map(|it| text(&it["text"]) + &text(&it["data"]["text/plain"]) + "\n").collect())
}

/// Asserts that two texts have the same words, and numbers that are the same but for rounding.
fn alike(found: &str, expected: &str) {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let number = |word: &str| word.trim_matches([',', ';', '(', ')', '[', ']']).parse::<f64>().ok();
    let (found, expected) = (words(found), words(expected));
    for (place, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let close = match (number(found), number(expected)) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-6 + 0.01 * b.abs(),
            _ => found == expected,
        };
        assert!(close, "word {place}: `{found}`, stored in the notebook is `{expected}`");
    }
    assert_eq!(found.len(), expected.len());
}

#[test]
fn the_first_notebook_as_a_project_compiles_and_gives_the_same_numbers() -> Result<()> {
    let (clone, scratch) = (clone(), Scratch::new());
    let dir = &scratch.0;
    let notebook = clone.join("notebooks/01_first_look.ipynb");
    let exported = Command::new(env!("CARGO_BIN_EXE_thalweg-kernel"))
        .arg("export")
        .arg(&notebook)
        .arg("--project")
        .arg(dir)
        .output()?;
    ensure!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    let mut cargo = Command::new("cargo");
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if (text.starts_with("CARGO_") && text != "CARGO_HOME")
            || text == "LIBTORCH"
            || text == "LD_LIBRARY_PATH"
        {
            cargo.env_remove(&name); // the project must know by itself
        }
    }
    cargo.args(["run", "--quiet", "--offline"]).current_dir(dir).env("CARGO_TARGET_DIR", target());
    let run = cargo.env("OMP_NUM_THREADS", "1").output()?;
    ensure!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let said = String::from_utf8(run.stdout)?;
    let (files, text): (Vec<&str>, Vec<&str>) =
        said.lines().partition(|line| line.starts_with("  -> "));
    alike(&text.join("\n"), &stored(&notebook)?);
    let files: Vec<&str> =
        files.iter().flat_map(|line| line.trim_start_matches("  -> ").split(", ")).collect();
    assert!(files.contains(&"shown/06_the_logit_lens.svg"), "{files:?}");
    for file in files {
        let text = fs::read_to_string(dir.join(file)).with_context(|| file.to_owned())?;
        assert!(text.contains("<svg") || text.contains("<table"), "{file}");
    }
    Ok(())
}
