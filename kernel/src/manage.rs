//! `thalweg-kernel install | uninstall | doctor`: the words; the work is set-up's.

use anyhow::{Context, Result, bail};
use thalweg_setup::doctor;
use thalweg_setup::install::{self, Options};
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
    let (command, words) = arguments.split_first().context(HELP)?;
    if words.iter().any(|word| word == "--help" || word == "-h") {
        println!("{HELP}");
        return Ok(());
    }
    match command.as_str() {
        "install" => {
            let dir = install::install(&places, &Options::parse(words)?)?;
            println!("installed {}, for the clone {}", dir.display(), places.clone.display());
        }
        "uninstall" => {
            let options = Options::parse(words)?;
            match install::uninstall(&places, &options)? {
                Some(dir) => println!("removed {}", dir.display()),
                None => println!("nothing to remove, {} is not there", options.dir()?.display()),
            }
        }
        "doctor" => {
            if let Some(word) = words.first() {
                bail!("doctor knows no {word}");
            }
            doctor::run(&places)?;
        }
        _ => println!("{HELP}"),
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
