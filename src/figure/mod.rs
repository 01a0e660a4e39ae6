//! Figures: a [`Grid`] drawn so that a notebook, a code host, a paper and a terminal each show it.
//!
//! A chart (`heatmap`, `lines`, ...) turns a grid into a `scene`: what stands where, in pixels. The
//! scene is written twice, as plotly JSON and as SVG, and `bundle` joins the two. What plotly cannot
//! draw is a `drawing`, written as SVG and as HTML: coloured text, the attention viewer, graphs. Several
//! charts in one place, a dropdown or a slider, are `choices`. This module knows neither tensors nor
//! models.

mod attention;
mod bars;
mod bundle;
mod choices;
mod clusters;
mod colors;
mod compare;
mod drawing;
mod examples;
mod graph;
mod graph_svg;
mod heatmap;
mod histogram;
mod layout;
mod lines;
mod page;
mod panels;
mod plotly_axis;
mod plotly_binary;
mod plotly_json;
mod plotly_traces;
mod png;
mod predictions;
mod record;
mod scatter;
mod scene;
mod sheet;
mod sheet_svg;
mod stack;
mod style;
mod svg;
mod svg_marks;
mod text;
mod tokens;
mod versus;
mod viewer;

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::grid::Grid;
use crate::show::{self, Show};
use choices::Choices;
use drawing::Drawing;
use scene::{Page, Scene};
use style::Style;

pub use attention::attention;
pub use bars::bars;
pub use bundle::Bundle;
pub use clusters::{clustermap, silhouettes};
pub use compare::compare;
pub use examples::{Example, examples};
pub use graph::{GraphLink, GraphNode, circuit, graph};
pub use heatmap::{CellText, heatmap};
pub use histogram::histogram;
pub use lines::lines;
pub use predictions::{Prediction, predictions};
pub use scatter::scatter;
pub use stack::{increments, spectrum};
pub use style::Origin;
pub use tokens::tokens;
pub use versus::versus;
pub use viewer::attention_viewer;

/// A chart, or several side by side. The last expression of a notebook cell shows it; setters take
/// and return it by value.
///
/// ```no_run
/// use thalweg::{Axis, Figure, Grid, heatmap, lines, ndarray::array};
/// let norms = Grid::from_array(array![[1.0, 2.0], [3.0, 5.0]], &[Axis::Layer, Axis::Pos], "L2 norm")?;
/// let both = Figure::row(&[heatmap(&norms)?, lines(&norms)?]);
/// both.title("Residual norms").save("norms.svg")?;
/// # anyhow::Ok(())
/// ```
#[derive(Clone)]
pub struct Figure {
    content: Content,
    forced: bool,
}

#[derive(Clone)]
enum Content {
    Chart(Box<Chart>),
    Drawing(Box<Drawing>),
    Choices(Box<Choices>),
    Row(Vec<Figure>, String),
    Column(Vec<Figure>, String),
}

#[derive(Clone)]
struct Chart {
    kind: Kind,
    grid: Grid,
    style: Style,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Heatmap,
    Attention,
    Lines,
    Bars,
    Scatter,
    Spectrum,
    Increments,
    Difference,
    Histogram,
    Clustermap,
    Silhouettes,
}

impl Figure {
    /// Another title than the grid's name.
    pub fn title(mut self, title: &str) -> Figure {
        match &mut self.content {
            Content::Chart(chart) => chart.style.title = Some(title.to_string()),
            Content::Drawing(drawing) => drawing.style.title = Some(title.to_string()),
            Content::Choices(choices) => choices.title = Some(title.to_string()),
            Content::Row(_, own) | Content::Column(_, own) => *own = title.to_string(),
        }
        self
    }

    /// Several figures side by side, as one: a cell shows only one figure. They go on below where a
    /// row would be wider than a notebook's page.
    pub fn row(figures: &[Figure]) -> Figure {
        let forced = figures.iter().any(|figure| figure.forced);
        Figure { content: Content::Row(figures.to_vec(), String::new()), forced }
    }

