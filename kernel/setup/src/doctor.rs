//! `cargo kernel doctor`: what is there and what is missing, a line each. Changes nothing.

mod machine;
mod parts;

use std::fmt;
use std::io::IsTerminal;

use anyhow::{Result, bail};

use crate::places::Places;

/// How a line begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is there.
    Ok,
    /// It is needed and not there; the line says how to get it.
    Missing,
    /// Good to know.
    Note,
}

/// One finding.
#[derive(Debug, Clone)]
pub struct Line {
    /// How it stands.
    pub state: State,
    /// What was looked at.
    pub what: &'static str,
    /// What was found, or how to get it.
    pub text: String,
}

impl Line {
    fn ok(what: &'static str, text: impl Into<String>) -> Line {
        Line { state: State::Ok, what, text: text.into() }
    }

    fn missing(what: &'static str, text: impl Into<String>) -> Line {
        Line { state: State::Missing, what, text: text.into() }
    }

    fn note(what: &'static str, text: impl Into<String>) -> Line {
        Line { state: State::Note, what, text: text.into() }
    }

    /// The line with its first word in a colour.
    fn colored(&self) -> String {
        let color = match self.state {
            State::Ok => 32,
            State::Missing => 31,
            State::Note => 33,
        };
        let line = self.to_string();
        let (state, rest) = line.split_at(WIDTH);
        format!("\x1b[{color}m{state}\x1b[0m{rest}")
    }
}

/// Of the column of states.
const WIDTH: usize = 8;

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Ok => "ok",
            State::Missing => "missing",
            State::Note => "note",
        };
        write!(f, "{state:<WIDTH$} {:<13} {}", self.what, self.text.replace('\n', " "))
    }
}

/// Everything that notebooks need, in the order in which set-up makes it.
pub fn examine(places: &Places) -> Vec<Line> {
    let mut lines = vec![Line::note("clone", places.clone.display().to_string())];
    lines.extend(parts::rust(places));
    lines.extend(parts::libtorch(places));
    lines.extend(parts::python(places));
    lines.push(parts::chromium());
    lines.extend(parts::kernel(places));
    lines.extend(machine::cache(places));
    lines.push(machine::disk(places));
    lines.extend(machine::memory());
    lines.extend(machine::overrides(places));
    lines.extend(machine::kernels(places));
    lines
}

/// Prints all findings; an error if something needed is missing.
pub fn run(places: &Places) -> Result<()> {
    let lines = examine(places);
    let terminal = std::io::stdout().is_terminal();
    for line in &lines {
        println!("{}", if terminal { line.colored() } else { line.to_string() });
    }
    match lines.iter().filter(|line| line.state == State::Missing).count() {
        0 => Ok(()),
        1 => bail!("1 thing that notebooks need is missing"),
        count => bail!("{count} things that notebooks need are missing"),
    }
}
