//! Where k-means starts: k-means++.
//!
//! Arthur and Vassilvitskii 2007, "k-means++: the advantages of careful seeding"; greedy, the best of
//! `2 + ln k` draws for each centre, as in scikit-learn.

use anyhow::Result;
use tch::Tensor;

use crate::rng::Rng;

/// `k` rows of `x [n, D]` far from each other, given the rows' squared lengths.
pub(super) fn plus_plus(x: &Tensor, squares: &Tensor, k: usize, rng: &mut Rng) -> Result<Tensor> {
    let n = x.size()[0] as usize;
    let trials = 2 + (k as f64).ln() as usize;
    let first = rng.below(n);
    let mut chosen = vec![first as i64];
    let mut nearest = distances(x, squares, &[first as i64]).squeeze_dim(0);
    while chosen.len() < k {
        let drawn = draw(&nearest, trials, rng)?;
        let to_each = distances(x, squares, &drawn).minimum(&nearest); // [trials, n]
        let left = to_each.sum_dim_intlist([1i64].as_slice(), false, None);
        let best = left.argmin(0, false).int64_value(&[]);
        nearest = to_each.get(best);
        chosen.push(drawn[best as usize]);
    }
    Ok(x.index_select(0, &Tensor::from_slice(&chosen).to_device(x.device())))
}

/// Rows drawn in proportion to their weights; any row, if all weights are 0.
fn draw(weights: &Tensor, trials: usize, rng: &mut Rng) -> Result<Vec<i64>> {
    let n = weights.size()[0];
    let up_to = weights.cumsum(0, None);
    let total = up_to.double_value(&[n - 1]);
    let at: Vec<f64> = (0..trials).map(|_| rng.uniform() * total).collect();
    if total <= 0.0 {
        return Ok((0..trials).map(|_| rng.below(n as usize) as i64).collect());
    }
    let at = Tensor::from_slice(&at).to_device(weights.device());
    let found = at.f_searchsorted(&up_to.contiguous(), false, true, "right", None::<&Tensor>)?;
    Ok(Vec::<i64>::try_from(found.clamp_max(n - 1))?)
}

/// Squared distances of some rows to all, `[some, n]`.
fn distances(x: &Tensor, squares: &Tensor, rows: &[i64]) -> Tensor {
    let rows = Tensor::from_slice(rows).to_device(x.device());
    let own = x.index_select(0, &rows);
    let products = own.matmul(&x.tr()) * 2.0;
    (squares.index_select(0, &rows).unsqueeze(1) + squares.unsqueeze(0) - products).clamp_min(0.0)
}
