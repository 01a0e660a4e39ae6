//! Which rows of a batch belong to which plan.

use super::cells::Batch;

/// The rows of a batch: the unedited one first, then each plan's, a prompt each.
#[derive(Debug)]
pub(super) struct Layout {
    /// Prompt and first column of each.
    pub(super) rows: Vec<(i64, i64)>,
    /// Rows of one plan.
    each: i64,
    /// First position of each plan in the line of all rows; at the end their number.
    positions: Vec<i64>,
}

impl Layout {
    pub(super) fn new(batch: &Batch, each: i64, width: i64) -> Self {
        let mut rows = vec![(0, batch.column)];
        let mut positions = vec![width - batch.column];
        for cell in &batch.cells {
            rows.extend((0..each).map(|prompt| (prompt, cell.column)));
            positions.push(positions[positions.len() - 1] + each * (width - cell.column));
        }
        Layout { rows, each, positions }
    }

    /// The first row of a plan, by its place in the batch.
    pub(super) fn row(&self, place: usize) -> i64 {
        1 + place as i64 * self.each
    }

    pub(super) fn position(&self, place: usize) -> i64 {
        self.positions[place]
    }
}
