//! How well a model foresaw each token of a text.

use anyhow::{Result, ensure};

use super::colors::Scale;
use super::drawing::What;
use super::sheet::{Card, Row, Sheet, Token};
use super::style::Style;
use super::{Figure, text, tokens};

/// Log-probability at which colours are full: a token this unlikely was a surprise.
const SURPRISE: f64 = -8.0;
/// Most tokens listed for a position.
const MAX_LISTED: usize = 20;

/// A token of a text, and what a model expected in its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// The token that stands there.
    pub token: String,
    /// Its log-probability in nats, from the tokens before; NaN where nothing predicts it, as for the
    /// first.
    pub log_prob: f64,
    /// Its place among all tokens, 0 the likeliest.
    pub rank: usize,
    /// The likeliest tokens with their log-probabilities, best first.
    pub top: Vec<(String, f64)>,
}

/// A text whose tokens are the redder the less a model expected them. Pointing at one shows its
/// probability and rank and what was expected, by style sheet alone: no script.
///
/// ```
/// use thalweg::{Prediction, predictions};
/// let first = Prediction { token: "<s>".into(), log_prob: f64::NAN, rank: 0, top: vec![] };
/// let top = vec![("Mary".to_string(), -0.5), ("John".to_string(), -1.0)];
/// let second = Prediction { token: "John".into(), log_prob: -1.0, rank: 1, top };
/// assert!(predictions(&[first, second])?.bundle()?.html.contains("60.7 %"));
/// # thalweg::anyhow::Ok(())
/// ```
pub fn predictions(all: &[Prediction]) -> Result<Figure> {
    ensure!(!all.is_empty(), "nothing to draw: no prediction was given");
    for (i, one) in all.iter().enumerate() {
        let listed = one.top.iter().map(|(_, log_prob)| log_prob);
        for log_prob in listed.chain((!one.log_prob.is_nan()).then_some(&one.log_prob)) {
            ensure!(
                *log_prob <= 1e-6,
                "a log-probability is at most 0, found {log_prob} at position {i} {:?}",
                one.token
            );
        }
    }
    Ok(Figure::drawing(What::Predictions(all.to_vec())))
}

pub(super) fn percent(log_prob: f64) -> String {
    let share = 100.0 * log_prob.exp();
    if share >= 0.1 { format!("{share:.1} %") } else { format!("{share:.0e} %") }
}

pub(super) fn sheet(all: &[Prediction], style: &Style) -> Sheet {
    let (low, high) = style.range.unwrap_or((SURPRISE, 0.0));
    let scale = Scale::within(low, high);
    let token = |(i, one): (usize, &Prediction)| {
        let (shown, breaks) = tokens::plain(&one.token);
        let name = text::visible(&one.token);
        let heading = if one.log_prob.is_nan() {
            format!("position {i} “{name}”: nothing before it")
        } else {
            format!(
                "position {i} “{name}”: probability {}, log-probability {:.2}, rank {}",
                percent(one.log_prob),
                one.log_prob,
                one.rank
            )
        };
        let listed = one.top.iter().take(MAX_LISTED);
        let lines = listed.map(|(token, p)| (text::visible(token), percent(*p))).collect();
        Token {
            shown,
            breaks,
            color: (!one.log_prob.is_nan()).then(|| scale.at(one.log_prob)),
            tip: heading.clone(),
            card: Some(Card {
                heading,
                lines,
                marked: one.top.iter().position(|(t, _)| *t == one.token),
            }),
            ..Token::default()
        }
    };
    let known: Vec<f64> = all.iter().map(|one| one.log_prob).filter(|p| !p.is_nan()).collect();
    let mean = known.iter().sum::<f64>() / known.len().max(1) as f64;
    let title = style.title.clone().unwrap_or_else(|| "Next-token predictions".to_string());
    let title = text::visible_words(&title);
    let right = all.iter().filter(|one| !one.log_prob.is_nan() && one.rank == 0).count();
    let told =
        format!("mean loss {:.3} nats, {right} of {} tokens the likeliest", -mean, known.len());
    Sheet {
        summary: format!("predictions: {title} [Pos {}]: {told}", all.len()),
        title,
        notes: vec![told],
        legend: Some((
            scale.clone(),
            "log-probability of the token that stands there (nats)".to_string(),
        )),
        rows: vec![Row { cells: Vec::new(), tokens: all.iter().enumerate().map(token).collect() }],
        prompt: "point at a token to see what was expected in its place".to_string(),
        ..Sheet::default()
    }
}
