//! Whether groups come again when the items are drawn again.
//!
//! Bootstrap as in Fang and Wang 2012, <https://doi.org/10.1016/j.csda.2011.09.003>: groups that a method
//! finds in any data at all change from draw to draw.

use std::fmt;

use anyhow::{Result, ensure};
use tch::Tensor;

use super::agreement::adjusted_rand_score;
use super::clustering::Clustering;
use super::items::Items;
use super::kmeans::nearest_center;
use crate::grid::Grid;
use crate::hook::site::Axis;
use crate::rng::Rng;
use crate::show::progress;

/// How well groups come again, beside features shuffled item by item.
#[derive(Clone)]
pub struct Stability {
    /// Mean adjusted Rand index of the groups of a draw with those of all items; 1 if they are the same each
    /// time.
    pub mean: f64,
    /// The same where every feature is shuffled and there are no groups: what the method makes of
    /// nothing.
    pub control: f64,
    /// The index of each draw, of the items and of the control: `[Series, Step]`.
    pub draws: Grid,
}

impl fmt::Debug for Stability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mean, control, draws) = (self.mean, self.control, self.draws.shape()[1]);
        write!(f, "stability {mean:.3}, of shuffled features {control:.3} ({draws} draws)")
    }
}

/// Stability of a way of grouping: `draws` times items are drawn with replacement from `seed`, grouped,
/// every item given to the nearest mean, and the result compared with the groups of all items.
///
/// ```
/// use thalweg::{kmeans, rng::Rng, stability, tch::Tensor};
/// let blob = |seed, at: f64| Rng::new(seed).normal_tensor(&[15, 3]) + at;
/// let x = Tensor::cat(&[blob(0, 0.0), blob(1, 30.0)], 0);
/// let found = stability(&x, 5, 0, |items| kmeans(items, 2, 0))?;
/// assert_eq!(found.mean, 1.0);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn stability(
    items: impl Into<Items>,
    draws: usize,
    seed: u64,
    group: impl Fn(&Items) -> Result<Clustering>,
) -> Result<Stability> {
    let items = items.into();
    let _ = items.checked("stability")?;
    ensure!(draws > 0, "stability: 0 draws, expected at least 1");
    let shuffled = items.shuffled(seed)?;
    let mut values = Vec::new();
    for (which, items) in [&items, &shuffled].into_iter().enumerate() {
        let whole = group(items)?;
        let rng = Rng::new(seed).fork(which as u64);
        for draw in progress(0..draws, "stability").unit("draws") {
            values.push(again(items, &whole, &mut rng.fork(draw as u64), &group)?);
        }
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / draws as f64;
    let (own, control) = (mean(&values[..draws]), mean(&values[draws..]));
    let names = ["items", "features shuffled"].map(str::to_owned).to_vec();
    let steps = (0..draws).map(|draw| draw.to_string()).collect();
    let values = Tensor::from_slice(&values).view([2, draws as i64]);
    let draws = Grid::from_tensor(
        &values,
        &[(Axis::Series, names), (Axis::Step, steps)],
        "adjusted Rand index",
    )?
    .of_runs(items.origins.iter().cloned())
    .name(&format!("stability of groups of {}", items.name))
    .note("seed", &seed.to_string());
    Ok(Stability { mean: own, control, draws })
}

/// Agreement of the groups of all items with those of one draw, extended to all by the nearest mean.
fn again(
    items: &Items,
    whole: &Clustering,
    rng: &mut Rng,
    group: &impl Fn(&Items) -> Result<Clustering>,
) -> Result<f64> {
    let n = items.len();
    let drawn: Vec<usize> = (0..n).map(|_| rng.below(n)).collect();
    let found = group(&items.select(&drawn)?)?;
    if found.k() == 0 {
        return Ok(0.0); // all of the draw is noise: nothing came again
    }
    adjusted_rand_score(&whole.groups, &nearest_center(&items.x, &found.centers)?)
}
