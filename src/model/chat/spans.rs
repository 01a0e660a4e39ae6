//! Where each message stands in a rendered conversation: it is rendered once more with marks around
//! every message's words.

use std::ops::Range;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::Chat;

/// Characters for private use, two for each message.
const FIRST: u32 = 0xF0000;

/// The marks around a message's words; absent where it has none.
pub(super) type Mark = Option<[char; 2]>;

/// The conversation with marks inside the white space around each text: templates trim that.
pub(super) fn marked(chat: &Chat) -> (Chat, Vec<Mark>) {
    let mut marked = chat.clone();
    // The copy is not judged by who spoke last: only texts change.
    let marks = marked.messages.iter_mut().enumerate().map(|(i, message)| {
        let pair = [2 * i as u32, 2 * i as u32 + 1].map(|n| char::from_u32(FIRST + n));
        let [Some(open), Some(close)] = pair else { return None };
        let Some(Value::String(text)) = message.get_mut("content") else { return None };
        let words = text.trim();
        if words.is_empty() {
            return None;
        }
        let (before, after) = (text.len() - text.trim_start().len(), text.trim_end().len());
        *text = format!("{}{open}{words}{close}{}", &text[..before], &text[after..]);
        Some([open, close])
    });
    let marks = marks.collect();
    (marked, marks)
}

/// The bytes of each message's words in `text`, from where the marks stand.
pub(super) fn found(text: &str, marked: &str, marks: &[Mark]) -> Result<Vec<Range<usize>>> {
    let is_mark = |c: char| (FIRST..=0x10_FFFF).contains(&(c as u32));
    let plain: String = marked.chars().filter(|c| !is_mark(*c)).collect();
    ensure!(
        plain == text,
        "the chat template does more with the messages than to place them: their positions are unknown"
    );
    let mut ranges = Vec::new();
    let mut last = 0;
    for (i, mark) in marks.iter().enumerate() {
        let Some(mark) = mark else {
            ranges.push(last..last);
            continue;
        };
        let [from, to] = mark.map(|mark| {
            let before = marked.split_once(mark)?.0;
            Some(before.chars().filter(|c| !is_mark(*c)).map(char::len_utf8).sum::<usize>())
        });
        let range = from.zip(to).filter(|(from, to)| from < to);
        ensure!(range.is_some(), "the chat template leaves out message {i}");
        let (from, to) = range.unwrap_or_default();
        ranges.push(from..to);
        last = to;
    }
    Ok(ranges)
}
