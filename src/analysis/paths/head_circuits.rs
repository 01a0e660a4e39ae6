//! What a head's weights do: the OV circuit (what it writes for what it reads) and the QK circuit
//! (what it attends to), and the scores of copying and matching that their eigenvalues give.
//!
//! Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits",
//! <https://transformer-circuits.pub/2021/framework>. Rows are inputs: `W_OV = W_V W_O`,
//! `W_QK = W_Q R W_Kᵀ`, both `[DModel, DModel]` of rank `DHead`. The weights of the norms are folded in;
//! their scales, one positive number a position, are left out, and so are biases. A query head's
//! keys and values are those of its group.
//!
//! Rotary positions turn queries and keys, so that the QK circuit depends on how far the key lies
//! behind the query: `R` is the rotation by that offset. At offset 0 it is the identity.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use super::factored::{FactoredMatrix, eigenvalues, positive_share};
use crate::analysis::frame;
use crate::grid::Grid;
use crate::hook::site::Axis;
use crate::model::rope;
use crate::model::{Model, W};
use crate::show::progress;

/// The OV circuit of a query head, `W_V W_O [DModel, DModel]`: what a token it attends to makes it
/// write. `e.apply(&x)` maps rows of the stream, divided by the norm's scale.
///
/// ```
/// use thalweg::{Model, ov_circuit};
/// let model = Model::load("data/models/tiny-world")?;
/// let ov = ov_circuit(&model, 1, 4)?;
/// assert_eq!((ov.shape(), ov.inner()), ((128, 128), 16));
/// assert!(ov.singular_values()?[0] > 0.0);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn ov_circuit(model: &Model, layer: usize, head: usize) -> Result<FactoredMatrix> {
    let weights = HeadWeights::new(model, layer)?;
    weights.check(head)?;
    FactoredMatrix::new(&weights.v(head), &weights.o.get(head as i64))
}

/// The QK circuit of a query head for keys `offset` positions before the query,
/// `W_Q R W_Kᵀ [DModel, DModel]`: `x_query (W_Q R W_Kᵀ) x_keyᵀ` is the score times `sqrt(DHead)`.
///
/// ```
/// use thalweg::{Model, qk_circuit};
/// let model = Model::load("data/models/tiny-world")?;
/// let here = qk_circuit(&model, 0, 7, 0)?;
/// let before = qk_circuit(&model, 0, 7, 1)?; // the token before
/// assert!((here.norm() - before.norm()).abs() > 1e-3);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn qk_circuit(model: &Model, layer: usize, head: usize, offset: i64) -> Result<FactoredMatrix> {
    let weights = HeadWeights::new(model, layer)?;
    weights.check(head)?;
    FactoredMatrix::new(&weights.turned_q(model, head, offset), &weights.k(head).tr())
}

/// How far each head copies: `Σ Re λ / Σ |λ|` over the eigenvalues of `W_E W_OV W_U`, in -1..1,
/// `[Layer, Head]`. Near 1, attending to a token raises that token's own logit; near -1 it lowers it.
///
/// The embedding enters as it is, without what the first layers make of it.
pub fn copying_scores(model: &Model) -> Result<Grid> {
    let between = embedding_product(model, W::U)?; // W_U W_E [DModel, DModel]
    let score = |weights: &HeadWeights, head: usize| -> Result<f64> {
        let o = weights.o.get(head as i64);
        let own = o.matmul(&between).matmul(&weights.v(head));
        Ok(positive_share(&eigenvalues(&own)?))
    };
    let grid = by_head(model, "share of positive eigenvalues", score)?;
    Ok(grid
        .name("copying score")
        .note("matrix", "W_E W_OV W_U")
        .note("model", &format!("{model:?}")))
}

/// How far each head's queries look for their own token: the same share of the eigenvalues of
/// `W_E W_QK W_Eᵀ`, for keys `offset` positions before the query, `[Layer, Head]`.
///
/// An induction head does not match so, but through the head before it: see
/// [`matching_scores_through`].
pub fn matching_scores(model: &Model, offset: i64) -> Result<Grid> {
    let grams = embedding_product(model, W::E)?; // W_Eᵀ W_E
    let score = |weights: &HeadWeights, head: usize| {
        let q = weights.turned_q(model, head, offset);
        Ok(positive_share(&eigenvalues(&weights.k(head).tr().matmul(&grams).matmul(&q))?))
    };
    let grid = by_head(model, "share of positive eigenvalues", score)?;
    Ok(grid
        .name("matching score")
        .note("matrix", "W_E W_QK W_Eᵀ")
        .note("offset", &offset.to_string())
        .note("model", &format!("{model:?}")))
}

