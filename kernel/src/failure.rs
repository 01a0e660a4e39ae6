//! Why a cell failed, in Jupyter's three parts: a name, one line, and lines to read.

use ariadne::sources;
use evcxr::{CompilationError, Error, Theme};

/// A failed cell.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    /// The kind of failure: a type's name, or an error code of rustc's.
    pub(crate) name: String,
    /// What went wrong, in one line.
    pub(crate) value: String,
    /// What to read, line by line.
    pub(crate) traceback: Vec<String>,
}

/// A panic on the cell's own thread.
#[derive(Debug, Clone)]
pub(crate) struct Panic {
    pub(crate) message: String,
    pub(crate) place: String,
}

impl Panic {
    /// The panic as a program would print it.
    pub(crate) fn line(&self) -> String {
        format!("panicked at {}:\n{}\n", self.place, self.message)
    }
}

/// Cells compile offline, against sources that are locked with the library.
const NO_CRATE: &str = "a notebook's crates are those that thalweg itself is built from; with others it can go on as a \
                        project: cargo kernel export NOTEBOOK --project DIR";

/// What tch panics with when libtorch throws.
const UNWRAPPED_TORCH: &str = "called `Result::unwrap()` on an `Err` value: Torch(\"";

impl Failure {
    pub(crate) fn new(name: &str, value: impl Into<String>) -> Failure {
        let value = value.into();
        let traceback = value.lines().map(str::to_owned).collect();
        Failure { name: name.to_owned(), value: first_line(&value), traceback }
    }

    /// A panic; `compiled` is the source that evcxr made of the cell, in which the panic's place lies.
    pub(crate) fn panic(panic: &Panic, compiled: &str, cell: &str) -> Failure {
        let message = without_cpp_frames(&panic.message);
        if let Some(said) = message.strip_prefix(UNWRAPPED_TORCH) {
            let failure = Failure::new("libtorch", said.trim_end_matches("\")"));
            let place = format!("at {}", panic.place);
            return Failure {
                traceback: failure.traceback.into_iter().chain([place]).collect(),
                ..failure
            };
        }
        let mut traceback = vec![format!("panicked: {message}")];
        traceback.push(match line_in_cell(&panic.place, compiled, cell) {
            Some((number, line)) => format!("in line {number} of this cell: {line}"),
            None => format!("at {}", panic.place),
        });
        Failure { name: "panic".to_owned(), value: first_line(&message), traceback }
    }

    /// An error that left the cell through `?`.
    pub(crate) fn returned(kind: &str, message: &str) -> Failure {
        let message = without_cpp_frames(message);
        let traceback = message.lines().map(str::to_owned).collect();
        Failure { name: kind.to_owned(), value: first_line(&message), traceback }
    }

    /// What evcxr says of a cell that did not compile, or whose process ended.
    pub(crate) fn of(error: &Error, cell: &str, count: u32) -> Failure {
        let Error::CompilationErrors(errors) = error else {
            return Failure::new("Error", error.to_string());
        };
        // Warnings come along with errors, and evcxr lists them as they come.
        let grave: Vec<&CompilationError> =
            errors.iter().filter(|error| error.level() != "warning").collect();
        let shown = if grave.is_empty() { errors.iter().collect() } else { grave };
        let first = shown.first();
        let code = first.and_then(|error| error.code());
        let mut traceback: Vec<String> =
            shown.iter().flat_map(|error| report(error, cell, count)).collect();
        if shown.iter().any(|error| error.message().contains("contains a reference")) {
            traceback.push("a notebook's variables must own what they hold".to_owned());
        }
        if traceback.iter().any(|line| line.contains("no matching package named")) {
            traceback.push(NO_CRATE.to_owned());
        }
        Failure {
            name: code.map_or("compile error".to_owned(), |code| format!("compile error {code}")),
            value: first.map(|error| first_line(&error.message())).unwrap_or_default(),
            traceback,
        }
    }
}

fn report(error: &CompilationError, cell: &str, count: u32) -> Vec<String> {
    let name = format!("cell {count}");
    let drawn = error.is_from_user_code().then(|| {
        let report = error.build_report(name.clone(), cell.to_owned(), Theme::Light)?;
        let mut bytes = Vec::new();
        report.write(sources([(name, cell)]), &mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    });
    match drawn.flatten() {
        Some(text) => text.lines().map(str::to_owned).collect(),
        None => error.rendered().lines().map(str::to_owned).collect(),
    }
}

/// libtorch adds its C++ frames to what it says; they are of no use to the reader of a notebook.
fn without_cpp_frames(message: &str) -> String {
    let end = message
        .find("\nException raised from ")
        .or_else(|| message.find("\\nException raised from "))
        .unwrap_or(message.len());
    let cut = message[..end].trim_end();
    // The text of an `unwrap` is quoted.
    if end < message.len() { cut.replace("\\n", "\n") } else { cut.to_owned() }
}

/// The line of the cell that a place in the compiled source means.
fn line_in_cell(place: &str, compiled: &str, cell: &str) -> Option<(usize, String)> {
    let number: usize = place.strip_prefix("src/lib.rs:")?.split(':').next()?.parse().ok()?;
    let line = compiled.lines().nth(number.checked_sub(1)?)?.trim();
    let mut found = cell.lines().enumerate().filter(|(_, text)| {
        // evcxr puts its own code around a cell's last expression, on the same line.
        let text = text.trim();
        !text.is_empty() && (text == line || line.contains(text))
    });
    let (index, text) = found.next()?;
    (found.next().is_none()).then(|| (index + 1, text.trim().to_owned()))
}

fn first_line(text: &str) -> String {
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panic(message: &str, place: &str) -> Panic {
        Panic { message: message.to_owned(), place: place.to_owned() }
    }

    #[test]
    fn a_panic_names_the_line_of_the_cell() {
        let compiled = "mod x {}\nfn run() {\nlet a = 1;\npanic!(\"deep\");\n}";
        let cell = "let a = 1;\npanic!(\"deep\");";
        let failure = Failure::panic(&panic("deep", "src/lib.rs:4:1"), compiled, cell);
        assert_eq!(failure.value, "deep");
        assert_eq!(failure.traceback[1], "in line 2 of this cell: panic!(\"deep\");");
        let elsewhere = Failure::panic(&panic("deep", "/x/tensor.rs:4:1"), compiled, cell);
        assert_eq!(elsewhere.traceback[1], "at /x/tensor.rs:4:1");
    }

    #[test]
    fn what_libtorch_says_is_kept_and_its_frames_are_not() {
        let text = "called `Result::unwrap()` on an `Err` value: Torch(\"sizes differ: 2 and 3\\nException raised from f at x.cpp:1\\nframe #0\")";
        let failure = Failure::panic(&panic(text, "tensor.rs:1:1"), "", "");
        assert_eq!((&*failure.name, &*failure.value), ("libtorch", "sizes differ: 2 and 3"));
        assert!(!failure.traceback.concat().contains("frame #0"));
    }
}
