//! Correlation of every cell of one grid with every cell of another, over tokens or prompts.
//!
//! Intervals by a percentile bootstrap of whole prompts (Cameron, Gelbach and Miller 2008,
//! <https://doi.org/10.1162/rest.90.3.414>), p values by shuffles of whole prompts, and of the largest cell by
//! the same shuffles (Westfall and Young 1993, "Resampling-based multiple testing").

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use ndarray::ArrayD;
use tch::{Kind, Tensor};

use super::coefficient::{Coefficient, Ready};
use super::correlations::Correlations;
use super::joint::Joint;
use super::shuffle::{Orders, Shuffle};
use super::significance::{benjamini_hochberg, benjamini_yekutieli, correlation_p};
use crate::grid::{Grid, GridAxis};
use crate::hook::site::Axis;
use crate::interrupt::check_interrupt;
use crate::rng::Rng;
use crate::show::Bar;

/// Coefficients that differ by less than this are the same but for rounding.
const ROUNDING: f64 = 1e-12;
/// Numbers that draws may take together, or the distances of either side: 1 GiB.
const MOST: usize = 1 << 27;

/// How two grids are to be correlated; [`of`](Self::of) does it. A by-value builder.
#[derive(Debug, Clone)]
pub struct Correlate {
    pub(super) how: Coefficient,
    pub(super) over: Option<Vec<Axis>>,
    pub(super) given: Option<Grid>,
    shuffle: Shuffle,
    shuffles: usize,
    resamples: usize,
    seed: u64,
}

/// The correlation of every cell of `a` with every cell of `b` over the tokens or prompts they share, with
/// intervals, p values and the control: [`Correlate`] with its defaults.
///
/// Samples are along `Batch` and `Pos` (or `Query`), with the same labels in both; all other axes are cells. Of several prompts with several
/// tokens each, whole prompts are drawn and shuffled.
///
/// ```
/// use thalweg::{Coefficient, Model, Plan, Point, correlate, repeated_tokens, resid_norms, token_losses};
/// let model = Model::load("data/models/tiny-world")?;
/// let tokens = repeated_tokens(&model, 12, 8, 0)?;
/// let run = model.run(&tokens, &Plan::new().cache(Point::ResidPost))?;
/// // does the length of the stream say how well the next token is known?
/// let found = correlate(&resid_norms(&run.cache)?, &token_losses(&run)?, Coefficient::Spearman, 7)?;
/// assert_eq!((found.r.shape(), found.clusters), ([4].as_slice(), 12));
/// assert!(found.p_max_t.values.iter().all(|p| *p > 0.0 && *p <= 1.0));
/// # thalweg::anyhow::Ok(())
/// ```
pub fn correlate(a: &Grid, b: &Grid, how: Coefficient, seed: u64) -> Result<Correlations> {
    Correlate::new(how, seed).of(a, b)
}

impl Correlate {
    /// 1000 resamples for intervals and 999 shuffles of whole prompts for p values, drawn from `seed`.
    pub fn new(how: Coefficient, seed: u64) -> Self {
        let (over, given, shuffle) = (None, None, Shuffle::Prompts);
        Correlate { how, over, given, shuffle, shuffles: 999, resamples: 1000, seed }
    }

    /// Samples are along these axes, the first of which says what belongs together. Default: those there
    /// are of `Batch`, `Pos` and `Query`.
    pub fn over(mut self, axes: &[Axis]) -> Self {
        self.over = Some(axes.to_vec());
        self
    }

    /// Partial correlation: holds fixed what least squares on this grid's cells explains of either
    /// side (for Spearman's, of the ranks). The p values shuffle what is left.
    pub fn given(mut self, grid: &Grid) -> Self {
        self.given = Some(grid.clone());
        self
    }

    /// What is shuffled for the p values.
    pub fn shuffle(mut self, what: Shuffle) -> Self {
        self.shuffle = what;
        self
    }

    /// How many shuffles. All orders are taken, each once, where there are no more than that.
    pub fn shuffles(mut self, count: usize) -> Self {
        self.shuffles = count;
        self
    }

    /// How many resamples the intervals rest on.
    pub fn resamples(mut self, count: usize) -> Self {
        self.resamples = count;
        self
    }

