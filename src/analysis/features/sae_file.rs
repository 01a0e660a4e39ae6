//! SAEs in SAELens' format: a directory with `cfg.json` and `sae_weights.safetensors`.
//!
//! <https://github.com/decoderesearch/SAELens>, the files of its versions 3 to 6. As for a model's
//! config: keys that would change the arithmetic and are not implemented are an error, any other
//! key loads and is counted by the SAE's display.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};
use tch::{Kind, Tensor};

use super::normalization::Normalization;
use super::sae::{Sae, SaeKind};
use crate::config::keys::Keys;
use crate::files::Files;
use crate::hook::site::Site;

const ARCHITECTURES: &[&str] = &[
    "standard",
    "gated",
    "jumprelu",
    "topk",
    "batchtopk",
    "transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
];

/// Keys known not to touch the arithmetic of encoding and decoding.
const HARMLESS: &[&str] = &[
    "context_size",
    "dataset_path",
    "dataset_trust_remote_code",
    "device",
    "exclude_special_tokens",
    "hf_hook_name",
    "hf_hook_name_out",
    "hook_layer",
    "hook_layer_out",
    "hook_point_layer",
    "layer",
    "model_class_name",
    "model_name",
    "neuronpedia_id",
    "prepend_bos",
    "sae_lens_training_version",
    "sae_lens_version",
    "seqpos_slice",
];

/// Preparations of the model's weights that would change what an SAE reads, and that
/// [`Model::load`](crate::Model::load) does not make.
const PROCESSING: &[&str] =
    &["fold_ln", "center_writing_weights", "fold_value_biases", "refactor_factored_attn_matrices"];

impl Sae {
    /// Opens a directory in SAELens' format. The files may come from anywhere: sizes are checked
    /// before anything is read, and what is wrong is named in one line.
    ///
    /// ```
    /// use thalweg::{Point, Sae};
    /// let sae = Sae::load("data/models/tiny-world-sae")?;
    /// assert_eq!((sae.d_in(), sae.d_sae()), (128, 512));
    /// assert!(Sae::load("data/models/tiny-world").unwrap_err().to_string().contains("cfg.json"));
    /// # thalweg::anyhow::Ok(())
    /// ```
    pub fn load(dir: impl AsRef<Path>) -> Result<Sae> {
        let dir = dir.as_ref();
        let path = dir.join("cfg.json");
        let text = std::fs::read_to_string(&path)
            .map_err(|error| anyhow::anyhow!("cannot read {}: {error}", path.display()))?;
        let value: Value = serde_json::from_str(&text)
            .map_err(|error| anyhow::anyhow!("{}: not JSON: {error}", path.display()))?;
        let facts = Facts::read(&value)
            .map_err(|error| anyhow::anyhow!("{}: {error:#}", path.display()))?;
        let path = dir.join("sae_weights.safetensors");
        ensure!(path.is_file(), "{}: there is no such file", path.display());
        let files = Files::open(&path)?;
        facts.sae(&files).map_err(|error| anyhow::anyhow!("{}: {error:#}", path.display()))
    }
}

/// What `cfg.json` says.
struct Facts {
    architecture: String,
    kind: SaeKind,
    by_decoder_norm: bool,
    site: Site,
    site_out: Site,
    shape: [i64; 3],
    dtype: Kind,
    subtract_b_dec: bool,
    normalization: Normalization,
    scaled: bool,
    unknown_keys: Vec<String>,
}

impl Facts {
    fn read(value: &Value) -> Result<Facts> {
        let map = value.as_object().context("expected a JSON object")?;
        // Version 6 keeps what belongs to the model apart; older files have all in one.
        let mut all = map.clone();
        if let Some(Value::Object(metadata)) = all.remove("metadata") {
            metadata.into_iter().for_each(|(key, value)| {
                all.entry(key).or_insert(value);
            });
        }
        let mut keys = Keys::new(&all);
        let (architecture, kind) = architecture(&mut keys)?;
        let transcoder = architecture.contains("transcoder");
        let (d_in, d_sae) = (keys.required("d_in")?, keys.required("d_sae")?);
        let d_out = keys.optional("d_out")?.unwrap_or(d_in);
        ensure!(
            transcoder || d_out == d_in,
            "d_out = {d_out} of an autoencoder of d_in = {d_in}: expected a transcoder"
        );
        if let SaeKind::TopK { k, .. } = kind {
            ensure!(k <= d_sae, "k = {k}: there are d_sae = {d_sae} latents");
        }
        let (site, site_out) = sites(&mut keys, transcoder)?;
        let subtract = match keys.take("apply_b_dec_to_input") {
            None => !transcoder,
            Some(value) => value.as_bool().with_context(|| {
                format!("apply_b_dec_to_input = {value}: expected true or false")
            })?,
        };
        ensure!(!(transcoder && subtract), "apply_b_dec_to_input = true of a transcoder");
        let by_decoder_norm = keys.flag("rescale_acts_by_decoder_norm")?;
        let normalization = normalization(&mut keys)?;
        keys.expect_text("reshape_activations", &["none", "hook_z"])?;
        let dtype = keys.kind()?.unwrap_or(Kind::Float);
        let scaled = keys.flag("finetuning_scaling_factor")?;
        refuse_processing(keys.take("model_from_pretrained_kwargs"))?;
        Ok(Facts {
            architecture,
            kind,
            by_decoder_norm,
            site,
            site_out,
            shape: [d_in, d_sae, d_out].map(|n| n as i64),
            dtype,
            subtract_b_dec: subtract,
            normalization,
            scaled,
            unknown_keys: unknown(keys.rest()?),
        })
    }

