//! Which input tokens matter: gradient times input, and integrated gradients.
//!
//! Sundararajan, Taly & Yan 2017, "Axiomatic Attribution for Deep Networks",
//! <https://arxiv.org/abs/1703.01365>.
//!
//! A gradient says what a small change would do, and is 0 where the model has saturated. Integrated
//! gradients add it up along the straight line from a baseline to the prompt, so that the parts
//! must add up to the whole difference of the metric: how far they miss it is their error, and is
//! reported. What they say depends on the baseline; a corrupted prompt asks the sharpest question.

use anyhow::{Context, Result, ensure};
use tch::{Kind, Tensor};

use super::{noted, sum_to, value};
use crate::analysis::frame;
use crate::analysis::patching::check_pair;
use crate::grid::Grid;
use crate::hook::cache::Cache;
use crate::hook::freeze::Freeze;
use crate::hook::intervention::Intervention;
use crate::hook::metric::Metric;
use crate::hook::plan::Plan;
use crate::hook::site::{Axis, Site};
use crate::model::{Model, W};
use crate::show::progress;
use crate::text::Tokens;

/// Steps that integrated gradients begin with.
const FIRST: usize = 16;
/// Steps they give up at; in half precision rounding is what is left after fewer.
const LAST: (usize, usize) = (2048, 64);
/// Steps of Newton's method for each place of the rule.
const NEWTON: usize = 12;
/// Completeness error they aim at, as a share of the metric's difference.
const GOOD_ENOUGH: f64 = 0.01;
/// An error this small beside the shares of the tokens is rounding, in f64 and in less: no further
/// step helps. Where tokens cancel, it may still be a large share of the difference.
const ROUNDING: (f64, f64) = (1e-9, 1e-5);

/// Gradient of the metric times embedding, summed over each token's dimensions: `[Pos]`, or
/// `[Batch, Pos]` for several prompts, in the metric's unit.
///
/// With `Some(Freeze::Linear)` or `Some(Freeze::RelP)` the tokens add up to a logit exactly (less
/// the biases' share, where the model has any); without, they need not add up to anything.
pub fn gradient_times_input(
    model: &Model,
    tokens: &Tokens,
    metric: &Metric,
    freeze: Option<Freeze>,
) -> Result<Grid> {
    let plan = Plan::new().cache(Site::Embed).gradients(metric.clone());
    let plan = freeze.into_iter().fold(plan, Plan::freeze_own);
    let run = model.run(tokens, &plan)?;
    let gradients = run.gradients.context("the plan asks for gradients")?;
    let products = gradients.get(Site::Embed)? * run.cache.get(Site::Embed)?;
    let name = match freeze {
        None => "gradient x input".to_owned(),
        Some(what) => format!("gradient x input, frozen {what}"),
    };
    Ok(by_token(model, &run.cache, &products, metric)?.name(&name))
}

/// L2 norm of the metric's gradient in each token's embedding: `[Pos]`, or `[Batch, Pos]`, in the
/// metric's unit per unit of embedding. How sensitive the metric is, without a sign.
pub fn gradient_norm(model: &Model, tokens: &Tokens, metric: &Metric) -> Result<Grid> {
    let plan = Plan::new().cache(Site::Embed).gradients(metric.clone());
    let run = model.run(tokens, &plan)?;
    let gradients = run.gradients.context("the plan asks for gradients")?.get(Site::Embed)?;
    let norms = gradients.to_kind(Kind::Double).norm_scalaropt_dim(2, [-1i64].as_slice(), true);
    let grid = by_token(model, &run.cache, &norms, metric)?;
    Ok(grid.name("norm of the gradient").unit(&format!("{} / embedding", metric.unit())))
}

/// Where integrated gradients begin.
#[derive(Debug, Clone)]
pub enum Baseline {
    /// The embeddings of another prompt, of the same length: what makes the two differ?
    Prompt(Tokens),
    /// At every position the mean of all embeddings: what does the prompt add to knowing nothing?
    MeanEmbedding,
}

impl From<&Tokens> for Baseline {
    fn from(tokens: &Tokens) -> Self {
        Baseline::Prompt(tokens.clone())
    }
}

