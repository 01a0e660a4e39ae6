//! Finds what a cell shows before its end: `display(&x);` and `x.evcxr_display();` become calls that also write
//! files.

use std::ops::Range;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// `code` with each statement that shows something turned into a call of `module`, what the export adds, with
/// a name for its files. `own` says that the notebook has
/// a function `display` of its own, which is left alone.
pub(crate) fn rewrite(code: &str, module: &str, name: &str, own: bool) -> String {
    let Ok(tokens) = code.parse::<TokenStream>() else { return code.to_owned() };
    let mut edits = Vec::new();
    find(tokens, code, own, &mut edits);
    let mut text = code.to_owned();
    for (range, call, value) in edits.into_iter().rev() {
        text.replace_range(range, &format!("{module}::{call}({name:?}, {value})"));
    }
    text
}

/// What to replace, by which function or macro, and the value it shows.
type Edit = (Range<usize>, &'static str, String);

/// Collects the edits in order.
fn find(tokens: TokenStream, code: &str, own: bool, edits: &mut Vec<Edit>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut start = 0;
    for at in 0..tokens.len() {
        if let TokenTree::Group(group) = &tokens[at] {
            let closes = at + 1 == tokens.len() || is(tokens.get(at + 1), ';');
            let call = if closes { shown(&tokens[start..=at], code, own) } else { None };
            match call {
                Some(edit) => edits.push(edit),
                None => find(group.stream(), code, own, edits),
            }
            let continues = ['.', '?'].iter().any(|sign| is(tokens.get(at + 1), *sign));
            if group.delimiter() == Delimiter::Brace && !continues {
                start = at + 1;
            }
        } else if is(tokens.get(at), ';') {
            start = at + 1;
        }
    }
}

/// The statement's place and what it shows, if it is `display(value)` or `value.evcxr_display()`.
fn shown(statement: &[TokenTree], code: &str, own: bool) -> Option<Edit> {
    let (TokenTree::Group(arguments), before) = statement.split_last()? else { return None };
    if arguments.delimiter() != Delimiter::Parenthesis {
        return None;
    }
    let range = before.first()?.span().byte_range().start..arguments.span().byte_range().end;
    let inside = arguments.span().byte_range();
    let inside = code[inside.start + 1..inside.end - 1].trim();
    let path: String = before.iter().map(ToString::to_string).collect();
    if ["display", "thalweg::display", "thalweg::prelude::display"].contains(&path.as_str()) {
        let value = inside.trim_end_matches(',');
        let theirs = own && path == "display";
        return (!theirs && !value.is_empty()).then(|| (range, "display", value.to_owned()));
    }
    let [value @ .., TokenTree::Punct(dot), TokenTree::Ident(method)] = before else { return None };
    let plain = dot.as_char() == '.' && method == "evcxr_display" && inside.is_empty();
    let first = value.first().map(ToString::to_string).unwrap_or_default();
    let bare = first == "self" && value.len() == 1; // what the export itself writes
    if !plain || value.is_empty() || bare || ["let", "return"].contains(&first.as_str()) {
        return None;
    }
    let end = dot.span().byte_range().start;
    let value = code[range.start..end].trim_end().to_owned();
    Some((range, "show!", value))
}

fn is(token: Option<&TokenTree>, sign: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == sign)
}
