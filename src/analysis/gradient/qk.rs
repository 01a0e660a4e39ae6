//! The QK fix of AtP* (Kramár et al. 2024, <https://arxiv.org/abs/2403.00745>, section 3.1.1): the
//! effect of patching a query or a key through the pattern it would give.
//!
//! A saturated softmax has a gradient of zero where patching moves all of the attention. So the
//! softmax is computed anew, with the patched query, or with each patched key, and only its change
//! is multiplied with a gradient, that of the metric to the pattern. Patching one key changes one
//! score in each row, so its new row has a closed form and no softmax is run for it.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::atp::Estimates;
use crate::hook::cache::Cache;
use crate::hook::plan::exists;
use crate::hook::site::{Point, Site};

/// Effects `[Batch, Pos, heads]` of patching each query or key of a layer alone.
pub(super) type Fix = fn(&Estimates, &Cache, usize) -> Result<Tensor>;

/// The sites the fix reads beside those of queries and keys that are asked for.
pub(super) fn needed(sites: &[Site]) -> Vec<Site> {
    let asked = |point| matches!(point, Point::Q | Point::RotQ | Point::K | Point::RotK);
    let layers = sites.iter().filter(|site| site.point().is_some_and(asked));
    layers
        .filter_map(|site| site.layer())
        .flat_map(|layer| [Point::RotQ, Point::RotK, Point::Pattern].map(|point| point.at(layer)))
        .collect()
}

/// One layer's attention in the receiving run, all `[Batch, Head, Query, Key]` in f64.
struct Attention {
    scores: Tensor,
    pattern: Tensor,
    /// d metric / d pattern.
    gradient: Tensor,
    absent: Tensor,
    /// `[Batch, Head, Pos, DHead]`
    q: Tensor,
    /// Keys of each query head.
    k: Tensor,
}

fn heads_first(x: &Tensor) -> Tensor {
    x.transpose(1, 2).to_kind(Kind::Double)
}

/// Keys, one copy for each query head of the group.
fn for_heads(k: &Tensor, heads: i64) -> Tensor {
    let k = heads_first(k);
    let group = heads / k.size()[1];
    k.repeat_interleave_self_int(group, 1, None::<i64>)
}

impl Attention {
    fn new(cache: &Cache, gradients: &Cache, layer: usize) -> Result<Self> {
        let q = heads_first(&cache.get(Point::RotQ.at(layer))?);
        let k = for_heads(&cache.get(Point::RotK.at(layer))?, q.size()[1]);
        let absent = exists(cache.tokens(), q.device()).logical_not();
        let scores = scores(&q, &k).masked_fill(&absent, f64::NEG_INFINITY);
        let pattern = cache.get(Point::Pattern.at(layer))?.to_kind(Kind::Double);
        let gradient = gradients.get(Point::Pattern.at(layer))?.to_kind(Kind::Double);
        Ok(Attention { scores, pattern, gradient, absent, q, k })
    }
}

fn scores(q: &Tensor, k: &Tensor) -> Tensor {
    let d = q.size()[3] as f64;
    q.matmul(&k.transpose(2, 3)) / d.sqrt()
}

/// Softmax over keys; a row without any is 0.
fn softmax(scores: &Tensor) -> Tensor {
    scores.softmax(-1, None::<Kind>).nan_to_num(0.0, None::<f64>, None::<f64>)
}

/// Each query patched alone: `[Batch, Pos, Head]`.
pub(super) fn queries(estimates: &Estimates, gradients: &Cache, layer: usize) -> Result<Tensor> {
    let own = Attention::new(&estimates.receiver, gradients, layer)?;
    let q = heads_first(&estimates.source.get(Point::RotQ.at(layer))?);
    let patched = scores(&q, &own.k).masked_fill(&own.absent, f64::NEG_INFINITY);
    let change = softmax(&patched) - &own.pattern;
    let effects = (change * &own.gradient).sum_dim_intlist([-1i64].as_slice(), false, None);
    Ok(effects.transpose(1, 2))
}

/// Each key patched alone, over all queries and the query heads that read it: `[Batch, Pos, KvHead]`.
///
/// The key's share `p` of a row becomes `sigmoid(logit(p) + change of the score)`, and the other
/// keys share the rest as before. So the row's effect is `(p' - p) (gradient at the key - mean
/// gradient of the others)`.
pub(super) fn keys(estimates: &Estimates, gradients: &Cache, layer: usize) -> Result<Tensor> {
    let own = Attention::new(&estimates.receiver, gradients, layer)?;
    let source = estimates.source.get(Point::RotK.at(layer))?;
    let kv_heads = source.size()[2];
    let change = scores(&own.q, &(for_heads(&source, own.q.size()[1]) - &own.k));
    let (rest, mean_of_rest) = others(&own);
    let share = own.scores.log_softmax(-1, None::<Kind>);
    let patched = (&share - rest + change).sigmoid();
    let effects = (patched - share.exp()) * (&own.gradient - mean_of_rest);
    // Rows of padding hold NaN, pairs that do not exist too.
    let effects = effects.nan_to_num(0.0, None::<f64>, None::<f64>).masked_fill(&own.absent, 0.0);
    let size = effects.size();
    let by_group = effects.view([size[0], kv_heads, size[1] / kv_heads, size[2], size[3]]);
    let effects = by_group.sum_dim_intlist([2i64, 3].as_slice(), false, None);
    Ok(effects.transpose(1, 2))
}

/// For each query and key, the logarithm of what all other keys have together, and their mean
/// gradient. Where a key has more than half, the others are added up without it: what is left of 1
/// would be lost to rounding, the more the sharper the attention.
fn others(own: &Attention) -> (Tensor, Tensor) {
    let all = own.scores.logsumexp([-1i64].as_slice(), true);
    let top = own.scores.argmax(-1, true);
    let without = own.scores.scatter_value(-1, &top, f64::NEG_INFINITY);
    let rest_of_top = without.logsumexp([-1i64].as_slice(), true) - &all;
    let pattern = (&own.scores - &all).exp();
    let weighted = (&pattern * &own.gradient).sum_dim_intlist([-1i64].as_slice(), true, None);
    let mean = (weighted - &pattern * &own.gradient) / (1.0 - &pattern);
    let mean_without =
        (softmax(&without) * &own.gradient).sum_dim_intlist([-1i64].as_slice(), true, None);
    let most = pattern.gt(0.5);
    let rest = rest_of_top.where_self(&most, &(-&pattern).log1p());
    (rest, mean_without.where_self(&most, &mean))
}
