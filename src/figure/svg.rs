//! A page as SVG: what code hosts, papers and readers without a network see.

use std::fmt::Write as _;

use super::colors::{FAINT, INK, Rgb, SOFT, hex};
use super::layout::{LABEL_SIZE, NAME_SIZE, NOTE_SIZE, TITLE_GAP, TITLE_LINE, TITLE_SIZE};
use super::plotly_json::FONTS;
use super::scene::{ColorBar, Frame, Legend, Mark, Page, Panel, Scene};
use super::svg_marks;
use crate::show::escape;

/// SVG text under construction.
#[derive(Default)]
pub(super) struct Svg(pub(super) String);

/// How a piece of text stands.
#[derive(Clone, Copy)]
pub(super) struct Pen {
    pub(super) size: f64,
    pub(super) anchor: &'static str,
    pub(super) color: Rgb,
    pub(super) angle: f64,
}

/// Text from the left, upright.
pub(super) const PLAIN: Pen = Pen { size: LABEL_SIZE, anchor: "start", color: INK, angle: 0.0 };

/// A pixel position, to a tenth.
pub(super) fn px(value: f64) -> String {
    let tenths = (value * 10.0).round() / 10.0;
    // -0 would be written with its sign.
    format!("{}", if tenths == 0.0 { 0.0 } else { tenths })
}

impl Svg {
    /// Writes text whose middle line is at `y`.
    pub(super) fn text(&mut self, text: &str, x: f64, y: f64, pen: Pen) {
        if text.is_empty() {
            return;
        }
        let turn = if pen.angle == 0.0 {
            String::new()
        } else {
            format!(" transform=\"rotate({} {} {})\"", pen.angle, px(x), px(y))
        };
        // 0.35 em lowers the base line so that y is the middle; renderers differ on dominant-baseline.
        let _ = write!(
            self.0,
            "<text x=\"{}\" y=\"{}\" dy=\".35em\" font-size=\"{}\" text-anchor=\"{}\" fill=\"{}\"{turn}>{}</text>",
            px(x),
            px(y),
            pen.size,
            pen.anchor,
            hex(pen.color),
            escape(text)
        );
    }

    pub(super) fn rect(&mut self, x: f64, y: f64, w: f64, h: f64, fill: Rgb) {
        let (x, y, w, h) = (px(x), px(y), px(w), px(h));
        let _ = write!(
            self.0,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" fill=\"{}\"/>",
            hex(fill)
        );
    }

    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), color: Rgb) {
        let (x1, y1, x2, y2) = (px(from.0), px(from.1), px(to.0), px(to.1));
        let color = hex(color);
        let _ =
            write!(self.0, "<path d=\"M{x1} {y1}L{x2} {y2}\" stroke=\"{color}\" fill=\"none\"/>");
    }
}

/// The page as one SVG element, complete with its namespace.
pub(super) fn draw(page: &Page) -> String {
    let (width, height) = (page.width.ceil(), page.height.ceil());
    let summary = escape(&page.summary());
    let mut svg = Svg::default();
    let _ = write!(
        svg.0,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         role=\"img\" aria-label=\"{summary}\" font-family=\"{FONTS}\" style=\"max-width:100%;height:auto\">\
         <title>{summary}</title>"
    );
    svg.rect(0.0, 0.0, width, height, [255, 255, 255]);
    for (x, y, text) in &page.headings {
        svg.text(text, *x, y + 10.0 + 0.6 * TITLE_SIZE, Pen { size: TITLE_SIZE + 1.0, ..PLAIN });
    }
    let cells = page.scenes.iter().map(|(_, _, scene)| svg_marks::cell_count(scene)).sum();
    for (x, y, scene) in &page.scenes {
        head(&mut svg, scene, *x, *y);
        for panel in &scene.panels {
            draw_panel(&mut svg, panel, scene, cells);
        }
        if let Some(bar) = scene.bar.as_ref().filter(|bar| !bar.hidden) {
            color_bar(&mut svg, bar);
        }
        if let Some(listed) = &scene.legend {
            legend(&mut svg, listed, scene);
        }
    }
    for (x, y, text) in &page.remarks {
        svg.text(text, *x, *y, Pen { size: NOTE_SIZE, color: SOFT, ..PLAIN });
    }
    for (x, y, picture) in &page.pictures {
        let _ =
            write!(svg.0, "<g transform=\"translate({} {})\">{}</g>", px(*x), px(*y), picture.svg);
    }
    svg.0 += "</svg>";
    svg.0
}