/// How far each head looks for its own token in what head `through` has written there:
/// `W_E W_QK (W_OV)ᵀ W_Eᵀ`, `[Layer, Head]`; heads that do not come after `through` are missing. Behind a
/// previous-token head it is an induction head's matching.
pub fn matching_scores_through(
    model: &Model,
    through: (usize, usize),
    offset: i64,
) -> Result<Grid> {
    let (layer, head) = through;
    let before = ov_circuit(model, layer, head)?;
    let grams = embedding_product(model, W::E)?;
    let heard = before.b().tr().matmul(&before.a().tr()).matmul(&grams); // (W_OV)ᵀ W_Eᵀ W_E
    let score = |weights: &HeadWeights, head: usize| {
        let q = weights.turned_q(model, head, offset);
        let own = weights.k(head).tr().matmul(&heard).matmul(&q);
        if weights.layer <= layer { Ok(f64::NAN) } else { Ok(positive_share(&eigenvalues(&own)?)) }
    };
    let grid = by_head(model, "share of positive eigenvalues", score)?;
    Ok(grid
        .missing_where(f64::is_nan)
        .name(&format!("matching score through L{layer}H{head}"))
        .note("matrix", "W_E W_QK (W_OV)ᵀ W_Eᵀ")
        .note("offset", &offset.to_string())
        .note("model", &format!("{model:?}")))
}

/// The weights of a layer's heads in f64, with the norm's folded in.
pub(super) struct HeadWeights {
    pub(super) layer: usize,
    group: usize,
    /// `[Head, DModel, DHead]`
    pub(super) q: Tensor,
    /// `[KvHead, DModel, DHead]`
    kv: [Tensor; 2],
    /// `[Head, DHead, DModel]`
    pub(super) o: Tensor,
}

impl HeadWeights {
    pub(super) fn new(model: &Model, layer: usize) -> Result<Self> {
        let read = |w| Ok(model.weight_folded(w, layer)?.to_kind(Kind::Double));
        let _guard = tch::no_grad_guard();
        let [q, k, v, o]: [Result<Tensor>; 4] = [W::Q, W::K, W::V, W::O].map(read);
        let group = model.config().group();
        Ok(HeadWeights { layer, group, q: q?, kv: [k?, v?], o: o? })
    }

    /// Keys of a query head, `[DModel, DHead]`.
    pub(super) fn k(&self, head: usize) -> Tensor {
        self.kv[0].get((head / self.group) as i64)
    }

    /// Values of a query head, `[DModel, DHead]`.
    pub(super) fn v(&self, head: usize) -> Tensor {
        self.kv[1].get((head / self.group) as i64)
    }

    /// Queries turned by an offset, `[DModel, DHead]`.
    pub(super) fn turned_q(&self, model: &Model, head: usize, offset: i64) -> Tensor {
        let q = self.q.get(head as i64);
        if offset == 0 { q } else { rope::turned(model.config(), &q, offset) }
    }

    pub(super) fn heads(&self) -> usize {
        self.q.size()[0] as usize
    }

    fn check(&self, head: usize) -> Result<()> {
        let last = self.heads() - 1;
        ensure!(head <= last, "no head {head}: layer {} has heads 0..{last}", self.layer);
        Ok(())
    }
}

/// One number for each head: `[Layer, Head]`.
fn by_head(
    model: &Model,
    unit: &str,
    score: impl Fn(&HeadWeights, usize) -> Result<f64>,
) -> Result<Grid> {
    let _guard = tch::no_grad_guard();
    let config = model.config();
    let mut values = Vec::new();
    for layer in progress(0..config.n_layers, "heads").unit("layers") {
        let weights = HeadWeights::new(model, layer)?;
        for head in 0..config.n_heads {
            values.push(score(&weights, head)?);
        }
    }
    let axes = [
        (Axis::Layer, frame::numbered('L', config.n_layers)),
        (Axis::Head, frame::numbered('H', config.n_heads)),
    ];
    let values = Tensor::from_slice(&values).view([config.n_layers as i64, config.n_heads as i64]);
    Grid::from_tensor(&values, &axes, unit)
}

/// Token ids of one part of a sum over the vocabulary.
const PART: i64 = 4096;

/// `W_U W_E` (for `W::U`) or `W_Eᵀ W_E` (for `W::E`), summed over the vocabulary, `[DModel, DModel]`, f64.
fn embedding_product(model: &Model, left: W) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    let embed = model.weight(W::E, 0)?; // [v, m]
    let left = match left {
        W::U => model.weight_folded(W::U, 0)?.tr(), // [v, m]
        _ => embed.shallow_clone(),
    };
    let (vocabulary, d) = (embed.size()[0], embed.size()[1]);
    let mut sum = Tensor::zeros([d, d], (Kind::Double, embed.device()));
    for first in (0..vocabulary).step_by(PART as usize) {
        let n = PART.min(vocabulary - first);
        let [a, b] = [&left, &embed].map(|x| x.narrow(0, first, n).to_kind(Kind::Double));
        sum += a.tr().matmul(&b);
    }
    Ok(sum)
}
