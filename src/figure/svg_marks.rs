//! Marks as SVG.

use std::fmt::Write as _;

use super::colors::{INK, contrast, hex};
use super::heatmap::cell_text;
use super::scene::{Bars, Cells, ColorBar, Line, Mark, Panel, Points, Scene};
use super::svg::{Pen, Svg, px};
use super::{png, text};
use crate::grid::number;
use crate::show::escape;

/// Most cells drawn one by one; more become an image.
const MAX_CELLS: usize = 2_500;
/// Most cells, bars or points that carry a tooltip of their own.
const MAX_TOOLTIPS: usize = 800;
/// Points above which a group is drawn as one path.
const MANY_POINTS: usize = 800;

/// Cells that a scene draws.
pub(super) fn cell_count(scene: &Scene) -> usize {
    let cells = |mark: &Mark| match mark {
        Mark::Cells(cells) => cells.values.iter().filter(|value| !value.is_nan()).count(),
        _ => 0,
    };
    scene.panels.iter().flat_map(|panel| &panel.marks).map(cells).sum()
}

/// Draws one mark. `cells` is the number of cells of the whole page.
pub(super) fn draw(
    svg: &mut Svg,
    mark: &Mark,
    panel: &Panel,
    bar: Option<&ColorBar>,
    cells: usize,
) {
    match (mark, bar) {
        (Mark::Cells(own), Some(bar)) if cells > MAX_CELLS => image(svg, own, panel, bar),
        (Mark::Cells(own), Some(bar)) => each_cell(svg, own, panel, bar, cells <= MAX_TOOLTIPS),
        (Mark::Cells(_), None) => {}
        (Mark::Line(line), _) => draw_line(svg, line, panel),
        (Mark::Bars(bars), _) => draw_bars(svg, bars, panel),
        (Mark::Points(points), _) => draw_points(svg, points, panel),
    }
}

fn each_cell(svg: &mut Svg, cells: &Cells, panel: &Panel, bar: &ColorBar, tooltips: bool) {
    let (rows, columns) = cells.values.dim();
    let (w, h) = (panel.frame.w / columns as f64, panel.frame.h / rows as f64);
    let gap = if w.min(h) >= 7.0 { 1.0 } else { 0.0 };
    svg.0 += "<g shape-rendering=\"crispEdges\">";
    for ((row, column), value) in cells.values.indexed_iter().filter(|(_, value)| !value.is_nan()) {
        let (x, y) = (panel.px(column as f64) - 0.5 * w, panel.py(row as f64) - 0.5 * h);
        let (x, y, w, h) = (px(x + 0.5 * gap), px(y + 0.5 * gap), px(w - gap), px(h - gap));
        let fill = hex(bar.scale.at(*value));
        let _ = write!(svg.0, "<path fill=\"{fill}\" d=\"M{x} {y}h{w}v{h}h-{w}z\"");
        if tooltips {
            let _ = write!(
                svg.0,
                "><title>{}</title></path>",
                escape(&tooltip(cells, panel, row, column))
            );
        } else {
            svg.0 += "/>";
        }
    }
    svg.0 += "</g>";
    let Some(written) = &cells.text else { return };
    svg.0 += "<g pointer-events=\"none\">";
    for ((row, column), text) in written.indexed_iter() {
        let value = cells.values[(row, column)];
        if value.is_nan() {
            continue;
        }
        let text = cell_text(text);
        let size = (LETTERS * (w - 4.0) / text::width(&text, 1.0).max(0.1)).clamp(6.0, 11.0);
        let pen = Pen {
            size: size.round(),
            anchor: "middle",
            color: contrast(bar.scale.at(value)),
            angle: 0.0,
        };
        svg.text(&text, panel.px(column as f64), panel.py(row as f64), pen);
    }
    svg.0 += "</g>";
}

/// Width estimates are generous; cell text may use the slack.
const LETTERS: f64 = 1.08;

