//! Panels of coloured cells that share one colour range: a heatmap is one, attention is many.

use anyhow::{Result, ensure};
use ndarray::{Array2, IxDyn};

use super::colors::{ABSENT, Scale};
use super::layout::{self, LABEL_SIZE, NAME_SIZE, TITLE_GAP, TITLE_LINE, labelled};
use super::scene::{Cells, ColorBar, Frame, Mark, Panel, Ruler, Scene};
use super::style::{Origin, Style, Writing};
use super::text;
use crate::grid::{Grid, GridAxis};
use crate::hook::site::Axis;

/// Most cells whose hover carries code: one string each.
const MAX_CODE: usize = 5_000;
/// Above this many cells attention is stored with two decimals, else with three.
const MANY_CELLS: usize = 60_000;
/// Width that panels aim at together, in pixels: an article's column in a notebook.
const AIM: f64 = 780.0;

/// How panels are sized and placed.
pub(super) struct Plan {
    columns: usize,
    size: (f64, f64),
    gap: (f64, f64),
    /// Font size of tick labels.
    label: f64,
}

/// The scene for a grid of `[.., y, x]`: one panel for each index of the outer axes.
pub(super) fn scene(grid: &Grid, style: &Style, square: bool) -> Scene {
    let (outer, inner) = grid.axes.split_at(grid.axes.len() - 2);
    let (y_axis, x_axis) = (&inner[0], &inner[1]);
    let scale = range(grid, style, square);
    let plan =
        plan(outer, (y_axis.len(), x_axis.len()), longest_text(grid, style), style.room, square);
    let count = outer.iter().map(GridAxis::len).product::<usize>();
    let x = labelled(
        text::axis_name(x_axis.axis),
        text::names(x_axis, 14),
        plan.size.0,
        true,
        plan.label,
    );
    let y = labelled(
        text::axis_name(y_axis.axis),
        text::names(y_axis, 18),
        plan.size.1,
        false,
        plan.label,
    );
    let y = oriented(y, style.origin.unwrap_or_else(|| default_origin(y_axis.axis)));
    let y = if style.unnamed_rows { bare(&y) } else { y };
    let left = if style.unnamed_rows { 14.0 } else { y.title_at + 12.0 };
    let bottom = x.title_at + 14.0;
    let rows = count.div_ceil(plan.columns);
    let inner_width = plan.columns as f64 * (plan.size.0 + plan.gap.0) - plan.gap.0;
    let inner_height = rows as f64 * (plan.size.1 + plan.gap.1) - plan.gap.1;
    let (bar, right) = color_bar(grid, scale, inner_height);
    let right = if style.no_bar { 6.0 } else { right };
    let bar = ColorBar { hidden: style.no_bar, ..bar };
    let width = (left + inner_width + right).max(if style.room.is_some() { 160.0 } else { 380.0 });
    let mut scene = Scene { width, linked: style.linked, ..Scene::default() };
    scene.head(grid, style);
    let panel_title = if count > 1 { NAME_SIZE * 1.5 } else { 0.0 };
    let top = layout::head_height(&scene.title, &scene.notes) + panel_title;
    let frames = layout::tiles(count, plan.columns, (left, top), plan.size, plan.gap);
    scene.height = top + (inner_height + bottom).max(bar.frame.y + bar.frame.h + 14.0);
    scene.bar = Some(ColorBar {
        frame: Frame { x: left + inner_width + 18.0, y: top + bar.frame.y, ..bar.frame },
        ..bar
    });
    let decimals = square.then(|| decimals(grid)).flatten();
    for (i, frame) in frames.into_iter().enumerate() {
        let at = outer_index(outer, i);
        let last_in_column = i + plan.columns >= count;
        let first_in_row = i % plan.columns == 0;
        // Many small panels share one pair of axis titles, at the lower left.
        let (mut x, mut y) = (x.clone(), y.clone());
        if plan.columns > 4 && !first_in_row {
            x.title.clear();
        }
        if rows > 2 && !last_in_column {
            y.title.clear();
        }
        let cells = cells(grid, style, &at, decimals);
        scene.panels.push(Panel {
            frame,
            title: cells.name.clone(),
            x: if last_in_column { x } else { bare(&x) },
            y: if first_in_row { y } else { bare(&y) },
            background: ABSENT,
            free: (false, false),
            marks: vec![Mark::Cells(Box::new(cells))],
        });
    }
    scene
}

