//! Tokens as a reader sees them, and text that plotly's label renderer shows as it is.

use crate::grid::GridAxis;
use crate::hook::site::Axis;

/// Characters that are drawn as nothing, or that turn the text around them.
fn invisible(c: char) -> bool {
    let hidden = ['\u{ad}', '\u{feff}', '\u{61c}', '\u{180e}', '\u{3164}'];
    c.is_control()
        || hidden.contains(&c)
        || ('\u{200b}'..='\u{200f}').contains(&c)
        || ('\u{2028}'..='\u{202e}').contains(&c)
        || ('\u{2060}'..='\u{206f}').contains(&c)
}

/// A token in visible characters: newline as ↵, tab as ⇥, outer spaces as ␣, nothing as ∅, and
/// what cannot be seen by its number.
pub(super) fn visible(token: &str) -> String {
    if token.is_empty() {
        return "∅".to_string();
    }
    let lead = token.len() - token.trim_start_matches(' ').len();
    let tail = token.trim_end_matches(' ').len();
    let mut shown = String::with_capacity(token.len());
    for (at, c) in token.char_indices() {
        match c {
            ' ' if at < lead || at >= tail => shown.push('␣'),
            '\n' => shown.push('↵'),
            '\t' => shown.push('⇥'),
            c if invisible(c) => shown += &format!("\\u{{{:x}}}", c as u32),
            c => shown.push(c),
        }
    }
    shown
}

/// Text that plotly's label renderer shows as it is. It reads `<s>` as a tag, `&lt;` as an entity,
/// `$…$` as TeX where MathJax is loaded, and `%{…}` as a field of a hover template.
pub(super) fn plotly(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '$' => safe += "&#36;",
            '%' => safe += "&#37;",
            c => safe.push(c),
        }
    }
    safe
}

/// At most `most` characters, the last of them an ellipsis if any were cut.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_string();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// A number in subscript digits: 12 is ₁₂.
fn subscript(number: usize) -> String {
    let digits = number.to_string();
    digits.bytes().filter_map(|d| char::from_u32(0x2080 + u32::from(d - b'0'))).collect()
}

/// What an axis is called beside a figure.
pub(super) fn axis_name(axis: Axis) -> &'static str {
    match axis {
        Axis::Layer => "layer",
        Axis::OtherLayer => "layer of the other model",
        Axis::Batch => "prompt",
        Axis::Pos => "position",
        Axis::Query => "query position",
        Axis::Key => "key position",
        Axis::Head => "head",
        Axis::KvHead => "key/value head",
        Axis::DModel => "residual dimension",
        Axis::DHead => "head dimension",
        Axis::DMlp => "neuron",
        Axis::Vocab => "token",
        Axis::Scale => "scale",
        Axis::Component => "component",
        Axis::Plan => "plan",
        Axis::Writer => "from",
        Axis::Reader => "to",
        Axis::Pc => "principal component",
        Axis::Feature => "feature",
        Axis::Cluster => "cluster",
        Axis::Rank => "rank",
        Axis::Frequency => "frequency",
        Axis::Count => "number",
        Axis::Step | Axis::Series => "",
    }
}

/// True if labels only count, from the start or back from the end: `0`, `1`, ... or `-2`, `-1`.
fn counting(axis: &GridAxis) -> bool {
    let len = axis.len() as i64;
    let matches = |offset: i64| {
        let mut each = axis.labels.iter().zip(0..);
        each.all(|(label, i)| label.parse() == Ok(i + offset))
    };
    matches(0) || matches(-len)
}

/// True if labels are words, not numbers that count.
pub(super) fn are_words(axis: &GridAxis) -> bool {
    !counting(axis) && axis.len() > 1
}

/// A token within a line of text: its spaces stay spaces.
pub(super) fn in_line(token: &str) -> String {
    visible(token).replace('␣', " ")
}

/// The labels of an axis as figures write them, no two alike: a token carries its position as a
/// subscript (`Mary₁₂`), and so does any label that repeats.
pub(super) fn names(axis: &GridAxis, most: usize) -> Vec<String> {
    let tokens = matches!(axis.axis, Axis::Pos | Axis::Query | Axis::Key);
    let shown: Vec<String> = axis.labels.iter().map(|label| cut(&visible(label), most)).collect();
    let mut sorted = shown.clone();
    sorted.sort_unstable();
    let repeated = sorted.windows(2).any(|pair| pair[0] == pair[1]);
    if counting(axis) || !(tokens || repeated) {
        return shown;
    }
    shown.iter().enumerate().map(|(i, label)| format!("{label}{}", subscript(i))).collect()
}

/// The labels of an axis as they stand alone: a bare number says what it counts, `prompt 12`.
pub(super) fn spoken(axis: &GridAxis) -> Vec<String> {
    let name = if counting(axis) { axis_name(axis.axis) } else { "" };
    let names = names(axis, 24).into_iter();
    names.map(|label| format!("{name} {label}").trim().to_string()).collect()
}

/// Width of a text in pixels at a font size, a little generous: no font is at hand to measure.
pub(super) fn width(text: &str, size: f64) -> f64 {
    let one = |c: char| match c {
        '₀'..='₉' => 0.40,
        'i' | 'j' | 'l' | 't' | 'f' | 'r' | ' ' | '.' | ',' | ':' | '\'' | '|' | '(' | ')' => 0.34,
        'm' | 'w' | 'M' | 'W' | '@' | '%' | '␣' | '↵' => 0.92,
        c if c.is_ascii_uppercase() => 0.70,
        c if c.is_ascii() => 0.58,
        c if (c as u32) >= 0x1100 => 1.05,
        _ => 0.66,
    };
    text.chars().map(one).sum::<f64>() * size
}

/// Text broken at spaces into lines no wider than `most` pixels.
pub(super) fn wrap(text: &str, size: f64, most: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width(line, size) + width(word, size) + 0.34 * size <= most => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines
}

/// A title: its spaces stay, what cannot be seen is shown.
pub(super) fn visible_words(title: &str) -> String {
    if title.is_empty() {
        String::new()
    } else {
        title.split(' ').map(visible_part).collect::<Vec<_>>().join(" ")
    }
}

fn visible_part(word: &str) -> String {
    if word.is_empty() { String::new() } else { visible(word) }
}
