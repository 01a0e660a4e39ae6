//! A grid as a table, as HTML and as JSON.

use std::fmt;

use ndarray::Dimension;
use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::Grid;
use crate::show::{Content, Show, escape, show_value};

/// Rows and columns a table shows before it says how many more there are.
const MAX_ROWS: usize = 24;
const MAX_COLUMNS: usize = 12;

/// A number with four significant digits, for people.
pub(crate) fn number(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return if value == 0.0 { "0".to_string() } else { value.to_string() };
    }
    let magnitude = value.abs().log10().floor() as i32;
    if !(-4..6).contains(&magnitude) {
        return format!("{value:.2e}");
    }
    let text = format!("{value:.*}", (3 - magnitude).max(0) as usize);
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_string()
    } else {
        text
    }
}

/// The table as rows of text: a head, then the body; the first cell of each row is its label.
struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    /// What the table left out, if anything.
    left_out: Option<String>,
}

impl Grid {
    /// The last axis runs along the columns, all others along the rows.
    fn table(&self) -> Table {
        let Some((last, outer)) = self.axes.split_last() else {
            let value = self.values.first().map(|v| number(*v)).unwrap_or_default();
            return Table { head: vec![], rows: vec![vec![value]], left_out: None };
        };
        // One axis reads better downwards.
        let (columns, wide) =
            if outer.is_empty() { (1, 1) } else { (last.len(), last.len().min(MAX_COLUMNS)) };
        let row_count = self.values.len().checked_div(columns).unwrap_or(0);
        let row_axes = if outer.is_empty() { &self.axes[..] } else { outer };
        let mut head =
            vec![row_axes.iter().map(|a| a.axis.to_string()).collect::<Vec<_>>().join(" ")];
        match outer.is_empty() {
            true => {
                head.push(if self.unit.is_empty() { "value".into() } else { self.unit.clone() })
            }
            false => head.extend(last.labels[..wide].iter().map(|label| shown(label))),
        }
        let mut rows = Vec::new();
        for row in 0..row_count.min(MAX_ROWS) {
            let mut left = row;
            let mut at = vec![0; row_axes.len()];
            for (place, named) in row_axes.iter().enumerate().rev() {
                at[place] = left % named.len();
                left /= named.len();
            }
            let label = row_axes.iter().zip(&at).map(|(named, i)| shown(&named.labels[*i]));
            let mut cells = vec![label.collect::<Vec<_>>().join(" ")];
            for column in 0..wide {
                let mut index = at.clone();
                if !outer.is_empty() {
                    index.push(column);
                }
                let value = self.values[ndarray::IxDyn(&index)];
                cells.push(if self.exists(&index) { number(value) } else { "·".into() });
            }
            rows.push(cells);
        }
        let cut = row_count > MAX_ROWS || columns > wide;
        let left_out = cut.then(|| {
            format!("{} of {row_count} rows, {wide} of {columns} columns shown", rows.len())
        });
        Table { head, rows, left_out }
    }

    /// The grid as an HTML table, escaped.
    pub fn to_html(&self) -> String {
        let table = self.table();
        let row = |cells: &[String], tag: &str| {
            let cell = |(i, text): (usize, &String)| {
                let (tag, align) = if i == 0 { ("th", "left") } else { (tag, "right") };
                format!(
                    "<{tag} style=\"text-align:{align};padding:2px 8px\">{}</{tag}>",
                    escape(text)
                )
            };
            format!("<tr>{}</tr>", cells.iter().enumerate().map(cell).collect::<String>())
        };
        let head = row(&table.head, "th");
        let body: String = table.rows.iter().map(|cells| row(cells, "td")).collect();
        let foot = table
            .left_out
            .map(|text| format!("<div><small>{text}</small></div>"))
            .unwrap_or_default();
        format!(
            "<div class=\"thalweg-grid\"><div><small>{}</small></div><table style=\"border-collapse:collapse;\
             font-variant-numeric:tabular-nums\"><thead>{head}</thead><tbody>{body}</tbody></table>{foot}</div>",
            escape(&self.summary())
        )
    }

    /// Everything the grid holds, as JSON: see the `Serialize` implementation.
    pub fn to_json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string(self)?)
    }

    /// Shows the grid as a table in a notebook.
    pub fn evcxr_display(&self) {
        show_value(self);
    }
}

impl Show for Grid {
    fn content(&self) -> Content {
        Content::text(self.to_string()).with("text/html", self.to_html())
    }
}

/// A label on one line: newlines and tabs would break a table.
fn shown(label: &str) -> String {
    label.replace('\n', "↵").replace('\t', "⇥")
}

/// The summary line, then a table in aligned columns.
impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.summary())?;
        let table = self.table();
        let lines: Vec<&Vec<String>> = std::iter::once(&table.head).chain(&table.rows).collect();
        let columns = lines.iter().map(|line| line.len()).max().unwrap_or(0);
        let width = |column: usize| {
            lines
                .iter()
                .filter_map(|line| line.get(column))
                .map(|text| text.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for line in lines {
            let mut text = String::new();
            for (column, cell) in line.iter().enumerate() {
                match column {
                    0 => text += &format!("{cell:<0$}", widths[0]),
                    _ => text += &format!("  {cell:>0$}", widths[column]),
                }
            }
            writeln!(f, "{}", text.trim_end())?;
        }
        match table.left_out {
            Some(text) => writeln!(f, "{text}"),
            None => Ok(()),
        }
    }
}

/// Flat values in row-major order beside their shape; `null` where a cell does not exist or is
/// not finite.
impl Serialize for Grid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let flat = |array: &ndarray::ArrayD<f64>| -> Vec<Option<f64>> {
            let each = array.indexed_iter();
            each.map(|(i, v)| (self.exists(i.slice()) && v.is_finite()).then_some(*v)).collect()
        };
        let axes: Vec<serde_json::Value> = self
            .axes
            .iter()
            .map(
                |named| serde_json::json!({"axis": named.axis.to_string(), "labels": named.labels}),
            )
            .collect();
        let mut out = serializer.serialize_struct("Grid", 10)?;
        out.serialize_field("name", &self.name)?;
        out.serialize_field("unit", &self.unit)?;
        out.serialize_field("axes", &axes)?;
        out.serialize_field("shape", self.shape())?;
        out.serialize_field("values", &flat(&self.values))?;
        if let Some((zero, one)) = &self.zero_one {
            out.serialize_field("zero_one", &[zero, one])?;
        }
        out.serialize_field("n", &self.n)?;
        if let Some(interval) = &self.interval {
            out.serialize_field("low", &flat(&interval.low))?;
            out.serialize_field("high", &flat(&interval.high))?;
            out.serialize_field("interval", &interval.method)?;
        }
        out.serialize_field("provenance", &self.provenance)?;
        out.serialize_field("records", &self.records())?;
        out.end()
    }
}
