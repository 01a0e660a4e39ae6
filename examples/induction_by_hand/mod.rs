//! An induction circuit written by hand into the weights of a real Llama: what every method must
//! find in it is known beforehand.
//!
//! The stream has a part for the current token (A), one for the previous token (B), one for the
//! answer (C), each one-hot, and a constant. Layer 0 has one previous-token head: on the fastest
//! rotating pairs its key is its query turned by one step. Layer 1 has one induction head: on the
//! slowest pairs its query is the current token and its key the previous one. MLPs write nothing.

// The example and the tests each use a part of what stands here.
#![allow(dead_code, unreachable_pub)]

pub mod card;

use std::collections::HashMap;
use std::path::Path;

use thalweg::anyhow::Result;
use thalweg::prelude::*;
use thalweg::{Config, Rope, RopeScaling};
use tokenizers::Tokenizer;

/// How strongly the heads of layers 0 and 1 of the shipped model prefer their key: so strongly that
/// a pattern is 1 to the last bit of an f32.
pub const SHIPPED: (f64, f64) = (60.0, 400.0);

/// Width of a head: room for fast pairs and for one slow pair a word.
pub const D_HEAD: usize = 64;
/// Base of RoPE: so large that the slow pairs stand still.
pub const THETA: f64 = 1e12;
/// What the norms add to the mean square.
pub const EPS: f64 = 1e-5;
/// Ids: 0 begins a prompt, 1..13 are drawn.
pub const VOCAB: usize = 13;
/// Rotating pairs that layer 0 uses.
pub const FAST_PAIRS: usize = 8;

/// A matrix `[rows, columns]` of zeros but for these entries.
fn matrix(
    rows: usize,
    columns: usize,
    entries: impl IntoIterator<Item = (usize, usize, f64)>,
) -> Tensor {
    let mut values = vec![0.0; rows * columns];
    entries.into_iter().for_each(|(row, column, value)| values[row * columns + column] = value);
    Tensor::from_slice(&values).view([rows as i64, columns as i64])
}

/// The model in f64 without a tokenizer; `sharp` says how strongly the heads of layers 0 and 1 prefer
/// their key. (60, 400) makes patterns that are 1 to the last bit, (8, 14) soft ones.
pub fn induction_model(sharp: (f64, f64)) -> Model {
    thalweg::tch::set_num_threads(1);
    build(sharp, None).expect("the weights fit the configuration")
}

/// The model of `data/models/induction-by-hand`.
pub fn shipped() -> Result<Model> {
    build(SHIPPED, Some(card::tokenizer()?))
}

/// Writes that directory.
pub fn write(dir: &Path) -> Result<()> {
    shipped()?.save(dir)?;
    std::fs::write(dir.join("tokenizer_config.json"), card::tokenizer_config())?;
    Ok(std::fs::write(dir.join("README.md"), card::card())?)
}

fn build(sharp: (f64, f64), tokenizer: Option<Tokenizer>) -> Result<Model> {
    let v = VOCAB;
    let d = 3 * v + 1;
    let (a, b, c, constant) = (0, v, 2 * v, 3 * v);
    let config = Config {
        n_layers: 2,
        d_model: d,
        n_heads: 1,
        n_kv_heads: 1,
        d_head: D_HEAD,
        d_mlp: 1,
        d_vocab: v,
        n_ctx: 4096,
        eps: EPS,
        rope: Rope { theta: THETA, scaling: RopeScaling::Default },
        attention_bias: false,
        mlp_bias: false,
        tied: false,
        kind: None,
        bos: Some(0),
        eos: Vec::new(),
        unknown_keys: Vec::new(),
    };
    let half = D_HEAD / 2;
    let step = |pair: usize| THETA.powf(-(2.0 * pair as f64) / D_HEAD as f64);
    let fast = 0..FAST_PAIRS;
    let one_step = fast.clone().flat_map(|pair| {
        let (sin, cos) = step(pair).sin_cos();
        [(pair, constant, cos), (half + pair, constant, sin)]
    });
    let slow = |token: usize| half - v + token;
    let own = || (0..v).map(|t| (t, a + t, 1.0));
    let mut tensors = HashMap::new();
    let mut add = |name: &str, tensor: Tensor| tensors.insert(name.to_owned(), tensor);
    let embedding = (0..v).flat_map(|t| [(t, a + t, 1.0), (t, constant, 1.0)]);
    add("model.embed_tokens.weight", matrix(v, d, embedding));
    add("lm_head.weight", matrix(v, d, (0..v).map(|t| (t, c + t, 1.0))));
    let ones = || Tensor::ones([d as i64], (Kind::Double, Device::Cpu));
    add("model.norm.weight", ones());
    let queries = [
        matrix(D_HEAD, d, fast.map(|pair| (pair, constant, sharp.0))),
        matrix(D_HEAD, d, (0..v).map(|t| (slow(t), a + t, sharp.1))),
    ];
    let keys =
        [matrix(D_HEAD, d, one_step), matrix(D_HEAD, d, (0..v).map(|t| (slow(t), b + t, 1.0)))];
    for (layer, (query, key)) in queries.into_iter().zip(keys).enumerate() {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        let to = [b, c][layer];
        add(&name("self_attn.q_proj"), query);
        add(&name("self_attn.k_proj"), key);
        add(&name("self_attn.v_proj"), matrix(D_HEAD, d, own()));
        add(&name("self_attn.o_proj"), matrix(d, D_HEAD, (0..v).map(|t| (to + t, t, 1.0))));
        add(&name("input_layernorm"), ones());
        add(&name("post_attention_layernorm"), ones());
        for (part, rows, columns) in [("gate_proj", 1, d), ("up_proj", 1, d), ("down_proj", d, 1)] {
            add(&name(&format!("mlp.{part}")), matrix(rows, columns, []));
        }
    }
    Model::from_parts(config, tensors, tokenizer)
}
