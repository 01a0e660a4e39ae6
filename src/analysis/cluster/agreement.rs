//! How far two groupings of the same items agree, whatever their groups are called.
//!
//! Adjusted Rand index: Hubert and Arabie 1985, <https://doi.org/10.1007/BF01908075>. Normalised mutual
//! information: Vinh, Epps and Bailey 2010, <https://jmlr.org/papers/v11/vinh10a.html>, over the arithmetic
//! mean of the entropies. Names and special cases are scikit-learn's.

use std::collections::HashMap;
use std::hash::Hash;

use anyhow::{Result, ensure};

/// Counts of two groupings.
struct Table {
    n: f64,
    cells: Vec<(usize, usize, f64)>,
    rows: Vec<f64>,
    columns: Vec<f64>,
}

impl Table {
    fn new<A: Eq + Hash, B: Eq + Hash>(of: &str, a: &[A], b: &[B]) -> Result<Self> {
        ensure!(a.len() == b.len(), "{of}: {} items and {}", a.len(), b.len());
        ensure!(!a.is_empty(), "{of}: no items");
        let (rows, columns) = (numbered(a), numbered(b));
        let mut places: HashMap<(usize, usize), usize> = HashMap::new();
        let mut cells: Vec<(usize, usize, f64)> = Vec::new();
        for cell in rows.iter().copied().zip(columns.iter().copied()) {
            let next = cells.len();
            let place = *places.entry(cell).or_insert(next);
            if place == next {
                cells.push((cell.0, cell.1, 0.0));
            }
            cells[place].2 += 1.0;
        }
        Ok(Table { n: a.len() as f64, cells, rows: counts(&rows), columns: counts(&columns) })
    }
}

/// Each item's group as a number, in the order of first items.
fn numbered<T: Eq + Hash>(items: &[T]) -> Vec<usize> {
    let mut seen = HashMap::new();
    let number = |item| {
        let next = seen.len();
        *seen.entry(item).or_insert(next)
    };
    items.iter().map(number).collect()
}

fn counts(numbers: &[usize]) -> Vec<f64> {
    let mut counts = vec![0.0; numbers.iter().max().map_or(0, |last| last + 1)];
    numbers.iter().for_each(|number| counts[*number] += 1.0);
    counts
}

/// Adjusted Rand index of two groupings, each given as one name an item: 1 for the same groups, 0 on
/// average for independent ones of the same sizes, below 0 for less than chance.
///
/// ```
/// use thalweg::adjusted_rand_score;
/// assert_eq!(adjusted_rand_score(&[0, 0, 1, 1], &["b", "b", "a", "a"])?, 1.0);
/// assert_eq!(adjusted_rand_score(&[0, 0, 1, 1], &[0, 1, 0, 1])?, -0.5);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn adjusted_rand_score<A: Eq + Hash, B: Eq + Hash>(a: &[A], b: &[B]) -> Result<f64> {
    let table = Table::new("adjusted_rand_score", a, b)?;
    // Ordered pairs of items: together in both, in a alone, in b alone, in neither.
    let squares = |counts: &[f64]| counts.iter().map(|count| count * count).sum::<f64>();
    let both: f64 = table.cells.iter().map(|(.., count)| count * count).sum();
    let (rows, columns) = (squares(&table.rows), squares(&table.columns));
    let (tp, fp, fn_) = (both - table.n, columns - both, rows - both);
    let tn = table.n * table.n - rows - columns + both;
    if fp == 0.0 && fn_ == 0.0 {
        return Ok(1.0);
    }
    Ok(2.0 * (tp * tn - fn_ * fp) / ((tp + fn_) * (fn_ + tn) + (tp + fp) * (fp + tn)))
}

/// Mutual information of two groupings over the mean of their entropies, 0..1: 1 for the same groups.
/// Not corrected for chance: many small groups raise it.
///
/// ```
/// use thalweg::normalized_mutual_info_score;
/// assert_eq!(normalized_mutual_info_score(&[0, 0, 1, 1], &[1, 1, 0, 0])?, 1.0);
/// assert_eq!(normalized_mutual_info_score(&[0, 0, 1, 1], &[0, 1, 0, 1])?, 0.0);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn normalized_mutual_info_score<A: Eq + Hash, B: Eq + Hash>(a: &[A], b: &[B]) -> Result<f64> {
    let table = Table::new("normalized_mutual_info_score", a, b)?;
    let entropy = |counts: &[f64]| {
        let term = |count: &f64| -(count / table.n) * (count / table.n).ln();
        counts.iter().map(term).sum::<f64>()
    };
    let (rows, columns) = (entropy(&table.rows), entropy(&table.columns));
    if table.rows.len() == table.columns.len() && table.cells.len() == table.rows.len() {
        return Ok(1.0); // the same groups, one alone included
    }
    let information = table.cells.iter().map(|(row, column, count)| {
        let chance = table.rows[*row] * table.columns[*column] / table.n;
        count / table.n * (count / chance).ln()
    });
    let information: f64 = information.sum();
    if information <= f64::EPSILON {
        return Ok(0.0);
    }
    Ok((information / ((rows + columns) / 2.0)).clamp(0.0, 1.0))
}
