//! How long the residual stream is, and how far each block turns it.
//!
//! Lengths grow with depth (Heimersheim and Turner 2023, "Residual stream norms grow exponentially
//! over the forward pass"); cosines between neighbours are the measure behind layer pruning (Gromov
//! et al. 2024, <https://arxiv.org/abs/2403.17887>).
//!
//! The first token is an attention sink whose vector can be a hundred times as long as the others:
//! it is marked as missing, so that means leave it out; [`with_first`] brings it back. A few
//! dimensions of large variance can dominate a cosine.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use crate::analysis::frame;
use crate::grid::Grid;
use crate::hook::cache::Cache;

/// Length (L2 norm) of the residual stream: `[Layer, Pos]`, or `[Batch, Layer, Pos]`, one row for
/// each place of the stream that the cache holds. Each prompt's first token is marked as missing.
///
/// ```no_run
/// # use thalweg::{Axis, Model, Plan, Point, resid_norms};
/// # let model = Model::load("data/models/tiny-world")?;
/// # let run = model.run(&model.tokens("Mary")?, &Plan::new().cache(Point::ResidPost))?;
/// let by_layer = resid_norms(&run.cache)?.mean(Axis::Pos)?; // without the first token
/// # thalweg::anyhow::Ok(())
/// ```
pub fn resid_norms(cache: &Cache) -> Result<Grid> {
    let (mut labels, mut values) = (Vec::new(), Vec::new());
    for (label, site) in frame::rungs(cache)? {
        values.push(norm(&cache.get(site)?.to_kind(Kind::Double)));
        labels.push(label);
    }
    finish(cache, labels, &values, "L2 norm", "length of the residual stream")
}

/// Cosine between each place of the stream and the one above it, in -1..1, labelled `L0 to L1`:
/// `[Layer, Pos]`, or `[Batch, Layer, Pos]`. Each prompt's first token is marked as missing.
pub fn resid_cosines(cache: &Cache) -> Result<Grid> {
    neighbours(cache, cosine, "cosine", "cosine between neighbouring places of the stream")
}

/// How much is written between each place of the stream and the one above it, as a share of the
/// lower one's length: `|high - low| / |low|`. Axes as those of [`resid_cosines`].
pub fn resid_updates(cache: &Cache) -> Result<Grid> {
    let ratio = |low: &Tensor, high: &Tensor| norm(&(high - low)) / norm(low);
    neighbours(cache, ratio, "|change| / |stream|", "relative change of the stream")
}

/// The same grid with the first token of each prompt counted too: only padding stays missing.
pub fn with_first(grid: Grid, cache: &Cache) -> Result<Grid> {
    let mut grid = frame::hide(grid, cache.tokens(), 0)?;
    grid.provenance.remove("left out");
    Ok(grid)
}

fn neighbours(
    cache: &Cache,
    compare: impl Fn(&Tensor, &Tensor) -> Tensor,
    unit: &str,
    name: &str,
) -> Result<Grid> {
    neighbours_of(cache, Ok, compare, unit, name)
}

/// Compares each place with the one above it, both changed first.
pub(super) fn neighbours_of(
    cache: &Cache,
    change: impl Fn(Tensor) -> Result<Tensor>,
    compare: impl Fn(&Tensor, &Tensor) -> Tensor,
    unit: &str,
    name: &str,
) -> Result<Grid> {
    let rungs = frame::rungs(cache)?;
    ensure!(
        rungs.len() > 1,
        "the cache holds one place of the residual stream ({}), expected two to compare",
        rungs[0].1
    );
    let stream = |i: usize| change(cache.get(rungs[i].1)?.to_kind(Kind::Double));
    let (mut labels, mut values) = (Vec::new(), Vec::new());
    let mut low = stream(0)?;
    for i in 1..rungs.len() {
        let high = stream(i)?;
        values.push(compare(&low, &high));
        labels.push(format!("{} to {}", rungs[i - 1].0, rungs[i].0));
        low = high;
    }
    finish(cache, labels, &values, unit, name)
}

pub(super) fn finish(
    cache: &Cache,
    labels: Vec<String>,
    values: &[Tensor],
    unit: &str,
    name: &str,
) -> Result<Grid> {
    let grid = frame::by_position(cache, labels, values, unit)?.name(name);
    Ok(frame::hide(grid, cache.tokens(), 1)?.note("left out", "each prompt's first token"))
}

/// Cosine of the last axes, in -1..1 whatever the rounding.
pub(super) fn cosine(x: &Tensor, y: &Tensor) -> Tensor {
    (dot(x, y) / (norm(x) * norm(y))).clamp(-1.0, 1.0)
}

pub(super) fn norm(x: &Tensor) -> Tensor {
    x.norm_scalaropt_dim(2, [-1i64].as_slice(), false)
}

pub(super) fn dot(x: &Tensor, y: &Tensor) -> Tensor {
    (x * y).sum_dim_intlist([-1i64].as_slice(), false, None)
}
