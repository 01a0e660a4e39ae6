//! Where k-means starts: k-means++.
//!
//! Arthur and Vassilvitskii 2007, "k-means++: the advantages of careful seeding"; greedy, the best of
//! `2 + ln k` draws for each centre, as in scikit-learn.

use anyhow::Result;
use tch::Tensor;

use crate::rng::Rng;

/// Entries of distance worked on at a time.
const PIECE: usize = 1 << 23;

/// For each generator `k` rows of `x [n, D]` far from each other, given the rows' squared lengths. The
/// runs go side by side: distances from all their candidates are one product.
pub(super) fn plus_plus(
    x: &Tensor,
    squares: &Tensor,
    k: usize,
    draws: &mut [Rng],
) -> Result<Vec<Tensor>> {
    let n = x.size()[0] as usize;
    let trials = 2 + (k as f64).ln() as usize;
    let together = (PIECE / (n * trials)).max(1);
    let mut starts = Vec::new();
    for draws in draws.chunks_mut(together) {
        let runs = draws.len() as i64;
        let first: Vec<i64> = draws.iter_mut().map(|rng| rng.below(n) as i64).collect();
        let mut nearest = distances(x, squares, &first); // [runs, n]
        let mut chosen: Vec<Vec<i64>> = first.into_iter().map(|row| vec![row]).collect();
        for _ in 1..k {
            let mut drawn = Vec::new();
            for (run, rng) in draws.iter_mut().enumerate() {
                drawn.extend(draw(&nearest.get(run as i64), trials, rng)?);
            }
            let each = distances(x, squares, &drawn).view([runs, trials as i64, n as i64]);
            let each = each.minimum(&nearest.unsqueeze(1));
            let left = each.sum_dim_intlist([2i64].as_slice(), false, None); // [runs, trials]
            let best = left.argmin(1, false);
            let at = best.view([runs, 1, 1]).expand([runs, 1, n as i64], false);
            nearest = each.gather(1, &at, false).squeeze_dim(1);
            for (run, best) in Vec::<i64>::try_from(&best)?.into_iter().enumerate() {
                chosen[run].push(drawn[run * trials + best as usize]);
            }
        }
        for rows in chosen {
            starts.push(x.index_select(0, &Tensor::from_slice(&rows).to_device(x.device())));
        }
    }
    Ok(starts)
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
    let found = at.f_searchsorted(&up_to, false, true, "right", None::<&Tensor>)?;
    Ok(Vec::<i64>::try_from(found.clamp_max(n - 1))?)
}

/// Squared distances of some rows to all, `[some, n]`.
fn distances(x: &Tensor, squares: &Tensor, rows: &[i64]) -> Tensor {
    let rows = Tensor::from_slice(rows).to_device(x.device());
    let own = x.index_select(0, &rows) * -2.0;
    let products = squares.unsqueeze(0).addmm(&own, &x.tr());
    (products + squares.index_select(0, &rows).unsqueeze(1)).clamp_min(0.0)
}
