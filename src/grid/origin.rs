//! The runs that a grid's numbers come from.

use super::Grid;
use crate::record::{Origin, Record};

impl Grid {
    /// Records of the runs the numbers come from: model and hash of its weights, arithmetic, prompts
    /// and plan, each once. Analyses of a cache note its run; parts, means, differences and stacks
    /// of grids keep what they were made from.
    pub fn records(&self) -> Vec<Record> {
        self.origins.iter().map(Origin::record).collect()
    }

    /// Notes the run that the numbers come from, for a grid made by hand:
    /// `Grid::of(&tensor, &axes, "logits")?.of_run(&run.record()?)`.
    pub fn of_run(self, record: &Record) -> Grid {
        self.of_runs([Origin::known(record.clone())])
    }

    /// Notes more runs, each once.
    pub(crate) fn of_runs(mut self, origins: impl IntoIterator<Item = Origin>) -> Grid {
        for origin in origins {
            if !self.origins.contains(&origin) {
                self.origins.push(origin);
            }
        }
        self
    }

    /// Notes the runs that another grid's numbers come from, each once.
    pub(crate) fn of_runs_of(self, other: &Grid) -> Grid {
        self.of_runs(other.origins.iter().cloned())
    }
}
