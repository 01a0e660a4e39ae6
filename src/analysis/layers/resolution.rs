//! Where a prediction is settled: the first rung from which on a token stays the most likely.
//!
//! The measure behind "the model knows by layer k"; as prediction depth in Belrose et al. 2023,
//! <https://arxiv.org/abs/2303.08112>, section 4.

use anyhow::{Result, ensure};
use tch::Tensor;

use super::lens::Lens;
use crate::grid::Grid;
use crate::hook::cache::Cache;
use crate::hook::metric::Answers;
use crate::hook::site::{Axis, Point, Site};
use crate::model::Model;

/// Blocks passed before the logit lens first finds the answer the most likely token, alone, and
/// from where on it stays so up to the last rung: `[Pos]`, or `[Batch, Pos]` for several prompts.
///
/// 0 is the embedding, 1 the end of layer 0; between attention and MLP of layer `l` stands
/// `l + 0.5`, where `ResidMid` is cached. Missing where the answer is not the model's own most likely
/// token, for then it is never settled. Needs `ResidPost` of the last layer.
///
/// ```no_run
/// # use thalweg::{Model, Plan, Point, Sites, lens_resolution};
/// let model = Model::load("data/models/tiny-world")?;
/// let tokens = model.tokens("The capital of France is")?;
/// let run = model.run(&tokens, &Plan::new().cache([Point::ResidPre, Point::ResidPost]))?;
/// let resolved = lens_resolution(&model, &run.cache, model.token("Paris")?)?;
/// assert!(resolved.at(&[-1])? >= 1.0); // no embedding knows a capital
/// # thalweg::anyhow::Ok(())
/// ```
pub fn lens_resolution(model: &Model, cache: &Cache, answer: impl Into<Answers>) -> Result<Grid> {
    Lens::logit(model).resolution(cache, answer)
}

/// [`lens_resolution`] of what the model itself says at each position: how early it is settled.
pub fn lens_settled(model: &Model, cache: &Cache) -> Result<Grid> {
    Lens::logit(model).settled(cache)
}

impl Lens {
    /// Blocks passed before this lens first finds the answer the most likely token, and from where
    /// on it stays so: see [`lens_resolution`].
    pub fn resolution(&self, cache: &Cache, answer: impl Into<Answers>) -> Result<Grid> {
        let answer = answer.into();
        ends_at_the_top(cache)?;
        let name = format!("{}: where {} is settled", self.title(), self.naming(&answer));
        answer.check(cache.tokens().batch(), self.model().config().d_vocab as i64)?;
        let beaten = self.each(cache, "", |logits| {
            let row = |row: i64| {
                let ids = Tensor::from_slice(answer.row(row as usize)).to_device(logits.device());
                beaten(&logits.get(row), &ids)
            };
            Ok(Tensor::stack(&(0..logits.size()[0]).map(row).collect::<Vec<_>>(), 0))
        })?;
        Ok(first_to_stay(&beaten, &self.depths(cache)?)?.name(&name))
    }

    /// Blocks passed before the lens says what the model says, and from where on it stays so, at each
    /// position: `[Pos]`, or `[Batch, Pos]`.
    pub fn settled(&self, cache: &Cache) -> Result<Grid> {
        ends_at_the_top(cache)?;
        let own = self.said(cache)?.argmax(-1, true); // [Batch, Pos, 1]
        let beaten = self.each(cache, "", |logits| {
            let rivals = logits.scatter_value(2, &own, f64::NEG_INFINITY).amax([-1i64], false);
            Ok(rivals.ge_tensor(&logits.gather(2, &own, false).squeeze_dim(2)))
        })?;
        let name = format!("{}: where the prediction is settled", self.title());
        Ok(first_to_stay(&beaten, &self.depths(cache)?)?.name(&name))
    }

    fn depths(&self, cache: &Cache) -> Result<Vec<f64>> {
        Ok(self.rungs(cache)?.0.into_iter().map(|(_, site)| depth(site)).collect())
    }
}

fn ends_at_the_top(cache: &Cache) -> Result<()> {
    let last = Point::ResidPost.at(cache.n_layers().saturating_sub(1));
    ensure!(
        cache.contains(last),
        "lens_resolution: {last} was not cached, and only there it is known what stays: plan.cache(Point::ResidPost)"
    );
    Ok(())
}

/// Blocks passed at a place of the stream.
fn depth(site: Site) -> f64 {
    match site {
        Site::Block(layer, Point::ResidMid) => layer as f64 + 0.5,
        Site::Block(layer, Point::ResidPost) => layer as f64 + 1.0,
        Site::Block(layer, _) => layer as f64,
        _ => 0.0,
    }
}

/// Whether an id outside `ids` is as likely as the likeliest of them, `[Pos, Vocab]` -> `[Pos]`: where
/// all are equally likely none is settled.
fn beaten(logits: &Tensor, ids: &Tensor) -> Tensor {
    let own = logits.index_select(1, ids).amax([-1i64], false);
    let rivals = logits.index_fill(1, ids, f64::NEG_INFINITY).amax([-1i64], false);
    rivals.ge_tensor(&own)
}

/// Reduces marks `[.., Layer, Pos]`, 1 where the answer is beaten, to the depth of the first rung from
/// which on it is not.
fn first_to_stay(beaten: &Grid, depths: &[f64]) -> Result<Grid> {
    let names = beaten.labels(Axis::Layer)?.join(", ");
    let layers = beaten.move_axis(Axis::Layer, 0)?;
    let mut grid = layers.select(Axis::Layer, -1)?.unit("blocks passed");
    grid.provenance.remove(&Axis::Layer.to_string());
    grid.values.fill(f64::NAN);
    let mut open = grid.values.mapv(|_| true);
    for (beaten, depth) in layers.values.outer_iter().zip(depths).rev() {
        let cells = ndarray::Zip::from(&mut grid.values).and(&mut open).and(&beaten);
        cells.for_each(|value, open, beaten| {
            *open &= *beaten == 0.0;
            if *open {
                *value = *depth;
            }
        });
    }
    Ok(grid.missing_where(f64::is_nan).note("rungs", &names))
}
