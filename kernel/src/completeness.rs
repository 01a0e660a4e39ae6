//! Whether code can be run as it stands, for consoles that ask at the end of a line.

use proc_macro2::{TokenStream, TokenTree};
use syn::parse::Parser;

/// What the code is.
#[derive(Debug, PartialEq)]
pub(crate) enum Completeness {
    Complete,
    /// More must follow; the next line is indented by this.
    Incomplete(String),
    Invalid,
}

/// Judges code as a cell: commands such as `:dep` by the line, all else as the inside of a Rust block.
pub(crate) fn of(code: &str) -> Completeness {
    let rust = without_commands(code);
    match open_at_end(&rust) {
        Err(()) => return Completeness::Invalid,
        Ok(Some(depth)) => return Completeness::Incomplete("    ".repeat(depth)),
        Ok(None) => {}
    }
    let Ok(tokens) = rust.parse::<TokenStream>() else { return Completeness::Invalid };
    match syn::Block::parse_within.parse2(tokens) {
        Ok(_) => Completeness::Complete,
        Err(error) if at_end(&error) => Completeness::Incomplete(String::new()),
        Err(_) => Completeness::Invalid,
    }
}

fn without_commands(code: &str) -> String {
    code.lines()
        .map(|line| if line.trim_start().starts_with([':', '!']) { "\n" } else { line })
        .flat_map(|line| [line, "\n"])
        .collect()
}

/// What evcxr leaves out of a cell without a word: all behind a bracket that closes nothing, and a `let` without a name.
pub(crate) fn left_out(code: &str) -> Option<&'static str> {
    match without_commands(code).parse::<TokenStream>() {
        Err(_) => Some("a bracket or a quote closes nothing; what stands behind it was not run"),
        Ok(tokens) => nameless_let(tokens).then_some("a `let` without a name was not run"),
    }
}

fn nameless_let(tokens: TokenStream) -> bool {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let nameless = match token {
            TokenTree::Ident(word) if word == "let" => match tokens.peek() {
                None => true,
                Some(TokenTree::Punct(mark)) => matches!(mark.as_char(), '=' | ';'),
                Some(_) => false,
            },
            TokenTree::Group(group) => nameless_let(group.stream()),
            _ => false,
        };
        if nameless {
            return true;
        }
    }
    false
}

/// syn says of code that breaks off what it would have liked to see next.
fn at_end(error: &syn::Error) -> bool {
    let text = error.to_string();
    text.contains("unexpected end of input") || text == "expected `;`"
}

/// How deep the brackets that are still open nest, counting an unfinished string or comment as none; absent if all is
/// closed, an error if a bracket closes what is not open.
fn open_at_end(code: &str) -> Result<Option<usize>, ()> {
    let mut open = Vec::new();
    let mut rest = code;
    while let Some(c) = rest.chars().next() {
        let skipped = match c {
            '/' if rest.starts_with("//") => rest.find('\n').or(Some(rest.len())),
            '/' if rest.starts_with("/*") => comment(rest),
            '"' => string(rest),
            'r' | 'b' | 'c' if raw_hashes(rest).is_some() => raw_string(rest),
            '\'' => Some(character(rest)),
            _ if c.is_alphanumeric() || c == '_' => {
                rest.find(|c: char| !c.is_alphanumeric() && c != '_').or(Some(rest.len()))
            }
            '(' | '[' | '{' => {
                open.push(c);
                Some(1)
            }
            ')' | ']' | '}' => {
                let opened = match c {
                    ')' => '(',
                    ']' => '[',
                    _ => '{',
                };
                if open.pop() != Some(opened) {
                    return Err(());
                }
                Some(1)
            }
            _ => Some(c.len_utf8()),
        };
        let Some(skipped) = skipped else { return Ok(Some(0)) };
        rest = &rest[skipped..];
    }
    Ok(Some(open.len()).filter(|depth| *depth > 0))
}

/// The length of the block comment at the start; comments nest.
fn comment(text: &str) -> Option<usize> {
    let (mut depth, mut at) = (0, 0);
    loop {
        let rest = &text[at..];
        let (open, close) = (rest.find("/*"), rest.find("*/")?);
        if open.is_some_and(|open| open < close) {
            (depth, at) = (depth + 1, at + open? + 2);
        } else {
            (depth, at) = (depth - 1, at + close + 2);
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

fn string(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// The number of `#` of the raw string at the start, and where its quote stands.
fn raw_hashes(text: &str) -> Option<(usize, usize)> {
    let prefix = ["r", "br", "cr"].into_iter().find(|prefix| {
        text.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(['"', '#']))
    })?;
    let hashes = text[prefix.len()..].chars().take_while(|c| *c == '#').count();
    let quote = prefix.len() + hashes;
    text[quote..].starts_with('"').then_some((hashes, quote))
}

fn raw_string(text: &str) -> Option<usize> {
    let (hashes, quote) = raw_hashes(text)?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(quote + 1 + text[quote + 1..].find(&end)? + end.len())
}

/// The length of the character at the start, or of the quote of a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            text[2..].char_indices().skip(1).find(|(_, c)| *c == '\'').map_or(1, |(at, _)| at + 3)
        }
        Some(_) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 1,
        },
        None => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_evcxr_would_drop_is_named() {
        for code in ["let = 3;", "let a = 1;\nlet", "if a { let ; }", "}", "a); b"] {
            assert!(left_out(code).is_some(), "{code}");
        }
        for code in [
            ":dep x = {",
            "let [a, b] = c;",
            "if let Some(x) = y {}",
            "let _ = 1;",
            "let (a, b) = c;",
            "",
        ] {
            assert_eq!(left_out(code), None, "{code}");
        }
    }

    #[test]
    fn what_can_run_is_complete() {
        for code in [
            "1 + 1",
            "let x = 1;",
            "fn f() {}\nf()",
            ":dep ndarray = \"0.16\"\nuse ndarray::array;",
            "let c = '{'; let s = \"}\"; // {",
            "fn f<'a>(x: &'a str) -> &'a str { x }",
            "r#\"{ \"# /* { /* */ */",
            "'\\''",
            "",
            "model.run(&tokens, &plan)?",
        ] {
            assert_eq!(of(code), Completeness::Complete, "{code}");
        }
    }

    #[test]
    fn what_breaks_off_is_incomplete_and_says_how_deep() {
        for (code, indent) in [
            ("fn f() {", 4),
            ("let x = [1,", 4),
            ("if a { (", 8),
            ("let x =", 0),
            ("1 +", 0),
            ("let s = \"abc", 0),
            ("/* not", 0),
            ("let x = 1", 0),
            ("fn f()", 0),
        ] {
            assert_eq!(of(code), Completeness::Incomplete(" ".repeat(indent)), "{code}");
        }
    }

    #[test]
    fn what_no_continuation_mends_is_invalid() {
        for code in ["let = 3;", ")", "fn 3() {}", "(]"] {
            assert_eq!(of(code), Completeness::Invalid, "{code}");
        }
    }
}
