//! Components that can be taken out: heads, neurons, whole attention layers and MLPs.

use std::fmt;

use anyhow::{Result, ensure};

use crate::config::Config;
use crate::hook::intervention::Intervention;
use crate::hook::site::{Point, Site};

/// A part of the model that writes to the residual stream.
///
/// ```
/// use thalweg::{Component, Model};
/// let model = Model::load("data/models/tiny-world")?;
/// let heads = Component::heads(model.config());
/// assert_eq!((heads.len(), heads[9].to_string().as_str()), (32, "L1H1"));
/// assert_eq!(Component::Mlp(2).to_string(), "L2 mlp");
/// # thalweg::anyhow::Ok(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Component {
    /// One query head: layer, head. Its `Z` is replaced.
    Head(usize, usize),
    /// One neuron: layer, neuron. Its `MlpPost` is replaced.
    Neuron(usize, usize),
    /// All heads of a layer: its `AttnOut`, the output bias included, is replaced.
    Attention(usize),
    /// The MLP of a layer: its `MlpOut` is replaced.
    Mlp(usize),
    /// Attention and MLP of a layer.
    Layer(usize),
}

impl Component {
    /// Every query head, layer by layer.
    pub fn heads(config: &Config) -> Vec<Component> {
        let heads = |layer| (0..config.n_heads).map(move |head| Component::Head(layer, head));
        (0..config.n_layers).flat_map(heads).collect()
    }

    /// Every neuron of these layers.
    pub fn neurons(config: &Config, layers: impl IntoIterator<Item = usize>) -> Vec<Component> {
        let neurons = |layer| (0..config.d_mlp).map(move |neuron| Component::Neuron(layer, neuron));
        layers.into_iter().flat_map(neurons).collect()
    }

    /// The attention of every layer.
    pub fn attentions(config: &Config) -> Vec<Component> {
        (0..config.n_layers).map(Component::Attention).collect()
    }

    /// The MLP of every layer.
    pub fn mlps(config: &Config) -> Vec<Component> {
        (0..config.n_layers).map(Component::Mlp).collect()
    }

    /// Every layer, attention and MLP together.
    pub fn layers(config: &Config) -> Vec<Component> {
        (0..config.n_layers).map(Component::Layer).collect()
    }

    /// The sites whose values make it up.
    pub(super) fn sites(self) -> Vec<Site> {
        match self {
            Component::Head(layer, _) => vec![Point::Z.at(layer)],
            Component::Neuron(layer, _) => vec![Point::MlpPost.at(layer)],
            Component::Attention(layer) => vec![Point::AttnOut.at(layer)],
            Component::Mlp(layer) => vec![Point::MlpOut.at(layer)],
            Component::Layer(layer) => vec![Point::AttnOut.at(layer), Point::MlpOut.at(layer)],
        }
    }

    /// An intervention on its part of its sites alone.
    pub(super) fn narrow(self, what: Intervention) -> Intervention {
        match self {
            Component::Head(_, head) => what.head(head),
            Component::Neuron(_, neuron) => what.neuron(neuron),
            Component::Attention(_) | Component::Mlp(_) | Component::Layer(_) => what,
        }
    }

    /// Of one of its sites' tensors `[Batch, Pos, ..]`, its part.
    pub(super) fn part(self, x: &tch::Tensor) -> tch::Tensor {
        match self {
            Component::Head(_, head) => x.select(2, head as i64),
            Component::Neuron(_, neuron) => x.narrow(2, neuron as i64, 1),
            Component::Attention(_) | Component::Mlp(_) | Component::Layer(_) => x.shallow_clone(),
        }
    }

    /// Fails unless the model has it.
    pub(super) fn check(self, config: &Config) -> Result<()> {
        let (layer, within) = match self {
            Component::Head(layer, head) => (layer, Some((head, config.n_heads, "heads"))),
            Component::Neuron(layer, neuron) => (layer, Some((neuron, config.d_mlp, "neurons"))),
            Component::Attention(layer) | Component::Mlp(layer) | Component::Layer(layer) => {
                (layer, None)
            }
        };
        ensure!(layer < config.n_layers, "{self}: the model has layers 0..{}", config.n_layers - 1);
        if let Some((index, count, what)) = within {
            ensure!(index < count, "{self}: the model has {what} 0..{} a layer", count - 1);
        }
        Ok(())
    }
}

/// `L1H4`, `L0N17`, `L2 attn`, `L2 mlp`, `L2`.
impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Component::Head(layer, head) => write!(f, "L{layer}H{head}"),
            Component::Neuron(layer, neuron) => write!(f, "L{layer}N{neuron}"),
            Component::Attention(layer) => write!(f, "L{layer} attn"),
            Component::Mlp(layer) => write!(f, "L{layer} mlp"),
            Component::Layer(layer) => write!(f, "L{layer}"),
        }
    }
}
