//! Names that pages mention exist: files of the repository, and what the library offers.
//!
//! In columns of tables headed `thalweg` or `function` every code span is read as a call; elsewhere spans that begin
//! with `thalweg::`, and paths such as `src/model/forward.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::Report;
use crate::markdown::{self, Piece};
use crate::sources::nearest;

/// Folders of the repository that a path in a page may begin with.
const FOLDERS: &[&str] =
    &["src/", "tests/", "notebooks/", "data/", "examples/", "benches/", "kernel/", "book/"];
/// Types of other crates, and enum variants of the standard library.
const FOREIGN: &[&str] = &[
    "Tensor", "Device", "Kind", "Vec", "Some", "None", "Ok", "Err", "HashMap", "Arc", "String",
    "Path",
];
/// Methods of other crates' types, and macros.
const FOREIGN_METHODS: &[&str] = &[
    "matmul",
    "mean",
    "save",
    "iter",
    "map",
    "collect",
    "unwrap",
    "select",
    "detach",
    "double_value",
    "parse",
    "into",
    "clone",
    "print",
    "println",
    "vec",
    "norm",
    "to_device",
    "to_kind",
    "transpose",
    "topk",
    "argmax",
    "as_slice",
    "tr",
    "dot",
];

/// What the library offers, read from its sources.
#[derive(Debug, Default)]
struct Library {
    functions: BTreeSet<String>,
    members: BTreeMap<String, BTreeSet<String>>,
}

/// Adds to the report every name in book/src that does not exist.
pub(crate) fn check(root: &Path, report: &mut Report) -> Result<()> {
    let library = Library::read(&root.join("src"))?;
    for path in files(&root.join("book/src"), "md")? {
        let name = path.strip_prefix(root)?.display().to_string();
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {name}"))?;
        for span in spans(&text) {
            let wrong = wrong(&span, root, &library, report);
            report.faults.extend(wrong.map(|told| format!("{name}: `{}`: {told}", span.code)));
        }
    }
    Ok(())
}

/// A code span, and whether it stands in a column of calls.
#[derive(Debug, PartialEq, Eq)]
struct Span {
    code: String,
    call: bool,
}

fn wrong(span: &Span, root: &Path, library: &Library, report: &mut Report) -> Option<String> {
    let code = span.code.as_str();
    if FOLDERS.iter().any(|folder| code.starts_with(folder))
        && !code.contains(['*', '<', '{', ' ', '.']) | code.contains(".rs")
    {
        report.names += 1;
        return (!root.join(code).exists()).then(|| "no such file".to_owned());
    }
    if !span.call && !code.starts_with("thalweg::") {
        return None;
    }
    report.names += 1;
    library.missing(code)
}

/// The code spans of a page, fenced blocks left out.
fn spans(text: &str) -> Vec<Span> {
    let mut found = Vec::new();
    let mut calls: Vec<bool> = Vec::new(); // which columns of the table at hand hold calls
    let plain = markdown::pieces(text).into_iter().map(|piece| match piece {
        Piece::Code(code) if code.starts_with("```") => "",
        Piece::Code(text) | Piece::Text(text) => text,
    });
    for line in plain.collect::<String>().lines() {
        let row = line.trim_start().starts_with('|');
        let cells = if row { cells(line) } else { vec![line.to_owned()] };
        if !row {
            calls.clear();
        } else if calls.is_empty() {
            calls =
                cells.iter().map(|cell| ["thalweg", "function"].contains(&cell.trim())).collect();
        }
        for (column, cell) in cells.iter().enumerate() {
            let call = row && calls.get(column).copied().unwrap_or_default();
            for piece in markdown::pieces(cell) {
                if let Piece::Code(code) = piece {
                    found.push(Span {
                        code: code.trim_matches('`').trim().replace("\\|", "|"),
                        call,
                    });
                }
            }
        }
    }
    found
}

/// The cells of a table's row.
fn cells(line: &str) -> Vec<String> {
    let line = line.trim().trim_start_matches('|').trim_end_matches('|').replace("\\|", "\0");
    line.split('|').map(|cell| cell.replace('\0', "|")).collect()
}

impl Library {
    fn read(src: &Path) -> Result<Library> {
        let mut library = Library::default();
        for path in files(src, "rs")? {
            let text = fs::read_to_string(&path)?;
            library.add(&text);
            let modules = [path.file_stem(), path.parent().and_then(Path::file_name)];
            let modules = modules.into_iter().flatten();
            library.functions.extend(modules.map(|name| name.to_string_lossy().into_owned()));
        }
        Ok(library)
    }

