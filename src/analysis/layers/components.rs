//! What each head and each MLP writes: how long it is, and which way it points.
//!
//! Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits",
//! <https://transformer-circuits.pub/2021/framework>: the stream is the sum of these. Heads' lengths
//! are found without their vectors: `|z W_O|^2 = z G z'` with the Gram matrix `G = W_O W_O'`.
//!
//! As in the other measures of the stream, each prompt's first token is marked as missing.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::stream::{cosine, dot, norm};
use crate::analysis::frame;
use crate::grid::Grid;
use crate::hook::cache::Cache;
use crate::hook::site::{Axis, Point, Site};
use crate::model::{Model, W};

/// The stream that a component is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Against {
    /// What the component reads and adds to: `ResidPre` for heads and attention, `ResidMid` for MLPs.
    /// A negative cosine takes away what is there.
    Before,
    /// The stream after the last block.
    Final,
}

/// Length (L2 norm) of what the embedding, each attention layer and each MLP write: `[Component,
/// Pos]`, or `[Batch, Component, Pos]`; `embed`, `L0 attn`, `L0 mlp`, ... Needs `Embed` or `ResidPre`
/// of layer 0, `AttnOut` and `MlpOut`.
///
/// ```no_run
/// # use thalweg::{Axis, Model, Plan, Point, component_norms};
/// # let model = Model::load("data/models/tiny-world")?;
/// # let tokens = model.tokens("Mary and John went to the store")?;
/// let sites = [Point::ResidPre, Point::AttnOut, Point::MlpOut];
/// let run = model.run(&tokens, &Plan::new().cache(sites))?;
/// let by_component = component_norms(&run.cache)?.mean(Axis::Pos)?;
/// assert_eq!(by_component.shape(), [1 + 2 * model.config().n_layers]);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn component_norms(cache: &Cache) -> Result<Grid> {
    let (mut labels, mut values) = (vec!["embed".to_owned()], vec![norm(&embedding(cache)?)]);
    for (label, site, _) in writers(cache) {
        values.push(norm(&get(cache, site)?));
        labels.push(label);
    }
    finish(cache, (Axis::Component, labels), &values, "L2 norm", "length of what is written")
}

/// Cosine of what each attention layer and each MLP write with the stream, in -1..1; against the
/// final stream that of the embedding too. Axes as those of [`component_norms`]. A component that
/// writes nothing has none: its cells are missing. Needs `AttnOut` and `MlpOut` beside the stream
/// asked for.
pub fn component_cosines(cache: &Cache, against: Against) -> Result<Grid> {
    let end = end(cache, against)?;
    let (mut labels, mut values) = (Vec::new(), Vec::new());
    if let Some(end) = &end {
        labels.push("embed".to_owned());
        values.push(cosine(&embedding(cache)?, end));
    }
    for (label, site, before) in writers(cache) {
        let own = match &end {
            Some(end) => end.shallow_clone(),
            None => stream(cache, before)?,
        };
        values.push(cosine(&get(cache, site)?, &own));
        labels.push(label);
    }
    let name = format!("cosine of what is written with the stream, {against:?}");
    let grid = finish(cache, (Axis::Component, labels), &values, "cosine", &name)?;
    Ok(grid.missing_where(f64::is_nan))
}

/// Length (L2 norm) of what each head writes, without the output bias: `[Layer, Head, Pos]`, or
/// `[Batch, Layer, Head, Pos]`. Needs `Z`.
pub fn head_norms(model: &Model, cache: &Cache) -> Result<Grid> {
    let mut layers = Vec::new();
    for layer in 0..cache.n_layers() {
        let z = heads(cache, layer)?.to_device(model.device()); // [Head, Batch Pos, DHead]
        let out = model.weight(W::O, layer)?.to_kind(Kind::Double); // [Head, DHead, DModel]
        layers.push(squares(&z, &out).sqrt());
    }
    finish_heads(cache, layers, "L2 norm", "length of what each head writes")
}

