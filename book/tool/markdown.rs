//! Markdown as pieces of code and of text, and its links led from the repository into the book.

use std::path::{Component, Path};

/// HTML that a notebook's markdown may hold; anything else is shown as it is written.
const TAGS: &[&str] = &[
    "<details>",
    "</details>",
    "<summary>",
    "</summary>",
    "<br>",
    "<sub>",
    "</sub>",
    "<sup>",
    "</sup>",
    "<kbd>",
    "</kbd>",
];

/// A stretch of a page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// Text outside of code.
    Text(&'a str),
    /// A code span or a fenced block, with its backticks.
    Code(&'a str),
}

/// Cuts a page into code and text. Fences are backticks at the beginning of a line.
pub(crate) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut at_line_start = true;
    let mut plain = 0; // bytes of text at the front of `rest`
    while plain < rest.len() {
        let Some(tick) = rest[plain..].find('`').map(|at| at + plain) else { break };
        let run = rest[tick..].bytes().take_while(|byte| *byte == b'`').count();
        let before = rest[..tick].rsplit('\n').next().unwrap_or_default();
        let opens_line = before.trim().is_empty() && (before.len() < tick || at_line_start);
        let end = if run >= 3 && opens_line {
            fence_end(rest, tick, run)
        } else {
            span_end(rest, tick, run)
        };
        let Some(end) = end else {
            plain = tick + run;
            continue;
        };
        if tick > 0 {
            found.push(Piece::Text(&rest[..tick]));
        }
        found.push(Piece::Code(&rest[tick..end]));
        at_line_start = false;
        (rest, plain) = (&rest[end..], 0);
    }
    if !rest.is_empty() {
        found.push(Piece::Text(rest));
    }
    found
}

/// Where the fenced block that opens at `tick` ends; at the end of the page if it is never closed.
fn fence_end(text: &str, tick: usize, run: usize) -> Option<usize> {
    let mut at = tick + text[tick..].find('\n')? + 1;
    for line in text[at..].split_inclusive('\n') {
        let word = line.trim();
        if word.len() >= run && word.bytes().all(|byte| byte == b'`') {
            return Some(at + line.trim_end().len());
        }
        at += line.len();
    }
    Some(text.len())
}

/// Where the code span that opens at `tick` ends; none where its backticks stand alone in the paragraph.
fn span_end(text: &str, tick: usize, run: usize) -> Option<usize> {
    let mut at = tick + run;
    let paragraph = text[at..].find("\n\n").map_or(text.len(), |end| at + end);
    while let Some(next) = text[at..paragraph].find('`').map(|offset| at + offset) {
        let length = text[next..].bytes().take_while(|byte| *byte == b'`').count();
        at = next + length;
        if length == run {
            return Some(at);
        }
    }
    None
}

/// The page with all HTML shown as text, but for a few tags without attributes.
pub(crate) fn safe(text: &str) -> String {
    mapped(text, |text| {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('<') {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            let allowed = TAGS.iter().find(|tag| rest.starts_with(**tag));
            let address = rest.starts_with("<https://");
            out.push_str(if address { "<" } else { allowed.copied().unwrap_or("&lt;") });
            rest = &rest[allowed.map_or(1, |tag| tag.len())..];
        }
        out + rest
    })
}

/// The page with `change` applied to its text and its code kept.
pub(crate) fn mapped(text: &str, change: impl Fn(&str) -> String) -> String {
    let parts = pieces(text).into_iter();
    parts
        .map(|piece| match piece {
            Piece::Text(text) => change(text),
            Piece::Code(code) => code.to_owned(),
        })
        .collect()
}

/// Where a relative link of a page leads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// To this path, written relative to the page.
    To(String),
    /// To a file of the repository that the book does not hold: its words stay, the link goes.
    Words,
    /// Leave it as it is.
    Same,
}

/// The page with each inline link's target led elsewhere. Code between the brackets of a link is allowed.
pub(crate) fn relinked(text: &str, mut lead: impl FnMut(&str) -> Target) -> String {
    let fenced: Vec<(usize, usize)> = code_ranges(text);
    let mut out = String::new();
    let mut done = 0;
    let mut from = 0;
    while let Some(at) = text[from..].find("](").map(|at| at + from) {
        from = at + 2;
        if fenced.iter().any(|(start, end)| (*start..*end).contains(&at)) {
            continue;
        }
        let Some(end) = text[from..].find(')').map(|end| end + from) else { break };
        let target = &text[from..end];
        match lead(target) {
            Target::Same => continue,
            Target::To(path) => {
                out.push_str(&text[done..from]);
                out.push_str(&path);
                done = end;
            }
            Target::Words => {
                let Some(open) = text[done..at].rfind('[').map(|open| open + done) else {
                    continue;
                };
                out.push_str(&text[done..open]);
                out.push_str(&text[open + 1..at]);
                done = end + 1;
            }
        }
        from = end;
    }
    out + &text[done..]
}

fn code_ranges(text: &str) -> Vec<(usize, usize)> {
    let mut at = 0;
    let mut ranges = Vec::new();
    for piece in pieces(text) {
        let (Piece::Text(part) | Piece::Code(part)) = piece;
        if matches!(piece, Piece::Code(_)) {
            ranges.push((at, at + part.len()));
        }
        at += part.len();
    }
    ranges
}

/// `link`, taken from a file in the folder `dir`, as a path from the root; none where it leaves the root.
pub(crate) fn resolved(dir: &Path, link: &str) -> Option<String> {
    let mut parts: Vec<String> = Vec::new();
    for part in dir.join(link).components() {
        match part {
            Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            Component::ParentDir => {
                parts.pop()?;
            }
            _ => {}
        }
    }
    Some(parts.join("/"))
}

/// The relative path that leads from a file in the folder `from` to `to`, both from one root.
pub(crate) fn relative(from: &Path, to: &str) -> String {
    "../".repeat(from.components().count()) + to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fences_and_spans_are_code_and_lone_backticks_are_not() {
        let text = "a `b` c\n```rust\nd `e\n```\nf ` g";
        let code: Vec<_> = pieces(text)
            .into_iter()
            .filter_map(|piece| if let Piece::Code(code) = piece { Some(code) } else { None })
            .collect();
        assert_eq!(code, ["`b`", "```rust\nd `e\n```"]);
        let whole: String =
            pieces(text).iter().map(|(Piece::Text(t) | Piece::Code(t))| *t).collect();
        assert_eq!(whole, text);
    }

    #[test]
    fn only_tags_without_attributes_pass() {
        let text = "<details><summary>S</summary> a < b <img onerror=x> `<b>` <details open>";
        let told =
            "<details><summary>S</summary> a &lt; b &lt;img onerror=x> `<b>` &lt;details open>";
        assert_eq!(safe(text), told);
    }

    #[test]
    fn links_are_led_on_or_become_words_and_code_is_left_alone() {
        let text = "[a](x.md) and [`b`](y) and `[c](x.md)` and ![d](z.svg)";
        let lead = |link: &str| match link {
            "x.md" => Target::To("../x.html".into()),
            "y" => Target::Words,
            _ => Target::Same,
        };
        assert_eq!(relinked(text, lead), "[a](../x.html) and `b` and `[c](x.md)` and ![d](z.svg)");
    }

    #[test]
    fn paths_are_found_from_the_root() {
        assert_eq!(resolved(Path::new("a/b"), "../c/d.md").as_deref(), Some("a/c/d.md"));
        assert_eq!(resolved(Path::new("a"), "../../d.md"), None);
        assert_eq!(relative(Path::new("course"), "models/x.md"), "../models/x.md");
    }
}
