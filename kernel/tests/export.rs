//! Notebooks exported, built and run: as a project of its own, and as the examples that are committed. They show what
//! the notebooks show.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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
    fn new(what: &str) -> Scratch {
        let name = format!("thalweg-{what}-{}", std::process::id());
        Scratch(std::env::temp_dir().join(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The text of every output stored in a notebook, cell by cell.
fn stored(notebook: &Path) -> Result<Vec<String>> {
    let value: Value = serde_json::from_str(&fs::read_to_string(notebook)?)?;
    let text = |value: &Value| match value {
        Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect::<String>(),
        other => other.as_str().unwrap_or_default().to_owned(),
    };
    let code = value["cells"].as_array().context("no cells")?.iter();
    let outputs = code.filter_map(|cell| cell["outputs"].as_array());
    let shown =
        |output: &Value| text(&output["text"]) + &text(&output["data"]["text/plain"]) + "\n";
    Ok(outputs.map(|outputs| outputs.iter().map(shown).collect()).collect())
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

/// cargo as a user calls it in `dir`, with nothing of this test's own environment but the target folder of plain tests.
fn cargo(dir: &Path) -> Command {
    let mut cargo = Command::new("cargo");
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if (text.starts_with("CARGO_") && text != "CARGO_HOME")
            || text == "LIBTORCH"
            || text == "LD_LIBRARY_PATH"
        {
            cargo.env_remove(&name); // the program must know by itself
        }
    }
    cargo.current_dir(dir).env("CARGO_TARGET_DIR", target()).env("OMP_NUM_THREADS", "1");
    cargo
}

/// What a program printed: its text, and the files it says it wrote.
fn said(output: Output) -> Result<(String, Vec<String>)> {
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout)?;
    let (files, text): (Vec<&str>, Vec<&str>) =
        said.lines().partition(|line| line.starts_with("  -> "));
    let names = files.iter().flat_map(|line| line.trim_start_matches("  -> ").split(", "));
    Ok((text.join("\n"), names.map(str::to_owned).collect()))
}

fn export(notebook: &Path, words: &[&str]) -> Result<()> {
    let mut program = Command::new(env!("CARGO_BIN_EXE_thalweg-kernel"));
    let exported = program.arg("export").arg(notebook).args(words).output()?;
    ensure!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    Ok(())
}

#[test]
fn the_first_notebook_as_a_project_compiles_and_gives_the_same_numbers() -> Result<()> {
    let (clone, scratch) = (clone(), Scratch::new("exported"));
    let dir = &scratch.0;
    let notebook = clone.join("notebooks/01_first_look.ipynb");
    export(&notebook, &["--project", &dir.display().to_string()])?;
    let (text, files) = said(cargo(dir).args(["run", "--quiet", "--offline"]).output()?)?;
    alike(&text, &stored(&notebook)?.concat());
    assert!(files.iter().any(|file| file == "shown/06_the_logit_lens.svg"), "{files:?}");
    for file in files {
        let text = fs::read_to_string(dir.join(&file)).with_context(|| file.clone())?;
        assert!(text.contains("<svg") || text.contains("<table"), "{file}");
    }
    Ok(())
}

/// The examples that are exports: name and notebook.
fn exported_examples() -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for item in fs::read_dir(clone().join("examples"))? {
        let path = item?.path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        if let Some(rest) = text.strip_prefix("//! Exported from ") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let notebook = rest.split(' ').next().unwrap_or_default();
            found.push((name, clone().join(notebook)));
        }
    }
    found.sort();
    Ok(found)
}

/// What `cargo kernel export` and `cargo fmt` make of the notebook today: exported in an imitation of the clone, so
/// that nothing is written in the clone itself.
fn exported_today(notebook: &Path, name: &str) -> Result<String> {
    let (clone, scratch) = (clone(), Scratch::new(name));
    let dir = &scratch.0;
    for folder in ["kernel/setup", "notebooks", "examples"] {
        fs::create_dir_all(dir.join(folder))?;
    }
    for file in ["Cargo.toml", "Cargo.lock", "rustfmt.toml"] {
        fs::copy(clone.join(file), dir.join(file))?;
    }
    let copy = dir.join("notebooks").join(notebook.file_name().unwrap_or_default());
    fs::copy(notebook, &copy)?;
    export(&copy, &["--example", name])?;
    let program = dir.join("examples").join(format!("{name}.rs"));
    let formatted = Command::new("rustfmt").args(["--edition", "2024"]).arg(&program).status()?;
    ensure!(formatted.success(), "rustfmt failed on {name}");
    Ok(fs::read_to_string(program)?)
}

#[test]
fn committed_examples_are_what_their_notebooks_export_today() -> Result<()> {
    let examples = exported_examples()?;
    assert!(!examples.is_empty(), "no example is an export");
    for (name, notebook) in examples {
        let committed = fs::read_to_string(clone().join("examples").join(format!("{name}.rs")))?;
        assert!(
            exported_today(&notebook, &name)? == committed,
            "examples/{name}.rs has drifted from {}: export it with --example {name} --force, then cargo fmt",
            notebook.display()
        );
    }
    Ok(())
}

/// Not bit by bit: the example is compiled apart from the notebook and libtorch splits its sums over other numbers of
/// threads, so that last digits differ.
#[test]
fn committed_examples_run_and_print_the_numbers_of_their_notebooks_last_cells() -> Result<()> {
    for (name, notebook) in exported_examples()? {
        let scratch = Scratch::new(&format!("{name}-run"));
        fs::create_dir_all(&scratch.0)?;
        let built = cargo(&clone()).args(["build", "--quiet", "--example", &name]).status()?;
        ensure!(built.success(), "examples/{name}.rs does not compile");
        let mut program = Command::new(target().join("debug/examples").join(&name));
        program.current_dir(&scratch.0).env_remove("LD_LIBRARY_PATH").env("OMP_NUM_THREADS", "1");
        let (text, _) = said(program.output()?)?;
        let cells = stored(&notebook)?;
        let last = cells.last().context("no code cell")?;
        alike(&text, &cells.concat());
        let words: Vec<&str> = text.split_whitespace().collect();
        let printed: Vec<&str> = last.split_whitespace().collect();
        let tail = &words[words.len() - printed.len()..];
        for (found, expected) in tail.iter().zip(&printed) {
            assert!(
                same(found, expected),
                "{name}: `{found}`, stored in the notebook is `{expected}`"
            );
        }
    }
    Ok(())
}

/// Whether two printed numbers are equal to 3 significant digits, or differ by one in the last digit that is printed;
/// other words must be equal.
fn same(found: &str, expected: &str) -> bool {
    let bare = |word: &str| word.trim_matches([',', ';', '(', ')', '[', ']']).to_owned();
    let (found, expected) = (bare(found), bare(expected));
    let (Ok(a), Ok(b)) = (found.parse::<f64>(), expected.parse::<f64>()) else {
        return found == expected;
    };
    let decimals = expected.split_once('.').map_or(0, |(_, digits)| digits.len() as i32);
    (a - b).abs() <= (0.0005 * b.abs()).max(1.01 * 10f64.powi(-decimals))
}
