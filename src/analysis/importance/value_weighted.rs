//! Value-weighted attention: not how much a head looks, but how much it carries, and where to.
//!
//! Norms: Kobayashi et al. 2020, "Attention is Not Only a Weight: Analyzing Transformers with Vector
//! Norms", <https://arxiv.org/abs/2004.10102>. Projections on what the layer writes: Cunningham and
//! Muca Cirone 2026, "Contribution Weights", <https://arxiv.org/abs/2606.07604>. Towards an answer:
//! Elhage et al. 2021, <https://transformer-circuits.pub/2021/framework>.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::carried::{Carried, site, values};
use crate::analysis::frame;
use crate::analysis::paths::Reader;
use crate::grid::Grid;
use crate::hook::cache::Cache;
use crate::hook::metric::Metric;
use crate::hook::site::{Axis, Point};
use crate::index::Position;
use crate::model::{Model, W};
use crate::show::progress;

/// The norm of what each head carries from token to token, `|A_ij v_j W_O|`:
/// `[Layer, Head, Query, Key]`, or with `Batch` in front. Where all values are equally long it is
/// proportional to attention. Needs `V` and `Pattern`.
pub fn value_weighted_attention(model: &Model, cache: &Cache) -> Result<Grid> {
    let what = "value_weighted_attention";
    let grid = by_pair((model, cache, what), "L2 norm", |carried| {
        let norms = carried.written.norm_scalaropt_dim(2, [-1i64].as_slice(), false);
        &carried.pattern * norms.unsqueeze(1)
    })?;
    Ok(grid.name("value-weighted attention"))
}

/// The share of what a layer's heads together write at a position that comes from each token through
/// each head: the projection of `A_ij v_j W_O` on the sum of all of them, over that sum's length;
/// `[Layer, Head, Query, Key]`, or with `Batch` in front. Heads and tokens add up to 1 at each query;
/// below 0 a token is written against. Needs `V` and `Pattern`.
pub fn contribution_weights(model: &Model, cache: &Cache) -> Result<Grid> {
    let what = "contribution_weights";
    let grid = by_pair((model, cache, what), "share", |carried| {
        let heads = carried.pattern.bmm(&carried.written); // [Head, Query, DModel]
        let sum = heads.sum_dim_intlist([0i64].as_slice(), false, None); // [Query, DModel]
        let along = carried.written.matmul(&sum.tr()).transpose(1, 2); // [Head, Query, Key]
        let squared = sum.square().sum_dim_intlist([-1i64].as_slice(), true, None);
        let shares = &carried.pattern * along / &squared;
        shares.masked_fill(&squared.eq(0.0), 0.0)
    })?;
    Ok(grid.name("contribution weights").note("direction", "what the layer's heads write"))
}

/// What each head carries from each position straight to a metric that is linear in the logits,
/// `Metric::logit_diff` or `Metric::logit`, at the metric's position: `[Layer, Head, Pos]`, or with
/// `Batch` in front, in logits. Over positions it adds up to
/// [`head_attribution`](crate::head_attribution). What earlier layers brought to a position counts as
/// that position's. Needs `V`, `Pattern` and `FinalScale`, which [`mixing_sites`](crate::mixing_sites)
/// holds.
///
/// ```
/// use thalweg::{Metric, Model, Plan, mixing_sites, token_attribution};
/// let model = Model::load("data/models/tiny-world")?;
/// let tokens = model.tokens("When Mary and John went to the store , John gave a drink to")?;
/// let cache = model.run(&tokens, &Plan::new().cache(mixing_sites()))?.cache;
/// let metric = Metric::logit_diff(model.token("Mary")?, model.token("John")?);
/// let carried = token_attribution(&model, &cache, &metric)?;
/// assert_eq!(carried.shape(), [model.config().n_layers, model.config().n_heads, tokens.width()]);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn token_attribution(model: &Model, cache: &Cache, metric: &Metric) -> Result<Grid> {
    let what = "token_attribution";
    let reader = Reader::new(model, cache, metric)?;
    let tokens = cache.tokens();
    let places = tokens.places(metric.position().unwrap_or(&Position::Last))?;
    let mut layers = Vec::new();
    for layer in 0..cache.n_layers() {
        let output = model.weight(W::O, layer)?.to_kind(Kind::Double); // [Head, DHead, DModel]
        let rows = places.iter().enumerate().map(|(row, at)| {
            // Each head's map onto the answer's direction first: never what it writes to the stream.
            let onto = output.matmul(&reader.direction.get(row as i64)).unsqueeze(-1);
            let along = values(what, model, cache, layer, row)?.bmm(&onto).squeeze_dim(-1);
            let query = (tokens.padding(row) + at[0]) as i64;
            Ok(site(what, model, cache, Point::Pattern.at(layer), row)?.select(1, query) * along)
        });
        layers.push(Tensor::stack(&rows.collect::<Result<Vec<_>>>()?, 0)); // [Batch, Head, Key]
    }
    let axes = [
        (Axis::Layer, frame::numbered('L', cache.n_layers())),
        (Axis::Head, frame::numbered('H', model.config().n_heads)),
        (Axis::Pos, frame::position_labels(tokens)),
    ];
    let grid = reader.grid(&Tensor::stack(&layers, 1), &axes, "attribution by token and head")?;
    frame::hide(grid, tokens, 0)
}

/// `[Head, Query, Key]` of every row and layer as one grid.
fn by_pair(
    (model, cache, what): (&Model, &Cache, &str),
    unit: &str,
    measure: impl Fn(&Carried) -> Tensor,
) -> Result<Grid> {
    let tokens = cache.tokens();
    let mut layers = Vec::new();
    for layer in progress(0..cache.n_layers(), what).unit("layers") {
        let rows = (0..tokens.batch())
            .map(|row| Ok(measure(&Carried::new(what, model, cache, layer, row)?)));
        layers.push(Tensor::stack(&rows.collect::<Result<Vec<_>>>()?, 0));
    }
    let places = frame::position_labels(tokens);
    let axes = [
        (Axis::Layer, frame::numbered('L', cache.n_layers())),
        (Axis::Head, frame::numbered('H', model.config().n_heads)),
        (Axis::Query, places.clone()),
        (Axis::Key, places),
    ];
    let grid = frame::batched(cache, &Tensor::stack(&layers, 1), &axes, unit)?;
    Ok(frame::hide(grid, tokens, 0)?.note("model", &format!("{model:?}")))
}
