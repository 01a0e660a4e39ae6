//! Reads a rendered page: its tags and their attributes, without what stands in scripts and styles.

/// One opening tag.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    /// Its name, in small letters.
    pub(crate) name: String,
    /// Names and values of its attributes; entities are resolved.
    pub(crate) attributes: Vec<(String, String)>,
}

impl Tag {
    /// The value of an attribute.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// The opening tags of a page, in order.
pub(crate) fn tags(page: &str) -> Vec<Tag> {
    let mut found = Vec::new();
    let mut rest = page;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix("!--") {
            rest = after.find("-->").map_or("", |end| &after[end..]);
        } else if rest.starts_with(|c: char| c.is_ascii_alphabetic()) {
            let (tag, after) = tag(rest);
            rest = after;
            if tag.name == "script" || tag.name == "style" {
                rest = rest.find(&format!("</{}", tag.name)).map_or("", |end| &rest[end..]);
            }
            found.push(tag);
        }
    }
    found
}

fn tag(text: &str) -> (Tag, &str) {
    let end = text.find(|c: char| c.is_whitespace() || c == '>' || c == '/').unwrap_or(text.len());
    let mut tag = Tag { name: text[..end].to_ascii_lowercase(), attributes: Vec::new() };
    let mut rest = &text[end..];
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '/');
        if rest.is_empty() || rest.starts_with('>') {
            return (tag, rest);
        }
        let end = rest.find(|c: char| c.is_whitespace() || "=>/".contains(c)).unwrap_or(rest.len());
        let name = rest[..end.max(1)].to_ascii_lowercase();
        rest = rest[end.max(1)..].trim_start();
        let mut value = "";
        if let Some(after) = rest.strip_prefix('=') {
            let after = after.trim_start();
            (value, rest) = match after.chars().next() {
                Some(quote @ ('"' | '\'')) => {
                    after[1..].split_once(quote).unwrap_or((&after[1..], ""))
                }
                _ => after.split_at(after.find([' ', '>', '\n']).unwrap_or(after.len())),
            };
        }
        let value = value
            .replace("&quot;", "\"")
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&amp;", "&");
        tag.attributes.push((name, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_and_scripts_are_passed_over() {
        let page = "<p>1 < 2 <!-- <a href='no'> --><a class=x href=\"a&amp;b\">t</a><script>'<a href=no>'</script><img src='p.svg'/><input disabled>";
        let tags = tags(page);
        let names: Vec<_> = tags.iter().map(|tag| tag.name.as_str()).collect();
        assert_eq!(names, ["p", "a", "script", "img", "input"]);
        assert_eq!((tags[1].get("href"), tags[1].get("class")), (Some("a&b"), Some("x")));
        assert_eq!(tags[3].get("src"), Some("p.svg"));
        assert_eq!(tags[4].get("disabled"), Some(""));
    }
}
