//! Lines of coloured tokens as SVG, broken to the width of a notebook's column.

use std::fmt::Write as _;

use super::colors::{INK, SOFT, hex};
use super::layout::{LABEL_SIZE, NOTE_SIZE, TITLE_SIZE};
use super::sheet::{MONO, Row, SIZE, Sheet, Token};
use super::svg::{PLAIN, Pen, Svg, gradient_along, px};
use super::text;
use crate::grid::number;
use crate::show::escape;

/// Width of the sheet in pixels.
pub(super) const WIDTH: f64 = 860.0;
/// From one line of text to the next.
const LINE: f64 = 24.0;
/// Height of a token's background.
const GROUND: f64 = 19.0;
const EDGE: f64 = 12.0;

/// The elements, and the height they take.
pub(super) fn draw(sheet: &Sheet) -> (String, f64) {
    let mut svg = Svg::default();
    let mut y = 10.0;
    let most = WIDTH - 2.0 * EDGE;
    for line in text::wrap(&sheet.title, TITLE_SIZE, most) {
        svg.text(&line, EDGE, y + 0.6 * TITLE_SIZE, Pen { size: TITLE_SIZE, ..PLAIN });
        y += TITLE_SIZE * 1.3;
    }
    for line in &sheet.notes {
        svg.text(line, EDGE, y + 0.6 * NOTE_SIZE, Pen { size: NOTE_SIZE, color: SOFT, ..PLAIN });
        y += NOTE_SIZE * 1.4;
    }
    if let Some((scale, unit)) = &sheet.legend {
        y = legend(&mut svg, scale, unit, y);
    }
    let columns = widths(sheet);
    let mut at = EDGE;
    if !sheet.columns.is_empty() {
        let pen = Pen { size: NOTE_SIZE, color: SOFT, ..PLAIN };
        for (title, width) in sheet.columns.iter().zip(&columns) {
            svg.text(title, at, y + 0.6 * NOTE_SIZE, pen);
            at += width;
        }
        svg.text("text", at, y + 0.6 * NOTE_SIZE, pen);
        y += NOTE_SIZE * 1.8;
    }
    for row in &sheet.rows {
        y = draw_row(&mut svg, row, &columns, y);
    }
    (svg.0, y + 8.0)
}

/// Width of each column before the text.
fn widths(sheet: &Sheet) -> Vec<f64> {
    let column = |i: usize| {
        let cells = sheet.rows.iter().filter_map(|row| row.cells.get(i));
        let widest = cells.map(|cell| text::width(cell, 12.0)).fold(0.0, f64::max);
        widest.max(text::width(&sheet.columns[i], NOTE_SIZE)) + 14.0
    };
    (0..sheet.columns.len()).map(column).collect()
}

fn legend(svg: &mut Svg, scale: &super::colors::Scale, unit: &str, y: f64) -> f64 {
    let middle = y + 10.0;
    let [low, high] = [scale.low, scale.high].map(number);
    let left = EDGE + text::width(&low, LABEL_SIZE) + 6.0;
    svg.text(&low, EDGE, middle, PLAIN);
    gradient_along(svg, &scale.stops, (left, middle - 5.0, 120.0, 10.0));
    svg.text(&format!("{high} {unit}"), left + 126.0, middle, PLAIN);
    y + 26.0
}

fn draw_row(svg: &mut Svg, row: &Row, columns: &[f64], top: f64) -> f64 {
    let mut left = EDGE;
    for (cell, width) in row.cells.iter().zip(columns) {
        svg.text(cell, left, top + 0.5 * LINE, Pen { size: 12.0, ..PLAIN });
        left += width;
    }
    let (mut x, mut y) = (left, top);
    let _ = write!(svg.0, "<g font-family=\"{MONO}\" font-size=\"{SIZE}\">");
    for token in &row.tokens {
        let width = mono_width(&token.shown);
        if x > left && x + width > WIDTH - EDGE {
            (x, y) = (left, y + LINE);
        }
        draw_token(svg, token, x, y, width);
        x += width + mono_width(row.gap());
        if token.breaks {
            (x, y) = (left, y + LINE);
        }
    }
    svg.0 += "</g>";
    y + LINE + if columns.is_empty() { 0.0 } else { 4.0 }
}

fn draw_token(svg: &mut Svg, token: &Token, x: f64, y: f64, width: f64) {
    let (ground, ink) = token.colors();
    svg.0 += "<g>";
    if !token.tip.is_empty() {
        let _ = write!(svg.0, "<title>{}</title>", escape(&token.tip));
    }
    let (top, wide) = (y + 0.5 * (LINE - GROUND), (width - 1.0).max(1.0));
    svg.rect(x, top, wide, GROUND, ground);
    let strong =
        if token.strong { " font-weight=\"bold\" text-decoration=\"underline\"" } else { "" };
    // Outer spaces would be dropped; a space that does not break stays.
    let _ = write!(
        svg.0,
        "<text x=\"{}\" y=\"{}\" dy=\".35em\" fill=\"{}\"{strong}>{}</text></g>",
        px(x),
        px(y + 0.5 * LINE),
        hex(if token.color.is_some() { ink } else { INK }),
        escape(&token.shown).replace(' ', "\u{a0}")
    );
}

/// Pixels of a text in a font of equal widths; East Asian characters take two places.
fn mono_width(text: &str) -> f64 {
    let places = text.chars().map(|c| {
        if (c as u32) >= 0x1100 && !('\u{2000}'..='\u{2fff}').contains(&c) { 2.0 } else { 1.0 }
    });
    places.sum::<f64>() * 0.602 * SIZE
}
