//! Estimates beside exact patching: how far can the gradient be trusted here?

use std::fmt;

use anyhow::{Result, ensure};
use ndarray::IxDyn;

use super::atp::Estimates;
use crate::analysis::correlate::{Coefficient, coefficient};
use crate::grid::{Cell, Grid};
use crate::hook::site::{Axis, Point};

/// An estimate and what it estimates, cell by cell.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Comparison {
    /// The estimates.
    pub estimate: Grid,
    /// The exact values, same axes.
    pub exact: Grid,
    /// Pearson's correlation, -1..1: how near the two are to a line. NaN where either is constant.
    pub pearson: f64,
    /// Spearman's, of the ranks (ties share their mean rank): how alike the two are ordered.
    pub spearman: f64,
    /// Number of cells compared.
    pub n: usize,
}

impl Comparison {
    /// Compares two grids of the same axes, over the cells that exist in both. Values below a
    /// millionth of the largest count as 0: the order of what is rounding means nothing.
    ///
    /// ```
    /// use thalweg::{Axis, Comparison, Grid, ndarray::array};
    /// let exact = Grid::from_array(array![1.0, 2.0, 3.0, 9.0], &[Axis::Pos], "nats")?;
    /// let comparison = Comparison::of(&exact.map(f64::sqrt), &exact)?;
    /// assert!((comparison.spearman - 1.0).abs() < 1e-12);
    /// assert!(comparison.pearson < 1.0);
    /// # anyhow::Ok(())
    /// ```
    pub fn of(estimate: &Grid, exact: &Grid) -> Result<Comparison> {
        ensure!(
            estimate.axes == exact.axes,
            "cannot compare {} with {}: axes and labels must be equal",
            estimate.axes_text(),
            exact.axes_text()
        );
        let both = estimate.present().filter(|(index, _)| exact.exists(index));
        let pairs = both.map(|(index, value)| (value, exact.values[IxDyn(&index)]));
        let (a, b): (Vec<f64>, Vec<f64>) = pairs.unzip();
        let (a, b) = (without_rounding(a), without_rounding(b));
        ensure!(a.len() > 1, "cannot compare {} cells: expected two at least", a.len());
        Ok(Comparison {
            pearson: coefficient(Coefficient::Pearson, &a, &b),
            spearman: coefficient(Coefficient::Spearman, &a, &b),
            n: a.len(),
            estimate: estimate.clone(),
            exact: exact.clone(),
        })
    }

    /// Every cell by its exact value, largest magnitude first, with its estimate beside it.
    pub fn ranked(&self) -> Vec<(Cell, f64)> {
        let cells = self.exact.ranked().into_iter();
        let beside = |cell: Cell| {
            let estimate = self.estimate.values[IxDyn(&cell.index)];
            (cell, estimate)
        };
        cells.map(beside).collect()
    }

    /// Both in one grid, `Series` outermost: "estimate", "exact".
    pub fn grid(&self) -> Result<Grid> {
        Grid::stack(Axis::Series, &[("estimate", &self.estimate), ("exact", &self.exact)])
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cells: Pearson {:.3}, Spearman {:.3}", self.n, self.pearson, self.spearman)
    }
}

fn without_rounding(x: Vec<f64>) -> Vec<f64> {
    let largest = x.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    x.into_iter().map(|x| if x.abs() < 1e-6 * largest { 0.0 } else { x }).collect()
}

impl Estimates {
    /// The exact effect of patching each cell of [`grid`](Self::grid), the metric less that of the
    /// receiving run, and how well the estimates agree with it: one run of the model a cell. Beside
    /// GradDrop, which has no sign, stands the effects' magnitude.
    pub fn compare(&self, point: Point, by: &[Axis]) -> Result<Comparison> {
        let estimate = self.grid(point, by)?;
        let by: Vec<Axis> = by.iter().copied().filter(|axis| *axis != Axis::Layer).collect();
        let (normalised, pair) = (self.settings.normalised, self.pair.clone().each_prompt());
        let pair = if normalised { pair.normalised() } else { pair };
        let mut exact = pair.grid(point, &by, &self.settings.metric)?;
        let rows = self.receiver_metric.iter();
        match exact.axes[0].axis {
            _ if normalised => {} // the receiving run is 0 there
            Axis::Batch => {
                rows.zip(exact.values.outer_iter_mut()).for_each(|(base, mut row)| row -= *base);
            }
            _ => rows.for_each(|base| exact.values -= *base),
        }
        let exact = match self.settings.grad_drop {
            true => exact.map(f64::abs).name(&format!("magnitude of patching {point:?}")),
            false => exact.name(&format!("effect of patching {point:?}")),
        };
        Comparison::of(&estimate, &exact)
    }
}
