//! The cells that were run, for consoles that go back to them.

use std::sync::{Arc, Mutex, PoisonError};

use jupyter_protocol::HistoryRequest;
use serde_json::{Value, json};

/// The number and the code of each cell of this session, in order.
#[derive(Clone, Default)]
pub(crate) struct History(Arc<Mutex<Vec<(u32, String)>>>);

impl History {
    pub(crate) fn add(&self, count: u32, code: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((count, code.to_owned()));
    }

    /// The content of a `history_reply`. Outputs are not kept; where they are asked for they are null.
    pub(crate) fn reply(&self, asked: &HistoryRequest) -> Value {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (chosen, output): (Vec<&(u32, String)>, bool) = match asked {
            HistoryRequest::Tail { n, output, .. } => (tail(all.iter().collect(), *n), *output),
            HistoryRequest::Range { session, start, stop, output, .. } => {
                let this = session.is_none_or(|session| session == 0);
                let inside = |count: i64| {
                    count >= i64::from(*start) && (*stop <= 0 || count < i64::from(*stop))
                };
                (
                    all.iter().filter(|(count, _)| this && inside(i64::from(*count))).collect(),
                    *output,
                )
            }
            HistoryRequest::Search { pattern, unique, output, n, .. } => {
                let mut found: Vec<_> =
                    all.iter().filter(|(_, code)| matches(pattern, code)).collect();
                if *unique {
                    let mut seen = std::collections::HashSet::new();
                    found.reverse();
                    found.retain(|(_, code)| seen.insert(code.as_str()));
                    found.reverse();
                }
                (tail(found, *n), *output)
            }
        };
        let entry = |(count, code): &(u32, String)| {
            if output { json!([0, count, [code, null]]) } else { json!([0, count, code]) }
        };
        json!({ "status": "ok", "history": chosen.into_iter().map(entry).collect::<Vec<_>>() })
    }
}

/// The last `n`; all for 0.
fn tail(all: Vec<&(u32, String)>, n: i32) -> Vec<&(u32, String)> {
    let n = usize::try_from(n).ok().filter(|n| *n > 0).unwrap_or(all.len());
    let skipped = all.len().saturating_sub(n);
    all.into_iter().skip(skipped).collect()
}

/// Whether a pattern of the shell's kind, with `*` and `?`, fits the whole text.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            // What the last star took was too short: it takes one character more.
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, t) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(history: &History, asked: HistoryRequest) -> Vec<String> {
        let reply = history.reply(&asked);
        let entries = reply["history"].as_array().unwrap().iter();
        entries.map(|entry| entry[2].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn history_is_found_by_range_by_the_end_and_by_pattern() {
        let history = History::default();
        for (count, code) in [(1, "let a = 1;"), (2, "a"), (3, "let b = 2;"), (4, "a")] {
            history.add(count, code);
        }
        let range =
            HistoryRequest::Range { session: None, start: 2, stop: 4, output: false, raw: true };
        assert_eq!(codes(&history, range), ["a", "let b = 2;"]);
        let end = HistoryRequest::Tail { n: 2, output: false, raw: true };
        assert_eq!(codes(&history, end), ["let b = 2;", "a"]);
        let search = |pattern: &str, unique| HistoryRequest::Search {
            pattern: pattern.to_owned(),
            unique,
            output: false,
            raw: true,
            n: 0,
        };
        assert_eq!(codes(&history, search("let ? = *", false)), ["let a = 1;", "let b = 2;"]);
        assert_eq!(codes(&history, search("a", true)), ["a"]);
        let reply = history.reply(&HistoryRequest::Tail { n: 1, output: true, raw: true });
        assert_eq!(reply["history"][0], json!([0, 4, ["a", null]]));
    }
}
