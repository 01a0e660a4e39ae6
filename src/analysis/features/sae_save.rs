//! Writes SAEs in SAELens' format.

use std::path::Path;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::normalization::Normalization;
use super::sae::{Sae, SaeKind};

/// The form of `cfg.json` that [`Sae::save`] writes.
const VERSION: &str = "6.0.0";

impl Sae {
    /// Writes a directory in SAELens' format, which SAELens 6 opens too.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        self.check()?;
        let dir = dir.as_ref();
        std::fs::create_dir_all(dir)
            .map_err(|error| anyhow::anyhow!("cannot make {}: {error}", dir.display()))?;
        let path = dir.join("cfg.json");
        std::fs::write(&path, serde_json::to_string_pretty(&self.cfg()?)? + "\n")
            .map_err(|error| anyhow::anyhow!("cannot write {}: {error}", path.display()))?;
        let mut tensors = Vec::new();
        let mut add = |name: &str, t: &Tensor| tensors.push((name.to_owned(), t.contiguous()));
        add("W_dec", &self.w_dec);
        add("W_enc", &self.w_enc);
        self.w_skip.iter().for_each(|t| add("W_skip", t));
        add("b_dec", &self.b_dec);
        match &self.magnitude {
            Some((scale, bias)) => {
                add("b_gate", &self.b_enc);
                add("b_mag", bias);
                add("r_mag", scale);
            }
            None => add("b_enc", &self.b_enc),
        }
        self.threshold.iter().for_each(|t| add("threshold", t));
        crate::files::write(&dir.join("sae_weights.safetensors"), &tensors, Default::default())
    }

    fn cfg(&self) -> Result<Value> {
        let normalize = match self.normalization {
            Normalization::None => "none",
            Normalization::ConstantNorm => "constant_norm_rescale",
            Normalization::LayerNorm => "layer_norm",
        };
        let architecture = match (self.kind, self.is_transcoder(), &self.w_skip) {
            (SaeKind::Standard, false, _) => "standard",
            (SaeKind::Gated, false, _) => "gated",
            (SaeKind::JumpRelu, false, _) => "jumprelu",
            (SaeKind::TopK { .. }, false, _) => "topk",
            (SaeKind::Standard, true, None) => "transcoder",
            (SaeKind::Standard, true, Some(_)) => "skip_transcoder",
            (SaeKind::JumpRelu, true, None) => "jumprelu_transcoder",
            (SaeKind::JumpRelu, true, Some(_)) => "jumprelu_skip_transcoder",
            (kind, true, _) => bail!("SAELens' format has no {kind:?} transcoder"),
        };
        let dtype = match self.w_enc.kind() {
            Kind::Float => "float32",
            Kind::Double => "float64",
            Kind::Half => "float16",
            Kind::BFloat16 => "bfloat16",
            kind => bail!("an SAE of kind {kind:?} cannot be saved"),
        };
        let hook_z = self.site.to_string().ends_with("hook_z");
        let mut cfg = json!({
            "architecture": architecture, "d_in": self.d_in(), "d_sae": self.d_sae(),
            "dtype": dtype, "device": "cpu", "apply_b_dec_to_input": self.subtract_b_dec,
            "normalize_activations": normalize,
            "reshape_activations": if hook_z { "hook_z" } else { "none" },
            "metadata": {"sae_lens_version": VERSION, "hook_name": self.site.to_string()},
        });
        if let SaeKind::TopK { k, by_decoder_norm } = self.kind {
            cfg["k"] = json!(k);
            cfg["rescale_acts_by_decoder_norm"] = json!(by_decoder_norm);
        }
        if self.is_transcoder() {
            cfg["d_out"] = json!(self.d_out());
            cfg["metadata"]["hook_name_out"] = json!(self.site_out.to_string());
        }
        Ok(cfg)
    }
}
