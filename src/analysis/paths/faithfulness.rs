//! Faithfulness of circuits of growing size, and its areas CPR and CMD.
//!
//! Mueller et al. 2025, "MIB: A Mechanistic Interpretability Benchmark",
//! <https://arxiv.org/abs/2504.13151>: the integrated circuit performance ratio (CPR, the area under
//! faithfulness, more is better) and the integrated circuit-model distance (CMD, the area of
//! `|1 - faithfulness|`, less is better), over the share of edges, by the trapezoidal rule between
//! the shares measured. As there, nothing is added below the smallest share.

use std::fmt;

use anyhow::{Result, ensure};
use ndarray::ArrayD;

use super::circuit::{Circuit, Selection};
use super::edge_patching::EdgePatching;
use crate::analysis::effect;
use crate::analysis::gradient::Edges;
use crate::grid::Grid;
use crate::hook::metric::Metric;
use crate::hook::site::Axis;
use crate::rng::Rng;
use crate::show::progress;

/// The shares of edges at which MIB measures.
pub const MIB_SHARES: [f64; 10] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0];

/// Faithfulness of circuits of growing size, beside circuits chosen at random.
#[derive(Clone)]
#[non_exhaustive]
pub struct Faithfulness {
    /// Faithfulness of each circuit, `[Step]`, labelled by the share of edges; the mean over prompts,
    /// with its 95 % interval where there are several.
    pub curve: Grid,
    /// The same of the control: equally many edges, chosen in the same way by shuffled scores,
    /// `[Step]`, the mean over draws, with the smallest and the largest as bounds.
    pub random: Grid,
    /// The share of all edges that each circuit was to have.
    pub shares: Vec<f64>,
    /// How many edges it has, dangling ones left out.
    pub sizes: Vec<usize>,
    /// The circuits.
    pub circuits: Vec<Circuit>,
    /// Area under faithfulness.
    pub cpr: f64,
    /// Area of `|1 - faithfulness|`.
    pub cmd: f64,
    /// CPR of each random draw.
    pub random_cpr: Vec<f64>,
    /// CMD of each random draw.
    pub random_cmd: Vec<f64>,
}

impl Faithfulness {
    /// Both curves in one grid, `[Series, Step]`: "circuit", "random".
    pub fn grid(&self) -> Result<Grid> {
        let grid =
            Grid::stack(Axis::Series, &[("circuit", &self.curve), ("random", &self.random)])?;
        Ok(grid.name("faithfulness of circuits"))
    }

    /// The smallest circuit whose faithfulness is within `tolerance` of 1, with its place in the
    /// curve.
    pub fn smallest(&self, tolerance: f64) -> Option<(usize, &Circuit)> {
        let near = |at: &usize| (1.0 - self.curve.values[[*at].as_slice()]).abs() <= tolerance;
        let mut all: Vec<usize> = (0..self.circuits.len()).filter(near).collect();
        all.sort_by_key(|at| self.sizes[*at]);
        all.first().map(|at| (*at, &self.circuits[*at]))
    }
}

/// One line: sizes, areas and those of the control.
impl fmt::Debug for Faithfulness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len().max(1) as f64;
        let (most, cpr, cmd) = (self.sizes.iter().max().unwrap_or(&0), self.cpr, self.cmd);
        write!(f, "Faithfulness {{ up to {most} edges, CPR {cpr:.3}, CMD {cmd:.3}; random: ")?;
        write!(f, "CPR {:.3}, CMD {:.3} }}", mean(&self.random_cpr), mean(&self.random_cmd))
    }
}

impl EdgePatching {
    /// Faithfulness of the circuits of these scores at each share of all edges, beside `draws`
    /// random controls (20 at least are advisable) drawn from `seed`; see [`Faithfulness`]. A curve
    /// takes one run a share, and one a share and draw.
    ///
    /// ```
    /// use thalweg::{Direction, EdgeAttribution, EdgePatching, Metric, Model, Selection};
    /// let model = Model::load("data/models/tiny-world")?;
    /// let clean = model.tokens("When Mary and John went to the store , John gave a drink to")?;
    /// let corrupt = model.tokens("When Mary and John went to the store , Mary gave a drink to")?;
    /// let metric = Metric::logit_diff(model.token("Mary")?, model.token("John")?);
    /// let edges = EdgeAttribution::new(&metric, Direction::Noise)
    ///     .integrated(5)
    ///     .run(&model, &clean, &corrupt)?;
    /// let pair = EdgePatching::new(&model, &clean, &corrupt)?;
    /// let shares = [0.02, 0.1, 0.3, 1.0];
    /// let curve = pair.curve(&edges, Selection::Greedy, &shares, &metric, 2, 0)?;
    /// assert!((curve.curve.values[[3]] - 1.0).abs() < 1e-4);
    /// assert!(curve.cmd < curve.random_cmd[0]);
    /// # thalweg::anyhow::Ok(())
    /// ```
    pub fn curve(
        &self,
        edges: &Edges,
        selection: Selection,
        shares: &[f64],
        metric: &Metric,
        draws: usize,
        seed: u64,
    ) -> Result<Faithfulness> {
        check_shares(shares)?;
        let all = edges.scores.present().count();
        let sizes: Vec<usize> = shares.iter().map(|share| (share * all as f64) as usize).collect();
        let at_sizes = |edges: &Edges| -> Vec<Circuit> {
            sizes.iter().map(|n| Circuit::best(edges, *n, selection)).collect()
        };
        let scaled = Scaled::new(self, metric)?;
        let circuits = at_sizes(edges);
        let values =
            circuits.iter().map(|circuit| scaled.of(circuit)).collect::<Result<Vec<_>>>()?;
        let curve = self.over_prompts(&values, shares)?;
        let mut rng = Rng::new(seed);
        let seeds: Vec<u64> = (0..draws).map(|_| rng.bits()).collect();
        let mut controls = Vec::new();
        for seed in progress(&seeds, "random circuits").unit("draws") {
            let random = at_sizes(&edges.shuffled(*seed));
            controls.push(
                random.iter().map(|circuit| scaled.mean(circuit)).collect::<Result<Vec<_>>>()?,
            );
        }
        let own: Vec<f64> = curve.values.iter().copied().collect();
        let distance = |values: &[f64]| values.iter().map(|f| (1.0 - f).abs()).collect::<Vec<_>>();
        Ok(Faithfulness {
            random: over_draws(&controls, shares)?.note("seed", &seed.to_string()),
            sizes: circuits.iter().map(Circuit::len).collect(),
            cpr: area(shares, &own),
            cmd: area(shares, &distance(&own)),
            random_cpr: controls.iter().map(|values| area(shares, values)).collect(),
            random_cmd: controls.iter().map(|values| area(shares, &distance(values))).collect(),
            curve: curve
                .name("faithfulness of circuits")
                .note("metric", &format!("{metric:?}"))
                .note("scores", &edges.scores.name)
                .note("chosen", &format!("{selection:?}"))
                .note("edges outside carry", self.counterfactual())
                .note("model", &format!("{:?}", self.model))
                .of_runs(self.origin.iter().filter_map(|cache| cache.origin().cloned())),
            shares: shares.to_vec(),
            circuits,
        })
    }

