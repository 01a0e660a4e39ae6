//! One code cell taken apart: lines for the kernel, items, the code between them, the value shown at its end. All
//! text is cut out of the source by position, so that it stays as it was written.

use std::ops::Range;

use anyhow::{Result, anyhow};
use syn::parse::{ParseStream, Parser};
use syn::spanned::Spanned;
use syn::{Attribute, BinOp, Block, Expr, Macro, Stmt};

/// A cell in pieces.
#[derive(Default)]
pub(crate) struct Split {
    /// `:dep ...`, other lines for the kernel and `!` lines, trimmed.
    pub(crate) commands: Vec<String>,
    /// Attributes for the whole crate, such as `#![feature(..)]`.
    pub(crate) attributes: Vec<String>,
    /// The rest, in order.
    pub(crate) pieces: Vec<Piece>,
}

/// A piece of a cell.
pub(crate) enum Piece {
    /// Something that stands outside `main`, with the comments above and beside it. Boxed, being large.
    Item(Box<syn::Item>, String),
    /// Statements and comments.
    Code(String),
    /// The cell's last expression, whose value a notebook shows, and the comment beside it.
    Value(String, String),
}

/// Takes a code cell apart. The error says what rustc would dislike, and in which line of the cell.
pub(crate) fn split(source: &str) -> Result<Split> {
    let (mut split, rust) = commands(source);
    let parser = |input: ParseStream<'_>| {
        Ok((input.call(Attribute::parse_inner)?, input.call(Block::parse_within)?))
    };
    let skipped = source[..rust.start].lines().count();
    let text = &source[rust];
    let (attributes, statements) = parser.parse_str(text).map_err(|error| {
        let text = error.to_string();
        // What is missing at the end has no place of its own.
        let line = match text.starts_with("unexpected end of input") {
            true => source.trim_end().lines().count(),
            false => skipped + error.span().start().line,
        };
        anyhow!("line {line}: {text}")
    })?;
    let mut end = 0;
    for attribute in &attributes {
        let range = attribute.span().byte_range();
        split.code(&text[end..range.start]);
        split.attributes.push(text[range.clone()].to_owned());
        end = range.end;
    }
    let count = statements.len();
    for (index, statement) in statements.into_iter().enumerate() {
        let range = statement.span().byte_range();
        let gap = &text[end..range.start];
        let (before, after) = gap.split_at(if index == 0 { 0 } else { end_of_line(gap) });
        split.beside(before);
        end = range.end;
        split.statement(statement, after, &text[range], index + 1 == count);
    }
    split.beside(&text[end..]);
    Ok(split)
}

/// The lines for the kernel, which stand before the first line of Rust, and where the Rust begins.
fn commands(source: &str) -> (Split, Range<usize>) {
    let mut split = Split::default();
    let (mut rust, mut at) = (0, 0);
    for line in source.split_inclusive('\n') {
        at += line.len();
        let trimmed = line.trim();
        if line.starts_with('!') || (trimmed.starts_with(':') && !trimmed.starts_with("::")) {
            split.code(&source[rust..at - line.len()]);
            split.commands.push(trimmed.to_owned());
            rust = at;
        } else if !trimmed.is_empty() && !trimmed.starts_with("//") {
            break;
        }
    }
    (split, rust..source.len())
}

impl Split {
    /// Adds code, unless it is blank and first.
    fn code(&mut self, text: &str) {
        match self.pieces.last_mut() {
            Some(Piece::Code(code)) => code.push_str(text),
            _ if text.trim().is_empty() => {}
            _ => self.pieces.push(Piece::Code(text.to_owned())),
        }
    }

    /// Adds what stands behind the last piece in the same line.
    fn beside(&mut self, text: &str) {
        match self.pieces.last_mut() {
            Some(Piece::Item(_, own) | Piece::Value(_, own)) => {
                let (beside, below) = text.split_at(end_of_line(text));
                own.push_str(beside.trim_end());
                if !below.trim().is_empty() {
                    self.code(below);
                }
            }
            _ => self.code(text),
        }
    }

