//! Edge attribution patching: which component passes what to which other.
//!
//! Syed, Rager & Conmy 2023, "Attribution Patching Outperforms Automated Circuit Discovery" (EAP),
//! <https://arxiv.org/abs/2310.10348>; Hanna, Pezzelle & Belinkov 2024, "Have Faith in
//! Faithfulness" (EAP-IG), <https://arxiv.org/abs/2403.17806>.
//!
//! An edge's score is the change of what its writer writes, times the gradient of the metric in
//! what its reader reads: the first-order effect of patching this edge alone. EAP-IG averages the
//! gradient over inputs between the two prompts. What a head writes is never formed: the gradient is
//! taken through its output matrix instead, `<dz W_O, g> = <dz, W_O g>`, which keeps all
//! differences as small as `Z`.

use std::fmt;

use anyhow::{Context, Result, ensure};
use tch::{Kind, Tensor};

use super::integrated::{completeness_error, midpoints};
use super::nodes::{Reader, Writer, exists, readers, writers};
use super::{looking_at, noted, value};
use crate::analysis::direction::Direction;
use crate::analysis::patching::check_pair;
use crate::grid::Grid;
use crate::hook::cache::Cache;
use crate::hook::intervention::Intervention;
use crate::hook::metric::Metric;
use crate::hook::plan::Plan;
use crate::hook::site::{Axis, Point, Site};
use crate::model::forward::wide;
use crate::model::{Model, W};
use crate::show::progress;
use crate::text::Tokens;

/// Where on the line between the two prompts EAP-IG takes its gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// In the middle of equal pieces: the error shrinks with the square of the steps.
    Midpoint,
    /// At the left end of equal pieces, from the corrupt prompt on, as the reference code has it:
    /// the error shrinks with the steps only.
    LeftFromCorrupt,
}

/// What to attribute to edges: the metric, the direction, one gradient (EAP) or several (EAP-IG).
///
/// ```
/// use thalweg::{Direction, EdgeAttribution, Metric, Model};
/// let model = Model::load("data/models/tiny-world")?;
/// let clean = model.tokens("When Mary and John went to the store , John gave a drink to")?;
/// let corrupt = model.tokens("When Mary and John went to the store , Mary gave a drink to")?;
/// let metric = Metric::logit_diff(model.token("Mary")?, model.token("John")?);
/// let edges = EdgeAttribution::new(&metric, Direction::Noise)
///     .integrated(20)
///     .run(&model, &clean, &corrupt)?;
/// assert!(edges.completeness_error < 0.01);
/// let ranked = edges.ranked();
/// println!("{} -> {}: {:+.2} nats", ranked[0].from, ranked[0].to, ranked[0].score);
/// assert!(ranked[0].score.abs() >= ranked[1].score.abs());
/// # thalweg::anyhow::Ok(())
/// ```
#[derive(Debug, Clone)]
pub struct EdgeAttribution {
    metric: Metric,
    direction: Direction,
    /// Rule and steps of EAP-IG; absent: EAP.
    path: Option<(Rule, usize)>,
}

/// An edge and its score.
#[derive(Debug, Clone, PartialEq)]
pub struct Edge {
    /// What writes.
    pub from: Writer,
    /// What reads it.
    pub to: Reader,
    /// Estimated effect on the metric of patching this edge alone, in the metric's unit.
    pub score: f64,
}

/// Scores of all edges, a mean over prompts. `scores.top(10)` are the ten best as a grid for bars.
#[derive(Clone)]
#[non_exhaustive]
pub struct Edges {
    /// What writes, in the order of the pass.
    pub writers: Vec<Writer>,
    /// What reads.
    pub readers: Vec<Reader>,
    /// `[Writer, Reader]`; what cannot be an edge, for its reader comes first, is missing.
    pub scores: Grid,
    /// The metric of the run that patches come from less that of the run that receives them, mean
    /// over prompts.
    pub difference: f64,
    /// `|sum of the embedding's edges - difference| / |difference|`: EAP-IG's goes to 0 with more
    /// steps, EAP's says how far the model is from linear.
    pub completeness_error: f64,
    /// Rule and steps of EAP-IG; absent: EAP.
    pub path: Option<(Rule, usize)>,
}

impl EdgeAttribution {
    /// EAP: one gradient, in the run that receives the patch.
    pub fn new(metric: &Metric, direction: Direction) -> Self {
        EdgeAttribution { metric: metric.clone(), direction, path: None }
    }

    /// EAP-IG: the mean of `steps` gradients on the line between the two prompts' embeddings, by
    /// the midpoint rule.
    pub fn integrated(mut self, steps: usize) -> Self {
        self.path = Some((Rule::Midpoint, steps));
        self
    }

    /// EAP-IG by this rule.
    pub fn integrated_by(mut self, rule: Rule, steps: usize) -> Self {
        self.path = Some((rule, steps));
        self
    }

