//! Names that come from users, from the hub and from files: what may become part of a path or an
//! address.

use std::fmt::Write as _;

use anyhow::{Result, ensure};

/// `name` or `org/name`, as the hub allows them.
pub(super) fn check_repo(repo: &str) -> Result<()> {
    let parts: Vec<_> = repo.split('/').collect();
    let plain = |part: &&str| {
        let ends = |c: char| part.starts_with(c) || part.ends_with(c);
        let inside = part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        !part.is_empty() && part.len() <= 96 && inside && !ends('-') && !ends('.')
    };
    ensure!(
        parts.len() <= 2
            && parts.iter().all(plain)
            && !repo.contains("..")
            && !repo.contains("--")
            && !repo.ends_with(".git"),
        "{repo:?} is no name of a model: expected \"org/name\", letters, digits, '-', '_' and '.'"
    );
    Ok(())
}

/// A branch, a tag or a commit. It becomes a path in the cache, so none may lead out of it.
pub(super) fn check_revision(revision: &str) -> Result<()> {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && !part.contains("..")
            && part.chars().all(|c| !c.is_control() && !"\\:*?\"<>|".contains(c))
    };
    ensure!(
        revision.len() <= 200 && revision.split('/').all(plain),
        "{revision:?} is no revision: expected a branch (\"main\"), a tag or a commit"
    );
    Ok(())
}

/// Whether this is the whole hash of a commit.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && is_hex(text)
}

/// Whether an etag is the SHA-256 of the file.
pub(super) fn is_sha256(etag: &str) -> bool {
    etag.len() == 64 && is_hex(etag)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a name from the hub can be a file's name by itself.
pub(super) fn is_plain(name: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=200).contains(&name.len()) && !name.starts_with('.') && name.chars().all(inside)
}

/// A part of an address: all but unreserved characters as `%XX`.
pub(super) fn escaped(part: &str) -> String {
    let mut text = String::new();
    for byte in part.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte));
            }
            _ => drop(write!(text, "%{byte:02X}")),
        }
    }
    text
}