/// `L2H3: -0.8 logits`, or each axis with its label.
fn tooltip(cells: &Cells, panel: &Panel, row: usize, column: usize) -> String {
    let (y, x) = (&panel.y.labels[row], &panel.x.labels[column]);
    let place = match (cells.heads, cells.edges) {
        (true, _) => format!("{y}{x}"),
        (_, true) => format!("{y} → {x}"),
        _ => {
            let named =
                [&cells.name, &format!("{} {y}", cells.y_name), &format!("{} {x}", cells.x_name)];
            let parts = named.iter().map(|part| part.trim()).filter(|part| !part.is_empty());
            parts.collect::<Vec<_>>().join(", ")
        }
    };
    let mut tip = format!("{place}: {} {}", number(cells.values[(row, column)]), cells.unit);
    for extra in [&cells.sites, &cells.text, &cells.hover, &cells.code].into_iter().flatten() {
        let _ = write!(tip, "\n{}", extra[(row, column)]);
    }
    tip
}

/// All cells as one image, a pixel each.
fn image(svg: &mut Svg, cells: &Cells, panel: &Panel, bar: &ColorBar) {
    let flip_y = panel.y.from < panel.y.to;
    let mut rows: Vec<Vec<f64>> = cells.values.rows().into_iter().map(|row| row.to_vec()).collect();
    if flip_y {
        rows.reverse();
    }
    let frame = panel.frame;
    let _ = write!(
        svg.0,
        "<image x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" preserveAspectRatio=\"none\" \
         style=\"image-rendering:pixelated\" href=\"{}\"/>",
        px(frame.x),
        px(frame.y),
        px(frame.w),
        px(frame.h),
        png::data_url(&rows, &bar.scale)
    );
}

/// Runs of finite points, for a line breaks where there is none.
fn runs(x: &[f64], y: &[f64]) -> Vec<Vec<(f64, f64)>> {
    let mut runs = vec![Vec::new()];
    for (x, y) in x.iter().zip(y) {
        match (y.is_nan(), runs.last_mut()) {
            (false, Some(run)) => run.push((*x, *y)),
            _ => runs.push(Vec::new()),
        }
    }
    runs.retain(|run| !run.is_empty());
    runs
}

fn path(points: impl Iterator<Item = (f64, f64)>, panel: &Panel) -> String {
    let mut d = String::new();
    for (i, (x, y)) in points.enumerate() {
        let _ =
            write!(d, "{}{} {}", if i == 0 { 'M' } else { 'L' }, px(panel.px(x)), px(panel.py(y)));
    }
    d
}

/// The attribute of a dash pattern; 0 is solid.
pub(super) fn dashes(pattern: usize) -> &'static str {
    ["", " stroke-dasharray=\"7 4\"", " stroke-dasharray=\"2 3\""][pattern.min(2)]
}

fn draw_line(svg: &mut Svg, line: &Line, panel: &Panel) {
    let (color, dash) = (hex(line.color), dashes(line.dash));
    if let Some((low, high)) = &line.band {
        for (below, above) in runs(&line.x, low).into_iter().zip(runs(&line.x, high)) {
            let outline = path(below.into_iter().chain(above.into_iter().rev()), panel);
            let _ = write!(svg.0, "<path d=\"{outline}z\" fill=\"{color}\" fill-opacity=\".18\"/>");
        }
    }
    let wide = if line.quiet { 1.2 } else { 2.0 };
    for run in runs(&line.x, &line.y) {
        let d = path(run.iter().copied(), panel);
        let _ = write!(
            svg.0,
            "<path d=\"{d}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"{wide}\" stroke-linejoin=\"round\"{dash}/>"
        );
    }
    if !line.dots {
        return;
    }
    for (x, y) in line.x.iter().zip(&line.y).filter(|(_, y)| !y.is_nan()) {
        let (cx, cy) = (px(panel.px(*x)), px(panel.py(*y)));
        let place = panel.x.labels.get(*x as usize).cloned().unwrap_or_else(|| number(*x));
        let name = if line.name.is_empty() { String::new() } else { format!("{}, ", line.name) };
        let tip = escape(&format!("{name}{place}: {} {}", number(*y), line.unit));
        let _ = write!(
            svg.0,
            "<circle cx=\"{cx}\" cy=\"{cy}\" r=\"2.5\" fill=\"{color}\"><title>{tip}</title></circle>"
        );
    }
}

