//! Attention patterns as small multiples.

use anyhow::{Result, ensure};

use super::{Figure, Kind, panels};
use crate::grid::Grid;
use crate::hook::site::Axis;

/// Attention patterns, one panel for each head: `[Head, Query, Key]`, `[Layer, Head, Query, Key]`,
/// or a single `[Query, Key]`, in any order of axes. Queries run downwards, keys to the right; all
/// panels share one colour range, 0 to 1 for probabilities.
///
/// A query does not see later keys: unless the grid says itself which cells are missing, keys after
/// their query are left out, which is not the same as zero.
///
/// ```
/// use thalweg::{Axis, Grid, attention, ndarray::array};
/// let pattern = Grid::from_array(array![[[1.0, 0.0], [0.3, 0.7]]], &[Axis::Head, Axis::Query, Axis::Key], "probability")?;
/// let json: serde_json::Value = serde_json::from_str(&attention(&pattern)?.bundle()?.plotly)?;
/// assert_eq!(json["data"][0]["z"], serde_json::json!([[1], [0.3, 0.7]]));
/// # anyhow::Ok(())
/// ```
pub fn attention(grid: &Grid) -> Result<Figure> {
    grid.check()?;
    let one_prompt = grid.labels(Axis::Batch).is_ok_and(|labels| labels.len() == 1);
    let grid = if one_prompt { grid.select(Axis::Batch, 0)? } else { grid.clone() };
    let mut order: Vec<Axis> = grid.axes.iter().map(|named| named.axis).collect();
    order.retain(|axis| ![Axis::Query, Axis::Key].contains(axis));
    ensure!(
        order.len() + 2 == grid.axes.len() && order.len() <= 2,
        "attention takes axes Query and Key and two others at most (Layer, Head), found {}: select from the rest",
        grid.axes_text()
    );
    order.extend([Axis::Query, Axis::Key]);
    let grid = grid.transpose(&order)?;
    panels::few_panels(&grid, "attention", 256)?;
    let square = grid.labels(Axis::Query)?.len() == grid.labels(Axis::Key)?.len();
    let grid = if grid.missing.is_none() && square { grid.causal()? } else { grid };
    Figure::chart(Kind::Attention, grid)
}
