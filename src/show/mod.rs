//! Showing things: in a notebook, as often as one likes in a cell and replaced in place; in a
//! program, as text.

mod bar;
mod content;
mod outlet;

use std::time::{SystemTime, UNIX_EPOCH};

pub use bar::{Bar, Tracked, progress};
pub(crate) use bar::{duration, rate};
pub(crate) use content::escape;
pub use content::{Content, Html, Markdown, Show};
use outlet::Outlet;

/// Shows something now, wherever it stands in a cell, and any number of times; the value returned
/// replaces it in place.
///
/// In a program the plain text goes to standard output. Stock evcxr draws only what a cell shows
/// last: each thing shown has its line of text there, and an update is shown anew.
///
/// ```
/// use thalweg::{Axis, Grid, Html, display, ndarray::array};
/// let grid = Grid::from_array(array![1.0, 2.0], &[Axis::Layer], "nats")?;
/// let shown = display(&grid);
/// shown.update(&grid.name("with a name")); // in the same place
/// display("and some text");
/// display(&Html("<b>bold</b>".to_owned()));
/// # thalweg::anyhow::Ok(())
/// ```
pub fn display<T: Show + ?Sized>(what: &T) -> Shown {
    Shown::new(&what.content())
}

/// Something shown, by which it can be replaced, in this cell or a later one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    id: String,
}

impl Shown {
    fn new(content: &Content) -> Self {
        let shown = Shown { id: new_id() };
        Outlet::here().show(content, &shown.id, false);
        shown
    }

    /// Replaces what is shown.
    pub fn update<T: Show + ?Sized>(&self, what: &T) {
        Outlet::here().show(&what.content(), &self.id, true);
    }

    /// Leaves its place empty. Does nothing where there is no place, in programs and stock evcxr.
    pub fn clear(&self) {
        let outlet = Outlet::here();
        if outlet.replaces() {
            outlet.show(&Content::text(""), &self.id, true);
        }
    }
}

/// Takes away what the cell has shown so far: at once, or with `wait` when the next thing is shown,
/// so that nothing flickers. Does nothing in programs and stock evcxr.
pub fn clear_output(wait: bool) {
    Outlet::here().clear(wait);
}

/// Shows the value of a cell: what every `evcxr_display` does.
pub(crate) fn show_value<T: Show + ?Sized>(what: &T) {
    outlet::show_value(&what.content());
}

/// A name that no other thing shown by this process has: no two are made at the same time at the
/// same place in memory.
fn new_id() -> String {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let place = &raw const time as usize;
    format!("thalweg-{:x}-{time:x}-{place:x}", std::process::id())
}
