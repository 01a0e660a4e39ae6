//! k-means: groups around means.
//!
//! Lloyd 1982, <https://doi.org/10.1109/TIT.1982.1056489>, from k-means++ starts, the best of ten; the
//! end of a run and what happens to an empty group are scikit-learn's. Written on libtorch, for
//! distances to all means are one matrix product: the crate at hand took ten times as long as
//! scikit-learn, row by row, and its means count the old mean as one item more.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use super::clustering::{Clustering, means};
use super::items::Items;
use super::seeding::plus_plus;
use crate::grid::Grid;
use crate::hook::site::Axis;
use crate::interrupt::check_interrupt;
use crate::rng::Rng;

/// Entries of distance worked on at a time.
const PIECE: i64 = 1 << 21;

/// How [`kmeans`] is done, where its defaults are not wanted.
///
/// ```
/// use thalweg::{KMeans, tch::Tensor};
/// let x = Tensor::from_slice(&[0.0, 0.1, 5.0, 5.1]).view([4, 1]);
/// let (groups, inertia) = KMeans::new(2).seed(3).runs(20).run(&x)?;
/// assert_eq!(groups.groups, [0, 0, 1, 1]);
/// assert!((groups.inertia - 0.01).abs() < 1e-12 && inertia.values.iter().is_sorted_by(|a, b| a >= b));
/// # thalweg::anyhow::Ok(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KMeans {
    k: usize,
    runs: usize,
    steps: usize,
    tolerance: f64,
    seed: u64,
}

impl KMeans {
    /// `k` groups; ten runs of at most 300 steps.
    pub fn new(k: usize) -> Self {
        KMeans { k, runs: 10, steps: 300, tolerance: 1e-4, seed: 0 }
    }

    /// Where the draws begin; the default is 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Starts, of which the best run is kept.
    pub fn runs(mut self, runs: usize) -> Self {
        self.runs = runs;
        self
    }

    /// Most steps of a run.
    pub fn steps(mut self, steps: usize) -> Self {
        self.steps = steps;
        self
    }

    /// A run ends when all means together move, squared, by less than this share of a feature's mean variance,
    /// or when no item changes its group; the default is 1e-4.
    pub fn tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Groups items, or the rows of a tensor: the groups, and the best run's inertia at each step,
    /// `[Step]`, which never rises.
    pub fn run(&self, items: impl Into<Items>) -> Result<(Clustering, Grid)> {
        let items = items.into();
        let x = items.checked("kmeans")?;
        let (n, k) = (items.len(), self.k);
        ensure!(k > 0 && k <= n, "kmeans: {k} groups of {n} items, expected 1 to {n}");
        ensure!(
            self.runs > 0 && self.steps > 0,
            "kmeans: {self:?}, expected a run and a step at least"
        );
        let x = &x - x.mean_dim([0i64].as_slice(), true, None); // distances lose less
        let squares = x.square().sum_dim_intlist([1i64].as_slice(), false, None);
        let variance = x.var_dim([0i64].as_slice(), false, false).mean(None).double_value(&[]);
        let rng = Rng::new(self.seed);
        let mut best: Option<Lloyd> = None;
        let mut draws: Vec<Rng> = (0..self.runs).map(|run| rng.fork(run as u64)).collect();
        for start in plus_plus(&x, &squares, k, &mut draws)? {
            check_interrupt()?;
            let own = self.lloyd(&x, &squares, start, self.tolerance * variance)?;
            if best.as_ref().is_none_or(|best| own.inertia() < best.inertia()) {
                best = Some(own);
            }
        }
        let best = best.unwrap_or_default();
        let history =
            Grid::of(&Tensor::from_slice(&best.history), &[Axis::Step], "squared distance")?;
        let groups = Clustering::new(&items, &best.groups)?
            .note("method", "k-means")
            .note("seed", &self.seed.to_string())
            .note("runs", &self.runs.to_string())
            .note("steps of the best run", &best.history.len().to_string());
        Ok((groups, history.name("inertia of the best run")))
    }

