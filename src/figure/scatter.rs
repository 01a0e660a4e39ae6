//! Points in the plane of two components: PCA of the residual stream.

use anyhow::{Result, ensure};
use ndarray::IxDyn;

use super::colors::SOFT;
use super::layout::{self, numeric, padded};
use super::scene::{Entry, Frame, Legend, Mark, Panel, Points, Scene};
use super::style::{Groups, Style};
use super::{Figure, Kind, colors, lines, panels, text};
use crate::grid::{Grid, GridAxis};
use crate::hook::site::Axis;

/// Most points drawn; of more, evenly spaced ones are taken from each group, and the title says so.
const MAX_POINTS: usize = 5_000;
/// Up to this many points have their labels written beside them.
const FEW_POINTS: usize = 40;
/// Tokens shown on either side of a point's own.
const NEAR: usize = 6;
/// Most groups that get a colour of their own by default.
const MAX_GROUPS: usize = 40;

/// Points of a grid `[.., Pc]`: each cell of the axes before gives one point, at its first and second
/// component ([`Figure::components`] takes others). The labels of `Pc` title the axes, so they may
/// carry the explained variance. With two axes or more before `Pc`, colours follow the first;
/// [`Figure::color_by`] and [`Figure::color_by_axis`] choose. Without an axis `Pc` the last axis holds
/// the coordinates.
///
/// ```
/// use thalweg::{Axis, Grid, ndarray::array, scatter};
/// let points = Grid::from_array(array![[0.1, 2.0], [-1.0, 0.3]], &[Axis::Pos, Axis::Pc], "projection")?;
/// let points = points.relabel(Axis::Pc, &["PC1 (61 % of variance)", "PC2 (12 %)"])?;
/// assert!(scatter(&points)?.color_by(&["name", "verb"])?.bundle()?.svg.contains("61 %"));
/// # anyhow::Ok(())
/// ```
pub fn scatter(grid: &Grid) -> Result<Figure> {
    grid.check()?;
    let last = grid.axes.last().map(|named| named.axis);
    let along = grid.place(Axis::Pc).map_or(last, |_| Some(Axis::Pc));
    let Some(along) = along else {
        anyhow::bail!("a scatter needs an axis of coordinates, the grid has none")
    };
    let grid = grid.move_axis(along, grid.axes.len() - 1)?;
    let found = grid.labels(along)?.len();
    ensure!(
        found >= 2 && grid.axes.len() >= 2,
        "a scatter needs points and two coordinates of each; axes are {}",
        grid.axes_text()
    );
    Figure::chart(Kind::Scatter, grid)
}

impl Figure {
    /// Colours the points of a scatter by group: one name for each point, in row-major order.
    pub fn color_by(self, groups: &[impl AsRef<str>]) -> Result<Figure> {
        let points = self.points()?;
        let found = groups.len();
        ensure!(found == points, "{found} group names given for {points} points");
        let of_point = groups.iter().map(|name| text::visible(name.as_ref())).collect();
        let groups = Groups { of_point, ordered: false };
        Ok(self.styled(|style| style.groups = Some(groups.clone())))
    }

    /// What a hover says of each point of a scatter beside its label: the text around a token, a prompt.
    /// One for each point, in row-major order. Points along `Pos` show their neighbours by themselves.
    pub fn contexts(self, texts: &[impl AsRef<str>]) -> Result<Figure> {
        let (points, found) = (self.points()?, texts.len());
        ensure!(found == points, "{found} contexts given for {points} points");
        let told: Vec<String> = texts.iter().map(|t| text::visible_words(t.as_ref())).collect();
        Ok(self.styled(|style| style.contexts = Some(told.clone())))
    }

    /// Colours the points of a scatter by their index on an axis.
    pub fn color_by_axis(self, axis: Axis) -> Result<Figure> {
        self.points()?;
        let Some((_, grid)) = self.single() else {
            anyhow::bail!("this is not one scatter: {self:?}")
        };
        let place = grid.place(axis)?;
        ensure!(
            place + 1 < grid.axes.len(),
            "axis {axis} holds the coordinates; axes are {}",
            grid.axes_text()
        );
        let groups = by_axis(grid, place);
        Ok(self.styled(|style| style.groups = Some(groups.clone())))
    }

    /// The components drawn along x and y, counted from 0; -1 is the last.
    pub fn components(self, x: i64, y: i64) -> Result<Figure> {
        self.points()?;
        let Some((_, grid)) = self.single() else {
            anyhow::bail!("this is not one scatter: {self:?}")
        };
        let len = grid.axes.last().map_or(0, GridAxis::len) as i64;
        let place = |i: i64| if i < 0 { i + len } else { i };
        ensure!(
            (0..len).contains(&place(x)) && (0..len).contains(&place(y)),
            "components {x} and {y} of {len}; axes are {}",
            grid.axes_text()
        );
        Ok(self.styled(|style| style.components = Some((place(x) as usize, place(y) as usize))))
    }