/// Layer 0 stands at the bottom, for the residual stream flows upwards; all else reads downwards.
fn default_origin(axis: Axis) -> Origin {
    if axis == Axis::Layer { Origin::Bottom } else { Origin::Top }
}

fn oriented(ruler: Ruler, origin: Origin) -> Ruler {
    match origin {
        Origin::Bottom => ruler,
        Origin::Top => Ruler { from: ruler.to, to: ruler.from, ..ruler },
    }
}

/// The same ruler without title and labels, for panels that stand inside.
fn bare(ruler: &Ruler) -> Ruler {
    Ruler { title: String::new(), size: 0.0, ..ruler.clone() }
}

pub(super) fn outer_index(outer: &[GridAxis], mut i: usize) -> Vec<usize> {
    let mut at = vec![0; outer.len()];
    for (place, axis) in outer.iter().enumerate().rev() {
        at[place] = i % axis.len();
        i /= axis.len();
    }
    at
}

/// `L2H3`, or the labels of the outer axes joined.
pub(super) fn panel_name(outer: &[GridAxis], at: &[usize]) -> String {
    let labels: Vec<String> =
        outer.iter().zip(at).map(|(axis, i)| text::spoken(axis)[*i].clone()).collect();
    labels.join(if heads(outer) { "" } else { " · " })
}

/// True for axes layer and head with labels `L2` and `H3`, which joined name a head.
pub(super) fn heads(axes: &[GridAxis]) -> bool {
    let named = |axis: &GridAxis, which: Axis, letter: char| {
        axis.axis == which && axis.labels.iter().all(|label| label.starts_with(letter))
    };
    match axes {
        [layer, head] => named(layer, Axis::Layer, 'L') && named(head, Axis::Head, 'H'),
        _ => false,
    }
}

fn cells(grid: &Grid, style: &Style, at: &[usize], decimals: Option<u32>) -> Cells {
    let (outer, inner) = grid.axes.split_at(grid.axes.len() - 2);
    let shape = (inner[0].len(), inner[1].len());
    let full = |(y, x): (usize, usize)| [at, &[y, x]].concat();
    let values = Array2::from_shape_fn(shape, |cell| {
        let index = full(cell);
        if grid.exists(&index) { grid.values[IxDyn(&index)] } else { f64::NAN }
    });
    let written =
        match &style.writing {
            Writing::Nothing => None,
            Writing::Values => Some(values.mapv(|v| {
                if v.is_nan() { String::new() } else { format!("{v:.0$}", places(grid)) }
            })),
            Writing::Text(text) => Some(text.clone()),
        };
    let strings = |one: &dyn Fn(&[usize]) -> Option<String>| {
        let all: Option<Vec<String>> =
            ndarray::indices(shape).into_iter().map(|cell| one(&full(cell))).collect();
        all.and_then(|all| Array2::from_shape_vec(shape, all).ok())
    };
    let code = strings(&|index| cell_code(grid, index));
    let sites = (grid.values.len() <= MAX_CODE)
        .then(|| strings(&|index| cell_name(grid, style, index)))
        .flatten();
    Cells {
        values,
        name: panel_name(outer, at),
        x_name: text::axis_name(inner[1].axis).to_string(),
        y_name: text::axis_name(inner[0].axis).to_string(),
        unit: grid.unit.clone(),
        heads: heads(inner),
        edges: [inner[0].axis, inner[1].axis] == [Axis::Writer, Axis::Reader],
        text: written,
        code,
        sites,
        hover: style.hover.clone().filter(|all| all.dim() == shape),
        decimals,
    }
}

/// The code that gives one cell again.
pub(super) fn cell_code(grid: &Grid, index: &[usize]) -> Option<String> {
    let template = grid.code.as_ref().filter(|_| grid.values.len() <= MAX_CODE)?;
    Some(filled(template, &grid.axes, index))
}

