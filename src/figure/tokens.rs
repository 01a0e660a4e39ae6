//! A text whose tokens carry a value each.

use anyhow::{Context, Result, ensure};
use ndarray::IxDyn;

use super::drawing::What;
use super::sheet::{Row, Sheet, Token};
use super::style::Style;
use super::{Figure, finite, panels, text};
use crate::grid::{Grid, GridAxis, number};
use crate::hook::site::Axis;

/// Most tokens drawn as text.
const MAX_TOKENS: usize = 20_000;

/// Text whose tokens are coloured by a value: a grid with an axis of positions (`Pos`, `Query` or
/// `Key`) whose labels are the tokens. Any other axis gives one line of text an index: prompts, or
/// several values of the same text, one under the other.
///
/// Colours are those of a [`heatmap`](super::heatmap()): zero is white. A cell that does not exist is not
/// coloured. Plain HTML that needs no script; pointing at a token says where it stands and its value.
///
/// ```
/// use thalweg::{Axis, Grid, ndarray::array, tokens};
/// let effect = Grid::from_array(array![0.1, -0.8, 0.3], &[Axis::Pos], "logits")?;
/// let figure = tokens(&effect.relabel(Axis::Pos, &["<s>", "Mary", " gave"])?)?;
/// assert!(figure.bundle()?.html.contains("&lt;s&gt;"));
/// # anyhow::Ok(())
/// ```
pub fn tokens(grid: &Grid) -> Result<Figure> {
    grid.check()?;
    let along =
        [Axis::Pos, Axis::Query, Axis::Key].into_iter().find(|axis| grid.place(*axis).is_ok());
    let along = along.with_context(|| {
        format!("coloured text needs an axis Pos, Query or Key, found {}", grid.axes_text())
    })?;
    let grid = grid.move_axis(along, grid.axes.len() - 1)?;
    finite(&grid)?;
    ensure!(grid.existing().next().is_some(), "nothing to draw: every cell of {grid:?} is missing");
    ensure!(
        grid.values.len() <= MAX_TOKENS,
        "text of {} tokens cannot be read: {MAX_TOKENS} at most; select fewer",
        grid.values.len()
    );
    Ok(Figure::drawing(What::Tokens(grid)))
}

/// A token as text shows it: its spaces stay, a newline is marked and ends the line.
pub(super) fn plain(token: &str) -> (String, bool) {
    let blank = !token.is_empty() && token.chars().all(|c| c == ' ');
    if blank || token.is_empty() {
        return (text::visible(token), false);
    }
    let shown = text::visible(token).replace('␣', " ");
    (shown, token.ends_with('\n'))
}

pub(super) fn sheet(grid: &Grid, style: &Style) -> Sheet {
    let scale = panels::range(grid, style, false);
    let (outer, inner) = grid.axes.split_at(grid.axes.len() - 1);
    let count: usize = outer.iter().map(GridAxis::len).product();
    let spoken: Vec<Vec<String>> = outer.iter().map(text::spoken).collect();
    let row = |i: usize| {
        let at = panels::outer_index(outer, i);
        let named: Vec<&str> =
            spoken.iter().zip(&at).map(|(names, i)| names[*i].as_str()).collect();
        let token = |(p, label): (usize, &String)| {
            let index = [&at[..], &[p]].concat();
            let value = grid.exists(&index).then(|| grid.values[IxDyn(&index)]);
            let (shown, breaks) = plain(label);
            let told =
                value.map_or("no value".to_string(), |v| format!("{} {}", number(v), grid.unit));
            let place = panels::cell_name(grid, style, &index)
                .unwrap_or_else(|| format!("position {p} “{}”", text::visible(label)));
            let code =
                panels::cell_code(grid, &index).map_or(String::new(), |code| format!("\n{code}"));
            Token {
                shown,
                breaks,
                color: value.map(|v| scale.at(v)),
                tip: format!("{place}: {told}{code}"),
                ..Token::default()
            }
        };
        let cells = if outer.is_empty() { Vec::new() } else { vec![named.join(", ")] };
        Row { cells, tokens: inner[0].labels.iter().enumerate().map(token).collect() }
    };
    let named = match &style.title {
        Some(title) => grid.clone().name(title),
        None => grid.clone(),
    };
    let summary = named.summary();
    Sheet {
        title: text::visible_words(&named.name),
        notes: style.notes(grid),
        legend: Some((scale.clone(), text::visible_words(&super::lines::value_title(grid)))),
        columns: if outer.is_empty() { Vec::new() } else { vec![String::new()] },
        rows: (0..count).map(row).collect(),
        summary: format!("tokens: {}", summary.strip_prefix("Grid ").unwrap_or(&summary)),
        ..Sheet::default()
    }
}
