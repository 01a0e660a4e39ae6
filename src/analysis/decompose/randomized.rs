//! Principal components of many dimensions from a few random combinations of them.
//!
//! Halko, Martinsson and Tropp 2011, "Finding structure with randomness",
//! <https://arxiv.org/abs/0909.4061>, algorithms 4.4 and 5.1: the range of the centred data is
//! sampled by a Gaussian matrix, sharpened by power iterations with an orthonormal basis after each
//! product, and the data are decomposed exactly within it.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use super::pca::{Pca, check_components, finish, first_axes};
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
    let &[n, d] = x.size().as_slice() else {
        anyhow::bail!("the data are {:?}, expected [points, dimensions]", x.size())
    };
    check_components(n, d, k)?;
    let x = x.detach().to_kind(Kind::Double);
    let mean = x.mean_dim([0i64].as_slice(), false, None);
    let total = x.var_dim([0i64].as_slice(), true, false).sum(None).double_value(&[]);
    ensure!(total.is_finite(), "the data hold a non-finite number");
    ensure!(total > 0.0, "all {n} points are equal, so no direction has variance");
    let sampled = (k as i64 + OVERSAMPLING).min(n).min(d);
    let basis = range(&x, &mean, sampled, seed)?;
    let inside = back(&x, &mean, &basis).tr(); // [sampled, D]
    let (_, singular, directions) = inside.f_svd(true, true)?;
    let variance = singular.square() / (n - 1) as f64;
    let (variance, components) = first_axes((variance, directions.tr()), k as i64);
    let scores = x.matmul(&components.tr()) - mean.matmul(&components.tr());
    let pca = finish(&scores, variance, components, mean, (n, total))?;
    Ok(Pca { scores: pca.scores.note("seed", &seed.to_string()), ..pca })
}

/// Orthonormal directions among the points, `[n, sampled]`, that hold most of the variance. The
/// data are centred in passing: `(x - 1 mean) w = x w - 1 (mean w)`.
fn range(x: &Tensor, mean: &Tensor, sampled: i64, seed: u64) -> Result<Tensor> {
    let start = Rng::new(seed).normal_tensor(&[mean.size()[0], sampled]);
    let forward = |w: &Tensor| x.matmul(w) - mean.unsqueeze(0).matmul(w);
    let orthonormal = |y: Tensor| -> Result<Tensor> { Ok(Tensor::f_linalg_qr(&y, "reduced")?.0) };
    let mut q = orthonormal(forward(&start.to_kind(Kind::Double).to_device(x.device())))?;
    for _ in 0..POWER {
        q = orthonormal(forward(&orthonormal(back(x, mean, &q))?))?;
    }
    Ok(q)
}

/// `(x - 1 mean)ᵀ q`.
fn back(x: &Tensor, mean: &Tensor, q: &Tensor) -> Tensor {
    let sums = q.sum_dim_intlist([0i64].as_slice(), true, None); // [1, sampled]
    x.tr().matmul(q) - mean.unsqueeze(1).matmul(&sums)
}
