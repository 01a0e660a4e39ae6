//! Text -> [`Tokens`]: ids, pieces to show, and which entries of a batch are padding.

mod vocabulary;

use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use tch::{Device, Kind, Tensor};

use crate::index::{self, Position, Positions, Roles};

pub(crate) use vocabulary::Vocabulary;

/// Prompts as token ids, one row each. Rows may differ in length: shorter ones are padded on the
/// left when they become a tensor, and every position is counted in the row's own tokens.
///
/// ```
/// use thalweg::Tokens;
/// let tokens = Tokens::from_ids(&[vec![5, 6, 7], vec![8]])?;
/// assert_eq!((tokens.batch(), tokens.width()), (2, 3));
/// assert_eq!(tokens.lens(), [3, 1]);
/// # anyhow::Ok(())
/// ```
#[derive(Clone)]
pub struct Tokens {
    ids: Vec<Vec<i64>>,
    pieces: Vec<Vec<String>>,
    roles: Roles,
}

impl Tokens {
    /// Rows of ids, of any lengths. Without a tokenizer the pieces are the ids themselves.
    pub fn from_ids(rows: &[Vec<i64>]) -> Result<Self> {
        ensure!(!rows.is_empty(), "no prompts: expected at least one row of token ids");
        for (row, ids) in rows.iter().enumerate() {
            ensure!(!ids.is_empty(), "prompt {row} is empty: expected at least one token");
            if let Some(bad) = ids.iter().find(|id| **id < 0) {
                bail!("prompt {row} holds token id {bad}: ids start at 0");
            }
        }
        let pieces = rows.iter().map(|ids| ids.iter().map(i64::to_string).collect()).collect();
        Ok(Tokens { ids: rows.to_vec(), pieces, roles: Roles::new() })
    }

    /// The same ids with pieces from the vocabulary, for labels.
    pub(crate) fn with_pieces(mut self, vocabulary: &Vocabulary) -> Self {
        self.pieces = self.ids.iter().map(|ids| vocabulary.pieces(ids)).collect();
        self
    }

    /// The same ids with other pieces to show, one for each id.
    pub fn labelled(mut self, pieces: Vec<Vec<String>>) -> Result<Self> {
        let lens: Vec<_> = pieces.iter().map(Vec::len).collect();
        ensure!(
            lens == self.lens(),
            "pieces for rows of {lens:?} tokens, the rows have {:?}",
            self.lens()
        );
        self.pieces = pieces;
        Ok(self)
    }

    /// Names a place in every row, so that `.pos(name)` finds it; `places` counts in each row's
    /// own tokens.
    pub fn with_role(mut self, name: &str, places: Vec<i64>) -> Result<Self> {
        ensure!(
            places.len() == self.batch(),
            "role {name:?}: {} places for {} rows",
            places.len(),
            self.batch()
        );
        self.roles.insert(name.to_owned(), places);
        Ok(self)
    }

    /// Every role and where it stands.
    pub(crate) fn roles(&self) -> &Roles {
        &self.roles
    }

    /// Where a role stands, one place a row.
    pub fn role(&self, name: &str) -> Result<&[i64]> {
        index::role(&self.roles, name)
    }

    /// The positions meant in each row, counted in the row's own tokens, ascending.
    pub fn places(&self, positions: impl Into<Positions>) -> Result<Vec<Vec<usize>>> {
        positions.into().resolve(&self.lens(), &self.roles)
    }

    /// The same in some rows only: the others have none, whatever their length.
    pub(crate) fn places_in(&self, rows: &[usize], at: &Positions) -> Result<Vec<Vec<usize>>> {
        at.resolve_in(rows, &self.lens(), &self.roles)
    }

    /// Ids of each row, without padding.
    pub fn ids(&self) -> &[Vec<i64>] {
        &self.ids
    }

    /// What to show for each token of each row, leading spaces included.
    pub fn pieces(&self) -> &[Vec<String>] {
        &self.pieces
    }

    /// The token at one place of each row, as text without the spaces around it: the words that stand
    /// in a role, to label or to group prompts by.
    ///
    /// ```
    /// use thalweg::{Model, prompts::Prompts};
    /// let model = Model::load("data/models/tiny-world")?;
    /// let set = Prompts::load("data/prompts/sentiment.json")?.labelled("verb")?;
    /// let tokens = set.aligned(&model)?.clean;
    /// assert!(set.clean()[0].contains(&tokens.words_at("adjective")?[0]));
    /// assert_eq!(tokens.words_at(-1)?[0], "I");
    /// # thalweg::anyhow::Ok(())
    /// ```
    pub fn words_at(&self, position: impl Into<Position>) -> Result<Vec<String>> {
        let places = self.places(position.into())?;
        let word = |(row, at): (&Vec<String>, Vec<usize>)| row[at[0]].trim().to_owned();
        Ok(self.pieces.iter().zip(places).map(word).collect())
    }

    /// Number of rows.
    pub fn batch(&self) -> usize {
        self.ids.len()
    }

    /// Tokens of each row.
    pub fn lens(&self) -> Vec<usize> {
        self.ids.iter().map(Vec::len).collect()
    }