    /// Several figures under one another, as one: a cell shows only one figure.
    pub fn column(figures: &[Figure]) -> Figure {
        let forced = figures.iter().any(|figure| figure.forced);
        Figure { content: Content::Column(figures.to_vec(), String::new()), forced }
    }

    /// Shows or saves the figure however large it is. Without this, one that takes more than 10 MB
    /// is refused: notebooks of that size no longer open in most editors.
    pub fn forced(mut self) -> Figure {
        self.forced = true;
        self
    }

    /// Everything a notebook stores for this figure: plotly JSON, HTML, SVG and text.
    ///
    /// An error if that is more than 10 MB, unless the figure is [`Figure::forced`].
    pub fn bundle(&self) -> Result<Bundle> {
        if !self.forced {
            bundle::check_cells(self.cells())?;
        }
        let bundle = Bundle::of(self)?;
        if !self.forced {
            bundle.check_size()?;
        }
        Ok(bundle)
    }

    /// Writes the figure to a file whose ending says how: `.svg` (papers, code hosts), `.html` (a
    /// page that needs nothing else) or `.json` (plotly). Beside `x.svg` it writes `x.record.json`,
    /// the figure's [`record`](Figure::record).
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or("");
        ensure!(
            ["svg", "html", "json"].contains(&ending),
            "cannot save a figure as {}: the ending must be .svg, .html or .json",
            path.display()
        );
        let bundle = self.bundle()?;
        let content = match ending {
            "svg" => bundle.svg,
            "html" => bundle.page(),
            _ if bundle.plotly.is_empty() => {
                bail!(
                    "cannot save {}: plotly cannot draw {self:?}; save .svg or .html",
                    path.display()
                )
            }
            _ => bundle.plotly,
        };
        std::fs::write(path, content)
            .with_context(|| format!("cannot write {}", path.display()))?;
        self.save_record(path)
    }

    /// Shows the figure in a notebook; a figure that is refused shows the reason.
    pub fn evcxr_display(&self) {
        show::show_value(self);
    }

    /// A chart of a grid, after every check that does not depend on later settings.
    fn chart(kind: Kind, grid: Grid) -> Result<Figure> {
        grid.check()?;
        if let Some(empty) = grid.axes.iter().find(|axis| axis.is_empty()) {
            bail!("nothing to draw: axis {} is empty; axes are {}", empty.axis, grid.axes_text());
        }
        finite(&grid)?;
        ensure!(
            grid.existing().next().is_some(),
            "nothing to draw: every cell of {grid:?} is missing"
        );
        let chart = Chart { kind, grid, style: Style::default() };
        Ok(Figure { content: Content::Chart(Box::new(chart)), forced: false })
    }

    /// The same figure with other settings; those of a row or column apply to each of its charts.
    fn styled(mut self, change: impl Fn(&mut Style)) -> Figure {
        self.each_style(&change);
        self
    }

    fn each_style(&mut self, change: &dyn Fn(&mut Style)) {
        match &mut self.content {
            Content::Chart(chart) => change(&mut chart.style),
            Content::Drawing(drawing) => change(&mut drawing.style),
            Content::Choices(choices) => {
                choices.options.iter_mut().for_each(|(_, figure)| figure.each_style(change));
            }
            Content::Row(figures, _) | Content::Column(figures, _) => {
                figures.iter_mut().for_each(|figure| figure.each_style(change));
            }
        }
    }

    /// Kind and grid, if the figure is one chart.
    fn single(&self) -> Option<(Kind, &Grid)> {
        match &self.content {
            Content::Chart(chart) => Some((chart.kind, &chart.grid)),
            _ => None,
        }
    }

    fn cells(&self) -> usize {
        match &self.content {
            Content::Chart(chart) => chart.grid.values.len(),
            Content::Drawing(drawing) => drawing.cells(),
            Content::Choices(choices) => {
                choices.options.iter().map(|(_, figure)| figure.cells()).sum()
            }
            Content::Row(figures, _) | Content::Column(figures, _) => {
                figures.iter().map(Figure::cells).sum()
            }
        }
    }

    fn page(&self) -> Page {
        match &self.content {
            Content::Chart(chart) => Page::of(chart.scene()),
            Content::Drawing(drawing) => Page::of_picture(drawing.picture()),
            Content::Choices(choices) => choices.page(),
            Content::Row(figures, title) => Page::row(figures.iter().map(Figure::page), title),
            Content::Column(figures, title) => {
                Page::column(figures.iter().map(Figure::page), title)
            }
        }
    }
}