fn draw_bars(svg: &mut Svg, bars: &Bars, panel: &Panel) {
    let ruler = if bars.across { &panel.x } else { &panel.y };
    let value = |v: f64| if bars.across { panel.px(v) } else { panel.py(v) };
    let place = |p: f64| if bars.across { panel.py(p) } else { panel.px(p) };
    let zero = value(0f64.clamp(ruler.from.min(ruler.to), ruler.to.max(ruler.from)));
    let faint = match bars.alpha < 1.0 {
        true => format!(" fill-opacity=\"{}\"", bars.alpha),
        false => String::new(),
    };
    for (i, (at, v)) in bars.x.iter().zip(&bars.y).enumerate().filter(|(_, (_, v))| !v.is_nan()) {
        let (one, other) = (place(at - 0.5 * bars.width), place(at + 0.5 * bars.width));
        let (side, wide) = (one.min(other), (other - one).abs());
        let (end, long) = (value(*v).min(zero), (value(*v) - zero).abs());
        let (x, y, w, h) =
            if bars.across { (end, side, long, wide) } else { (side, end, wide, long) };
        let group = if bars.name.is_empty() { String::new() } else { format!(", {}", bars.name) };
        let tip = escape(&format!("{}{group}: {} {}", bars.labels[i], number(*v), bars.unit));
        let [x, y, w, h] = [x, y, w, h].map(px);
        let fill = hex(bars.colors[i]);
        let _ = write!(
            svg.0,
            "<path d=\"M{x} {y}h{w}v{h}h-{w}z\" fill=\"{fill}\"{faint}><title>{tip}</title></path>"
        );
        let bounds = bars.bounds.as_ref().filter(|(low, _)| !low[i].is_nan());
        if let (Some((low, high)), false) = (bounds, bars.across) {
            let (middle, low, high) = (0.5 * (one + other), panel.py(low[i]), panel.py(high[i]));
            svg.line((middle, low), (middle, high), INK);
            svg.line((middle - 3.0, low), (middle + 3.0, low), INK);
            svg.line((middle - 3.0, high), (middle + 3.0, high), INK);
        }
    }
}

fn draw_points(svg: &mut Svg, points: &Points, panel: &Panel) {
    let color = hex(points.color);
    if points.x.len() > MANY_POINTS {
        // A line of no length with round ends is a dot.
        let _ = write!(
            svg.0,
            "<path stroke=\"{color}\" stroke-opacity=\".75\" stroke-width=\"5\" stroke-linecap=\"round\" d=\""
        );
        for (x, y) in points.x.iter().zip(&points.y) {
            let _ = write!(svg.0, "M{} {}h0", px(panel.px(*x)), px(panel.py(*y)));
        }
        svg.0 += "\"/>";
        return;
    }
    if let Some(written) = &points.written {
        for ((x, y), label) in points.x.iter().zip(&points.y).zip(written) {
            let pen = Pen { size: 10.0, anchor: "middle", color: INK, angle: 0.0 };
            svg.text(label, panel.px(*x), panel.py(*y) - 10.0, pen);
        }
    }
    let _ = write!(svg.0, "<g fill=\"{color}\" fill-opacity=\".8\">");
    for (i, ((x, y), label)) in points.x.iter().zip(&points.y).zip(&points.labels).enumerate() {
        let (cx, cy) = (px(panel.px(*x)), px(panel.py(*y)));
        let context = points.contexts.as_ref().map(|all| &all[i]);
        let context =
            context.map(|[before, own, after]| match before.is_empty() && own.is_empty() {
                true => format!("\n{after}"),
                false => format!("\n{before}[{own}]{after}"),
            });
        let group =
            if points.name.is_empty() { String::new() } else { format!(" ({})", points.name) };
        let (context, at) = (context.unwrap_or_default(), [number(*x), number(*y)].join(", "));
        let tip = escape(&format!("{label}{group}: {at}{context}"));
        let _ = write!(
            svg.0,
            "<circle cx=\"{cx}\" cy=\"{cy}\" r=\"3.5\"><title>{tip}</title></circle>"
        );
    }
    svg.0 += "</g>";
}
