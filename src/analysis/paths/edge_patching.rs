//! Exact edge patching: a run in which some edges carry another run's value.
//!
//! Hanna, Pezzelle & Belinkov 2024, <https://arxiv.org/abs/2403.17806>; Goldowsky-Dill et al. 2023,
//! <https://arxiv.org/abs/2304.05969>; Wang et al. 2022, <https://arxiv.org/abs/2211.00593>.
//!
//! Each reader (queries of a head, keys and values of a key/value head, an MLP, the logits) reads
//! the stream of the run as it is, and for every edge that is cut the counterfactual value of the
//! writer in place of the one it writes in this run. All readers are changed in one pass, so that
//! what reaches a writer through the circuit is in what it writes.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use tch::{Kind, Tensor};

use super::circuit::Circuit;
use super::graph::Graph;
use crate::analysis::effect;
use crate::analysis::gradient::{Reader, Writer, looking_at, value};
use crate::analysis::patching::check_pair;
use crate::grid::Grid;
use crate::hook::cache::Cache;
use crate::hook::held::Held;
use crate::hook::intervention::Intervention;
use crate::hook::metric::Metric;
use crate::hook::plan::Plan;
use crate::hook::site::{Point, Site};
use crate::model::forward::wide;
use crate::model::{Model, Run, W};
use crate::show::progress;
use crate::text::Tokens;

/// Prompts, and the values that edges outside a circuit carry: those of the corrupt prompts, their
/// mean, or zero.
///
/// ```
/// use thalweg::{Circuit, EdgePatching, Metric, Model, Reader, Writer};
/// let model = Model::load("data/models/tiny-world")?;
/// let clean = model.tokens("When Mary and John went to the store , John gave a drink to")?;
/// let corrupt = model.tokens("When Mary and John went to the store , Mary gave a drink to")?;
/// let metric = Metric::logit_diff(model.token("Mary")?, model.token("John")?);
/// let pair = EdgePatching::new(&model, &clean, &corrupt)?;
/// let all = Circuit::full(model.config());
/// assert_eq!(pair.faithfulness(&all, &metric)?, 1.0);
/// let less = all.without(&[(Writer::Embed, Reader::Logits)])?;
/// assert!((pair.faithfulness(&less, &metric)? - 1.0).abs() < 0.2);
/// # thalweg::anyhow::Ok(())
/// ```
#[derive(Clone)]
pub struct EdgePatching {
    pub(super) model: Model,
    pub(super) tokens: Tokens,
    /// What each writer writes outside the circuit, `[Writer, Batch, Pos, DModel]`, or 1 for `Batch`
    /// and `Pos`.
    outside: Held,
    /// In words: "the corrupt run".
    what: String,
    /// Whether each prompt's first token writes what it writes, also outside the circuit.
    first_kept: bool,
    pub(super) origin: Option<Cache>,
}

impl EdgePatching {
    /// Edges outside the circuit carry what the corrupt prompts give them. Clean and corrupt prompts
    /// must agree in length, row by row.
    pub fn new(model: &Model, clean: &Tokens, corrupt: &Tokens) -> Result<Self> {
        check_pair(clean, corrupt)?;
        let cache = written(model, corrupt)?;
        let outside = counterfactual(model, &cache, |x| Ok(x.shallow_clone()))?;
        Ok(Self::with(model, clean, outside, "the corrupt run", Some(cache)))
    }

