//! Principal components of many dimensions from a few random combinations of them.
//!
//! Halko, Martinsson and Tropp 2011, "Finding structure with randomness",
//! <https://arxiv.org/abs/0909.4061>, algorithms 4.4 and 5.1: the range of the centred data is
//! sampled by a Gaussian matrix, sharpened by power iterations with an orthonormal basis after each
//! product, and the data are decomposed exactly within it.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::pca::{Centred, Pca, finish, first_axes};
use crate::rng::Rng;

/// Directions sampled beyond those asked for.
const OVERSAMPLING: i64 = 10;
/// Power iterations; two at least where the spectrum is flat.
const POWER: usize = 4;

/// The first `k` principal components of the rows of `x [n, D]` by random projection (10 directions
/// more than asked for, 4 power iterations), drawn from `seed`: for data so large that
/// [`pca_of`](crate::pca_of) is slow. Exact where the data have at most `k + 10` directions; else
/// variances are a little too small, the last one the most. The total variance is exact.
///
/// ```
/// use thalweg::{pca_of, pca_randomized, rng::Rng};
/// let x = Rng::new(1).normal_tensor(&[60, 4]).matmul(&Rng::new(2).normal_tensor(&[4, 50]));
/// let (exact, fast) = (pca_of(&x, 3)?, pca_randomized(&x, 3, 0)?);
/// assert!((exact.variance.values[[2]] / fast.variance.values[[2]] - 1.0).abs() < 1e-9);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn pca_randomized(x: &Tensor, k: usize, seed: u64) -> Result<Pca> {
    fit(x, k, seed).map_err(|error| anyhow::anyhow!("pca_randomized: {error}"))
}

fn fit(x: &Tensor, k: usize, seed: u64) -> Result<Pca> {
    let Centred { rows: centred, mean, n, total } = Centred::new(x, k)?;
    let sampled = (k as i64 + OVERSAMPLING).min(n).min(centred.size()[1]);
    let basis = range(&centred, sampled, seed)?;
    let (_, singular, directions) = basis.tr().matmul(&centred).f_svd(true, true)?;
    let variance = singular.square() / (n - 1) as f64;
    let (variance, components) = first_axes((variance, directions.tr()), k as i64);
    let scores = components.matmul(&centred.tr()).tr();
    let pca = finish(&scores, variance, components, mean, (n, total))?;
    Ok(Pca { scores: pca.scores.note("seed", &seed.to_string()), ..pca })
}

/// Orthonormal directions among the points, `[n, sampled]`, that hold most of the variance. The thin
/// matrix stands on the left of every product: libtorch is two to four times as fast that way round.
fn range(centred: &Tensor, sampled: i64, seed: u64) -> Result<Tensor> {
    let orthonormal =
        |y: Tensor| -> Result<Tensor> { Ok(Tensor::f_linalg_qr(&y.tr(), "reduced")?.0) };
    let start = Rng::new(seed).normal_tensor(&[sampled, centred.size()[1]]);
    let start = start.to_kind(Kind::Double).to_device(centred.device());
    let mut q = orthonormal(start.matmul(&centred.tr()))?;
    for _ in 0..POWER {
        let back = orthonormal(q.tr().matmul(centred))?;
        q = orthonormal(back.tr().matmul(&centred.tr()))?;
    }
    Ok(q)
}
