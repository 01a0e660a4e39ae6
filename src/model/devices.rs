//! Where the layers lie: all on one device, or in pieces, one after the other, over several.
//!
//! The stream moves where a piece ends. What a run takes and gives (tokens, interventions, recorded
//! activations, gradients, logits) lies on the first device, whatever device computed it.

use std::fmt;
use std::path::Path;

use anyhow::{Result, ensure};
use tch::{Device, Kind};

use super::{KINDS, Model};

/// Devices of consecutive pieces of about equally many layers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Devices {
    pieces: Vec<Device>,
    n_layers: usize,
}

impl Devices {
    pub(super) fn new(pieces: &[Device], n_layers: usize) -> Result<Self> {
        ensure!(!pieces.is_empty(), "no devices: expected one at least");
        ensure!(
            pieces.len() <= n_layers,
            "{} devices for {n_layers} layers: expected at most one a layer",
            pieces.len()
        );
        Ok(Devices { pieces: pieces.to_vec(), n_layers })
    }

    pub(super) fn one(device: Device) -> Self {
        Devices { pieces: vec![device], n_layers: 1 }
    }

    /// Where a layer lies.
    pub(super) fn of(&self, layer: usize) -> Device {
        let piece = layer * self.pieces.len() / self.n_layers;
        self.pieces[piece.min(self.pieces.len() - 1)]
    }

    /// Where the embedding lies, and all that goes in and comes out.
    pub(super) fn first(&self) -> Device {
        self.pieces[0]
    }

    /// Where the final norm and the unembedding lie; tied to the embedding, they lie with it.
    pub(super) fn last(&self, tied: bool) -> Device {
        self.pieces[if tied { 0 } else { self.pieces.len() - 1 }]
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.pieces.iter().map(|device| format!("{device:?}")).collect();
        f.write_str(&names.join(", "))
    }
}

impl Model {
    /// Loads with the layers spread over several devices, for a model that no single one holds: the
    /// first device takes the embedding and the first layers, the last one the last layers and the
    /// unembedding. Each device gets about equally many layers, in order; with as many devices as
    /// layers each layer has its own entry, so that any cut can be chosen.
    ///
    /// ```no_run
    /// use thalweg::tch::{Device::Cuda, Kind};
    /// # use thalweg::Model;
    /// let model = Model::load_spread("Llama-3.1-70B", &[Cuda(0), Cuda(1)], Kind::BFloat16)?;
    /// assert_eq!(model.device(), Cuda(0)); // where tokens go, and activations come out
    /// assert_eq!(model.devices()[79], Cuda(1));
    /// # thalweg::anyhow::Ok(())
    /// ```
    pub fn load_spread(dir: impl AsRef<Path>, devices: &[Device], kind: Kind) -> Result<Self> {
        ensure!(KINDS.contains(&kind), "kind {kind:?}: expected Double, Float, Half or BFloat16");
        Self::open(dir.as_ref(), devices, Some(kind))
    }

    /// The device of each layer.
    pub fn devices(&self) -> Vec<Device> {
        let devices = &self.weights.devices;
        (0..self.config.n_layers).map(|layer| devices.of(layer)).collect()
    }
}
