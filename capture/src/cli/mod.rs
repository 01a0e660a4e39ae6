//! The command line: one file a subcommand, each a `clap::Args` with a `run` of its own.

mod ask;
mod check;
mod compare;
mod merge;
mod plan;
mod run;
mod serve;
mod show;
mod statistics;
mod widen;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Activations of whole data sets, from this machine or from a vLLM server.
#[derive(Debug, Parser)]
#[command(name = "capture", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Statistics(statistics::Statistics),
    Merge(merge::Merge),
    Check(check::Check),
    Show(show::Show),
    Plan(plan::Plan),
    Compare(compare::Compare),
    Serve(serve::Serve),
    Widen(widen::Widen),
}

/// 0 when all went well, 1 with one line on standard error when not, 2 for a call that makes no sense.
pub(crate) fn main() -> ExitCode {
    let outcome: Result<()> = match Cli::parse().command {
        Command::Run(run) => run.run(),
        Command::Statistics(statistics) => statistics.run(),
        Command::Merge(merge) => merge.run(),
        Command::Check(check) => check.run(),
        Command::Show(show) => show.run(),
        Command::Plan(plan) => plan.run(),
        Command::Compare(compare) => compare.run(),
        Command::Serve(serve) => serve.run(),
        Command::Widen(widen) => widen.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
