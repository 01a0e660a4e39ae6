//! Circuits: sets of edges between embedding, heads, MLPs and logits, chosen by their scores.
//!
//! Hanna, Pezzelle & Belinkov 2024, "Have Faith in Faithfulness",
//! <https://arxiv.org/abs/2403.17806>: the best edges by score, found greedily from the logits
//! backwards or at once, without those that dangle. An edge dangles when nothing of the prompt
//! reaches its writer, or nothing of its reader the logits: in a run with all other edges at the
//! counterfactual it changes nothing.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fmt;

use anyhow::{Result, ensure};
use ndarray::{ArrayD, IxDyn};

use super::graph::Graph;
use crate::analysis::gradient::{Edges, Reader, Writer, exists, readers};
use crate::config::Config;
use crate::grid::Grid;
use crate::hook::site::Axis;
use crate::rng::Rng;

/// How edges are chosen by their scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Selection {
    /// The edges of largest magnitude.
    Top,
    /// From the logits backwards: always the edge of largest magnitude into what is already chosen,
    /// so that every edge leads to the logits.
    Greedy,
    /// The edges that carry most of the difference between the two runs; those that work against
    /// it come last.
    TopSigned,
    /// From the logits backwards by [`TopSigned`](Self::TopSigned)'s order.
    GreedySigned,
}

impl Selection {
    fn greedy(self) -> bool {
        matches!(self, Selection::Greedy | Selection::GreedySigned)
    }

    fn signed(self) -> bool {
        matches!(self, Selection::TopSigned | Selection::GreedySigned)
    }
}

/// A set of edges of a model.
///
/// ```
/// use thalweg::{Circuit, Model, Reader, Writer};
/// let model = Model::load("data/models/tiny-world")?;
/// let edges = [(Writer::Embed, Reader::Value(0, 1)), (Writer::Head(0, 2), Reader::Logits)];
/// let circuit = Circuit::of(model.config(), &edges)?;
/// assert_eq!(circuit.len(), 2); // head 2 reads key/value head 1
/// assert_eq!(circuit.pruned(), circuit);
/// let dangling = Circuit::of(model.config(), &edges[..1])?;
/// assert!(dangling.pruned().is_empty());
/// # thalweg::anyhow::Ok(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Circuit {
    pub(super) graph: Graph,
    /// `[Writer, Reader]`.
    kept: Vec<bool>,
}

impl Circuit {
    /// No edge.
    pub fn empty(config: &Config) -> Self {
        Self::none(Graph::new(config))
    }

    /// Every edge of the model.
    pub fn full(config: &Config) -> Self {
        let mut circuit = Self::empty(config);
        let to = readers(config);
        for from in circuit.graph.all_writers() {
            to.iter().filter(|to| exists(from, **to)).for_each(|to| circuit.keep(from, *to, true));
        }
        circuit
    }

    /// These edges. One that the model lacks is an error.
    pub fn of(config: &Config, edges: &[(Writer, Reader)]) -> Result<Self> {
        let mut circuit = Self::empty(config);
        for (from, to) in edges {
            circuit.graph.check(*from, *to)?;
            circuit.keep(*from, *to, true);
        }
        Ok(circuit)
    }

    /// The `n` best edges (all, if there are fewer), less those that dangle: it may be smaller.
    pub fn best(edges: &Edges, n: usize, selection: Selection) -> Self {
        let scored = Scored::new(edges, selection.signed());
        let circuit = if selection.greedy() { scored.greedy(n) } else { scored.top(n) };
        circuit.pruned()
    }

    fn none(graph: Graph) -> Self {
        Circuit { graph, kept: vec![false; graph.writers() * graph.readers()] }
    }

    fn keep(&mut self, from: Writer, to: Reader, kept: bool) {
        let at = self.graph.writer(from) * self.graph.readers() + self.graph.reader(to);
        self.kept[at] = kept;
    }

    /// Whether this edge is in the circuit; one that the model lacks is not.
    pub fn contains(&self, from: Writer, to: Reader) -> bool {
        self.graph.check(from, to).is_ok() && self.at(from, to)
    }

    pub(super) fn at(&self, from: Writer, to: Reader) -> bool {
        self.kept[self.graph.writer(from) * self.graph.readers() + self.graph.reader(to)]
    }