impl Show for Figure {
    /// A figure that is refused shows the reason.
    fn content(&self) -> show::Content {
        match self.bundle() {
            Ok(bundle) => {
                let content = show::Content::text(bundle.text);
                let content = match bundle.plotly.is_empty() {
                    true => content,
                    false => content.with("application/vnd.plotly.v1+json", bundle.plotly),
                };
                content.with("text/html", bundle.html).with("image/svg+xml", bundle.svg)
            }
            Err(error) => show::Content::text(format!("this figure is not shown: {error}")),
        }
    }
}

impl Chart {
    fn scene(&self) -> Scene {
        let (grid, style) = (&self.grid, &self.style);
        let mut scene = match self.kind {
            Kind::Heatmap => panels::scene(grid, style, false),
            Kind::Attention => panels::scene(grid, style, true),
            Kind::Lines => lines::scene(grid, style),
            Kind::Bars => bars::scene(grid, style),
            Kind::Scatter => scatter::scene(grid, style),
            Kind::Spectrum | Kind::Increments | Kind::Difference => {
                stack::scene(grid, style, self.kind)
            }
            Kind::Histogram => histogram::scene(grid, style),
            Kind::Clustermap => clusters::map_scene(grid, style),
            Kind::Silhouettes => clusters::silhouette_scene(grid, style),
        };
        scene.summary = self.summary();
        scene
    }

    fn summary(&self) -> String {
        let kind = format!("{:?}", self.kind).to_lowercase();
        let named = match &self.style.title {
            Some(title) => self.grid.clone().name(title),
            None => self.grid.clone(),
        };
        let summary = named.summary();
        format!("{kind}: {}", summary.strip_prefix("Grid ").unwrap_or(&summary))
    }
}

/// Fails, naming the first place, if a cell that exists, or a bound, is not finite. Two bounds of
/// NaN are none: a single prompt has no interval.
fn finite(grid: &Grid) -> Result<()> {
    let bad = grid.existing().filter(|value| !value.is_finite()).count();
    let first = || grid.present().find(|(_, value)| !value.is_finite());
    if let Some((index, value)) = (bad > 0).then(first).flatten() {
        bail!(
            "cannot draw {value} at {}, one of {bad} values that are not finite; mark them with missing_where if \
             they do not exist",
            grid.cell_name(&index)
        );
    }
    if let Some(interval) = &grid.interval {
        for (index, _) in grid.present() {
            let at = ndarray::IxDyn(&index);
            let ends = [interval.low[at.clone()], interval.high[at]];
            ensure!(
                ends.iter().all(|end| end.is_finite()) || ends.iter().all(|end| end.is_nan()),
                "cannot draw the bounds {ends:?} at {}: they are not finite",
                grid.cell_name(&index)
            );
        }
    }
    Ok(())
}

/// One line: what is drawn, and its numbers.
impl fmt::Debug for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.content {
            Content::Chart(chart) => f.write_str(&chart.summary()),
            Content::Drawing(drawing) => f.write_str(&drawing.summary()),
            Content::Choices(choices) => f.write_str(&choices.summary()),
            Content::Row(figures, _) => write!(f, "row of {figures:?}"),
            Content::Column(figures, _) => write!(f, "column of {figures:?}"),
        }
    }
}
