//! The best one-to-one assignment of rows to columns.

use ndarray::{Array2, ArrayView2};

/// Pairs (row, column), by rows, whose scores add up to the most: as many as the shorter side has.
/// Kuhn 1955, "The Hungarian method for the assignment problem", by shortest augmenting paths.
pub(super) fn assign(scores: &Array2<f64>) -> Vec<(usize, usize)> {
    let (rows, columns) = scores.dim();
    let mut pairs = if rows <= columns {
        wide(scores.view())
    } else {
        wide(scores.t()).into_iter().map(|(column, row)| (row, column)).collect()
    };
    pairs.sort_unstable();
    pairs
}

/// The same where there are no more rows than columns. Index 0 of `taken`, `prices` and `before`
/// stands for no column; the price of a row or column is what its best pair may not exceed.
fn wide(scores: ArrayView2<f64>) -> Vec<(usize, usize)> {
    let (rows, columns) = scores.dim();
    let (mut own, mut prices) = (vec![0.0; rows + 1], vec![0.0; columns + 1]);
    let mut taken = vec![0; columns + 1]; // the row (from 1) that has each column
    let mut before = vec![0; columns + 1]; // the column before it on the path
    for row in 1..=rows {
        taken[0] = row;
        let mut at = 0;
        let mut least = vec![f64::INFINITY; columns + 1];
        let mut seen = vec![false; columns + 1];
        while taken[at] != 0 {
            seen[at] = true;
            let current = taken[at];
            let (mut step, mut next) = (f64::INFINITY, 0);
            for column in (1..=columns).filter(|column| !seen[*column]) {
                let cost = -scores[[current - 1, column - 1]];
                let slack = cost - own[current] - prices[column];
                if slack < least[column] {
                    (least[column], before[column]) = (slack, at);
                }
                if least[column] < step {
                    (step, next) = (least[column], column);
                }
            }
            for column in 0..=columns {
                if seen[column] {
                    own[taken[column]] += step;
                    prices[column] -= step;
                } else {
                    least[column] -= step;
                }
            }
            at = next;
        }
        while at != 0 {
            taken[at] = taken[before[at]];
            at = before[at];
        }
    }
    (1..=columns)
        .filter(|column| taken[*column] != 0)
        .map(|column| (taken[column] - 1, column - 1))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// The most that any assignment of the rows from `row` on reaches.
    fn most(scores: &Array2<f64>, row: usize, used: &mut Vec<bool>) -> f64 {
        if row == scores.nrows() {
            return 0.0;
        }
        let mut best = f64::NEG_INFINITY;
        for column in 0..scores.ncols() {
            if !used[column] {
                used[column] = true;
                best = best.max(scores[[row, column]] + most(scores, row + 1, used));
                used[column] = false;
            }
        }
        best
    }

    #[test]
    fn no_other_assignment_adds_up_to_more() {
        let mut rng = Rng::new(1);
        for (rows, columns) in [(1, 1), (4, 4), (3, 6), (6, 6), (6, 3)] {
            for _ in 0..20 {
                let scores = Array2::from_shape_fn((rows, columns), |_| rng.normal());
                let pairs = assign(&scores);
                assert_eq!(pairs.len(), rows.min(columns));
                let sum: f64 = pairs.iter().map(|(row, column)| scores[[*row, *column]]).sum();
                let wide = if rows <= columns { scores } else { scores.t().to_owned() };
                let best = most(&wide, 0, &mut vec![false; wide.ncols()]);
                assert!((sum - best).abs() < 1e-12, "{rows} x {columns}: {sum} against {best}");
            }
        }
    }
}
