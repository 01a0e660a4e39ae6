//! Bars: a ranking, or a few groups side by side.

use anyhow::Result;

use super::layout::{self, labelled, numeric, padded};
use super::lines::{self, Series};
use super::scene::{Bars, Frame, Legend, Mark, Panel, Ruler, Scene};
use super::style::Style;
use super::{Figure, Kind, colors, text};
use crate::grid::Grid;

/// Bars along one axis, chosen as by [`lines`](super::lines()); every other axis gives one bar of each
/// group an index. A single series is blue above and red below zero. Bounds are drawn as whiskers.
///
/// ```
/// use thalweg::{Axis, Grid, bars, ndarray::array};
/// let effect = Grid::from_array(array![[0.1, -0.8], [0.0, 0.3]], &[Axis::Layer, Axis::Head], "logits")?;
/// let figure = bars(&effect.top(3))?.title("Largest direct effects");
/// assert!(figure.bundle()?.svg.contains("L0 H1"));
/// # anyhow::Ok(())
/// ```
pub fn bars(grid: &Grid) -> Result<Figure> {
    grid.check()?;
    Figure::chart(Kind::Bars, lines::at_least_one_axis(grid))
}

pub(super) fn scene(grid: &Grid, style: &Style) -> Scene {
    let (x_axis, all, graded) = lines::series(grid, style);
    let (count, groups) = (all.len(), x_axis.len());
    let (least, most) = lines::extent(&all);
    let (low, high) = style.range.unwrap_or_else(|| padded(least, most, true));
    let per_group = 12.0 + 14.0 * count as f64;
    let plot_width = (per_group * groups as f64).clamp(260.0, 640.0);
    let plot_height = 280.0;
    let labels = text::names(&x_axis, 22);
    let x = labelled(
        text::axis_name(x_axis.axis),
        labels.clone(),
        plot_width,
        true,
        layout::LABEL_SIZE,
    );
    let (title, meaning) = lines::upright_title(grid, plot_height);
    let y = numeric(&title, low, high, plot_height, false);
    // A turned label of the first bar reaches out to the left.
    let overhang =
        if x.angle == -45.0 { text::width(&labels[0], layout::LABEL_SIZE) * 0.72 } else { 0.0 };
    let left = (y.title_at + 14.0).max(overhang - 0.5 * plot_width / groups as f64 + 8.0);
    let bottom = x.title_at + 14.0;
    let name = |i: usize| (all[i].name.clone(), colors::of_many(i, count, graded).0, 0);
    let names: Vec<_> = (0..count).map(name).collect();
    let (legend, right) = lines::legend(&names, left + plot_width + 14.0, 0.0);
    let mut scene = Scene { width: (left + plot_width + right).max(380.0), ..Scene::default() };
    scene.head(grid, style);
    scene.notes.extend(meaning);
    let top = layout::head_height(&scene.title, &scene.notes);
    scene.legend = legend.map(|legend| Legend { y: top, ..legend });
    scene.height = top + plot_height + bottom;
    let width = 0.8 / count as f64;
    let bar = |(i, one): (usize, Series)| {
        let own = |value: &f64| match count {
            1 if *value < 0.0 => colors::NEGATIVE,
            1 => colors::POSITIVE,
            _ => names[i].1,
        };
        let shift = (i as f64 - 0.5 * (count - 1) as f64) * width;
        Mark::Bars(Bars {
            name: one.name,
            colors: one.y.iter().map(own).collect(),
            x: (0..groups).map(|x| x as f64 + shift).collect(),
            y: one.y,
            width: if count == 1 { width } else { width * 0.92 },
            bounds: one.bounds,
            unit: grid.unit.clone(),
            labels: labels.clone(),
            alpha: 1.0,
            across: false,
            quiet: false,
        })
    };
    scene.panels.push(Panel {
        frame: Frame { x: left, y: top, w: plot_width, h: plot_height },
        title: String::new(),
        x: Ruler { line: true, ..x },
        y,
        background: [255, 255, 255],
        free: (false, false),
        marks: all.into_iter().enumerate().map(bar).collect(),
    });
    scene
}