/// `blocks.3.hook_resid_post @ " Mary"_7`: the site of a cell, if the figure or the grid names one,
/// and the cell's token.
pub(super) fn cell_name(grid: &Grid, style: &Style, index: &[usize]) -> Option<String> {
    let template = style.site.as_ref().or_else(|| grid.provenance.get("site"))?;
    let template = filled(template, &grid.axes, index);
    let token = |axis: &Axis| {
        let place = grid.place(*axis).ok()?;
        let label = grid.axes[place].labels.get(index[place])?;
        Some(format!(" @ {:?}_{}", label, index[place]))
    };
    let token = [Axis::Pos, Axis::Query, Axis::Key].iter().find_map(token);
    Some(template + &token.unwrap_or_default())
}

/// Decimals that give the largest value of a grid three significant digits.
fn places(grid: &Grid) -> usize {
    let largest = grid.existing().fold(0.0f64, |most, value| most.max(value.abs()));
    if largest == 0.0 { 0 } else { (2 - largest.log10().floor() as i32).clamp(0, 6) as usize }
}

/// A code template with the indices of one cell.
fn filled(template: &str, axes: &[GridAxis], index: &[usize]) -> String {
    axes.iter().zip(index).fold(template.to_string(), |code, (axis, i)| {
        code.replace(&format!("{{{}}}", axis.axis.to_string().to_lowercase()), &i.to_string())
    })
}

/// Attention is stored with few decimals, for there is much of it.
fn decimals(grid: &Grid) -> Option<u32> {
    let probabilities = grid.existing().all(|value| (0.0..=1.0).contains(&value));
    probabilities.then_some(if grid.values.len() > MANY_CELLS { 2 } else { 3 })
}

fn longest_text(grid: &Grid, style: &Style) -> Option<usize> {
    let longest = |text: &Array2<String>| text.iter().map(|t| t.chars().count()).max().unwrap_or(1);
    match &style.writing {
        Writing::Nothing => None,
        Writing::Values => {
            grid.existing().map(|value| format!("{value:.0$}", places(grid)).len()).max()
        }
        Writing::Text(text) => Some(longest(text)),
    }
}

/// The colours' range: as set, or from what the numbers mean, or from the numbers.
pub(super) fn range(grid: &Grid, style: &Style, attention: bool) -> Scale {
    if let Some(scale) = &style.scale {
        return scale.clone();
    }
    if let Some((low, high)) = style.range {
        return Scale::within(low, high);
    }
    let uncounted = style.uncounted.as_ref();
    let place = uncounted.and_then(|(axis, _)| grid.place(*axis).ok());
    let counts = |index: &[usize]| match (place, uncounted) {
        (Some(place), Some((_, left_out))) => !left_out.contains(&index[place]),
        _ => true,
    };
    let (least, most) = grid
        .present()
        .filter(|(index, _)| counts(index))
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), (_, v)| (a.min(v), b.max(v)));
    let (least, most) = if least <= most { (least, most) } else { (0.0, 1.0) };
    let within = |low: f64, high: f64| least >= low && most <= high;
    if grid.unit.to_lowercase().starts_with("cosine") && within(-1.001, 1.001) {
        return Scale::choose(-1.0, 1.0, true);
    }
    if attention && within(0.0, 1.0001) {
        return Scale::within(0.0, 1.0);
    }
    // Normalised effects: 0 white, 1 full blue, so that two figures compare.
    if grid.zero_one.is_some() && least >= 0.0 {
        return Scale::within(0.0, most.max(1.0));
    }
    if grid.zero_one.is_some() {
        return Scale::choose(least.min(-1.0), most.max(1.0), true);
    }
    // A log-probability is never positive: the likely is dark, as for probabilities.
    if grid.unit.to_lowercase().contains("log-prob") && most <= 0.0 {
        return Scale::rising(least, 0.0);
    }
    Scale::choose(least, most, false)
}

