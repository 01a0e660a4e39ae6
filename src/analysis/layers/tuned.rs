//! The tuned lens: what a layer already holds of the prediction, once its basis is translated.
//!
//! Belrose et al. 2023, "Eliciting Latent Predictions from Transformers with the Tuned Lens",
//! <https://arxiv.org/abs/2303.08112>.
//!
//! Each block's input `h` is read as `h + (A h + b)`, with `A` and `b` trained so that the
//! unembedding of it says what the whole model says. `A = 0`, `b = 0` is the logit lens, and weight
//! decay pulls there. A trained lens can find what the model holds and never uses.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::maps::{Maps, Owner, tensor};
use crate::files::Files;
use crate::hook::held::Held;
use crate::model::Model;

/// Translators `h + (A h + b)` of one model, one for the input of each block. [`Lens::tuned`] reads
/// with them; [`TunedLensTraining`] trains them.
///
/// [`Lens::tuned`]: crate::Lens::tuned
/// [`TunedLensTraining`]: crate::TunedLensTraining
#[derive(Clone)]
pub struct TunedLens {
    pub(super) maps: Maps,
    /// How it was trained, in words; empty if it was not.
    pub training: String,
}

/// One line: its size, its model, how it was trained.
impl fmt::Debug for TunedLens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = self.maps.matrices.0.size();
        let how = if self.training.is_empty() { "not trained" } else { &self.training };
        let (layers, d) = (shape[0], shape[2]);
        write!(
            f,
            "TunedLens: {layers} layers of {d} dimensions of {}; {how}",
            self.maps.owner.model
        )
    }
}

/// All but the tensors.
#[derive(Serialize, Deserialize)]
struct Facts {
    #[serde(flatten)]
    owner: Owner,
    training: String,
}

const FORMAT: &str = "thalweg tuned lens 1";

impl TunedLens {
    /// Translators that change nothing: the logit lens, bit by bit.
    pub fn zero(model: &Model) -> Self {
        let (layers, d) = (model.config().n_layers as i64, model.config().d_model as i64);
        let kind = if model.kind() == Kind::Double { Kind::Double } else { Kind::Float };
        let options = (kind, tch::Device::Cpu);
        let (weights, biases) =
            (Tensor::zeros([layers, d, d], options), Tensor::zeros([layers, d], options));
        Self::of(Owner::of(model), &weights, &biases)
    }

    /// Translators with given `A [Layer, DModel, DModel]` and `b [Layer, DModel]`, copied.
    pub fn from_parts(model: &Model, weights: &Tensor, biases: &Tensor) -> Result<Self> {
        let (layers, d) = (model.config().n_layers as i64, model.config().d_model as i64);
        for (name, t, shape) in [("A", weights, vec![layers, d, d]), ("b", biases, vec![layers, d])]
        {
            ensure!(
                t.size() == shape,
                "tuned lens: {name} is {:?}, expected {shape:?} for {model:?}",
                t.size()
            );
        }
        Ok(Self::of(Owner::of(model), &weights.detach().copy(), &biases.detach().copy()))
    }

    fn of(owner: Owner, weights: &Tensor, biases: &Tensor) -> Self {
        let maps = Maps {
            title: "tuned lens",
            owner,
            matrices: Held(weights.shallow_clone()),
            biases: Some(Held(biases.shallow_clone())),
            residual: true,
        };
        TunedLens { maps, training: String::new() }
    }

    /// `A` of each layer, `[Layer, DModel, DModel]`, a copy.
    pub fn weights(&self) -> Tensor {
        self.maps.matrices.0.copy()
    }

    /// `b` of each layer, `[Layer, DModel]`, a copy.
    pub fn biases(&self) -> Tensor {
        let biases = self.maps.biases.as_ref();
        biases.map_or_else(|| self.maps.matrices.0.select(2, 0).zeros_like(), |b| b.0.copy())
    }

    /// Writes a safetensors file with the translators, the fingerprint of their model, and how they
    /// were trained.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let facts = Facts { owner: self.maps.owner.clone(), training: self.training.clone() };
        let metadata = HashMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("facts".to_owned(), serde_json::to_string(&facts)?),
        ]);
        let tensors = [("weights", self.weights()), ("biases", self.biases())]
            .map(|(n, t)| (n.to_owned(), t));
        crate::files::write(path.as_ref(), &tensors, metadata)
    }

    /// Reads what [`save`](Self::save) wrote. It reads its own model only: [`Lens::tuned`] refuses
    /// any other.
    ///
    /// [`Lens::tuned`]: crate::Lens::tuned
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let files = Files::open(path)?;
        read(&files)
            .map_err(|error| anyhow::anyhow!("{}: not a tuned lens: {error:#}", path.display()))
    }
}

fn read(files: &Files) -> Result<TunedLens> {
    let format = files.note("format").context("its metadata name no format")?;
    ensure!(format == FORMAT, "its format is {format:?}, expected {FORMAT:?}");
    let facts: Facts =
        serde_json::from_str(files.note("facts").context("its metadata lack facts")?)
            .context("facts")?;
    let shape = files.shape("weights").context("weights is missing")?;
    let &[layers, d, _] = shape else {
        anyhow::bail!("weights is {shape:?}, expected [Layer, DModel, DModel]")
    };
    let weights = tensor(files, "weights", &[layers, d, d])?;
    let biases = tensor(files, "biases", &[layers, d])?;
    let lens = TunedLens::of(facts.owner, &weights, &biases);
    Ok(TunedLens { training: facts.training, ..lens })
}
