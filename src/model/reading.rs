//! How far the reading of a model's weights is.

use anyhow::Result;
use tch::Tensor;

use super::weights::Spec;
use crate::files::Files;
use crate::interrupt::Interrupt;
use crate::show::Bar;

/// Counts the bytes read, and stops at an interrupt.
pub(super) struct Reading {
    bar: Bar,
    interrupt: Interrupt,
}

impl Reading {
    pub(super) fn new(files: &Files, specs: &[Spec]) -> Self {
        let bytes = |spec: &Spec| {
            let kind = files.kind(&spec.name).map_or(0, |kind| kind.elt_size_in_bytes());
            spec.shape.iter().product::<i64>() as usize * kind
        };
        let bar = Bar::new("load", specs.iter().map(bytes).sum::<usize>()).bytes();
        Reading { bar, interrupt: Interrupt::new() }
    }

    /// These rows are read.
    pub(super) fn add(&mut self, rows: &Tensor) -> Result<()> {
        self.bar.add(rows.numel() * rows.kind().elt_size_in_bytes());
        self.interrupt.check(|| format!("interrupted: {}", self.bar.line()))
    }
}
