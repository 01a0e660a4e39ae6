//! The methods that can stand side by side, and what each gives for one metric.

use anyhow::{Context, Result};
use ndarray::{ArrayD, Dimension};

use super::alti::alti;
use super::carried::mixing_sites;
use super::mixing::Mixing;
use super::occlusion::{Occlusion, occlusion};
use super::rollout::{attention_rollout, value_weighted_rollout};
use super::value_weighted::token_attribution;
use crate::analysis::gradient::{
    Baseline, gradient_norm, gradient_times_input, integrated_gradients,
};
use crate::grid::Grid;
use crate::hook::cache::Cache;
use crate::hook::metric::Metric;
use crate::hook::plan::Plan;
use crate::hook::site::Axis;
use crate::model::Model;
use crate::text::Tokens;

/// A way to say how much each token matters.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ImportanceMethod {
    /// Causal: what the metric loses when the token is occluded. Signed.
    Occlusion(Occlusion),
    /// Gradient times embedding. Signed.
    GradientTimesInput,
    /// Norm of the gradient in the embedding.
    GradientNorm,
    /// Integrated gradients from a baseline. Signed.
    IntegratedGradients(Baseline),
    /// What heads carry straight to the answer; for metrics that are linear in the logits. Signed.
    TokenAttribution,
    /// Attention rollout to where the metric looks.
    AttentionRollout,
    /// Rollout of the norms of what is carried.
    ValueWeightedRollout,
    /// ALTI.
    Alti,
}

impl From<Occlusion> for ImportanceMethod {
    fn from(how: Occlusion) -> Self {
        ImportanceMethod::Occlusion(how)
    }
}

impl ImportanceMethod {
    /// Every method that suits the metric, attention cut first; replacement and integrated gradients
    /// by and from the mean embedding, so that both ask the same question.
    pub fn all(metric: &Metric) -> Vec<ImportanceMethod> {
        use ImportanceMethod::*;
        let mut all = vec![
            Occlusion(super::Occlusion::AttentionCut),
            Occlusion(super::Occlusion::MeanEmbedding),
            IntegratedGradients(Baseline::MeanEmbedding),
            GradientTimesInput,
            GradientNorm,
            AttentionRollout,
            ValueWeightedRollout,
            Alti,
        ];
        if metric.sides().is_some() {
            all.insert(5, TokenAttribution);
        }
        all
    }

    /// Whether it changes the run and sees what happens.
    pub fn is_causal(&self) -> bool {
        matches!(self, ImportanceMethod::Occlusion(_))
    }

    /// Whether below 0 means that the token speaks against what the metric asks.
    pub fn is_signed(&self) -> bool {
        use ImportanceMethod::*;
        !matches!(self, GradientNorm | AttentionRollout | ValueWeightedRollout | Alti)
    }

    /// Whether it reads the cache of [`read`].
    fn reads(&self) -> bool {
        use ImportanceMethod::*;
        matches!(self, TokenAttribution | AttentionRollout | ValueWeightedRollout | Alti)
    }

    /// Its name among others: "attention cut", "ALTI".
    pub(super) fn label(&self, model: &Model) -> String {
        let label = match self {
            ImportanceMethod::Occlusion(how) => return how.label(model),
            ImportanceMethod::GradientTimesInput => "gradient x input",
            ImportanceMethod::GradientNorm => "gradient norm",
            ImportanceMethod::IntegratedGradients(Baseline::MeanEmbedding) => {
                "integrated gradients"
            }
            ImportanceMethod::IntegratedGradients(Baseline::Prompt(_)) => {
                "integrated gradients from the other prompt"
            }
            ImportanceMethod::TokenAttribution => "direct attribution",
            ImportanceMethod::AttentionRollout => "attention rollout",
            ImportanceMethod::ValueWeightedRollout => "value-weighted rollout",
            ImportanceMethod::Alti => "ALTI",
        };
        label.to_owned()
    }

    /// Its numbers, `[Pos]` or `[Batch, Pos]`, with what comes after the metric's last place missing.
    pub(super) fn measure(
        &self,
        (model, tokens, metric): (&Model, &Tokens, &Metric),
        cache: Option<&Cache>,
    ) -> Result<Grid> {
        use ImportanceMethod::*;
        let places = metric.places(tokens)?;
        let cache = || cache.context("attention was not recorded");
        let top = |mixing: Mixing| mixing.read(&places)?.select(Axis::Layer, -1);
        let grid = match self {
            Occlusion(how) => occlusion(model, tokens, metric, how)?,
            GradientTimesInput => gradient_times_input(model, tokens, metric, None)?,
            GradientNorm => gradient_norm(model, tokens, metric)?,
            IntegratedGradients(baseline) => {
                integrated_gradients(model, tokens, metric, baseline.clone())?.tokens
            }
            TokenAttribution => summed(token_attribution(model, cache()?, metric)?)?,
            AttentionRollout => top(attention_rollout(cache()?)?)?,
            ValueWeightedRollout => top(value_weighted_rollout(model, cache()?)?)?,
            Alti => top(alti(model, cache()?)?)?,
        };
        let mut grid = grid.note("method", &self.label(model));
        grid.provenance.remove("Layer");
        missing_from(grid, tokens, &places, 1)
    }
}

/// One run that records what the methods that read a cache need, if there is one.
pub(super) fn read(
    methods: &[ImportanceMethod],
    model: &Model,
    tokens: &Tokens,
) -> Result<Option<Cache>> {
    if !methods.iter().any(ImportanceMethod::reads) {
        return Ok(None);
    }
    Ok(Some(model.run(tokens, &Plan::new().cache(mixing_sites()).logits_at(-1))?.cache))
}

/// Marks as missing all that comes `after` positions after the last one of each row's `places`.
pub(super) fn missing_from(
    mut grid: Grid,
    tokens: &Tokens,
    places: &[Vec<usize>],
    after: usize,
) -> Result<Grid> {
    let end = |(row, at): (usize, &Vec<usize>)| {
        tokens.padding(row) + at.iter().copied().max().unwrap_or(0) + after
    };
    let ends: Vec<usize> = places.iter().enumerate().map(end).collect();
    let mut missing =
        grid.missing.take().unwrap_or_else(|| ArrayD::from_elem(grid.values.raw_dim(), false));
    for (index, gone) in missing.indexed_iter_mut() {
        let (row, column) = match index.slice() {
            [row, column] => (*row, *column),
            other => (0, other[0]),
        };
        *gone |= column >= ends[row] || column < tokens.padding(row);
    }
    grid.missing(missing)
}

/// Over layers and heads.
fn summed(grid: Grid) -> Result<Grid> {
    let (layers, heads) =
        (grid.labels(Axis::Layer)?.len() as f64, grid.labels(Axis::Head)?.len() as f64);
    let n = grid.n;
    let mut sum = grid.mean(Axis::Layer)?.mean(Axis::Head)?.map(|mean| mean * layers * heads).n(n);
    sum.provenance.retain(|key, _| key != "Layer" && key != "Head");
    Ok(sum)
}
