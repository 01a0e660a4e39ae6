//! Nearest neighbours, found exactly, and whether a picture keeps them.
//!
//! Trustworthiness: Venna and Kaski 2001, "Neighborhood preservation in nonlinear projection
//! methods", <https://doi.org/10.1007/3-540-44668-0_68>, as `sklearn.manifold.trustworthiness` computes it.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

/// Entries of distance worked on at a time.
const PIECE: i64 = 1 << 22;

/// How far the neighbours in a picture were neighbours before, 0..1: 1 if the `k` nearest of every
/// point in `embedding [n, ..]` are among its `k` nearest in `x [n, D]`; each that is not costs by
/// how many places it was too far. About 0.5 for a random picture. `k` must be below half of
/// the points.
///
/// ```
/// use thalweg::{rng::Rng, trustworthiness};
/// let x = Rng::new(0).normal_tensor(&[40, 3]);
/// assert_eq!(trustworthiness(&x, &x, 5)?, 1.0);
/// assert!(trustworthiness(&x, &Rng::new(1).normal_tensor(&[40, 2]), 5)? < 0.7);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn trustworthiness(x: &Tensor, embedding: &Tensor, k: usize) -> Result<f64> {
    let (x, embedding) = (points(x, "trustworthiness")?, points(embedding, "trustworthiness")?);
    let n = x.size()[0];
    ensure!(
        embedding.size()[0] == n,
        "trustworthiness: {n} points, {} in the picture",
        embedding.size()[0]
    );
    ensure!(
        k > 0 && 2 * (k as i64) < n,
        "trustworthiness: {k} neighbours of {n} points, expected 1 to {}",
        (n - 1) / 2
    );
    let nearest = nearest(&embedding, k as i64).0;
    let mut missed = 0.0;
    for (start, distance) in blocks(&x) {
        let near = nearest.narrow(0, start, distance.size()[0]);
        let theirs = distance.gather(1, &near, false);
        for j in 0..k as i64 {
            // How many points are nearer than this one, counted from 1: its rank.
            let nearer = distance.lt_tensor(&theirs.narrow(1, j, 1));
            let rank = nearer.sum_dim_intlist([1i64].as_slice(), false, Kind::Double) + 1.0;
            missed += (rank - k as f64).clamp_min(0.0).sum(None).double_value(&[]);
        }
    }
    let (n, k) = (n as f64, k as f64);
    Ok(1.0 - missed * 2.0 / (n * k * (2.0 * n - 3.0 * k - 1.0)))
}

/// Rows of finite numbers, f64.
pub(in crate::analysis) fn points(x: &Tensor, of: &str) -> Result<Tensor> {
    let shape = x.size();
    ensure!(
        shape.len() == 2 && shape.iter().all(|len| *len > 0),
        "{of}: the data are {shape:?}, expected [points, dimensions]"
    );
    let x = x.detach().to_kind(Kind::Double);
    // A sum is quick, and finite only of finite numbers.
    let finite = x.sum(None).double_value(&[]).is_finite() || bool::try_from(x.isfinite().all())?;
    ensure!(finite, "{of}: the data hold a non-finite number");
    Ok(x)
}

/// The `k` nearest other rows of each row, nearest first: indices `[n, k]` and squared distances.
pub(super) fn nearest(x: &Tensor, k: i64) -> (Tensor, Tensor) {
    let (mut indices, mut distances) = (Vec::new(), Vec::new());
    for (_, distance) in blocks(x) {
        let (near, index) = distance.topk(k, 1, false, true);
        distances.push(near);
        indices.push(index);
    }
    (Tensor::cat(&indices, 0), Tensor::cat(&distances, 0))
}

/// Squared distances of some rows to all, a block at a time, with the block's first row; infinite
/// from a row to itself.
fn blocks(x: &Tensor) -> impl Iterator<Item = (i64, Tensor)> {
    let n = x.size()[0];
    let x = x - x.mean_dim([0i64].as_slice(), true, None); // less is lost in the subtraction below
    let squares = x.square().sum_dim_intlist([1i64].as_slice(), false, None);
    let rows = (PIECE / n).clamp(1, n);
    (0..n).step_by(rows as usize).map(move |start| {
        let len = rows.min(n - start);
        let own = x.narrow(0, start, len);
        let products = own.matmul(&x.tr());
        let sums = squares.narrow(0, start, len).unsqueeze(1) + squares.unsqueeze(0);
        let distance = (sums - products * 2.0).clamp_min(0.0);
        let _ = distance.narrow(1, start, len).fill_diagonal_(f64::INFINITY, false);
        (start, distance)
    })
}
