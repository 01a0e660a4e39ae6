//! Attention rollout: attention, and the stream past it, multiplied through the layers.
//!
//! Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers",
//! <https://arxiv.org/abs/2005.00928>. With norms in place of weights: Kobayashi et al. 2021,
//! "Incorporating Residual and Normalization Layers into Analysis of Masked Language Models",
//! <https://arxiv.org/abs/2109.07152>.
//!
//! Both leave the MLPs out. Plain rollout takes attention for transport: a sink that is looked at and
//! says nothing swallows it.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::carried::{Carried, site};
use super::mixing::Mixing;
use crate::hook::cache::Cache;
use crate::hook::site::Point;
use crate::model::Model;
use crate::show::progress;

/// Attention rollout: each layer is half the mean pattern of its heads and half the token itself.
/// Needs `Pattern`.
///
/// ```
/// use thalweg::{Model, Plan, Point, attention_rollout, heatmap};
/// let model = Model::load("data/models/tiny-world")?;
/// let tokens = model.tokens("The capital of France is")?;
/// let cache = model.run(&tokens, &Plan::new().cache(Point::Pattern))?.cache;
/// heatmap(&attention_rollout(&cache)?.at(-1)?)?; // [Layer, Pos]
/// # thalweg::anyhow::Ok(())
/// ```
pub fn attention_rollout(cache: &Cache) -> Result<Mixing> {
    let layers = (0..cache.n_layers()).map(|layer| {
        let pattern = cache.get(Point::Pattern.at(layer))?.to_kind(Kind::Double);
        let mean = pattern.mean_dim([1i64].as_slice(), false, None); // [Batch, Query, Key]
        let own = Tensor::eye(mean.size()[1], (Kind::Double, mean.device()));
        Ok((mean + own) * 0.5)
    });
    Mixing::new("attention rollout", cache, layers.collect::<Result<Vec<_>>>()?)
}

/// Rollout of norms: a layer takes from token j to position i the norm of what its heads together
/// carry there, for the token itself with the stream that passes by. Needs
/// [`mixing_sites`](crate::mixing_sites).
pub fn value_weighted_rollout(model: &Model, cache: &Cache) -> Result<Mixing> {
    let norm = |carried: Tensor, _: &Tensor| {
        carried.norm_scalaropt_dim(2, [-1i64].as_slice(), false) // [Key, Query]
    };
    mixed("value-weighted rollout", (model, cache), norm)
}

/// A mixing whose layers are `measure(c, y)` of `c [Key, Query, DModel]`, what comes from each token
/// through all heads and past them, and `y [Query, DModel]`, the stream after attention.
pub(super) fn mixed(
    name: &str,
    (model, cache): (&Model, &Cache),
    measure: impl Fn(Tensor, &Tensor) -> Tensor,
) -> Result<Mixing> {
    let mut layers = Vec::new();
    for layer in progress(0..cache.n_layers(), name).unit("layers") {
        let rows = (0..cache.tokens().batch()).map(|row| {
            let carried = Carried::new(name, model, cache, layer, row)?;
            let below = site(name, model, cache, Point::ResidPre.at(layer), row)?;
            let after = site(name, model, cache, Point::ResidMid.at(layer), row)?;
            Ok(carried.measured(|from, first| {
                // What stays at its own position passes attention by: key = first + query.
                let n = from.size()[1];
                let own = below.narrow(0, first, n).tr(); // [DModel, Query]
                let _ = from.diagonal(-first, 0, 1).g_add_(&own);
                measure(from, &after.narrow(0, first, n))
            }))
        });
        layers.push(Tensor::stack(&rows.collect::<Result<Vec<_>>>()?, 0));
    }
    let mixing = Mixing::new(name, cache, layers)?;
    Ok(mixing.noted("left out", "MLPs, and the bias of attention's output"))
}
