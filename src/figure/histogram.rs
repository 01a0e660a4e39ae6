//! How values are spread, class beside class.

use anyhow::{Result, ensure};
use ndarray::IxDyn;

use super::layout::{self, numeric, padded};
use super::scene::{Bars, Frame, Legend, Mark, Panel, Ruler, Scene};
use super::style::Style;
use super::{Figure, Kind, colors, lines, text};
use crate::grid::{Grid, GridAxis, number};
use crate::hook::site::Axis;

/// Most classes that can be told apart when they lie on one another.
const MAX_CLASSES: usize = 6;

/// Histograms on one another, one for each index of the first axis (`[Series, Batch]`: the projections
/// of two classes of prompts); a grid of one axis is one class. Heights are shares of the class, so
/// that classes of different size compare. A dashed line marks the mean of each.
///
/// ```
/// use thalweg::{Axis, Grid, histogram, ndarray::array};
/// let grid = Grid::from_array(array![[0.1, 0.3, 0.2], [1.0, 1.2, 0.9]], &[Axis::Series, Axis::Batch], "projection")?;
/// let figure = histogram(&grid.relabel(Axis::Series, &["names", "verbs"])?)?;
/// assert!(figure.bundle()?.svg.contains("names: mean 0.2"));
/// # anyhow::Ok(())
/// ```
pub fn histogram(grid: &Grid) -> Result<Figure> {
    grid.check()?;
    let mut grid = grid.clone();
    if grid.axes.len() < 2 {
        grid = lines::at_least_one_axis(&grid);
        let label = vec![grid.name.clone()];
        let axis = if grid.place(Axis::Series).is_ok() { Axis::Cluster } else { Axis::Series };
        grid.axes.insert(0, GridAxis { axis, labels: label });
        grid.values = grid.values.insert_axis(ndarray::Axis(0));
        grid.missing = grid.missing.map(|missing| missing.insert_axis(ndarray::Axis(0)));
    }
    grid.interval = None;
    let classes = grid.shape()[0];
    ensure!(
        classes <= MAX_CLASSES,
        "{classes} histograms on one another cannot be read: {MAX_CLASSES} at most; axes are {}",
        grid.axes_text()
    );
    Figure::chart(Kind::Histogram, grid)
}

/// The values of each class that exist.
fn classes(grid: &Grid) -> Vec<(String, Vec<f64>)> {
    let names = text::spoken(&grid.axes[0]);
    let class = |(i, name): (usize, String)| {
        let mine = grid.present().filter(|(index, _)| index[0] == i);
        (name, mine.map(|(index, _)| grid.values[IxDyn(&index)]).collect())
    };
    names.into_iter().enumerate().map(class).collect()
}

pub(super) fn scene(grid: &Grid, style: &Style) -> Scene {
    let classes = classes(grid);
    let all = || classes.iter().flat_map(|(_, values)| values);
    let (least, most) =
        all().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(*v), b.max(*v)));
    let (low, high) = if most > least { (least, most) } else { (least - 0.5, least + 0.5) };
    let bins =
        ((all().count() as f64 / classes.len() as f64).sqrt().ceil() as usize * 2).clamp(8, 40);
    let wide = (high - low) / bins as f64;
    let shares = |values: &[f64]| {
        let mut heights = vec![0.0; bins];
        for value in values {
            heights[(((value - low) / wide) as usize).min(bins - 1)] += 1.0 / values.len() as f64;
        }
        heights
    };
    let heights: Vec<Vec<f64>> = classes.iter().map(|(_, values)| shares(values)).collect();
    let tallest = heights.iter().flatten().fold(0.0f64, |most, h| most.max(*h));
    let (width, height) = (500.0, 280.0);
    let (from, to) = padded(low, high, false);
    let x = numeric(&lines::value_title(grid), from.max(low - wide), to.max(high), width, true);
    let y = numeric("share of the class", 0.0, tallest * 1.08, height, false);
    let (left, bottom) = (y.title_at + 14.0, x.title_at + 14.0);
    let color = |i: usize| colors::of_many(i, classes.len(), false).0;
    let entries: Vec<_> =
        classes.iter().enumerate().map(|(i, (name, _))| (name.clone(), color(i), 0)).collect();
    let (legend, right) = lines::legend(&entries, left + width + 14.0, 0.0);
    let means: Vec<f64> = classes
        .iter()
        .map(|(_, values)| values.iter().sum::<f64>() / values.len() as f64)
        .collect();
    let mut scene = Scene { width: left + width + right, ..Scene::default() };
    scene.head(grid, style);
    for ((name, values), mean) in classes.iter().zip(&means) {
        let name = if name.is_empty() { "all" } else { name };
        scene.notes.push(format!("{name}: mean {}, {} values", number(*mean), values.len()));
    }
    let top = layout::head_height(&scene.title, &scene.notes);
    scene.legend = legend.map(|legend| Legend { y: top, ..legend });
    scene.height = top + height + bottom;
    let edges = |i: usize| [low + i as f64 * wide, low + (i + 1) as f64 * wide].map(number);
    let labels: Vec<String> = (0..bins).map(|i| edges(i).join(" to ")).collect();
    let bars = heights.into_iter().zip(&entries).map(|(y, entry)| {
        Mark::Bars(Bars {
            name: entry.0.clone(),
            colors: vec![entry.1; bins],
            x: (0..bins).map(|i| low + (i as f64 + 0.5) * wide).collect(),
            y,
            width: wide,
            bounds: None,
            unit: "of the class".into(),
            labels: labels.clone(),
            alpha: if classes.len() > 1 { 0.5 } else { 0.85 },
            across: false,
            quiet: false,
        })
    });
    let guides = means.iter().zip(&entries).filter(|(mean, _)| mean.is_finite());
    let guides = guides.map(|(mean, entry)| {
        Mark::Line(lines::guide(vec![*mean, *mean], vec![0.0, tallest * 1.08], entry.1))
    });
    scene.panels.push(Panel {
        frame: Frame { x: left, y: top, w: width, h: height },
        title: String::new(),
        x: Ruler { line: true, lines: false, ..x },
        y,
        background: [255, 255, 255],
        free: (false, false),
        marks: bars.chain(guides).collect(),
    });
    scene
}