    fn statement(&mut self, statement: Stmt, gap: &str, text: &str, last: bool) {
        match statement {
            Stmt::Item(item) => {
                let (own, above) = gap.split_at(last_blank_line(gap));
                if !own.trim().is_empty() {
                    self.code(own);
                }
                self.pieces
                    .push(Piece::Item(Box::new(item), format!("{}{text}", above.trim_start())));
            }
            statement if last && is_shown(&statement) => {
                self.code(gap);
                self.pieces.push(Piece::Value(text.to_owned(), String::new()));
            }
            statement => {
                let bare = match &statement {
                    Stmt::Expr(expression, None) => !ends_alone(expression),
                    Stmt::Macro(call) => {
                        call.semi_token.is_none()
                            && !matches!(call.mac.delimiter, syn::MacroDelimiter::Brace(_))
                    }
                    _ => false,
                };
                self.code(&format!("{gap}{text}{}", if bare { ";" } else { "" }));
            }
        }
    }
}

/// Whether the last statement of a cell leaves a value to show. What is of type `()` for certain needs no showing.
fn is_shown(statement: &Stmt) -> bool {
    match statement {
        Stmt::Expr(expression, None) => !is_unit(expression),
        Stmt::Macro(call) => call.semi_token.is_none() && !is_silent(&call.mac),
        _ => false,
    }
}

/// Whether a macro's value is `()`.
fn is_silent(call: &Macro) -> bool {
    let name = call.path.segments.last().map(|part| part.ident.to_string()).unwrap_or_default();
    let silent = ["print", "println", "eprint", "eprintln", "panic", "todo", "thread_local"];
    let asserts = name.starts_with("assert") || name.starts_with("debug_assert");
    silent.contains(&name.as_str()) || asserts
}

fn is_unit(expression: &Expr) -> bool {
    match expression {
        Expr::Assign(_) | Expr::ForLoop(_) | Expr::While(_) | Expr::Return(_) => true,
        Expr::If(chain) => chain.else_branch.as_ref().is_none_or(|(_, other)| is_unit(other)),
        Expr::Binary(binary) => is_assignment(&binary.op),
        Expr::Macro(call) => is_silent(&call.mac),
        Expr::Tuple(tuple) => tuple.elems.is_empty(),
        _ => false,
    }
}

fn is_assignment(operator: &BinOp) -> bool {
    matches!(
        operator,
        BinOp::AddAssign(_)
            | BinOp::SubAssign(_)
            | BinOp::MulAssign(_)
            | BinOp::DivAssign(_)
            | BinOp::RemAssign(_)
            | BinOp::BitXorAssign(_)
            | BinOp::BitAndAssign(_)
            | BinOp::BitOrAssign(_)
            | BinOp::ShlAssign(_)
            | BinOp::ShrAssign(_)
    )
}

/// Whether an expression statement needs no semicolon after it.
fn ends_alone(expression: &Expr) -> bool {
    matches!(
        expression,
        Expr::If(_)
            | Expr::Match(_)
            | Expr::Block(_)
            | Expr::Unsafe(_)
            | Expr::Const(_)
            | Expr::ForLoop(_)
            | Expr::While(_)
            | Expr::Loop(_)
    )
}

/// Where the first line of `gap`, which holds only blanks and comments, ends; a block comment may span lines.
fn end_of_line(gap: &str) -> usize {
    let bytes = gap.as_bytes();
    let (mut at, mut depth, mut in_line) = (0, 0usize, false);
    while at < bytes.len() {
        match &bytes[at..] {
            [b'\n', ..] if depth == 0 => return at,
            [b'/', b'/', ..] if depth == 0 => in_line = true,
            [b'/', b'*', ..] if !in_line => {
                depth += 1;
                at += 1;
            }
            [b'*', b'/', ..] if depth > 0 => {
                depth -= 1;
                at += 1;
            }
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// Where the last blank line of `gap` ends: comments below it belong to what follows. 0 if there is none.
fn last_blank_line(gap: &str) -> usize {
    let (mut at, mut found) = (0, 0);
    for (index, line) in gap.split_inclusive('\n').enumerate() {
        at += line.len();
        if index > 0 && line.ends_with('\n') && line.trim().is_empty() {
            found = at;
        }
    }
    found
}
