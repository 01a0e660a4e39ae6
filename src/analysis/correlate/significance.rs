//! How surely numbers go together, and what of it chance makes of many cells.
//!
//! Benjamini and Hochberg 1995 (the tests independent, or dependent positively); Benjamini and Yekutieli
//! 2001, <https://doi.org/10.1214/aos/1013699998> (dependent in any way).

use anyhow::{Result, ensure};
use statrs::function::beta::checked_beta_reg;

/// Two-sided p value of Pearson's, Spearman's or a partial correlation of `n` independent samples
/// with `given` lists held fixed, by Student's t with `n - 2 - given` degrees of freedom. Exact for normal
/// numbers; for Spearman's an approximation that serves from some ten samples on. NaN for a `r` that
/// is NaN. Tokens of one prompt are not independent: shuffle prompts instead, as
/// [`correlate`](crate::correlate) does.
///
/// ```
/// assert!((thalweg::correlation_p(0.5, 20, 0)? - 0.0248).abs() < 1e-4);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn correlation_p(r: f64, n: usize, given: usize) -> Result<f64> {
    ensure!(
        n >= 2 + given,
        "correlation_p: {n} samples with {given} given lists, expected {} at least",
        2 + given
    );
    ensure!(r.is_nan() || r.abs() <= 1.0 + 1e-9, "correlation_p: r is {r}, expected -1 to 1");
    let freedom = (n - 2 - given) as f64;
    if r.is_nan() || freedom == 0.0 {
        return Ok(if r.is_nan() { r } else { 1.0 });
    }
    // P(|t| > t) = I_{df / (df + t²)}(df / 2, 1 / 2), and df / (df + t²) = 1 - r².
    let rest = ((1.0 - r.abs()) * (1.0 + r.abs())).clamp(0.0, 1.0);
    Ok(checked_beta_reg(freedom / 2.0, 0.5, rest)?)
}

/// Adjusted p values of Benjamini and Hochberg: those below `q` have a share of false ones of at most
/// `q` in the mean, where tests are independent or depend on each other positively. NaN stays NaN
/// and counts for no test.
///
/// ```
/// let adjusted = thalweg::benjamini_hochberg(&[0.01, 0.04, 0.03, 0.5])?;
/// assert!((adjusted[0] - 0.04).abs() < 1e-12 && (adjusted[1] - 0.16 / 3.0).abs() < 1e-12);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn benjamini_hochberg(p: &[f64]) -> Result<Vec<f64>> {
    step_up("benjamini_hochberg", p, |_| 1.0)
}

/// Adjusted p values of Benjamini and Yekutieli: as [`benjamini_hochberg`], whatever the tests have
/// to do with each other, and so larger by the sum of `1 / i` over the tests.
///
/// ```
/// let adjusted = thalweg::benjamini_yekutieli(&[0.01, 0.04])?;
/// assert!((adjusted[0] - 0.03).abs() < 1e-12 && (adjusted[1] - 0.06).abs() < 1e-12);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn benjamini_yekutieli(p: &[f64]) -> Result<Vec<f64>> {
    step_up("benjamini_yekutieli", p, |tests| (1..=tests).map(|i| 1.0 / i as f64).sum())
}

/// From the largest p downwards, the least of `p * tests / rank`.
fn step_up(what: &str, p: &[f64], penalty: impl Fn(usize) -> f64) -> Result<Vec<f64>> {
    for (i, p) in p.iter().enumerate() {
        ensure!(p.is_nan() || (0.0..=1.0).contains(p), "{what}: value {i} is {p}, expected 0 to 1");
    }
    let mut order: Vec<usize> = (0..p.len()).filter(|i| !p[*i].is_nan()).collect();
    order.sort_by(|a, b| p[*b].total_cmp(&p[*a]));
    let tests = order.len();
    let factor = tests as f64 * penalty(tests);
    let (mut adjusted, mut least) = (vec![f64::NAN; p.len()], 1.0f64);
    for (below, i) in order.into_iter().enumerate() {
        least = least.min(p[i] * factor / (tests - below) as f64);
        adjusted[i] = least;
    }
    Ok(adjusted)
}
