//! Attention of many heads at once: thumbnails, and the one pointed at in full.

use anyhow::{Result, ensure};
use ndarray::IxDyn;
use serde_json::json;

use super::colors::{ABSENT, INK, hex};
use super::drawing::{Drawing, What};
use super::layout::{NOTE_SIZE, TITLE_SIZE};
use super::plotly_json::FONTS;
use super::scene::{Page, Picture};
use super::sheet::legend;
use super::style::Style;
use super::{Chart, Content, Figure, Kind, attention, panels, png, svg, text};
use crate::base64::base64;
use crate::grid::{Grid, GridAxis};
use crate::hook::site::Axis;
use crate::show::escape;

/// Shows the patterns where scripts run.
const SCRIPT: &str = include_str!("viewer.js");

/// Attention patterns to look into: a small picture of each head; the one pointed at large below it,
/// and below that the text, each token coloured by what the token pointed at attends to. A click holds
/// a head or a token. Takes the grids that [`attention`](super::attention()) takes, and shows that figure
/// where no script runs. Values are stored in a byte each, to 1/254 of their range.
///
/// ```
/// use thalweg::{Axis, Grid, attention_viewer, ndarray::array};
/// let pattern = Grid::from_array(array![[[1.0, 0.0], [0.3, 0.7]]], &[Axis::Head, Axis::Query, Axis::Key], "probability")?;
/// let bundle = attention_viewer(&pattern)?.bundle()?;
/// assert!(bundle.html.contains("\"values\":\"/02z\"") && bundle.svg.contains("0.7 probability"));
/// # anyhow::Ok(())
/// ```
pub fn attention_viewer(grid: &Grid) -> Result<Figure> {
    let figure = attention(grid)?;
    let grid = figure.single().map_or(grid, |(_, grid)| grid);
    Ok(Figure::drawing(What::Attention(grid.clone())))
}

impl Figure {
    /// Marks which heads of an attention viewer share keys and values: the model's number of key/value
    /// heads, of which the number of heads is a multiple. All heads of a layer must be shown, labelled
    /// `H3` or `3`.
    pub fn kv_heads(self, kv_heads: usize) -> Result<Figure> {
        let Content::Drawing(drawing) = &self.content else {
            anyhow::bail!("key/value heads are marked in an attention viewer; this is {self:?}")
        };
        let What::Attention(grid) = &drawing.what else {
            anyhow::bail!("key/value heads are marked in an attention viewer; this is {self:?}")
        };
        let labels = grid.labels(Axis::Head)?;
        let heads = labels.len();
        ensure!(
            kv_heads > 0 && heads % kv_heads == 0,
            "{heads} heads cannot share {kv_heads} key/value heads evenly"
        );
        if let Some(label) = labels.iter().find(|label| number(label).is_none_or(|n| n >= heads)) {
            anyhow::bail!(
                "key/value heads: head {:?}, expected all heads of a layer, H0..H{}",
                text::visible(label),
                heads - 1
            );
        }
        Ok(self.styled(|style| style.kv_heads = Some(kv_heads)))
    }
}

/// The figure that stands where no script runs.
fn still(grid: &Grid, style: &Style) -> Page {
    Page::of(Chart { kind: Kind::Attention, grid: grid.clone(), style: style.clone() }.scene())
}

pub(super) fn summary(grid: &Grid, style: &Style) -> String {
    let page = still(grid, style);
    page.summary().replacen("attention", "attention viewer", 1)
}

pub(super) fn picture(drawing: &Drawing, grid: &Grid) -> Picture {
    let style = &drawing.style;
    let page = still(grid, style);
    let drawn = svg::draw(&page);
    let summary = summary(grid, style);
    let title = text::visible_words(style.title.as_deref().unwrap_or(&grid.name));
    // Inside a script element only `<` could end it or open a comment.
    let data = payload(grid, style).replace('<', "\\u003c");
    let notes: String = style.notes(grid).iter().map(|note| escape(note) + "<br>").collect();
    let html = format!(
        "<div class=\"thalweg-attention\" role=\"figure\" aria-label=\"{}\" style=\"background:#fff;color:{};padding:10px 12px;\
         max-width:{}px;box-sizing:border-box;font-family:{FONTS}\"><div style=\"font-size:{TITLE_SIZE}px\">{}</div>\
         <div style=\"font-size:{NOTE_SIZE}px\">{notes}</div>{}<div class=\"thalweg-static\">{drawn}</div>\
         <script type=\"application/json\" class=\"thalweg-patterns\">{data}</script><script>{SCRIPT}</script></div>",
        escape(&summary),
        hex(INK),
        page.width.max(860.0).ceil(),
        escape(&title),
        legend(&panels::range(grid, style, true), &grid.unit),
    );
    // The SVG of a page is an element of its own; in another it stands as it is.
    Picture { width: page.width, height: page.height, svg: drawn, html, summary }
}

/// What the script reads.
fn payload(grid: &Grid, style: &Style) -> String {
    let (outer, inner) = grid.axes.split_at(grid.axes.len() - 2);
    let scale = panels::range(grid, style, true);
    let heads: usize = outer.iter().map(GridAxis::len).product();
    let (rows, columns) = (inner[0].len(), inner[1].len());
    let causal = (0..heads).all(|head| {
        let at = panels::outer_index(outer, head);
        let later = (0..rows).flat_map(|q| (q + 1..columns).map(move |k| (q, k)));
        later.into_iter().all(|(q, k)| !grid.exists(&[&at[..], &[q, k]].concat()))
    });
    let mut levels = Vec::with_capacity(grid.values.len());
    for head in 0..heads {
        let at = panels::outer_index(outer, head);
        for q in 0..rows {
            for k in 0..if causal { columns.min(q + 1) } else { columns } {
                let index = [&at[..], &[q, k]].concat();
                let value = grid.values[IxDyn(&index)];
                levels.push(if grid.exists(&index) { png::level(value, &scale) } else { 0 });
            }
        }
    }
    let across = match outer {
        [.., last] if last.len() <= 16 => last.len(),
        _ => 12,
    };
    let names = (0..heads).map(|head| panels::panel_name(outer, &panels::outer_index(outer, head)));
    let visible =
        |axis: &GridAxis| axis.labels.iter().map(|t| text::visible(t)).collect::<Vec<_>>();
    json!({
        "heads": names.collect::<Vec<_>>(),
        "groups": groups(grid, style, heads),
        "across": across,
        "thumb": (820 / across).clamp(40, 110) - 8,
        "queries": visible(&inner[0]),
        "keys": visible(&inner[1]),
        "low": scale.low,
        "high": scale.high,
        "colors": scale.stops,
        "absent": ABSENT,
        "causal": causal,
        "values": base64(&levels),
    })
    .to_string()
}

/// The key/value head of each head; empty if it is not known.
fn groups(grid: &Grid, style: &Style, heads: usize) -> Vec<usize> {
    let Some(kv_heads) = style.kv_heads else { return Vec::new() };
    let outer = &grid.axes[..grid.axes.len() - 2];
    let Some(place) = outer.iter().position(|axis| axis.axis == Axis::Head) else {
        return Vec::new();
    };
    let labels = &outer[place].labels;
    let shared = (labels.len() / kv_heads).max(1);
    let head = |panel: usize| number(&labels[panels::outer_index(outer, panel)[place]]);
    (0..heads).map(|panel| head(panel).unwrap_or(0) / shared).collect()
}

/// Number of the head `H3`, or `3`.
fn number(label: &str) -> Option<usize> {
    label.strip_prefix('H').unwrap_or(label).parse().ok()
}
