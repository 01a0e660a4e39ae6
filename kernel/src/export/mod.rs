//! `thalweg-kernel export`: a notebook as a Rust program.
//!
//! All cells become the body of one `main`, so that variables, shadowing and moves mean what they mean in the notebook.
//! What leaves `main` through `?` must be an error that anyhow takes (evcxr takes a `String` too).
//!
//! - [`notebook`]: the file; [`split`]: one code cell in pieces
//! - [`items`], [`imports`]: what stands outside `main`; [`displays`], [`literals`]: what changes inside it
//! - [`program`]: the source; [`project`], [`dependency`]: what lies around it; [`slug`]: names

mod dependency;
mod displays;
mod imports;
mod items;
mod literals;
mod notebook;
mod program;
mod project;
mod slug;
mod split;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::clone;
use program::Program;
use project::Source;

const HELP: &str =
    "thalweg-kernel export NOTEBOOK.ipynb                  prints the notebook as one Rust program
thalweg-kernel export NOTEBOOK.ipynb --example NAME   writes it as an example of the thalweg clone
thalweg-kernel export NOTEBOOK.ipynb --project DIR    writes a Cargo project of its own
                                     --force          replaces what is there";

enum Target {
    Text,
    Example(String),
    Project(PathBuf),
}

/// Runs the command with the words after `export`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let (mut path, mut target, mut force) = (None, Target::Text, false);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut value =
            || words.next().cloned().with_context(|| format!("{word} needs a value\n{HELP}"));
        match word.as_str() {
            "--example" => target = Target::Example(value()?),
            "--project" => target = Target::Project(value()?.into()),
            "--force" => force = true,
            "--help" | "-h" => {
                println!("{HELP}");
                return Ok(());
            }
            option if option.starts_with('-') => bail!("no option {option}\n{HELP}"),
            file if path.is_none() => path = Some(PathBuf::from(file)),
            other => bail!("one notebook at a time, found {other} too\n{HELP}"),
        }
    }
    export(&path.with_context(|| format!("which notebook?\n{HELP}"))?, &target, force)
}

fn export(path: &Path, target: &Target, force: bool) -> Result<()> {
    let cells = notebook::read(path)?;
    let program =
        Program::of(&cells).with_context(|| format!("cannot export {}", path.display()))?;
    let notebook =
        path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
    let clone = clone::near(&notebook)?;
    let libtorch = clone::libtorch(&clone);
    let source =
        Source { notebook: &notebook, clone: &clone, libtorch: libtorch.as_deref(), force };
    match target {
        Target::Text => print!("{}", project::to_text(&program, &source)?),
        Target::Example(name) => {
            let (path, run) = project::to_example(&program, &source, name)?;
            println!("wrote {}; `{run}` runs it, `cargo fmt` lays it out", path.display());
        }
        Target::Project(dir) => {
            let dir = project::to_project(&program, &source, dir)?;
            println!("wrote {}; `cargo run` there runs it", dir.display());
            if libtorch.is_none() {
                println!("where libtorch lies is not known; set LIBTORCH");
            }
        }
    }
    for warning in &program.warnings {
        eprintln!("note: {warning}");
    }
    Ok(())
}
