//! Layer by layer: lenses, lengths and angles, on models small enough to know the answer.

use std::collections::HashMap;

use thalweg::prelude::*;
use thalweg::rng::Rng;
use thalweg::{Config, Rope, RopeScaling};

use crate::support::{config, model_of};

mod components;
mod golden;
mod jacobian;
mod lens;
mod planted;
mod tuned;
mod turning;

/// Three prompts of different lengths.
fn batch() -> Tokens {
    Tokens::from_ids(&[vec![1, 4, 9, 2, 7], vec![3, 3, 8], vec![10, 0, 5, 6]]).unwrap()
}

/// The tiny model with biases everywhere.
fn biased() -> Model {
    model_of(Config { attention_bias: true, mlp_bias: true, ..config() }, Kind::Double, 5)
}

fn cached(model: &Model, tokens: &Tokens, sites: impl Into<Sites>) -> Run {
    model.run(tokens, &Plan::new().cache(sites)).unwrap()
}

fn stream() -> [Point; 3] {
    [Point::ResidPre, Point::ResidMid, Point::ResidPost]
}

fn flat(grid: &Grid) -> Vec<f64> {
    grid.values.iter().copied().collect()
}

#[track_caller]
fn close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-10, "{a} against {b}");
}

/// A real Llama that is affine in its stream: `eps` is so large that norms multiply by one, a gate
/// without weights is a constant, and attention writes `attention` times its values.
fn affine(attention: f64) -> Model {
    thalweg::tch::set_num_threads(1);
    let config = Config {
        n_layers: 3,
        d_model: 8,
        n_heads: 2,
        n_kv_heads: 1,
        d_head: 4,
        d_mlp: 6,
        d_vocab: 11,
        n_ctx: 32,
        eps: 1e12,
        rope: Rope { theta: 100.0, scaling: RopeScaling::Default },
        attention_bias: false,
        mlp_bias: true,
        tied: false,
        kind: None,
        bos: None,
        eos: Vec::new(),
        unknown_keys: Vec::new(),
    };
    let mut tensors: HashMap<String, Tensor> = crate::support::tensors(&config, Kind::Double, 3);
    let mut rng = Rng::new(8);
    let mut names: Vec<String> = tensors.keys().cloned().collect();
    names.sort(); // the map's own order is another one in each process
    for name in names {
        let Some(tensor) = tensors.get_mut(&name) else { continue };
        if name.ends_with("norm.weight") {
            *tensor = tensor.ones_like() * 1e6;
        } else if name.ends_with("gate_proj.weight") {
            *tensor = tensor.zeros_like();
        } else if name.ends_with("o_proj.weight") {
            *tensor = &*tensor * attention;
        } else if name.ends_with("gate_proj.bias") {
            *tensor = rng.normal_tensor(&tensor.size()).to_kind(Kind::Double) + 0.5;
        }
    }
    Model::from_parts(config, tensors, None).unwrap()
}

/// What the MLP of a layer of [`affine`] multiplies the stream with, from the left.
fn mlp_matrix(model: &Model, layer: usize) -> Tensor {
    let weight = |w: W| model.weight(w, layer).unwrap();
    let gate = weight(W::BGate).silu();
    ((weight(W::In) * gate).matmul(&weight(W::Out))).tr()
}

fn eye(d: i64) -> Tensor {
    Tensor::eye(d, (Kind::Double, Device::Cpu))
}
