//! Composition: what a head writes, and a later head's queries, keys or values read.
//!
//! Elhage et al. 2021, <https://transformer-circuits.pub/2021/framework>: the norm of the product of
//! the two heads' matrices over the product of their norms. With rows as inputs, Q:
//! `W_OV^A W_QK^B`; K: `W_OV^A (W_QK^B)ᵀ`; V: `W_OV^A W_OV^B`. Two random subspaces overlap too, by an
//! amount that depends on their sizes alone: a score means something beside those of random factors
//! of the same shapes. And weights say what could be, not what is: [`composition_effects`] gives the
//! causal number, one head's output taken out of one input of the other.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::edge_patching::EdgePatching;
use super::factored::core;
use super::head_circuits::HeadWeights;
use crate::analysis::gradient::{Reader, Writer};
use crate::grid::Grid;
use crate::hook::metric::Metric;
use crate::hook::site::Axis;
use crate::model::Model;
use crate::rng::Rng;
use crate::show::progress;

/// Random products that scores are compared with.
const DRAWS: usize = 200;

/// Through which input a later head reads an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Composition {
    /// Its queries: what the earlier head wrote decides what it looks for.
    Q,
    /// Its keys: what the earlier head wrote decides where it is found.
    K,
    /// Its values: it passes on what the earlier head wrote.
    V,
}

/// Composition scores of all pairs of heads, beside those of random matrices.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CompositionScores {
    /// `‖product‖ / (‖A‖ ‖B‖)`, 0..1: `[Writer, Reader]`, heads `L0H0`, `L0H1`, ...; a reader that does not
    /// come after the writer is missing.
    pub scores: Grid,
    /// How many standard deviations of the random products each score lies above their mean.
    pub z: Grid,
    /// Scores of products of Gaussian factors of the same shapes, `[Series]`.
    pub random: Grid,
}

/// Composition scores of every pair of heads: see [`CompositionScores`].
///
/// Query heads are paired, each with the keys and values of its group. `offset` says how far the key
/// lies before the query, for rotary positions make the QK circuit depend on it; 0 leaves the
/// rotation out, as most do. V-composition has none.
///
/// ```
/// use thalweg::{Composition, Model, composition_scores};
/// let model = Model::load("data/models/tiny-world")?;
/// let k = composition_scores(&model, Composition::K, 0, 0)?;
/// assert_eq!(k.scores.labels(thalweg::Axis::Writer)?[9], "L1H1");
/// assert!(!k.scores.exists(&[9, 0])); // L0H0 does not come after L1H1
/// assert_eq!(k.random.shape(), [200]);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn composition_scores(
    model: &Model,
    kind: Composition,
    offset: i64,
    seed: u64,
) -> Result<CompositionScores> {
    let _guard = tch::no_grad_guard();
    let config = model.config();
    let all = (0..config.n_layers).map(|layer| HeadWeights::new(model, layer));
    let all: Vec<HeadWeights> = all.collect::<Result<_>>()?;
    let writers: Vec<Factors> = all.iter().map(|layer| layer.ov()).collect();
    let readers: Vec<Factors> = all
        .iter()
        .map(|layer| match kind {
            Composition::V => layer.ov(),
            Composition::Q => layer.qk(model, offset),
            Composition::K => layer.qk(model, offset).transposed(),
        })
        .collect();
    let n = (config.n_layers * config.n_heads) as i64;
    let values = Tensor::full([n, n], f64::NAN, (Kind::Double, tch::Device::Cpu));
    let heads = config.n_heads as i64;
    for (from, writer) in progress(writers.iter().enumerate(), "composition").unit("layers") {
        for (to, reader) in readers.iter().enumerate().skip(from + 1) {
            let block = writer.scores(reader).to_device(tch::Device::Cpu);
            let place = values.narrow(0, from as i64 * heads, heads);
            place.narrow(1, to as i64 * heads, heads).f_copy_(&block)?;
        }
    }
    let (name, offset) = (format!("{kind:?}-composition"), offset.to_string());
    let grid = |values: &Tensor, unit: &str| -> Result<Grid> {
        let grid = Grid::of(values, &[Axis::Writer, Axis::Reader], unit)?;
        let names = head_names(config.n_layers, config.n_heads);
        let grid = grid.relabel(Axis::Writer, &names)?.relabel(Axis::Reader, &names)?;
        Ok(grid
            .missing_where(f64::is_nan)
            .note("offset", &offset)
            .note("model", &format!("{model:?}")))
    };
    let random = random_scores((config.d_model, config.d_head), seed);
    let (mean, deviation) = moments(&random);
    let z = (&values - mean) / deviation;
    let random = Grid::of(&Tensor::from_slice(&random), &[Axis::Series], "composition score")?;
    let name_of_baseline = "composition of random factors";
    Ok(CompositionScores {
        scores: grid(&values, "composition score")?
            .name(&name)
            .zero_one("orthogonal", "all that one writes the other reads, along one direction")
            .note("random mean", &format!("{mean:.6}"))
            .note("random deviation", &format!("{deviation:.6}")),
        z: grid(&z, "standard deviations above random factors")?.name(&format!("{name}, z")),
        random: random.name(name_of_baseline).note("seed", &seed.to_string()),
    })
}

