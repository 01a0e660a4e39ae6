//! Where things stand: ticks, margins, sizes. No font is at hand, so text widths are estimates.

use super::scene::{Frame, Ruler};
use super::text;
use crate::grid::number;

pub(super) const TITLE_SIZE: f64 = 15.0;
pub(super) const NOTE_SIZE: f64 = 11.0;
pub(super) const LABEL_SIZE: f64 = 11.0;
pub(super) const NAME_SIZE: f64 = 12.0;
/// Height of a line of a colour bar's title.
pub(super) const TITLE_LINE: f64 = 16.0;
/// Room between that title and the bar.
pub(super) const TITLE_GAP: f64 = 5.0;
/// Most labels an axis draws: plotly draws every tick it is given, and more cannot be read.
const MAX_LABELS: usize = 40;

/// Every how many labels one is drawn, so that at most 40 are and each has `spacing` pixels.
pub(super) fn stride(count: usize, length: f64, spacing: f64) -> usize {
    let room = ((length / spacing).floor() as usize).clamp(1, MAX_LABELS);
    let least = count.div_ceil(room).max(1);
    let round =
        [1, 2, 4, 5, 8, 10, 16, 20, 25, 32, 40, 50, 64, 80, 100, 128, 200, 250, 256, 500, 512];
    round.into_iter().find(|step| *step >= least).unwrap_or(least)
}

/// Indices of the labels drawn: every `step`-th, and always the last (the last layer matters most).
pub(super) fn thinned(count: usize, step: usize) -> Vec<usize> {
    let mut shown: Vec<usize> = (0..count).step_by(step).collect();
    match shown.last() {
        Some(&last) if last + 1 < count => {
            if 2 * (count - 1 - last) <= step && shown.len() > 1 {
                shown.pop();
            }
            shown.push(count - 1);
        }
        _ => {}
    }
    shown
}

/// A ruler for labelled indices, `length` pixels long. Along x, labels that do not fit side by side
/// are turned.
pub(super) fn labelled(
    title: &str,
    labels: Vec<String>,
    length: f64,
    along_x: bool,
    size: f64,
) -> Ruler {
    let count = labels.len();
    let widest = labels.iter().map(|label| text::width(label, size)).fold(0.0, f64::max);
    let step = stride(count, length, size * 1.15);
    let spacing = length / count.max(1) as f64 * step as f64;
    let flat_step = stride(count, length, widest + 8.0);
    let plain = labels.iter().all(|label| label.chars().count() <= 3);
    // Short labels (layers, heads) are better thinned than turned.
    let (step, angle) = match along_x {
        true if flat_step <= step || (plain && flat_step <= 4 * step) => (flat_step, 0.0),
        true if spacing >= size * 1.6 => (step, -45.0),
        true => (step, -90.0),
        false => (step, 0.0),
    };
    let ticks = thinned(count, step).into_iter().map(|i| (i as f64, labels[i].clone())).collect();
    let depth = match (along_x, angle as i32) {
        (true, 0) => size + 6.0,
        (true, -45) => widest * 0.72 + size * 0.7 + 6.0,
        _ => widest + 8.0,
    };
    let title_at = depth + if along_x { 12.0 } else { 10.0 };
    let (from, to) = (-0.5, count as f64 - 0.5);
    Ruler {
        title: title.to_string(),
        from,
        to,
        ticks,
        labels,
        angle,
        size,
        title_at,
        lines: false,
        line: false,
    }
}

/// A ruler for numbers, with round ticks.
pub(super) fn numeric(title: &str, from: f64, to: f64, length: f64, along_x: bool) -> Ruler {
    let ticks = round_ticks(
        from,
        to,
        (length / if along_x { 80.0 } else { 42.0 }).clamp(2.0, 8.0) as usize,
    );
    let widest = ticks.iter().map(|(_, label)| text::width(label, LABEL_SIZE)).fold(0.0, f64::max);
    let title_at = if along_x { LABEL_SIZE + 18.0 } else { widest + 20.0 };
    Ruler {
        title: title.to_string(),
        from,
        to,
        ticks,
        size: LABEL_SIZE,
        title_at,
        lines: true,
        ..Ruler::default()
    }
}

/// About `count` round numbers in a range.
pub(super) fn round_ticks(from: f64, to: f64, count: usize) -> Vec<(f64, String)> {
    let span = to - from;
    if !(span > 0.0 && span.is_finite()) {
        return vec![(from, number(from))];
    }
    let rough = span / count.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step =
        [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= rough);
    let step = step.unwrap_or(10.0 * power);
    let first = (from / step - 1e-9).ceil();
    (0..=(span / step) as usize + 1)
        .map(|i| (first + i as f64) * step)
        .take_while(|value| *value <= to + step * 1e-9)
        .map(|value| if value.abs() < step * 1e-6 { 0.0 } else { value })
        .map(|value| (value, number(value)))
        .collect()
}

/// A range for values on a numeric axis: five percent more at each end, and from zero where zero
/// is near.
pub(super) fn padded(least: f64, most: f64, with_zero: bool) -> (f64, f64) {
    let (mut low, mut high) = (least, most);
    if low == 0.0 && high == 0.0 {
        return (0.0, 1.0);
    }
    if with_zero || (low > 0.0 && low < 0.4 * high) {
        low = low.min(0.0);
    }
    if with_zero || (high < 0.0 && high > 0.4 * low) {
        high = high.max(0.0);
    }
    let span = if high > low { high - low } else { high.abs().max(1e-12) };
    let low_end = if low == 0.0 { 0.0 } else { low - 0.05 * span };
    let high_end = if high == 0.0 && low < 0.0 { 0.0 } else { high + 0.05 * span };
    (low_end, high_end)
}

/// Height that the title and notes need at the top.
pub(super) fn head_height(title: &[String], notes: &[String]) -> f64 {
    let lines = title.len() as f64 * (TITLE_SIZE * 1.3) + notes.len() as f64 * (NOTE_SIZE * 1.4);
    if lines > 0.0 { lines + 14.0 } else { 10.0 }
}

/// Equal frames in rows and columns.
pub(super) fn tiles(
    count: usize,
    columns: usize,
    origin: (f64, f64),
    size: (f64, f64),
    gap: (f64, f64),
) -> Vec<Frame> {
    let place = |i: usize| Frame {
        x: origin.0 + (i % columns) as f64 * (size.0 + gap.0),
        y: origin.1 + (i / columns) as f64 * (size.1 + gap.1),
        w: size.0,
        h: size.1,
    };
    (0..count).map(place).collect()
}
