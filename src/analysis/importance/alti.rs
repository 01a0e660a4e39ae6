//! ALTI: how near what comes from each token is to what the layer makes of all of them.
//!
//! Ferrando, Gállego and Costa-jussà 2022, "Measuring the Mixing of Contextual Information in the
//! Transformer", <https://arxiv.org/abs/2203.04212>; the same measure cuts the graph of Ferrando and
//! Voita 2024, "Information Flow Routes", <https://arxiv.org/abs/2403.00824>.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::mixing::Mixing;
use super::rollout::mixed;
use crate::hook::cache::Cache;
use crate::model::Model;

/// ALTI: with `y` the stream after a layer's attention and `c_j` what of it comes from position j,
/// through all heads and for the token itself past them, position j has `max(0, |y| - |y - c_j|)` in
/// L1 norm, as a share of the row. A row of zeros keeps its token. Layers are multiplied; MLPs and the
/// bias of attention's output are left out. Needs [`mixing_sites`](crate::mixing_sites).
///
/// ```
/// use thalweg::{Axis, Model, Plan, alti, mixing_sites};
/// let model = Model::load("data/models/tiny-world")?;
/// let tokens = model.tokens("The capital of France is")?;
/// let cache = model.run(&tokens, &Plan::new().cache(mixing_sites()))?.cache;
/// let shares = alti(&model, &cache)?.at(-1)?.select(Axis::Layer, -1)?; // [Pos]
/// assert!((shares.values.sum() - 1.0).abs() < 1e-6);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn alti(model: &Model, cache: &Cache) -> Result<Mixing> {
    let l1 = |x: &Tensor| x.abs().sum_dim_intlist([-1i64].as_slice(), false, Kind::Double);
    let nearness =
        |carried: Tensor, after: &Tensor| (l1(after) - l1(&(after - carried))).clamp_min(0.0);
    mixed("ALTI", (model, cache), nearness)
}
