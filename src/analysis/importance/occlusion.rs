//! Occlusion: what a metric loses when one token at a time is kept from it.
//!
//! Zeiler and Fergus 2014, <https://arxiv.org/abs/1311.2901>, by replacement; by cutting attention as
//! in Geva et al. 2023, <https://arxiv.org/abs/2304.14767>, at every layer and from every later token.
//!
//! No token is deleted: every other keeps its position, for deletion would turn all that RoPE says.
//! What a replacement shows depends on what is put in: zeros are off the distribution, a neutral word
//! or the mean embedding less so.

use anyhow::{Result, anyhow};
use tch::{Kind, Tensor};

use super::methods::missing_from;
use crate::analysis::cells::{CHUNK, Cells, Swept};
use crate::grid::Grid;
use crate::hook::intervention::Intervention;
use crate::hook::metric::Metric;
use crate::hook::plan::Plan;
use crate::hook::site::{Axis, Point, Site};
use crate::model::{Model, W};
use crate::text::Tokens;

/// Bytes that the masks of the plans of one sweep may take together.
pub(super) const MASKS: usize = 1 << 28;

/// How a token is kept from the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Occlusion {
    /// No later token attends to it, in any layer: the same as removing it with every other token
    /// in its place.
    AttentionCut,
    /// This token's embedding stands in its place.
    Token(i64),
    /// The mean of all embeddings stands in its place.
    MeanEmbedding,
}

/// What the metric loses without each token, the metric of the prompt less that with the token
/// occluded: `[Pos]`, or `[Batch, Pos]` for several prompts, in the metric's unit. Above 0 the token
/// speaks for what the metric asks.
///
/// An attention cut keeps a token from later ones alone, so that for the token at which the metric
/// looks, and those after it, it has nothing to say: they are missing. One run of the model a token.
///
/// ```
/// use thalweg::{Metric, Model, Occlusion, occlusion};
/// let model = Model::load("data/models/tiny-world")?;
/// let tokens = model.tokens("The capital of France is")?;
/// let metric = Metric::logit_diff(model.token("Paris")?, model.token("Madrid")?);
/// let lost = occlusion(&model, &tokens, &metric, &Occlusion::AttentionCut)?;
/// assert_eq!(lost.top(1).axes[0].labels, ["France"]);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn occlusion(model: &Model, tokens: &Tokens, metric: &Metric, how: &Occlusion) -> Result<Grid> {
    let swept = match how.embedding(model)? {
        None => cut(model, tokens, metric)?,
        Some(vector) => replaced(model, tokens, metric, &vector)?,
    };
    let base = swept.base.clone();
    let mut grid = swept.map(|value, _, row| base[row] - value).mean(true)?;
    for own in ["draws", "Series"] {
        grid.provenance.remove(own);
    }
    if *how == Occlusion::AttentionCut {
        grid = missing_from(grid, tokens, &metric.places(tokens)?, 0)?;
    }
    let pieces = || tokens.pieces()[0].join("|");
    let grid = match tokens.batch() {
        1 => grid.note("prompt", &pieces()),
        n => grid.note("prompts", &n.to_string()),
    };
    Ok(grid.name(&format!("occlusion, {}", how.label(model))))
}

impl Occlusion {
    /// What stands in a token's place, `[DModel]`; absent: it is cut off.
    pub(super) fn embedding(&self, model: &Model) -> Result<Option<Tensor>> {
        Ok(match self {
            Occlusion::AttentionCut => None,
            Occlusion::Token(id) => {
                let own = Tokens::from_ids(&[vec![*id]]).and_then(|ids| model.embed(&ids));
                let own = own.map_err(|error| anyhow!("occlusion: the token put in: {error:#}"))?;
                Some(own.view([-1]))
            }
            Occlusion::MeanEmbedding => {
                let all = model.weight(W::E, 0)?;
                let mean = all.mean_dim([0i64].as_slice(), false, Kind::Double);
                Some(mean.to_kind(model.kind()))
            }
        })
    }

    /// "attention cut", "mean embedding put in", ...
    pub(super) fn label(&self, model: &Model) -> String {
        match self {
            Occlusion::AttentionCut => "attention cut".to_owned(),
            Occlusion::Token(id) => format!("{:?} put in", model.piece(*id)),
            Occlusion::MeanEmbedding => "mean embedding put in".to_owned(),
        }
    }
}

/// One token's embedding replaced a plan.
fn replaced(model: &Model, tokens: &Tokens, metric: &Metric, by: &Tensor) -> Result<Swept> {
    let cells =
        Cells::new("occlusion of", model.config(), tokens, (&Site::Embed.into(), &[Axis::Pos]))?;
    let put_in = Intervention::set(by);
    let plan = |_, cell: &[usize]| {
        Ok(Plan::new().intervene(Site::Embed, cells.narrow(cell, put_in.clone())))
    };
    Swept::new((model, tokens, metric), (&cells, 1, CHUNK), plan)
}

/// One token a plan that no later one attends to.
fn cut(model: &Model, tokens: &Tokens, metric: &Metric) -> Result<Swept> {
    let config = model.config();
    let cells = Cells::new("occlusion of", config, tokens, (&Site::Embed.into(), &[Axis::Pos]))?;
    let (batch, width) = (tokens.batch(), tokens.width());
    let chunk = (MASKS / (config.n_layers * batch * width * width)).clamp(1, CHUNK);
    let plan = |_, cell: &[usize]| {
        // Rows end together: counted from the end a column is the same place in every row.
        let back = (width - cell[cell.len() - 1]) as i64;
        let rows: Vec<usize> =
            (0..batch).filter(|row| tokens.ids()[*row].len() as i64 >= back).collect();
        if back == 1 {
            return Ok(Plan::new()); // nothing comes after the last
        }
        let cut = Intervention::knockout(1 - back.., -back);
        let cut = if rows.len() < batch { cut.batch(rows) } else { cut };
        Ok(Plan::new().intervene(Point::Scores, cut))
    };
    Swept::new((model, tokens, metric), (&cells, 1, chunk), plan)
}