    /// Scores every edge between embedding, heads, MLPs and logits; heads read through queries,
    /// keys and values apart. Clean and corrupt prompts must agree in length, row by row.
    pub fn run(&self, model: &Model, clean: &Tokens, corrupt: &Tokens) -> Result<Edges> {
        check_pair(clean, corrupt)?;
        let shares = self.shares()?;
        let (source, receiver) = self.direction.order(clean, corrupt);
        let written = [Point::Z, Point::MlpOut];
        let plan = looking_at(Plan::new().cache(written).cache(Site::Embed), &self.metric, &[]);
        let [from, to] = [source, receiver].map(|tokens| model.run(tokens, &plan));
        let (from, to) = (from?, to?);
        let difference = value(&self.metric, &from, source)? - value(&self.metric, &to, receiver)?;
        let difference = difference.mean(None);
        let start = to.cache.get(Site::Embed)?;
        let across = from.cache.get(Site::Embed)? - &start;
        let changes = Changes::new(model, &from.cache, &to.cache)?;
        let mut total = changes.zeros();
        for share in progress(&shares, "edge attribution").unit("steps") {
            let here = &start + &across * *share;
            let gradients = self.gradients(model, receiver, &here)?;
            total += changes.scores(model, &gradients)?;
        }
        let scores: Tensor = total / (shares.len() * clean.batch()) as f64;
        let out_of_input = scores.get(0).sum(None).view(1);
        let completeness_error = completeness_error(&out_of_input, &difference.view(1))?;
        let grid = self.grid(model, &scores, completeness_error)?.n(clean.batch());
        Ok(Edges {
            writers: writers(model.config()),
            readers: readers(model.config()),
            scores: grid.of_runs([&from, &to].iter().filter_map(|run| run.cache.origin().cloned())),
            difference: difference.double_value(&[]),
            completeness_error,
            path: self.path,
        })
    }

    /// Places on the line from the receiving run (0) to the source (1).
    fn shares(&self) -> Result<Vec<f64>> {
        let Some((rule, steps)) = self.path else { return Ok(vec![0.0]) };
        ensure!(steps > 0, "EAP-IG in 0 steps: expected 1 at least");
        let left = (0..steps).map(|i| i as f64 / steps as f64);
        Ok(match (rule, self.direction) {
            (Rule::Midpoint, _) => midpoints(steps),
            (Rule::LeftFromCorrupt, Direction::Denoise) => left.collect(),
            (Rule::LeftFromCorrupt, Direction::Noise) => left.map(|share| 1.0 - share).collect(),
        })
    }

    /// Activations and gradients where components read, with these embeddings.
    fn gradients(&self, model: &Model, tokens: &Tokens, embed: &Tensor) -> Result<[Cache; 2]> {
        let read = [Point::ResidPre, Point::Q, Point::K, Point::V, Point::MlpIn];
        let last = Point::ResidPost.at(model.config().n_layers - 1);
        let plan = Plan::new()
            .intervene(Site::Embed, Intervention::set(embed))
            .cache(read)
            .cache(last)
            .gradients(self.metric.clone());
        let run = model.run(tokens, &looking_at(plan, &self.metric, &[]))?;
        Ok([run.cache, run.gradients.context("the plan asks for gradients")?])
    }

    fn grid(&self, model: &Model, scores: &Tensor, error: f64) -> Result<Grid> {
        let (from, to) = (writers(model.config()), readers(model.config()));
        let named = [
            (Axis::Writer, from.iter().map(Writer::to_string).collect()),
            (Axis::Reader, to.iter().map(Reader::to_string).collect()),
        ];
        let grid = Grid::from_tensor(scores, &named, self.metric.unit())?;
        let missing = ndarray::ArrayD::from_shape_fn(grid.values.raw_dim(), |index| {
            !exists(from[index[0]], to[index[1]])
        });
        let (name, path) = match self.path {
            None => ("EAP", "one gradient, in the receiving run".to_owned()),
            Some((rule, steps)) => ("EAP-IG", format!("{rule:?}, {steps} steps")),
        };
        let grid = grid
            .missing(missing)?
            .name(name)
            .note("direction", &self.direction.to_string())
            .note("gradients", &path)
            .note("completeness error", &format!("{error:.2e}"));
        Ok(noted(grid, model, &self.metric))
    }
}

impl Edges {
    /// Every edge, best first: largest magnitude.
    pub fn ranked(&self) -> Vec<Edge> {
        let edge = |cell: crate::grid::Cell| Edge {
            from: self.writers[cell.index[0]],
            to: self.readers[cell.index[1]],
            score: cell.value,
        };
        self.scores.ranked().into_iter().map(edge).collect()
    }
}

impl fmt::Debug for Edges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let best: Vec<_> = self.ranked().iter().take(3).map(Edge::to_string).collect();
        let (error, difference) = (self.completeness_error, self.difference);
        write!(f, "{}, difference {difference:.4}, completeness error ", self.scores.name)?;
        write!(f, "{error:.2e}; {} edges: {}, ...", self.scores.present().count(), best.join(", "))
    }
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}: {:.4}", self.from, self.to, self.score)
    }
}

