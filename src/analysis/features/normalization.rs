//! What an SAE does to its input first, and undoes last.

use tch::Tensor;

/// Added to the standard deviation, as in SAELens.
const LAYER_NORM_EPS: f64 = 1e-5;

/// What is done to an activation before it is encoded, and undone after decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Normalization {
    /// Nothing.
    None,
    /// Scaled to length `sqrt(d_in)`.
    ConstantNorm,
    /// Its mean subtracted and divided by its standard deviation (of n - 1).
    LayerNorm,
}

impl Normalization {
    pub(super) fn apply(self, x: &Tensor) -> Tensor {
        match self {
            Normalization::None => x.shallow_clone(),
            Normalization::ConstantNorm => x * scale(x),
            Normalization::LayerNorm => {
                let (mean, std) = moments(x);
                (x - mean) / (std + LAYER_NORM_EPS)
            }
        }
    }

    /// Of what was decoded, given the input `x`.
    pub(super) fn undo(self, y: Tensor, x: &Tensor) -> Tensor {
        match self {
            Normalization::None => y,
            Normalization::ConstantNorm => y / scale(x),
            Normalization::LayerNorm => {
                let (mean, std) = moments(x);
                y * std + mean
            }
        }
    }
}

/// What brings vectors to length `sqrt(d)`.
fn scale(x: &Tensor) -> Tensor {
    let d = x.size().last().copied().unwrap_or(1) as f64;
    d.sqrt() / x.norm_scalaropt_dim(2, [-1i64].as_slice(), true)
}

/// Mean and standard deviation (of n - 1) along the last axis, kept.
fn moments(x: &Tensor) -> (Tensor, Tensor) {
    let mean = x.mean_dim([-1i64].as_slice(), true, None);
    (mean, x.std_dim([-1i64].as_slice(), true, true))
}
