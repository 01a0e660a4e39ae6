//! Values along an axis, one line for each series.

use anyhow::Result;
use ndarray::IxDyn;

use super::colors::{Rgb, SOFT};
use super::layout::{self, labelled, numeric, padded};
use super::scene::{Entry, Frame, Legend, Line, Mark, Panel, Ruler, Scene};
use super::style::Style;
use super::{Content, Figure, Kind, colors, text};
use crate::grid::{Grid, GridAxis};
use crate::hook::site::Axis;

/// Legend entries drawn before the list says how many more there are.
const MAX_LEGEND: usize = 20;

/// Lines along one axis: the one that has an order (layers, positions, components), or the last if
/// several or none have; [`Figure::along`] chooses. Every other axis gives one line an index. Bounds are
/// drawn as bands; a line breaks where a cell does not exist. Axes of a single index are dropped.
///
/// ```
/// use thalweg::{Axis, Grid, lines, ndarray::array};
/// let loss = Grid::from_array(array![[3.0, 1.0], [2.0, 0.5]], &[Axis::Layer, Axis::Series], "nats")?;
/// assert!(lines(&loss)?.bundle()?.text.starts_with("lines: [Layer 2, Series 2] in nats"));
/// # anyhow::Ok(())
/// ```
pub fn lines(grid: &Grid) -> Result<Figure> {
    grid.check()?;
    Figure::chart(Kind::Lines, at_least_one_axis(grid))
}

impl Figure {
    /// The axis that lines or bars run along. An error that lists the axes if there is no such axis.
    pub fn along(self, axis: Axis) -> Result<Figure> {
        match self.single() {
            Some((Kind::Lines | Kind::Bars, grid)) => grid.place(axis)?,
            _ => anyhow::bail!("lines and bars run along an axis; this is {self:?}"),
        };
        Ok(self.styled(|style| style.along = Some(axis)))
    }
}

impl Figure {
    /// A dotted level across a chart of lines, named in its legend: chance, the clean run, zero.
    pub fn reference(self, value: f64, name: &str) -> Result<Figure> {
        anyhow::ensure!(value.is_finite(), "a reference is a finite number, found {value}");
        match self.single() {
            Some((Kind::Lines, _)) => {}
            _ => anyhow::bail!("lines are compared with a reference; this is {self:?}"),
        }
        let name = text::visible_words(name);
        Ok(self.styled(|style| style.references.push((value, name.clone()))))
    }
}

impl Figure {
    /// Shades a stretch of the axis that lines run along, from one index to another, both included:
    /// the first copy of a repeated text. A note under the title says what it is.
    pub fn region(self, first: usize, last: usize, name: &str) -> Result<Figure> {
        let Some((Kind::Lines, grid)) = self.single() else {
            anyhow::bail!("regions are shaded behind lines; this is {self:?}")
        };
        let Content::Chart(chart) = &self.content else { return Ok(self) };
        let len = series(grid, &chart.style).0.len();
        anyhow::ensure!(
            first <= last && last < len,
            "no region from {first} to {last} on an axis of {len}; axes are {}",
            grid.axes_text()
        );
        let region = (first, last, text::visible_words(name));
        Ok(self.styled(|style| style.regions.push(region.clone())))
    }
}

/// A shaded stretch of x.
fn shade(i: usize, (first, last): (usize, usize), (low, high): (f64, f64)) -> Mark {
    let x = vec![first as f64 - 0.5, last as f64 + 0.5];
    let band = Some((vec![low; 2], vec![high; 2]));
    let (color, _) = colors::of_many(i, 8, false);
    Mark::Line(Line { band, ..guide(x, vec![f64::NAN; 2], color) })
}

/// The grid without axes of a single index; a single number gets an axis.
pub(super) fn at_least_one_axis(grid: &Grid) -> Grid {
    let mut grid = grid.squeeze_to(1);
    if grid.axes.is_empty() {
        grid.axes = vec![GridAxis { axis: Axis::Series, labels: vec![grid.name.clone()] }];
        grid.values = grid.values.insert_axis(ndarray::Axis(0));
        grid.missing = grid.missing.map(|missing| missing.insert_axis(ndarray::Axis(0)));
        grid.interval = None;
    }
    grid
}

