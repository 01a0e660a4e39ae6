//! Where things are shown: the one place of the library that writes to standard output and error.

use std::fmt::Write as _;
use std::io::Write;

use super::content::Content;

/// Who reads what this process writes.
#[derive(Debug)]
pub(super) enum Outlet {
    /// thalweg's kernel. It looks for lines with this mark, and can replace what was shown.
    Kernel(String),
    /// Another kernel on evcxr: blocks between marker lines, of which a cell shows the last.
    Evcxr,
    /// A person, or nobody.
    Program,
}

impl Outlet {
    /// As the environment says.
    pub(super) fn here() -> Self {
        match std::env::var("THALWEG_DISPLAY") {
            Ok(mark) if !mark.is_empty() => Outlet::Kernel(mark),
            _ if std::env::var_os("EVCXR_IS_RUNTIME").is_some() => Outlet::Evcxr,
            _ => Outlet::Program,
        }
    }

    /// Whether what was shown can be replaced.
    pub(super) fn replaces(&self) -> bool {
        matches!(self, Outlet::Kernel(_))
    }

    /// Shows something under a name, or what is shown under this name from now on.
    pub(super) fn show(&self, content: &Content, id: &str, update: bool) {
        match self {
            Outlet::Kernel(mark) => {
                let mut end = format!(",\"display_id\":{}", string(id));
                if update {
                    end += ",\"update\":true";
                }
                write(&message(mark, content, &end));
            }
            // Of several things only the last is drawn: each has its line, so that none is lost.
            Outlet::Evcxr if content.is_rich() => {
                let line = content.plain().lines().next().unwrap_or_default();
                write(&format!(
                    "{line} (stock evcxr draws only what a cell shows last)\n{}",
                    blocks(content)
                ));
            }
            Outlet::Evcxr | Outlet::Program => write(&ended(content.plain())),
        }
    }

    /// Takes away what the cell has shown.
    pub(super) fn clear(&self, wait: bool) {
        if let Outlet::Kernel(mark) = self {
            write(&format!("{mark}{{\"clear\":true,\"wait\":{wait}}}\n"));
        }
    }

    /// A line of progress. Notebook runners take what a cell writes to standard error for a
    /// failure; a program's output is its result, so there the line stays out of it.
    pub(super) fn tell(&self, line: &str) {
        match self {
            Outlet::Kernel(_) | Outlet::Evcxr => write(&ended(line)),
            // Where standard error is closed nobody is told, and no call fails for that.
            Outlet::Program => drop(writeln!(std::io::stderr(), "{line}")),
        }
    }
}

/// Shows the value of a cell, in the same way to every kernel: only evcxr asks for it.
pub(super) fn show_value(content: &Content) {
    write(&blocks(content));
}

/// The mark, one object as JSON without a line break, a line break.
fn message(mark: &str, content: &Content, end: &str) -> String {
    let mut text = format!("{mark}{{\"data\":{{");
    for (i, (mime, data)) in content.parts().enumerate() {
        let comma = if i > 0 { "," } else { "" };
        let json = mime == "application/json" || mime.ends_with("+json");
        let is_valid = || serde_json::from_str::<serde::de::IgnoredAny>(data).is_ok();
        let value = match json && is_valid() {
            // A line break in JSON stands between its parts only, where a space does as well.
            true => data.replace(['\n', '\r'], " "),
            false => string(data),
        };
        let _ = write!(text, "{comma}{}:{value}", string(mime));
    }
    text + "},\"metadata\":{}" + end + "}\n"
}

fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// What evcxr reads from standard output.
fn blocks(content: &Content) -> String {
    let block = |(mime, data): (&str, &str)| {
        format!("EVCXR_BEGIN_CONTENT {mime}\n{data}\nEVCXR_END_CONTENT\n")
    };
    content.parts().map(block).collect()
}

fn ended(text: &str) -> String {
    if text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}

/// To standard output, at once. Where that is closed, nobody looks, and no cell fails for that.
fn write(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
