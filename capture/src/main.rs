//! `cargo capture`.

use clap::{Parser, Subcommand};

/// Activations of whole data sets, from this machine or from a vLLM server.
#[derive(Debug, Parser)]
#[command(name = "capture", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {}

fn main() -> std::process::ExitCode {
    match Cli::parse().command {}
}
