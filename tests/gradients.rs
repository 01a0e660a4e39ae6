//! Methods by gradients: exact where the model is linear, and as wrong as theory says elsewhere.

use thalweg::Config;
use thalweg::prelude::*;

use crate::invariants::{models, others, tokens};
use crate::support::{config, model_of, says};

mod atp;
mod edges;
mod integrated;
mod kinds;

/// A Llama that is linear in its embeddings without any freezing: the norm's eps drowns what it
/// divides by, heads look everywhere alike, and MLPs write nothing.
pub(crate) fn linear_model() -> Model {
    let biased = Config { n_layers: 3, eps: 1e16, attention_bias: true, ..config() };
    let model = model_of(biased, Kind::Double, 4);
    let edited = model.with_weights(|name, w| {
        Ok(match name {
            _ if name.contains("norm") => w * 1e8,
            _ if name.contains("q_proj") || name.contains("down_proj") => w.zeros_like(),
            _ => w.shallow_clone(),
        })
    });
    edited.unwrap()
}

fn metric() -> Metric {
    Metric::logit_diff(5, 11)
}

/// The metric of each row.
fn measure(model: &Model, tokens: &Tokens, plan: &Plan, metric: &Metric) -> Tensor {
    metric.of(&model.run(tokens, plan).unwrap().logits, tokens).unwrap()
}

#[track_caller]
fn near(found: f64, expected: f64, bound: f64, what: impl std::fmt::Display) {
    let apart = (found - expected).abs() / expected.abs().max(1e-3);
    assert!(apart < bound, "{what}: {found}, expected {expected}");
}
