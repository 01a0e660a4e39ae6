//! Principal components that keep their axes from one layer to the next.
//!
//! Signs of components are arbitrary, components of like variance change places, and a picture with
//! a slider over layers then jumps though nothing moved. Aligned, the points of one layer lie as near
//! to those of the layer before as signs, or a rotation, allow: orthogonal Procrustes, Schönemann
//! 1966, <https://doi.org/10.1007/BF02289451>.

use anyhow::{Context, Result, ensure};
use ndarray::Array2;
use tch::{Kind, Tensor};

use super::pca::{Pca, pca};
use crate::grid::Grid;
use crate::hook::cache::Cache;
use crate::hook::site::{Axis, Point};
use crate::show::progress;

/// What may be done to components so that they agree with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alignment {
    /// Only signs change: each component stays one of greatest variance.
    Signs,
    /// Any rotation or reflection within the components: the plane (or space) stays, and with it the
    /// distances between scores and the variance of all together, but its axes are no longer those of greatest
    /// variance, and scores along them may be correlated.
    Procrustes,
}

impl Pca {
    /// The same decomposition with axes that agree with those of `reference`, a decomposition of
    /// the same points in the same order (the same tokens at another layer). Dimensions may
    /// differ; the number of components may not.
    ///
    /// ```
    /// use thalweg::{Alignment, pca_of, rng::Rng};
    /// let x = Rng::new(1).normal_tensor(&[20, 5]);
    /// let (a, b) = (pca_of(&x, 2)?, pca_of(&(-&x), 2)?);
    /// let b = b.aligned(&a, Alignment::Signs)?;
    /// assert!((a.scores.values[[0, 0]] - b.scores.values[[0, 0]]).abs() < 1e-9);
    /// # thalweg::anyhow::Ok(())
    /// ```
    pub fn aligned(&self, reference: &Pca, how: Alignment) -> Result<Pca> {
        let (own, theirs) = (scores(self)?, scores(reference)?);
        ensure!(
            own.size() == theirs.size(),
            "aligned: the scores are {:?} and those of the reference {:?}, expected the same points and components",
            own.size(),
            theirs.size()
        );
        ensure!(own.size()[0] > 0, "aligned: these components have no scores to align by");
        let cross = own.tr().matmul(&theirs); // [own Pc, reference Pc]
        let turn = match how {
            Alignment::Signs => {
                let signs = cross.diagonal(0, 0, 1).sign();
                (signs.eq(0.0).to_kind(Kind::Double) + signs).diag(0)
            }
            Alignment::Procrustes => {
                let (u, _, v) = cross.f_svd(true, true)?;
                u.matmul(&v.tr())
            }
        };
        self.turned(&turn)
    }

    /// Components and scores multiplied by an orthogonal matrix `[Pc, new Pc]`.
    fn turned(&self, turn: &Tensor) -> Result<Pca> {
        let mut pca = self.clone();
        let device = self.components.device();
        pca.components = turn.tr().to_device(device).matmul(&self.components);
        let variance =
            Tensor::from_slice(&self.variance.values.iter().copied().collect::<Vec<_>>());
        let along = turn.square().tr().mv(&variance); // diagonal of turnᵀ diag(variance) turn
        let along = Vec::<f64>::try_from(&along)?;
        let turned = scores(self)?.matmul(turn).contiguous();
        let k = along.len();
        let values = Vec::<f64>::try_from(turned.view([-1]))?;
        pca.scores.values = Array2::from_shape_vec((values.len() / k, k), values)?.into_dyn();
        for (i, value) in along.iter().enumerate() {
            pca.variance.values[[i]] = *value;
            pca.explained.values[[i]] = value / self.total;
        }
        let names: Vec<String> = pca.explained.values.iter().enumerate().map(named).collect();
        pca.scores = pca.scores.relabel(Axis::Pc, &names)?.note("signs", "aligned to a reference");
        Ok(pca)
    }
}

fn named((i, share): (usize, &f64)) -> String {
    format!("PC{} ({:.1} %)", i + 1, 100.0 * share)
}

/// The scores, `[points, Pc]`.
fn scores(pca: &Pca) -> Result<Tensor> {
    let shape: Vec<i64> = pca.scores.shape().iter().map(|len| *len as i64).collect();
    let values: Vec<f64> = pca.scores.values.iter().copied().collect();
    Ok(Tensor::from_slice(&values).f_view(&shape[..])?)
}

/// The first `k` principal components of a place in every block, each layer's aligned to those of
/// the layer below: the decompositions, and their scores in one grid `[Layer, Pos, Pc]` (`Series` in
/// place of `Pos` for several prompts) that keeps its axes over the layers. Tokens are left out as
/// by [`pca`](crate::pca). The labels of `Pc` give no variance, for each layer has its own.
///
/// ```no_run
/// use thalweg::{Alignment, Axis, Model, Plan, Point, pca_layers, scatter};
/// let model = Model::load("data/models/tiny-world")?;
/// let run = model.run(&model.tokens("Mary and John went to the store")?, &Plan::new().cache(Point::ResidPost))?;
/// let (layers, scores) = pca_layers(&run.cache, Point::ResidPost, 2, Alignment::Procrustes)?;
/// assert_eq!(layers.len(), scores.shape()[0]);
/// let first = scatter(&scores.select(Axis::Layer, 0)?)?;
/// # thalweg::anyhow::Ok(())
/// ```
pub fn pca_layers(
    cache: &Cache,
    point: Point,
    k: usize,
    how: Alignment,
) -> Result<(Vec<Pca>, Grid)> {
    let held: Vec<usize> =
        (0..cache.n_layers()).filter(|layer| cache.contains(point.at(*layer))).collect();
    let mut layers: Vec<Pca> = Vec::new();
    for layer in progress(held.clone(), "pca").unit("layers") {
        let own = pca(cache, point.at(layer), k)?;
        layers.push(match layers.last() {
            Some(below) => own.aligned(below, how)?,
            None => own,
        });
    }
    let first = layers.first().with_context(|| {
        format!("pca_layers: the cache holds no {point:?}: plan.cache(Point::{point:?})")
    })?;
    let points = first.scores.axes[0].clone();
    let stacked: Vec<f64> =
        layers.iter().flat_map(|pca| pca.scores.values.iter().copied()).collect();
    let values = Tensor::from_slice(&stacked).view([layers.len() as i64, -1, k as i64]);
    let axes = [
        (Axis::Layer, held.iter().map(|layer| format!("L{layer}")).collect()),
        (points.axis, points.labels),
        (Axis::Pc, (1..=k).map(|i| format!("PC{i}")).collect()),
    ];
    let grid = Grid::from_tensor(&values, &axes, "activation")?
        .of_runs(cache.origin().cloned())
        .name(&format!("PCA of {point:?}, aligned from layer to layer"))
        .note("alignment", &format!("{how:?}"));
    Ok((layers, grid))
}
