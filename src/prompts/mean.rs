//! A mean with its interval.

use anyhow::{Result, ensure};

use crate::rng::Rng;

/// Resamples of the bootstrap: enough for two digits of a 95 % interval.
const RESAMPLES: usize = 2000;
/// The bootstrap's seed: the same values give the same interval.
const SEED: u64 = 0x5eed;

/// A mean with its 95 % percentile bootstrap interval (Efron 1979). Values that are all equal have
/// an interval of width 0, which says nothing about rarer values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mean {
    /// The mean, in the unit of the values.
    pub mean: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// How many values.
    pub n: usize,
}

impl std::fmt::Display for Mean {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.3} [{:.3}, {:.3}] (n = {})", self.mean, self.low, self.high, self.n)
    }
}

/// The mean of `values` with its 95 % bootstrap interval; none or a non-finite one is an error.
///
/// ```
/// let m = thalweg::prompts::mean(&[1.0, 2.0, 3.0, 2.0])?;
/// assert!(m.mean == 2.0 && m.low < 2.0 && m.high > 2.0 && m.n == 4);
/// # Ok::<(), anyhow::Error>(())
/// ```
pub fn mean(values: &[f64]) -> Result<Mean> {
    let n = values.len();
    ensure!(n > 0, "the mean of no values");
    if let Some(i) = values.iter().position(|v| !v.is_finite()) {
        anyhow::bail!("value {i} is {}: a mean needs finite values", values[i]);
    }
    let mut rng = Rng::new(SEED);
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| (0..n).map(|_| values[rng.below(n)]).sum::<f64>() / n as f64)
        .collect();
    means.sort_by(f64::total_cmp);
    let at = |share: f64| means[((RESAMPLES - 1) as f64 * share).round() as usize];
    let mean = values.iter().sum::<f64>() / n as f64;
    Ok(Mean { mean, low: at(0.025), high: at(0.975), n })
}
