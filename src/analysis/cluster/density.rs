//! HDBSCAN: groups are where items lie dense, and what lies between is noise.
//!
//! Campello, Moulavi and Sander 2013, <https://doi.org/10.1007/978-3-642-37456-2_14>, by the hdbscan crate:
//! the number of groups is found, not given.

use anyhow::{Result, ensure};
use hdbscan::{Hdbscan, HdbscanHyperParams};

use super::clustering::Clustering;
use super::items::Items;

/// Dimensions that are kept, by principal components: density means little in more.
const REDUCED: usize = 50;

/// Groups of at least `min_cluster_size` items, or rows of a tensor, by density; the rest is noise, -1. More
/// than 50 features are reduced to their first 50 principal components. Time grows with the square of
/// the items.
///
/// ```
/// use thalweg::{hdbscan, rng::Rng, tch::Tensor};
/// let blob = |seed, at: f64| Rng::new(seed).normal_tensor(&[20, 2]) + at;
/// let stray = Tensor::from_slice(&[500.0f32, -500.0]).view([1, 2]);
/// let groups = hdbscan(&Tensor::cat(&[blob(0, 0.0), blob(1, 30.0), stray], 0), 5)?;
/// assert_eq!((groups.k(), groups.groups[40]), (2, -1));
/// # thalweg::anyhow::Ok(())
/// ```
pub fn hdbscan(items: impl Into<Items>, min_cluster_size: usize) -> Result<Clustering> {
    let items = items.into();
    let x = items.checked("hdbscan")?;
    let (n, d) = (items.len(), x.size()[1]);
    ensure!(
        min_cluster_size >= 2 && min_cluster_size <= n,
        "hdbscan: groups of at least {min_cluster_size} of {n} items, expected 2 to {n}"
    );
    let x = match d as usize > REDUCED && n > REDUCED {
        true => items.clone().reduced(REDUCED)?.x,
        false => x,
    };
    let rows = (0..n as i64).map(|i| Ok(Vec::<f64>::try_from(x.get(i))?));
    let rows = rows.collect::<Result<Vec<Vec<f64>>>>()?;
    let options = HdbscanHyperParams::builder()
        .min_cluster_size(min_cluster_size)
        .min_samples(min_cluster_size)
        .build();
    let found = Hdbscan::new(&rows, options)
        .cluster()
        .map_err(|error| anyhow::anyhow!("hdbscan: {error}"))?;
    let groups: Vec<i64> = found.into_iter().map(i64::from).collect();
    let clustering = Clustering::new(&items, &groups)?.note("method", "HDBSCAN");
    Ok(clustering.note("smallest group", &min_cluster_size.to_string()))
}