/// What the metric loses when what an earlier head writes is taken out of one input of a later one,
/// and out of nothing else: `m(whole) - m(cut)`, the mean over prompts, `[Writer, Reader]`. What stands
/// in its place is `patching`'s: the corrupt prompts' value, a mean, or zero.
///
/// Writers are query heads; readers are query heads for `Q` and, shared by their group, key/value
/// heads for `K` and `V`. One run a pair.
///
/// ```
/// use thalweg::{Composition, EdgePatching, Metric, Model, composition_effects, repeated_tokens};
/// let model = Model::load("data/models/tiny-world")?;
/// let tokens = repeated_tokens(&model, 4, 12, 0)?;
/// let patching = EdgePatching::with_mean(&model, &tokens, &tokens)?;
/// let loss = Metric::loss_at(14..); // over the second copy
/// let layers = (0..1, 1..2); // of writers and readers
/// let effects = composition_effects(&patching, Composition::K, layers, &loss)?;
/// assert_eq!(effects.shape(), [8, 4]); // 8 heads, 4 key/value heads
/// # thalweg::anyhow::Ok(())
/// ```
pub fn composition_effects(
    patching: &EdgePatching,
    kind: Composition,
    (writers, readers): (std::ops::Range<usize>, std::ops::Range<usize>),
    metric: &Metric,
) -> Result<Grid> {
    let config = patching.model.config();
    let from: Vec<Writer> = writers
        .clone()
        .flat_map(|layer| (0..config.n_heads).map(move |head| Writer::Head(layer, head)))
        .collect();
    let heads = if kind == Composition::Q { config.n_heads } else { config.n_kv_heads };
    let reader = |layer, head| match kind {
        Composition::Q => Reader::Query(layer, head),
        Composition::K => Reader::Key(layer, head),
        Composition::V => Reader::Value(layer, head),
    };
    let to: Vec<Reader> = readers
        .flat_map(|layer| (0..heads).map(move |head| (layer, head)))
        .map(|(layer, head)| reader(layer, head))
        .collect();
    let later = |from: &Writer, to: &Reader| crate::analysis::gradient::exists(*from, *to);
    let pairs: Vec<(Writer, Reader)> = from
        .iter()
        .flat_map(|from| to.iter().filter(|to| later(from, to)).map(|to| (*from, *to)))
        .collect();
    anyhow::ensure!(!pairs.is_empty(), "composition: no reader's layer comes after a writer's");
    let effects = patching.effects(&pairs, metric)?;
    let mut grid = effects.map(|change| -change);
    let picked = |names: Vec<String>, all: &[String]| -> Vec<i64> {
        let place = |name: &String| all.iter().position(|own| own == name);
        names.iter().filter_map(place).map(|at| at as i64).collect()
    };
    let names = [
        (Axis::Writer, from.iter().map(Writer::to_string).collect::<Vec<_>>()),
        (Axis::Reader, to.iter().map(Reader::to_string).collect()),
    ];
    for (axis, names) in names {
        let places = picked(names, grid.labels(axis)?);
        grid = grid.select_many(axis, &places)?;
    }
    Ok(grid.name(&format!("{metric:?} lost with one head out of another's {kind:?} input")))
}

/// Factors of one matrix a head, `a [Head, m, r]`, `b [Head, r, n]`.
struct Factors {
    a: Tensor,
    b: Tensor,
}

impl HeadWeights {
    fn stacked(&self, pick: impl Fn(usize) -> Tensor) -> Tensor {
        Tensor::stack(&(0..self.heads()).map(pick).collect::<Vec<_>>(), 0)
    }

    fn ov(&self) -> Factors {
        Factors { a: self.stacked(|head| self.v(head)), b: self.o.shallow_clone() }
    }

    fn qk(&self, model: &Model, offset: i64) -> Factors {
        let a = self.stacked(|head| self.turned_q(model, head, offset));
        Factors { a, b: self.stacked(|head| self.k(head)).transpose(1, 2) }
    }
}

impl Factors {
    fn transposed(self) -> Factors {
        Factors { a: self.b.transpose(1, 2), b: self.a.transpose(1, 2) }
    }

    /// Composition scores of each of these with each of the others, `[Head, Head]`: norms of the
    /// small cores that the factors' norms rest on.
    fn scores(&self, next: &Factors) -> Tensor {
        let left = core(&self.a).unsqueeze(1); // [h, 1, r, r]
        let right = core(&next.b.transpose(1, 2)).transpose(1, 2).unsqueeze(0); // [1, h', r', r']
        let between = self.b.unsqueeze(1).matmul(&next.a.unsqueeze(0)); // [h, h', r, r']
        let norm =
            |x: Tensor| x.square().sum_dim_intlist([-2i64, -1].as_slice(), false, None).sqrt();
        let product = norm(left.matmul(&between).matmul(&right));
        product
            / (self.norms().unsqueeze(1) * next.norms().unsqueeze(0)).clamp_min(f64::MIN_POSITIVE)
    }

    fn norms(&self) -> Tensor {
        let product = core(&self.a).matmul(&core(&self.b.transpose(1, 2)).transpose(1, 2));
        product.square().sum_dim_intlist([-2i64, -1].as_slice(), false, None).sqrt()
    }
}

/// Scores of products of Gaussian factors `[m, r] [r, m]`.
fn random_scores((m, r): (usize, usize), seed: u64) -> Vec<f64> {
    let mut rng = Rng::new(seed);
    let (m, r) = (m as i64, r as i64);
    let mut draw = |shape: [i64; 3]| rng.normal_tensor(&shape).to_kind(Kind::Double);
    let mut one = || {
        let [first, next] = [0, 1].map(|_| Factors { a: draw([1, m, r]), b: draw([1, r, m]) });
        first.scores(&next).double_value(&[0, 0])
    };
    (0..DRAWS).map(|_| one()).collect()
}

fn moments(x: &[f64]) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let square = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
    (mean, (square / (n - 1.0)).sqrt())
}

fn head_names(layers: usize, heads: usize) -> Vec<String> {
    (0..layers).flat_map(|layer| (0..heads).map(move |head| format!("L{layer}H{head}"))).collect()
}
