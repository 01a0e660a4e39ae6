//! A notebook as a chapter: markdown as it is, code as fences, outputs below; figures are kept aside.

use std::fmt::Write as _;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::markdown;

/// A chapter made of a notebook.
#[derive(Debug)]
pub(crate) struct Chapter {
    /// Its first heading.
    pub(crate) title: String,
    /// Its text, with `<div id="slot-n">` where the n-th figure belongs.
    pub(crate) text: String,
    /// The HTML of its figures.
    pub(crate) figures: Vec<String>,
}

/// How the HTML begins that the library writes; other HTML is shown as its text.
const OURS: &[&str] =
    &["<div class=\"thalweg-", "<table class=\"thalweg-", "<div><div style=", "<svg "];

/// Reads the text of an `.ipynb`; `name` is its path in the repository.
pub(crate) fn read(name: &str, json: &str) -> Result<Chapter> {
    let whole: Value = serde_json::from_str(json).with_context(|| format!("{name}: not JSON"))?;
    let cells = whole["cells"].as_array().with_context(|| format!("{name}: no cells"))?;
    let mut chapter = Chapter { title: String::new(), text: String::new(), figures: Vec::new() };
    for cell in cells {
        let source = joined(&cell["source"]);
        match cell["cell_type"].as_str() {
            Some("markdown") => chapter.prose(name, &source),
            Some("code") => chapter.code(name, &source, &cell["outputs"])?,
            _ => {}
        }
    }
    if chapter.title.is_empty() {
        bail!("{name}: its first cell has no heading");
    }
    Ok(chapter)
}

impl Chapter {
    fn prose(&mut self, name: &str, source: &str) {
        let mut source = markdown::safe(source);
        if self.title.is_empty()
            && let Some(title) = source.lines().find_map(|line| line.strip_prefix("# "))
        {
            self.title = title.trim().to_owned();
            let note = format!(
                "# {}\n\n<p class=\"thalweg-note\">The notebook <code>{name}</code>, as it ran. To run it: \
                 <code>cargo lab</code></p>",
                self.title
            );
            source = source.replacen(&format!("# {title}"), &note, 1);
        }
        self.text.push_str(&source);
        self.text.push_str("\n\n");
    }

    fn code(&mut self, name: &str, source: &str, outputs: &Value) -> Result<()> {
        let fence = fence(source);
        writeln!(self.text, "{fence}rust,noplayground\n{source}\n{fence}\n")?;
        let outputs = outputs.as_array().map(Vec::as_slice).unwrap_or_default();
        if outputs.is_empty() {
            return Ok(());
        }
        self.text.push_str("<div class=\"thalweg-output\">\n\n");
        for output in outputs {
            let data = &output["data"];
            let html = joined(&data["text/html"]);
            let text = match output["output_type"].as_str() {
                Some("error") => bail!("{name}: holds the error {}", output["evalue"]),
                Some("stream") => joined(&output["text"]),
                _ if html.starts_with("<div class=\"thalweg-progress\"") => continue, // a bar that is full
                _ if OURS.iter().any(|start| html.starts_with(start)) => {
                    let slot = self.figures.len();
                    writeln!(self.text, "<div class=\"thalweg-slot\" id=\"slot-{slot}\"></div>\n")?;
                    self.figures.push(html);
                    continue;
                }
                _ => joined(&data["text/plain"]),
            };
            let text = text.trim_end();
            if !text.is_empty() {
                let fence = self::fence(text);
                writeln!(self.text, "{fence}text\n{text}\n{fence}\n")?;
            }
        }
        self.text.push_str("</div>\n\n");
        Ok(())
    }
}

/// A fence longer than any run of backticks in `text`.
fn fence(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    "`".repeat(longest.max(2) + 1)
}

/// A string, or a list of lines.
fn joined(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chapter(cells: &str) -> Result<Chapter> {
        read("notebooks/x.ipynb", &format!("{{\"cells\":[{cells}]}}"))
    }

    const HEAD: &str = r##"{"cell_type":"markdown","source":["# A title\n","text"]}"##;

    #[test]
    fn text_is_fenced_and_figures_are_kept_aside() {
        let code = r#"{"cell_type":"code","source":"let x = 1;","outputs":[
            {"output_type":"stream","text":["one\n","``` two\n"]},
            {"output_type":"execute_result","data":{"text/html":"<div class=\"thalweg-figure\">F</div>","text/plain":"f"}}]}"#;
        let chapter = chapter(&format!("{HEAD},{code}")).unwrap();
        assert_eq!(chapter.title, "A title");
        assert_eq!(chapter.figures, ["<div class=\"thalweg-figure\">F</div>"]);
        assert!(chapter.text.contains("```rust,noplayground\nlet x = 1;\n```"));
        assert!(chapter.text.contains("````text\none\n``` two\n````"));
        assert!(chapter.text.contains("id=\"slot-0\""));
    }

    #[test]
    fn html_that_the_library_did_not_write_is_shown_as_its_text() {
        let code = r#"{"cell_type":"code","source":"","outputs":[
            {"output_type":"display_data","data":{"text/html":"<script>x()</script>","text/plain":"<plain>"}}]}"#;
        let chapter = chapter(&format!("{HEAD},{code}")).unwrap();
        assert!(chapter.figures.is_empty() && !chapter.text.contains("script"));
        assert!(chapter.text.contains("```text\n<plain>\n```"));
    }

    #[test]
    fn an_error_among_the_outputs_is_refused() {
        let code =
            r#"{"cell_type":"code","source":"","outputs":[{"output_type":"error","evalue":"oh"}]}"#;
        let error = chapter(&format!("{HEAD},{code}")).unwrap_err().to_string();
        assert_eq!(error, "notebooks/x.ipynb: holds the error \"oh\"");
    }
}
