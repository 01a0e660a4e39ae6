//! Coloured cells: layer by position, layer by head, anything by anything.

use anyhow::{Result, ensure};
use ndarray::Array2;

use super::style::{Origin, Writing};
use super::{Content, Figure, Kind, panels, text};
use crate::grid::Grid;
use crate::hook::site::Axis;

/// Most cells that text is written into: plotly makes one element of each.
const MAX_TEXT: usize = 1_500;
/// Characters of a cell's text.
const TEXT_LENGTH: usize = 8;

/// A heatmap of the last two axes, the last one along x. Axes before them (two at most) become
/// panels that share one colour range; axes of a single index are dropped.
///
/// Colours follow the numbers: red, white at zero, blue over a symmetric range if they change sign;
/// light to dark if they do not; from -1 to 1 for cosines and for normalised effects. Cells that do
/// not exist stay grey. Layer 0 stands at the bottom, index 0 of any other vertical axis at the top
/// ([`Figure::origin`] changes that). A number that is not finite is an error that says where.
///
/// ```
/// use thalweg::{Axis, Grid, heatmap, ndarray::array};
/// let effect = Grid::from_array(array![[0.1, -0.8], [0.0, 0.3]], &[Axis::Layer, Axis::Head], "logits")?;
/// let figure = heatmap(&effect.name("Direct effect"))?;
/// assert!(figure.bundle()?.text.contains("min -0.8 at L0 H1"));
/// # anyhow::Ok(())
/// ```
pub fn heatmap(grid: &Grid) -> Result<Figure> {
    Figure::chart(Kind::Heatmap, panels::prepared(grid, "a heatmap", 4)?)
}

impl Figure {
    /// Where index 0 of the vertical axis stands, in heatmaps and attention patterns.
    pub fn origin(self, origin: Origin) -> Figure {
        self.styled(|style| style.origin = Some(origin))
    }

    /// The values that the two ends of the colours stand for. Zero stays white if it lies between.
    /// An error unless both are finite and the first is the smaller.
    pub fn range(self, low: f64, high: f64) -> Result<Figure> {
        ensure!(
            low.is_finite() && high.is_finite() && low < high,
            "a colour range needs two finite numbers, the smaller first; found {low} and {high}"
        );
        Ok(self.styled(|style| style.range = Some((low, high))))
    }

    /// Leaves some indices of an axis out of the range of the colours: the first token's norm is many
    /// times any other's, `heatmap(&norms)?.colors_without(Axis::Pos, &[0])?`. Their cells are drawn in
    /// the colour of the nearer end, and a note says so. -1 is the last index.
    pub fn colors_without(self, axis: Axis, indices: &[i64]) -> Result<Figure> {
        let grid = match &self.content {
            Content::Chart(chart) => &chart.grid,
            _ => anyhow::bail!("colours belong to one heatmap; this is {self:?}"),
        };
        let len = grid.labels(axis)?.len();
        let left_out: Vec<usize> = indices
            .iter()
            .map(|i| if *i < 0 { i + len as i64 } else { *i })
            .filter_map(|i| usize::try_from(i).ok().filter(|i| *i < len))
            .collect();
        ensure!(
            left_out.len() == indices.len() && left_out.len() < len,
            "indices {indices:?} of axis {axis}, which has {len}, cannot be left out"
        );
        Ok(self.styled(|style| style.uncounted = Some((axis, left_out.clone()))))
    }

    /// Names the site of each cell, for the hover: `"blocks.{layer}.hook_resid_post"`, with axis names
    /// in braces for the cell's indices. The token is added: `blocks.3.hook_resid_post @ " Mary"_7`.
    pub fn site(self, template: &str) -> Figure {
        self.styled(|style| style.site = Some(template.to_string()))
    }

    /// Writes text into the cells of a heatmap, for instance the most likely token: one row for
    /// each row of the grid. Longer text is cut to 8 characters; the hover keeps all of it.
    pub fn text(self, rows: &impl CellText) -> Result<Figure> {
        let shape = self.cell_shape()?;
        let written = shaped(rows, shape)?.mapv(|token| text::visible(&token));
        Ok(self.styled(|style| style.writing = Writing::Text(written.clone())))
    }

    /// What a hover says of each cell of a heatmap, for instance its ten likeliest tokens: one text for
    /// each cell, row by row, in lines.
    pub fn hover(self, rows: &impl CellText) -> Result<Figure> {
        let shape = self.cell_shape()?;
        let told = shaped(rows, shape)?.mapv(|all| {
            let lines = all.split('\n').map(text::visible_words);
            lines.collect::<Vec<_>>().join("\n")
        });
        Ok(self.styled(|style| style.hover = Some(told.clone())))
    }

    /// Writes the values into the cells of a heatmap.
    pub fn text_values(self) -> Result<Figure> {
        self.cell_shape()?;
        Ok(self.styled(|style| style.writing = Writing::Values))
    }

    /// Rows and columns of a heatmap that text may be written into.
    fn cell_shape(&self) -> Result<(usize, usize)> {
        let Some((Kind::Heatmap, grid)) = self.single() else {
            anyhow::bail!("text is written into the cells of a heatmap; this is {self:?}")
        };
        let [height, width] = *grid.shape() else {
            anyhow::bail!(
                "text is written into a single panel; this heatmap has axes {}",
                grid.axes_text()
            )
        };
        let cells = height * width;
        ensure!(
            cells <= MAX_TEXT,
            "text in {cells} cells cannot be read: {MAX_TEXT} at most; select fewer"
        );
        Ok((height, width))
    }
}

/// Text as an array, if there is one for each cell.
fn shaped(rows: &impl CellText, (height, width): (usize, usize)) -> Result<Array2<String>> {
    let rows = rows.rows();
    let widths: Vec<usize> = rows.iter().map(Vec::len).collect();
    ensure!(
        widths.len() == height && widths.iter().all(|w| *w == width),
        "text for a heatmap of {height} rows by {width} columns has rows of {widths:?}"
    );
    Ok(Array2::from_shape_vec((height, width), rows.into_iter().flatten().collect())?)
}

/// Text for the cells of a heatmap, row by row: `Vec<Vec<_>>`, an array of arrays, or an ndarray.
pub trait CellText {
    /// One list for each row.
    fn rows(&self) -> Vec<Vec<String>>;
}

impl<S: AsRef<str>> CellText for Vec<Vec<S>> {
    fn rows(&self) -> Vec<Vec<String>> {
        self.iter().map(|row| row.iter().map(|s| s.as_ref().to_string()).collect()).collect()
    }
}

impl<S: AsRef<str>, const ROWS: usize, const COLUMNS: usize> CellText for [[S; COLUMNS]; ROWS] {
    fn rows(&self) -> Vec<Vec<String>> {
        self.iter().map(|row| row.iter().map(|s| s.as_ref().to_string()).collect()).collect()
    }
}

impl<S: AsRef<str>> CellText for Array2<S> {
    fn rows(&self) -> Vec<Vec<String>> {
        let text =
            |row: ndarray::ArrayView1<S>| row.iter().map(|s| s.as_ref().to_string()).collect();
        self.rows().into_iter().map(text).collect()
    }
}

/// What fits into a cell.
pub(super) fn cell_text(text: &str) -> String {
    text::cut(text, TEXT_LENGTH)
}