    /// Edges outside the circuit carry the writer's mean over the tokens of these prompts, padding
    /// and each prompt's first token left out. The clean prompts' first tokens, for which such a mean
    /// is no stand-in, write on all edges what they write in the run.
    pub fn with_mean(model: &Model, clean: &Tokens, reference: &Tokens) -> Result<Self> {
        let cache = written(model, reference)?;
        let mut real = reference.mask(model.device());
        for row in 0..reference.batch() {
            let first = reference.padding(row) as i64;
            let _ = real.get(row as i64).narrow(0, first, 1).fill_(0);
        }
        real = real.to_kind(Kind::Bool);
        anyhow::ensure!(
            bool::try_from(real.any())?,
            "edge patching: the reference prompts have no token after their first"
        );
        let mean = |x: &Tensor| -> Result<Tensor> {
            let flat = x.flatten(0, 1).to_kind(Kind::Double);
            let rows = flat.index_select(0, &real.flatten(0, 1).nonzero().squeeze_dim(1));
            let mean = rows.mean_dim([0i64].as_slice(), false, None);
            Ok(mean.unsqueeze(0).unsqueeze(0).to_kind(x.kind()))
        };
        let outside = counterfactual(model, &cache, mean)?;
        let what = "their mean, but at first tokens";
        let patching = Self::with(model, clean, outside, what, Some(cache));
        Ok(EdgePatching { first_kept: true, ..patching })
    }

    /// Edges outside the circuit carry nothing. Off the data's distribution: put a mean beside it.
    pub fn with_zero(model: &Model, clean: &Tokens) -> Result<Self> {
        let sizes =
            [Graph::new(model.config()).writers() as i64, 1, 1, model.config().d_model as i64];
        let outside = Tensor::zeros(sizes, (wide(model.kind()), model.device()));
        Ok(Self::with(model, clean, outside, "zero", None))
    }

    fn with(
        model: &Model,
        tokens: &Tokens,
        outside: Tensor,
        what: &str,
        origin: Option<Cache>,
    ) -> Self {
        let (model, tokens, what) = (model.clone(), tokens.clone(), what.to_owned());
        EdgePatching { model, tokens, outside: Held(outside), what, first_kept: false, origin }
    }

    /// A run of the clean prompts in which only the edges of the circuit carry what this run gives
    /// them, and all others the counterfactual value. `plan` may record and change more.
    pub fn run(&self, circuit: &Circuit, plan: Plan) -> Result<Run> {
        circuit.check(self.model.config())?;
        let plan = if circuit.len() == Circuit::full(self.model.config()).len() {
            plan
        } else {
            self.cut(circuit, plan)
        };
        self.model.run(&self.tokens, &plan)
    }

    /// The metric of each prompt in [`run`](Self::run).
    pub fn values(&self, circuit: &Circuit, metric: &Metric) -> Result<Vec<f64>> {
        let run = self.run(circuit, looking_at(Plan::new(), metric, &[]))?;
        Ok(Vec::try_from(value(metric, &run, &self.tokens)?)?)
    }

    /// Faithfulness `(m(C) - m(empty)) / (m(full) - m(empty))`, of means over prompts: 1, the circuit
    /// does what the model does; 0, no more than the counterfactual run. It may leave 0..1.
    pub fn faithfulness(&self, circuit: &Circuit, metric: &Metric) -> Result<f64> {
        let (empty, full) = self.ends(metric)?;
        let scale =
            effect::scale("faithfulness", (&self.model, metric), (&empty, &full), false)?[0];
        let own = self.values(circuit, metric)?;
        Ok(super::faithfulness::mean_of(&own, &empty) / scale)
    }

    /// The metric of each prompt with no edge, and with every edge.
    pub(super) fn ends(&self, metric: &Metric) -> Result<(Vec<f64>, Vec<f64>)> {
        let config = self.model.config();
        let empty = self.values(&Circuit::empty(config), metric)?;
        Ok((empty, self.values(&Circuit::full(config), metric)?))
    }

