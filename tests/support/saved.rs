//! A model of one layer that saves, loads and breaks quickly.

use std::path::PathBuf;

use thalweg::tch::Kind;
use thalweg::{Config, Model};

use super::{config, model_of, scratch};

/// A saved tiny model, one layer, f32.
pub(crate) fn saved(name: &str) -> PathBuf {
    let dir = scratch(name);
    small().save(&dir).unwrap();
    dir
}

pub(crate) fn small() -> Model {
    let c = Config { n_layers: 1, d_model: 4, n_heads: 2, n_kv_heads: 1, d_head: 2, ..config() };
    model_of(Config { d_mlp: 4, d_vocab: 5, ..c }, Kind::Float, 6)
}
