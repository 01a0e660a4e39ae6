//! What the kernel and the process that runs its cells tell each other: JSON, one message a line, over a socket.
//!
//! evcxr's own pipe to that process carries only what evcxr itself must know. All that a reader sees goes this way,
//! so that text without a line break arrives at once and nothing shown is replaced by what is shown next.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A MIME bundle: what one thing looks like, by MIME type.
pub(crate) type Bundle = Map<String, Value>;

/// What the process that runs the cells reports.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    /// A cell's code begins to run.
    Began,
    /// Text on standard output or standard error.
    Text { stream: Stream, text: String },
    /// The library showed, updated or cleared something: its own message, see [`crate::outputs`].
    Shown(Value),
    /// Something was shown between evcxr's marker lines, before the end of the cell.
    Bundle(Bundle),
    /// The last thing shown between marker lines, with nothing after it: the value of the cell.
    Result(Bundle),
    /// A panic, told at once.
    Panicked { thread: Option<String>, message: String, place: String },
    /// An error that leaves the cell through `?`.
    Returned { kind: String, message: String },
    /// The cell's code ended; all its output was told before.
    Ended { panicked: bool, returned: bool },
    /// The answer to [`Order::Sync`].
    Synced(u64),
}

/// What the kernel asks of the process that runs the cells.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Answer with [`Event::Synced`] after everything told before.
    Sync(u64),
    /// Work in this folder from now on, with these variables in the environment.
    Enter { folder: String, environment: Vec<(String, String)> },
}

/// The two streams of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// Writes one message as one line.
pub(crate) fn send(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)
}