    /// What cutting each of these edges alone does to the metric, `m(cut) - m(full)`, the mean over
    /// prompts: `[Writer, Reader]`, every other cell missing. What [`EdgeAttribution`] estimates
    /// with [`Direction::Noise`], one run an edge; [`Comparison::of`] sets the two side by side.
    ///
    /// [`EdgeAttribution`]: crate::EdgeAttribution
    /// [`Direction::Noise`]: crate::Direction::Noise
    /// [`Comparison::of`]: crate::Comparison::of
    pub fn effects(&self, edges: &[(Writer, Reader)], metric: &Metric) -> Result<Grid> {
        let config = self.model.config();
        let full = Circuit::full(config);
        let base = self.values(&full, metric)?;
        let mut grid = Circuit::of(config, edges)?.grid()?;
        grid.zero_one = None;
        let grid_missing = grid.map(|inside| 1.0 - inside).values.mapv(|outside| outside > 0.0);
        for (from, to) in progress(edges, "edge patching").unit("edges") {
            let cut = self.values(&full.clone().without(&[(*from, *to)])?, metric)?;
            let at = [full.graph.writer(*from), full.graph.reader(*to)];
            grid.values[at.as_slice()] = super::faithfulness::mean_of(&cut, &base);
        }
        Ok(grid
            .missing(grid_missing)?
            .unit(metric.unit())
            .n(self.tokens.batch())
            .name(&format!("{metric:?}, each edge patched alone"))
            .note("edges carry", &self.what)
            .note("model", &format!("{:?}", self.model))
            .of_runs(self.origin.iter().filter_map(|cache| cache.origin().cloned())))
    }

    /// In words, what edges outside a circuit carry.
    pub(super) fn counterfactual(&self) -> &str {
        &self.what
    }

    /// False at tokens whose writes are never replaced: `[Batch, Pos, 1]`.
    fn changed(&self) -> Tensor {
        let [batch, width] = [self.tokens.batch(), self.tokens.width()].map(|n| n as i64);
        let changed = Tensor::ones([batch, width, 1], (Kind::Bool, self.model.device()));
        for row in (0..self.tokens.batch()).filter(|_| self.first_kept) {
            let first = self.tokens.padding(row) as i64;
            let _ = changed.get(row as i64).get(first).fill_(0);
        }
        changed
    }

    /// The plan that lets every edge outside the circuit carry the counterfactual value.
    fn cut(&self, circuit: &Circuit, plan: Plan) -> Plan {
        let (graph, layers) = (circuit.graph, self.model.config().n_layers);
        let [batch, width] = [self.tokens.batch(), self.tokens.width()].map(|n| n as i64);
        let sizes = [graph.writers() as i64, batch, width, self.model.config().d_model as i64];
        let outside = self.outside.0.expand(sizes, false);
        let changes = Tensor::zeros(sizes, (outside.kind(), outside.device()));
        let changed = self.changed();
        let state = Arc::new(Mutex::new((outside, changes)));
        let seen = |first: Writer| {
            let (state, first) = (state.clone(), graph.writer(first));
            let changed = Mutex::new(changed.shallow_clone());
            Intervention::custom("seen by edge patching", move |x| {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                let changed = changed.lock().unwrap_or_else(PoisonError::into_inner);
                record(&mut state, first, x, &changed)?;
                Ok(x.shallow_clone())
            })
        };
        let read = |plan: Plan, site: Site, readers: Vec<Reader>| {
            let Some(cut) = Cut::new(circuit, &readers) else { return plan };
            let state = state.clone();
            let change = Intervention::custom("edges cut", move |x| {
                let state = state.lock().unwrap_or_else(PoisonError::into_inner);
                cut.apply(&state.1, x)
            });
            plan.intervene(site, change)
        };
        let mut plan = plan.intervene(Site::Embed, seen(Writer::Embed));
        for l in 0..layers {
            let queries = (0..graph.heads).map(|h| Reader::Query(l, h)).collect();
            let keys = (0..graph.kv_heads).map(|g| Reader::Key(l, g)).collect();
            let values = (0..graph.kv_heads).map(|g| Reader::Value(l, g)).collect();
            plan = read(plan, Point::QInput.at(l), queries);
            plan = read(plan, Point::KInput.at(l), keys);
            plan = read(plan, Point::VInput.at(l), values);
            plan = plan.intervene(Point::HeadResult.at(l), seen(Writer::Head(l, 0)));
            plan = read(plan, Point::MlpIn.at(l), vec![Reader::Mlp(l)]);
            plan = plan.intervene(Point::MlpOut.at(l), seen(Writer::Mlp(l)));
        }
        read(plan, Point::ResidPost.at(layers - 1), vec![Reader::Logits])
    }
}

