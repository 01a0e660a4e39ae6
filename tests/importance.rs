//! Which tokens matter: every method by what must hold, by hand, and beside the others.

use std::collections::HashMap;

use thalweg::prelude::*;
use thalweg::{
    Config, Importance, ImportanceMethod, Mixing, Occlusion, alti, attention_rollout,
    attention_vectors, by_word, contribution_weights, gradient_norm, importance, mixing_sites,
    occlusion, occlusion_by_word, token_attribution, value_weighted_attention,
    value_weighted_rollout,
};

use crate::induction_model::{broken, induction_model};
use crate::invariants::{models, others, tokens};
use crate::support::{config, distance, model_of, says};

mod deletion;
mod golden;
mod mixing;
mod occlusions;
mod planted;
mod side_by_side;
mod value_weighted;
mod words;

fn metric() -> Metric {
    Metric::logit_diff(5, 11)
}

/// The metric of each row under a plan.
fn measure(model: &Model, tokens: &Tokens, plan: &Plan, metric: &Metric) -> Vec<f64> {
    let logits = model.run(tokens, plan).unwrap().logits;
    Vec::try_from(metric.of(&logits, tokens).unwrap().to_kind(Kind::Double)).unwrap()
}

/// A run that records what the methods that read a cache need.
fn recorded(model: &Model, tokens: &Tokens) -> Cache {
    let plan = Plan::new().cache(mixing_sites()).cache([Point::HeadResult, Point::Z]);
    model.run(tokens, &plan).unwrap().cache
}

#[track_caller]
fn near(found: f64, expected: f64, bound: f64, what: impl std::fmt::Debug) {
    assert!((found - expected).abs() < bound, "{what:?}: {found}, expected {expected}");
}

/// Values of a grid with their cells, all finite.
fn cells(grid: &Grid) -> Vec<(Vec<usize>, f64)> {
    let cells: Vec<_> = grid.present().collect();
    assert!(cells.iter().all(|(_, value)| value.is_finite()), "{grid:?}");
    cells
}
