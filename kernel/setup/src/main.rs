//! `cargo lab` and `cargo verify`.

use std::process::ExitCode;

use thalweg_setup::{doctor, install, kernel, lab, places::Places, verify, vllm};

const HELP: &str = "cargo lab                 set up what is missing, open JupyterLab on notebooks/
cargo lab --no-browser    the same; such options are JupyterLab's (as root: --allow-root)
cargo lab --run 01        run notebooks/01*.ipynb without a browser, and the hidden solutions of its exercises; write lab/01*.html
cargo lab --run 01 --save the same, and keep the outputs in the notebook
cargo lab --mutate 01     run it on models of shuffled weights and say which of its assertions fail there (one must)
cargo lab --latency 5     measure the kernel beside stock evcxr_jupyter, 5 rounds
cargo verify              set up what is missing, run every test
cargo kernel install      set up what is missing, add the kernel to every Jupyter of this user (uninstall removes it)
cargo kernel doctor       say what is there and what is missing
cargo kernel export FILE  print a notebook as a Rust program
cargo vllm                install vLLM for CPUs, which `cargo capture serve` starts (6.2 GB), and print its Python
cargo vllm --where        print it, or an error where it is not installed";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let places = match Places::here() {
        Ok(places) => places,
        Err(error) => return failed(&error),
    };
    let outcome = match words.as_slice() {
        ["lab", "--run", prefix] => lab::run(&places, prefix, false),
        ["lab", "--run", prefix, "--save"] => lab::run(&places, prefix, true),
        ["lab", "--mutate", prefix] => lab::mutate(&places, prefix),
        ["lab", "--latency", rounds] => lab::latency(&places, rounds),
        ["lab" | "verify" | "vllm", "--help" | "-h", ..] => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        ["lab", "--run" | "--mutate" | "--latency", ..] => Err(anyhow::anyhow!("usage:\n{HELP}")),
        ["lab", options @ ..] => lab::open(&places, options),
        ["verify"] => verify::run(&places),
        ["vllm"] => vllm::run(&places, false),
        ["vllm", "--where"] => vllm::run(&places, true),
        ["kernel", "doctor"] => doctor::run(&places),
        ["kernel", "uninstall", ..] => install::run(&places, &arguments[1..]),
        ["kernel", word, ..] if !word.starts_with('-') => kernel::run(&places, &arguments[1..]),
        _ => {
            println!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