/// One line: the prompts and what edges outside a circuit carry.
impl fmt::Debug for EdgePatching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EdgePatching {{ {} prompts, outside: {} }}", self.tokens.batch(), self.what)
    }
}

/// A run of these prompts, with what every writer writes.
fn written(model: &Model, tokens: &Tokens) -> Result<Cache> {
    let plan = Plan::new().cache([Point::Z, Point::MlpOut]).cache(Site::Embed).logits_at(-1);
    Ok(model.run(tokens, &plan)?.cache)
}

/// What every writer writes in a run, each after `part`: `[Writer, Batch, Pos, DModel]`.
fn counterfactual(
    model: &Model,
    cache: &Cache,
    part: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    let mut all = vec![part(&cache.get(Site::Embed)?)?];
    for layer in 0..model.config().n_layers {
        let z = part(&cache.get(Point::Z.at(layer))?)?; // [b, p, h, d]
        let w = model.weight(W::O, layer)?; // [h, d, m]
        for head in 0..z.size()[2] {
            all.push(z.select(2, head).matmul(&w.get(head)));
        }
        all.push(part(&cache.get(Point::MlpOut.at(layer))?)?);
    }
    Ok(Tensor::stack(&all, 0).to_kind(wide(model.kind())))
}

/// Notes the change from what writers write in this run to the counterfactual, where there is to be
/// one: of heads `x [Batch, Pos, Head, DModel]`, of others `[Batch, Pos, DModel]`.
fn record(state: &mut (Tensor, Tensor), first: usize, x: &Tensor, changed: &Tensor) -> Result<()> {
    let (outside, changes) = state;
    let x = x.detach();
    let x = if x.dim() == 4 { x.permute([2, 0, 1, 3]) } else { x.unsqueeze(0) };
    let (first, n) = (first as i64, x.size()[0]);
    let outside = outside.narrow(0, first, n);
    outside
        .f_sub(&x.to_kind(outside.kind()))
        .and_then(|change| change.f_mul(changed))
        .and_then(|change| changes.narrow(0, first, n).f_copy_(&change))
        .context("edge patching: prompts of another shape")?;
    Ok(())
}

/// Which edges into some readers are cut.
struct Cut {
    /// For each reader, 1 at the writers whose edges to it are cut.
    mask: Vec<f64>,
    writers: usize,
    readers: usize,
}

impl Cut {
    /// Absent where no edge is cut.
    fn new(circuit: &Circuit, readers: &[Reader]) -> Option<Cut> {
        let writers = circuit.graph.all_writers();
        let cut = |to: Reader| {
            let exists = crate::analysis::gradient::exists;
            writers.iter().map(move |from| exists(*from, to) && !circuit.at(*from, to))
        };
        let mask: Vec<f64> =
            readers.iter().flat_map(|to| cut(*to)).map(|cut| f64::from(u8::from(cut))).collect();
        let any = mask.iter().any(|cut| *cut > 0.0);
        any.then_some(Cut { mask, writers: writers.len(), readers: readers.len() })
    }

    /// What the readers read: `x [Batch, Pos, Head, DModel]`, or `[Batch, Pos, DModel]` of one.
    fn apply(&self, changes: &Tensor, x: &Tensor) -> Result<Tensor> {
        let mask = Tensor::from_slice(&self.mask).view([self.readers as i64, self.writers as i64]);
        let mask = mask.to_device(changes.device()).to_kind(changes.kind());
        let size = changes.size();
        let sum = mask.f_matmul(&changes.flatten(1, -1))?;
        let sum = sum.view([self.readers as i64, size[1], size[2], size[3]]);
        let sum = if x.dim() == 4 { sum.permute([1, 2, 0, 3]) } else { sum.squeeze_dim(0) };
        Ok((x.to_kind(changes.kind()) + sum).to_kind(x.kind()))
    }
}
