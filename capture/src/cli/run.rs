//! `capture run`

use anyhow::Result;
use clap::Args;
use thalweg_capture::{Which, parse_kind};

use super::ask::Ask;

/// Activations of every prompt of a file, as safetensors shards with a Parquet index.
///
/// A capture that was stopped or killed goes on when the same command is given again; several
/// workers may give it at once.
#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    ask: Ask,
    /// How activations are stored: f32, bf16, f16, f64 [default: as the model computes]
    #[arg(long)]
    kind: Option<String>,
    /// Of which tokens of a prompt: all, last
    #[arg(long, default_value = "all", value_parser = ["all", "last"])]
    positions: String,
}

impl Run {
    pub(crate) fn run(self) -> Result<()> {
        let kind = self.kind.as_deref().map(parse_kind).transpose()?;
        let (mut capture, model) = self.ask.prepare()?;
        if let Some(kind) = kind {
            capture = capture.kind(kind);
        }
        if self.positions == "last" {
            capture = capture.positions(Which::Last);
        }
        let done = capture.run(&model)?;
        self.ask.report(&done, "shards")
    }
}
