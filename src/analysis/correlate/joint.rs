//! Two grids, and what is held fixed, over the samples that all of them have.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use tch::Tensor;

use super::coefficient::{Coefficient, Ready, places};
use super::grids::Correlate;
use super::samples::{Samples, default_axes, groups, joined, same};
use crate::grid::{Grid, GridAxis};

/// Both sides over the samples they share.
#[derive(Debug)]
pub(super) struct Joint {
    /// `[Cell, Sample]`
    a: Tensor,
    b: Tensor,
    given: Option<Tensor>,
    pub(super) cells: Vec<GridAxis>,
    /// What each sample belongs to, ascending.
    pub(super) groups: Vec<usize>,
    pub(super) n: usize,
    left_out: usize,
}

impl Joint {
    pub(super) fn new(how: &Correlate, a: &Grid, b: &Grid) -> Result<Joint> {
        let over = match &how.over {
            Some(axes) => axes.clone(),
            None => default_axes(a)?,
        };
        ensure!(!over.is_empty(), "correlate: no axis of samples, expected one at least");
        ensure!(
            how.given.is_none() || how.how != Coefficient::Distance,
            "correlate: a distance correlation cannot hold others fixed, expected Pearson or Spearman"
        );
        let first = Samples::new("the first grid", a, &over)?;
        let second = Samples::new("the second grid", b, &over)?;
        let third = how.given.as_ref().map(|given| Samples::new("what is given", given, &over));
        let third = third.transpose()?;
        same(("the first grid", a), ("the second grid", b), &over)?;
        if let Some(given) = &how.given {
            same(("the first grid", a), ("what is given", given), &over)?;
        }
        let all: BTreeSet<Vec<usize>> = first.keys.iter().chain(&second.keys).cloned().collect();
        let mut keys: BTreeSet<Vec<usize>> = first.keys.iter().cloned().collect();
        for other in [Some(&second), third.as_ref()].into_iter().flatten() {
            let theirs: BTreeSet<Vec<usize>> = other.keys.iter().cloned().collect();
            keys = keys.intersection(&theirs).cloned().collect();
        }
        let (n, k) =
            (keys.len(), third.as_ref().map_or(0, |given| given.values.size()[0] as usize));
        ensure!(
            n > k + 2,
            "correlate: {n} samples exist in all cells of both grids, expected {} at least",
            k + 3
        );
        // Ranks of drawn samples follow from the order of all: sorted once, not for every draw.
        let take = |samples: &Samples| match how.how {
            Coefficient::Spearman => places(&samples.only(&keys)),
            _ => samples.only(&keys),
        };
        Ok(Joint {
            a: take(&first),
            b: take(&second),
            given: third.as_ref().map(take),
            cells: joined(&first.cells, &second.cells),
            groups: groups(&keys),
            n,
            left_out: all.len() - n,
        })
    }

    /// Both sides made ready, of all samples or of these.
    pub(super) fn ready(&self, how: Coefficient, chosen: Option<&Tensor>) -> (Ready, Ready) {
        let take = |x: &Tensor| match chosen {
            Some(chosen) => x.index_select(1, chosen),
            None => x.shallow_clone(),
        };
        let given = self.given.as_ref().map(take);
        (how.ready(&take(&self.a), given.as_ref()), how.ready(&take(&self.b), given.as_ref()))
    }

    /// Cells of the side that has more of them.
    pub(super) fn widest(&self) -> usize {
        self.a.size()[0].max(self.b.size()[0]) as usize
    }

    /// How many lists are held fixed.
    pub(super) fn held(&self) -> usize {
        self.given.as_ref().map_or(0, |given| given.size()[0] as usize)
    }

    /// The samples in words, for a grid's notes.
    pub(super) fn described(&self, over: &str, clusters: usize) -> String {
        let mut text = match over {
            "prompts" => format!("{} of {clusters} prompts, drawn prompt by prompt", self.n),
            _ => format!("{}, taken as independent", self.n),
        };
        if self.left_out > 0 {
            text += &format!("; {} left out that a cell of either lacks", self.left_out);
        }
        text
    }
}
