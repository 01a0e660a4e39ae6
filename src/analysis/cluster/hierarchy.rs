//! Hierarchical clustering: the two nearest groups become one, again and again.
//!
//! By kodama, a port of Müllner's fastcluster (2013, <https://doi.org/10.18637/jss.v053.i09>). Tables are
//! those of `scipy.cluster.hierarchy.linkage`: groups below `n` are items, group `n + i` is what merge `i`
//! made.

use std::fmt;

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use super::clustering::Clustering;
use super::items::Items;
use crate::grid::Grid;
use crate::hook::site::Axis;

/// How far two groups are from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Linkage {
    /// By how much merging them raises the summed squared distances to the mean (Ward 1963).
    Ward,
    /// The mean distance of their items.
    Average,
    /// The largest distance of their items.
    Complete,
    /// The smallest distance of their items.
    Single,
}

/// Two groups that became one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Merge {
    /// The group of lower number.
    pub left: usize,
    /// The group of higher number.
    pub right: usize,
    /// Their distance.
    pub height: f64,
    /// Items in both together.
    pub size: usize,
}

/// A tree of items.
#[derive(Clone)]
pub struct Dendrogram {
    /// Merges from the nearest to the farthest: one less than items.
    pub merges: Vec<Merge>,
    /// Places of the items as a drawing without crossing lines lists them.
    pub leaves: Vec<usize>,
    /// Heights of the merges: `[Step]`.
    pub heights: Grid,
    items: Items,
}

impl fmt::Debug for Dendrogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, n) = (&self.heights.name, self.leaves.len());
        let top = self.merges.last().map_or(0.0, |merge| merge.height);
        write!(f, "{name}: {n} items, last merge at {top:.4}")
    }
}

impl Dendrogram {
    /// The tree cut into `k` groups.
    pub fn cut(&self, k: usize) -> Result<Clustering> {
        let n = self.leaves.len();
        ensure!(k > 0 && k <= n, "cut: {k} groups of {n} items, expected 1 to {n}");
        Ok(self.after(n - k)?.note("groups", &k.to_string()))
    }

    /// The groups whose last merge was at most this high.
    pub fn cut_at(&self, height: f64) -> Result<Clustering> {
        let merges = self.merges.iter().take_while(|merge| merge.height <= height).count();
        Ok(self.after(merges)?.note("height", &height.to_string()))
    }

    /// The merges as scipy's table, `[merges, 4]`: two groups, their distance, items in both.
    pub fn table(&self) -> Tensor {
        let row = |m: &Merge| [m.left as f64, m.right as f64, m.height, m.size as f64];
        let rows: Vec<f64> = self.merges.iter().flat_map(row).collect();
        Tensor::from_slice(&rows).view([-1, 4])
    }

    /// Labels of the items in the order of the leaves.
    pub fn labels(&self) -> Vec<&str> {
        self.leaves.iter().map(|item| self.items.labels[*item].as_str()).collect()
    }

    fn after(&self, merges: usize) -> Result<Clustering> {
        let n = self.leaves.len();
        // The group each group went into, itself if into none.
        let mut into: Vec<usize> = (0..n + merges).collect();
        for (i, merge) in self.merges[..merges].iter().enumerate() {
            into[merge.left] = n + i;
            into[merge.right] = n + i;
        }
        for group in (0..into.len()).rev() {
            into[group] = into[into[group]];
        }
        let groups: Vec<i64> = into[..n].iter().map(|group| *group as i64).collect();
        let method = self.heights.provenance.get("method").cloned().unwrap_or_default();
        Ok(Clustering::new(&self.items, &groups)?.note("method", &method))
    }
}

/// The tree of items, or of the rows of a tensor, by Euclidean distance. For directions take `items.unit()?`
/// first: squared distances are then twice one less the cosine. All distances are held at once, `12 n²`
/// bytes.
///
/// ```
/// use thalweg::{Items, Linkage, Model, linkage};
/// let model = Model::load("data/models/tiny-world")?;
/// let tree = linkage(Items::ov(&model)?.unit()?, Linkage::Average)?;
/// let groups = tree.cut(4)?;
/// assert_eq!(groups.k(), 4);
/// assert_eq!(tree.merges.len(), model.config().n_layers * model.config().n_heads - 1);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn linkage(items: impl Into<Items>, linkage: Linkage) -> Result<Dendrogram> {
    let items = items.into();
    let x = items.checked("linkage")?;
    let n = items.len();
    ensure!(n >= 2, "linkage: {n} item, expected at least 2");
    // Differences item by item: nothing is lost where items are near each other.
    let distances = Tensor::f_cdist(&x, &x, 2.0, 2)?;
    let above = Tensor::triu_indices(n as i64, n as i64, 1, (Kind::Int64, x.device()));
    let flat = above.get(0) * n as i64 + above.get(1);
    let mut condensed = Vec::<f64>::try_from(distances.view([-1]).index_select(0, &flat))?;
    let method = match linkage {
        Linkage::Ward => kodama::Method::Ward,
        Linkage::Average => kodama::Method::Average,
        Linkage::Complete => kodama::Method::Complete,
        Linkage::Single => kodama::Method::Single,
    };
    let found = kodama::linkage(&mut condensed, n, method);
    let merge = |step: &kodama::Step<f64>| Merge {
        left: step.cluster1,
        right: step.cluster2,
        height: step.dissimilarity,
        size: step.size,
    };
    let merges: Vec<Merge> = found.steps().iter().map(merge).collect();
    let heights: Vec<f64> = merges.iter().map(|merge| merge.height).collect();
    let heights = Grid::of(&Tensor::from_slice(&heights), &[Axis::Step], "distance")?
        .of_runs(items.origins.iter().cloned())
        .name(&format!("{linkage:?} linkage of {}", items.name))
        .note("method", &format!("{linkage:?} linkage"));
    Ok(Dendrogram { leaves: leaves(&merges, n), merges, heights, items })
}

/// Items as the last merge holds them, each merge's left before its right.
fn leaves(merges: &[Merge], n: usize) -> Vec<usize> {
    let mut order = Vec::with_capacity(n);
    let mut open = vec![2 * n - 2];
    while let Some(group) = open.pop() {
        match group.checked_sub(n) {
            Some(merge) => open.extend([merges[merge].right, merges[merge].left]),
            None => order.push(group),
        }
    }
    order
}
