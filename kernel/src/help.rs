//! Completions and explanations. Jupyter counts characters, evcxr bytes.

use serde_json::{Value, json};

use crate::engine::Engine;

/// The content of a `complete_reply`.
pub(crate) fn complete(engine: Option<&mut Engine>, code: &str, cursor: usize) -> Value {
    let found = engine.and_then(|engine| engine.completions(code, byte_of(code, cursor)));
    let Some(found) = found else {
        return json!({ "status": "ok", "matches": [], "cursor_start": cursor, "cursor_end": cursor, "metadata": {} });
    };
    let (start, end) = (char_of(code, found.start_offset), char_of(code, found.end_offset));
    let matches: Vec<&str> = found.completions.iter().map(|one| one.code.as_str()).collect();
    let kinds: Vec<Value> = (found.completions.iter())
        .map(|one| json!({ "text": one.code, "type": one.kind, "start": start, "end": end, "signature": one.label }))
        .collect();
    json!({
        "status": "ok", "matches": matches, "cursor_start": start, "cursor_end": end,
        "metadata": { "_jupyter_types_experimental": kinds },
    })
}

/// The content of an `inspect_reply`.
pub(crate) fn inspect(engine: Option<&mut Engine>, code: &str, cursor: usize) -> Value {
    let at = end_of_name(code, byte_of(code, cursor));
    match engine.and_then(|engine| engine.explain(code, at)) {
        Some((text, html)) => {
            json!({ "status": "ok", "found": true, "data": { "text/plain": text, "text/html": html }, "metadata": {} })
        }
        None => json!({ "status": "ok", "found": false, "data": {}, "metadata": {} }),
    }
}

/// The end of the name in which the cursor stands: evcxr explains the name that ends at a place.
fn end_of_name(code: &str, at: usize) -> usize {
    let in_name = |c: char| c.is_alphanumeric() || c == '_';
    at + code[at..].find(|c| !in_name(c)).unwrap_or(code.len() - at)
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
    }
}
