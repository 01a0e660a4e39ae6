//! Small things that whoever asks a server needs.

use std::fmt;

/// Scheme, host and port of an address.
pub(crate) fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find(['/', '?', '#', '\\']).map_or(url.len(), |at| host + at);
    &url[..end]
}

/// Whether an address is one of this machine, which no proxy leads to.
pub(crate) fn is_local(url: &str) -> bool {
    let host = origin(url).split("://").nth(1).unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    ["localhost", "127.0.0.1", "[::1]"].contains(&host)
}

/// A message from elsewhere as part of a line: no line breaks, no control characters, not long.
pub(crate) fn one_line(message: &dyn fmt::Display) -> String {
    let text = message.to_string();
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let plain: String = words.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
    if plain.len() < words.len() { plain + " ..." } else { plain }
}

/// Characters of a message from elsewhere.
const LONGEST: usize = 300;