    /// Number of points, or an error if this is no scatter.
    fn points(&self) -> Result<usize> {
        match self.single() {
            Some((Kind::Scatter, grid)) => Ok(rows(grid).iter().map(GridAxis::len).product()),
            _ => anyhow::bail!(
                "only the points of a scatter have colours and components; this is {self:?}"
            ),
        }
    }
}

/// Every axis but that of the coordinates.
fn rows(grid: &Grid) -> &[GridAxis] {
    grid.axes.split_last().map_or(&[], |(_, rows)| rows)
}

fn by_axis(grid: &Grid, place: usize) -> Groups {
    let rows = rows(grid);
    let inner: usize = rows[place + 1..].iter().map(GridAxis::len).product();
    let len = rows[place].len();
    let names = text::names(&rows[place], 24);
    let count: usize = rows.iter().map(GridAxis::len).product();
    let of_point = (0..count).map(|i| names[i / inner % len].clone()).collect();
    let ordered = matches!(rows[place].axis, Axis::Layer | Axis::Pos | Axis::Query | Axis::Key);
    Groups { of_point, ordered }
}

/// One point: where it is, its label, its group.
struct Point {
    x: f64,
    y: f64,
    label: String,
    /// The label without what a bare number counts.
    short: String,
    group: usize,
    context: [String; 3],
    /// There is room for the label.
    written: bool,
}

/// Group names in order of appearance, and every point that exists.
fn points(grid: &Grid, style: &Style, (cx, cy): (usize, usize)) -> (Vec<String>, Vec<Point>, bool) {
    let rows = rows(grid);
    let names: Vec<Vec<String>> = rows.iter().map(text::spoken).collect();
    let brief: Vec<Vec<String>> = rows.iter().map(|axis| text::names(axis, 14)).collect();
    let default = || (rows.len() > 1 && rows[0].len() <= MAX_GROUPS).then(|| by_axis(grid, 0));
    let words = rows.iter().position(|axis| axis.axis == Axis::Pos && text::are_words(axis));
    let groups = style.groups.clone().or_else(default);
    let mut known: Vec<String> = Vec::new();
    let mut all = Vec::new();
    let count: usize = rows.iter().map(GridAxis::len).product();
    for i in 0..count {
        let mut left = i;
        let mut index = vec![0; rows.len()];
        for (place, axis) in rows.iter().enumerate().rev() {
            index[place] = left % axis.len();
            left /= axis.len();
        }
        let name = groups.as_ref().map_or("", |groups| groups.of_point[i].as_str());
        let group = known.iter().position(|other| other == name).unwrap_or_else(|| {
            known.push(name.to_string());
            known.len() - 1
        });
        let at = |names: &[Vec<String>], between: &str| {
            let each = names.iter().zip(&index).map(|(names, i)| names[*i].as_str());
            each.collect::<Vec<_>>().join(between)
        };
        let (label, short) = match panels::heads(rows) {
            true => (at(&names, ""), at(&brief, "")),
            false => (at(&names, ", "), at(&brief, " ")),
        };
        let context = |index: &[usize], i: usize| match &style.contexts {
            Some(told) => [String::new(), String::new(), told[i].clone()],
            None => words.map_or_else(Default::default, |place| around(&rows[place], index[place])),
        };
        let coordinate = |c: usize| {
            let at = [&index[..], &[c]].concat();
            grid.exists(&at).then(|| grid.values[IxDyn(&at)])
        };
        if let (Some(x), Some(y)) = (coordinate(cx), coordinate(cy)) {
            let context = context(&index, i);
            all.push(Point {
                x,
                y,
                label,
                short: text::cut(&short, 14),
                group,
                context,
                written: true,
            });
        }
    }
    (known, all, groups.is_some_and(|groups| groups.ordered))
}

/// The tokens before one, itself, and those after.
fn around(axis: &GridAxis, at: usize) -> [String; 3] {
    let joined = |labels: &[String]| labels.iter().map(|t| text::in_line(t)).collect::<String>();
    let (from, to) = (at.saturating_sub(NEAR), (at + 1 + NEAR).min(axis.len()));
    let before = if from > 0 { "…" } else { "" }.to_string() + &joined(&axis.labels[from..at]);
    let after = joined(&axis.labels[at + 1..to]) + if to < axis.len() { "…" } else { "" };
    [before, joined(&axis.labels[at..=at]), after]
}

/// Evenly spaced points of each group, `MAX_POINTS` in all.
fn sampled(points: Vec<Point>, groups: usize) -> Vec<Point> {
    let share = MAX_POINTS as f64 / points.len() as f64;
    let mut seen = vec![0usize; groups];
    points
        .into_iter()
        .filter(|point| {
            let i = seen[point.group];
            seen[point.group] += 1;
            (i as f64 * share).floor() < ((i + 1) as f64 * share).floor()
        })
        .collect()
}

