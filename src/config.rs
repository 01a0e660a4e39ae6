//! `config.json` -> [`Config`]: what decides a Llama's arithmetic, and nothing silently ignored.
//!
//! Keys fall in three lists: honoured (read below), [`HARMLESS`] (known not to touch the
//! arithmetic of a forward pass), and [`UNSUPPORTED`] (they would change it and are not
//! implemented: an error unless they hold their neutral value). Any other key loads and is named
//! by `Config`'s display.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};
use tch::Kind;

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

/// Rotary position embedding: angle of pair `i` at position `p` is `p * frequency(i)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rope {
    /// Base of the frequencies (`rope_theta`).
    pub theta: f64,
    /// How the frequencies are stretched for long contexts.
    pub scaling: RopeScaling,
}

/// `rope_type` with its numbers, named as in `config.json`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Plain frequencies `theta^(-2i/d_head)`.
    Default,
    /// All frequencies divided by `factor`.
    Linear {
        /// Stretch of the context.
        factor: f64,
    },
    /// The base grows with the length of the text once it exceeds the original context.
    Dynamic {
        /// Stretch of the context.
        factor: f64,
    },
    /// Low frequencies divided by `factor`, high ones kept, a ramp between (Llama 3.1).
    Llama3 {
        /// Stretch of the context.
        factor: f64,
        /// Wavelengths longer than `original / low_freq_factor` are stretched.
        low_freq_factor: f64,
        /// Wavelengths shorter than `original / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context before the stretch (`original_max_position_embeddings`).
        original: f64,
    },
}

/// Keys known not to touch the arithmetic of a forward pass.
const HARMLESS: &[&str] = &[
    "_name_or_path",
    "_attn_implementation",
    "attention_dropout",
    "attn_implementation",
    "auto_map",
    "chunk_size_feed_forward",
    "decoder_start_token_id",
    "dropout",
    "finetuning_task",
    "hidden_dropout",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_encoder_decoder",
    "label2id",
    "license",
    "num_labels",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "resid_pdrop",
    "return_dict",
    "sep_token_id",
    "task_specific_params",
    "tokenizer_class",
    "transformers_version",
    "use_cache",
    "torchscript",
    "unsloth_version",
    "_commit_hash",
];

/// Keys that would change the arithmetic and are not implemented, with their neutral value.
const UNSUPPORTED: &[(&str, Neutral)] = &[
    ("quantization_config", Neutral::Null),
    ("compression_config", Neutral::Null),
    ("sliding_window", Neutral::Null),
    ("use_sliding_window", Neutral::False),
    ("attention_chunk_size", Neutral::Null),
    ("no_rope_layers", Neutral::Empty),
    ("no_rope_layer_interval", Neutral::Null),
    ("layer_types", Neutral::AllFullAttention),
    ("attn_logit_softcapping", Neutral::Null),
    ("final_logit_softcapping", Neutral::Null),
    ("query_pre_attn_scalar", Neutral::Null),
    ("clip_qkv", Neutral::Null),
    ("qk_norm", Neutral::False),
    ("use_qk_norm", Neutral::False),
    ("qk_layernorm", Neutral::False),
    ("partial_rotary_factor", Neutral::One),
    ("rotary_pct", Neutral::One),
    ("embedding_multiplier", Neutral::One),
    ("residual_multiplier", Neutral::One),
    ("logits_scaling", Neutral::One),
    ("logit_scale", Neutral::One),
    ("attention_multiplier", Neutral::Null),
    ("num_local_experts", Neutral::Zero),
    ("num_experts", Neutral::Zero),
    ("n_routed_experts", Neutral::Zero),
    ("num_experts_per_tok", Neutral::Zero),
    ("alibi", Neutral::False),
    ("parallel_attn", Neutral::False),
    ("use_parallel_residual", Neutral::False),
    ("cross_attention_layers", Neutral::Empty),
    ("add_cross_attention", Neutral::False),
    ("pruned_heads", Neutral::Empty),
    ("normalization_type", Neutral::Null),
    ("norm_type", Neutral::Null),
];

/// The value at which an unsupported key changes nothing.
#[derive(Debug, Clone, Copy)]
enum Neutral {
    Null,
    False,
    Zero,
    One,
    Empty,
    AllFullAttention,
}

impl Neutral {
    fn holds(self, value: &Value) -> bool {
        let number = value.as_f64();
        match self {
            _ if value.is_null() => true,
            Neutral::Null => false,
            Neutral::False => value == &Value::Bool(false),
            Neutral::Zero => number == Some(0.0),
            Neutral::One => number == Some(1.0),
            Neutral::Empty => {
                value.as_array().is_some_and(Vec::is_empty)
                    || value.as_object().is_some_and(Map::is_empty)
            }
            Neutral::AllFullAttention => value
                .as_array()
                .is_some_and(|list| list.iter().all(|item| item == "full_attention")),
        }
    }
}

