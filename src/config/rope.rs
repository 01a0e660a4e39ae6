//! The numbers of rotary position embedding in a `config.json`, old form and new.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

use super::keys::Neutral;

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

impl Rope {
    /// Whether every number is one that frequencies can be made of.
    pub(crate) fn check(&self) -> Result<()> {
        positive("rope_theta", self.theta)?;
        match self.scaling {
            RopeScaling::Default => {}
            RopeScaling::Linear { factor } | RopeScaling::Dynamic { factor } => {
                positive("factor", factor)?;
            }
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => {
                positive("factor", factor)?;
                positive("low_freq_factor", low_freq_factor)?;
                positive("high_freq_factor", high_freq_factor)?;
                positive("original_max_position_embeddings", original)?;
                ensure!(
                    low_freq_factor < high_freq_factor,
                    "low_freq_factor = {low_freq_factor} must be below high_freq_factor = {high_freq_factor}"
                );
            }
        }
        Ok(())
    }
}

pub(crate) fn positive(name: &str, value: f64) -> Result<f64> {
    ensure!(value.is_finite() && value > 0.0, "{name} = {value}: expected a number > 0");
    Ok(value)
}

/// Reads `rope_scaling` (old form) or `rope_parameters` (new form).
pub(crate) fn read(name: &str, value: &Value, theta: Option<f64>, n_ctx: usize) -> Result<Rope> {
    let map = value.as_object().with_context(|| format!("{name} = {value}: expected an object"))?;
    let number = |key: &str| -> Result<f64> {
        let found = map.get(key).with_context(|| format!("{name}.{key} is missing"))?;
        let number = found.as_f64();
        positive(
            &format!("{name}.{key}"),
            number.with_context(|| format!("{name}.{key} = {found}: expected a number"))?,
        )
    };
    let kind = rope_type(name, map)?;
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
            "{name}.{} = {value} is not implemented for rope type {kind:?}",
            key.escape_debug()
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
    let inner = if map.contains_key("rope_theta") { Some(number("rope_theta")?) } else { None };
    if let (Some(a), Some(b)) = (inner, theta) {
        ensure!(a == b, "rope_theta = {b} and {name}.rope_theta = {a} disagree");
    }
    Ok(Rope { theta: positive("rope_theta", inner.or(theta).unwrap_or(10_000.0))?, scaling })
}

/// `rope_type`, or `type` as older files call it.
fn rope_type<'a>(name: &str, map: &'a Map<String, Value>) -> Result<&'a str> {
    let given = |key: &str| map.get(key).filter(|value| !value.is_null());
    if let (Some(new), Some(old)) = (given("rope_type"), given("type")) {
        ensure!(new == old, "{name}.rope_type = {new} and {name}.type = {old} disagree");
    }
    match given("rope_type").or(given("type")) {
        None => Ok("default"),
        Some(value) => {
            value.as_str().with_context(|| format!("{name}.rope_type = {value}: expected a name"))
        }
    }
}