    /// `[Step]` from one value a prompt at each step.
    fn over_prompts(&self, values: &[Vec<f64>], shares: &[f64]) -> Result<Grid> {
        let rows = values.first().map_or(0, Vec::len);
        let each = ArrayD::from_shape_fn(vec![rows, values.len()], |at| values[at[1]][at[0]]);
        let each =
            steps(Grid::from_array(each, &[Axis::Batch, Axis::Step], "faithfulness")?, shares)?;
        let grid =
            if rows > 1 { each.mean_interval(Axis::Batch)? } else { each.select(Axis::Batch, 0)? };
        Ok(grid.zero_one("every edge at the counterfactual", "the whole model"))
    }
}

/// A metric's values as faithfulness.
struct Scaled<'a> {
    patching: &'a EdgePatching,
    metric: &'a Metric,
    empty: Vec<f64>,
    scale: f64,
}

impl<'a> Scaled<'a> {
    fn new(patching: &'a EdgePatching, metric: &'a Metric) -> Result<Self> {
        let (empty, full) = patching.ends(metric)?;
        let what = "faithfulness";
        let scale = effect::scale(what, (&patching.model, metric), (&empty, &full), false)?[0];
        Ok(Scaled { patching, metric, empty, scale })
    }

    /// One value a prompt, whose mean is the faithfulness.
    fn of(&self, circuit: &Circuit) -> Result<Vec<f64>> {
        let values = self.patching.values(circuit, self.metric)?;
        Ok(values.iter().zip(&self.empty).map(|(own, empty)| (own - empty) / self.scale).collect())
    }

    fn mean(&self, circuit: &Circuit) -> Result<f64> {
        let values = self.of(circuit)?;
        Ok(values.iter().sum::<f64>() / values.len() as f64)
    }
}

/// Mean of `a - b`.
pub(super) fn mean_of(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a - b).sum::<f64>() / a.len().max(1) as f64
}

fn check_shares(shares: &[f64]) -> Result<()> {
    ensure!(shares.len() > 1, "{} shares of edges: expected two at least", shares.len());
    let rising = shares.windows(2).all(|pair| pair[0] < pair[1]);
    let inside = shares.iter().all(|share| (0.0..=1.0).contains(share));
    ensure!(rising && inside, "shares of edges {shares:?}: expected rising numbers in 0..1");
    Ok(())
}

/// Labels the steps by their shares.
fn steps(grid: Grid, shares: &[f64]) -> Result<Grid> {
    let labels: Vec<String> =
        shares.iter().map(|share| format!("{} %", round(share * 100.0))).collect();
    grid.relabel(Axis::Step, &labels)
}

/// To four decimals, so that 0.7000000000000001 reads 0.7.
fn round(x: f64) -> f64 {
    (x * 1e4).round() / 1e4
}

/// `[Step]`: the mean over draws, between the smallest and the largest.
fn over_draws(draws: &[Vec<f64>], shares: &[f64]) -> Result<Grid> {
    let column = |step: usize| draws.iter().map(move |draw| draw[step]);
    let over = |reduce: &dyn Fn(&mut dyn Iterator<Item = f64>) -> f64| {
        ArrayD::from_shape_fn(vec![shares.len()], |at| reduce(&mut column(at[0])))
    };
    let mean = over(&|values| values.sum::<f64>() / draws.len() as f64);
    let low = over(&|values| values.fold(f64::INFINITY, f64::min));
    let high = over(&|values| values.fold(f64::NEG_INFINITY, f64::max));
    let grid = steps(Grid::from_array(mean, &[Axis::Step], "faithfulness")?, shares)?;
    let grid = if draws.is_empty() {
        grid.missing_where(f64::is_nan)
    } else {
        grid.interval(low, high, "smallest and largest of the draws")?
    };
    Ok(grid
        .n(draws.len())
        .name("faithfulness of random circuits")
        .zero_one("every edge at the counterfactual", "the whole model"))
}

/// Area under a curve by the trapezoidal rule.
fn area(x: &[f64], y: &[f64]) -> f64 {
    let pieces = x.windows(2).zip(y.windows(2));
    pieces.map(|(x, y)| (x[1] - x[0]) * (y[0] + y[1]) / 2.0).sum()
}
