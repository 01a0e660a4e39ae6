//! Takes what a cell writes on standard output apart: text, things shown, and evcxr's marker lines.

use serde_json::Value;

use crate::wire::Bundle;

const BEGIN: &str = "EVCXR_BEGIN_CONTENT ";
const END: &str = "EVCXR_END_CONTENT";
/// All of evcxr's marker lines begin like this.
const MARKER: &str = "EVCXR_";
pub(crate) const PANIC: &str = "EVCXR_PANIC_NOTIFICATION";
pub(crate) const RETURNED: &str = "EVCXR_ERROR_OCCURRED";
const OTHER_MARKERS: [&str; 2] = ["EVCXR_VARIABLE_CHANGED_TYPE:", "EVCXR_INPUT_REQUEST"];

/// A part of the output.
#[derive(Debug, PartialEq)]
pub(crate) enum Piece {
    Text(String),
    /// One MIME type between marker lines.
    Block(String, Value),
    /// A message behind the mark: the JSON of it.
    Marked(Value),
    /// A line that evcxr must see.
    Marker(String),
}

/// The scanner: bytes in, pieces out, in order.
#[derive(Debug)]
pub(crate) struct Scanner {
    mark: String,
    held: Vec<u8>,
}

impl Scanner {
    pub(crate) fn new(mark: &str) -> Scanner {
        Scanner { mark: mark.to_owned(), held: Vec::new() }
    }

    /// The pieces that are whole after these bytes. A marker stands anywhere in a line; one that is not whole is held
    /// back until the rest of it comes.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<Piece> {
        self.held.extend_from_slice(bytes);
        let mut pieces = Vec::new();
        while let Some(start) = self.next_marker() {
            self.take_text(start, &mut pieces);
            let Some((piece, length)) = self.marker() else { return pieces };
            pieces.push(piece);
            self.held.drain(..length);
        }
        let whole = self.held.len() - self.broken_tail();
        self.take_text(whole, &mut pieces);
        pieces
    }

    fn next_marker(&self) -> Option<usize> {
        let marked = find(&self.held, self.mark.as_bytes(), 0);
        let mut evcxr = find(&self.held, MARKER.as_bytes(), 0);
        // Text that only begins like a marker is text.
        while let Some(at) = evcxr
            && !self.may_be_marker(at)
        {
            evcxr = find(&self.held, MARKER.as_bytes(), at + 1);
        }
        marked.into_iter().chain(evcxr).min()
    }

    fn may_be_marker(&self, at: usize) -> bool {
        let rest = &self.held[at..];
        [BEGIN, PANIC, RETURNED].iter().chain(&OTHER_MARKERS).any(|marker| {
            let length = marker.len().min(rest.len());
            rest[..length] == marker.as_bytes()[..length]
        })
    }

    /// The marker that the held bytes begin with, if it is whole, and its length.
    fn marker(&self) -> Option<(Piece, usize)> {
        let end = find(&self.held, b"\n", 0)?;
        let line = String::from_utf8_lossy(&self.held[..end]).into_owned();
        if let Some(json) = line.strip_prefix(&self.mark) {
            let piece = match serde_json::from_str(json) {
                Ok(value) => Piece::Marked(value),
                Err(_) => Piece::Text(format!("{json}\n")),
            };
            return Some((piece, end + 1));
        }
        let Some(mime) = line.strip_prefix(BEGIN) else {
            return Some((Piece::Marker(line), end + 1));
        };
        // A panic inside a block ends it.
        let stop = [format!("\n{END}\n"), format!("\n{PANIC}\n")]
            .into_iter()
            .filter_map(|stop| Some((find(&self.held, stop.as_bytes(), end)?, stop)))
            .min()?;
        let (at, stop) = stop;
        if stop.contains(PANIC) {
            return Some((Piece::Marker(PANIC.to_owned()), at + stop.len()));
        }
        let content = String::from_utf8_lossy(self.held.get(end + 1..at).unwrap_or(b""));
        let value = Some(mime)
            .filter(|mime| mime.contains("json"))
            .and_then(|_| serde_json::from_str(&content).ok())
            .unwrap_or_else(|| Value::String(content.into_owned()));
        Some((Piece::Block(mime.trim().to_owned(), value), at + stop.len()))
    }

    /// How many bytes at the end may be the begin of a marker or of a character.
    fn broken_tail(&self) -> usize {
        let held = &self.held;
        let start_of = |marker: &[u8]| {
            (1..marker.len().min(held.len() + 1)).rev().find(|n| held.ends_with(&marker[..*n]))
        };
        let marker = start_of(self.mark.as_bytes()).into_iter().chain(start_of(MARKER.as_bytes()));
        let character = match std::str::from_utf8(held) {
            Err(error) if error.error_len().is_none() => held.len() - error.valid_up_to(),
            _ => 0,
        };
        marker.max().unwrap_or(0).max(character)
    }

    fn take_text(&mut self, length: usize, pieces: &mut Vec<Piece>) {
        if length > 0 {
            let text = String::from_utf8_lossy(&self.held[..length]).into_owned();
            self.held.drain(..length);
            pieces.push(Piece::Text(text));
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8], from: usize) -> Option<usize> {
    let found = bytes.get(from..)?.windows(wanted.len()).position(|window| window == wanted)?;
    Some(from + found)
}