impl Config {
    /// Reads a `config.json`.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
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
        ensure!(
            n_heads % n_kv_heads == 0,
            "num_attention_heads = {n_heads} is not a multiple of num_key_value_heads = {n_kv_heads}"
        );
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
        ensure!(d_head % 2 == 0, "head_dim = {d_head}: rotary embedding needs an even number");
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
        ensure!(
            config.eps.is_finite() && config.eps >= 0.0,
            "rms_norm_eps = {}: expected a number >= 0",
            config.eps
        );
        Ok(config)
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

    /// Number of weights and biases.
    pub fn n_params(&self) -> usize {
        let (d, m, v) = (self.d_model, self.d_mlp, self.d_vocab);
        let (q, kv) = (self.n_heads * self.d_head, self.n_kv_heads * self.d_head);
        let attention = d * (2 * q + 2 * kv) + if self.attention_bias { q + 2 * kv + d } else { 0 };
        let mlp = 3 * d * m + if self.mlp_bias { 2 * m + d } else { 0 };
        self.n_layers * (attention + mlp + 2 * d) + d + d * v * if self.tied { 1 } else { 2 }
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
            write!(f, "; config keys not known here: {}", self.unknown_keys.join(", "))?;
        }
        Ok(())
    }
}

/// Reads keys and remembers which were read, so that what is left can be judged.
struct Keys<'a> {
    map: &'a Map<String, Value>,
    seen: Vec<&'a str>,
}

impl<'a> Keys<'a> {
    fn new(map: &'a Map<String, Value>) -> Self {
        Keys { map, seen: Vec::new() }
    }

    /// The value, unless it is absent or null.
    fn take(&mut self, key: &'a str) -> Option<&'a Value> {
        self.seen.push(key);
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn optional(&mut self, key: &'a str) -> Result<Option<usize>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.as_u64() {
            // The bound keeps products of two sizes within 64 bits.
            Some(number) if (1..1 << 31).contains(&number) => Ok(Some(number as usize)),
            _ => bail!("{key} = {value}: expected a whole number from 1 to 2147483647"),
        }
    }

    fn required(&mut self, key: &'a str) -> Result<usize> {
        self.optional(key)?.with_context(|| format!("{key} is missing"))
    }

    fn number(&mut self, key: &'a str) -> Result<Option<f64>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        value.as_f64().map(Some).with_context(|| format!("{key} = {value}: expected a number"))
    }

    fn flag(&mut self, key: &'a str) -> Result<bool> {
        let Some(value) = self.take(key) else { return Ok(false) };
        value.as_bool().with_context(|| format!("{key} = {value}: expected true or false"))
    }

    fn ids(&mut self, key: &'a str) -> Result<Vec<i64>> {
        let wrong =
            |value: &Value| format!("{key} = {value}: expected a token id or a list of them");
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => {
                list.iter().map(|item| item.as_i64().with_context(|| wrong(item))).collect()
            }
            Some(value) => Ok(vec![value.as_i64().with_context(|| wrong(value))?]),
        }
    }

    fn expect_text(&mut self, key: &'a str, allowed: &[&str]) -> Result<()> {
        match self.take(key) {
            None => Ok(()),
            Some(value) if allowed.iter().any(|text| value == text) => Ok(()),
            Some(value) => {
                bail!("{key} = {value} is not implemented (have: {})", allowed.join(", "))
            }
        }
    }

    fn expect_architecture(&mut self) -> Result<()> {
        let Some(value) = self.take("architectures") else { return Ok(()) };
        let known = ["LlamaForCausalLM", "LlamaModel"];
        let fits = value
            .as_array()
            .is_some_and(|list| list.iter().all(|item| known.iter().any(|name| item == name)));
        ensure!(fits, "architectures = {value} is not implemented (have: {})", known.join(", "));
        Ok(())
    }

    fn kind(&mut self) -> Result<Option<Kind>> {
        let new = self.take("dtype");
        let Some(value) = self.take("torch_dtype").or(new) else { return Ok(None) };
        Ok(Some(match value.as_str().map(|text| text.trim_start_matches("torch.")) {
            Some("float32") => Kind::Float,
            Some("float16") => Kind::Half,
            Some("bfloat16") => Kind::BFloat16,
            Some("float64") => Kind::Double,
            _ => bail!(
                "dtype = {value} is not implemented (have: float32, float16, bfloat16, float64)"
            ),
        }))
    }

