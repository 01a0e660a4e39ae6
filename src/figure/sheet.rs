//! Lines of coloured tokens: one layout, written as HTML spans that need no script and as SVG.

use std::fmt::Write as _;

use super::colors::{INK, Rgb, SOFT, Scale, contrast, hex};
use super::layout::{NOTE_SIZE, TITLE_SIZE};
use super::plotly_json::FONTS;
use super::scene::Picture;
use super::{layout, sheet_svg};
use crate::grid::number;
use crate::show::escape;

/// Every character of these is 0.6 em wide, so that a layout without fonts is right.
pub(super) const MONO: &str = "DejaVu Sans Mono, Menlo, Consolas, Liberation Mono, monospace";
/// Font size of tokens.
pub(super) const SIZE: f64 = 13.0;
/// Behind a token that has no value.
const NONE: Rgb = [255, 255, 255];

/// A page of coloured text.
#[derive(Debug, Clone, Default)]
pub(super) struct Sheet {
    pub(super) title: String,
    /// Small print under the title.
    pub(super) notes: Vec<String>,
    pub(super) legend: Option<(Scale, String)>,
    /// Titles of the columns before the text.
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<Row>,
    /// Shown below until a token is pointed at, if tokens have cards.
    pub(super) prompt: String,
    pub(super) summary: String,
}

/// One text, and what stands before it.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    pub(super) cells: Vec<String>,
    pub(super) tokens: Vec<Token>,
}

/// One token.
#[derive(Debug, Clone, Default)]
pub(super) struct Token {
    /// What is written: a space at its start stays a space.
    pub(super) shown: String,
    pub(super) color: Option<Rgb>,
    pub(super) tip: String,
    /// Drawn bold and underlined.
    pub(super) strong: bool,
    /// The token ends a line of the text.
    pub(super) breaks: bool,
    /// What the panel below shows while the token is pointed at.
    pub(super) card: Option<Card>,
}

/// A heading and a table of two columns; the line that `marked` names is the true one.
#[derive(Debug, Clone, Default)]
pub(super) struct Card {
    pub(super) heading: String,
    pub(super) lines: Vec<(String, String)>,
    pub(super) marked: Option<usize>,
}

impl Token {
    /// Background and ink.
    pub(super) fn colors(&self) -> (Rgb, Rgb) {
        let ground = self.color.unwrap_or(NONE);
        (ground, contrast(ground))
    }
}

impl Row {
    /// What stands between two tokens: nothing where tokens bring their own spaces, as pieces of words
    /// do; a space where every token is a word.
    pub(super) fn gap(&self) -> &'static str {
        if self.tokens.iter().any(|token| token.shown.contains(' ')) { "" } else { " " }
    }
}

impl Sheet {
    pub(super) fn picture(&self) -> Picture {
        let (svg, height) = sheet_svg::draw(self);
        Picture {
            width: sheet_svg::WIDTH,
            height,
            svg,
            html: self.html(),
            summary: self.summary.clone(),
        }
    }

    /// Lines of every card, at most.
    fn card_lines(&self) -> Option<usize> {
        let tokens = self.rows.iter().flat_map(|row| &row.tokens);
        tokens.filter_map(|token| token.card.as_ref()).map(|card| card.lines.len()).max()
    }

    /// A white sheet with dark ink in light and dark front ends alike.
    fn html(&self) -> String {
        let mut html = String::new();
        let cards = self.card_lines();
        if cards.is_some() {
            html += STYLE;
        }
        let room = cards.map_or(12.0, |lines| 40.0 + 19.0 * lines as f64);
        let _ = write!(
            html,
            "<div class=\"thalweg-text\" role=\"figure\" aria-label=\"{}\" style=\"position:relative;background:#fff;\
             color:{};padding:10px 12px {room}px;max-width:{}px;box-sizing:border-box;font-family:{FONTS}\">",
            escape(&self.summary),
            hex(INK),
            sheet_svg::WIDTH
        );
        if !self.title.is_empty() {
            let _ = write!(
                html,
                "<div style=\"font-size:{TITLE_SIZE}px;margin-bottom:4px\">{}</div>",
                escape(&self.title)
            );
        }
        for note in &self.notes {
            let _ = write!(
                html,
                "<div style=\"font-size:{NOTE_SIZE}px;color:{}\">{}</div>",
                hex(SOFT),
                escape(note)
            );
        }
        if let Some((scale, unit)) = &self.legend {
            html += &legend(scale, unit);
        }
        self.write_rows(&mut html, room - 14.0);
        if cards.is_some() {
            let _ = write!(
                html,
                "<div class=\"thalweg-prompt\" style=\"height:{}px\">{}</div>",
                room - 14.0,
                escape(&self.prompt)
            );
        }
        html += "</div>";
        html
    }