/// Integrated gradients, and how complete they are.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Integrated {
    /// Each token's share of the metric's difference: `[Pos]`, or `[Batch, Pos]`.
    pub tokens: Grid,
    /// The metric of the prompts less that of the baseline, one number a prompt.
    pub difference: Vec<f64>,
    /// `|sum of the shares - difference| / |difference|`, the largest of all prompts. Above 0.01 the
    /// shares should not be trusted.
    pub completeness_error: f64,
    /// Gradients taken along the line.
    pub steps: usize,
}

/// Integrated gradients of the metric in the embeddings, by the Gauss-Legendre rule; steps are
/// doubled until the completeness error is below 1 % or nothing but rounding, up to 2048 (in half
/// precision up to 64).
///
/// ```
/// use thalweg::{Metric, Model, integrated_gradients};
/// let model = Model::load("data/models/tiny-world")?;
/// let clean = model.tokens("When Mary and John went to the store , John gave a drink to")?;
/// let corrupt = model.tokens("When Mary and John went to the store , Mary gave a drink to")?;
/// let metric = Metric::logit_diff(model.token("Mary")?, model.token("John")?);
/// let shares = integrated_gradients(&model, &clean, &metric, &corrupt)?;
/// assert!(shares.completeness_error < 0.01);
/// assert!((shares.tokens.values.sum() - shares.difference[0]).abs() < 0.01 * shares.difference[0].abs());
/// # thalweg::anyhow::Ok(())
/// ```
pub fn integrated_gradients(
    model: &Model,
    tokens: &Tokens,
    metric: &Metric,
    baseline: impl Into<Baseline>,
) -> Result<Integrated> {
    let line = Line::new(model, tokens, metric, &baseline.into())?;
    let whole = matches!(model.kind(), Kind::Double | Kind::Float);
    let last = if whole { LAST.0 } else { LAST.1 };
    let mut steps = FIRST;
    loop {
        let shares = line.integrate(&gauss_legendre(steps))?;
        let completeness_error = line.error(&by_row(&shares))?;
        if completeness_error < GOOD_ENOUGH || line.is_rounding(&shares)? || steps >= last {
            let grid = by_token(model, &line.origin, &shares, metric)?;
            let grid = grid
                .name("integrated gradients")
                .note("steps", &steps.to_string())
                .note("completeness error", &format!("{completeness_error:.2e}"));
            let difference = Vec::try_from(&line.difference)?;
            return Ok(Integrated { tokens: grid, difference, completeness_error, steps });
        }
        steps *= 2;
    }
}

/// Middles of `n` equal pieces of 0..1.
pub(super) fn midpoints(n: usize) -> Vec<f64> {
    (0..n).map(|i| (i as f64 + 0.5) / n as f64).collect()
}

/// The `n` places in 0..1, and their weights, whose sum is the integral of any polynomial up to
/// degree 2 n - 1: for smooth functions far closer than as many midpoints. The places are the roots
/// of the Legendre polynomial, found by Newton's method from Tricomi's estimate.
fn gauss_legendre(n: usize) -> Vec<(f64, f64)> {
    let root = |i: usize| {
        let mut x = -(std::f64::consts::PI * (i as f64 + 0.75) / (n as f64 + 0.5)).cos();
        let mut weight = 0.0;
        // quadratic: a handful of steps reach rounding, and more do no harm
        for _ in 0..NEWTON {
            // P_n and P_(n-1) at x, by their recurrence
            let (value, before) = (1..=n).fold((1.0, 0.0), |(p, before), k| {
                let k = k as f64;
                (((2.0 * k - 1.0) * x * p - (k - 1.0) * before) / k, p)
            });
            let slope = n as f64 * (x * value - before) / (x * x - 1.0);
            weight = 1.0 / ((1.0 - x * x) * slope * slope);
            let step = value / slope;
            x -= step;
            if step.abs() < 1e-15 {
                break;
            }
        }
        (0.5 * (x + 1.0), weight)
    };
    (0..n).map(root).collect()
}

/// `[Batch, ..]` summed to `[Batch]`, f64.
pub(super) fn by_row(x: &Tensor) -> Tensor {
    x.flatten(1, -1).sum_dim_intlist([1i64].as_slice(), false, Kind::Double)
}

/// The straight line between two embeddings of the same prompts.
struct Line<'a> {
    model: &'a Model,
    tokens: &'a Tokens,
    metric: &'a Metric,
    /// Embeddings at the baseline, and from there to the prompts: `[Batch, Pos, DModel]`.
    from: Tensor,
    across: Tensor,
    /// Metric at the prompts less that at the baseline, `[Batch]`.
    difference: Tensor,
    /// Of the prompts' own run.
    origin: Cache,
}

