//! The texts on which something was most active: a neuron, a feature, a head.

use anyhow::{Result, ensure};

use super::colors::Scale;
use super::drawing::What;
use super::sheet::{Row, Sheet, Token};
use super::style::Style;
use super::{Figure, text, tokens};
use crate::grid::number;

/// Most examples drawn.
const MAX_EXAMPLES: usize = 200;

/// A piece of text with the activation at each of its tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Where the text comes from: "prompt 12", a file, a document. May be empty.
    pub source: String,
    /// The tokens.
    pub tokens: Vec<String>,
    /// The activation at each token; NaN where there is none.
    pub values: Vec<f64>,
}

/// Texts in a table, each token coloured by its activation, all in one scale; the most active token of
/// each is bold. Best first is the caller's order. [`Figure::title`] says what was active,
/// [`Figure::unit`] in what unit.
///
/// ```
/// use thalweg::{Example, examples};
/// let tokens = ["the", " cat", " sat"].map(String::from).to_vec();
/// let one = Example { source: "prompt 3".into(), tokens, values: vec![0.0, 2.5, 0.1] };
/// assert!(examples(&[one])?.title("Neuron 3.17").bundle()?.text.contains("max 2.5"));
/// # thalweg::anyhow::Ok(())
/// ```
pub fn examples(all: &[Example]) -> Result<Figure> {
    ensure!(!all.is_empty(), "nothing to draw: no example was given");
    let found = all.len();
    ensure!(found <= MAX_EXAMPLES, "{found} examples cannot be read: {MAX_EXAMPLES} at most");
    for (i, one) in all.iter().enumerate() {
        ensure!(
            one.tokens.len() == one.values.len(),
            "example {i} has {} tokens and {} values",
            one.tokens.len(),
            one.values.len()
        );
        ensure!(one.values.iter().any(|v| v.is_finite()), "example {i} has no finite value");
        let infinite = one.values.iter().position(|v| v.is_infinite());
        ensure!(
            infinite.is_none(),
            "example {i} has an infinite value at {}",
            infinite.unwrap_or(0)
        );
    }
    Ok(Figure::drawing(What::Examples(all.to_vec())))
}

/// Place of the value furthest from zero.
fn peak(values: &[f64]) -> usize {
    let far = |i: &usize| if values[*i].is_nan() { -1.0 } else { values[*i].abs() };
    (0..values.len()).max_by(|a, b| far(a).total_cmp(&far(b)).then(b.cmp(a))).unwrap_or(0)
}

pub(super) fn sheet(all: &[Example], style: &Style) -> Sheet {
    let values = all.iter().flat_map(|one| &one.values).copied().filter(|v| !v.is_nan());
    let (least, most) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    let scale = match style.range {
        Some((low, high)) => Scale::within(low, high),
        None => Scale::choose(least.min(0.0), most.max(0.0), false),
    };
    let unit = style.unit.as_deref().unwrap_or("activation");
    let row = |(i, one): (usize, &Example)| {
        let top = peak(&one.values);
        let token = |(p, (label, value)): (usize, (&String, &f64))| {
            let (shown, breaks) = tokens::plain(label);
            let told = if value.is_nan() {
                "no value".into()
            } else {
                format!("{} {unit}", number(*value))
            };
            Token {
                shown,
                breaks,
                color: (!value.is_nan()).then(|| scale.at(*value)),
                tip: format!("{} “{}” at {p}: {told}", one.source, text::visible(label))
                    .trim()
                    .into(),
                strong: p == top,
                card: None,
            }
        };
        let each = one.tokens.iter().zip(&one.values).enumerate();
        let cells =
            vec![format!("{}", i + 1), number(one.values[top]), text::visible_words(&one.source)];
        Row { cells, tokens: each.map(token).collect() }
    };
    let title = text::visible_words(style.title.as_deref().unwrap_or("Most activating examples"));
    Sheet {
        summary: format!(
            "examples: {title} [{} texts] in {unit}: min {}, max {}",
            all.len(),
            number(least),
            number(most)
        ),
        title,
        legend: Some((scale.clone(), text::visible_words(unit))),
        columns: ["", "peak", "source"].map(String::from).to_vec(),
        rows: all.iter().enumerate().map(row).collect(),
        ..Sheet::default()
    }
}