    fn write_rows(&self, html: &mut String, height: f64) {
        let table = !self.columns.is_empty();
        if table {
            *html += "<table style=\"border-collapse:collapse;margin:6px 0 0;width:100%;table-layout:auto\"><thead><tr>";
            for title in self.columns.iter().map(String::as_str).chain(["text"]) {
                let _ = write!(
                    html,
                    "<th style=\"text-align:left;font-weight:normal;font-size:{NOTE_SIZE}px;color:{};background:#fff;padding:2px 10px 2px 0\">{}</th>",
                    hex(SOFT),
                    escape(title)
                );
            }
            *html += "</tr></thead><tbody>";
        }
        for row in &self.rows {
            if table {
                *html += "<tr style=\"background:#fff\">";
            }
            for cell in &row.cells {
                let _ = write!(
                    html,
                    "<td style=\"text-align:left;vertical-align:top;white-space:nowrap;font-size:12px;line-height:24px;color:{};\
                     padding:2px 10px 2px 0\">{}</td>",
                    hex(INK),
                    escape(cell)
                );
            }
            if table {
                *html += "<td style=\"text-align:left;padding:2px 0;width:100%\">";
            }
            let _ = write!(
                html,
                "<div style=\"font-family:{MONO};font-size:{SIZE}px;line-height:24px;white-space:pre-wrap;overflow-wrap:anywhere\">"
            );
            for token in &row.tokens {
                span(html, token, height);
                *html += if token.breaks { "<br>" } else { row.gap() };
            }
            *html += if table { "</div></td></tr>" } else { "</div>" };
        }
        if table {
            *html += "</tbody></table>";
        }
    }
}

/// Shows the card of the token pointed at, or reached by the keyboard, in the panel below.
const STYLE: &str = "<style>.thalweg-text .thalweg-card{display:none}\
.thalweg-text .thalweg-token:hover,.thalweg-text .thalweg-token:focus{outline:2px solid #2a2a32}\
.thalweg-text .thalweg-token:hover .thalweg-card,.thalweg-text:not(:has(.thalweg-token:hover)) .thalweg-token:focus .thalweg-card\
{display:block}\
.thalweg-text .thalweg-prompt,.thalweg-text .thalweg-card{position:absolute;left:12px;right:12px;bottom:10px;background:#fff;\
color:#2a2a32;font-size:12px}\
.thalweg-text .thalweg-prompt{color:#60606a;z-index:0}.thalweg-text .thalweg-card{z-index:1;line-height:19px;white-space:pre}\
.thalweg-text .thalweg-card b{color:#05306b}</style>";

fn span(html: &mut String, token: &Token, height: f64) {
    let (ground, ink) = token.colors();
    let _ = write!(
        html,
        "<span style=\"color:{};padding:3px 0;box-shadow:inset -1px 0 #fff;{}{}\" title=\"{}\"{}>{}",
        hex(ink),
        if token.color.is_some() { format!("background:{};", hex(ground)) } else { String::new() },
        if token.strong { "font-weight:bold;text-decoration:underline;" } else { "" },
        escape(&token.tip).replace('\n', "&#10;"),
        if token.card.is_some() { " class=\"thalweg-token\" tabindex=\"0\"" } else { "" },
        escape(&token.shown)
    );
    if let Some(card) = &token.card {
        *html += &self::card(card, height);
    }
    *html += "</span>";
}

fn card(card: &Card, height: f64) -> String {
    let mut html = format!(
        "<span class=\"thalweg-card\" style=\"height:{height}px\">{}",
        escape(&card.heading)
    );
    let widest = card.lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (i, (name, value)) in card.lines.iter().enumerate() {
        let gap = " ".repeat(widest - name.chars().count());
        let line = escape(&format!("{:>2}  {name}{gap}  {value}", i + 1));
        let bold = card.marked == Some(i);
        let _ = write!(html, "\n{}", if bold { format!("<b>{line}</b>") } else { line });
    }
    html + "</span>"
}

/// Low end, colours, high end, unit.
pub(super) fn legend(scale: &Scale, unit: &str) -> String {
    let stops: Vec<String> = scale.stops.iter().map(|stop| hex(*stop)).collect();
    let [low, high] = [scale.low, scale.high].map(number);
    format!(
        "<div style=\"font-size:{}px;margin:4px 0 6px\">{low} <span style=\"display:inline-block;width:120px;height:10px;\
         border:1px solid #ddd;background:linear-gradient(90deg,{})\"></span> {high} {}</div>",
        layout::LABEL_SIZE,
        stops.join(","),
        escape(unit)
    )
}
