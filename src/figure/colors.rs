//! Colours. Scales are explicit lists, never names: plotly.js has another "RdBu" than everyone
//! else (blue at the low end, grey at zero).

/// A colour, as red, green and blue.
pub(super) type Rgb = [u8; 3];

/// ColorBrewer's RdBu with a white middle: negative is red, zero white, positive blue.
const DIVERGING: [Rgb; 11] = [
    [103, 0, 31],
    [178, 24, 43],
    [214, 96, 77],
    [244, 165, 130],
    [253, 219, 199],
    [255, 255, 255],
    [209, 229, 240],
    [146, 197, 222],
    [67, 147, 195],
    [33, 102, 172],
    [5, 48, 97],
];

/// Lines, bars and points: Okabe and Ito's colours, which colour-blind readers can tell apart, the
/// yellow darkened so that a thin line shows on white.
const CATEGORIES: [Rgb; 8] = [
    [0, 114, 178],
    [213, 94, 0],
    [0, 158, 115],
    [204, 121, 167],
    [86, 180, 233],
    [178, 134, 0],
    [90, 90, 90],
    [140, 81, 10],
];

/// Things in an order, such as layers: ColorBrewer-like blue-green-violet, all dark enough on white.
const ORDERED: [Rgb; 5] =
    [[253, 174, 97], [214, 120, 90], [158, 82, 132], [84, 66, 152], [28, 30, 92]];

/// Colour of positive and of negative bars.
pub(super) const POSITIVE: Rgb = [33, 102, 172];
/// See [`POSITIVE`].
pub(super) const NEGATIVE: Rgb = [178, 24, 43];
/// Behind cells that do not exist.
pub(super) const ABSENT: Rgb = [233, 233, 233];
/// Text, axes, grid lines.
pub(super) const INK: Rgb = [42, 42, 50];
/// Tick marks and secondary text.
pub(super) const SOFT: Rgb = [96, 96, 106];
/// Grid lines.
pub(super) const FAINT: Rgb = [228, 228, 232];

/// Colours from a low to a high value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scale {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) stops: Vec<Rgb>,
}

impl Scale {
    /// The scale for values between `least` and `most`: red-white-blue, symmetric about zero, if
    /// they change sign (or stand for `signed` quantities); else light to dark.
    pub(super) fn choose(least: f64, most: f64, signed: bool) -> Scale {
        if signed || (least < 0.0 && most > 0.0) {
            let far = least.abs().max(most.abs());
            let far = if far > 0.0 { far } else { 1.0 };
            return Scale { low: -far, high: far, stops: DIVERGING.to_vec() };
        }
        let (low, high) = if least >= 0.0 {
            (if least < 0.5 * most { 0.0 } else { least }, most)
        } else {
            (least, if most > 0.5 * least { 0.0 } else { most })
        };
        Scale::within(low, high)
    }

    /// Light at the low end, dark blue at the high one, whatever the sign.
    pub(super) fn rising(low: f64, high: f64) -> Scale {
        let high = if high > low { high } else { low + 1.0 };
        Scale { low, high, stops: DIVERGING[DIVERGING.len() / 2..].to_vec() }
    }

    /// The scale for a range set by hand.
    pub(super) fn within(low: f64, high: f64) -> Scale {
        // A single value has no range: the scale is widened by one to have two ends.
        let high = if high > low { high } else { low + if low == 0.0 { 1.0 } else { low.abs() } };
        let middle = DIVERGING.len() / 2;
        if low < 0.0 && high > 0.0 {
            return Scale { low, high, stops: around_zero(low, high) };
        }
        let stops = if high > 0.0 { &DIVERGING[middle..] } else { &DIVERGING[..=middle] };
        Scale { low, high, stops: stops.to_vec() }
    }

    /// The colour of a value; beyond the ends it is that of the end.
    pub(super) fn at(&self, value: f64) -> Rgb {
        sample(&self.stops, (value - self.low) / (self.high - self.low))
    }
}

/// Evenly spaced stops whose zero is white though the two sides differ in length. The steeper side
/// keeps the full colour; both share one change of colour per unit.
fn around_zero(low: f64, high: f64) -> Vec<Rgb> {
    let far = high.max(-low);
    let count = 64;
    let mut stops: Vec<Rgb> = (0..=count)
        .map(|i| {
            let value = low + (high - low) * f64::from(i) / f64::from(count);
            sample(&DIVERGING, 0.5 + 0.5 * value / far)
        })
        .collect();
    let zero = (-low / (high - low) * f64::from(count)).round() as usize;
    stops[zero.min(count as usize)] = [255, 255, 255];
    stops
}

/// Linear interpolation in a list of colours, `t` from 0 to 1.
pub(super) fn sample(stops: &[Rgb], t: f64) -> Rgb {
    let place = t.clamp(0.0, 1.0) * (stops.len() - 1) as f64;
    let left = (place.floor() as usize).min(stops.len() - 1);
    let right = (left + 1).min(stops.len() - 1);
    let share = place - left as f64;
    let mix = |i: usize| {
        let (a, b) = (f64::from(stops[left][i]), f64::from(stops[right][i]));
        (a + (b - a) * share).round() as u8
    };
    [mix(0), mix(1), mix(2)]
}

/// Colour and dash pattern of thing `i` of `count`: graded colours for ordered things, distinct
/// ones for others, with another pattern each time the colours begin again.
pub(super) fn of_many(i: usize, count: usize, ordered: bool) -> (Rgb, usize) {
    if ordered && count > 2 {
        return (sample(&ORDERED, i as f64 / (count - 1) as f64), 0);
    }
    (CATEGORIES[i % CATEGORIES.len()], i / CATEGORIES.len() % 3)
}

/// Black or white, whichever reads better on a colour.
pub(super) fn contrast(on: Rgb) -> Rgb {
    let light = 0.299 * f64::from(on[0]) + 0.587 * f64::from(on[1]) + 0.114 * f64::from(on[2]);
    if light > 140.0 { INK } else { [255, 255, 255] }
}

/// `rgb(1,2,3)`, as plotly's colour scales want it.
pub(super) fn rgb([r, g, b]: Rgb) -> String {
    format!("rgb({r},{g},{b})")
}

/// `rgba(1,2,3,0.2)`.
pub(super) fn faded([r, g, b]: Rgb, alpha: f64) -> String {
    format!("rgba({r},{g},{b},{alpha})")
}

/// `#010203`, which is shortest in SVG.
pub(super) fn hex([r, g, b]: Rgb) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}
