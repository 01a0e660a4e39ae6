//! How many groups: the number whose silhouette is widest, beside data that have none.

use std::fmt;
use std::ops::RangeInclusive;

use anyhow::{Result, ensure};
use tch::Tensor;

use super::items::Items;
use super::kmeans::kmeans;
use super::silhouette::silhouette;
use crate::grid::Grid;
use crate::hook::site::Axis;
use crate::show::progress;

/// Silhouettes of several numbers of groups.
#[derive(Clone)]
pub struct KChoice {
    /// The number of groups whose mean silhouette is largest.
    pub k: usize,
    /// Mean silhouette for each number, of the items and of the control: `[Series, Step]`. A choice
    /// means something where the items lie above the control.
    pub silhouettes: Grid,
}

impl fmt::Debug for KChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let best = |series: usize| {
            let own = self.silhouettes.values.index_axis(ndarray::Axis(0), series);
            own.iter().copied().fold(f64::NEG_INFINITY, f64::max)
        };
        let (k, own, control) = (self.k, best(0), best(1));
        write!(f, "{k} groups: silhouette {own:.3}, best of shuffled features {control:.3}")
    }
}

/// The number of groups, of those in `range`, for which k-means gives items, or the rows of a tensor, the
/// widest silhouette; beside the same for every feature shuffled over the items.
///
/// ```
/// use thalweg::{choose_k, rng::Rng, tch::Tensor};
/// let blob = |seed, at: f64| Rng::new(seed).normal_tensor(&[12, 3]) + at;
/// let x = Tensor::cat(&[blob(0, 0.0), blob(1, 20.0), blob(2, 40.0)], 0);
/// assert_eq!(choose_k(&x, 2..=5, 0)?.k, 3);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn choose_k(
    items: impl Into<Items>,
    range: RangeInclusive<usize>,
    seed: u64,
) -> Result<KChoice> {
    let items = items.into();
    let n = items.len();
    let (low, high) = (*range.start(), *range.end());
    ensure!(
        2 <= low && low <= high && high < n,
        "choose_k: {low} to {high} groups of {n} items, expected 2 to {}",
        n.saturating_sub(1)
    );
    let shuffled = items.shuffled(seed)?;
    let mut values = Vec::new();
    for items in [&items, &shuffled] {
        for k in progress(range.clone(), "choose_k").unit("numbers of groups") {
            let found = kmeans(items, k, seed)?;
            // Where items lie on fewer spots than groups, one group may be all there is.
            values.push(if found.k() < 2 { 0.0 } else { silhouette(items, &found)?.mean });
        }
    }
    let count = high - low + 1;
    let mut k = low;
    for (i, value) in values[..count].iter().enumerate() {
        if *value > values[k - low] {
            k = low + i;
        }
    }
    let names = ["items", "features shuffled"].map(str::to_owned).to_vec();
    let steps = range.map(|k| k.to_string()).collect();
    let values = Tensor::from_slice(&values).view([2, count as i64]);
    let silhouettes = Grid::from_tensor(
        &values,
        &[(Axis::Series, names), (Axis::Step, steps)],
        "mean silhouette",
    )?
    .of_runs(items.origins.iter().cloned())
    .name(&format!("silhouette of k groups of {}", items.name))
    .note("seed", &seed.to_string());
    Ok(KChoice { k, silhouettes })
}
