//! Arithmetic on grids that keeps their labels.

use anyhow::{Result, ensure};
use ndarray::{ArrayD, Axis as Nth};

use super::{Grid, Interval};
use crate::hook::site::Axis;

/// Half-width of a 95 % normal interval, in standard errors.
const NORMAL_95: f64 = 1.959_963_984_540_054;

impl Grid {
    /// Mean over an axis, which then is gone. Cells that do not exist are left out; where none is
    /// left the result is missing too. `n` grows by the number averaged (the most, where it varies).
    pub fn mean(&self, axis: Axis) -> Result<Grid> {
        let (mean, _, _) = self.moments(axis)?;
        Ok(mean)
    }

    /// [`Grid::mean`] with bounds: the 95 % normal interval of the mean over the axis, which takes
    /// its entries (prompts, seeds) as independent. Needs two entries at least.
    pub fn mean_interval(&self, axis: Axis) -> Result<Grid> {
        let (mean, variance, count) = self.moments(axis)?;
        let fewest = count.iter().copied().filter(|n| *n > 0.0).fold(f64::INFINITY, f64::min);
        ensure!(
            fewest >= 2.0,
            "an interval over {axis} needs two entries at least, found {fewest}"
        );
        let half = (&variance / &count.mapv(|n| n.max(1.0))).mapv(|v| NORMAL_95 * v.sqrt());
        let (low, high) = (&mean.values - &half, &mean.values + &half);
        let over = if axis == Axis::Batch { "prompts".to_owned() } else { axis.to_string() };
        let method = format!("95 % normal interval over {over}");
        Ok(Grid { interval: Some(Interval { low, high, method }), ..mean })
    }

    /// Mean, unbiased variance and number of existing cells along an axis.
    fn moments(&self, axis: Axis) -> Result<(Grid, ArrayD<f64>, ArrayD<f64>)> {
        let place = self.place(axis)?;
        let here = self.missing_or_none().mapv(|gone| if gone { 0.0 } else { 1.0 });
        // A missing cell may hold NaN or infinity: it is replaced, not multiplied away.
        let values = ndarray::Zip::from(&self.values)
            .and(&here)
            .map_collect(|v, h| if *h > 0.0 { *v } else { 0.0 });
        let count = here.sum_axis(Nth(place));
        let divisor = count.mapv(|n: f64| n.max(1.0));
        let mean = values.sum_axis(Nth(place)) / &divisor;
        let off = (&values - &mean.clone().insert_axis(Nth(place))) * &here;
        let variance =
            off.mapv(|x| x * x).sum_axis(Nth(place)) / count.mapv(|n| (n - 1.0).max(1.0));
        let cells = count.iter().filter(|n| **n > 0.0).count().max(1);
        let averaged = (count.sum() / cells as f64).max(1.0);
        // `n` is public: one that was set since the last mean is what counts
        let before = if self.each.round() as usize == self.n { self.each } else { self.n as f64 };
        let each = before * averaged;
        let mut axes = self.axes.clone();
        axes.remove(place);
        let gone = count.mapv(|n| n == 0.0);
        let grid = Grid {
            values: mean,
            axes,
            interval: None,
            missing: gone.iter().any(|gone| *gone).then_some(gone),
            n: each.round() as usize,
            each,
            ..self.clone()
        };
        Ok((grid.note(&axis.to_string(), &format!("mean of {averaged:.0}")), variance, count))
    }

    /// Every value changed by one function; bounds are dropped, for a function may turn them round.
    ///
    /// ```
    /// use thalweg::{Axis, Grid, ndarray::array};
    /// let nats = Grid::from_array(array![-1.0, -2.0], &[Axis::Pos], "nats")?;
    /// assert!((nats.map(f64::exp).unit("probability").values[[0]] - 0.3679).abs() < 1e-4);
    /// # anyhow::Ok(())
    /// ```
    pub fn map(&self, change: impl Fn(f64) -> f64) -> Grid {
        Grid { values: self.values.mapv(change), interval: None, ..self.clone() }
    }

    /// This grid less another of the same axes and unit, for "B minus A". A cell that is missing in
    /// either is missing in the difference.
    pub fn minus(&self, other: &Grid) -> Result<Grid> {
        ensure!(
            self.axes == other.axes && self.unit == other.unit,
            "cannot subtract {} ({}) from {} ({}): axes, labels and unit must be equal",
            other.axes_text(),
            other.unit,
            self.axes_text(),
            self.unit
        );
        let mut missing = self.missing_or_none();
        missing.zip_mut_with(&other.missing_or_none(), |gone, also| *gone |= also);
        let difference = Grid {
            values: &self.values - &other.values,
            interval: None,
            missing: missing.iter().any(|gone| *gone).then_some(missing),
            n: self.n.min(other.n),
            zero_one: None,
            ..self.clone()
        };
        Ok(difference.of_runs(other.origins.iter().cloned()))
    }
}