    /// Correlates every cell of `a` with every cell of `b`.
    pub fn of(&self, a: &Grid, b: &Grid) -> Result<Correlations> {
        ensure!(self.shuffles > 0 && self.resamples > 0, "correlate: 0 draws, expected at least 1");
        let joint = Joint::new(self, a, b)?;
        let (cells, n) = (joint.widest(), joint.n);
        ensure!(
            self.how != Coefficient::Distance || cells * n * n <= MOST,
            "correlate: a distance correlation of {cells} cells over {n} samples holds {} numbers a side, \
             expected at most {MOST}; take fewer cells or samples",
            cells * n * n
        );
        let (x, y) = joint.ready(self.how, None);
        let r = x.with(&y);
        let drawn = joint.cells.iter().map(GridAxis::len).product::<usize>();
        let most = MOST / drawn.max(1);
        ensure!(
            self.shuffles <= most && self.resamples <= most,
            "correlate: {drawn} cells with {} shuffles and {} resamples, expected at most {most} of each",
            self.shuffles,
            self.resamples
        );
        let shuffled = self.shuffled((&x, &y), &r, &joint.groups)?;
        let resampled = self.resampled(&joint)?;
        self.collect((a, b), joint, &r, shuffled, &resampled)
    }

    /// Coefficients of shuffled samples, and how many were as large.
    fn shuffled(&self, (x, y): (&Ready, &Ready), r: &Tensor, groups: &[usize]) -> Result<Shuffled> {
        let rng = Rng::new(self.seed).fork(1);
        let mut orders = Orders::new(self.shuffle, groups, self.shuffles, rng)?;
        let least = r.abs() - ROUNDING;
        let (mut each, mut any) = (r.zeros_like(), r.zeros_like());
        let mut drawn = Vec::new();
        let mut bar = Bar::new("correlation", orders.count()).unit("shuffles");
        for _ in 0..orders.count() {
            check_interrupt()?;
            let found = x.with(&y.reordered(&orders.next()));
            let size = found.abs();
            let largest = size.nan_to_num(0.0, None, None).max();
            each += size.ge_tensor(&least).to_kind(Kind::Double);
            any += least.le_tensor(&largest).to_kind(Kind::Double);
            drawn.push(found);
            bar.add(1);
        }
        // Of random orders, that found is one more: no p value is 0.
        let found = if orders.all { 0.0 } else { 1.0 };
        let share = |count: Tensor| (count + found) / (orders.count() as f64 + found);
        let (all, count) = (orders.all, orders.count());
        Ok(Shuffled {
            p: share(each),
            p_max: share(any),
            drawn: Tensor::stack(&drawn, 0),
            all,
            count,
        })
    }

    /// Coefficients of groups drawn with replacement, `[Draw, Cell, Cell]`.
    fn resampled(&self, joint: &Joint) -> Result<Tensor> {
        let mut members: Vec<Vec<i64>> = Vec::new();
        for (i, group) in joint.groups.iter().enumerate() {
            match i > 0 && joint.groups[i - 1] == *group {
                true => members.last_mut().into_iter().for_each(|list| list.push(i as i64)),
                false => members.push(vec![i as i64]),
            }
        }
        let mut rng = Rng::new(self.seed).fork(2);
        let mut bar = Bar::new("correlation", self.resamples).unit("resamples");
        let mut drawn = Vec::new();
        for _ in 0..self.resamples {
            check_interrupt()?;
            let chosen = (0..members.len()).flat_map(|_| members[rng.below(members.len())].clone());
            let chosen = Tensor::from_slice(&chosen.collect::<Vec<_>>());
            let (x, y) = joint.ready(self.how, Some(&chosen));
            drawn.push(x.with(&y));
            bar.add(1);
        }
        Ok(Tensor::stack(&drawn, 0))
    }

