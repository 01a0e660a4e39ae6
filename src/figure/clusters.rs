//! What a clustering found: an ordered matrix with its groups, and how well each thing fits its own.

use anyhow::{Result, ensure};

use super::layout::{self, NAME_SIZE, labelled, numeric};
use super::scene::{Bars, Frame, Legend, Mark, Panel, Ruler, Scene};
use super::style::{Groups, Style};
use super::{Figure, Kind, colors, lines, panels, text};
use crate::grid::{Grid, number};

/// Width of the strip that shows groups, and its distance from the matrix.
const STRIP: f64 = 10.0;
const NEAR: f64 = 4.0;

/// A square matrix (correlations, similarities) with rows and columns in the order of a clustering, and
/// a strip of colours for the groups: `order[i]` is the index drawn at place `i`, `groups` has the group
/// of each index before ordering.
///
/// ```
/// use thalweg::{Axis, Grid, clustermap, ndarray::array};
/// let m = array![[1.0, 0.1, 0.9], [0.1, 1.0, 0.2], [0.9, 0.2, 1.0]];
/// let grid = Grid::from_array(m, &[Axis::Query, Axis::Key], "correlation")?;
/// let json: serde_json::Value =
///     serde_json::from_str(&clustermap(&grid, &[0, 2, 1], &["a", "b", "a"])?.bundle()?.plotly)?;
/// assert_eq!(json["data"][0]["z"][0], serde_json::json!([1, 0.9, 0.1]));
/// # anyhow::Ok(())
/// ```
pub fn clustermap(grid: &Grid, order: &[usize], groups: &[impl AsRef<str>]) -> Result<Figure> {
    grid.check()?;
    let [rows, columns] = grid.axes.as_slice() else {
        anyhow::bail!("a cluster map takes a matrix, found {}", grid.axes_text())
    };
    let len = rows.len();
    ensure!(
        len == columns.len(),
        "a cluster map takes a square matrix, found {}",
        grid.axes_text()
    );
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    ensure!(
        sorted.iter().copied().eq(0..len),
        "the order of {len} things must name each of 0 to {} once, found {order:?}",
        len.saturating_sub(1)
    );
    ensure!(groups.len() == len, "{} groups given for {len} things", groups.len());
    let (down, across) = (rows.axis, columns.axis);
    let order: Vec<i64> = order.iter().map(|i| *i as i64).collect();
    let ordered = grid.select_many(down, &order)?.select_many(across, &order)?;
    let of_point = order.iter().map(|i| text::visible(groups[*i as usize].as_ref())).collect();
    let groups = Groups { of_point, ordered: false };
    let figure = Figure::chart(Kind::Clustermap, ordered)?;
    Ok(figure.styled(|style| style.groups = Some(groups.clone())))
}

/// Silhouettes: a bar for each thing, largest first within its cluster, the clusters under one another;
/// a dashed line marks the mean. Values run from -1 (nearer to another cluster) to 1.
///
/// ```
/// use thalweg::{Axis, Grid, ndarray::array, silhouettes};
/// let grid = Grid::from_array(array![0.7, -0.1, 0.5], &[Axis::Pos], "silhouette")?;
/// let figure = silhouettes(&grid, &["a", "a", "b"])?;
/// assert!(figure.bundle()?.svg.contains("mean 0.3667"));
/// # anyhow::Ok(())
/// ```
pub fn silhouettes(grid: &Grid, clusters: &[impl AsRef<str>]) -> Result<Figure> {
    grid.check()?;
    let grid = lines::at_least_one_axis(grid);
    ensure!(
        grid.axes.len() == 1 && clusters.len() == grid.values.len(),
        "silhouettes take one axis and a cluster for each index, found {} and {} clusters",
        grid.axes_text(),
        clusters.len()
    );
    let beyond = grid.present().find(|(_, value)| value.abs() > 1.0 + 1e-9);
    if let Some((index, value)) = beyond {
        anyhow::bail!("a silhouette lies in -1 to 1, found {value} at {}", grid.cell_name(&index));
    }
    let of_point = clusters.iter().map(|name| text::visible(name.as_ref())).collect();
    let groups = Groups { of_point, ordered: false };
    let figure = Figure::chart(Kind::Silhouettes, grid)?;
    Ok(figure.styled(|style| style.groups = Some(groups.clone())))
}

/// Names of groups in order of appearance, and the group of each place.
fn known(groups: &Groups) -> (Vec<String>, Vec<usize>) {
    let mut names: Vec<String> = Vec::new();
    let place = |name: &String| {
        names.iter().position(|other| other == name).unwrap_or_else(|| {
            names.push(name.clone());
            names.len() - 1
        })
    };
    let of_point = groups.of_point.iter().map(place).collect();
    (names, of_point)
}

/// Bars of one length, one mark for each group.
fn strip(names: &[String], of_point: &[usize], labels: &[String], across: bool) -> Vec<Mark> {
    let mark = |(group, name): (usize, &String)| {
        let mine: Vec<usize> = (0..of_point.len()).filter(|i| of_point[*i] == group).collect();
        Mark::Bars(Bars {
            name: name.clone(),
            colors: vec![colors::of_many(group, names.len(), false).0; mine.len()],
            x: mine.iter().map(|i| *i as f64).collect(),
            y: vec![1.0; mine.len()],
            width: 1.0,
            bounds: None,
            unit: String::new(),
            labels: mine.iter().map(|i| labels[*i].clone()).collect(),
            alpha: 1.0,
            across,
            quiet: across,
        })
    };
    names.iter().enumerate().map(mark).collect()
}

