//! Distributed alignment search: the subspace in which a model keeps a causal variable.
//!
//! Geiger et al. 2023, <https://arxiv.org/abs/2303.02536>: the rows of `R` are learned by gradient, so
//! that putting the source's part of an activation into the base makes the model say what the causal
//! model says. A subspace that works on held-out words, and much better than the controls, is where
//! the variable is; one that also works with shuffled labels says nothing.

use std::fmt;

use anyhow::{Result, ensure};
use tch::{Reduction, Tensor};

use super::interchange::{InterchangePairs, Subspace, fits, interchange, orthonormal, vectors};
use crate::grid::Grid;
use crate::hook::plan::Plan;
use crate::hook::site::{Axis, Site};
use crate::index::Position;
use crate::model::{AdamW, Model};
use crate::rng::Rng;
use crate::show::progress;

/// Random subspaces beside the one learned.
const RANDOM: u64 = 20;

/// Where a variable is looked for, and how long.
///
/// ```
/// use thalweg::{Das, Point};
/// let das = Das { steps: 100, ..Das::new(Point::ResidPost.at(1), -1, 2, 7) };
/// assert_eq!(das.k, 2);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Das {
    /// The site.
    pub site: Site,
    /// The token, in base and source.
    pub position: Position,
    /// Dimensions of the subspace.
    pub k: usize,
    /// Optimizer steps.
    pub steps: usize,
    /// Pairs in a step.
    pub batch: usize,
    /// Learning rate, down to zero in the second half.
    pub rate: f64,
    /// Decides the first rows, the batches and the controls.
    pub seed: u64,
}

impl Das {
    /// 200 steps of 32 pairs at a rate of 0.02.
    pub fn new(site: impl Into<Site>, position: impl Into<Position>, k: usize, seed: u64) -> Self {
        let (site, position) = (site.into(), position.into());
        Das { site, position, k, steps: 200, batch: 32, rate: 0.02, seed }
    }

    /// Learns the subspace from pairs; returns the loss (cross-entropy of the label, nats) of each
    /// step too, `[Step]`.
    pub fn fit(&self, model: &Model, pairs: &InterchangePairs) -> Result<(Subspace, Grid)> {
        let d = fits(model, self.site, -1)?;
        let (k, n) = (self.k, pairs.len());
        ensure!(k <= d, "DAS at {}: {k} dimensions of {d}", self.site);
        ensure!(n > 0 && self.batch > 0 && self.steps > 0, "DAS: {n} pairs, {self:?}");
        pairs.check(model)?;
        let mut rng = Rng::new(self.seed);
        let first = Subspace::random(self.site, self.position.clone(), (k, d), rng.bits())?;
        if k == 0 {
            return Ok((first, curve(&[])?));
        }
        let rows = first.rows.to_device(model.device()).set_requires_grad(true);
        let mut optimizer = AdamW::new(vec![rows.shallow_clone()]);
        optimizer.decay = 0.0;
        let source = vectors(model, &pairs.source, self.site, &self.position)?;
        let mut losses = Vec::new();
        for step in progress(0..self.steps, "DAS").unit("steps") {
            let chosen = rng.sample(n, self.batch);
            let index: Vec<i64> = chosen.iter().map(|row| *row as i64).collect();
            let index = Tensor::from_slice(&index).to_device(source.device());
            let (own, part) = (source.index_select(0, &index), pairs.rows(&chosen)?);
            let basis = tch::with_grad(|| orthonormal(&rows));
            let change = interchange(&basis, &own, &self.position);
            let plan = Plan::new().intervene(self.site, change).logits_at(-1).differentiable();
            let logits = model.run(&part.base, &plan)?.logits.squeeze_dim(1);
            let labels = Tensor::from_slice(&part.labels).to_device(logits.device());
            let loss = tch::with_grad(|| {
                let none = None::<Tensor>;
                logits.cross_entropy_loss(&labels, none, Reduction::Mean, -100, 0.0)
            });
            let left = 1.0 - step as f64 / self.steps as f64;
            optimizer.step(&loss, self.rate * (2.0 * left).min(1.0))?;
            let _guard = tch::no_grad_guard();
            rows.detach().copy_(&orthonormal(&rows));
            losses.push(loss.double_value(&[]));
        }
        let rows = rows.detach().to_device(tch::Device::Cpu);
        let found = Subspace::new(self.site, self.position.clone(), &rows)?;
        Ok((found, curve(&losses)?.note("seed", &self.seed.to_string())))
    }

