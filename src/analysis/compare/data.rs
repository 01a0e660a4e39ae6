//! Two sets of vectors whose rows belong together.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

/// Both in f64, after a check that they can be compared; `least` rows at least.
pub(super) fn pair(what: &str, x: &Tensor, y: &Tensor, least: i64) -> Result<[Tensor; 2]> {
    let both = [x, y].map(|t| t.detach().to_kind(Kind::Double));
    for t in &both {
        ensure!(
            t.dim() == 2 && t.size()[1] > 0,
            "{what}: the vectors are {:?}, expected [points, dimensions]",
            t.size()
        );
        ensure!(is_finite(t)?, "{what}: the vectors hold a non-finite number");
    }
    let [n, m] = [&both[0], &both[1]].map(|t| t.size()[0]);
    ensure!(n == m, "{what}: {n} vectors against {m}, expected row by row the same points");
    ensure!(n >= least, "{what}: {n} points, expected at least {least}");
    let [x, y] = both;
    let y = y.to_device(x.device());
    Ok([x, y])
}

/// A finite norm settles it in one pass; a norm may also overflow.
fn is_finite(t: &Tensor) -> Result<bool> {
    Ok(number(&t.norm()).is_finite() || bool::try_from(t.isfinite().all())?)
}

/// Each column less its mean; an error where nothing is left.
pub(super) fn centred(what: &str, x: &Tensor) -> Result<Tensor> {
    let mean = x.mean_dim([0i64].as_slice(), true, None);
    let centred = x - &mean;
    let (left, size) = (number(&centred.norm()), number(&x.norm()));
    ensure!(left > 1e-12 * size, "{what}: all points of a set are equal: nothing varies");
    Ok(centred)
}

pub(super) fn number(x: &Tensor) -> f64 {
    x.double_value(&[])
}

/// Sum of the squares of all entries.
pub(super) fn squares(x: &Tensor) -> f64 {
    number(&x.square().sum(None))
}

/// Sum over the last axis.
pub(super) fn by_row(x: Tensor) -> Tensor {
    x.sum_dim_intlist([-1i64].as_slice(), false, None)
}