/// Puts blocks together: blocks of different MIME types that follow each other show one thing.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    open: Bundle,
}

impl Blocks {
    /// Adds a block; what was shown before, if this block begins another thing.
    pub(crate) fn add(&mut self, mime: String, content: Value) -> Option<Bundle> {
        let before = if self.open.contains_key(&mime) { self.take() } else { None };
        self.open.insert(mime, content);
        before
    }

    /// The thing that was put together so far.
    pub(crate) fn take(&mut self) -> Option<Bundle> {
        let open = std::mem::take(&mut self.open);
        (!open.is_empty()).then_some(open)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn all(chunks: &[&str]) -> Vec<Piece> {
        let mut scanner = Scanner::new("\u{2}mark ");
        let mut pieces: Vec<Piece> = Vec::new();
        for piece in
            chunks.iter().flat_map(|chunk| scanner.feed(chunk.as_bytes())).collect::<Vec<_>>()
        {
            match (pieces.last_mut(), piece) {
                (Some(Piece::Text(before)), Piece::Text(text)) => before.push_str(&text),
                (_, piece) => pieces.push(piece),
            }
        }
        assert!(scanner.held.is_empty());
        pieces
    }

    fn text(text: &str) -> Piece {
        Piece::Text(text.to_owned())
    }

    #[test]
    fn a_partial_line_is_told_at_once() {
        let mut scanner = Scanner::new("\u{2}mark ");
        assert_eq!(scanner.feed(b"50 %\r"), [text("50 %\r")]);
    }

    #[test]
    fn markers_are_found_anywhere_in_a_line_and_however_the_bytes_are_cut() {
        let output = "depth 3\u{2}mark {\"data\":{}}\nEVCXR_BEGIN_CONTENT text/plain\na\nb\nEVCXR_END_CONTENT\n\
                      almost EVCXR_PANIC_NOTIFICATION\nEVCXR_ else\n";
        let wanted = [
            text("depth 3"),
            Piece::Marked(json!({ "data": {} })),
            Piece::Block("text/plain".to_owned(), json!("a\nb")),
            text("almost "),
            Piece::Marker(PANIC.to_owned()),
            text("EVCXR_ else\n"),
        ];
        assert_eq!(all(&[output]), wanted);
        for cut in 0..output.len() {
            assert_eq!(all(&[&output[..cut], &output[cut..]]), wanted, "cut at {cut}");
        }
    }

    #[test]
    fn json_blocks_become_objects_and_empty_ones_empty_text() {
        let output = "EVCXR_BEGIN_CONTENT application/vnd.plotly.v1+json\n{\"data\":[1]}\nEVCXR_END_CONTENT\n\
                      EVCXR_BEGIN_CONTENT text/plain\n\nEVCXR_END_CONTENT\n";
        assert_eq!(
            all(&[output]),
            [
                Piece::Block("application/vnd.plotly.v1+json".to_owned(), json!({ "data": [1] })),
                Piece::Block("text/plain".to_owned(), json!("")),
            ]
        );
    }

    #[test]
    fn a_panic_inside_a_block_is_still_seen() {
        let output = "EVCXR_BEGIN_CONTENT text/plain\nhalf\nEVCXR_PANIC_NOTIFICATION\nafter\n";
        assert_eq!(all(&[output]), [Piece::Marker(PANIC.to_owned()), text("after\n")]);
    }

    #[test]
    fn blocks_of_different_types_are_one_thing_and_a_repeated_type_begins_another() {
        let mut blocks = Blocks::default();
        assert!(blocks.add("text/html".to_owned(), json!("<b>1</b>")).is_none());
        assert!(blocks.add("text/plain".to_owned(), json!("1")).is_none());
        let first = blocks.add("text/plain".to_owned(), json!("2")).unwrap();
        assert_eq!(first.len(), 2);
        assert_eq!(blocks.take().unwrap().len(), 1);
        assert!(blocks.take().is_none());
    }
}
