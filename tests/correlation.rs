//! Correlation: the coefficients against scipy and statsmodels, and what must hold of any of them.

use thalweg::rng::Rng;

mod agreement;
mod coefficients;
mod grids;
mod planted;
mod significance;
mod tokens;

/// `n` standard normal numbers.
fn normal(rng: &mut Rng, n: usize) -> Vec<f64> {
    (0..n).map(|_| rng.normal()).collect()
}

#[track_caller]
fn near(a: f64, b: f64, tolerance: f64) {
    assert!((a - b).abs() <= tolerance, "{a} against {b}");
}