fn head(svg: &mut Svg, scene: &Scene, x: f64, y: f64) {
    let mut at = y + 10.0 + 0.6 * TITLE_SIZE;
    for line in &scene.title {
        svg.text(line, x + 12.0, at, Pen { size: TITLE_SIZE, ..PLAIN });
        at += TITLE_SIZE * 1.3;
    }
    at += 0.6 * (NOTE_SIZE - TITLE_SIZE);
    for line in &scene.notes {
        svg.text(line, x + 12.0, at, Pen { size: NOTE_SIZE, color: SOFT, ..PLAIN });
        at += NOTE_SIZE * 1.4;
    }
}

fn draw_panel(svg: &mut Svg, panel: &Panel, scene: &Scene, cells: usize) {
    let frame = panel.frame;
    if panel.background != [255, 255, 255] {
        svg.rect(frame.x, frame.y, frame.w, frame.h, panel.background);
    }
    rules(svg, panel);
    for mark in &panel.marks {
        svg_marks::draw(svg, mark, panel, scene.bar.as_ref(), cells);
    }
    let center = frame.x + 0.5 * frame.w;
    svg.text(
        &panel.title,
        center,
        frame.y - 2.0 - 0.5 * NAME_SIZE,
        Pen { size: NAME_SIZE, anchor: "middle", ..PLAIN },
    );
    labels(svg, panel);
}

/// Lines across the panel at the ticks of numeric axes, zero darker; a frame line at labelled ones.
fn rules(svg: &mut Svg, panel: &Panel) {
    let (left, right) = (panel.frame.x, panel.frame.x + panel.frame.w);
    let (top, bottom) = (panel.frame.y, panel.frame.y + panel.frame.h);
    for zero in [false, true] {
        let color = if zero { SOFT } else { FAINT };
        let wanted = |tick: &&(f64, String)| (tick.0 == 0.0) == zero;
        if panel.x.lines {
            for (at, _) in panel.x.ticks.iter().filter(wanted) {
                svg.line((panel.px(*at), top), (panel.px(*at), bottom), color);
            }
        }
        if panel.y.lines {
            for (at, _) in panel.y.ticks.iter().filter(wanted) {
                svg.line((left, panel.py(*at)), (right, panel.py(*at)), color);
            }
        }
    }
    if panel.x.line {
        svg.line((left, bottom), (right, bottom), SOFT);
    }
}

/// Tick labels and axis titles.
fn labels(svg: &mut Svg, panel: &Panel) {
    let (left, bottom) = (panel.frame.x, panel.frame.y + panel.frame.h);
    let x = &panel.x;
    if x.size > 0.0 {
        for (at, label) in &x.ticks {
            let at = panel.px(*at);
            let (pen, y) = match x.angle as i32 {
                0 => (Pen { anchor: "middle", size: x.size, ..PLAIN }, bottom + 4.0 + 0.6 * x.size),
                -45 => (
                    Pen { anchor: "end", size: x.size, angle: -45.0, ..PLAIN },
                    bottom + 4.0 + 0.4 * x.size,
                ),
                _ => (Pen { anchor: "end", size: x.size, angle: -90.0, ..PLAIN }, bottom + 5.0),
            };
            svg.text(label, at, y, pen);
        }
        let title = Pen { size: NAME_SIZE, anchor: "middle", ..PLAIN };
        svg.text(&x.title, left + 0.5 * panel.frame.w, bottom + x.title_at, title);
    }
    let y = &panel.y;
    if y.size > 0.0 {
        for (at, label) in &y.ticks {
            svg.text(
                label,
                left - 5.0,
                panel.py(*at),
                Pen { anchor: "end", size: y.size, ..PLAIN },
            );
        }
        let title = Pen { size: NAME_SIZE, anchor: "middle", angle: -90.0, ..PLAIN };
        svg.text(&y.title, left - y.title_at, panel.frame.y + 0.5 * panel.frame.h, title);
    }
}

