//! What attention carries from token to token: `A_ij v_j W_O`, one vector for each head and pair.
//!
//! Kobayashi et al. 2020, "Attention is not only a weight", <https://arxiv.org/abs/2004.10102>. The
//! values are as recorded: read through the norm, with their bias, shared by the query heads of a
//! group. Summed over tokens they are what the head writes; the output's own bias belongs to none.

use anyhow::{Result, anyhow};
use tch::{Kind, Tensor};

use crate::hook::cache::Cache;
use crate::hook::site::{Point, Site};
use crate::hook::sites::Sites;
use crate::index::{Position, Positions};
use crate::model::{Model, W};

/// Most numbers that vectors of many pairs take at once.
const AT_ONCE: i64 = 1 << 24;

/// What [`alti`](crate::alti) and the value-weighted methods need:
/// `Plan::new().cache(mixing_sites())`.
pub fn mixing_sites() -> Sites {
    let points = [Point::ResidPre, Point::V, Point::Pattern, Point::ResidMid];
    let mut sites: Vec<Sites> = points.map(Sites::from).to_vec();
    sites.push(Site::FinalScale.into());
    sites.into()
}

/// The vector that each head of a layer carries from each token to one position:
/// `[Batch, Head, Key, DModel]`, f64. Summed over `Key` it is `HeadResult` there; tokens after the
/// position give 0. Needs `V` and `Pattern`.
///
/// ```
/// use thalweg::{Model, Plan, Point, attention_vectors, mixing_sites};
/// let model = Model::load("data/models/tiny-world")?;
/// let tokens = model.tokens("Mary and John went to the store")?;
/// let plan = Plan::new().cache(mixing_sites()).cache(Point::HeadResult);
/// let cache = model.run(&tokens, &plan)?.cache;
/// let vectors = attention_vectors(&model, &cache, 1, -1)?;
/// let written = vectors.sum_dim_intlist([2i64].as_slice(), false, None);
/// let result = cache.get(Point::HeadResult.at(1))?.select(1, -1);
/// assert!(f64::try_from((written - result).abs().max())? < 1e-4);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn attention_vectors(
    model: &Model,
    cache: &Cache,
    layer: usize,
    position: impl Into<Position>,
) -> Result<Tensor> {
    let tokens = cache.tokens();
    let places = tokens.places(Positions::One(position.into()))?;
    let mut rows = Vec::new();
    for (row, at) in places.iter().enumerate() {
        let own = Carried::new("attention_vectors", model, cache, layer, row)?;
        let query = (tokens.padding(row) + at[0]) as i64;
        rows.push(own.pattern.select(1, query).unsqueeze(-1) * &own.written);
    }
    Ok(Tensor::stack(&rows, 0))
}

/// One row of one layer.
pub(super) struct Carried {
    /// `[Head, Query, Key]`, f64.
    pub(super) pattern: Tensor,
    /// What each head writes where it attends to a token alone, `v_j W_O`: `[Head, Key, DModel]`, f64.
    pub(super) written: Tensor,
}

impl Carried {
    pub(super) fn new(
        what: &str,
        model: &Model,
        cache: &Cache,
        layer: usize,
        row: usize,
    ) -> Result<Self> {
        let pattern = site(what, model, cache, Point::Pattern.at(layer), row)?;
        let v = values(what, model, cache, layer, row)?;
        let written = v.bmm(&model.weight(W::O, layer)?.to_kind(Kind::Double));
        Ok(Carried { pattern, written })
    }

    /// `measure` of what all heads together carry to some queries, `[Key, Query, DModel]`, where the
    /// first query is given: `[Query, Key]`. Queries go in parts, so that memory stays small.
    pub(super) fn measured(&self, measure: impl Fn(Tensor, i64) -> Tensor) -> Tensor {
        let [_, keys, d] = three(&self.written);
        let by_key = self.written.transpose(0, 1); // [Key, Head, DModel]
        let part = (AT_ONCE / (keys * d)).clamp(1, keys);
        let mut parts = Vec::new();
        for first in (0..keys).step_by(part as usize) {
            let queries = self.pattern.narrow(1, first, part.min(keys - first));
            let carried = queries.permute([2, 1, 0]).bmm(&by_key); // [Key, Query, DModel]
            parts.push(measure(carried, first).tr());
        }
        Tensor::cat(&parts, 0)
    }
}

/// Each query head's values of one row: `[Head, Key, DHead]`, f64.
pub(super) fn values(
    what: &str,
    model: &Model,
    cache: &Cache,
    layer: usize,
    row: usize,
) -> Result<Tensor> {
    let config = model.config();
    let v = site(what, model, cache, Point::V.at(layer), row)?.transpose(0, 1); // [KvHead, Key, DHead]
    let group = (config.n_heads / config.n_kv_heads) as i64;
    Ok(v.repeat_interleave_self_int(group, 0, None::<i64>))
}

/// One row of what is cached at a site, f64, where the model is: a cache may lie elsewhere.
pub(super) fn site(
    what: &str,
    model: &Model,
    cache: &Cache,
    site: Site,
    row: usize,
) -> Result<Tensor> {
    let x = cache
        .get(site)
        .map_err(|error| anyhow!("{what} needs Plan::new().cache(mixing_sites()): {error}"))?;
    Ok(x.get(row as i64).to_device(model.device()).to_kind(Kind::Double))
}

fn three(x: &Tensor) -> [i64; 3] {
    let size = x.size();
    [size[0], size[1], size[2]]
}