    fn rope(&mut self, n_ctx: usize) -> Result<Rope> {
        let theta = self.number("rope_theta")?;
        let old = self.take("rope_scaling");
        let new = self.take("rope_parameters");
        if let (Some(old), Some(new)) = (old, new) {
            ensure!(
                old == new,
                "rope_scaling = {old} and rope_parameters = {new} disagree: expected one of them"
            );
        }
        let Some(value) = new.or(old) else {
            return Ok(Rope {
                theta: positive("rope_theta", theta.unwrap_or(10_000.0))?,
                scaling: RopeScaling::Default,
            });
        };
        let name = if new.is_some() { "rope_parameters" } else { "rope_scaling" };
        read_rope(name, value, theta, n_ctx)
    }

    /// Keys nobody read: harmless ones are dropped, ones that would change the arithmetic are an
    /// error, the rest is returned.
    fn rest(&self) -> Result<Vec<String>> {
        let mut unknown = Vec::new();
        for (key, value) in self.map {
            if self.seen.contains(&key.as_str()) || HARMLESS.contains(&key.as_str()) {
                continue;
            }
            match UNSUPPORTED.iter().find(|row| row.0 == key) {
                Some((_, neutral)) if neutral.holds(value) => {}
                Some(_) => bail!("{key} = {value} is not implemented and would change the result"),
                None => unknown.push(key.clone()),
            }
        }
        Ok(unknown)
    }
}

fn positive(name: &str, value: f64) -> Result<f64> {
    ensure!(value.is_finite() && value > 0.0, "{name} = {value}: expected a number > 0");
    Ok(value)
}

/// Reads `rope_scaling` (old form) or `rope_parameters` (new form).
fn read_rope(name: &str, value: &Value, theta: Option<f64>, n_ctx: usize) -> Result<Rope> {
    let map = value.as_object().with_context(|| format!("{name} = {value}: expected an object"))?;
    let number = |key: &str| -> Result<f64> {
        let found = map.get(key).with_context(|| format!("{name}.{key} is missing"))?;
        let number = found.as_f64();
        positive(
            &format!("{name}.{key}"),
            number.with_context(|| format!("{name}.{key} = {found}: expected a number"))?,
        )
    };
    let kind =
        map.get("rope_type").or(map.get("type")).and_then(Value::as_str).unwrap_or("default");
    let own: &[&str] = match kind {
        "default" => &[],
        "linear" => &["factor"],
        // Newer files repeat the original context here; it is max_position_embeddings that counts.
        "dynamic" => &["factor", "original_max_position_embeddings"],
        "llama3" => {
            &["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"]
        }
        other => bail!(
            "{name}.rope_type = {other:?} is not implemented (have: default, linear, dynamic, llama3)"
        ),
    };
    for (key, value) in map {
        let common = ["rope_type", "type", "rope_theta"].contains(&key.as_str());
        let neutral = key == "partial_rotary_factor" && Neutral::One.holds(value);
        ensure!(
            common || neutral || own.contains(&key.as_str()),
            "{name}.{key} = {value} is not implemented for rope type {kind:?}"
        );
    }
    let scaling = match kind {
        "linear" => RopeScaling::Linear { factor: number("factor")? },
        "dynamic" => {
            if let Some(original) = map.get("original_max_position_embeddings") {
                ensure!(
                    original.as_u64() == Some(n_ctx as u64),
                    "{name}.original_max_position_embeddings = {original} differs from max_position_embeddings = {n_ctx}: not implemented for rope type \"dynamic\""
                );
            }
            RopeScaling::Dynamic { factor: number("factor")? }
        }
        "llama3" => RopeScaling::Llama3 {
            factor: number("factor")?,
            low_freq_factor: number("low_freq_factor")?,
            high_freq_factor: number("high_freq_factor")?,
            original: number("original_max_position_embeddings")?,
        },
        _ => RopeScaling::Default,
    };
    if let RopeScaling::Llama3 { low_freq_factor: low, high_freq_factor: high, .. } = scaling {
        ensure!(
            low < high,
            "{name}: low_freq_factor = {low} must be below high_freq_factor = {high}"
        );
    }
    let inner = if map.contains_key("rope_theta") { Some(number("rope_theta")?) } else { None };
    if let (Some(a), Some(b)) = (inner, theta) {
        ensure!(a == b, "rope_theta = {b} and {name}.rope_theta = {a} disagree");
    }
    Ok(Rope { theta: positive("rope_theta", inner.or(theta).unwrap_or(10_000.0))?, scaling })
}