/// One series of a grid: its name, and values and bounds along x.
pub(super) struct Series {
    pub(super) name: String,
    pub(super) y: Vec<f64>,
    pub(super) bounds: Option<(Vec<f64>, Vec<f64>)>,
}

/// The x axis, the series, and whether the series have an order that colours should show.
pub(super) fn series(grid: &Grid, style: &Style) -> (GridAxis, Vec<Series>, bool) {
    let ordered =
        |axis: Axis| matches!(axis, Axis::Layer | Axis::Pos | Axis::Query | Axis::Key | Axis::Pc);
    let in_order: Vec<usize> =
        (0..grid.axes.len()).filter(|i| ordered(grid.axes[*i].axis)).collect();
    let natural = if let [only] = in_order[..] { only } else { grid.axes.len() - 1 };
    let x_place = style.along.and_then(|axis| grid.place(axis).ok()).unwrap_or(natural);
    let x_axis = grid.axes[x_place].clone();
    let others: Vec<&GridAxis> = grid.axes.iter().filter(|axis| axis.axis != x_axis.axis).collect();
    let names: Vec<Vec<String>> = others.iter().map(|axis| text::spoken(axis)).collect();
    let count: usize = others.iter().map(|axis| axis.len()).product();
    let one = |i: usize| {
        let mut left = i;
        let mut at = vec![0; others.len()];
        for (place, axis) in others.iter().enumerate().rev() {
            at[place] = left % axis.len();
            left /= axis.len();
        }
        let name = names.iter().zip(&at).map(|(names, i)| names[*i].clone());
        let read = |array: &ndarray::ArrayD<f64>| -> Vec<f64> {
            let value = |x: usize| {
                let mut index = at.clone();
                index.insert(x_place, x);
                if grid.exists(&index) { array[IxDyn(&index)] } else { f64::NAN }
            };
            (0..x_axis.len()).map(value).collect()
        };
        let bounds =
            grid.interval.as_ref().map(|interval| (read(&interval.low), read(&interval.high)));
        let bounds = bounds.filter(|(low, _)| low.iter().any(|low| !low.is_nan()));
        Series { name: name.collect::<Vec<_>>().join(", "), y: read(&grid.values), bounds }
    };
    let graded = others.len() == 1 && ordered(others[0].axis);
    let all = (0..count).map(one).collect();
    (x_axis, all, graded)
}

/// Smallest and largest number drawn.
pub(super) fn extent(series: &[Series]) -> (f64, f64) {
    let bounds = series
        .iter()
        .filter_map(|s| s.bounds.as_ref())
        .flat_map(|(low, high)| low.iter().chain(high));
    let all = series.iter().flat_map(|s| &s.y).chain(bounds);
    all.filter(|v| v.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(*v), b.max(*v)))
}

/// A dashed line to guide the eye.
pub(super) fn guide(x: Vec<f64>, y: Vec<f64>, color: Rgb) -> Line {
    Line {
        name: String::new(),
        color,
        x,
        y,
        band: None,
        unit: String::new(),
        dots: false,
        dash: 1,
        quiet: true,
        unlisted: false,
    }
}

/// The range of values that all of a grid needs.
pub(super) fn whole_range(grid: &Grid, style: &Style) -> (f64, f64) {
    let (least, most) = extent(&series(grid, style).1);
    style.range.unwrap_or_else(|| padded(least, most, false))
}

/// The unit, and what 0 and 1 mean.
pub(super) fn value_title(grid: &Grid) -> String {
    match &grid.zero_one {
        Some((zero, one)) => format!("{} (0 = {zero}, 1 = {one})", grid.unit),
        None => grid.unit.clone(),
    }
}