    /// Adds what one file offers. The code is formatted, so that what stands in column 0 opens and ends an item.
    fn add(&mut self, text: &str) {
        let mut of: Option<String> = None;
        for line in text.lines() {
            let opened = ["pub struct ", "pub enum ", "pub trait ", "pub type "]
                .iter()
                .find_map(|word| line.strip_prefix(word));
            if let Some(name) = opened.map(identifier) {
                self.members.entry(name.to_owned()).or_default();
                of = (!line.ends_with(';')).then(|| name.to_owned());
            } else if line.starts_with("impl") {
                let head = line.split(" for ").last().unwrap_or_default();
                let head = head.trim_start_matches("impl").trim_start();
                let head = if head.starts_with('<') {
                    head.split_once("> ").map_or("", |(_, rest)| rest)
                } else {
                    head
                };
                of = Some(identifier(head).to_owned());
            } else if line.starts_with('}') {
                of = None;
            } else if let Some(name) = line.strip_prefix("pub fn ") {
                self.functions.insert(identifier(name).to_owned());
            } else if let (Some(of), Some(inner)) = (&of, line.strip_prefix("    ")) {
                let inner = inner.strip_prefix("pub ").unwrap_or(inner);
                let inner = ["const fn ", "fn ", "const "]
                    .iter()
                    .find_map(|word| inner.strip_prefix(word))
                    .unwrap_or(inner);
                let name = identifier(inner);
                if !name.is_empty() {
                    self.members.entry(of.clone()).or_default().insert(name.to_owned());
                }
            }
        }
    }

    /// What of a call does not exist.
    fn missing(&self, code: &str) -> Option<String> {
        let words = words(code);
        for (at, word) in words.iter().enumerate() {
            let before = at.checked_sub(1).map_or("", |at| words[at]);
            let owner = at.checked_sub(2).map_or("", |at| words[at]);
            let called = words.get(at + 1).is_some_and(|next| ["(", "!", "::"].contains(next));
            let known = match before {
                _ if !word.starts_with(|c: char| c.is_alphabetic() || c == '_') => true,
                "::" => match self.members.get(owner) {
                    Some(members) => members.contains(*word),
                    None => FOREIGN.contains(&owner) || self.is_free(word),
                },
                "." => {
                    !called
                        || FOREIGN_METHODS.contains(word)
                        || self.members.values().any(|all| all.contains(*word))
                }
                _ if word.starts_with(char::is_uppercase) => {
                    FOREIGN.contains(word) || self.members.contains_key(*word)
                }
                _ => {
                    (!called && words.len() > 1)
                        || *word == "thalweg"
                        || self.is_free(word)
                        || FOREIGN_METHODS.contains(word)
                }
            };
            if !known {
                let all = self
                    .members
                    .keys()
                    .chain(self.members.values().flatten())
                    .chain(&self.functions);
                return Some(format!(
                    "the library has no {word}; nearest: {}",
                    nearest(word, all.map(String::as_str))
                ));
            }
        }
        None
    }

    fn is_free(&self, word: &str) -> bool {
        self.functions.contains(word) || self.members.contains_key(word)
    }
}

fn identifier(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// Names, `::`, `.` and other signs of a call, without what stands in quotes.
fn words(code: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => rest[1..].find('"').map_or(rest.len(), |end| end + 2),
            ':' if rest.starts_with("::") => 2,
            '.' if rest.starts_with("..") => 2,
            c if c.is_alphanumeric() || c == '_' => identifier(rest).len(),
            c => c.len_utf8(),
        };
        if !first.is_whitespace() && first != '"' {
            words.push(&rest[..length]);
        }
        rest = &rest[length..];
    }
    words
}

fn files(dir: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut open = vec![dir.to_owned()];
    let mut found = Vec::new();
    while let Some(dir) = open.pop() {
        for item in fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))? {
            let path = item?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|own| own == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library() -> Library {
        let mut library = Library::default();
        library.add("pub fn logit_lens() {\n}\npub enum Point {\n    Pattern,\n}\nimpl Point {\n    pub fn at(self) -> u8 {\n    }\n}\nimpl<T> From<T> for Sites {\n    fn from() {\n}\n");
        library
    }

    #[test]
    fn calls_of_what_exists_pass() {
        for code in [
            "logit_lens",
            "logit_lens(&model, x)?",
            "Point::Pattern.at(5)",
            "thalweg::logit_lens",
            "f(\"nothing(\")",
        ] {
            let told = library().missing(code);
            assert_eq!(told.is_none(), !code.starts_with("f("), "{code}: {told:?}");
        }
    }

    #[test]
    fn a_name_that_does_not_exist_is_told_with_the_nearest() {
        assert_eq!(
            library().missing("Point::Patern").unwrap(),
            "the library has no Patern; nearest: Pattern"
        );
        assert_eq!(
            library().missing("logit_len(x)").unwrap(),
            "the library has no logit_len; nearest: logit_lens"
        );
        assert!(library().missing("Piont::Pattern").is_some());
    }

    #[test]
    fn only_columns_of_calls_are_read_as_calls() {
        let text = "`a`\n\n| TL | thalweg |\n|---|---|\n| `b` | `c` and `d \\| e` |\n\n```rust\nlet `f` = 1;\n```\n";
        let told: Vec<_> = spans(text).into_iter().map(|span| (span.code, span.call)).collect();
        let expected = [("a", false), ("b", false), ("c", true), ("d | e", true)];
        assert_eq!(told, expected.map(|(code, call)| (code.to_owned(), call)));
    }
}
