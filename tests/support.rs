//! Small random Llamas for tests, made from a seed, and a few things to say about results.
#![allow(dead_code)] // each test file uses its own share

pub(crate) mod change;
pub(crate) mod child;
pub(crate) mod saved;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use thalweg::anyhow::Result;
use thalweg::rng::Rng;
use thalweg::tch::{Device, Kind, Tensor};
use thalweg::{Config, Model, Rope, RopeScaling};

/// Grouped queries (4 heads, 2 key/value heads), `d_head` other than `d_model / n_heads`, two
/// layers, 23 ids, 32 positions, no biases, untied.
pub(crate) fn config() -> Config {
    Config {
        n_layers: 2,
        d_model: 12,
        n_heads: 4,
        n_kv_heads: 2,
        d_head: 6,
        d_mlp: 20,
        d_vocab: 23,
        n_ctx: 32,
        eps: 1e-5,
        rope: Rope { theta: 100.0, scaling: RopeScaling::Default },
        attention_bias: false,
        mlp_bias: false,
        tied: false,
        kind: None,
        bos: None,
        eos: Vec::new(),
        unknown_keys: Vec::new(),
    }
}

/// Every tensor a file of this config holds, drawn from `seed`: matrices of a size that keeps
/// activations near 1, norms near 1, biases near 0.
pub(crate) fn tensors(config: &Config, kind: Kind, seed: u64) -> HashMap<String, Tensor> {
    let mut rng = Rng::new(seed);
    let shapes = shapes(config);
    let draw = |(name, shape): (String, Vec<i64>)| {
        let x = rng.normal_tensor(&shape);
        let x = match shape.as_slice() {
            [_] if name.ends_with(".bias") => x * 0.3,
            [_] => x * 0.2 + 1.0,
            _ if name.contains("embed_tokens") => x,
            [_, input] => x / (*input as f64).sqrt(),
            _ => x,
        };
        (name, x.to_kind(kind))
    };
    shapes.into_iter().map(draw).collect()
}

/// Names and shapes of the tensors of a Hugging Face Llama.
pub(crate) fn shapes(config: &Config) -> Vec<(String, Vec<i64>)> {
    let c = config;
    let [d, v, f] = [c.d_model, c.d_vocab, c.d_mlp].map(|n| n as i64);
    let [q, kv] = [c.n_heads * c.d_head, c.n_kv_heads * c.d_head].map(|n| n as i64);
    let mut list = vec![("model.embed_tokens.weight".to_owned(), vec![v, d])];
    for layer in 0..c.n_layers {
        let own = |part: &str| format!("model.layers.{layer}.{part}");
        for (part, out, input, bias) in [
            ("self_attn.q_proj", q, d, c.attention_bias),
            ("self_attn.k_proj", kv, d, c.attention_bias),
            ("self_attn.v_proj", kv, d, c.attention_bias),
            ("self_attn.o_proj", d, q, c.attention_bias),
            ("mlp.gate_proj", f, d, c.mlp_bias),
            ("mlp.up_proj", f, d, c.mlp_bias),
            ("mlp.down_proj", d, f, c.mlp_bias),
        ] {
            list.push((own(&format!("{part}.weight")), vec![out, input]));
            if bias {
                list.push((own(&format!("{part}.bias")), vec![out]));
            }
        }
        list.push((own("input_layernorm.weight"), vec![d]));
        list.push((own("post_attention_layernorm.weight"), vec![d]));
    }
    list.push(("model.norm.weight".to_owned(), vec![d]));
    if !c.tied {
        list.push(("lm_head.weight".to_owned(), vec![v, d]));
    }
    list
}

/// A model of this config with weights drawn from `seed`.
pub(crate) fn model_of(config: Config, kind: Kind, seed: u64) -> Model {
    // One thread a test: on tiny tensors more of them only wait for each other.
    thalweg::tch::set_num_threads(1);
    let tensors = tensors(&config, kind, seed);
    Model::from_parts(config, tensors, None).expect("the config and its tensors agree")
}

/// The usual tiny model, in f64.
pub(crate) fn model() -> Model {
    model_of(config(), Kind::Double, 1)
}

/// The usual tiny model, in f32.
pub(crate) fn model_f32() -> Model {
    model_of(config(), Kind::Float, 1)
}

/// A fresh, empty directory under cargo's own for tests.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("the directory for tests can be written");
    dir
}

/// What an error says, in one line.
pub(crate) fn message<T>(result: Result<T>) -> String {
    let text = match result {
        Ok(_) => panic!("expected an error"),
        Err(error) => error.to_string(),
    };
    assert!(!text.contains('\n'), "an error is one line: {text}");
    text
}

/// `message`, which must contain every one of `words`.
#[track_caller]
pub(crate) fn says<T>(result: Result<T>, words: &[&str]) -> String {
    let text = message(result);
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    text
}

/// Largest `|a - b|` over the largest `|b|`; entries that are the same infinity count as equal.
pub(crate) fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    let [a, b] = [a, b].map(|t| t.to_device(Device::Cpu).to_kind(Kind::Double));
    let same = a.eq_tensor(&b);
    let largest = b.masked_fill(&b.isinf(), 0.0).abs().max().double_value(&[]);
    let difference = (&a - &b).masked_fill(&same, 0.0).abs().max().double_value(&[]);
    difference / largest.max(f64::MIN_POSITIVE)
}

/// Whether two tensors hold the same bits' worth of numbers (NaN equals nothing).
pub(crate) fn same(a: &Tensor, b: &Tensor) -> bool {
    a.kind() == b.kind() && a.size() == b.size() && a.equal(b)
}
