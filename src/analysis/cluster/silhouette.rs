//! How much nearer items are to their own group than to the next: a width for each item.
//!
//! Rousseeuw 1987, <https://doi.org/10.1016/0377-0427(87)90125-7>, with scikit-learn's conventions: 0 for
//! an item alone in its group, no value for one group, or for as many groups as items.

use std::fmt;

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use super::clustering::Clustering;
use super::items::Items;
use crate::grid::Grid;
use crate::hook::site::Axis;

/// Entries of distance worked on at a time.
const PIECE: i64 = 1 << 22;

/// Silhouette widths, -1..1: 1 for an item among its own and far from others, 0 between two groups,
/// below 0 for one that is nearer to another group.
#[derive(Clone)]
pub struct Silhouette {
    /// Mean over all items that are in a group.
    pub mean: f64,
    /// Each item's own: `[Series]`; missing for noise.
    pub items: Grid,
    /// Mean of each group: `[Cluster]`.
    pub groups: Grid,
}

impl fmt::Debug for Silhouette {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each: Vec<String> =
            self.groups.values.iter().map(|width| format!("{width:.3}")).collect();
        write!(f, "silhouette {:.3}, of the groups {}", self.mean, each.join(", "))
    }
}

/// Silhouette widths of a grouping of items by Euclidean distance; noise takes no part. An error for one
/// group alone, or as many groups as items, for which they are not defined.
///
/// ```
/// use thalweg::{Clustering, silhouette, tch::Tensor};
/// let x = Tensor::from_slice(&[0.0, 1.0, 10.0]).view([3, 1]);
/// let widths = silhouette(&x, &Clustering::new(&x, &[0, 0, 1])?)?;
/// // (10 - 1) / 10, (9 - 1) / 9, and 0 for the item alone.
/// assert!((widths.mean - (0.9 + 8.0 / 9.0) / 3.0).abs() < 1e-12);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn silhouette(items: impl Into<Items>, clustering: &Clustering) -> Result<Silhouette> {
    let items = items.into();
    let x = items.checked("silhouette")?;
    let (n, k) = (items.len(), clustering.k() as i64);
    let found = clustering.groups.len();
    ensure!(n == found, "silhouette: {found} groups given for {n} items");
    let kept: Vec<i64> = (0..n as i64).filter(|i| clustering.groups[*i as usize] >= 0).collect();
    ensure!(
        k >= 2 && (k as usize) < kept.len(),
        "silhouette: {k} groups of {} items, expected 2 to {}",
        kept.len(),
        kept.len().saturating_sub(1)
    );
    let at = Tensor::from_slice(&kept).to_device(x.device());
    let own: Vec<i64> = kept.iter().map(|i| clustering.groups[*i as usize]).collect();
    let widths =
        widths(&x.index_select(0, &at), &Tensor::from_slice(&own).to_device(x.device()), k);
    let widths = Vec::<f64>::try_from(&widths)?;
    let mut all = vec![f64::NAN; n];
    kept.iter().zip(&widths).for_each(|(i, width)| all[*i as usize] = *width);
    let mut sums = vec![0.0; k as usize];
    own.iter().zip(&widths).for_each(|(group, width)| sums[*group as usize] += width);
    sums.iter_mut().zip(clustering.sizes.values.iter()).for_each(|(sum, size)| *sum /= size);
    let labels = items.labels.clone();
    let each = Grid::from_tensor(
        &Tensor::from_slice(&all),
        &[(Axis::Series, labels)],
        "silhouette width",
    )?
    .of_runs(items.origins.iter().cloned())
    .name(&format!("silhouette of {}", items.name))
    .missing_where(f64::is_nan);
    let names = clustering.sizes.labels(Axis::Cluster)?.to_vec();
    let groups = Grid::from_tensor(
        &Tensor::from_slice(&sums),
        &[(Axis::Cluster, names)],
        "silhouette width",
    )?;
    let mean = widths.iter().sum::<f64>() / widths.len() as f64;
    Ok(Silhouette { mean, items: each, groups: groups.name("silhouette of groups") })
}

/// The width of each row of `x`, of which `groups` says the group, 0 to k - 1, none empty.
fn widths(x: &Tensor, groups: &Tensor, k: i64) -> Tensor {
    let n = x.size()[0];
    let x = x - x.mean_dim([0i64].as_slice(), true, None);
    let squares = x.square().sum_dim_intlist([1i64].as_slice(), true, None); // [n, 1]
    let member = groups.one_hot(k).to_kind(Kind::Double); // [n, k]
    let sizes = member.sum_dim_intlist([0i64].as_slice(), true, None); // [1, k]
    let turned = x.tr() * -2.0;
    let rows = (PIECE / n).clamp(1, n);
    let mut all = Vec::new();
    for start in (0..n).step_by(rows as usize) {
        let len = rows.min(n - start);
        let mut distance = squares.tr().addmm(&x.narrow(0, start, len), &turned);
        let _ = distance.g_add_(&squares.narrow(0, start, len));
        let _ = distance.clamp_min_(0.0).sqrt_();
        let _ = distance.narrow(1, start, len).fill_diagonal_(0.0, false);
        let sums = distance.matmul(&member); // to each group, [len, k]
        let own = groups.narrow(0, start, len).unsqueeze(1);
        let others = sizes.expand([len, k], false).gather(1, &own, false) - 1.0;
        let within = sums.gather(1, &own, false) / others.clamp_min(1.0);
        let next =
            (&sums / &sizes).scatter_value(1, &own, f64::INFINITY).amin([1i64].as_slice(), true);
        let width = (&next - &within) / next.maximum(&within);
        // Alone in its group, or on one spot with all others: 0.
        let width = width.masked_fill(&others.eq(0.0), 0.0).nan_to_num(0.0, None, None);
        all.push(width.squeeze_dim(1));
    }
    Tensor::cat(&all, 0)
}
