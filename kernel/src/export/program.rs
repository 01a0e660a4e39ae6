//! The notebook as one Rust program.

use std::fmt::Write as _;

use anyhow::{Context, Result, bail};
use proc_macro2::{TokenStream, TokenTree};

use super::items::{Items, Replaced};
use super::notebook::{Cell, Kind};
use super::split::{Piece, split};
use super::{displays, literals};

/// What the exported program adds to the notebook: it writes what is shown to files.
const SHOWN: &str = include_str!("shown.rs.txt");

/// What is found besides Rust.
#[derive(Debug, Default)]
pub(crate) struct Program {
    /// Crate attributes, imports and items.
    attributes: Vec<String>,
    items: Items,
    parts: Vec<Part>,
    /// Names for the files of each code cell; none is number 0.
    titles: Vec<String>,
    /// `name = spec`, or a path, as after `:dep`.
    pub(crate) dependencies: Vec<String>,
    /// What may differ from the notebook, one line each.
    pub(crate) warnings: Vec<String>,
}

/// A stretch of `main`.
#[derive(Debug)]
enum Part {
    Comment(String),
    Code { text: String, cell: usize, title: String },
    Value { text: String, beside: String, cell: usize, title: String },
}

/// What stands around the cells.
#[derive(Debug)]
pub(crate) struct Frame {
    /// The notebook's path as the reader knows it.
    pub(crate) notebook: String,
    /// How to run the program, if that is known.
    pub(crate) run: Option<String>,
    /// A Rust expression for the folder that relative paths in cells start from.
    pub(crate) folder: String,
}

impl Program {
    /// Translates the cells of a notebook; an error names the cell and its line.
    pub(crate) fn of(cells: &[Cell]) -> Result<Program> {
        let mut program = Program::default();
        let prelude = "use thalweg::prelude::*;";
        program.items.add(&syn::parse_str(prelude)?, prelude.to_owned(), 0);
        let mut heading = String::new();
        for cell in cells {
            match cell.kind {
                Kind::Text => {
                    heading = super::slug::heading(&cell.source).unwrap_or(heading);
                    let text = without_solutions(&cell.source);
                    program.parts.push(Part::Comment(comment(&text)));
                }
                Kind::Code => {
                    let title = super::slug::title(cell.number, &heading);
                    program.titles.resize(cell.number + 1, title.clone());
                    program.cell(cell, title).with_context(|| format!("cell {}", cell.number))?;
                }
            }
        }
        program.pin_literals();
        program.warn();
        program.warn_of_await();
        Ok(program)
    }

    fn cell(&mut self, cell: &Cell, title: String) -> Result<()> {
        let number = cell.number;
        if let Some(why) = cell.left_out {
            let text = format!("[{number}] left out: {why}\n{}", cell.source.trim());
            self.parts.push(Part::Comment(comment(&text)));
            return Ok(());
        }
        let split = split(&cell.source)?;
        let mut head = format!("// [{number}]");
        for command in split.commands {
            match command.strip_prefix(":dep ") {
                Some(dependency) => self.dependencies.push(dependency.trim().to_owned()),
                None => write!(head, "\n// left out, a line for the kernel: {command}")?,
            }
        }
        self.parts.push(Part::Comment(head));
        for attribute in split.attributes {
            if !self.attributes.contains(&attribute) {
                self.attributes.push(attribute);
            }
        }
        self.items.begin_cell();
        for piece in split.pieces {
            let title = title.clone();
            match piece {
                Piece::Item(item, text) => self.items.add(&item, text, number),
                Piece::Code(text) if text.trim().is_empty() => {}
                Piece::Code(text) => self.parts.push(Part::Code { text, cell: number, title }),
                Piece::Value(text, beside) => {
                    self.parts.push(Part::Value { text, beside, cell: number, title })
                }
            }
        }
        Ok(())
    }

    /// A number's type is settled at the end of its cell in a notebook; in one function a later method call asks for it.
    fn pin_literals(&mut self) {
        for at in 0..self.parts.len() {
            let later: String = self.parts[at + 1..].iter().map(Part::code).collect();
            if let Part::Code { text, .. } = &mut self.parts[at] {
                *text = literals::pin(text, &later);
            }
        }
    }

    /// Notes where evcxr would bring an async runtime.
    fn warn_of_await(&mut self) {
        for part in &self.parts {
            if let Part::Code { text, cell, .. } | Part::Value { text, cell, .. } = part
                && text.parse().is_ok_and(awaits)
            {
                self.warnings.push(format!(
                    "cell {cell} awaits, which `main` cannot: give it to a runtime's `block_on`"
                ));
            }
        }
    }

    /// Notes what earlier cells took from a definition that a later one replaced.
    fn warn(&mut self) {
        for Replaced { name, old, new } in &self.items.replaced {
            let uses = |part: &Part| match part {
                Part::Comment(_) => false,
                Part::Code { text, cell, .. } | Part::Value { text, cell, .. } => {
                    (*old..*new).contains(cell) && mentions(text, name)
                }
            };
            if self.parts.iter().any(uses) {
                self.warnings.push(format!(
                    "cells before cell {new} use the `{name}` of cell {old}; in one program all use that of cell {new}"
                ));
            }
        }
    }

