//! Reading a notebook file.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// What a cell is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Rust, and lines for the kernel.
    Code,
    /// Text between the cells; raw cells too.
    Text,
}

/// One cell, in the order of the notebook.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    /// Code or text.
    pub(crate) kind: Kind,
    /// What stands in it.
    pub(crate) source: String,
    /// For a code cell its place among the code cells, from 1.
    pub(crate) number: usize,
    /// Why a run of the whole notebook does not run it to its end, if its tags say so.
    pub(crate) left_out: Option<&'static str>,
}

/// The cells of the notebook at `path`. An error if its language is not Rust.
pub(crate) fn read(path: &Path) -> Result<Vec<Cell>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("cannot export {}", path.display()))
}

fn parse(text: &str) -> Result<Vec<Cell>> {
    let value: Value = serde_json::from_str(text).context("it is not JSON")?;
    let metadata = &value["metadata"];
    for language in [&metadata["language_info"]["name"], &metadata["kernelspec"]["language"]] {
        if let Some(language) = language.as_str().filter(|name| !name.eq_ignore_ascii_case("rust"))
        {
            bail!("its language is {language}, expected rust");
        }
    }
    let cells = value["cells"].as_array().context("it has no cells; expected a notebook")?;
    let mut number = 0;
    Ok(cells
        .iter()
        .map(|cell| {
            let kind = if cell["cell_type"] == "code" { Kind::Code } else { Kind::Text };
            number += usize::from(kind == Kind::Code);
            Cell { kind, source: source(&cell["source"]), number, left_out: left_out(cell) }
        })
        .collect())
}

/// A cell's source: one string, or a list of lines with their ends.
fn source(value: &Value) -> String {
    let text = match value {
        Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect(),
        other => other.as_str().unwrap_or_default().to_owned(),
    };
    text.replace("\r\n", "\n")
}

/// The tags that nbclient knows.
fn left_out(cell: &Value) -> Option<&'static str> {
    let has = |tag: &str| {
        cell["metadata"]["tags"].as_array().is_some_and(|tags| tags.iter().any(|it| it == tag))
    };
    if has("raises-exception") {
        Some("it is meant to fail")
    } else if has("skip-execution") {
        Some("it is meant to be skipped")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_cells_are_counted_and_tags_are_read() {
        let text = r##"{"metadata": {"language_info": {"name": "rust"}}, "cells": [
            {"cell_type": "markdown", "metadata": {}, "source": ["# A\n", "b"]},
            {"cell_type": "code", "metadata": {}, "source": "1 + 1"},
            {"cell_type": "code", "metadata": {"tags": ["raises-exception"]}, "source": ["panic!()"]}]}"##;
        let cells = parse(text).unwrap();
        assert_eq!((cells[0].kind, cells[0].source.as_str()), (Kind::Text, "# A\nb"));
        assert_eq!((cells[1].number, cells[1].left_out), (1, None));
        assert_eq!((cells[2].number, cells[2].left_out), (2, Some("it is meant to fail")));
    }

    #[test]
    fn a_notebook_in_another_language_is_an_error_that_names_it() {
        let text = r#"{"metadata": {"kernelspec": {"language": "python"}}, "cells": []}"#;
        assert_eq!(parse(text).unwrap_err().to_string(), "its language is python, expected rust");
        assert!(parse("{}").unwrap_err().to_string().contains("no cells"));
    }
}