    /// Learns the subspace and its controls from `train`, and measures all of them on `held_out`,
    /// which should share no words with it: [`InterchangePairs::split`].
    pub fn study(
        &self,
        model: &Model,
        train: &InterchangePairs,
        held_out: &InterchangePairs,
    ) -> Result<DasStudy> {
        let d = fits(model, self.site, -1)?;
        let (subspace, loss) = self.fit(model, train)?;
        let mut rng = Rng::new(self.seed).fork(1);
        let mut random = Vec::new();
        for _ in 0..RANDOM {
            let drawn =
                Subspace::random(self.site, self.position.clone(), (self.k, d), rng.bits())?;
            random.push(drawn.iia(model, held_out)?);
        }
        let (fooled, _) = self.fit(model, &train.shuffled(rng.bits()))?;
        let untrained = model.shuffled(self.seed)?;
        let (elsewhere, _) = self.fit(&untrained, train)?;
        let simple = |k| Subspace::random(self.site, self.position.clone(), (k, d), 0);
        let mean = random.iter().sum::<f64>() / random.len() as f64;
        let list = [
            ("learned", subspace.iia(model, held_out)?),
            ("learned, training pairs", subspace.iia(model, train)?),
            ("random subspaces", mean),
            ("shuffled labels", fooled.iia(model, held_out)?),
            ("shuffled weights", elsewhere.iia(&untrained, held_out)?),
            ("whole vector", simple(d)?.iia(model, held_out)?),
            ("no intervention", simple(0)?.iia(model, held_out)?),
        ];
        let iia = accuracies(&list, held_out.len(), train.len())?
            .note("site", &self.site.to_string())
            .note("k", &self.k.to_string())
            .note("seed", &self.seed.to_string());
        Ok(DasStudy { subspace, iia, random, loss })
    }
}

/// What [`Das::study`] found.
#[derive(Clone)]
#[non_exhaustive]
pub struct DasStudy {
    /// The subspace learned.
    pub subspace: Subspace,
    /// Interchange intervention accuracy on held-out pairs, 0..1, with Wilson's 95 % interval: of the
    /// subspace (also on its training pairs), the mean of random ones of the same size, those learned
    /// from shuffled labels and in a model with shuffled weights, the whole vector, and no
    /// intervention: `[Series]`.
    pub iia: Grid,
    /// Accuracies of the random subspaces, each.
    pub random: Vec<f64>,
    /// Loss of each training step in nats: `[Step]`.
    pub loss: Grid,
}

/// One line: the accuracies.
impl fmt::Debug for DasStudy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DAS, {:?}: IIA", self.subspace)?;
        let each = self.iia.axes[0].labels.iter().zip(&self.iia.values);
        for (i, (label, value)) in each.enumerate() {
            write!(f, "{} {label} {value:.3}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

fn curve(losses: &[f64]) -> Result<Grid> {
    let values = ndarray::Array1::from(losses.to_vec());
    Ok(Grid::from_array(values, &[Axis::Step], "nats")?.name("DAS: loss of each step"))
}

/// Shares with Wilson's interval; the one of the training pairs counts those.
fn accuracies(list: &[(&str, f64)], held_out: usize, train: usize) -> Result<Grid> {
    let names: Vec<&str> = list.iter().map(|(name, _)| *name).collect();
    let values = ndarray::Array1::from_iter(list.iter().map(|(_, value)| *value));
    let n = |name: &str| if name.ends_with("training pairs") { train } else { held_out };
    let bounds: Vec<(f64, f64)> = list.iter().map(|(name, p)| wilson(*p, n(name))).collect();
    let bound = |pick: fn(&(f64, f64)) -> f64| {
        ndarray::Array1::from_iter(bounds.iter().map(pick)).into_dyn()
    };
    Grid::from_array(values, &[Axis::Series], "share of pairs")?
        .relabel(Axis::Series, &names)?
        .interval(bound(|b| b.0), bound(|b| b.1), "Wilson's 95 % interval over pairs")
        .map(|grid| grid.name("interchange intervention accuracy").n(held_out))
}

/// Wilson's interval of a share `p` of `n`.
fn wilson(p: f64, n: usize) -> (f64, f64) {
    let (z, n) = (1.959_963_984_540_054, n as f64);
    let centre = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half = z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    ((centre - half).max(0.0), (centre + half).min(1.0))
}
