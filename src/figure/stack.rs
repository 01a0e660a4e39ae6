//! Two charts over one x axis: a spectrum and its running sum, a line and its increments.

use anyhow::{Result, ensure};

use super::colors::{self, Rgb};
use super::layout::{self, labelled, numeric, padded};
use super::lines::{self, Series};
use super::scene::{Bars, Entry, Frame, Legend, Line, Mark, Panel, Ruler, Scene};
use super::style::Style;
use super::{Figure, Kind, text};
use crate::grid::Grid;

/// Pixels between the two panels.
const GAP: f64 = 16.0;

/// Bars of a spectrum, largest first as they come (eigenvalues, explained variance, squared singular
/// values), and under them the share of the total that the first `k` hold together. The axis is chosen
/// as by [`lines`](super::lines()); every other axis gives one series an index. No value is negative.
///
/// ```
/// use thalweg::{Axis, Grid, ndarray::array, spectrum};
/// let variance = Grid::from_array(array![6.0, 3.0, 1.0], &[Axis::Pc], "variance")?;
/// assert!(spectrum(&variance)?.bundle()?.plotly.contains("0.9"));
/// # anyhow::Ok(())
/// ```
pub fn spectrum(grid: &Grid) -> Result<Figure> {
    grid.check()?;
    let negative = grid.present().find(|(_, value)| *value < 0.0);
    if let Some((index, value)) = negative {
        anyhow::bail!(
            "a spectrum has no negative value, found {value} at {}",
            grid.cell_name(&index)
        );
    }
    Figure::chart(Kind::Spectrum, lines::at_least_one_axis(grid))
}

/// A quantity along the stream (layers, or places between them) and, under it, by how much each step
/// changes it: the logit difference from layer to layer.
///
/// ```
/// use thalweg::{Axis, Grid, increments, ndarray::array};
/// let diff = Grid::from_array(array![0.0, 0.5, 3.0], &[Axis::Layer], "logits")?;
/// let json: serde_json::Value = serde_json::from_str(&increments(&diff)?.bundle()?.plotly)?;
/// assert_eq!(json["data"][1]["y"], serde_json::json!([null, 0.5, 2.5]));
/// # anyhow::Ok(())
/// ```
pub fn increments(grid: &Grid) -> Result<Figure> {
    grid.check()?;
    let grid = lines::at_least_one_axis(grid);
    ensure!(grid.values.len() > 1, "one value has no increment; axes are {}", grid.axes_text());
    Figure::chart(Kind::Increments, grid)
}

/// Two series `[Series, ..]`, and the second less the first under them.
pub(super) fn difference(both: &Grid, name: &str) -> Result<Figure> {
    let figure = Figure::chart(Kind::Difference, both.clone())?;
    Ok(figure.styled(|style| style.unit = Some(name.to_string())))
}

/// Height, y axis and marks of a panel.
struct Part {
    height: f64,
    title: String,
    range: (f64, f64),
    marks: Vec<Mark>,
}

/// What a series becomes.
struct Painter<'a> {
    labels: &'a [String],
    count: usize,
    unit: &'a str,
    single: bool,
    /// Bars accompany lines, which the legend names.
    lines: bool,
}

impl Painter<'_> {
    fn bars(&self, i: usize, entry: &Entry, y: Vec<f64>) -> Mark {
        let width = 0.8 / self.count as f64;
        let shift = (i as f64 - 0.5 * (self.count - 1) as f64) * width;
        let own = |value: &f64| match self.single {
            true if *value < 0.0 => colors::NEGATIVE,
            true => colors::POSITIVE,
            false => entry.1,
        };
        Mark::Bars(Bars {
            name: entry.0.clone(),
            colors: y.iter().map(own).collect(),
            x: (0..y.len()).map(|x| x as f64 + shift).collect(),
            y,
            width,
            bounds: None,
            unit: self.unit.to_string(),
            labels: self.labels.to_vec(),
            alpha: 1.0,
            across: false,
            // The line of the same name stands for both.
            quiet: self.lines,
        })
    }

    fn line(&self, entry: &Entry, y: Vec<f64>, unit: &str) -> Mark {
        Mark::Line(Line {
            name: entry.0.clone(),
            color: entry.1,
            x: (0..y.len()).map(|x| x as f64).collect(),
            dots: y.len() <= 40,
            y,
            band: None,
            unit: unit.to_string(),
            dash: entry.2,
            quiet: false,
            unlisted: !self.lines,
        })
    }
}

/// The shares of the total that the first values hold together.
fn cumulative(y: &[f64]) -> Vec<f64> {
    let total: f64 = y.iter().filter(|v| v.is_finite()).sum();
    let mut sum = 0.0;
    let share = |v: &f64| {
        sum += if v.is_finite() { *v } else { 0.0 };
        if total > 0.0 { sum / total } else { 0.0 }
    };
    y.iter().map(share).collect()
}

/// Each value less the one before; the first has none.
fn steps(y: &[f64]) -> Vec<f64> {
    let pairs = y.windows(2).map(|pair| pair[1] - pair[0]);
    std::iter::once(f64::NAN).chain(pairs).collect()
}

