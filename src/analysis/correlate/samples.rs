//! A grid as samples: the tokens or prompts over which its other cells are compared.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail, ensure};
use tch::Tensor;

use crate::grid::{Grid, GridAxis};
use crate::hook::site::Axis;

/// One value of every cell for each sample.
#[derive(Debug)]
pub(super) struct Samples {
    /// The grid's other axes.
    pub(super) cells: Vec<GridAxis>,
    /// Indices of each sample along the axes that samples have, ascending.
    pub(super) keys: Vec<Vec<usize>>,
    /// `[Cell, Sample]`, f64.
    pub(super) values: Tensor,
}

impl Samples {
    /// A grid's samples along `over`; those that a cell lacks (padding, first tokens) are left out.
    pub(super) fn new(name: &str, grid: &Grid, over: &[Axis]) -> Result<Samples> {
        let places =
            over.iter().map(|axis| place(name, grid, *axis)).collect::<Result<Vec<_>>>()?;
        let others: Vec<usize> = (0..grid.axes.len()).filter(|i| !places.contains(i)).collect();
        let cells: Vec<GridAxis> = others.iter().map(|i| grid.axes[*i].clone()).collect();
        let count: usize = cells.iter().map(GridAxis::len).product();
        let mut found: BTreeMap<Vec<usize>, Vec<f64>> = BTreeMap::new();
        for (index, value) in grid.present() {
            let key: Vec<usize> = places.iter().map(|i| index[*i]).collect();
            let cell = others.iter().fold(0, |cell, i| cell * grid.axes[*i].len() + index[*i]);
            found.entry(key).or_insert_with(|| vec![f64::NAN; count])[cell] = value;
            ensure!(
                value.is_finite(),
                "correlate: {name} is {value} at {}, expected finite numbers (or missing ones)",
                grid.cell_name(&index)
            );
        }
        found.retain(|_, values| values.iter().all(|value| value.is_finite()));
        if found.is_empty() {
            bail!("correlate: {name} {} has no sample with all of its cells", grid.axes_text());
        }
        let (keys, rows): (Vec<_>, Vec<_>) = found.into_iter().unzip();
        let flat: Vec<f64> = rows.into_iter().flatten().collect();
        let values = Tensor::from_slice(&flat).view([keys.len() as i64, count as i64]);
        Ok(Samples { cells, keys, values: values.tr().contiguous() })
    }

    /// Only these samples, all of which it has.
    pub(super) fn only(&self, keys: &BTreeSet<Vec<usize>>) -> Tensor {
        let kept = (0..self.keys.len()).filter(|i| keys.contains(&self.keys[*i]));
        self.values
            .index_select(1, &Tensor::from_slice(&kept.map(|i| i as i64).collect::<Vec<_>>()))
    }
}

/// Fails unless both grids have the same samples along `over`: as many, by the same labels.
pub(super) fn same(
    (name, grid): (&str, &Grid),
    (other_name, other): (&str, &Grid),
    over: &[Axis],
) -> Result<()> {
    for axis in over {
        let ours = &grid.axes[place(name, grid, *axis)?].labels;
        let theirs = &other.axes[place(other_name, other, *axis)?].labels;
        ensure!(
            ours.len() == theirs.len(),
            "correlate: {axis} has {} entries in {name}, {} in {other_name}, expected the same samples",
            ours.len(),
            theirs.len()
        );
        if let Some(i) = (0..ours.len()).find(|i| ours[*i] != theirs[*i]) {
            bail!(
                "correlate: entry {i} of {axis} is {:?} in {name}, {:?} in {other_name}, expected the \
                 same samples in the same order; if they are, .relabel(Axis::{axis}, ..)",
                ours[i],
                theirs[i]
            );
        }
    }
    Ok(())
}

/// The axes of a grid that samples are along unless said otherwise: prompts, and tokens.
pub(super) fn default_axes(grid: &Grid) -> Result<Vec<Axis>> {
    let has = |axis: Axis| grid.axes.iter().any(|named| named.axis == axis);
    let found: Vec<Axis> =
        [Axis::Batch, Axis::Pos, Axis::Query].into_iter().filter(|axis| has(*axis)).collect();
    ensure!(
        !found.is_empty(),
        "correlate: the axes are {}, expected prompts (Batch) or tokens (Pos, Query); name the \
         samples with .over(&[axis])",
        grid.axes_text()
    );
    Ok(found)
}

/// Where an axis of samples stands; a position that attends is a position.
fn place(name: &str, grid: &Grid, axis: Axis) -> Result<usize> {
    let alike = |other: Axis| {
        other == axis
            || matches!((other, axis), (Axis::Pos, Axis::Query) | (Axis::Query, Axis::Pos))
    };
    let found = grid.axes.iter().position(|named| alike(named.axis));
    found.ok_or_else(|| {
        anyhow::anyhow!(
            "correlate: {name} has axes {}, expected the samples' axis {axis} too; average the other \
             side over it, or name the samples with .over(&[axis])",
            grid.axes_text()
        )
    })
}

/// The axes of the cells of both, each axis once: those of the second that the first has too
/// become one axis of joined labels.
pub(super) fn joined(first: &[GridAxis], second: &[GridAxis]) -> Vec<GridAxis> {
    let has = |axis: Axis| first.iter().any(|named| named.axis == axis);
    let mut axes = first.to_vec();
    if !second.iter().any(|named| has(named.axis)) {
        axes.extend_from_slice(second);
        return axes;
    }
    let free = [Axis::Series, Axis::Feature, Axis::Component, Axis::Plan];
    let axis = free.into_iter().find(|axis| !has(*axis)).unwrap_or(Axis::Rank);
    let mut labels = vec![String::new()];
    for named in second {
        let joins = |start: &String| {
            let start = start.clone();
            let join = move |label: &String| format!("{start} {label}").trim().to_owned();
            named.labels.iter().map(join).collect::<Vec<_>>()
        };
        labels = labels.iter().flat_map(joins).collect();
    }
    axes.push(GridAxis { axis, labels });
    axes
}

/// The prompt of each sample, where samples are several tokens of several prompts; else each is a group
/// of its own.
pub(super) fn groups(keys: &BTreeSet<Vec<usize>>) -> Vec<usize> {
    let prompts: BTreeSet<usize> = keys.iter().map(|key| key[0]).collect();
    let several = prompts.len() > 1 && keys.iter().all(|key| key.len() > 1);
    keys.iter().enumerate().map(|(i, key)| if several { key[0] } else { i }).collect()
}