pub(super) fn map_scene(grid: &Grid, style: &Style) -> Scene {
    let mut scene =
        panels::scene(grid, &Style { origin: Some(super::Origin::Top), ..style.clone() }, true);
    let Some(groups) = &style.groups else { return scene };
    let (names, of_point) = known(groups);
    let Some(main) = scene.panels.first_mut() else { return scene };
    main.frame.y += STRIP + NEAR;
    let (main, frame) = (main.clone(), main.frame);
    let bare = |ruler: &Ruler| Ruler { title: String::new(), size: 0.0, ..ruler.clone() };
    let unit = Ruler { from: 0.0, to: 1.0, ..Ruler::default() };
    let panel = |frame: Frame, x: Ruler, y: Ruler, free, across: bool, labels: &[String]| Panel {
        frame,
        title: String::new(),
        x,
        y,
        background: [255, 255, 255],
        free,
        marks: strip(&names, &of_point, labels, across),
    };
    let above = Frame { y: frame.y - STRIP - NEAR, h: STRIP, ..frame };
    let beside = Frame { x: frame.x + frame.w + NEAR, w: STRIP, ..frame };
    let (x_labels, y_labels) = (main.x.labels.clone(), main.y.labels.clone());
    scene.panels.push(panel(above, bare(&main.x), unit.clone(), (false, true), false, &x_labels));
    scene.panels.push(panel(beside, unit, bare(&main.y), (true, false), true, &y_labels));
    scene.height += STRIP + NEAR;
    scene.width += STRIP + NEAR;
    let mut under = frame.y;
    if let Some(bar) = &mut scene.bar {
        bar.frame.x += STRIP + NEAR;
        under = bar.frame.y + bar.frame.h + 18.0;
        let entries: Vec<_> = (0..names.len())
            .map(|i| (names[i].clone(), colors::of_many(i, names.len(), false).0, 0))
            .collect();
        let (legend, room) = lines::legend(&entries, bar.frame.x, under);
        scene.width = scene.width.max(bar.frame.x + room);
        scene.legend = legend;
    }
    let listed = scene.legend.as_ref().map_or(0.0, |l| 18.0 * l.entries.len() as f64);
    scene.height = scene.height.max(under + listed + 10.0);
    scene
}

pub(super) fn silhouette_scene(grid: &Grid, style: &Style) -> Scene {
    let none = Groups { of_point: vec![String::new(); grid.values.len()], ordered: false };
    let (names, of_point) = known(style.groups.as_ref().unwrap_or(&none));
    let values: Vec<f64> = grid.values.iter().copied().collect();
    let exists = |i: &usize| grid.exists(&[*i]);
    let mut order: Vec<usize> = (0..values.len()).filter(exists).collect();
    order.sort_by(|a, b| of_point[*a].cmp(&of_point[*b]).then(values[*b].total_cmp(&values[*a])));
    let mean = order.iter().map(|i| values[*i]).sum::<f64>() / order.len() as f64;
    let own = text::names(&grid.axes[0], 18);
    let labels: Vec<String> = order.iter().map(|i| own[*i].clone()).collect();
    let (width, height) = (420.0, (order.len() as f64 * 14.0).clamp(120.0, 520.0));
    let least = order.iter().map(|i| values[*i]).fold(0.0, f64::min);
    let x = numeric("silhouette", if least < 0.0 { least - 0.05 } else { 0.0 }, 1.0, width, true);
    let y = labelled(text::axis_name(grid.axes[0].axis), labels.clone(), height, false, 10.0);
    let (from, to) = (y.to, y.from);
    let left = y.title_at + 14.0;
    let entries: Vec<_> = (0..names.len())
        .map(|i| (names[i].clone(), colors::of_many(i, names.len(), false).0, 0))
        .collect();
    let (legend, right) = lines::legend(&entries, left + width + 14.0, 0.0);
    let mut scene = Scene { width: left + width + right, ..Scene::default() };
    scene.head(grid, style);
    scene.notes.push(format!("mean {}, {} clusters", number(mean), names.len()));
    let top = layout::head_height(&scene.title, &scene.notes);
    scene.legend = legend.map(|legend| Legend { y: top, ..legend });
    scene.height = top + height + x.title_at + 14.0 + 0.2 * NAME_SIZE;
    let bars = |(group, name): (usize, &String)| {
        let mine: Vec<usize> = (0..order.len()).filter(|p| of_point[order[*p]] == group).collect();
        Mark::Bars(Bars {
            name: name.clone(),
            colors: vec![entries[group].1; mine.len()],
            x: mine.iter().map(|p| *p as f64).collect(),
            y: mine.iter().map(|p| values[order[*p]]).collect(),
            width: 0.9,
            bounds: None,
            unit: grid.unit.clone(),
            labels: mine.iter().map(|p| labels[*p].clone()).collect(),
            alpha: 1.0,
            across: true,
            quiet: false,
        })
    };
    let mut marks: Vec<Mark> = names.iter().enumerate().map(bars).collect();
    marks.push(Mark::Line(lines::guide(vec![mean, mean], vec![from, to], colors::INK)));
    scene.panels.push(Panel {
        frame: Frame { x: left, y: top, w: width, h: height },
        title: String::new(),
        x: Ruler { line: true, ..x },
        y: Ruler { from, to, ..y },
        background: [255, 255, 255],
        free: (false, false),
        marks,
    });
    scene
}
