//! How large a model is, how long it trains, on which rows, and its weights at the start.

use super::rows::Mixture;
use super::sentence::{Level, Split};
use super::words::{BOS, Vocabulary};
use std::collections::HashMap;
use thalweg::anyhow::{Result, anyhow};
use thalweg::rng::Rng;
use thalweg::tch::{Kind, Tensor};
use thalweg::{Config, Model};
use tokenizers::Tokenizer;

/// Size of the part that all embeddings share at the start, beside that of their own.
const SHARED: f64 = 1.5;

/// A model's size and the course of its training.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Decides the weights at the start and every row.
    pub seed: u64,
    /// Layers and widths; the rest of the configuration follows.
    pub size: Size,
    /// Optimizer steps in all.
    pub steps: usize,
    /// Most steps of the first stage, which sees repeats only and ends once they are learnt.
    pub first: usize,
    /// Layers that the first stage trains; the others join afterwards.
    pub first_layers: usize,
    /// Rows in a step.
    pub batch: usize,
    /// Learning rate of the first stage, and the highest of the second.
    pub rates: [f64; 2],
    /// Steps between two lines of the log.
    pub log_every: usize,
}

/// The dimensions of a model.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Blocks.
    pub layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Query heads; half as many key/value heads.
    pub heads: usize,
    /// Neurons of an MLP.
    pub d_mlp: usize,
}

impl Recipe {
    /// The shipped model.
    pub fn tiny_world(seed: u64) -> Self {
        let size = Size { layers: 4, d_model: 128, heads: 8, d_mlp: 344 };
        Recipe {
            seed,
            size,
            steps: 3000,
            first: 1200,
            first_layers: 2,
            batch: 48,
            rates: [4e-3, 2e-3],
            log_every: 50,
        }
    }

    /// A model that trains in seconds, and yet its induction heads form.
    pub fn smoke(seed: u64) -> Self {
        let size = Size { layers: 2, d_model: 64, heads: 4, d_mlp: 128 };
        Recipe {
            seed,
            size,
            steps: 300,
            first: 250,
            first_layers: 2,
            batch: 32,
            rates: [6e-3, 2e-3],
            log_every: 50,
        }
    }

    /// The rows of a step: first repeats of few symbols, then the whole mixture.
    pub fn mixture(&self, symbols: Option<usize>, recall: usize, tasks: [f64; 9]) -> Mixture {
        let split = Split::Train;
        if let Some(symbols) = symbols {
            return Mixture {
                length: 40,
                repeats: 1.0,
                recalls: 0.0,
                tasks,
                level: Level::first(symbols),
                split,
            };
        }
        let statement = if recall == 2 { 0.3 } else { 0.1 };
        let level = Level { recall, statement, ..Level::full() };
        Mixture { length: 64, repeats: 0.25, recalls: 0.0, tasks, level, split }
    }

    /// The rows of the fourth stage: most start with statements and several questions about them
    /// until those are answered, and then some with one question.
    pub fn questions(&self, recall: usize, tasks: [f64; 9], answered: bool) -> Mixture {
        let split = Split::Train;
        if answered {
            // tiny-world and tiny-world-2 were made with `who` at 0.8 here too; with seed 7 `What` then stayed at 0.82 to 0.97
            let level = Level { recall, ..Level::full() };
            return Mixture { length: 64, repeats: 0.25, recalls: 0.25, tasks, level, split };
        }
        let level = Level { recall, who: 0.8, statement: 0.3, questions: 3, ..Level::full() };
        Mixture { length: 64, repeats: 0.15, recalls: 0.65, tasks, level, split }
    }

    /// Warm-up over 100 steps; from the `start` of the second stage on once more, and a cosine down
    /// to 2 %.
    pub fn rate_at(&self, step: usize, start: Option<usize>) -> f64 {
        let warm = |steps: usize| ((steps + 1) as f64 / 100.0).min(1.0);
        let Some(start) = start else { return self.rates[0] * warm(step) };
        let share = (step - start) as f64 / (self.steps - start).max(1) as f64;
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * share).cos());
        self.rates[1] * warm(step - start) * (0.02 + 0.98 * cosine)
    }
}

/// A model with random weights, std 0.5/sqrt(d): the usual 0.02 forbids induction heads. The
/// embeddings start with a part that all words share, so that the first layer can attend by
/// position from the beginning.
pub fn untrained(size: Size, seed: u64) -> Result<Model> {
    let vocabulary = Vocabulary::new();
    let (d, d_head) = (size.d_model, size.d_model / size.heads);
    let config = Config::from_json(&serde_json::json!({
        "model_type": "llama", "hidden_act": "silu", "hidden_size": d,
        "intermediate_size": size.d_mlp, "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads, "num_key_value_heads": size.heads / 2,
        "head_dim": d_head, "vocab_size": vocabulary.len(), "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false,
        "bos_token_id": vocabulary.id(BOS), "eos_token_id": null,
    }))?;
    let mut rng = Rng::new(seed);
    let std = 0.5 / (d as f64).sqrt();
    let mut normal =
        |rows: usize, columns: usize| rng.normal_tensor(&[rows as i64, columns as i64]) * std;
    let ones = || Tensor::ones([d as i64], (Kind::Float, thalweg::tch::Device::Cpu));
    let mut tensors = HashMap::new();
    let mut put = |name: String, tensor: Tensor| tensors.insert(name, tensor);
    let shared = normal(1, d) * SHARED;
    put("model.embed_tokens.weight".into(), normal(vocabulary.len(), d) + shared);
    for layer in 0..size.layers {
        let kv = size.heads / 2 * d_head;
        for (name, rows, columns) in [
            ("self_attn.q_proj", d, d),
            ("self_attn.k_proj", kv, d),
            ("self_attn.v_proj", kv, d),
            ("self_attn.o_proj", d, d),
            ("mlp.gate_proj", size.d_mlp, d),
            ("mlp.up_proj", size.d_mlp, d),
            ("mlp.down_proj", d, size.d_mlp),
        ] {
            put(format!("model.layers.{layer}.{name}.weight"), normal(rows, columns));
        }
        for name in ["input_layernorm", "post_attention_layernorm"] {
            put(format!("model.layers.{layer}.{name}.weight"), ones());
        }
    }
    put("model.norm.weight".into(), ones());
    put("lm_head.weight".into(), normal(vocabulary.len(), d));
    let tokenizer: Tokenizer = vocabulary
        .tokenizer_json()
        .to_string()
        .parse()
        .map_err(|error| anyhow!("the tokenizer does not load: {error}"))?;
    Model::from_parts(config, tensors, Some(tokenizer))
}

/// The model with as many more layers as `size` asks for, random but for what they write, which is
/// nothing yet: the function stays what it was.
pub fn grown(model: &Model, size: Size, seed: u64) -> Result<Model> {
    let whole = untrained(size, seed ^ 1)?;
    let known = model.named_weights();
    whole.with_weights(|name, fresh| {
        let silent = name.contains("o_proj") || name.contains("down_proj");
        Ok(match known.get(name) {
            Some(weight) => weight.detach(),
            None if silent => fresh.zeros_like(),
            None => fresh.shallow_clone(),
        })
    })
}
