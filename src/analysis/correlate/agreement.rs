//! Do several measures of importance put the same things first?
//!
//! Spearman's rank correlation, as in Krishna et al. 2022, "The Disagreement Problem in Explainable
//! Machine Learning", <https://arxiv.org/abs/2202.01602>, with a percentile bootstrap interval (Efron
//! 1979) over prompts, the tokens of which are not independent of each other.

use anyhow::{Result, ensure};
use ndarray::{ArrayD, IxDyn};
use tch::Tensor;

use super::coefficient::{Coefficient, coefficient};
use crate::grid::{Grid, GridAxis};
use crate::hook::site::Axis;
use crate::rng::Rng;

/// Resamples and shuffles: enough for two digits of a 95 % interval.
const RESAMPLES: usize = 1000;
/// The same grids give the same interval.
const SEED: u64 = 0x5eed;

/// How alike grids of importance order the same cells: Spearman's correlation of each pair, -1..1,
/// `[Series, Feature]`, both labelled by the names given, with its 95 % bootstrap interval.
///
/// Grids need equal axes. With several prompts (`Batch`) it is the mean of each prompt's own
/// correlation, the interval is over prompts and `n` their number; else over the cells. The control
/// is the note `shuffled`: the range of 95 % of such numbers once one grid's cells are in random order.
/// Prompts of fewer than three cells, or in which a grid is constant, are left out of its pairs;
/// where one prompt is left, the bounds are NaN.
///
/// ```
/// use thalweg::{Axis, Grid, agreement, ndarray::array};
/// let causal = Grid::from_array(array![0.1, 0.9, 0.3, 0.7, 0.2], &[Axis::Pos], "nats")?;
/// let gradient = causal.map(|x| x * x);
/// let pairs = agreement(&[("occlusion", &causal), ("gradient", &gradient)])?;
/// assert!((pairs.get(&["occlusion", "gradient"])? - 1.0).abs() < 1e-12);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn agreement(grids: &[(&str, &Grid)]) -> Result<Grid> {
    agreement_with(grids, RESAMPLES, SEED)
}

/// [`agreement`] with a number of resamples and a seed of one's own.
pub fn agreement_with(grids: &[(&str, &Grid)], resamples: usize, seed: u64) -> Result<Grid> {
    ensure!(grids.len() > 1, "agreement: {} grids, expected two at least", grids.len());
    ensure!(resamples > 0, "agreement: 0 resamples, expected at least 1");
    let first = grids[0];
    for (name, grid) in grids {
        ensure!(
            grid.axes == first.1.axes,
            "agreement: {name:?} has axes {}, {:?} has {}: axes and labels must be equal",
            grid.axes_text(),
            first.0,
            first.1.axes_text()
        );
    }
    let k = grids.len();
    let mut values = ArrayD::from_elem(vec![k, k], 1.0);
    let (mut low, mut high) = (values.clone(), values.clone());
    let (mut n, mut over, mut widest) = (usize::MAX, "cells", 0.0f64);
    let rng = Rng::new(seed);
    for a in 0..k {
        for b in a + 1..k {
            let pair = Pair::new(grids[a], grids[b])?;
            let (r, bounds) = (pair.value(), pair.interval(resamples, &mut rng.fork(2)));
            widest = widest.max(pair.shuffled(resamples, &mut rng.fork(3)));
            n = n.min(pair.count());
            over = pair.over();
            for at in [[a, b], [b, a]] {
                values[IxDyn(&at)] = r;
                low[IxDyn(&at)] = bounds.0;
                high[IxDyn(&at)] = bounds.1;
            }
        }
    }
    let labels: Vec<String> = grids.iter().map(|(name, _)| (*name).to_owned()).collect();
    let axes = [Axis::Series, Axis::Feature].map(|axis| GridAxis { axis, labels: labels.clone() });
    let grid = Grid::new(values, axes.to_vec(), "Spearman's correlation")?
        .interval(low, high, &format!("95 % bootstrap interval over {over}"))?
        .name("agreement of the order of cells")
        .n(n)
        .note("resamples", &resamples.to_string())
        .note("seed", &seed.to_string())
        .note("shuffled", &format!("within ±{widest:.3} in 95 %"));
    Ok(grids.iter().fold(grid, |grid, (_, part)| grid.of_runs_of(part)))
}

/// Two grids' values of the cells that exist in both, prompt by prompt.
#[derive(Debug)]
struct Pair {
    /// Values of each prompt (of everything, where there are no prompts) and their correlation.
    each: Vec<(Tensor, Tensor, f64)>,
    by_prompt: bool,
}

