//! The Jacobian lens: what a layer's stream does to the final stream, to first order, in the mean.
//!
//! As in Anthropic's jacobian-lens (2026), <https://github.com/anthropics/jacobian-lens>: each rung
//! `h` is read as `unembed(norm(J h))`, with `J` the mean over prompts and source positions `p` of
//! the derivative of the final stream, summed over the positions `p' >= p` it is written to, by the
//! stream at `p`. Nothing is trained; what nonlinear parts do beyond their mean slope is not seen.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use super::maps::{Maps, Owner, tensor};
use crate::files::Files;
use crate::hook::held::Held;
use crate::model::Model;

/// Mean derivatives of the final stream by the stream before each block. [`JacobianFit`] finds them,
/// [`Lens::jacobian`] reads with them.
///
/// [`JacobianFit`]: crate::JacobianFit
/// [`Lens::jacobian`]: crate::Lens::jacobian
#[derive(Clone)]
pub struct JacobianLens {
    /// `[Layer, DModel, DModel]`, f64: rows are dimensions of the final stream.
    pub(super) mean: Held,
    pub(super) facts: Facts,
}

/// All but the tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Facts {
    #[serde(flatten)]
    pub(super) owner: Owner,
    /// Prompts averaged.
    pub(super) prompts: usize,
    /// First tokens of each prompt left out.
    pub(super) skip_first: usize,
    /// Which derivative, in words.
    pub(super) what: String,
}

const FORMAT: &str = "thalweg Jacobian lens 1";

/// One line: its size, its prompts, its model.
impl fmt::Debug for JacobianLens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shape, facts) = (self.mean.0.size(), &self.facts);
        write!(
            f,
            "JacobianLens: {} layers of {} dimensions, {}, mean of {} prompts without their first {} tokens, of {}",
            shape[0], shape[2], facts.what, facts.prompts, facts.skip_first, facts.owner.model
        )
    }
}

impl JacobianLens {
    /// The mean derivative for the stream before block `layer`, `[DModel, DModel]`, f64, a copy: rows
    /// are dimensions of the final stream, columns those of the layer's.
    pub fn matrix(&self, layer: usize) -> Result<Tensor> {
        let n_layers = self.mean.0.size()[0];
        ensure!(
            (layer as i64) < n_layers,
            "Jacobian lens: no layer {layer}, it has layers 0..{}",
            n_layers - 1
        );
        Ok(self.mean.0.get(layer as i64).copy())
    }

    /// Prompts averaged.
    pub fn prompts(&self) -> usize {
        self.facts.prompts
    }

    /// Takes in a lens of other prompts: the mean of both, each prompt counting the same.
    pub fn merge(&mut self, other: &JacobianLens) -> Result<()> {
        let theirs = Facts { prompts: self.facts.prompts, ..other.facts.clone() };
        ensure!(
            self.facts == theirs && self.mean.0.size() == other.mean.0.size(),
            "these Jacobian lenses differ in more than their prompts and cannot be merged: {self:?} and {other:?}"
        );
        let (a, b) = (self.facts.prompts as f64, other.facts.prompts as f64);
        self.mean = Held((&self.mean.0 * a + &other.mean.0 * b) / (a + b));
        self.facts.prompts += other.facts.prompts;
        Ok(())
    }

    /// Writes a safetensors file with the matrices and the fingerprint of their model.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let metadata = HashMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("facts".to_owned(), serde_json::to_string(&self.facts)?),
        ]);
        let tensors = [("mean".to_owned(), self.mean.0.shallow_clone())];
        crate::files::write(path.as_ref(), &tensors, metadata)
    }

    /// Reads what [`save`](Self::save) wrote.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let files = Files::open(path)?;
        read(&files)
            .map_err(|error| anyhow::anyhow!("{}: not a Jacobian lens: {error:#}", path.display()))
    }

    pub(super) fn maps(&self) -> Maps {
        Maps {
            title: "Jacobian lens",
            owner: self.facts.owner.clone(),
            matrices: self.mean.clone(),
            biases: None,
            residual: false,
        }
    }

    pub(super) fn new(model: &Model, mean: Tensor, facts: (usize, usize, String)) -> Self {
        let (prompts, skip_first, what) = facts;
        let facts = Facts { owner: Owner::of(model), prompts, skip_first, what };
        // Where an opened lens lies too, so that both can be merged.
        JacobianLens { mean: Held(mean.to_device(Device::Cpu)), facts }
    }
}

fn read(files: &Files) -> Result<JacobianLens> {
    let format = files.note("format").context("its metadata name no format")?;
    ensure!(format == FORMAT, "its format is {format:?}, expected {FORMAT:?}");
    let facts = files.note("facts").context("its metadata lack facts")?;
    let facts: Facts = serde_json::from_str(facts).context("facts")?;
    let shape = files.shape("mean").context("mean is missing")?;
    let &[layers, d, _] = shape else {
        anyhow::bail!("mean is {shape:?}, expected [Layer, DModel, DModel]")
    };
    ensure!(facts.prompts > 0, "it averages no prompt");
    Ok(JacobianLens { mean: Held(tensor(files, "mean", &[layers, d, d])?), facts })
}
