//! Which keys of a `config.json` are read, which change nothing, and which are refused.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};
use tch::Kind;

use super::rope::{self, Rope};

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
pub(crate) enum Neutral {
    Null,
    False,
    Zero,
    One,
    Empty,
    AllFullAttention,
}

impl Neutral {
    pub(crate) fn holds(self, value: &Value) -> bool {
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

/// Reads keys and remembers which were read, so that what is left can be judged.
pub(crate) struct Keys<'a> {
    map: &'a Map<String, Value>,
    seen: Vec<&'a str>,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(map: &'a Map<String, Value>) -> Self {
        Keys { map, seen: Vec::new() }
    }

    /// The value, unless it is absent or null.
    pub(crate) fn take(&mut self, key: &'a str) -> Option<&'a Value> {
        self.seen.push(key);
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn optional(&mut self, key: &'a str) -> Result<Option<usize>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.as_u64() {
            // The bound keeps products of two sizes within 64 bits.
            Some(number) if (1..1 << 31).contains(&number) => Ok(Some(number as usize)),
            _ => bail!("{key} = {value}: expected a whole number from 1 to 2147483647"),
        }
    }

    pub(crate) fn required(&mut self, key: &'a str) -> Result<usize> {
        self.optional(key)?.with_context(|| format!("{key} is missing"))
    }

    pub(crate) fn number(&mut self, key: &'a str) -> Result<Option<f64>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        value.as_f64().map(Some).with_context(|| format!("{key} = {value}: expected a number"))
    }

    pub(crate) fn flag(&mut self, key: &'a str) -> Result<bool> {
        let Some(value) = self.take(key) else { return Ok(false) };
        value.as_bool().with_context(|| format!("{key} = {value}: expected true or false"))
    }

    pub(crate) fn ids(&mut self, key: &'a str) -> Result<Vec<i64>> {
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

    pub(crate) fn expect_text(&mut self, key: &'a str, allowed: &[&str]) -> Result<()> {
        match self.take(key) {
            None => Ok(()),
            Some(value) if allowed.iter().any(|text| value == text) => Ok(()),
            Some(value) => {
                bail!("{key} = {value} is not implemented (have: {})", allowed.join(", "))
            }
        }
    }

    pub(crate) fn expect_architecture(&mut self) -> Result<()> {
        let Some(value) = self.take("architectures") else { return Ok(()) };
        let known = ["LlamaForCausalLM", "LlamaModel"];
        let fits = value
            .as_array()
            .is_some_and(|list| list.iter().all(|item| known.iter().any(|name| item == name)));
        ensure!(fits, "architectures = {value} is not implemented (have: {})", known.join(", "));
        Ok(())
    }

    pub(crate) fn kind(&mut self) -> Result<Option<Kind>> {
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

    pub(crate) fn rope(&mut self, n_ctx: usize) -> Result<Rope> {
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
                theta: rope::positive("rope_theta", theta.unwrap_or(10_000.0))?,
                scaling: rope::RopeScaling::Default,
            });
        };
        let name = if new.is_some() { "rope_parameters" } else { "rope_scaling" };
        rope::read(name, value, theta, n_ctx)
    }

    /// Keys nobody read: harmless ones are dropped, ones that would change the arithmetic are an
    /// error, the rest is returned.
    pub(crate) fn rest(&self) -> Result<Vec<String>> {
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