/// [`value_title`] for an axis this high, and the note that holds the meaning of 0 and 1 where the two
/// have no room beside it.
pub(super) fn upright_title(grid: &Grid, height: f64) -> (String, Option<String>) {
    let whole = value_title(grid);
    match &grid.zero_one {
        Some((zero, one)) if text::width(&whole, layout::LABEL_SIZE) > height => {
            (grid.unit.clone(), Some(format!("0 = {zero}, 1 = {one}")))
        }
        _ => (whole, None),
    }
}

/// Names and colours of series, right of a frame; nothing for a single unnamed one.
pub(super) fn legend(names: &[Entry], x: f64, y: f64) -> (Option<Legend>, f64) {
    if names.len() < 2 {
        return (None, 16.0);
    }
    let entries: Vec<_> = names.iter().take(MAX_LEGEND).cloned().collect();
    let widest =
        entries.iter().map(|(name, ..)| text::width(name, layout::LABEL_SIZE)).fold(60.0, f64::max);
    let left_out = names.len() - entries.len();
    (Some(Legend { x, y, entries, left_out }), widest + 62.0)
}

pub(super) fn scene(grid: &Grid, style: &Style) -> Scene {
    let (x_axis, mut all, graded) = series(grid, style);
    let count = all.len();
    all.extend(style.references.iter().map(|(value, name)| Series {
        name: name.clone(),
        y: vec![*value; x_axis.len()],
        bounds: None,
    }));
    let (least, most) = extent(&all);
    let (low, high) = style.range.unwrap_or_else(|| padded(least, most, false));
    let (plot_width, plot_height) = (if x_axis.len() > 24 { 620.0 } else { 500.0 }, 290.0);
    let x = labelled(
        text::axis_name(x_axis.axis),
        text::names(&x_axis, 14),
        plot_width,
        true,
        layout::LABEL_SIZE,
    );
    let (title, meaning) = upright_title(grid, plot_height);
    let y = numeric(&title, low, high, plot_height, false);
    let left = y.title_at + 14.0;
    let bottom = x.title_at + 14.0;
    let entry = |i: usize| {
        let (color, dash) = if i < count { colors::of_many(i, count, graded) } else { (SOFT, 2) };
        (all[i].name.clone(), color, dash)
    };
    let mut names: Vec<_> = (0..all.len()).map(entry).collect();
    if count == 1 && all.len() > 1 && names[0].0.is_empty() {
        names[0].0 = grid.unit.clone();
    }
    let (legend, right) = legend(&names, left + plot_width + 14.0, 0.0);
    let mut scene = Scene { width: left + plot_width + right, unified: true, ..Scene::default() };
    scene.head(grid, style);
    scene.notes.extend(meaning);
    for (first, last, name) in &style.regions {
        let [first, last] = [first, last].map(|i| text::visible(&x_axis.labels[*i]));
        scene.notes.push(format!("shaded, {first} to {last}: {name}"));
    }
    let top = layout::head_height(&scene.title, &scene.notes);
    scene.legend = legend.map(|legend| Legend { y: top, ..legend });
    let listed =
        scene.legend.as_ref().map_or(0.0, |l| 18.0 * (l.entries.len() + l.left_out.min(1)) as f64);
    scene.height = top + plot_height.max(listed - bottom) + bottom;
    let line = |(one, (name, color, dash)): (Series, Entry)| {
        Mark::Line(Line {
            name,
            color,
            dash,
            x: (0..one.y.len()).map(|i| i as f64).collect(),
            dots: one.y.len() <= 40 && dash != 2,
            y: one.y,
            band: one.bounds,
            unit: grid.unit.clone(),
            quiet: false,
            unlisted: false,
        })
    };
    let regions = style.regions.iter().enumerate();
    let shades = regions.map(|(i, (first, last, _))| shade(i, (*first, *last), (low, high)));
    scene.panels.push(Panel {
        frame: Frame { x: left, y: top, w: plot_width, h: plot_height },
        title: String::new(),
        x: Ruler { line: true, ..x },
        y,
        background: [255, 255, 255],
        free: (false, false),
        marks: shades.chain(all.into_iter().zip(names).map(line)).collect(),
    });
    scene
}
