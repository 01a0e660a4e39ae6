//! Effects as a share of what there is to move, and what the notes of a grid say of its baselines.

use anyhow::{Result, ensure};
use tch::Kind;

use crate::hook::metric::Metric;
use crate::model::Model;

/// What each prompt's effect is divided by: the way from baseline 0 to baseline 1, its own of `each`
/// prompt, else the mean. No way at all is an error that begins with `what`.
pub(super) fn scale(
    what: &str,
    (model, metric): (&Model, &Metric),
    (zero, one): (&[f64], &[f64]),
    each: bool,
) -> Result<Vec<f64>> {
    let rounding = if model.kind() == Kind::Double { 1e-12 } else { 1e-6 };
    let checked = |of: &str, zero: f64, one: f64| -> Result<f64> {
        let apart = one - zero;
        ensure!(
            apart.is_finite() && apart.abs() > rounding * zero.abs().max(one.abs()),
            "{what}: {metric:?} is {zero} in one run and {one} in the other{of}, so that there is no \
             difference to normalise by; choose a metric that tells the runs apart"
        );
        Ok(apart)
    };
    let rows = zero.len();
    if each {
        let own = |row: usize| checked(&format!(" of prompt {row}"), zero[row], one[row]);
        return (0..rows).map(own).collect();
    }
    let of = if rows > 1 { ", in the mean over prompts" } else { "" };
    Ok(vec![checked(of, mean(zero), mean(one))?; rows])
}

/// "3.200000", or "3.200000 (mean of 4 prompts)".
pub(super) fn mean_text(values: &[f64]) -> String {
    match values.len() {
        1 => format!("{:.6}", values[0]),
        n => format!("{:.6} (mean of {n} prompts)", mean(values)),
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