fn color_bar(svg: &mut Svg, bar: &ColorBar) {
    let frame = bar.frame;
    gradient(svg, bar);
    for (value, label) in &bar.ticks {
        let share = (value - bar.scale.low) / (bar.scale.high - bar.scale.low);
        let y = frame.y + frame.h * (1.0 - share);
        svg.line((frame.x + frame.w, y), (frame.x + frame.w + 3.0, y), SOFT);
        svg.text(label, frame.x + frame.w + 6.0, y, PLAIN);
    }
    let top = frame.y - TITLE_GAP - TITLE_LINE * bar.title.len() as f64;
    for (i, line) in bar.title.iter().enumerate() {
        let y = top + TITLE_LINE * (i as f64 + 0.4);
        svg.text(line, frame.x, y, Pen { size: NAME_SIZE, ..PLAIN });
    }
}

/// Colours from left to right in a rectangle `(x, y, w, h)`, named as those of a colour bar are.
pub(super) fn gradient_along(svg: &mut Svg, stops: &[Rgb], (x, y, w, h): (f64, f64, f64, f64)) {
    define(svg, stops, "x1=\"0\" y1=\"0\" x2=\"1\" y2=\"0\"", (x, y, w, h), "h");
}

/// The bar's colours. Pages hold many figures, and the first definition of a name counts, so the
/// gradient is named by its colours: equal names mean equal gradients.
fn gradient(svg: &mut Svg, bar: &ColorBar) {
    let Frame { x, y, w, h } = bar.frame;
    define(svg, &bar.scale.stops, "x1=\"0\" y1=\"1\" x2=\"0\" y2=\"0\"", (x, y, w, h), "");
}

fn define(svg: &mut Svg, stops: &[Rgb], run: &str, frame: (f64, f64, f64, f64), kind: &str) {
    let name = stops.iter().flatten().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    let _ = write!(svg.0, "<linearGradient id=\"thalweg-{kind}{name:x}\" {run}>");
    for (i, color) in stops.iter().enumerate() {
        let at = i as f64 / (stops.len() - 1) as f64;
        let _ = write!(svg.0, "<stop offset=\"{at:.4}\" stop-color=\"{}\"/>", hex(*color));
    }
    let [left, top, w, h] = [frame.0, frame.1, frame.2, frame.3].map(px);
    let _ = write!(
        svg.0,
        "</linearGradient><rect x=\"{left}\" y=\"{top}\" width=\"{w}\" height=\"{h}\" fill=\"url(#thalweg-{kind}{name:x})\"/>"
    );
}

fn legend(svg: &mut Svg, legend: &Legend, scene: &Scene) {
    let points = scene
        .panels
        .iter()
        .flat_map(|panel| &panel.marks)
        .any(|mark| matches!(mark, Mark::Points(_)));
    let filled = scene
        .panels
        .iter()
        .flat_map(|panel| &panel.marks)
        .any(|mark| matches!(mark, Mark::Bars(_)));
    let mut y = legend.y + 9.0;
    for (name, color, dash) in &legend.entries {
        match (points, filled) {
            (true, _) => {
                let (cx, cy) = (px(legend.x + 9.0), px(y));
                let _ = write!(
                    svg.0,
                    "<circle cx=\"{cx}\" cy=\"{cy}\" r=\"4\" fill=\"{}\"/>",
                    hex(*color)
                );
            }
            (_, true) => svg.rect(legend.x + 3.0, y - 5.0, 12.0, 10.0, *color),
            _ => {
                let (x, y, color, dash) =
                    (px(legend.x), px(y), hex(*color), svg_marks::dashes(*dash));
                let _ = write!(
                    svg.0,
                    "<path d=\"M{x} {y}h20\" stroke=\"{color}\" stroke-width=\"2\"{dash}/>"
                );
            }
        }
        svg.text(name, legend.x + 24.0, y, PLAIN);
        y += 18.0;
    }
    if legend.left_out > 0 {
        svg.text(
            &format!("and {} more", legend.left_out),
            legend.x + 24.0,
            y,
            Pen { color: SOFT, ..PLAIN },
        );
    }
}