    fn collect(
        &self,
        (a, b): (&Grid, &Grid),
        joint: Joint,
        r: &Tensor,
        shuffled: Shuffled,
        resampled: &Tensor,
    ) -> Result<Correlations> {
        let clusters = joint.groups.iter().collect::<BTreeSet<_>>().len();
        let several = clusters < joint.n;
        let over = if several { "prompts" } else { "samples" };
        let array = |x: &Tensor| -> Result<ArrayD<f64>> {
            let shape: Vec<usize> = joint.cells.iter().map(GridAxis::len).collect();
            Ok(ArrayD::from_shape_vec(shape, Vec::<f64>::try_from(x.reshape([-1]))?)?)
        };
        let constant = array(r)?.mapv(f64::is_nan);
        let whose = match &self.given {
            Some(given) => format!("{} with {}, given {}", title(a), title(b), title(given)),
            None => format!("{} with {}", title(a), title(b)),
        };
        let grid = |values: ArrayD<f64>, unit: &str, what: &str| -> Result<Grid> {
            let mut grid = Grid::new(values, joint.cells.clone(), unit)?
                .name(&format!("{what}: {whose}"))
                .n(joint.n)
                .note("seed", &self.seed.to_string())
                .note("samples", &joint.described(over, clusters))
                .of_runs_of(a)
                .of_runs_of(b);
            grid.missing = constant.iter().any(|gone| *gone).then(|| constant.clone());
            Ok(grid)
        };
        let coefficient = format!("{:?} correlation", self.how);
        let shuffles = match shuffled.all {
            true => format!("all {} orders of {}", shuffled.count, self.shuffle.name()),
            false => format!("{} shuffles of {}", shuffled.count, self.shuffle.name()),
        };
        let p = |values: ArrayD<f64>, what: &str| -> Result<Grid> {
            Ok(grid(values, "p value", what)?.note("shuffles", &shuffles))
        };
        let adjusted = |by: fn(&[f64]) -> Result<Vec<f64>>| -> Result<ArrayD<f64>> {
            let mut p = array(&shuffled.p)?;
            p.zip_mut_with(&constant, |p, gone| *p = if *gone { f64::NAN } else { *p });
            Ok(ArrayD::from_shape_vec(p.raw_dim(), by(&p.iter().copied().collect::<Vec<_>>())?)?)
        };
        let student = || -> Result<Grid> {
            let r = array(r)?;
            let each = r.iter().map(|r| correlation_p(*r, joint.n, joint.held()));
            let values = ArrayD::from_shape_vec(r.raw_dim(), each.collect::<Result<Vec<_>>>()?)?;
            grid(values, "p value", "Student's p of independent samples")
        };
        let (low, high) = percentiles(resampled);
        let (under, above) = percentiles(&shuffled.drawn);
        let mean = shuffled.drawn.mean_dim([0i64].as_slice(), false, None);
        Ok(Correlations {
            r: grid(array(r)?, &coefficient, &coefficient)?
                .interval(
                    array(&low)?,
                    array(&high)?,
                    &format!("95 % bootstrap interval over {over}"),
                )?
                .note("resamples", &self.resamples.to_string()),
            p: p(array(&shuffled.p)?, "p by shuffles")?,
            shuffled: p(array(&mean)?, "")?
                .interval(array(&under)?, array(&above)?, "range of 95 % of the shuffles")?
                .unit(&coefficient)
                .name(&format!("{coefficient} of shuffled samples: {whose}")),
            p_bh: p(adjusted(benjamini_hochberg)?, "p of Benjamini and Hochberg")?,
            p_by: p(adjusted(benjamini_yekutieli)?, "p of Benjamini and Yekutieli")?,
            p_max_t: p(array(&shuffled.p_max)?, "p of the largest cell (max-T)")?,
            p_student: (self.how != Coefficient::Distance).then(student).transpose()?,
            n: joint.n,
            clusters,
        })
    }
}

/// What the shuffles gave.
struct Shuffled {
    p: Tensor,
    p_max: Tensor,
    /// `[Draw, Cell, Cell]`
    drawn: Tensor,
    all: bool,
    count: usize,
}

/// The range of 95 % of the draws `[Draw, ..]` of each cell, NaN left out.
fn percentiles(drawn: &Tensor) -> (Tensor, Tensor) {
    let (sorted, _) = drawn.sort(0, false); // NaN last
    let last =
        drawn.isnan().logical_not().sum_dim_intlist([0i64].as_slice(), true, Kind::Double) - 1.0;
    let at = |share: f64| {
        let place = (&last * share).round().clamp_min(0.0).to_kind(Kind::Int64);
        sorted.gather(0, &place, false).squeeze_dim(0)
    };
    (at(0.025), at(0.975))
}

fn title(grid: &Grid) -> &str {
    if grid.name.is_empty() { "a grid" } else { &grid.name }
}
