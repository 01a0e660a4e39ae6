//! What lies beside a saved figure: where its numbers come from.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Content, Figure};
use crate::grid::Grid;

impl Figure {
    /// Where the numbers come from, as JSON: what each grid shows, its unit, its notes and the code
    /// of a cell, and the records of the runs it was made from (model and hash of its weights,
    /// config, arithmetic, prompts, plan, versions), each run once.
    ///
    /// ```
    /// use thalweg::{Axis, Grid, heatmap, ndarray::array};
    /// let grid = Grid::from_array(array![[1.0, 2.0]], &[Axis::Layer, Axis::Head], "logits")?;
    /// let record = heatmap(&grid.note("seed", "7"))?.record();
    /// assert_eq!(record["grids"][0]["provenance"]["seed"], "7");
    /// # thalweg::anyhow::Ok(())
    /// ```
    pub fn record(&self) -> Value {
        let (mut grids, mut runs) = (Vec::new(), Vec::new());
        for grid in self.grids() {
            let own: Vec<usize> = grid
                .records()
                .into_iter()
                .map(|record| {
                    runs.iter().position(|known| *known == record).unwrap_or_else(|| {
                        runs.push(record);
                        runs.len() - 1
                    })
                })
                .collect();
            grids.push(described(grid, &own));
        }
        json!({ "grids": grids, "runs": runs })
    }

    /// Every grid that is drawn.
    fn grids(&self) -> Vec<&Grid> {
        match &self.content {
            Content::Chart(chart) => vec![&chart.grid],
            Content::Drawing(drawing) => drawing.grids(),
            Content::Choices(choices) => {
                choices.options.iter().flat_map(|(_, figure)| figure.grids()).collect()
            }
            Content::Row(figures, _) | Content::Column(figures, _) => {
                figures.iter().flat_map(Figure::grids).collect()
            }
        }
    }

    pub(super) fn save_record(&self, figure: &Path) -> Result<()> {
        let path = figure.with_extension("record.json");
        let json = serde_json::to_string_pretty(&self.record())? + "\n";
        std::fs::write(&path, json).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// A grid without its numbers; `runs` are the indices of its records.
fn described(grid: &Grid, runs: &[usize]) -> Value {
    let axes: Vec<_> = grid.axes.iter().map(|named| named.axis.to_string()).collect();
    let interval = grid.interval.as_ref().map(|interval| &interval.method);
    json!({
        "name": grid.name,
        "unit": grid.unit,
        "axes": axes,
        "shape": grid.shape(),
        "n": grid.n,
        "zero_one": grid.zero_one,
        "interval": interval,
        "provenance": grid.provenance,
        "code": grid.code,
        "runs": runs,
    })
}