/// Cosine of what each head writes with the stream, in -1..1: axes as those of [`head_norms`]. A head
/// that writes nothing has none: its cells are missing. Needs `Z` beside the stream asked for.
pub fn head_cosines(model: &Model, cache: &Cache, against: Against) -> Result<Grid> {
    let end = end(cache, against)?;
    let mut layers = Vec::new();
    for layer in 0..cache.n_layers() {
        let own = match &end {
            Some(end) => end.shallow_clone(),
            None => stream(cache, Point::ResidPre.at(layer))?,
        };
        let own = own.flatten(0, 1).to_device(model.device()); // [Batch Pos, DModel]
        let z = heads(cache, layer)?.to_device(model.device());
        let out = model.weight(W::O, layer)?.to_kind(Kind::Double);
        // What a head's values would have to be to write along the stream: [Head, Batch Pos, DHead].
        let along = own.matmul(&out.transpose(1, 2));
        let lengths = squares(&z, &out).sqrt() * norm(&own);
        layers.push((dot(&z, &along) / lengths).clamp(-1.0, 1.0));
    }
    let name = format!("cosine of what each head writes with the stream, {against:?}");
    Ok(finish_heads(cache, layers, "cosine", &name)?.missing_where(f64::is_nan))
}

/// Squared lengths of `z W_O` by the Gram matrix of each head: `[Head, Batch Pos]`.
fn squares(z: &Tensor, out: &Tensor) -> Tensor {
    let gram = out.matmul(&out.transpose(1, 2)); // [Head, DHead, DHead]
    dot(&z.matmul(&gram), z).clamp_min(0.0)
}

/// What mixes the values of each head, `[Head, Batch Pos, DHead]`, f64.
fn heads(cache: &Cache, layer: usize) -> Result<Tensor> {
    Ok(get(cache, Point::Z.at(layer))?.flatten(0, 1).transpose(0, 1).contiguous())
}

/// Label and site of all that blocks write, and the stream it is added to.
fn writers(cache: &Cache) -> impl Iterator<Item = (String, Site, Site)> {
    (0..cache.n_layers()).flat_map(|layer| {
        [
            (format!("L{layer} attn"), Point::AttnOut.at(layer), Point::ResidPre.at(layer)),
            (format!("L{layer} mlp"), Point::MlpOut.at(layer), Point::ResidMid.at(layer)),
        ]
    })
}

fn embedding(cache: &Cache) -> Result<Tensor> {
    match cache.contains(Site::Embed) {
        true => get(cache, Site::Embed),
        false => get(cache, Point::ResidPre.at(0)),
    }
}

/// The stream before a block, which is the one after the block below.
fn stream(cache: &Cache, site: Site) -> Result<Tensor> {
    match site {
        Site::Block(0, Point::ResidPre) => embedding(cache),
        Site::Block(layer, Point::ResidPre) if !cache.contains(site) => {
            get(cache, Point::ResidPost.at(layer - 1))
        }
        site => get(cache, site),
    }
}

/// The final stream, where that is what is compared with.
fn end(cache: &Cache, against: Against) -> Result<Option<Tensor>> {
    match against {
        Against::Before => Ok(None),
        Against::Final => {
            Ok(Some(get(cache, Point::ResidPost.at(cache.n_layers().saturating_sub(1)))?))
        }
    }
}

fn get(cache: &Cache, site: Site) -> Result<Tensor> {
    Ok(cache.get(site)?.to_kind(Kind::Double))
}

/// A grid of one `[Head, Batch Pos]` a layer.
fn finish_heads(cache: &Cache, layers: Vec<Tensor>, unit: &str, name: &str) -> Result<Grid> {
    let (batch, width) = (cache.tokens().batch() as i64, cache.tokens().width() as i64);
    let n_heads = layers.first().map_or(0, |layer| layer.size()[0]);
    let values = Tensor::stack(&layers, 0).view([-1, n_heads, batch, width]);
    let values = values.permute([2, 0, 1, 3]); // [Batch, Layer, Head, Pos]
    let axes = [
        (Axis::Layer, frame::numbered('L', cache.n_layers())),
        (Axis::Head, frame::numbered('H', n_heads as usize)),
        (Axis::Pos, frame::position_labels(cache.tokens())),
    ];
    left_out(frame::batched(cache, &values, &axes, unit)?.name(name), cache)
}

/// A grid of one `[Batch, Pos]` for each label of an axis.
fn finish(
    cache: &Cache,
    axis: (Axis, Vec<String>),
    values: &[Tensor],
    unit: &str,
    name: &str,
) -> Result<Grid> {
    let axes = [axis, (Axis::Pos, frame::position_labels(cache.tokens()))];
    let grid = frame::batched(cache, &Tensor::stack(values, 1), &axes, unit)?;
    left_out(grid.name(name), cache)
}

fn left_out(grid: Grid, cache: &Cache) -> Result<Grid> {
    Ok(frame::hide(grid, cache.tokens(), 1)?.note("left out", "each prompt's first token"))
}
