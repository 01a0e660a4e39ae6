//! Names of files for what a notebook shows, from its headings.

/// The last heading of a text cell.
pub(crate) fn heading(text: &str) -> Option<String> {
    let titles = text.lines().filter(|line| line.starts_with('#'));
    let mut titles = titles.map(|line| line.trim_start_matches('#'));
    titles.rfind(|title| title.starts_with(' ')).map(|title| title.trim().to_owned())
}

/// `07_which_heads_do_it`: the cell's number and up to six words.
pub(crate) fn title(number: usize, heading: &str) -> String {
    let words = heading.split(|letter: char| !letter.is_alphanumeric() && letter != '\'');
    let words = words.filter(|word| !word.is_empty()).take(6);
    let plain = |word: &str| word.replace('\'', "").to_lowercase();
    std::iter::once(format!("{number:02}")).chain(words.map(plain)).collect::<Vec<_>>().join("_")
}

/// A name for a program: the notebook's without the number in front.
pub(crate) fn program(stem: &str) -> String {
    let letters = |letter: char| {
        if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '_' }
    };
    let name: String = stem.chars().map(letters).collect();
    let name = name.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '_');
    if name.is_empty() { "notebook".to_owned() } else { name.trim_end_matches('_').to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_headings_and_from_the_notebook() {
        assert_eq!(heading("# A\ntext\n## What's in it?\n#hash"), Some("What's in it?".to_owned()));
        assert_eq!(
            title(3, "What's in the stream, layer by layer?"),
            "03_whats_in_the_stream_layer_by"
        );
        assert_eq!(title(12, ""), "12");
        assert_eq!(program("01_first_look"), "first_look");
        assert_eq!(program("2024"), "notebook");
    }
}
