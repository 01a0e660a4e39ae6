//! tiny-adder: a Llama of one layer that learns to add modulo 53, first by heart, then by waves
//! (grokking, Power et al. 2022; Nanda et al. 2023). Notebook 10 trains the same model live.

// The example and a test each use a part of what stands here.
#![allow(dead_code, unreachable_pub)]

pub mod card;

use serde_json::json;
use std::collections::HashMap;
use thalweg::anyhow::{Result, anyhow};
use thalweg::model::AdamW;
use thalweg::rng::Rng;
use thalweg::tch::{Device, Kind, Tensor};
use thalweg::{Config, Model, Plan, Tokens};
use tokenizers::Tokenizer;

/// Numbers are 0 .. P.
pub const P: i64 = 53;
/// Share of all pairs that are trained on.
pub const SHARE: f64 = 0.3;
/// Learning rate at the start; it falls in a line to nothing at the end.
pub const RATE: f64 = 1e-2;
/// Weight decay.
pub const DECAY: f64 = 2.0;
/// Steps in all.
pub const STEPS: usize = 1000;
/// Questions of a step.
pub const BATCH: usize = 512;
/// The step at which the training set is known by heart and little else.
pub const MEMORISED: usize = 150;
/// Steps between two looks at the questions held out.
pub const LOOK: usize = 50;

/// Numbers to be added.
pub type Pair = (i64, i64);

/// Rows `a b =`.
pub fn questions(pairs: &[Pair]) -> Result<Tokens> {
    Tokens::from_ids(&pairs.iter().map(|(a, b)| vec![*a, *b, P]).collect::<Vec<_>>())
}

/// Their answers, a + b modulo P.
pub fn answers(pairs: &[Pair]) -> Tensor {
    Tensor::from_slice(&pairs.iter().map(|(a, b)| (a + b) % P).collect::<Vec<_>>())
}

/// Logits after `=`, `[Batch, Vocab]`.
pub fn logits(model: &Model, pairs: &[Pair], plan: Plan) -> Result<Tensor> {
    Ok(model.run(&questions(pairs)?, &plan.logits_at(-1))?.logits.squeeze_dim(1))
}

/// Mean loss in nats and share of right answers.
pub fn score(model: &Model, pairs: &[Pair]) -> Result<(f64, f64)> {
    let (logits, right) = (logits(model, pairs, Plan::new())?, answers(pairs));
    let loss = logits.cross_entropy_for_logits(&right).double_value(&[]);
    Ok((loss, logits.accuracy_for_logits(&right).double_value(&[])))
}

/// All pairs in an order drawn from `seed`: those trained on, and the others, held out.
pub fn split(seed: u64) -> (Vec<Pair>, Vec<Pair>) {
    let mut pairs: Vec<Pair> = (0..P * P).map(|i| (i / P, i % P)).collect();
    Rng::new(seed).shuffle(&mut pairs);
    let held_out = pairs.split_off((SHARE * pairs.len() as f64) as usize);
    (pairs, held_out)
}

/// A model of this shape before any training.
pub fn untrained(seed: u64) -> Result<Model> {
    let (vocab, d, d_mlp, heads) = (P as usize + 1, 64, 128, 4);
    let config = Config::from_json(&json!({
        "model_type": "llama", "hidden_act": "silu", "hidden_size": d, "intermediate_size": d_mlp,
        "num_hidden_layers": 1, "num_attention_heads": heads, "num_key_value_heads": heads / 2,
        "head_dim": d / heads, "vocab_size": vocab, "max_position_embeddings": 16,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false,
        "bos_token_id": null, "eos_token_id": null,
    }))?;
    let zeros = |shape: &[usize]| {
        let shape: Vec<i64> = shape.iter().map(|n| *n as i64).collect();
        Tensor::zeros(&shape[..], (Kind::Float, Device::Cpu))
    };
    let mut tensors = HashMap::new();
    for (name, shape) in [
        ("model.embed_tokens", vec![vocab, d]),
        ("model.layers.0.input_layernorm", vec![d]),
        ("model.layers.0.self_attn.q_proj", vec![d, d]),
        ("model.layers.0.self_attn.k_proj", vec![d / 2, d]),
        ("model.layers.0.self_attn.v_proj", vec![d / 2, d]),
        ("model.layers.0.self_attn.o_proj", vec![d, d]),
        ("model.layers.0.post_attention_layernorm", vec![d]),
        ("model.layers.0.mlp.gate_proj", vec![d_mlp, d]),
        ("model.layers.0.mlp.up_proj", vec![d_mlp, d]),
        ("model.layers.0.mlp.down_proj", vec![d, d_mlp]),
        ("model.norm", vec![d]),
        ("lm_head", vec![vocab, d]),
    ] {
        tensors.insert(format!("{name}.weight"), zeros(&shape));
    }
    Model::from_parts(config, tensors, Some(tokenizer()?))?.untrained(seed)
}

/// `0` .. `52` and `=`, split at white space.
fn tokenizer() -> Result<Tokenizer> {
    let words = (0..P).map(|n| n.to_string()).chain(["=".to_owned()]);
    let vocab: serde_json::Map<_, _> = words.zip(0..).map(|(w, id)| (w, json!(id))).collect();
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null,
        "decoder": null, "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "="},
    });
    json.to_string().parse().map_err(|error| anyhow!("the tokenizer does not load: {error}"))
}

/// Losses and shares of right answers at a step.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// Steps done.
    pub step: usize,
    /// Loss in nats and share right, of the training set.
    pub train: (f64, f64),
    /// The same of the pairs held out.
    pub held_out: (f64, f64),
}

/// Trains a fresh model; `look` is given a line every [`LOOK`] steps and at the end.
pub fn train(
    seed: u64,
    steps: usize,
    mut look: impl FnMut(Line, &Model) -> Result<()>,
) -> Result<Model> {
    let (train, held_out) = split(seed);
    let model = untrained(seed)?.trainable();
    let mut optimizer = AdamW::new(model.parameters());
    optimizer.decay = DECAY;
    let mut rng = Rng::new(seed).fork(1);
    for step in 0..=steps {
        if step % LOOK == 0 || step == steps {
            let (train, held_out) = (score(&model, &train)?, score(&model, &held_out)?);
            look(Line { step, train, held_out }, &model)?;
        }
        let drawn = rng.sample(train.len(), BATCH);
        let batch: Vec<Pair> = drawn.into_iter().map(|i| train[i]).collect();
        let logits = logits(&model, &batch, Plan::new().differentiable())?;
        let loss = logits.cross_entropy_for_logits(&answers(&batch));
        let left = 1.0 - step as f64 / STEPS as f64;
        optimizer.step(&loss, RATE * left)?;
    }
    Ok(model)
}
