//! Attention patterns as they are: which key each query reads, and how much.

use anyhow::Result;
use tch::Tensor;

use super::frame;
use crate::grid::Grid;
use crate::hook::cache::Cache;
use crate::hook::site::{Axis, Point};

/// The attention pattern of a layer: `[Head, Query, Key]`, or `[Batch, Head, Query, Key]` for
/// several prompts, probabilities over keys. Keys after their query and padding are missing, which
/// is not the same as zero. Needs `Point::Pattern`.
pub fn attention_pattern(cache: &Cache, layer: usize) -> Result<Grid> {
    let pattern = cache.get(Point::Pattern.at(layer))?;
    let grid = finish(cache, &pattern, &[Axis::Head, Axis::Query, Axis::Key])?;
    Ok(grid.name(&format!("attention of layer {layer}")))
}

/// The attention patterns of all layers: `[Layer, Head, Query, Key]`, or with `Batch` in front.
pub fn attention_patterns(cache: &Cache) -> Result<Grid> {
    let patterns = cache.stack(Point::Pattern)?.transpose(0, 1);
    let grid = finish(cache, &patterns, &[Axis::Layer, Axis::Head, Axis::Query, Axis::Key])?;
    Ok(grid.name("attention"))
}

fn finish(cache: &Cache, values: &Tensor, axes: &[Axis]) -> Result<Grid> {
    let tokens = cache.tokens();
    let labels = |(at, axis): (usize, &Axis)| {
        let n = values.size()[at + 1] as usize;
        let labels = match axis {
            Axis::Layer => frame::numbered('L', n),
            Axis::Head => frame::numbered('H', n),
            _ => frame::position_labels(tokens),
        };
        (*axis, labels)
    };
    let axes: Vec<_> = axes.iter().enumerate().map(labels).collect();
    frame::hide(frame::batched(cache, values, &axes, "probability")?, tokens, 0)
}
