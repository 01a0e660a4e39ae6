//! `:dep` lines.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// What a `:dep` line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dependency {
    /// The name on the left of `=`.
    pub(crate) name: String,
    /// What Cargo.toml has on the right, a path in it as it was written.
    pub(crate) spec: String,
}

impl Dependency {
    /// Reads what stands after `:dep `: `name`, `name = spec`, or the path of a crate, as evcxr takes it.
    pub(crate) fn parse(text: &str, folder: &Path) -> Result<Dependency> {
        if text.starts_with(['.', '/']) {
            let name = package_name(&folder.join(text))?;
            return Ok(Dependency { name, spec: format!("{{ path = {text:?} }}") });
        }
        let (name, spec) = text.split_once('=').unwrap_or((text, "\"*\""));
        let (name, spec) = (name.trim(), spec.trim());
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
        if name.is_empty() || spec.is_empty() || !name.chars().all(plain) {
            bail!("`:dep {text}` is not: name = \"version\", name = {{ .. }}, or a path");
        }
        Ok(Dependency { name: name.to_owned(), spec: spec.to_owned() })
    }

    /// The path in the spec, from the folder that it is relative to.
    pub(crate) fn path(&self, folder: &Path) -> Option<PathBuf> {
        let range = path_in(&self.spec)?;
        Some(folder.join(&self.spec[range]))
    }

    /// The same with another path.
    pub(crate) fn at(&self, path: &str) -> Dependency {
        let mut spec = self.spec.clone();
        if let Some(range) = path_in(&spec) {
            // A quote or backslash would end a plain string.
            let quoted = format!("{path:?}");
            spec.replace_range(range.start - 1..range.end + 1, &quoted);
        }
        Dependency { name: self.name.clone(), spec }
    }
}

/// Where the value of the key `path` stands in an inline table, without its quotes.
fn path_in(spec: &str) -> Option<std::ops::Range<usize>> {
    let mut key = String::new();
    let mut letters = spec.char_indices();
    while let Some((start, letter)) = letters.next() {
        if letter == '"' || letter == '\'' {
            let (end, _) = letters.find(|(_, other)| *other == letter)?;
            if key.trim() == "path" {
                return Some(start + 1..end);
            }
        } else if "{,".contains(letter) {
            key.clear();
        } else if letter != '=' {
            key.push(letter);
        }
    }
    None
}

fn package_name(dir: &Path) -> Result<String> {
    let path = dir.join("Cargo.toml");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("`:dep` names {}, but it cannot be read", path.display()))?;
    let mut package = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            package = line == "[package]";
        }
        if let Some((key, value)) = line.split_once('=').filter(|_| package)
            && key.trim() == "name"
        {
            return Ok(value.trim().trim_matches(['"', '\'']).to_owned());
        }
    }
    bail!("{} names no package", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dep_lines_are_read_as_evcxr_reads_them() {
        let read = |text: &str| Dependency::parse(text, Path::new("/notebooks"));
        assert_eq!(read("rand").unwrap().spec, "\"*\"");
        assert_eq!(read("rand = \"0.9\"").unwrap().spec, "\"0.9\"");
        let own = read("own = { features = [\"path\"], path = \"../own\" }").unwrap();
        assert_eq!(own.path(Path::new("/notebooks")), Some(PathBuf::from("/notebooks/../own")));
        assert_eq!(own.at("/own").spec, "{ features = [\"path\"], path = \"/own\" }");
        assert_eq!(read("x = \"1\"").unwrap().path(Path::new("/")), None);
        for bad in ["", "= \"1\"", "a b = \"1\"", "./no-such-crate"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
