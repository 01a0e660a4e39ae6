//! What a metric loses with each head, neuron, position or layer taken out in turn.
//!
//! Zero and mean ablation as in Wang et al. 2022, <https://arxiv.org/abs/2211.00593>; resample
//! ablation as in Chan et al. 2022, "Causal scrubbing",
//! <https://www.alignmentforum.org/posts/JvZhhzycHu2Yd57RN>; removal of a subspace as in Ravfogel et
//! al. 2020, <https://arxiv.org/abs/2004.07667>. Zeros lie off the data's distribution: put mean or
//! resample ablation beside them. A mean belongs to the prompts it was taken over.

use anyhow::{Result, ensure};

use super::baseline::Ablation;
use crate::analysis::cells::{CHUNK, Cells, Swept};
use crate::grid::Grid;
use crate::hook::metric::Metric;
use crate::hook::plan::Plan;
use crate::hook::site::Axis;
use crate::hook::sites::Sites;
use crate::model::Model;
use crate::text::Tokens;

/// The change of a metric when each part of a point is ablated in turn: `[Layer, ..by]`, in the
/// metric's unit; 0 is the unedited run. Of several prompts or draws it is the mean, with its 95 %
/// interval over prompts, or over draws of one prompt.
///
/// `by` names the parts: `[Axis::Head]` of `Point::Z`, `[Axis::DMlp]` of `Point::MlpPost` for
/// neurons, `[Axis::Pos]` of any stream, both, or nothing for the whole of `Point::MlpOut`.
///
/// ```
/// use thalweg::{Ablation, Axis, Metric, Model, Point, ablation, repeated_tokens};
/// let model = Model::load("data/models/tiny-world")?;
/// let tokens = repeated_tokens(&model, 16, 12, 0)?;
/// let others = repeated_tokens(&model, 16, 12, 1)?;
/// let loss = Metric::loss_at(14..); // over the second copy
/// let heads = [Axis::Head];
/// let zero = ablation(&model, &tokens, Point::Z, &heads, &Ablation::zero(), &loss)?;
/// let drawn = Ablation::resample(&others, 4, 7);
/// let resampled = ablation(&model, &tokens, Point::Z, &heads, &drawn, &loss)?;
/// assert_eq!(zero.axes, resampled.axes);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn ablation(
    model: &Model,
    tokens: &Tokens,
    sites: impl Into<Sites>,
    by: &[Axis],
    how: &Ablation,
    metric: &Metric,
) -> Result<Grid> {
    let cells = Cells::new("ablation of", model.config(), tokens, (&sites.into(), by))?;
    let (name, last) = (cells.name(), cells.site(&[0]).axes().last());
    ensure!(
        !how.is_projection() || !by.iter().any(|axis| Some(axis) == last),
        "ablation of {name} by {by:?}: a projection takes the last axis whole; leave it out"
    );
    let (draws, origin) = how.draws(model, tokens, &cells.sites())?;
    let plan = |draw: usize, cell: &[usize]| {
        Ok(draws[draw].iter().fold(Plan::new(), |plan, intervention| {
            plan.intervene(cells.site(cell), cells.narrow(cell, intervention.clone()))
        }))
    };
    let swept = Swept::new((model, tokens, metric), (&cells, draws.len(), CHUNK), plan)?;
    let grid = swept.change().mean(false)?;
    let by: String = by.iter().map(|axis| format!(" by {axis}")).collect();
    Ok(grid
        .of_runs(origin)
        .name(&format!("change of {metric:?}, {name} ablated{by} ({})", how.label()))
        .note("ablation", how.label()))
}
