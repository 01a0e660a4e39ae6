//! Stopping a cell: the first request asks, the second kills.

use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};

use crate::outputs::Outputs;

/// The interrupts of the cell that runs.
#[derive(Clone)]
pub(crate) struct Interrupt {
    /// While this file exists, library calls and compilations stop at their next chance.
    file: PathBuf,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    executing: bool,
    requests: u32,
    killed: bool,
    child: Option<Arc<Mutex<Child>>>,
}

impl Interrupt {
    pub(crate) fn new(file: PathBuf) -> Interrupt {
        Interrupt { file, state: Arc::default() }
    }

    /// The process to kill.
    pub(crate) fn watch(&self, child: Arc<Mutex<Child>>) {
        self.state().child = Some(child);
    }

    /// A cell begins.
    pub(crate) fn begin(&self) {
        let mut state = self.state();
        (state.executing, state.requests, state.killed) = (true, 0, false);
    }

    /// A cell ended: how often it was asked to stop, and whether it was killed.
    pub(crate) fn end(&self) -> (u32, bool) {
        let mut state = self.state();
        state.executing = false;
        let _ = fs::remove_file(&self.file);
        (std::mem::take(&mut state.requests), std::mem::take(&mut state.killed))
    }

    /// Whether a cell runs or is being compiled.
    pub(crate) fn executing(&self) -> bool {
        self.state().executing
    }

    /// Whether the cell was asked to stop.
    pub(crate) fn requested(&self) -> bool {
        self.state().requests > 0
    }

    /// Asks the cell to stop; asked again while its code runs, kills its process.
    pub(crate) fn request(&self, outputs: &Outputs) {
        let mut state = self.state();
        if !state.executing {
            return;
        }
        state.requests += 1;
        if let Err(error) = fs::write(&self.file, "") {
            eprintln!("thalweg-kernel: cannot write {}: {error}", self.file.display());
        }
        if state.requests >= 2 && outputs.running() {
            state.killed = true;
            let child = state.child.clone();
            drop(state);
            if let Some(child) = child {
                let _ = child.lock().unwrap_or_else(PoisonError::into_inner).kill();
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