impl<'a> Line<'a> {
    fn new(
        model: &'a Model,
        tokens: &'a Tokens,
        metric: &'a Metric,
        baseline: &Baseline,
    ) -> Result<Self> {
        let run = model.run(tokens, &Plan::new().cache(Site::Embed))?;
        let to = run.cache.get(Site::Embed)?;
        let from = match baseline {
            Baseline::Prompt(other) => {
                check_pair(tokens, other)?;
                model.embed(other)?
            }
            Baseline::MeanEmbedding => {
                let mean = model.weight(W::E, 0)?.mean_dim([0i64].as_slice(), false, Kind::Double);
                mean.to_kind(to.kind()).expand_as(&to).contiguous()
            }
        };
        let start = Plan::new().intervene(Site::Embed, Intervention::set(&from));
        let start = value(metric, &model.run(tokens, &start)?, tokens)?;
        let difference = value(metric, &run, tokens)? - start;
        let across = to - &from;
        Ok(Line { model, tokens, metric, from, across, difference, origin: run.cache })
    }

    /// Mean gradient over these places on the way, times the way: `[Batch, Pos, DModel]`, f64.
    fn integrate(&self, places: &[(f64, f64)]) -> Result<Tensor> {
        let mut total = self.across.zeros_like().to_kind(Kind::Double);
        for (place, weight) in progress(places, "integrated gradients").unit("steps") {
            let here = &self.from + &self.across * *place;
            let plan = Plan::new().intervene(Site::Embed, Intervention::set(&here));
            let plan = plan.cache(Site::Embed).gradients(self.metric.clone());
            let gradients = self.model.run(self.tokens, &plan)?.gradients;
            let gradient = gradients.context("the plan asks for gradients")?.get(Site::Embed)?;
            total += gradient.to_kind(Kind::Double) * *weight;
        }
        Ok(total * &self.across)
    }

    fn error(&self, sums: &Tensor) -> Result<f64> {
        completeness_error(sums, &self.difference)
    }

    /// Whether these shares, `[Batch, Pos, DModel]`, miss the difference by no more than rounding.
    fn is_rounding(&self, shares: &Tensor) -> Result<bool> {
        let all = by_row(&shares.sum_dim_intlist([2i64].as_slice(), false, Kind::Double).abs());
        let least = if self.model.kind() == Kind::Double { ROUNDING.0 } else { ROUNDING.1 };
        let off = (by_row(shares) - &self.difference).abs();
        Ok(bool::try_from(off.le_tensor(&(all * least)).all())?)
    }
}

/// `|sum - difference| / |difference|`, the largest of all rows; 0 where both are 0.
pub(super) fn completeness_error(sums: &Tensor, difference: &Tensor) -> Result<f64> {
    let [sums, difference] = [sums, difference].map(Vec::<f64>::try_from);
    let (sums, difference) = (sums?, difference?);
    let mut largest: f64 = 0.0;
    for (sum, whole) in sums.iter().zip(&difference) {
        ensure!(
            sum.is_finite() && whole.is_finite(),
            "the gradient or the metric is not finite along the way: {sum}, {whole}"
        );
        let off = (sum - whole).abs();
        largest = largest.max(if off == 0.0 { 0.0 } else { off / whole.abs() });
    }
    Ok(largest)
}

/// `[Batch, Pos, DModel]` as a grid by token.
fn by_token(model: &Model, cache: &Cache, shares: &Tensor, metric: &Metric) -> Result<Grid> {
    let tokens = cache.tokens();
    let values = sum_to(shares, &[Axis::Pos, Axis::DModel], &[Axis::Pos]);
    let named = [(Axis::Pos, frame::position_labels(tokens))];
    let grid = frame::batched(cache, &values, &named, metric.unit())?;
    Ok(noted(frame::hide(grid, tokens, 0)?, model, metric))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_is_exact_for_polynomials_of_twice_its_degree() {
        for n in [1, 2, 16, 200, LAST.0] {
            let places = gauss_legendre(n);
            for power in [0, 1, 2 * n - 1] {
                let sum: f64 = places.iter().map(|(x, weight)| weight * x.powi(power as i32)).sum();
                let exact = 1.0 / (power + 1) as f64;
                assert!((sum / exact - 1.0).abs() < 1e-11, "{n} places, power {power}: {sum}");
            }
        }
    }
}
