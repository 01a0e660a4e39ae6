//! Parts of a grid: by index, by label, in another order.

use std::borrow::Borrow;

use anyhow::{Result, ensure};
use ndarray::{ArrayD, Axis as Nth, IxDyn};

use super::{Grid, GridAxis, Interval};
use crate::hook::site::{Axis, distance};

impl Grid {
    /// The grid at one index of an axis, which then is gone; -1 is the last index. What was
    /// selected is kept in the provenance.
    pub fn select(&self, axis: Axis, index: i64) -> Result<Grid> {
        let place = self.place(axis)?;
        let at = self.index(place, index)?;
        let mut rest = self.each_array(|array| array.index_axis(Nth(place), at).to_owned());
        let named = rest.axes.remove(place);
        rest.missing = self.missing.as_ref().map(|m| m.index_axis(Nth(place), at).to_owned());
        Ok(rest.note(&axis.to_string(), &named.labels[at]))
    }

    /// The grid at some indices of an axis, in the order given; -1 is the last index.
    pub fn select_many(&self, axis: Axis, indices: &[i64]) -> Result<Grid> {
        let place = self.place(axis)?;
        let at: Result<Vec<usize>> = indices.iter().map(|i| self.index(place, *i)).collect();
        let at = at?;
        let mut part = self.each_array(|array| array.select(Nth(place), &at));
        part.missing = self.missing.as_ref().map(|m| m.select(Nth(place), &at));
        part.axes[place].labels = at.iter().map(|i| self.axes[place].labels[*i].clone()).collect();
        Ok(part)
    }

    /// The labels of an axis.
    pub fn labels(&self, axis: Axis) -> Result<&[String]> {
        Ok(&self.axes[self.place(axis)?].labels)
    }

    /// Index of the first entry of an axis with this label, or an error that offers the nearest.
    pub fn index_of(&self, axis: Axis, label: &str) -> Result<usize> {
        self.label_index(self.place(axis)?, label)
    }

    /// The value at these labels, one for each axis. Where a label repeats, the first one counts;
    /// [`Grid::at`] takes indices.
    pub fn get(&self, labels: &[&str]) -> Result<f64> {
        self.one_each(labels.len(), "labels")?;
        let found = labels.iter().enumerate().map(|(place, label)| self.label_index(place, label));
        self.value(&found.collect::<Result<Vec<_>>>()?)
    }

    /// The value at these indices, one for each axis; -1 is the last index of its axis.
    pub fn at(&self, indices: &[i64]) -> Result<f64> {
        self.one_each(indices.len(), "indices")?;
        let found = indices.iter().enumerate().map(|(place, index)| self.index(place, *index));
        self.value(&found.collect::<Result<Vec<_>>>()?)
    }

    /// The same numbers with their axes in another order, all of them named.
    ///
    /// ```
    /// use thalweg::{Axis, Grid, ndarray::array};
    /// let grid = Grid::from_array(array![[1.0, 2.0, 3.0]], &[Axis::Layer, Axis::Pos], "nats")?;
    /// assert_eq!(grid.transpose(&[Axis::Pos, Axis::Layer])?.shape(), [3, 1]);
    /// # anyhow::Ok(())
    /// ```
    pub fn transpose(&self, order: &[Axis]) -> Result<Grid> {
        self.one_each(order.len(), "axes")?;
        let places: Result<Vec<usize>> = order.iter().map(|axis| self.place(*axis)).collect();
        let places = places?;
        let mut seen = places.clone();
        seen.sort_unstable();
        seen.dedup();
        ensure!(
            seen.len() == places.len(),
            "{order:?} names an axis twice; axes are {}",
            self.axes_text()
        );
        let mut turned = self.each_array(|array| array.clone().permuted_axes(IxDyn(&places)));
        turned.missing = self.missing.as_ref().map(|m| m.clone().permuted_axes(IxDyn(&places)));
        turned.axes = places.iter().map(|place| self.axes[*place].clone()).collect();
        Ok(turned)
    }

    /// The same numbers with one axis moved to a place among the axes, 0 outermost.
    pub fn move_axis(&self, axis: Axis, to: usize) -> Result<Grid> {
        let from = self.place(axis)?;
        let mut order: Vec<Axis> = self.axes.iter().map(|named| named.axis).collect();
        ensure!(
            to < order.len(),
            "axis {axis} cannot move to place {to}; axes are {}",
            self.axes_text()
        );
        order.remove(from);
        order.insert(to, axis);
        self.transpose(&order)
    }

    /// The same numbers without the axes of a single index; their labels go to the provenance.
    pub fn squeeze(&self) -> Grid {
        self.squeeze_to(0)
    }

    /// Drops single-index axes, outermost first, while more than `keep` axes are left.
    pub(crate) fn squeeze_to(&self, keep: usize) -> Grid {
        let single = self.axes.iter().filter(|named| named.len() == 1);
        let spare = self.axes.len().saturating_sub(keep);
        let drop: Vec<Axis> = single.map(|named| named.axis).take(spare).collect();
        let start = self.clone();
        drop.into_iter().fold(start, |grid, axis| grid.select(axis, 0).unwrap_or(grid))
    }