    /// The SAE, its tensors checked against the config before they are read.
    fn sae(self, files: &Files) -> Result<Sae> {
        let [i, s, o] = self.shape;
        let mut read = vec!["W_enc", "W_dec", "b_dec"];
        let mut tensor = |name: &'static str, shape: &[i64]| -> Result<Tensor> {
            read.push(name);
            let found = files.shape(name).with_context(|| {
                format!("{name} is missing; architecture {:?} needs it", self.architecture)
            })?;
            ensure!(found == shape, "{name} is {found:?}, cfg.json expects {shape:?}");
            Ok(files.tensor(name)?.to_kind(self.dtype))
        };
        let batch = self.architecture == "batchtopk";
        let gated = self.kind == SaeKind::Gated;
        let mut sae = Sae {
            site: self.site,
            site_out: self.site_out,
            kind: self.kind,
            normalization: self.normalization,
            subtract_b_dec: self.subtract_b_dec,
            w_enc: tensor("W_enc", &[i, s])?,
            b_enc: tensor(if gated { "b_gate" } else { "b_enc" }, &[s])?,
            w_dec: tensor("W_dec", &[s, o])?,
            b_dec: tensor("b_dec", &[o])?,
            threshold: match (self.kind, batch) {
                (SaeKind::JumpRelu, true) => {
                    Some(tensor("topk_threshold", &[])?.expand([s], false).copy())
                }
                (SaeKind::JumpRelu, false) => Some(tensor("threshold", &[s])?),
                _ => None,
            },
            magnitude: match gated {
                true => Some((tensor("r_mag", &[s])?, tensor("b_mag", &[s])?)),
                false => None,
            },
            w_skip: match self.architecture.contains("skip") {
                true => Some(tensor("W_skip", &[o, i])?),
                false => None,
            },
            unknown_keys: self.unknown_keys.clone(),
        };
        self.check_scaling(files, &mut read)?;
        if let Some(name) = files.names().find(|name| !read.contains(name)) {
            bail!("{name} belongs to no {:?} SAE: expected {}", self.architecture, read.join(", "));
        }
        sae.check()?;
        if batch && self.by_decoder_norm {
            // The threshold counts in units of the scaled pre-activations already.
            let threshold = sae.threshold.take();
            sae = Sae { kind: SaeKind::Standard, ..sae }.with_unit_decoder()?;
            sae = Sae { kind: SaeKind::JumpRelu, threshold, ..sae };
        }
        Ok(sae)
    }

    /// A scaling factor of fine-tuning may stand in the file as long as it is 1.
    fn check_scaling(&self, files: &Files, read: &mut Vec<&'static str>) -> Result<()> {
        let Some(shape) = files.shape("scaling_factor") else {
            ensure!(
                !self.scaled,
                "finetuning_scaling_factor = true, and scaling_factor is missing"
            );
            return Ok(());
        };
        read.push("scaling_factor");
        ensure!(shape == [self.shape[1]], "scaling_factor is {shape:?}");
        let factor = files.tensor("scaling_factor")?.to_kind(Kind::Double);
        let one = (factor - 1.0).abs().max().double_value(&[]) < 1e-5;
        ensure!(one, "scaling_factor other than 1 (finetuning_scaling_factor) is not implemented");
        Ok(())
    }
}

fn unknown(keys: Vec<String>) -> Vec<String> {
    keys.into_iter().filter(|key| !HARMLESS.contains(&key.as_str())).collect()
}