    /// Number of edges.
    pub fn len(&self) -> usize {
        self.kept.iter().filter(|kept| **kept).count()
    }

    /// Whether there is no edge.
    pub fn is_empty(&self) -> bool {
        !self.kept.contains(&true)
    }

    /// The edges, in the order of the pass.
    pub fn edges(&self) -> Vec<(Writer, Reader)> {
        let to = self.all_readers();
        let rows = self.graph.all_writers().into_iter().zip(self.kept.chunks(to.len()));
        rows.flat_map(|(from, row)| {
            to.iter().zip(row).filter(|(_, kept)| **kept).map(move |(to, _)| (from, *to))
        })
        .collect()
    }

    /// The same circuit with these edges too.
    pub fn with(mut self, edges: &[(Writer, Reader)]) -> Result<Self> {
        for (from, to) in edges {
            self.graph.check(*from, *to)?;
            self.keep(*from, *to, true);
        }
        Ok(self)
    }

    /// The same circuit without these edges.
    pub fn without(mut self, edges: &[(Writer, Reader)]) -> Result<Self> {
        for (from, to) in edges {
            self.graph.check(*from, *to)?;
            self.keep(*from, *to, false);
        }
        Ok(self)
    }

    /// The circuit without edges that dangle. A run of either is the same.
    pub fn pruned(&self) -> Self {
        let (graph, all) = (self.graph, self.graph.all_writers());
        let mut circuit = self.clone();
        let mut fed = vec![false; graph.readers()]; // by a writer that the prompt reaches
        for from in &all {
            let inputs = graph.inputs(*from);
            let reached = *from == Writer::Embed || inputs.iter().any(|to| fed[graph.reader(*to)]);
            circuit.row(*from, |to, kept| {
                *kept &= reached;
                fed[to] |= *kept;
            });
        }
        let mut heard = vec![false; graph.readers()]; // on its way to the logits
        heard[graph.reader(Reader::Logits)] = true;
        for from in all.iter().rev() {
            let mut leads = false;
            circuit.row(*from, |to, kept| {
                *kept &= heard[to];
                leads |= *kept;
            });
            let inputs = graph.inputs(*from);
            inputs.iter().for_each(|to| heard[graph.reader(*to)] |= leads);
        }
        circuit
    }

    /// Goes through a writer's edges: the reader's place, and whether the edge is kept.
    fn row(&mut self, from: Writer, mut see: impl FnMut(usize, &mut bool)) {
        let (n, at) = (self.graph.readers(), self.graph.writer(from));
        let row = &mut self.kept[at * n..(at + 1) * n];
        row.iter_mut().enumerate().for_each(|(to, kept)| see(to, kept));
    }

    fn all_readers(&self) -> Vec<Reader> {
        let layers = 0..self.graph.layers;
        let (heads, kv_heads) = (self.graph.heads, self.graph.kv_heads);
        let layer = |l: usize| {
            let queries = (0..heads).map(move |h| Reader::Query(l, h));
            let keys = (0..kv_heads).map(move |g| Reader::Key(l, g));
            let values = (0..kv_heads).map(move |g| Reader::Value(l, g));
            queries.chain(keys).chain(values).chain([Reader::Mlp(l)])
        };
        layers.flat_map(layer).chain([Reader::Logits]).collect()
    }

    /// `[Writer, Reader]`: 1 in the circuit, 0 outside; what cannot be an edge is missing.
    pub fn grid(&self) -> Result<Grid> {
        let (from, to) = (self.graph.all_writers(), self.all_readers());
        let values = self.kept.iter().map(|kept| f64::from(u8::from(*kept))).collect();
        let values = ArrayD::from_shape_vec(vec![from.len(), to.len()], values)?;
        let missing = ArrayD::from_shape_fn(values.raw_dim(), |at| !exists(from[at[0]], to[at[1]]));
        let grid = Grid::from_array(values, &[Axis::Writer, Axis::Reader], "in the circuit")?
            .relabel(Axis::Writer, &from.iter().map(Writer::to_string).collect::<Vec<_>>())?
            .relabel(Axis::Reader, &to.iter().map(Reader::to_string).collect::<Vec<_>>())?;
        let name = format!("circuit of {} edges", self.len());
        Ok(grid.missing(missing)?.name(&name).zero_one("outside", "in the circuit"))
    }

