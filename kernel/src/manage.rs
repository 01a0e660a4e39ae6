//! `thalweg-kernel install | uninstall | doctor`: the words; the work is set-up's.

use anyhow::{Context, Result, bail};
use thalweg_setup::doctor;
use thalweg_setup::install;
use thalweg_setup::places::Places;

use crate::clone;

/// What the program does when told to.
pub(crate) const HELP: &str = "thalweg-kernel is started by Jupyter; `cargo lab` opens JupyterLab with it.

thalweg-kernel install [--prefix DIR] [--no-spare]   adds the kernel to every Jupyter of this user, or to an environment
thalweg-kernel uninstall [--prefix DIR]              removes it
thalweg-kernel doctor                                says what is there and what is missing
thalweg-kernel export NOTEBOOK.ipynb                 prints a notebook as a Rust program; --help says more";

/// Runs `install`, `uninstall` or `doctor`, the first of `arguments`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let here = std::env::current_dir().context("cannot tell the current folder")?;
    let places = Places::of(clone::near(&here)?)?;
    let help = |word: &String| word == "--help" || word == "-h";
    match arguments {
        words if words.iter().any(help) => println!("{HELP}"),
        [command] if command == "doctor" => doctor::run(&places)?,
        [command, word, ..] if command == "doctor" => bail!("doctor knows no {word}"),
        words => install::run(&places, words)?,
    }
    Ok(())
}

/// Ends the program: an error is one line for a person, without the backtrace that `main` would print.
pub(crate) fn end(outcome: Result<()>) -> ! {
    if let Err(error) = &outcome {
        eprintln!("error: {error:#}");
    }
    std::process::exit(i32::from(outcome.is_err()))
}
