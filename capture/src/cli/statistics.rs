//! `capture statistics`

use anyhow::{Context, Result};
use clap::Args;
use thalweg_capture::statistics::Asked;

use super::ask::Ask;

/// Mean and variance of every site over all prompts, and more: nothing else is kept.
///
/// Each unit of prompts leaves its part; when the last is there, whoever made it merges them. Goes on
/// after a kill, and by several workers at once, as `capture run` does.
#[derive(Debug, Args)]
pub(crate) struct Statistics {
    #[command(flatten)]
    ask: Ask,
    /// The covariance too: 8 D² bytes a site
    #[arg(long)]
    covariance: bool,
    /// The K largest values of each feature too, with their prompts and positions
    #[arg(long, default_value_t = 0, value_name = "K")]
    top: usize,
    /// A histogram of each feature too: low,high,bins
    #[arg(long, value_parser = histogram, allow_hyphen_values = true, value_name = "LOW,HIGH,BINS")]
    histogram: Option<(f64, f64, usize)>,
    /// Tokens left out at the beginning of each prompt, an attention sink
    #[arg(long, default_value_t = 1)]
    first: usize,
}

impl Statistics {
    pub(crate) fn run(self) -> Result<()> {
        let Statistics { ask, covariance, top, histogram, first } = self;
        let (capture, model) = ask.prepare()?;
        let asked = Asked { first, covariance, top, histogram };
        let done = capture.statistics(&model, &asked)?;
        ask.report(&done, "parts")
    }
}

fn histogram(text: &str) -> Result<(f64, f64, usize)> {
    let words: Vec<&str> = text.split(',').map(str::trim).collect();
    let parsed = match words.as_slice() {
        [low, high, bins] => low.parse().ok().zip(high.parse().ok()).zip(bins.parse().ok()),
        _ => None,
    };
    let parsed = parsed.map(|((low, high), bins)| (low, high, bins));
    parsed.with_context(|| format!("{text:?}: expected low,high,bins such as -4,4,64"))
}