    fn lloyd(
        &self,
        x: &Tensor,
        squares: &Tensor,
        mut centers: Tensor,
        tolerance: f64,
    ) -> Result<Lloyd> {
        let mut run = Lloyd::default();
        let mut before: Option<Tensor> = None;
        let mut settled = false;
        for _ in 0..self.steps {
            let (groups, distances) = assign(x, squares, &centers);
            run.history.push(distances.sum(None).double_value(&[]));
            let same = before.as_ref().is_some_and(|before| before.equal(&groups));
            before = Some(groups.shallow_clone());
            run.groups = Vec::<i64>::try_from(&groups)?;
            if same || settled {
                break;
            }
            let next = updated(x, &run.groups, &distances, self.k as i64)?;
            let moved = (&next - &centers).square().sum(None).double_value(&[]);
            settled = moved <= tolerance; // one more assignment, to the means as they are
            centers = next;
        }
        Ok(run)
    }
}

/// One run: the groups, and the inertia before each step.
#[derive(Default)]
struct Lloyd {
    groups: Vec<i64>,
    history: Vec<f64>,
}

impl Lloyd {
    fn inertia(&self) -> f64 {
        self.history.last().copied().unwrap_or(f64::INFINITY)
    }
}

/// The nearest centre of each row, and its squared distance. The centres stand on the left of the
/// product: libtorch is nearly twice as fast that way round.
fn assign(x: &Tensor, squares: &Tensor, centers: &Tensor) -> (Tensor, Tensor) {
    let (n, k) = (x.size()[0], centers.size()[0]);
    let lengths = centers.square().sum_dim_intlist([1i64].as_slice(), true, None); // [k, 1]
    let doubled = centers * -2.0;
    let rows = (PIECE / k).clamp(1, n);
    let (mut groups, mut distances) = (Vec::new(), Vec::new());
    for start in (0..n).step_by(rows as usize) {
        let len = rows.min(n - start);
        // Less the row's own squared length, which does not change which is nearest.
        let (near, group) =
            lengths.addmm(&doubled, &x.narrow(0, start, len).tr()).min_dim(0, false);
        distances.push((near + squares.narrow(0, start, len)).clamp_min(0.0));
        groups.push(group);
    }
    (Tensor::cat(&groups, 0), Tensor::cat(&distances, 0))
}

/// Means of the groups; an empty one moves to the item farthest from its mean, which leaves its group.
fn updated(x: &Tensor, groups: &[i64], distances: &Tensor, k: i64) -> Result<Tensor> {
    let (sizes, centers) = means(x, groups, k);
    let sizes = Vec::<f64>::try_from(&sizes)?;
    let empty: Vec<usize> = (0..k as usize).filter(|group| sizes[*group] == 0.0).collect();
    if empty.is_empty() {
        return Ok(centers);
    }
    let far = Vec::<i64>::try_from(distances.topk(empty.len() as i64, 0, true, true).1)?;
    let mut groups = groups.to_vec();
    for (group, item) in empty.into_iter().zip(far) {
        groups[item as usize] = group as i64;
    }
    Ok(means(x, &groups, k).1)
}

/// `k` groups of items, or of the rows of a tensor, by k-means: ten k-means++ starts drawn from `seed`,
/// the best kept. Groups are numbered from the largest. For directions in the residual stream
/// take `items.unit()?` first.
///
/// ```
/// use thalweg::{Model, W, Items, kmeans};
/// let model = Model::load("data/models/tiny-world")?;
/// let groups = kmeans(Items::neurons(&model, 1)?.unit()?, 4, 0)?;
/// assert_eq!((groups.k(), groups.groups.len()), (4, model.config().d_mlp));
/// # thalweg::anyhow::Ok(())
/// ```
pub fn kmeans(items: impl Into<Items>, k: usize, seed: u64) -> Result<Clustering> {
    Ok(KMeans::new(k).seed(seed).run(items)?.0)
}

/// The nearest group mean of each row of `x`.
pub(super) fn nearest_center(x: &Tensor, centers: &Tensor) -> Result<Vec<i64>> {
    let squares = x.square().sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
    Ok(Vec::<i64>::try_from(&assign(x, &squares, centers).0)?)
}
