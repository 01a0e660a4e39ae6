//! `capture widen`: the same Llama with wider heads.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

/// Writes the same Llama with wider heads, for engines that want certain head sizes
#[derive(Debug, Args)]
pub(crate) struct Widen {
    /// The model: config.json, safetensors, tokenizer
    model: PathBuf,
    /// Where the widened model goes
    out: PathBuf,
    /// Head size wanted, a multiple of the model's; vLLM on CPUs takes multiples of 32
    #[arg(long, default_value_t = 32, value_name = "SIZE")]
    head_size: usize,
}

impl Widen {
    pub(crate) fn run(&self) -> Result<()> {
        thalweg_capture::widen::widen_dir(&self.model, &self.out, self.head_size)
    }
}