pub(super) fn scene(grid: &Grid, style: &Style, kind: Kind) -> Scene {
    let (x_axis, all, graded) = lines::series(grid, style);
    let count = all.len();
    let labels = text::names(&x_axis, 14);
    let entry = |i: usize| {
        let (color, dash) = match count {
            1 => (colors::POSITIVE, 0),
            _ => colors::of_many(i, count, graded),
        };
        (all[i].name.clone(), color, dash)
    };
    let entries: Vec<Entry> = (0..count).map(entry).collect();
    let painter = Painter {
        labels: &labels,
        count,
        unit: &grid.unit,
        single: count == 1 || kind == Kind::Difference,
        lines: kind != Kind::Spectrum,
    };
    let [upper, lower] = parts(grid, style, &all, &entries, &painter, kind);
    let width: f64 = if x_axis.len() > 24 { 620.0 } else { 500.0 };
    let x = labelled(text::axis_name(x_axis.axis), labels.clone(), width, true, layout::LABEL_SIZE);
    place(grid, style, Ruler { line: true, ..x }, width, [upper, lower], &entries)
}

fn parts(
    grid: &Grid,
    style: &Style,
    all: &[Series],
    entries: &[Entry],
    painter: &Painter,
    kind: Kind,
) -> [Part; 2] {
    let (least, most) = lines::extent(all);
    let each = || all.iter().zip(entries).enumerate();
    let title = lines::value_title(grid);
    if kind == Kind::Spectrum {
        let bars = each().map(|(i, (one, entry))| painter.bars(i, entry, one.y.clone()));
        let sums =
            each().map(|(_, (one, entry))| painter.line(entry, cumulative(&one.y), "of the total"));
        let range = style.range.unwrap_or_else(|| padded(least, most, true));
        let lower = Part {
            height: 120.0,
            title: "share".into(),
            range: (0.0, 1.04),
            marks: sums.collect(),
        };
        return [Part { height: 190.0, title, range, marks: bars.collect() }, lower];
    }
    let upper = each().map(|(_, (one, entry))| painter.line(entry, one.y.clone(), &grid.unit));
    let (title_below, changes) = match (kind, all) {
        (Kind::Difference, [a, b]) => {
            let name = style.unit.clone().unwrap_or_default();
            (text::visible_words(&name), vec![a.y.iter().zip(&b.y).map(|(a, b)| b - a).collect()])
        }
        _ => ("increment".to_string(), all.iter().map(|one| steps(&one.y)).collect::<Vec<_>>()),
    };
    let finite = changes.iter().flatten().filter(|v| v.is_finite());
    let ends = finite.fold((0.0f64, 0.0f64), |(a, b), v| (a.min(*v), b.max(*v)));
    let own = Painter { count: changes.len(), ..*painter };
    let name = |i: usize| match kind {
        Kind::Difference => (title_below.clone(), colors::INK, 0),
        _ => entries[i].clone(),
    };
    let lower = changes.into_iter().enumerate().map(|(i, y)| own.bars(i, &name(i), y));
    let lower: Vec<Mark> = lower.collect();
    let range = style.range.unwrap_or_else(|| padded(least, most, false));
    let below = padded(ends.0, ends.1, true);
    [
        Part { height: 190.0, title, range, marks: upper.collect() },
        Part { height: 130.0, title: title_below, range: below, marks: lower },
    ]
}

/// Panels under one another; the lower one carries the labels of x.
fn place(
    grid: &Grid,
    style: &Style,
    x: Ruler,
    width: f64,
    parts: [Part; 2],
    entries: &[Entry],
) -> Scene {
    let rulers: Vec<Ruler> = parts
        .iter()
        .map(|part| numeric(&part.title, part.range.0, part.range.1, part.height, false))
        .collect();
    let title_at = rulers.iter().map(|ruler| ruler.title_at).fold(0.0, f64::max);
    let left = title_at + 14.0;
    let (legend, right) = lines::legend(entries, left + width + 14.0, 0.0);
    let mut scene = Scene { width: left + width + right, unified: true, ..Scene::default() };
    scene.head(grid, style);
    let top = layout::head_height(&scene.title, &scene.notes);
    scene.legend = legend.map(|legend| Legend { y: top, ..legend });
    let mut y = top;
    for (i, (part, ruler)) in parts.into_iter().zip(rulers).enumerate() {
        let frame = Frame { x: left, y, w: width, h: part.height };
        y += part.height + GAP;
        let own =
            if i == 0 { Ruler { title: String::new(), size: 0.0, ..x.clone() } } else { x.clone() };
        scene.panels.push(Panel {
            frame,
            title: String::new(),
            x: own,
            y: Ruler { title_at, ..ruler },
            background: WHITE,
            free: (false, true),
            marks: part.marks,
        });
    }
    scene.height = y - GAP + x.title_at + 14.0;
    scene
}

const WHITE: Rgb = [255, 255, 255];
