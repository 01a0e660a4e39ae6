//! What a reader may set on a figure.

use ndarray::Array2;

use super::layout::TITLE_SIZE;
use super::scene::Scene;
use super::text;
use crate::grid::Grid;
use crate::hook::site::Axis;

/// Where index 0 of a heatmap's vertical axis stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Index 0 at the bottom: a residual stream that flows upwards.
    Bottom,
    /// Index 0 at the top: rows that read like a table.
    Top,
}

/// What is written into the cells of a heatmap.
#[derive(Debug, Clone, Default)]
pub(super) enum Writing {
    #[default]
    Nothing,
    Values,
    Text(Array2<String>),
}

/// Settings of one chart; what is `None` follows from the grid.
#[derive(Debug, Clone, Default)]
pub(super) struct Style {
    pub(super) title: Option<String>,
    pub(super) origin: Option<Origin>,
    pub(super) range: Option<(f64, f64)>,
    pub(super) writing: Writing,
    /// Axis along x of lines and bars.
    pub(super) along: Option<Axis>,
    /// Group of each point of a scatter.
    pub(super) groups: Option<Groups>,
    /// Principal components along x and y.
    pub(super) components: Option<(usize, usize)>,
}

/// Groups of points, by name.
#[derive(Debug, Clone)]
pub(super) struct Groups {
    pub(super) of_point: Vec<String>,
    /// Groups have an order (layers, positions), which their colours show.
    pub(super) ordered: bool,
}

impl Scene {
    /// Title, notes and summary, broken to the scene's width.
    pub(super) fn head(&mut self, grid: &Grid, style: &Style) {
        let title = style.title.as_deref().unwrap_or(&grid.name);
        self.title = text::wrap(&text::visible_words(title), TITLE_SIZE, self.width - 120.0);
        if grid.n > 1 {
            self.notes.push(format!("mean of n = {}", grid.n));
        }
        if let Some(interval) = &grid.interval {
            self.notes.push(format!("bounds: {}", interval.method));
        }
    }
}
