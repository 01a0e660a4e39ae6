//! `config.json` -> [`Config`]: what decides a Llama's arithmetic, and nothing silently ignored.
//!
//! Keys fall in three lists: honoured (read below), `HARMLESS` (known not to touch the
//! arithmetic of a forward pass), and `UNSUPPORTED` (they would change it and are not
//! implemented: an error unless they hold their neutral value). Any other key loads and is named
//! by `Config`'s display.

pub(crate) mod keys;
mod rope;

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tch::Kind;

use keys::Keys;
pub use rope::{Rope, RopeScaling};

/// A Llama's dimensions and switches, as in Hugging Face's `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Blocks (`num_hidden_layers`).
    pub n_layers: usize,
    /// Width of the residual stream (`hidden_size`).
    pub d_model: usize,
    /// Query heads (`num_attention_heads`).
    pub n_heads: usize,
    /// Key/value heads (`num_key_value_heads`); divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of a head (`head_dim`, or `d_model / n_heads`).
    pub d_head: usize,
    /// Neurons of an MLP (`intermediate_size`).
    pub d_mlp: usize,
    /// Token ids (`vocab_size`).
    pub d_vocab: usize,
    /// Positions the model was made for (`max_position_embeddings`).
    pub n_ctx: usize,
    /// Added to the mean square inside the norms' square root (`rms_norm_eps`).
    pub eps: f64,
    /// Rotary position embedding.
    pub rope: Rope,
    /// Whether the q, k, v and o projections have biases.
    pub attention_bias: bool,
    /// Whether the gate, up and down projections have biases.
    pub mlp_bias: bool,
    /// Whether the unembedding is the embedding's transpose.
    pub tied: bool,
    /// Kind the weights are stored in, where the file says so (`dtype` or `torch_dtype`).
    pub kind: Option<Kind>,
    /// The id that begins a text.
    pub bos: Option<i64>,
    /// Ids that end a text.
    pub eos: Vec<i64>,
    /// Keys of the file that this crate does not know; they change nothing here.
    pub unknown_keys: Vec<String>,
}

