//! Rows that begin at columns of their own, for a pass over no more positions than are needed.

use tch::{Device, Kind, Tensor};

/// How rows of unequal lengths lie one after the other: `[1, N, ..]`, `N` positions in all. So they
/// go through everything that is done position by position; for attention they lie side by side,
/// `[rows, columns, ..]`, all from the first column of the longest on.
#[derive(Debug)]
pub(crate) struct Line {
    /// Of each position, its row: `[N]`.
    row: Tensor,
    /// Of each position, its column: `[N]`.
    column: Tensor,
    /// Of each row, the prompt it is a run of: `[rows]`.
    pub(crate) prompts: Tensor,
    /// Columns of the tokens.
    width: i64,
    /// Columns of the longest row.
    columns: i64,
}

impl Line {
    /// Rows given by their prompt and first column, over tokens `width` wide.
    pub(crate) fn new(rows: &[(i64, i64)], width: i64, device: Device) -> Self {
        let longest = rows.iter().map(|(_, first)| width - first).max().unwrap_or(0);
        let each = || {
            rows.iter()
                .zip(0..)
                .flat_map(|((_, first), row)| (*first..width).map(move |c| (row, c)))
        };
        let row: Vec<i64> = each().map(|(row, _)| row).collect();
        let column: Vec<i64> = each().map(|(_, column)| column).collect();
        let prompts: Vec<i64> = rows.iter().map(|(prompt, _)| *prompt).collect();
        let [row, column, prompts] =
            [row, column, prompts].map(|list| Tensor::from_slice(&list).to_device(device));
        Line { row, column, prompts, width, columns: longest }
    }

    /// The first `rows` rows alone, `positions` in all.
    pub(crate) fn begin(&self, rows: i64, positions: i64) -> Self {
        Line {
            row: self.row.narrow(0, 0, positions),
            column: self.column.narrow(0, 0, positions),
            prompts: self.prompts.narrow(0, 0, rows),
            ..*self
        }
    }

    /// What `x [Batch or 1, Pos, ..]` of the prompts is at each position: `[1, N, ..]`.
    pub(crate) fn of_prompts(&self, x: &Tensor) -> Tensor {
        let device = x.device();
        if x.size()[0] == 1 {
            return x.index_select(1, &self.column.to_device(device));
        }
        let at = self.prompts.index_select(0, &self.row) * self.width + &self.column;
        x.flatten(0, 1).index_select(0, &at.to_device(device)).unsqueeze(0)
    }

    /// `x [1, N, ..]` side by side: `[rows, columns, ..]`, zeros where a row has not begun.
    pub(crate) fn side_by_side(&self, x: &Tensor) -> Tensor {
        let shape = [&[self.prompts.size()[0], self.columns], &x.size()[2..]].concat();
        self.put(x, Tensor::zeros(shape, (x.kind(), x.device())))
    }

    /// The same in front of what the prompts have there, `before [Batch, Pos, ..]`:
    /// `[rows, Pos, ..]`.
    pub(crate) fn after(&self, before: &Tensor, x: &Tensor) -> Tensor {
        let before = before.to_device(x.device());
        self.put(x, before.index_select(0, &self.prompts.to_device(x.device())))
    }

    /// `x [rows, columns, ..]` one after the other again.
    pub(crate) fn in_line(&self, x: &Tensor) -> Tensor {
        let place = self.place(x.size()[1], x.device());
        x.flatten(0, 1).index_select(0, &place).unsqueeze(0)
    }

    fn put(&self, x: &Tensor, side_by_side: Tensor) -> Tensor {
        let place = self.place(side_by_side.size()[1], x.device());
        let _ = side_by_side.flatten(0, 1).index_copy_(0, &place, &x.squeeze_dim(0));
        side_by_side
    }

    /// Of each position, its place among rows side by side that show the last `columns` columns.
    fn place(&self, columns: i64, device: Device) -> Tensor {
        (&self.row * columns + &self.column - (self.width - columns))
            .to_kind(Kind::Int64)
            .to_device(device)
    }
}