/// How what is written differs between the two runs, and the weights to read gradients by.
struct Changes {
    /// Differences `[Batch * Pos * DModel]` of the embedding and of each MLP.
    embed: Tensor,
    mlps: Vec<Tensor>,
    /// Differences of z, `[Batch * Pos, Head, DHead]`, and `W_O [DModel, Head * DHead]`, by layer.
    heads: Vec<(Tensor, Tensor)>,
    /// Weights of queries, keys, values with the norm's folded in, `[heads, DHead, DModel]`.
    reads: Vec<[Tensor; 3]>,
}

impl Changes {
    fn new(model: &Model, source: &Cache, receiver: &Cache) -> Result<Self> {
        let change = |site: Site| anyhow::Ok(source.get(site)? - receiver.get(site)?);
        let (layers, home) = (0..model.config().n_layers, model.device());
        let mlp = |layer| Ok(change(Point::MlpOut.at(layer))?.flatten(0, -1));
        let head = |layer| {
            let w = model.weight(W::O, layer)?.flatten(0, 1).tr().to_device(home);
            Ok((change(Point::Z.at(layer))?.flatten(0, 1), w))
        };
        let read = |layer| {
            let [q, k, v] = [W::Q, W::K, W::V].map(|w| model.weight_folded(w, layer));
            Ok([q?, k?, v?].map(|w| w.transpose(1, 2).to_device(home)))
        };
        Ok(Changes {
            embed: change(Site::Embed)?.flatten(0, -1),
            mlps: layers.clone().map(mlp).collect::<Result<_>>()?,
            heads: layers.clone().map(head).collect::<Result<_>>()?,
            reads: layers.map(read).collect::<Result<_>>()?,
        })
    }

    /// `[Writer, Reader]`, f64.
    fn zeros(&self) -> Tensor {
        let (layers, heads) = (self.heads.len() as i64, self.heads[0].0.size()[1]);
        let kv_heads = self.reads[0][1].size()[0];
        let size = [1 + layers * (heads + 1), layers * (heads + 2 * kv_heads + 1) + 1];
        Tensor::zeros(size, (Kind::Double, self.embed.device()))
    }

    /// Scores of all edges at one point of the path, summed over prompts: `[Writer, Reader]`.
    fn scores(&self, model: &Model, run: &[Cache; 2]) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let [cache, gradients] = run;
        let n_layers = self.heads.len();
        let mut columns = Vec::new();
        for layer in 0..n_layers {
            let x = cache.get(Point::ResidPre.at(layer))?;
            let norm = Norm::new(&x, model.config().eps);
            for (point, w) in [Point::Q, Point::K, Point::V].into_iter().zip(&self.reads[layer]) {
                let gradient = gradients.get(point.at(layer))?; // [b, p, heads, d]
                for head in 0..gradient.size()[2] {
                    let read = gradient.select(2, head).matmul(&w.get(head)); // [b, p, m]
                    columns.push(self.column(&norm.back(&read), layer, layer));
                }
            }
            let read = gradients.get(Point::MlpIn.at(layer))?;
            columns.push(self.column(&read, layer + 1, layer));
        }
        let read = gradients.get(Point::ResidPost.at(n_layers - 1))?;
        columns.push(self.column(&read, n_layers, n_layers));
        Ok(Tensor::stack(&columns, 1))
    }

    /// Scores of all writers to a reader with this gradient `[b, p, m]`; heads of `below_heads`
    /// layers and MLPs of `below_mlps` come before it, the others score 0.
    fn column(&self, gradient: &Tensor, below_heads: usize, below_mlps: usize) -> Tensor {
        let gradient = gradient.to_kind(wide(gradient.kind()));
        let flat = gradient.flatten(0, -1);
        let sum = |x: &Tensor| (x * &flat).sum(Kind::Double).view(1);
        let mut parts = vec![sum(&self.embed)];
        for (layer, (z, w)) in self.heads.iter().enumerate() {
            parts.push(if layer < below_heads {
                let through = gradient.flatten(0, 1).to_kind(w.kind()).matmul(w).view_as(z); // [b p, h, d]
                (through.to_kind(gradient.kind()) * z).sum_dim_intlist(
                    [0i64, 2].as_slice(),
                    false,
                    Kind::Double,
                )
            } else {
                Tensor::zeros([z.size()[1]], (Kind::Double, z.device()))
            });
            parts.push(if layer < below_mlps {
                sum(&self.mlps[layer])
            } else {
                Tensor::zeros([1], (Kind::Double, z.device()))
            });
        }
        Tensor::cat(&parts, 0)
    }
}

/// The backward pass of RMSNorm at a stream `x`.
struct Norm {
    normalized: Tensor,
    scale: Tensor,
}

impl Norm {
    fn new(x: &Tensor, eps: f64) -> Self {
        let x = x.to_kind(wide(x.kind()));
        let scale = (x.square().mean_dim([-1i64].as_slice(), true, None) + eps).sqrt();
        Norm { normalized: x / &scale, scale }
    }

    /// From the gradient at `x / scale` to that at `x`.
    fn back(&self, gradient: &Tensor) -> Tensor {
        let gradient = gradient.to_kind(self.scale.kind());
        let along = (&gradient * &self.normalized).mean_dim([-1i64].as_slice(), true, None);
        (gradient - &self.normalized * along) / &self.scale
    }
}