impl Config {
    /// Reads a `config.json`.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|error| anyhow::anyhow!("cannot read {}: {error}", path.display()))?;
        let value: Value = serde_json::from_str(&text)
            .map_err(|error| anyhow::anyhow!("{}: not JSON: {error}", path.display()))?;
        Self::from_json(&value).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
    }

    /// Reads the contents of a `config.json`: the old form (`rope_theta`, `rope_scaling`) and the
    /// new one (`rope_parameters`).
    pub fn from_json(value: &Value) -> Result<Self> {
        let map = value.as_object().context("expected a JSON object")?;
        let mut keys = Keys::new(map);
        keys.expect_text("model_type", &["llama"])?;
        keys.expect_architecture()?;
        keys.expect_text("hidden_act", &["silu", "swish"])?;
        let d_model = keys.required("hidden_size")?;
        let n_heads = keys.required("num_attention_heads")?;
        let n_kv_heads = keys.optional("num_key_value_heads")?.unwrap_or(n_heads);
        let d_head = match keys.optional("head_dim")? {
            Some(d_head) => d_head,
            None => {
                ensure!(
                    d_model % n_heads == 0,
                    "hidden_size = {d_model} is not a multiple of num_attention_heads = {n_heads}, and head_dim is not given"
                );
                d_model / n_heads
            }
        };
        let n_ctx = keys.optional("max_position_embeddings")?.unwrap_or(2048);
        let config = Config {
            n_layers: keys.required("num_hidden_layers")?,
            d_model,
            n_heads,
            n_kv_heads,
            d_head,
            d_mlp: keys.required("intermediate_size")?,
            d_vocab: keys.required("vocab_size")?,
            n_ctx,
            eps: keys.number("rms_norm_eps")?.unwrap_or(1e-6),
            rope: keys.rope(n_ctx)?,
            attention_bias: keys.flag("attention_bias")?,
            mlp_bias: keys.flag("mlp_bias")?,
            tied: keys.flag("tie_word_embeddings")?,
            kind: keys.kind()?,
            bos: keys.ids("bos_token_id")?.first().copied(),
            eos: keys.ids("eos_token_id")?,
            unknown_keys: keys.rest()?,
        };
        config.check()?;
        Ok(config)
    }

    /// Whether the numbers fit each other, with the names they have in a `config.json`.
    pub(crate) fn check(&self) -> Result<()> {
        for (key, n) in [
            ("num_hidden_layers", self.n_layers),
            ("hidden_size", self.d_model),
            ("num_attention_heads", self.n_heads),
            ("num_key_value_heads", self.n_kv_heads),
            ("head_dim", self.d_head),
            ("intermediate_size", self.d_mlp),
            ("vocab_size", self.d_vocab),
            ("max_position_embeddings", self.n_ctx),
        ] {
            // The bound keeps products of two sizes within 64 bits.
            ensure!((1..1 << 31).contains(&n), "{key} = {n}: expected 1 to 2147483647");
        }
        let (n_heads, n_kv_heads) = (self.n_heads, self.n_kv_heads);
        ensure!(
            n_heads % n_kv_heads == 0,
            "num_attention_heads = {n_heads} is not a multiple of num_key_value_heads = {n_kv_heads}"
        );
        ensure!(
            self.d_head.is_multiple_of(2),
            "head_dim = {}: rotary embedding needs an even number",
            self.d_head
        );
        ensure!(
            self.eps.is_finite() && self.eps >= 0.0,
            "rms_norm_eps = {}: expected a number >= 0",
            self.eps
        );
        self.rope.check()
    }

    /// The contents of a `config.json` that `transformers` loads as a `LlamaForCausalLM`.
    pub fn to_json(&self) -> Value {
        let mut rope = match self.rope.scaling {
            RopeScaling::Default => json!({"rope_type": "default"}),
            RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
            RopeScaling::Dynamic { factor } => json!({"rope_type": "dynamic", "factor": factor}),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => json!({
                "rope_type": "llama3", "factor": factor, "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
                "original_max_position_embeddings": original as i64,
            }),
        };
        rope["rope_theta"] = json!(self.rope.theta);
        let kind = match self.kind {
            Some(Kind::BFloat16) => "bfloat16",
            Some(Kind::Half) => "float16",
            Some(Kind::Double) => "float64",
            _ => "float32",
        };
        json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "hidden_size": self.d_model, "intermediate_size": self.d_mlp,
            "num_hidden_layers": self.n_layers, "num_attention_heads": self.n_heads,
            "num_key_value_heads": self.n_kv_heads, "head_dim": self.d_head,
            "vocab_size": self.d_vocab, "max_position_embeddings": self.n_ctx,
            "rms_norm_eps": self.eps, "rope_parameters": rope,
            "attention_bias": self.attention_bias, "mlp_bias": self.mlp_bias,
            "tie_word_embeddings": self.tied, "dtype": kind,
            "bos_token_id": self.bos, "eos_token_id": match self.eos.as_slice() {
                [] => Value::Null, [one] => json!(one), many => json!(many),
            },
        })
    }

    /// The longest prompt the model takes: `n_ctx`, or `factor` times that with `dynamic` RoPE.
    pub fn longest_prompt(&self) -> usize {
        match self.rope.scaling {
            RopeScaling::Dynamic { factor } => (self.n_ctx as f64 * factor) as usize,
            _ => self.n_ctx,
        }
    }

    /// How many query heads share one key/value head.
    pub fn group(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }

    /// Number of weights and biases; `usize::MAX` for more than that.
    pub fn n_params(&self) -> usize {
        let [d, m, v] = [self.d_model, self.d_mlp, self.d_vocab].map(|n| n as u128);
        let q = self.n_heads as u128 * self.d_head as u128;
        let kv = self.n_kv_heads as u128 * self.d_head as u128;
        let attention = d * (2 * q + 2 * kv) + if self.attention_bias { q + 2 * kv + d } else { 0 };
        let mlp = 3 * d * m + if self.mlp_bias { 2 * m + d } else { 0 };
        let blocks = self.n_layers as u128 * (attention + mlp + 2 * d);
        let all = blocks + d + d * v * if self.tied { 1 } else { 2 };
        usize::try_from(all).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Llama, {} layers, d_model {}, {} heads of {} ({} key/value), d_mlp {}, vocab {}, context {}",
            self.n_layers,
            self.d_model,
            self.n_heads,
            self.d_head,
            self.n_kv_heads,
            self.d_mlp,
            self.d_vocab,
            self.n_ctx
        )?;
        if !self.unknown_keys.is_empty() {
            let keys: Vec<_> =
                self.unknown_keys.iter().map(|key| key.escape_debug().to_string()).collect();
            write!(f, "; config keys not known here: {}", keys.join(", "))?;
        }
        Ok(())
    }
}
