//! Which methods order tokens alike.

use anyhow::Result;
use ndarray::ArrayD;

use crate::analysis::correlate::{agreement, agreement_with};
use crate::grid::Grid;
use crate::hook::site::Axis;

/// Magnitudes below this share of the largest are rounding, whose order means nothing.
const ROUNDING: f64 = 1e-6;

/// The grids that are `chosen`, with their signs or by magnitude, rounding made 0.
pub(super) fn among(
    grids: &[(&str, &Grid)],
    chosen: &[bool],
    magnitude: bool,
) -> Vec<(String, Grid)> {
    let ready = |(name, grid): &(&str, &Grid)| {
        let largest = grid.existing().fold(0.0, |most: f64, value| most.max(value.abs()));
        let change = |value: f64| match value.abs() < ROUNDING * largest {
            true => 0.0,
            false if magnitude => value.abs(),
            false => value,
        };
        ((*name).to_owned(), grid.map(change))
    };
    grids.iter().zip(chosen).filter(|(_, chosen)| **chosen).map(|(pair, _)| ready(pair)).collect()
}

/// Agreement of the first grid and all that can be compared with it, and the names of those that
/// cannot: all alike, or too few cells.
pub(super) fn agreement_of(grids: &[(String, Grid)]) -> Result<(Grid, Vec<String>)> {
    let pair = |other: &'_ (String, Grid)| {
        let (first, other) = ((grids[0].0.as_str(), &grids[0].1), (other.0.as_str(), &other.1));
        agreement_with(&[first, other], 1, 0).is_ok()
    };
    let (can, cannot): (Vec<_>, Vec<_>) = grids[1..].iter().partition(|other| pair(other));
    let silent = cannot.into_iter().map(|(name, _)| name.clone()).collect();
    let mut kept = vec![(grids[0].0.as_str(), &grids[0].1)];
    kept.extend(can.into_iter().map(|(name, grid)| (name.as_str(), grid)));
    if kept.len() > 1 {
        return Ok((agreement(&kept)?, silent));
    }
    let alone = Grid::from_array(
        ArrayD::ones(vec![1, 1]),
        &[Axis::Series, Axis::Feature],
        "Spearman's correlation",
    )?;
    let name = [grids[0].0.as_str()];
    Ok((alone.relabel(Axis::Series, &name)?.relabel(Axis::Feature, &name)?, silent))
}