impl Pair {
    fn new((name, a): (&str, &Grid), (other, b): (&str, &Grid)) -> Result<Pair> {
        let prompts = a.axes.iter().position(|named| named.axis == Axis::Batch);
        let prompts = prompts.filter(|place| a.axes[*place].len() > 1);
        let count = prompts.map_or(1, |place| a.axes[place].len());
        let mut lists = vec![(Vec::new(), Vec::new()); count];
        for (index, value) in a.present().filter(|(index, _)| b.exists(index)) {
            let of = &mut lists[prompts.map_or(0, |place| index[place])];
            of.0.push(value);
            of.1.push(b.values[IxDyn(&index)]);
        }
        let with_r = |(x, y): (Vec<f64>, Vec<f64>)| {
            let r = coefficient(Coefficient::Spearman, &x, &y);
            let [x, y] = [x, y].map(|x| Tensor::from_slice(&x).unsqueeze(0));
            (x.size()[1] > 2 && r.is_finite()).then_some((x, y, r))
        };
        let each: Vec<_> = lists.into_iter().filter_map(with_r).collect();
        ensure!(
            !each.is_empty(),
            "agreement of {name:?} and {other:?}: no three cells (of a prompt) exist in both with values that differ"
        );
        Ok(Pair { each, by_prompt: prompts.is_some() })
    }

    fn over(&self) -> &'static str {
        if self.by_prompt { "prompts" } else { "cells" }
    }

    fn count(&self) -> usize {
        if self.by_prompt { self.each.len() } else { self.each[0].0.size()[1] as usize }
    }

    fn value(&self) -> f64 {
        mean(self.each.iter().map(|(_, _, r)| *r))
    }

    fn interval(&self, resamples: usize, rng: &mut Rng) -> (f64, f64) {
        let n = self.count();
        let mut choose = || (0..n).map(|_| rng.below(n)).collect::<Vec<_>>();
        let mut drawn: Vec<f64> = Vec::new();
        if self.by_prompt && n < 2 {
            return (f64::NAN, f64::NAN); // one prompt says nothing of others
        }
        if self.by_prompt {
            let draw = |_| mean(choose().into_iter().map(|i| self.each[i].2));
            return bounds(&mut (0..resamples).map(draw).collect(), 0.95);
        }
        let (x, y, _) = &self.each[0];
        for part in parts(resamples, n) {
            let chosen: Vec<i64> = (0..part).flat_map(|_| choose()).map(|i| i as i64).collect();
            let chosen = Tensor::from_slice(&chosen);
            let take = |of: &Tensor| {
                let rows = of.index_select(1, &chosen).view([part as i64, n as i64]);
                Coefficient::Spearman.ready(&rows, None)
            };
            drawn.extend(take(x).row_by_row(&take(y)));
        }
        bounds(&mut drawn, 0.95)
    }

    /// What 95 % of the magnitudes stay below once one side's cells are in random order.
    fn shuffled(&self, shuffles: usize, rng: &mut Rng) -> f64 {
        let mut sums = vec![0.0; shuffles];
        for (x, y, _) in &self.each {
            let x = Coefficient::Spearman.ready(x, None);
            let n = y.size()[1] as usize;
            let mut done = 0;
            for part in parts(shuffles, n) {
                let orders = (0..part).flat_map(|_| rng.sample(n, n)).map(|i| i as i64);
                let orders = Tensor::from_slice(&orders.collect::<Vec<_>>());
                let rows = y.index_select(1, &orders).view([part as i64, n as i64]);
                let found = Coefficient::Spearman.ready(&rows, None).with(&x);
                for i in 0..part {
                    sums[done + i] += found.double_value(&[i as i64, 0]);
                }
                done += part;
            }
        }
        let count = self.each.len() as f64;
        bounds(&mut sums.iter().map(|sum| (sum / count).abs()).collect(), 0.9).1
    }
}

/// `total` rows of `n` numbers in parts of a few megabytes.
fn parts(total: usize, n: usize) -> impl Iterator<Item = usize> {
    let most = (1usize << 20).div_ceil(n.max(1));
    (0..total).step_by(most).map(move |start| most.min(total - start))
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len() as f64;
    values.sum::<f64>() / n
}

/// Percentile bounds that hold `share` of the draws, those that are no number left out.
pub(super) fn bounds(drawn: &mut Vec<f64>, share: f64) -> (f64, f64) {
    drawn.retain(|x| x.is_finite());
    drawn.sort_by(f64::total_cmp);
    let Some(last) = drawn.len().checked_sub(1) else { return (f64::NAN, f64::NAN) };
    let at = |share: f64| drawn[(last as f64 * share).round() as usize];
    (at((1.0 - share) / 2.0), at((1.0 + share) / 2.0))
}
