//! Completions and explanations. Jupyter counts characters, evcxr bytes.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::docs::{Docs, Entry};
use crate::engine::Engine;

/// What every type has and nobody looks for: last in the list.
const COMMON: [&str; 9] = [
    "borrow",
    "borrow_mut",
    "clone",
    "clone_from",
    "clone_into",
    "into",
    "to_owned",
    "try_into",
    "type_id",
];

/// The content of a `complete_reply`.
pub(crate) fn complete(engine: Option<&mut Engine>, code: &str, cursor: usize) -> Value {
    let at = byte_of(code, cursor);
    let found = engine.and_then(|engine| {
        let found = engine.completions(code, at)?;
        let owner = owner(engine, code, found.start_offset);
        Some((found, owner, engine.docs()))
    });
    let Some((found, owner, docs)) = found else {
        return json!({ "status": "ok", "matches": [], "cursor_start": cursor, "cursor_end": cursor, "metadata": {} });
    };
    let (start, end) = (char_of(code, found.start_offset), char_of(code, found.end_offset));
    let mut offers: Vec<Offer> = (found.completions.iter())
        .filter_map(|one| Offer::of(&one.code, one.kind, &docs, owner.as_deref()))
        .collect();
    let mut seen = HashSet::new();
    offers.retain(|offer| seen.insert(offer.insert.clone()));
    offers.sort_by_key(|offer| COMMON.contains(&offer.name.as_str()));
    let matches: Vec<&str> = offers.iter().map(|offer| offer.insert.as_str()).collect();
    let kinds: Vec<Value> = (offers.iter())
        .map(|offer| {
            let Offer { insert, kind, signature, sentence, .. } = offer;
            json!({ "text": insert, "type": kind, "start": start, "end": end, "signature": signature,
                    "documentation": sentence })
        })
        .collect();
    json!({
        "status": "ok", "matches": matches, "cursor_start": start, "cursor_end": end,
        "metadata": { "_jupyter_types_experimental": kinds },
    })
}

/// One line of the list.
#[derive(Debug, PartialEq)]
struct Offer {
    name: String,
    /// What goes into the cell: a name, with brackets where nothing must stand between them.
    insert: String,
    kind: String,
    signature: String,
    sentence: String,
}

impl Offer {
    /// Nothing for what a notebook cannot name.
    fn of(completion: &str, kind: &str, docs: &Docs, owner: Option<&str>) -> Option<Offer> {
        let name = completion.split('(').next().unwrap_or(completion).to_owned();
        let known = match owner {
            Some(owner) => docs.entry(owner, &name),
            None => docs.entry("", &name),
        };
        let hidden = known.is_some_and(|entry| owner.is_some() && !entry.public);
        // A private field may have the name of the method that gives it.
        let field = known.is_some_and(Entry::is_method) && !completion.contains('(');
        if hidden || field || name == "evcxr_display" {
            return None;
        }
        let insert = if completion.ends_with("()") { completion.to_owned() } else { name.clone() };
        let kind = if completion.contains('(') { "function" } else { kind };
        let (signature, sentence) = match known {
            Some(Entry { signature, sentence, .. }) => (signature.clone(), sentence.clone()),
            None => (completion.to_owned(), String::new()),
        };
        Some(Offer { name, insert, kind: kind.to_owned(), signature, sentence })
    }
}

/// The library's type whose items are completed at a place: what stands before `::`, or, after a dot, the type that
/// has the methods that evcxr offers right after the dot.
fn owner(engine: &mut Engine, code: &str, start: usize) -> Option<String> {
    let before = &code[..start];
    if let Some(path) = before.strip_suffix("::") {
        let name = path.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next()?;
        return Some(name.to_owned());
    }
    before.strip_suffix('.')?;
    let all = engine.completions(before, start)?;
    let names: HashSet<&str> =
        all.completions.iter().filter_map(|one| one.code.split('(').next()).collect();
    Some(engine.docs().owner(&names).unwrap_or("a type of another crate").to_owned())
}

/// The content of an `inspect_reply`.
pub(crate) fn inspect(engine: Option<&mut Engine>, code: &str, cursor: usize) -> Value {
    let at = end_of_name(code, byte_of(code, cursor));
    let found = engine.and_then(|engine| {
        // evcxr explains a method where a call begins, and a field or a function where a name ends.
        let called = is_method(&code[..at]).then(|| format!("{}(", &code[..at]));
        let method = called.and_then(|called| engine.explain(&called, called.len()));
        method.or_else(|| engine.explain(code, at))
    });
    match found {
        Some((text, html)) => {
            let (text, html) = (without_hidden_lines(&text), without_hidden_lines(&html));
            json!({ "status": "ok", "found": true, "data": { "text/plain": text, "text/html": html }, "metadata": {} })
        }
        None => json!({ "status": "ok", "found": false, "data": {}, "metadata": {} }),
    }
}

/// Examples hold lines that only make them compile.
fn without_hidden_lines(text: &str) -> String {
    let shown = text.lines().filter(|line| !line.starts_with("# ") && *line != "#");
    shown.collect::<Vec<_>>().join("\n")
}

fn is_method(code: &str) -> bool {
    let name = code.rfind(|c| !in_name(c));
    name.is_some_and(|at| code[at..].starts_with('.'))
}

/// The end of the name in which the cursor stands, or of the name that is called there.
fn end_of_name(code: &str, at: usize) -> usize {
    let after = at + code[at..].find(|c| !in_name(c)).unwrap_or(code.len() - at);
    if after > at || !code[..at].ends_with(')') {
        return after;
    }
    let mut depth = 0;
    for (place, c) in code[..at].char_indices().rev() {
        match c {
            ')' => depth += 1,
            '(' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return place;
        }
    }
    at
}

fn in_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn byte_of(code: &str, characters: usize) -> usize {
    code.char_indices().nth(characters).map_or(code.len(), |(byte, _)| byte)
}

fn char_of(code: &str, byte: usize) -> usize {
    code.char_indices().take_while(|(at, _)| *at < byte).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_characters() {
        let code = "let ö = \"日本\"; ö.len";
        assert_eq!(byte_of(code, 5), 6);
        assert_eq!(char_of(code, byte_of(code, 12)), 12);
        assert_eq!(byte_of(code, 1000), code.len());
    }

    #[test]
    fn the_name_under_the_cursor_is_the_one_explained() {
        assert_eq!(end_of_name("model.run(x)", 7), 9);
        assert_eq!(end_of_name("model.run(x)", 9), 9);
        assert_eq!(end_of_name("model.run(&t, f(1))", 19), 9);
        assert_eq!(end_of_name(")", 1), 1);
    }

    #[test]
    fn a_method_is_told_from_a_function() {
        assert!(is_method("model.run") && is_method("Plan::new().cache"));
        assert!(!is_method("Plan::new") && !is_method("heatmap"));
    }

    #[test]
    fn an_offer_is_a_name_with_brackets_only_where_they_stay_empty() {
        let docs = Docs::default();
        let insert = |completion| Offer::of(completion, "function", &docs, None).unwrap().insert;
        assert_eq!(insert("run(&tokens, plan)"), "run");
        assert_eq!(insert("config()"), "config()");
        assert!(Offer::of("evcxr_display()", "function", &docs, None).is_none());
    }
}
