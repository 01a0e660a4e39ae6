//! A linear map for each place where a block begins, and the model that they belong to.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::files::Files;
use crate::hook::held::Held;
use crate::hook::site::{Point, Site};
use crate::model::Model;

/// What a lens is a lens of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Owner {
    /// The model in words.
    pub(super) model: String,
    /// Its fingerprint.
    pub(super) weights: String,
}

impl Owner {
    pub(super) fn of(model: &Model) -> Self {
        Owner { model: format!("{model:?}"), weights: model.weights_hash() }
    }

    /// An error unless `model` is the one. `what` begins it.
    pub(super) fn check(&self, what: &str, model: &Model) -> Result<()> {
        let found = model.weights_hash();
        ensure!(
            found == self.weights,
            "this {what} belongs to another model: to weights {} of {}, found {found} of {model:?}",
            self.weights,
            self.model
        );
        Ok(())
    }
}

/// Maps of the stream at `ResidPre` of each layer, which is `ResidPost` of the one below; the stream
/// above the last block goes through as it is.
#[derive(Debug, Clone)]
pub(super) struct Maps {
    pub(super) title: &'static str,
    pub(super) owner: Owner,
    /// `[Layer, DModel, DModel]`, applied from the left: `M h`.
    pub(super) matrices: Held,
    /// `[Layer, DModel]`
    pub(super) biases: Option<Held>,
    /// Whether the map is `h + M h + b`.
    pub(super) residual: bool,
}

impl Maps {
    pub(super) fn title(&self) -> &'static str {
        self.title
    }

    pub(super) fn check(&self, model: &Model) -> Result<()> {
        self.owner.check(self.title, model)
    }

    /// Whether there is a map for a place of the stream.
    pub(super) fn reads(&self, site: Site) -> bool {
        begins(site).is_some_and(|layer| layer <= self.n_layers())
    }

    /// Vectors `[.., DModel]` of a place of the stream, mapped; in at least f32.
    pub(super) fn apply(&self, site: Site, x: &Tensor) -> Result<Tensor> {
        let n_layers = self.n_layers();
        let layer = begins(site).filter(|layer| *layer <= n_layers);
        let layer = layer.with_context(|| {
            format!(
                "the {} has no map for {site}, expected ResidPre or ResidPost of layers 0..{}",
                self.title,
                n_layers.saturating_sub(1)
            )
        })?;
        let d = self.matrices.0.size()[2];
        ensure!(
            x.size().last() == Some(&d),
            "{}: the vectors are {:?}, expected [.., DModel] = [.., {d}]",
            self.title,
            x.size()
        );
        if layer == n_layers {
            return Ok(x.shallow_clone());
        }
        let _guard = tch::no_grad_guard();
        let kind = if x.kind() == Kind::Double { Kind::Double } else { Kind::Float };
        let own = |t: &Held| t.0.get(layer as i64).to_device(x.device()).to_kind(kind);
        let x = x.to_kind(kind);
        let mut y = x.matmul(&own(&self.matrices).tr());
        if let Some(biases) = &self.biases {
            y += own(biases);
        }
        Ok(if self.residual { x + y } else { y })
    }

    fn n_layers(&self) -> usize {
        self.matrices.0.size()[0] as usize
    }
}

/// The block that begins with the stream of a place; absent: none does.
fn begins(site: Site) -> Option<usize> {
    match site {
        Site::Embed => Some(0),
        Site::Block(layer, Point::ResidPre) => Some(layer),
        Site::Block(layer, Point::ResidPost) => Some(layer + 1),
        _ => None,
    }
}

/// A tensor of a file, of an expected shape.
pub(super) fn tensor(files: &Files, name: &str, shape: &[i64]) -> Result<Tensor> {
    let found = files.shape(name).with_context(|| format!("{name} is missing"))?;
    ensure!(found == shape, "{name} is {found:?}, expected {shape:?}");
    files.tensor(name)
}
