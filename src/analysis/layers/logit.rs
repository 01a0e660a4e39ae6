//! The logit lens: what the model would say if it stopped at a layer.
//!
//! nostalgebraist, "interpreting GPT: the logit lens" (2020),
//! <https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens>.
//!
//! Every rung of the residual stream goes through the final norm, its scale computed afresh from
//! that rung, and the unembedding. Early layers write in another basis, so that a lens there can
//! mislead; with tied embeddings they echo the input token.
//!
//! These are the questions of [`Lens::logit`] as functions; the rows are the rungs that the cache
//! holds: `Embed` (or `ResidPre` of layer 0), `ResidMid`, `ResidPost`.

use anyhow::Result;

use super::lens::Lens;
use super::top::{LensTop, LensTopK};
use crate::grid::Grid;
use crate::hook::cache::Cache;
use crate::hook::metric::{Answers, Metric};
use crate::model::Model;

/// Log-probability of an answer in nats, read off the residual stream at every layer and position:
/// `[Layer, Pos]`, or `[Batch, Layer, Pos]` for several prompts. Of a set of answers, the
/// log-probability of any of them. The row of the last `ResidPost` is what the model itself says.
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
    Lens::logit(model).log_prob(cache, answer)
}

/// Any metric of one position's logits, read off every rung at every position: `[Layer, Pos]`, or
/// `[Batch, Layer, Pos]`. `Metric::logit_diff(right, wrong)` gives logit differences. The metric's
/// own position does not count: [`lens_at`] looks there alone.
pub fn lens(model: &Model, cache: &Cache, metric: &Metric) -> Result<Grid> {
    Lens::logit(model).read(cache, metric)
}

/// A metric read off every rung at the metric's own position, such as a prompt set's role:
/// `[Layer]`, or `[Batch, Layer]`. What the metric would be if the layers above wrote nothing.
pub fn lens_at(model: &Model, cache: &Cache, metric: &Metric) -> Result<Grid> {
    Lens::logit(model).read_at(cache, metric)
}

/// How many ids each rung finds more likely than the answer, 0 for the most likely: `[Layer, Pos]`,
/// or `[Batch, Layer, Pos]`.
pub fn lens_rank(model: &Model, cache: &Cache, answer: impl Into<Answers>) -> Result<Grid> {
    Lens::logit(model).rank(cache, answer)
}

/// Entropy in nats of what each rung predicts: `[Layer, Pos]`, or `[Batch, Layer, Pos]`.
pub fn lens_entropy(model: &Model, cache: &Cache) -> Result<Grid> {
    Lens::logit(model).entropy(cache)
}

/// `KL(final || rung)` in nats, how far each rung's prediction is from the model's own:
/// `[Layer, Pos]`, or `[Batch, Layer, Pos]`; 0 in the last row. Needs `ResidPost` of the last layer,
/// or `Logits`.
pub fn lens_kl(model: &Model, cache: &Cache) -> Result<Grid> {
    Lens::logit(model).kl(cache)
}

/// The most likely next token at every rung and position of one prompt, with its probability.
pub fn lens_top(model: &Model, cache: &Cache) -> Result<LensTop> {
    Lens::logit(model).top(cache)
}

/// The `k` most likely next tokens at every rung and position, with their probabilities.
pub fn lens_top_k(model: &Model, cache: &Cache, k: usize) -> Result<LensTopK> {
    Lens::logit(model).top_k(cache, k)
}
