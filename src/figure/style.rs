//! What a reader may set on a figure.

use ndarray::Array2;

use super::colors::Scale;
use super::layout::TITLE_SIZE;
use super::scene::Scene;
use super::text;
use crate::grid::{Grid, GridAxis};
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
    /// Colours of a heatmap that is one of several in a place.
    pub(super) scale: Option<Scale>,
    /// Ends of x and of y of a scatter that is one of several in a place.
    pub(super) extent: Option<[(f64, f64); 2]>,
    /// More small print under the title.
    pub(super) remarks: Vec<String>,
    /// A scatter of two measures of the same thing: both axes have one range, and a diagonal.
    pub(super) diagonal: bool,
    /// What a hover says of each point of a scatter, beside its label.
    pub(super) contexts: Option<Vec<String>>,
    /// What a hover says of each cell of a heatmap.
    pub(super) hover: Option<Array2<String>>,
    /// Zooms together with other linked charts of its row.
    pub(super) linked: bool,
    /// The chart before it in its row has the same rows and names them.
    pub(super) unnamed_rows: bool,
    /// The chart after it in its row has the same colours and says what they mean.
    pub(super) no_bar: bool,
    /// Width that panels aim at together.
    pub(super) room: Option<f64>,
    /// Values that a line or bars are compared with, and their names.
    pub(super) references: Vec<(f64, String)>,
    /// Shaded stretches of the axis of lines: first and last index, and a name.
    pub(super) regions: Vec<(usize, usize, String)>,
    /// What the values are measured in, where no grid says it.
    pub(super) unit: Option<String>,
    /// Key/value heads of an attention viewer.
    pub(super) kv_heads: Option<usize>,
    /// Name of a cell's site; axis names in braces stand for its indices.
    pub(super) site: Option<String>,
    /// Indices of an axis that do not count for the range of the colours.
    pub(super) uncounted: Option<(Axis, Vec<usize>)>,
}

/// Groups of points, by name.
#[derive(Debug, Clone)]
pub(super) struct Groups {
    pub(super) of_point: Vec<String>,
    /// Groups have an order (layers, positions), which their colours show.
    pub(super) ordered: bool,
}

impl Groups {
    /// The groups of the points at one index of an axis.
    pub(super) fn part(&self, grid: &Grid, place: usize, index: usize) -> Groups {
        let rows = &grid.axes[..grid.axes.len() - 1];
        let inner: usize = rows[place + 1..].iter().map(GridAxis::len).product();
        let len = rows[place].len();
        let mine = self.of_point.iter().enumerate().filter(|(i, _)| i / inner % len == index);
        let of_point = mine.map(|(_, name)| name.clone()).collect();
        Groups { of_point, ordered: self.ordered }
    }
}

impl Scene {
    /// Title, notes and summary, broken to the scene's width.
    pub(super) fn head(&mut self, grid: &Grid, style: &Style) {
        let title = style.title.as_deref().unwrap_or(&grid.name);
        self.title = text::wrap(&text::visible_words(title), TITLE_SIZE, self.width - 120.0);
        self.notes.extend(style.notes(grid));
    }
}

impl Style {
    /// Small print of a drawing that may have no grid.
    pub(super) fn notes_of(&self, grid: Option<&Grid>) -> Vec<String> {
        grid.map_or_else(|| self.remarks.clone(), |grid| self.notes(grid))
    }

    /// Small print: how many were averaged, what bounds mean, what the colours leave out.
    pub(super) fn notes(&self, grid: &Grid) -> Vec<String> {
        let mut notes = self.remarks.clone();
        if grid.n > 1 {
            notes.push(format!("mean of n = {}", grid.n));
        }
        if let Some(interval) = &grid.interval {
            notes.push(format!("bounds: {}", interval.method));
        }
        if let Some((axis, left_out)) = &self.uncounted {
            let labels = grid.labels(*axis).unwrap_or_default();
            let named = left_out.iter().filter_map(|i| labels.get(*i));
            let named: Vec<String> = named.map(|label| text::visible(label)).collect();
            let axis = text::axis_name(*axis);
            notes.push(format!("the range of the colours leaves out {axis} {}", named.join(", ")));
        }
        notes
    }
}
