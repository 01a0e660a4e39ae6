//! Canonical correlations: what two sets of vectors have in common up to any linear map.
//!
//! Hotelling 1936; as measures of representations Raghu et al. 2017 (SVCCA),
//! <https://arxiv.org/abs/1706.05806>, and Morcos et al. 2018 (PWCCA, weighted by how much of the
//! first set each direction accounts for), <https://arxiv.org/abs/1806.05759>.
//!
//! With as many dimensions as points any two sets correlate perfectly. That is an error here: keep
//! fewer directions with [`svcca`], or take more points.

use anyhow::{Result, ensure};
use tch::Tensor;

use super::data::{centred, pair};

/// Singular values below this share of the largest count as 0.
const RANK: f64 = 1e-10;

/// Canonical correlations of two sets of vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct Cca {
    /// Correlations, the largest first, 0..1: as many as the smaller of both ranks.
    pub correlations: Vec<f64>,
    /// Weight of each in PWCCA: how much of the first set lies along its direction; they add up to 1.
    pub weights: Vec<f64>,
    /// Directions kept of each set.
    pub kept: [usize; 2],
}

impl Cca {
    /// Mean of the correlations.
    pub fn mean(&self) -> f64 {
        self.correlations.iter().sum::<f64>() / self.correlations.len() as f64
    }

    /// Mean of the correlations by their weights.
    pub fn weighted(&self) -> f64 {
        self.correlations.iter().zip(&self.weights).map(|(r, weight)| r * weight).sum()
    }
}

/// Canonical correlations of `x [n, D]` and `y [n, E]`, all directions kept.
pub fn cca(x: &Tensor, y: &Tensor) -> Result<Cca> {
    kept("cca", x, y, 1.0)
}

/// Mean canonical correlation after each set is cut to the fewest principal components that hold
/// `variance` of it, such as 0.99: 0..1.
///
/// ```
/// use thalweg::{rng::Rng, svcca};
/// let mut rng = Rng::new(1);
/// let (x, map) = (rng.normal_tensor(&[60, 5]), rng.normal_tensor(&[5, 5]));
/// assert!((svcca(&x, &x.matmul(&map), 1.0)? - 1.0).abs() < 1e-6);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn svcca(x: &Tensor, y: &Tensor, variance: f64) -> Result<f64> {
    ensure!(
        variance > 0.0 && variance <= 1.0,
        "svcca: variance {variance}, expected above 0 and at most 1, such as 0.99"
    );
    Ok(kept("svcca", x, y, variance)?.mean())
}

/// Mean canonical correlation weighted by how much of `x` each direction accounts for, 0..1. Not the
/// same with x and y exchanged.
pub fn pwcca(x: &Tensor, y: &Tensor) -> Result<f64> {
    Ok(kept("pwcca", x, y, 1.0)?.weighted())
}

fn kept(what: &str, x: &Tensor, y: &Tensor, variance: f64) -> Result<Cca> {
    let [x, y] = pair(what, x, y, 3)?;
    let (x, y) = (centred(what, &x)?, centred(what, &y)?);
    let (a, b) = (basis(&x, variance)?, basis(&y, variance)?);
    let (n, kept) = (x.size()[0], [a.size()[1], b.size()[1]]);
    ensure!(
        kept[0] + kept[1] < n,
        "{what}: {n} points, and {} and {} directions: with so few points any two sets correlate; keep fewer with svcca, or take more points",
        kept[0],
        kept[1]
    );
    let (left, singular, _) = a.tr().matmul(&b).f_svd(true, true)?;
    let variates = a.matmul(&left); // [n, number of correlations]
    let shares = variates.tr().matmul(&x).abs().sum_dim_intlist([1i64].as_slice(), false, None);
    let weights = &shares / shares.sum(None);
    Ok(Cca {
        correlations: Vec::try_from(singular.clamp(0.0, 1.0))?,
        weights: Vec::try_from(weights)?,
        kept: kept.map(|n| n as usize),
    })
}

/// Orthonormal columns that span the first principal components holding `variance` of centred rows:
/// `[n, kept]`.
fn basis(x: &Tensor, variance: f64) -> Result<Tensor> {
    let (u, singular, _) = x.f_svd(true, true)?;
    let values = Vec::<f64>::try_from(singular)?;
    let rank = values.iter().filter(|s| **s > RANK * values[0]).count();
    let total: f64 = values.iter().map(|s| s * s).sum();
    let mut held = 0.0;
    let enough = values.iter().take_while(|s| {
        let more = held < variance * total * (1.0 - 1e-12);
        held += **s * **s;
        more
    });
    Ok(u.narrow(1, 0, enough.count().min(rank).max(1) as i64))
}