/// Name of the architecture and how latents follow.
fn architecture(keys: &mut Keys) -> Result<(String, SaeKind)> {
    let name = match keys.take("architecture") {
        None => "standard",
        Some(value) => {
            value.as_str().filter(|name| ARCHITECTURES.contains(name)).with_context(|| {
                format!(
                    "architecture = {value} is not implemented (have: {})",
                    ARCHITECTURES.join(", ")
                )
            })?
        }
    };
    keys.expect_text("activation_fn", &["relu", "topk"])?;
    keys.expect_text("activation_fn_str", &["relu", "topk"])?;
    let says_top_k = [keys.take("activation_fn"), keys.take("activation_fn_str")]
        .into_iter()
        .flatten()
        .any(|value| value == "topk");
    let k = k(keys)?;
    let top_k = name == "topk" || name == "standard" && says_top_k;
    ensure!(top_k || !says_top_k, "activation_fn = \"topk\" of architecture {name:?}");
    let kind = match name {
        _ if top_k => {
            let by_decoder_norm = keys.flag("rescale_acts_by_decoder_norm")?;
            let k = k.context("k is missing: a topk SAE needs it")?;
            SaeKind::TopK { k, by_decoder_norm }
        }
        "gated" => SaeKind::Gated,
        _ if name.contains("jumprelu") || name == "batchtopk" => SaeKind::JumpRelu,
        _ => SaeKind::Standard,
    };
    if !top_k && name != "batchtopk" {
        let rescaled = keys.flag("rescale_acts_by_decoder_norm")?;
        ensure!(!rescaled, "rescale_acts_by_decoder_norm = true of architecture {name:?}");
    }
    Ok((name.to_owned(), kind))
}

/// `k`, or that of the activation function. BatchTopK's may be broken, and is not needed.
fn k(keys: &mut Keys) -> Result<Option<usize>> {
    let inner = keys.take("activation_fn_kwargs").and_then(|kwargs| kwargs.get("k"));
    let Some(value) = keys.take("k").or(inner) else { return Ok(None) };
    let k = value.as_f64().filter(|k| *k >= 1.0 && *k < f64::from(i32::MAX));
    let k = k.with_context(|| format!("k = {value}: expected a number from 1"))?;
    Ok(Some(k as usize))
}

fn normalization(keys: &mut Keys) -> Result<Normalization> {
    let Some(value) = keys.take("normalize_activations") else { return Ok(Normalization::None) };
    Ok(match value {
        Value::Bool(false) => Normalization::None,
        value if value == "none" => Normalization::None,
        value if value == "layer_norm" => Normalization::LayerNorm,
        value if value == "constant_norm_rescale" => Normalization::ConstantNorm,
        value => bail!(
            "normalize_activations = {value} is not implemented (have: none, layer_norm, constant_norm_rescale): fold its scale into the weights and save with none"
        ),
    })
}

/// Where it reads and writes.
fn sites(keys: &mut Keys, transcoder: bool) -> Result<(Site, Site)> {
    for key in ["hook_head_index", "hook_point_head_index", "hook_head_index_out"] {
        if let Some(value) = keys.take(key) {
            bail!("{key} = {value} is not implemented: expected an SAE of the whole site");
        }
    }
    let site = |key: &str, value: Option<&Value>| -> Result<Site> {
        let value = value.with_context(|| format!("{key} is missing"))?;
        let name = value.as_str().with_context(|| format!("{key} = {value}: expected a name"))?;
        let site = name.parse::<Site>().with_context(|| format!("{key} = {value}"))?;
        let axes = site.axes();
        let streams = axes.len() > 2 && axes[1] == crate::hook::site::Axis::Pos;
        ensure!(streams, "{key} = {value}: its axes are {axes:?}, expected [Batch, Pos, ..]");
        Ok(site)
    };
    let old = keys.take("hook_point");
    let read = site("hook_name", keys.take("hook_name").or(old))?;
    let out = keys.take("hook_name_out");
    if !transcoder {
        return Ok((read, read));
    }
    let written = site("hook_name_out", out)?;
    ensure!(read < written, "a transcoder from {read} to {written}: expected a later site");
    Ok((read, written))
}

/// Fails if the SAE was made for a model whose weights were rewritten.
fn refuse_processing(kwargs: Option<&Value>) -> Result<()> {
    let empty = Map::new();
    let kwargs = kwargs.and_then(Value::as_object).unwrap_or(&empty);
    for key in PROCESSING {
        let value = kwargs.get(*key).unwrap_or(&Value::Bool(false));
        ensure!(
            value == &Value::Bool(false) || value.is_null(),
            "model_from_pretrained_kwargs.{key} = {value} is not implemented: the weights are used as stored"
        );
    }
    Ok(())
}