    /// Several grids of equal axes as one, stacked along a new outermost axis.
    ///
    /// ```
    /// use thalweg::{Axis, Grid, ndarray::array};
    /// let one = Grid::from_array(array![1.0, 2.0], &[Axis::Layer], "nats")?;
    /// let both = Grid::stack(Axis::Series, &[("zero", &one), ("mean", &one)])?;
    /// assert_eq!(both.get(&["mean", "L1"])?, 2.0);
    /// let rows = vec![("first".to_string(), one)]; // or grids that a loop collected
    /// assert_eq!(Grid::stack(Axis::Series, &rows)?.get(&["first", "L0"])?, 1.0);
    /// # anyhow::Ok(())
    /// ```
    pub fn stack(axis: Axis, parts: &[(impl AsRef<str>, impl Borrow<Grid>)]) -> Result<Grid> {
        let parts = parts.iter().map(|(label, part)| (label.as_ref(), part.borrow()));
        Self::stacked(axis, &parts.collect::<Vec<_>>())
    }

    fn stacked(axis: Axis, parts: &[(&str, &Grid)]) -> Result<Grid> {
        let [(first_label, first), ..] = parts else {
            anyhow::bail!("nothing to stack along {axis}: no grid was given")
        };
        for (label, part) in parts {
            ensure!(
                part.axes == first.axes && part.unit == first.unit,
                "cannot stack {label:?} {} ({}) on {first_label:?} {} ({}): axes, labels and unit must be equal",
                part.axes_text(),
                part.unit,
                first.axes_text(),
                first.unit
            );
        }
        let views = |pick: fn(&Grid) -> ArrayD<f64>| -> Result<ArrayD<f64>> {
            let owned: Vec<ArrayD<f64>> = parts.iter().map(|(_, part)| pick(part)).collect();
            let views: Vec<_> = owned.iter().map(|array| array.view()).collect();
            Ok(ndarray::stack(Nth(0), &views)?)
        };
        let labels = parts.iter().map(|(label, _)| label.to_string()).collect();
        let mut axes = first.axes.clone();
        axes.insert(0, GridAxis { axis, labels });
        let mut stacked =
            Grid { values: views(|part| part.values.clone())?, axes, ..(*first).clone() };
        stacked.n = parts.iter().map(|(_, part)| part.n).min().unwrap_or(1);
        stacked.missing = None;
        if parts.iter().any(|(_, part)| part.missing.is_some()) {
            let owned: Vec<_> = parts.iter().map(|(_, part)| part.missing_or_none()).collect();
            let views: Vec<_> = owned.iter().map(|array| array.view()).collect();
            stacked.missing = Some(ndarray::stack(Nth(0), &views)?);
        }
        stacked.interval = match &first.interval {
            Some(interval) if parts.iter().all(|(_, part)| part.interval.is_some()) => {
                Some(Interval {
                    low: views(|part| {
                        part.interval.as_ref().map(|i| i.low.clone()).unwrap_or_default()
                    })?,
                    high: views(|part| {
                        part.interval.as_ref().map(|i| i.high.clone()).unwrap_or_default()
                    })?,
                    method: interval.method.clone(),
                })
            }
            _ => None,
        };
        stacked.provenance.retain(|key, value| {
            parts.iter().all(|(_, part)| part.provenance.get(key) == Some(value))
        });
        stacked.check()?;
        Ok(stacked.of_runs(parts.iter().flat_map(|(_, part)| part.origins.iter().cloned())))
    }

    /// This grid with the values and bounds replaced by what `change` makes of each.
    pub(super) fn each_array(&self, change: impl Fn(&ArrayD<f64>) -> ArrayD<f64>) -> Grid {
        let interval = self.interval.as_ref().map(|interval| Interval {
            low: change(&interval.low),
            high: change(&interval.high),
            method: interval.method.clone(),
        });
        Grid { values: change(&self.values), interval, ..self.clone() }
    }

    /// An index of an axis as it may be written, -1 for the last, checked.
    fn index(&self, place: usize, index: i64) -> Result<usize> {
        let named = &self.axes[place];
        let len = named.len() as i64;
        let at = if index < 0 { index + len } else { index };
        ensure!(
            (0..len).contains(&at),
            "index {index} is outside axis {} of length {len}; axes are {}",
            named.axis,
            self.axes_text()
        );
        Ok(at as usize)
    }

    fn label_index(&self, place: usize, label: &str) -> Result<usize> {
        let named = &self.axes[place];
        if let Some(at) = named.labels.iter().position(|known| known == label) {
            return Ok(at);
        }
        let nearest = named.labels.iter().min_by_key(|known| distance(known, label));
        match nearest {
            Some(nearest) => {
                anyhow::bail!(
                    "axis {} has no label {label:?}: did you mean {nearest:?}?",
                    named.axis
                )
            }
            None => anyhow::bail!("axis {} has no label {label:?}: it is empty", named.axis),
        }
    }

    fn one_each(&self, found: usize, what: &str) -> Result<()> {
        let axes = self.axes.len();
        ensure!(
            found == axes,
            "{found} {what} given for {axes} axes; axes are {}",
            self.axes_text()
        );
        Ok(())
    }

    fn value(&self, index: &[usize]) -> Result<f64> {
        ensure!(self.exists(index), "the cell at {} does not exist", self.cell_name(index));
        Ok(self.values[IxDyn(index)])
    }
}