    /// The crates of `extern crate` lines.
    pub(crate) fn crates(&self) -> impl Iterator<Item = &str> {
        self.items.crates()
    }

    /// The source of the program.
    pub(crate) fn text(&self, frame: &Frame) -> Result<String> {
        if self.items.defines("shown") {
            bail!("the notebook defines `shown`, a name that the export needs; rename it");
        }
        let own = self.items.defines("display");
        let items = self
            .items
            .text(|text, cell| displays::rewrite(text, "crate::shown", &self.titles[cell], own));
        let mut text = format!(
            "//! Exported from {} by `thalweg-kernel export`.\n//!\n//! {}What the notebook shows is written to the folder \
             `shown`, and as text to the terminal.\n\n\
             #![allow(unused, clippy::print_stdout)] // as in a notebook\n",
            frame.notebook,
            frame.run.as_ref().map(|run| format!("Run it with `{run}`. ")).unwrap_or_default(),
        );
        for attribute in &self.attributes {
            writeln!(text, "{attribute}")?;
        }
        write!(text, "\n{items}\n\nfn main() -> anyhow::Result<()> {{\n")?;
        let start = format!(
            "// Relative paths in cells start at the notebook's folder.\nshown::begin({})?;\n",
            frame.folder
        );
        let body: Vec<String> = self.parts.iter().map(|part| part.text(own)).collect();
        let body = format!("{start}{}\nOk(())\n", body.concat());
        write!(text, "{}}}\n\n{SHOWN}", indented(&body))?;
        Ok(text)
    }
}

impl Part {
    fn code(&self) -> &str {
        match self {
            Part::Comment(_) => "",
            Part::Code { text, .. } | Part::Value { text, .. } => text,
        }
    }

    fn text(&self, own: bool) -> String {
        match self {
            Part::Comment(text) => format!("\n{text}\n"),
            Part::Code { text, title, .. } => {
                format!(
                    "{}\n",
                    displays::rewrite(text.trim_matches('\n').trim_end(), "shown", title, own)
                )
            }
            Part::Value { text, beside, title, .. } => {
                let value = displays::rewrite(text, "shown", title, own);
                // What shows itself leaves no value.
                if value != *text && value.starts_with("shown::") {
                    return format!("{value};{beside}\n");
                }
                format!("shown::show!({title:?}, {value});{beside}\n")
            }
        }
    }
}

/// A text cell without the hidden solutions of its exercises: they are run in the notebook alone.
fn without_solutions(text: &str) -> String {
    let (start, end) = ("<details><summary>Solution ", "</details>");
    let mut parts = text.split(start);
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        kept.push_str(part.split_once(end).map_or("", |(_, after)| after.trim_start()));
    }
    kept
}

/// `text` in `//` lines.
fn comment(text: &str) -> String {
    let line = |line: &str| format!("// {}", shortened(line)).trim_end().to_owned();
    text.trim().lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Pictures stand in text cells as lines of a hundred thousand letters.
fn shortened(line: &str) -> String {
    let mut short: String = line.chars().take(400).collect();
    if short.len() < line.len() {
        short.push_str(" ...");
    }
    short
}

fn mentions(code: &str, name: &str) -> bool {
    fn within(tokens: TokenStream, name: &str) -> bool {
        tokens.into_iter().any(|token| match token {
            TokenTree::Ident(ident) => ident == name,
            TokenTree::Group(group) => within(group.stream(), name),
            _ => false,
        })
    }
    code.parse().is_ok_and(|tokens| within(tokens, name))
}

/// Whether there is an `.await` outside of `async` blocks.
fn awaits(tokens: TokenStream) -> bool {
    let mut before = [String::new(), String::new()];
    for token in tokens {
        let word = token.to_string();
        let is_async = before.iter().any(|word| word == "async");
        match token {
            TokenTree::Ident(_) if word == "await" && before[1] == "." => return true,
            TokenTree::Group(group) if !is_async && awaits(group.stream()) => return true,
            _ => {}
        }
        before.rotate_left(1);
        before[1] = word;
    }
    false
}

/// `code` four spaces further right, but for lines that begin inside a string.
fn indented(code: &str) -> String {
    fn strings(tokens: TokenStream, lines: &mut Vec<usize>) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => strings(group.stream(), lines),
                TokenTree::Literal(literal) => {
                    lines.extend(literal.span().start().line + 1..=literal.span().end().line);
                }
                _ => {}
            }
        }
    }
    let mut fixed = Vec::new();
    if let Ok(tokens) = code.parse() {
        strings(tokens, &mut fixed);
    }
    let mut text = String::new();
    for (index, line) in code.lines().enumerate() {
        let indent = if line.is_empty() || fixed.contains(&(index + 1)) { "" } else { "    " };
        text.push_str(indent);
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::without_solutions;

    #[test]
    fn solutions_stay_in_the_notebook_and_other_asides_do_not() {
        let aside = "<details><summary>How this misleads</summary>\n\nIt does.\n</details>\n\n";
        let solution =
            "<details><summary>Solution 1</summary>\n\n```rust\nlet a = 1;\n```\n</details>\n\n";
        let text = format!("{aside}1. Why?\n\n{solution}{solution}**On a real Llama:** the same.");
        let kept = format!("{aside}1. Why?\n\n**On a real Llama:** the same.");
        assert_eq!(without_solutions(&text), kept);
    }
}
