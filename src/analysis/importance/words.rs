//! From pieces to words: the tokens of one word are one cell.

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use ndarray::{ArrayD, Dimension, IxDyn};

use crate::grid::{Grid, GridAxis};
use crate::hook::site::Axis;
use crate::text::Tokens;

/// The same numbers with the pieces of each word added up: a grid with an axis `Pos` of these tokens
/// becomes one whose `Pos` are their words. Missing pieces are left out; a word of which none exists
/// is missing. Words of rows that differ in length end together, as their tokens do. A sum of single
/// occlusions is not that of the word as a whole, which [`occlusion_by_word`](crate::occlusion_by_word)
/// gives.
///
/// A word begins at a space, at a punctuation mark, and after either. Tokens that never hold a space,
/// as those of a vocabulary of whole words, are words themselves.
///
/// ```
/// use thalweg::{Axis, Grid, Tokens, by_word, ndarray::array};
/// let pieces = ["When", "ever", " it", " ra", "ins", ","].map(str::to_owned);
/// let tokens = Tokens::from_ids(&[vec![0; 6]])?.labelled(vec![pieces.to_vec()])?;
/// let shares = Grid::from_array(array![0.1, 0.2, 0.3, 0.1, 0.2, 0.1], &[Axis::Pos], "share")?;
/// let words = by_word(&shares, &tokens)?;
/// assert_eq!(words.labels(Axis::Pos)?, ["Whenever", "it", "rains", ","]);
/// assert!((words.get(&["rains"])? - 0.3).abs() < 1e-12);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn by_word(grid: &Grid, tokens: &Tokens) -> Result<Grid> {
    let find = |axis: Axis| grid.axes.iter().position(|named| named.axis == axis);
    let place = find(Axis::Pos)
        .with_context(|| format!("by_word: no axis Pos; axes are {}", grid.axes_text()))?;
    let batch = find(Axis::Batch);
    let rows = batch.map_or(1, |batch| grid.shape()[batch]);
    ensure!(
        grid.shape()[place] == tokens.width() && rows == tokens.batch(),
        "by_word: the grid is {} and the tokens are {} x {}: expected those it was made from",
        grid.axes_text(),
        tokens.batch(),
        tokens.width()
    );
    let words = Words::new(tokens);
    let mut shape = grid.shape().to_vec();
    shape[place] = words.width();
    let mut values = ArrayD::zeros(shape.clone());
    let mut missing = ArrayD::from_elem(shape, true);
    for (at, value) in values.indexed_iter_mut() {
        let mut index = at.slice().to_vec();
        let row = batch.map_or(0, |batch| index[batch]);
        let Some(word) = words.span(row, index[place]) else { continue };
        for piece in word {
            index[place] = piece + tokens.padding(row);
            if grid.exists(&index) {
                *value += grid.values[IxDyn(&index)];
                missing[&at] = false;
            }
        }
    }
    let mut summed = grid.clone();
    summed.values = values;
    summed.axes[place] = GridAxis { axis: Axis::Pos, labels: words.labels(tokens) };
    summed.missing = missing.iter().any(|gone| *gone).then_some(missing);
    (summed.interval, summed.code) = (None, None);
    summed.check()?;
    Ok(summed.note("positions", "words: the sum over the pieces of each"))
}

/// The words of each row, as ranges of its own tokens; in columns, the rows' last words one above the
/// other.
pub(super) struct Words(Vec<Vec<Range<usize>>>);

impl Words {
    pub(super) fn new(tokens: &Tokens) -> Self {
        let spaced = |piece: &String| piece.contains(char::is_whitespace);
        let pieced = tokens.pieces().iter().flatten().any(spaced);
        let row = |pieces: &Vec<String>| {
            let mut words: Vec<Range<usize>> = Vec::new();
            for at in 0..pieces.len() {
                match words.last_mut() {
                    Some(word) if pieced && goes_on(&pieces[at - 1], &pieces[at]) => {
                        word.end = at + 1;
                    }
                    _ => words.push(at..at + 1),
                }
            }
            words
        };
        Words(tokens.pieces().iter().map(row).collect())
    }

    /// Words of the row that has most.
    pub(super) fn width(&self) -> usize {
        self.0.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// The word of a row in a column, if it reaches that far back.
    pub(super) fn span(&self, row: usize, column: usize) -> Option<Range<usize>> {
        let own = column.checked_sub(self.width() - self.0[row].len())?;
        Some(self.0[row][own].clone())
    }

    /// The words where all rows agree on them; else the place, counted from the end where rows differ
    /// in length.
    pub(super) fn labels(&self, tokens: &Tokens) -> Vec<String> {
        let width = self.width();
        let ragged = self.0.iter().any(|own| own.len() != width);
        let text = |row: usize, column: usize| {
            let text = tokens.pieces()[row][self.span(row, column)?].concat();
            let trimmed = text.trim();
            Some(if trimmed.is_empty() { text } else { trimmed.to_owned() })
        };
        let label = |column: usize| {
            let mut each = (0..self.0.len()).map(|row| text(row, column));
            match each.next().flatten() {
                Some(first) if each.all(|other| other.as_deref() == Some(&first)) => first,
                _ if ragged => format!("-{}", width - column),
                _ => column.to_string(),
            }
        };
        (0..width).map(label).collect()
    }
}

/// Whether a piece goes on with the word that the one before ends with.
fn goes_on(before: &str, piece: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || matches!(c, '\'' | '\u{2019}' | '\u{fffd}');
    before.chars().next_back().is_some_and(inside) && piece.chars().next().is_some_and(inside)
}
