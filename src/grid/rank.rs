//! Which cells are largest, and where.

use std::cmp::Ordering;

use ndarray::{ArrayD, IxDyn};

use super::{Grid, GridAxis, Interval, number};
use crate::hook::site::Axis;

/// One cell of a [`Grid`]: its place, by index and by label, and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// One index for each axis.
    pub index: Vec<usize>,
    /// One label for each axis.
    pub labels: Vec<String>,
    /// The value.
    pub value: f64,
}

impl Grid {
    /// The `k` cells of largest magnitude, largest first, as a grid with one axis whose labels join
    /// those of the cell: `bars(&grid.top(10))` draws them. Fewer if there are fewer.
    pub fn top(&self, k: usize) -> Grid {
        self.listed(self.cells_by(|value| -value.abs()), k)
    }

    /// The `k` cells of smallest magnitude, smallest first.
    pub fn bottom(&self, k: usize) -> Grid {
        self.listed(self.cells_by(f64::abs), k)
    }

    /// The `k` highest values, highest first.
    pub fn highest(&self, k: usize) -> Grid {
        self.listed(self.cells_by(|value| -value), k)
    }

    /// The `k` lowest values, lowest first.
    pub fn lowest(&self, k: usize) -> Grid {
        self.listed(self.cells_by(|value| value), k)
    }

    /// Every cell that exists, largest magnitude first: for code that needs the indices.
    ///
    /// ```
    /// use thalweg::{Axis, Grid, ndarray::array};
    /// let grid = Grid::from_array(array![[0.1, -0.8], [0.5, 0.3]], &[Axis::Layer, Axis::Head], "logits")?;
    /// assert_eq!(grid.ranked()[1].index, [1, 0]);
    /// # anyhow::Ok(())
    /// ```
    pub fn ranked(&self) -> Vec<Cell> {
        self.cells_by(|value| -value.abs())
    }

    /// Existing cells sorted by a key, smallest first, ties and NaN in row-major order and last.
    fn cells_by(&self, key: impl Fn(f64) -> f64) -> Vec<Cell> {
        let cell = |(index, value): (Vec<usize>, f64)| Cell {
            labels: self.labels_at(&index),
            index,
            value,
        };
        let mut cells: Vec<Cell> = self.present().map(cell).collect();
        cells.sort_by(|a, b| {
            let order = key(a.value).partial_cmp(&key(b.value));
            order.unwrap_or_else(|| a.value.is_nan().cmp(&b.value.is_nan()))
        });
        cells
    }

    fn listed(&self, mut cells: Vec<Cell>, k: usize) -> Grid {
        cells.truncate(k);
        let pick = |array: &ArrayD<f64>| {
            ndarray::Array1::from_iter(cells.iter().map(|cell| array[IxDyn(&cell.index)]))
                .into_dyn()
        };
        let interval = self.interval.as_ref().map(|bounds| Interval {
            low: pick(&bounds.low),
            high: pick(&bounds.high),
            method: bounds.method.clone(),
        });
        let axis = if self.axes.len() == 1 { self.axes[0].axis } else { Axis::Series };
        let labels = cells.iter().map(|cell| cell.labels.join(" ")).collect();
        let values = pick(&self.values);
        Grid {
            values,
            axes: vec![GridAxis { axis, labels }],
            interval,
            missing: None,
            code: None,
            ..self.clone()
        }
    }

    fn labels_at(&self, index: &[usize]) -> Vec<String> {
        self.axes.iter().zip(index).map(|(named, i)| named.labels[*i].clone()).collect()
    }

    /// A cell's place for people: `L2 H3`, `L2 pos 9 "Mary"`.
    pub(crate) fn cell_name(&self, index: &[usize]) -> String {
        let one = |(named, i): (&GridAxis, &usize)| {
            let label = &named.labels[*i];
            let name = named.axis.to_string().to_lowercase();
            match named.axis {
                _ if *label == super::default_label(named.axis, *i)
                    && label.parse::<usize>().is_err() =>
                {
                    label.clone()
                }
                _ if *label == i.to_string() => format!("{name} {i}"),
                Axis::Pos | Axis::Query | Axis::Key | Axis::Batch => {
                    format!("{name} {i} {label:?}")
                }
                _ => label.clone(),
            }
        };
        self.axes.iter().zip(index).map(one).collect::<Vec<_>>().join(" ")
    }

    /// Name, axes, unit, smallest and largest value with their places, in one line.
    pub fn summary(&self) -> String {
        let name = if self.name.is_empty() { "Grid" } else { self.name.as_str() };
        let mut text = format!("{} {}", name.replace('\n', " "), self.axes_text());
        if !self.unit.is_empty() {
            text += &format!(" in {}", self.unit);
        }
        if let (Some((low_at, low)), Some((high_at, high))) =
            (self.extreme(Ordering::Less), self.extreme(Ordering::Greater))
        {
            let (low_at, high_at) = (self.cell_name(&low_at), self.cell_name(&high_at));
            text +=
                &format!(": min {} at {low_at}, max {} at {high_at}", number(low), number(high));
        }
        let others = self.existing().filter(|value| !value.is_finite()).count();
        if others > 0 {
            text += &format!("; {others} not finite");
        }
        if self.n > 1 {
            text += &format!("; n = {}", self.n);
        }
        text
    }

    /// First cell of the least or of the greatest finite value.
    fn extreme(&self, wanted: Ordering) -> Option<(Vec<usize>, f64)> {
        let finite = self.existing().filter(|value| value.is_finite());
        let best = finite.reduce(|best, v| if v.total_cmp(&best) == wanted { v } else { best })?;
        // The place is looked up once: an index for each cell would cost an allocation each.
        self.present().find(|(_, value)| *value == best)
    }
}
