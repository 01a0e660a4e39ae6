//! The logit lens: what the model would say if it stopped at a layer.
//!
//! nostalgebraist, "interpreting GPT: the logit lens" (2020),
//! <https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens>.
//!
//! Every rung of the residual stream goes through the final norm, its scale computed afresh from
//! that rung, and the unembedding. Early layers write in another basis, so that a lens there can
//! mislead; with tied embeddings they echo the input token.

use std::fmt;

use anyhow::{Result, bail, ensure};
use ndarray::Array2;
use tch::{Kind, Tensor};

use super::frame;
use crate::grid::Grid;
use crate::hook::cache::Cache;
use crate::hook::metric::{Answers, Metric};
use crate::hook::site::{Axis, Point};
use crate::model::Model;
use crate::show::progress;

/// Log-probability of an answer in nats, read off the residual stream at every layer and position:
/// `[Layer, Pos]`, or `[Batch, Layer, Pos]` for several prompts. Of a set of answers, the
/// log-probability of any of them.
///
/// The rows are the rungs that the cache holds: `Embed` (or `ResidPre` of layer 0), `ResidMid`,
/// `ResidPost`; that of the last `ResidPost` is what the model itself says.
///
/// ```no_run
/// use thalweg::{Model, Plan, Point, logit_lens};
/// let model = Model::load("data/models/tiny-world")?;
/// let tokens = model.tokens("When Mary and John went to the store , John gave a drink to")?;
/// let run = model.run(&tokens, &Plan::new().cache(Point::ResidPost))?;
/// let lens = logit_lens(&model, &run.cache, model.token("Mary")?)?;
/// assert_eq!(lens.shape(), [model.config().n_layers, tokens.width()]);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn logit_lens(model: &Model, cache: &Cache, answer: impl Into<Answers>) -> Result<Grid> {
    let answer = answer.into();
    let of = answer.row(0).iter().map(|id| format!("{:?}", model.piece(*id)));
    let of = of.collect::<Vec<_>>().join(" or ");
    let name = match answer.is_one() {
        true => format!("logit lens of {of}"),
        false => "logit lens of each row's answer".to_owned(),
    };
    let grid = lens(model, cache, &Metric::log_prob(answer))?.name(&name);
    Ok(grid.unit("nats (log-probability)"))
}

/// Any metric of one position's logits, read off every rung at every position: `[Layer, Pos]`, or
/// `[Batch, Layer, Pos]`. `Metric::rank(answer)` gives ranks, `Metric::logit_diff(right, wrong)`
/// logit differences. The metric's own position does not count: [`lens_at`] looks
/// there alone.
pub fn lens(model: &Model, cache: &Cache, metric: &Metric) -> Result<Grid> {
    ensure!(
        metric.position().is_some(),
        "lens: {metric:?} looks at all positions together, expected a metric of one position's logits"
    );
    let grid = read(model, cache, metric.unit(), |logits| {
        let columns = (0..logits.size()[1]).map(|column| metric.of_row(&logits.select(1, column)));
        Ok(Tensor::stack(&columns.collect::<Result<Vec<_>>>()?, 1))
    })?;
    Ok(grid.name(&format!("lens: {metric:?}")))
}

/// A metric read off every rung at the metric's own position, such as a prompt set's role:
/// `[Layer]`, or `[Batch, Layer]`. What the metric would be if the layers above wrote nothing.
pub fn lens_at(model: &Model, cache: &Cache, metric: &Metric) -> Result<Grid> {
    let Some(position) = metric.position() else {
        bail!("lens_at: {metric:?} looks at many positions, expected a metric of one");
    };
    let tokens = cache.tokens();
    let (mut labels, mut values) = (Vec::new(), Vec::new());
    for (label, site) in progress(frame::rungs(cache)?, "lens").unit("rungs") {
        let x = frame::at_position(&cache.get(site)?, tokens, position)?; // [Batch, DModel]
        values.push(metric.of_row(&model.unembed(&x)?)?);
        labels.push(label);
    }
    let values = Tensor::stack(&values, 1);
    let grid = frame::batched(cache, &values, &[(Axis::Layer, labels)], metric.unit())?;
    Ok(grid.name(&format!("lens: {metric:?}")).note("model", &format!("{model:?}")))
}

/// Entropy in nats of what each rung predicts: `[Layer, Pos]`, or `[Batch, Layer, Pos]`.
pub fn lens_entropy(model: &Model, cache: &Cache) -> Result<Grid> {
    let grid = read(model, cache, "nats", |logits| {
        let log_probs = logits.log_softmax(-1, Kind::Double);
        Ok(-sum_vocab(log_probs.exp() * log_probs))
    })?;
    Ok(grid.name("lens: entropy of the prediction"))
}

/// `KL(final || rung)` in nats, how far each rung's prediction is from the model's own:
/// `[Layer, Pos]`, or `[Batch, Layer, Pos]`; 0 in the last row. Needs `ResidPost` of the last layer.
pub fn lens_kl(model: &Model, cache: &Cache) -> Result<Grid> {
    let last = cache.get(Point::ResidPost.at(cache.n_layers().saturating_sub(1)))?;
    let target = model.unembed(&last)?.log_softmax(-1, Kind::Double);
    let grid = read(model, cache, "nats", |logits| {
        let log_probs = logits.log_softmax(-1, Kind::Double);
        Ok(sum_vocab(target.exp() * (&target - log_probs)))
    })?;
    Ok(grid.name("lens: KL from the model's prediction"))
}

/// What each rung of one prompt finds most likely.
#[derive(Clone)]
pub struct LensTop {
    /// Probability of the most likely token: `[Layer, Pos]`, 0..1.
    pub prob: Grid,
    /// That token, to be written into the cells.
    pub pieces: Array2<String>,
}

/// One line: that of the probabilities.
impl fmt::Debug for LensTop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.prob, f)
    }
}

/// The most likely next token at every rung and position of one prompt, with its probability.
pub fn lens_top(model: &Model, cache: &Cache) -> Result<LensTop> {
    let batch = cache.tokens().batch();
    ensure!(batch == 1, "lens_top: {batch} prompts, expected one: take it with cache.row(0)");
    let mut pieces = Vec::new();
    let prob = read(model, cache, "probability", |logits| {
        let (prob, ids) = logits.softmax(-1, Kind::Double).max_dim(-1, false);
        pieces.extend(Vec::<i64>::try_from(ids.flatten(0, -1))?.iter().map(|id| model.piece(*id)));
        Ok(prob)
    })?;
    let shape = (prob.shape()[0], prob.shape()[1]);
    Ok(LensTop {
        prob: prob.name("lens: most likely token"),
        pieces: Array2::from_shape_vec(shape, pieces)?,
    })
}

/// Unembeds each rung, one after the other, and reduces its logits `[Batch, Pos, Vocab]` to
/// `[Batch, Pos]`.
fn read(
    model: &Model,
    cache: &Cache,
    unit: &str,
    mut reduce: impl FnMut(&Tensor) -> Result<Tensor>,
) -> Result<Grid> {
    let (mut labels, mut values) = (Vec::new(), Vec::new());
    for (label, site) in progress(frame::rungs(cache)?, "lens").unit("rungs") {
        values.push(reduce(&model.unembed(&cache.get(site)?)?)?);
        labels.push(label);
    }
    let grid = frame::by_position(cache, labels, &values, unit)?;
    Ok(grid.note("model", &format!("{model:?}")))
}

fn sum_vocab(x: Tensor) -> Tensor {
    x.sum_dim_intlist([-1i64].as_slice(), false, None)
}
