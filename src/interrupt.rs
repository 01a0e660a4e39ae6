//! Stopping a long call: the notebook's interrupt, seen by the library.
//!
//! A cell runs in a process of its own, and every cell has its own copy of this library, so no flag
//! in memory could tell it. The kernel names a file in `THALWEG_INTERRUPT`; while that file exists,
//! every pass stops at its next block, and with it everything that is made of passes.

use std::fmt;
use std::path::PathBuf;

use anyhow::Result;

/// Where the kernel says that it wants a call to stop; nowhere outside a notebook.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt {
    path: Option<PathBuf>,
}

impl Interrupt {
    /// Reads the environment: once a call, for a look at a file costs less.
    pub(crate) fn new() -> Self {
        let path = std::env::var_os("THALWEG_INTERRUPT").filter(|path| !path.is_empty());
        Interrupt { path: path.map(PathBuf::from) }
    }

    /// An error if the call is to stop; `at` says how far it came: "interrupted at block 3 of 8".
    pub(crate) fn check(&self, at: impl FnOnce() -> String) -> Result<()> {
        match &self.path {
            Some(path) if path.exists() => Err(Interrupted { at: at() }.into()),
            _ => Ok(()),
        }
    }
}

/// The error of a call that was stopped.
#[derive(Debug)]
struct Interrupted {
    at: String,
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; variables are kept", self.at)
    }
}

impl std::error::Error for Interrupted {}

/// The same error, saying how far the whole call came instead of one of its passes; others as they
/// are.
pub(crate) fn retold(error: anyhow::Error, at: impl FnOnce() -> String) -> anyhow::Error {
    if error.is::<Interrupted>() { Interrupted { at: at() }.into() } else { error }
}

/// An error if the notebook's user has asked to stop: for loops of your own. Every pass of a model
/// looks by itself.
///
/// ```
/// use thalweg::check_interrupt;
/// for _ in 0..3 {
///     check_interrupt()?; // then a step that runs no model
/// }
/// # thalweg::anyhow::Ok(())
/// ```
pub fn check_interrupt() -> Result<()> {
    Interrupt::new().check(|| "interrupted".to_owned())
}
