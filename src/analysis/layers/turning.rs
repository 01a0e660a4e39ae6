//! How far the stream turns between places, as angles and with its mean taken off.
//!
//! Angles across several blocks are what Gromov et al. 2024, "The Unreasonable Ineffectiveness of the
//! Deeper Layers", <https://arxiv.org/abs/2403.17887>, choose the blocks to drop by. Streams of
//! different tokens share a common part (Ethayarajh 2019, <https://arxiv.org/abs/1909.00512>):
//! cosines see little else until the mean over tokens is taken off.
//!
//! As for lengths, padding and each prompt's first token do not count.

use anyhow::{Result, ensure};
use ndarray::Array2;
use tch::{Kind, Tensor};

use super::rows::Rows;
use super::stream::{cosine, neighbours_of, norm};
use crate::analysis::frame;
use crate::grid::{Grid, GridAxis};
use crate::hook::cache::Cache;
use crate::hook::site::{Axis, Point, Site};

/// Tokens left out at the beginning of each prompt.
const FIRST: usize = 1;

/// Angular distance between each place of the stream and the one above it, `arccos(cosine) / pi` in
/// 0..1: axes as those of [`resid_cosines`](crate::resid_cosines).
pub fn resid_angles(cache: &Cache) -> Result<Grid> {
    let name = "angle between neighbouring places of the stream";
    let grid = neighbours_of(cache, Ok, angle, "angle / pi", name)?;
    Ok(grid.zero_one("the same direction", "the opposite direction"))
}

/// Angular distance between the stream before block `l` and that after `n` blocks, averaged over all
/// tokens that count: `[Layer, Step]`, `Step` labelled by `n`; missing where there are no `n` blocks.
/// The smallest entry of column `n` says which `n` blocks do least. Needs `ResidPre` of all layers
/// and `ResidPost` of the last.
///
/// ```no_run
/// # use thalweg::{Model, Plan, Point, resid_angles_across};
/// # let model = Model::load("data/models/tiny-world")?;
/// # let tokens = model.tokens("Mary and John went to the store")?;
/// let run = model.run(&tokens, &Plan::new().cache([Point::ResidPre, Point::ResidPost]))?;
/// let angles = resid_angles_across(&run.cache)?;
/// let one = angles.get(&["L2", "1"])?; // over block 2
/// assert!((0.0..=1.0).contains(&one));
/// # thalweg::anyhow::Ok(())
/// ```
pub fn resid_angles_across(cache: &Cache) -> Result<Grid> {
    let (n_layers, tokens) = (cache.n_layers(), cache.tokens());
    let rows = Rows::new(tokens, FIRST);
    ensure!(rows.len() > 0, "angles: no prompt has a token after the first");
    let place = |at: usize| match at {
        at if at == n_layers => Point::ResidPost.at(at - 1),
        at => Point::ResidPre.at(at),
    };
    let stream = |at: usize| Ok(rows.of(&cache.get(place(at))?).to_kind(Kind::Double));
    let streams = (0..=n_layers).map(stream).collect::<Result<Vec<_>>>()?;
    let mut values = Array2::from_elem((n_layers, n_layers), f64::NAN);
    for layer in 0..n_layers {
        for n in 1..=n_layers - layer {
            let apart = angle(&streams[layer], &streams[layer + n]);
            values[[layer, n - 1]] = apart.mean(Kind::Double).double_value(&[]);
        }
    }
    let label = |n: usize| n.to_string();
    let steps = GridAxis { axis: Axis::Step, labels: (1..=n_layers).map(label).collect() };
    let layers = GridAxis { axis: Axis::Layer, labels: frame::numbered('L', n_layers) };
    let grid = Grid::new(values.into_dyn(), vec![layers, steps], "angle / pi")?;
    Ok(grid
        .missing_where(f64::is_nan)
        .n(rows.len())
        .of_runs(cache.origin().cloned())
        .zero_one("the same direction", "the opposite direction")
        .name("angle of the stream across n blocks")
        .note("left out", "each prompt's first token"))
}

/// Cosine between each place of the stream and the one above it, the mean over tokens of each place
/// taken off first: axes as those of [`resid_cosines`](crate::resid_cosines). The mean is that of all
/// prompts of the cache: with few tokens it is mostly noise.
pub fn resid_cosines_centred(cache: &Cache) -> Result<Grid> {
    let rows = at_least_two(cache)?;
    let centre = |x: Tensor| {
        let mean = rows.of(&x).mean_dim([0i64].as_slice(), false, None);
        Ok(x - mean)
    };
    let name = "cosine between neighbouring places of the stream, less its mean";
    let grid = neighbours_of(cache, centre, cosine, "cosine", name)?;
    Ok(grid.note("mean", &format!("of {} tokens, taken off each place", rows.len())))
}

/// Mean cosine between the streams of two different tokens, over all pairs of tokens that count:
/// `[Series, Layer]`, the series `as it is` and `less its mean`. Near 0 for directions that have
/// nothing in common.
pub fn anisotropy(cache: &Cache) -> Result<Grid> {
    let rows = at_least_two(cache)?;
    let rungs = frame::rungs(cache)?;
    let mut values = [Vec::new(), Vec::new()];
    for (_, site) in &rungs {
        let x = rows.of(&stream(cache, *site)?);
        let centred = &x - x.mean_dim([0i64].as_slice(), true, None);
        values[0].push(mean_cosine(&x));
        values[1].push(mean_cosine(&centred));
    }
    let labels: Vec<String> = rungs.into_iter().map(|(label, _)| label).collect();
    let values = Array2::from_shape_vec((2, labels.len()), values.concat())?;
    Ok(Grid::from_array(values, &[Axis::Series, Axis::Layer], "cosine")?
        .relabel(Axis::Series, &["as it is", "less its mean"])?
        .relabel(Axis::Layer, &labels)?
        .n(rows.len() * (rows.len() - 1) / 2)
        .of_runs(cache.origin().cloned())
        .name("mean cosine between tokens")
        .note("left out", "each prompt's first token"))
}

/// Mean over pairs of different rows: the squared length of the sum of unit vectors holds each pair
/// twice, and each vector with itself once.
fn mean_cosine(x: &Tensor) -> f64 {
    let n = x.size()[0] as f64;
    let unit = x / norm(x).clamp_min(f64::MIN_POSITIVE).unsqueeze(-1);
    let sum = unit.sum_dim_intlist([0i64].as_slice(), false, None);
    let own = unit.square().sum(None).double_value(&[]);
    (sum.square().sum(None).double_value(&[]) - own) / (n * (n - 1.0))
}

fn angle(x: &Tensor, y: &Tensor) -> Tensor {
    cosine(x, y).arccos() / std::f64::consts::PI
}

fn stream(cache: &Cache, site: Site) -> Result<Tensor> {
    Ok(cache.get(site)?.to_kind(Kind::Double))
}

fn at_least_two(cache: &Cache) -> Result<Rows> {
    let rows = Rows::new(cache.tokens(), FIRST);
    ensure!(
        rows.len() > 1,
        "a mean over tokens needs two at least after each prompt's first, the cache has {}",
        rows.len()
    );
    Ok(rows)
}