    /// Fails unless the circuit is of a model of this shape.
    pub(super) fn check(&self, config: &Config) -> Result<()> {
        let (own, model) = (self.graph, Graph::new(config));
        ensure!(
            own == model,
            "the circuit is of a model with {} layers, {} heads and {} key/value heads, this one has {}, {} and {}",
            own.layers,
            own.heads,
            own.kv_heads,
            model.layers,
            model.heads,
            model.kv_heads
        );
        Ok(())
    }
}

/// One line: its size and its first edges.
impl fmt::Debug for Circuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let edges = self.edges();
        let first = edges.iter().take(4).map(|(from, to)| format!("{from} -> {to}"));
        let more = if edges.len() > 4 { ", ..." } else { "" };
        write!(f, "{} edges: {}{more}", edges.len(), first.collect::<Vec<_>>().join(", "))
    }
}

impl Edges {
    /// A control: the same scores, each at another edge, in an order drawn from `seed`.
    pub fn shuffled(&self, seed: u64) -> Edges {
        let mut edges = self.clone();
        let cells: Vec<(Vec<usize>, f64)> = self.scores.present().collect();
        let mut order: Vec<usize> = (0..cells.len()).collect();
        Rng::new(seed).shuffle(&mut order);
        for ((at, _), from) in cells.iter().zip(order) {
            edges.scores.values[IxDyn(at)] = cells[from].1;
        }
        edges.scores.name = format!("{} shuffled with seed {seed}", self.scores.name);
        edges
    }
}

/// Edges and what they are chosen by, larger first.
struct Scored<'a> {
    edges: &'a Edges,
    graph: Graph,
    /// 1 or -1: what a score is multiplied by; absent: its magnitude counts.
    sign: Option<f64>,
}

impl<'a> Scored<'a> {
    fn new(edges: &'a Edges, signed: bool) -> Self {
        let graph = Graph::of_scores(edges);
        Scored { edges, graph, sign: signed.then(|| edges.difference.signum()) }
    }

    fn key(&self, score: f64) -> f64 {
        self.sign.map_or(score.abs(), |sign| sign * score)
    }

    fn top(&self, n: usize) -> Circuit {
        let mut all: Vec<_> =
            self.edges.scores.present().map(|(at, x)| (at, self.key(x))).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        let mut circuit = Circuit::none(self.graph);
        for (at, _) in all.iter().take(n) {
            circuit.keep(self.edges.writers[at[0]], self.edges.readers[at[1]], true);
        }
        circuit
    }

    fn greedy(&self, n: usize) -> Circuit {
        let mut circuit = Circuit::none(self.graph);
        let mut open = vec![false; self.edges.readers.len()];
        let mut waiting = BinaryHeap::new();
        self.open(Reader::Logits, &mut open, &mut waiting);
        for _ in 0..n {
            let Some(best) = waiting.pop() else { break };
            let from = self.edges.writers[best.from];
            circuit.keep(from, self.edges.readers[best.to], true);
            for reader in self.graph.inputs(from) {
                self.open(reader, &mut open, &mut waiting);
            }
        }
        circuit
    }

    /// Lets all edges into a reader wait to be chosen, once.
    fn open(&self, reader: Reader, open: &mut [bool], waiting: &mut BinaryHeap<Waiting>) {
        let to = self.graph.reader(reader);
        if std::mem::replace(&mut open[to], true) {
            return;
        }
        for (from, writer) in self.edges.writers.iter().enumerate() {
            if exists(*writer, reader) {
                let key = self.key(self.edges.scores.values[[from, to].as_slice()]);
                waiting.push(Waiting { key, from, to });
            }
        }
    }
}

/// An edge that may be chosen next; of equals the first in the order of the pass.
#[derive(PartialEq)]
struct Waiting {
    key: f64,
    from: usize,
    to: usize,
}

impl Eq for Waiting {}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        let later = || (other.from, other.to).cmp(&(self.from, self.to));
        self.key.total_cmp(&other.key).then_with(later)
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