    /// Tokens of the longest row: the length of the `Pos` axis.
    pub fn width(&self) -> usize {
        self.ids.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// Padding in front of a row.
    pub fn padding(&self, row: usize) -> usize {
        self.width() - self.ids[row].len()
    }

    /// Whether any row is padded.
    pub fn is_padded(&self) -> bool {
        self.ids.iter().any(|ids| ids.len() != self.width())
    }

    /// One row of the batch, alone.
    pub fn row(&self, row: usize) -> Result<Tokens> {
        self.rows(&[row])
    }

    /// Some rows of the batch, in the order given.
    pub fn rows(&self, rows: &[usize]) -> Result<Tokens> {
        ensure!(!rows.is_empty(), "no rows chosen");
        if let Some(bad) = rows.iter().find(|row| **row >= self.batch()) {
            bail!("row {bad} is outside 0..{}", self.batch());
        }
        let pick = |list: &[i64]| rows.iter().map(|row| list[*row]).collect();
        Ok(Tokens {
            ids: rows.iter().map(|row| self.ids[*row].clone()).collect(),
            pieces: rows.iter().map(|row| self.pieces[*row].clone()).collect(),
            roles: self.roles.iter().map(|(name, at)| (name.clone(), pick(at))).collect(),
        })
    }

    /// The same rows with more ids at their ends, as many in each. Roles stay where they are.
    pub(crate) fn extended(&self, more: &[Vec<i64>]) -> Result<Tokens> {
        let ids: Vec<_> =
            self.ids.iter().zip(more).map(|(own, more)| [own.as_slice(), more].concat()).collect();
        let mut longer = Tokens::from_ids(&ids)?;
        for (pieces, own) in longer.pieces.iter_mut().zip(&self.pieces) {
            pieces[..own.len()].clone_from_slice(own);
        }
        for (name, places) in &self.roles {
            let fixed = places.iter().zip(&self.ids);
            let fixed = fixed.map(|(at, own)| if *at < 0 { at + own.len() as i64 } else { *at });
            longer.roles.insert(name.clone(), fixed.collect());
        }
        Ok(longer)
    }

    /// Where `text` stands in each row: the one token whose piece is `text` (spaces around it do
    /// not count), or the last token of the one run of pieces that spells it. None or several is
    /// an error that says where; [`find_nth`](Self::find_nth) chooses among several.
    pub fn find(&self, text: &str) -> Result<Position> {
        let each = self.occurrences(text)?;
        for (row, places) in each.iter().enumerate() {
            ensure!(
                places.len() == 1,
                "{text:?} stands at positions {places:?} of row {row}: choose one with find_nth({text:?}, 0), ({text:?}, 1) ..."
            );
        }
        Ok(Position::PerRow(each.iter().map(|places| places[0]).collect()))
    }

    /// Like [`find`](Self::find), the `n`-th occurrence in each row, 0 first, -1 the last.
    pub fn find_nth(&self, text: &str, n: i64) -> Result<Position> {
        let each = self.occurrences(text)?;
        let pick = |(row, places): (usize, &Vec<i64>)| {
            let at = if n < 0 { n + places.len() as i64 } else { n };
            usize::try_from(at).ok().and_then(|at| places.get(at).copied()).with_context(|| {
                format!("{text:?} stands {} times in row {row}: no occurrence {n}", places.len())
            })
        };
        Ok(Position::PerRow(each.iter().enumerate().map(pick).collect::<Result<_>>()?))
    }

    fn occurrences(&self, text: &str) -> Result<Vec<Vec<i64>>> {
        let wanted = text.trim();
        ensure!(!wanted.is_empty(), "find(\"\"): expected some text");
        let mut each = Vec::new();
        for (row, pieces) in self.pieces.iter().enumerate() {
            let mut places = Vec::new();
            for start in 0..pieces.len() {
                let mut spelled = String::new();
                for (end, piece) in pieces.iter().enumerate().skip(start) {
                    spelled.push_str(piece);
                    let so_far = spelled.trim();
                    if so_far == wanted && !piece.trim().is_empty() {
                        places.push(end as i64);
                        break;
                    }
                    if so_far.len() >= wanted.len() && !so_far.is_empty() {
                        break;
                    }
                }
            }
            places.dedup();
            ensure!(!places.is_empty(), "{text:?} is not in row {row}: {}", shown(pieces));
            each.push(places);
        }
        Ok(each)
    }

    /// Ids as a tensor `[Batch, Pos]`, padded with 0 on the left.
    pub fn tensor(&self, device: Device) -> Tensor {
        let flat: Vec<i64> = (0..self.batch())
            .flat_map(|row| {
                std::iter::repeat_n(0, self.padding(row)).chain(self.ids[row].iter().copied())
            })
            .collect();
        Tensor::from_slice(&flat).view([self.batch() as i64, self.width() as i64]).to_device(device)
    }

    /// True at tokens, false at padding: `[Batch, Pos]`.
    pub fn mask(&self, device: Device) -> Tensor {
        let positions = self.positions(device);
        positions.ge(0)
    }

    /// Position of each entry in its row's own tokens, negative at padding: `[Batch, Pos]`.
    pub fn positions(&self, device: Device) -> Tensor {
        let padding: Vec<i64> = (0..self.batch()).map(|row| self.padding(row) as i64).collect();
        let columns = Tensor::arange(self.width() as i64, (Kind::Int64, device));
        columns.unsqueeze(0) - Tensor::from_slice(&padding).to_device(device).unsqueeze(1)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens {} x {}", self.batch(), self.width())?;
        if let Some(first) = self.pieces.first() {
            let more = if self.batch() > 1 && first.len() <= 24 { " ..." } else { "" };
            write!(f, ": {}{more}", shown(first))?;
        }
        Ok(())
    }
}

/// The first pieces of a row, in one line.
fn shown(pieces: &[String]) -> String {
    let first = pieces.iter().take(24).map(|piece| piece.escape_debug().to_string());
    let more = if pieces.len() > 24 { " ..." } else { "" };
    first.collect::<Vec<_>>().join("|") + more
}