/// The bar, its title above it, and the width that both need; the bar's corner is not set yet.
fn color_bar(grid: &Grid, scale: Scale, height: f64) -> (ColorBar, f64) {
    let mut title = text::wrap(&grid.unit, NAME_SIZE, 118.0);
    if let Some((zero, one)) = &grid.zero_one {
        title.extend(text::wrap(&format!("0 = {zero}"), NAME_SIZE, 118.0));
        title.extend(text::wrap(&format!("1 = {one}"), NAME_SIZE, 118.0));
    }
    let above = title.len() as f64 * TITLE_LINE + TITLE_GAP;
    let height = (height - above).clamp(84.0, 240.0);
    let steps = ((height / 28.0) as usize).clamp(3, 6);
    // A symmetric range often ends just short of a round number: then steps are halved.
    let ticks = layout::round_ticks(scale.low, scale.high, steps);
    let ticks =
        if ticks.len() < 3 { layout::round_ticks(scale.low, scale.high, 2 * steps) } else { ticks };
    let label = |(_, label): &(f64, String)| 21.0 + text::width(label, LABEL_SIZE);
    let lines = title.iter().map(|line| text::width(line, NAME_SIZE));
    let right = 18.0 + ticks.iter().map(label).chain(lines).fold(0.0, f64::max) + 12.0;
    let frame = Frame { x: 0.0, y: above, w: 14.0, h: height };
    (ColorBar { scale, frame, title, ticks, hidden: false }, right)
}

/// Sizes for panels of `(rows, columns)` cells.
fn plan(
    outer: &[GridAxis],
    (rows, columns): (usize, usize),
    text: Option<usize>,
    room: Option<f64>,
    square: bool,
) -> Plan {
    let count: usize = outer.iter().map(GridAxis::len).product();
    let across = match (outer, square) {
        ([], _) => 1,
        ([_, inner], true) if inner.len() <= 16 => inner.len(),
        ([_, inner], false) if inner.len() <= 4 => inner.len(),
        (_, false) => count.min(3),
        (_, true) if count <= 4 => count,
        (_, true) if count <= 12 => 4,
        (_, true) if count <= 24 => 6,
        (_, true) => 8,
    };
    let gap = (14.0, if count > 1 { NAME_SIZE * 1.5 + 8.0 } else { 0.0 });
    let room = (room.unwrap_or(AIM) - (across - 1) as f64 * gap.0) / across as f64;
    if square {
        let side = room.clamp(44.0, 320.0).min(26.0 * columns.max(rows).max(2) as f64);
        let shape = (
            side * columns as f64 / rows.max(columns) as f64,
            side * rows as f64 / rows.max(columns) as f64,
        );
        return Plan {
            columns: across,
            size: shape,
            gap,
            label: if side < 150.0 { 9.0 } else { 10.0 },
        };
    }
    let wide = match text {
        Some(longest) => (longest as f64 * 6.8 + 8.0).clamp(34.0, 76.0),
        None => (room.min(680.0) / columns as f64).min(if columns < 8 { 46.0 } else { 38.0 }),
    };
    let high = (420.0 / rows as f64).clamp(if text.is_some() { 20.0 } else { 0.0 }, 28.0);
    let size = ((wide * columns as f64).max(60.0), (high * rows as f64).max(28.0));
    Plan { columns: across, size, gap, label: LABEL_SIZE }
}

/// The grid as a figure of cells takes it: checked, finite, with at least two axes.
pub(super) fn prepared(grid: &Grid, what: &str, most_axes: usize) -> Result<Grid> {
    grid.check()?;
    let mut grid = grid.squeeze_to(2);
    if grid.axes.len() == 1 {
        let row = GridAxis { axis: Axis::Series, labels: vec![String::new()] };
        grid.axes.insert(0, row);
        grid.values = grid.values.insert_axis(ndarray::Axis(0));
        grid.missing = grid.missing.map(|missing| missing.insert_axis(ndarray::Axis(0)));
        grid.interval = None;
    }
    ensure!(
        (2..=most_axes).contains(&grid.axes.len()),
        "{what} takes a grid of 1 to {most_axes} axes, found {}: select or mean over some of them",
        grid.axes_text()
    );
    few_panels(&grid, what, 36)?;
    Ok(grid)
}

/// Fails unless the axes before the last two give a number of panels that can be read.
pub(super) fn few_panels(grid: &Grid, what: &str, most: usize) -> Result<()> {
    let outer = &grid.axes[..grid.axes.len() - 2];
    let count: usize = outer.iter().map(GridAxis::len).product();
    ensure!(
        count <= most,
        "{what} would have {count} panels, {most} at most; axes are {}: select or mean over some of them",
        grid.axes_text()
    );
    Ok(())
}