/// Keeps the labels that do not lie on an earlier one; scales are pixels a unit.
fn spaced(all: &mut [Point], (x_scale, y_scale): (f64, f64)) {
    let dots: Vec<(f64, f64)> = all.iter().map(|p| (p.x * x_scale, p.y * y_scale)).collect();
    let mut taken: Vec<(f64, f64, f64)> = Vec::new();
    for point in all.iter_mut().take(FEW_POINTS) {
        let (x, y) = (point.x * x_scale, point.y * y_scale);
        let half = 0.5 * text::width(&point.short, 10.0);
        let free = |(left, other_y, right): &(f64, f64, f64)| {
            x - half > *right || x + half < *left || (y - other_y).abs() > 11.0
        };
        // The label's middle is 10 pixels above its point.
        let open = |(dot_x, dot_y): &(f64, f64)| {
            (dot_x - x).abs() > half + 3.0 || (dot_y - y - 10.0).abs() > 8.0
        };
        point.written = taken.iter().all(free) && dots.iter().all(open);
        if point.written {
            taken.push((x - half, y, x + half));
        }
    }
}

/// Ends of x and y, with room for points at the edge.
fn extent(all: &[Point]) -> [(f64, f64); 2] {
    let reads: [fn(&Point) -> f64; 2] = [|point| point.x, |point| point.y];
    reads.map(|read| {
        let ends = all
            .iter()
            .map(read)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        let (low, high) = padded(ends.0, ends.1, false);
        // A point on the frame would be cut in half, and its label more.
        let edge = if all.len() <= FEW_POINTS { 0.08 } else { 0.03 } * (high - low);
        (low.min(ends.0 - edge), high.max(ends.1 + edge))
    })
}

/// Ends of x and y for every point of a grid.
pub(super) fn whole_extent(grid: &Grid, style: &Style) -> [(f64, f64); 2] {
    extent(&points(grid, style, style.components.unwrap_or((0, 1))).1)
}

pub(super) fn scene(grid: &Grid, style: &Style) -> Scene {
    let components = style.components.unwrap_or((0, 1));
    let axis = &grid.axes[grid.axes.len() - 1];
    let (x_name, y_name) =
        (text::visible(&axis.labels[components.0]), text::visible(&axis.labels[components.1]));
    let (groups, all, ordered) = points(grid, style, components);
    let (total, mut style) = (all.len(), style.clone());
    let mut all = if total > MAX_POINTS { sampled(all, groups.len()) } else { all };
    if all.len() < total {
        let title = style.title.as_deref().unwrap_or(&grid.name);
        style.title = Some(format!("{title} ({} of {total} points)", all.len()));
    }
    let told = all.iter().any(|point| point.context.iter().any(|part| !part.is_empty()));
    let side = 420.0;
    let mut ends = style.extent.unwrap_or_else(|| extent(&all));
    if style.diagonal {
        ends = [(ends[0].0.min(ends[1].0), ends[0].1.max(ends[1].1)); 2];
    }
    let [(x_low, x_high), (y_low, y_high)] = ends;
    let (x_scale, y_scale) = (side * 1.15 / (x_high - x_low), side / (y_high - y_low));
    spaced(&mut all, (x_scale, y_scale));
    let x = numeric(&x_name, x_low, x_high, side * 1.15, true);
    let y = numeric(&y_name, y_low, y_high, side, false);
    let (left, bottom) = (y.title_at + 14.0, x.title_at + 14.0);
    let color = |i: usize| (groups[i].clone(), colors::of_many(i, groups.len(), ordered).0, 0);
    let named: Vec<_> = (0..groups.len()).map(color).collect();
    let (legend, right) = lines::legend(&named, left + side * 1.15 + 14.0, 0.0);
    let mut scene = Scene { width: left + side * 1.15 + right, ..Scene::default() };
    scene.head(grid, &style);
    let top = layout::head_height(&scene.title, &scene.notes);
    scene.legend = legend.map(|legend| Legend { y: top, ..legend });
    scene.height = top + side + bottom;
    let mark = |(i, (name, color, _)): (usize, &Entry)| {
        let mine = || all.iter().filter(move |point| point.group == i);
        Mark::Points(Points {
            name: name.clone(),
            color: *color,
            x: mine().map(|p| p.x).collect(),
            y: mine().map(|p| p.y).collect(),
            labels: mine().map(|p| p.label.clone()).collect(),
            written: (all.len() <= FEW_POINTS).then(|| {
                mine().map(|p| if p.written { p.short.clone() } else { String::new() }).collect()
            }),
            x_name: x_name.clone(),
            y_name: y_name.clone(),
            contexts: told.then(|| mine().map(|p| p.context.clone()).collect()),
        })
    };
    let mut marks: Vec<Mark> = named.iter().enumerate().map(mark).collect();
    if style.diagonal {
        marks.insert(0, Mark::Line(lines::guide(vec![x_low, x_high], vec![x_low, x_high], SOFT)));
    }
    scene.panels.push(Panel {
        frame: Frame { x: left, y: top, w: side * 1.15, h: side },
        title: String::new(),
        x,
        y,
        background: [255, 255, 255],
        free: (false, false),
        marks,
    });
    scene
}
