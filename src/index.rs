//! Which entries of an axis are meant: an index, a range, a list; and which token positions.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, ensure};

/// Entries of one axis: an index, a range or a list; negative numbers count from the end.
///
/// ```
/// use thalweg::Index;
/// assert_eq!(Index::from(-1).resolve(5).unwrap(), [4]);
/// assert_eq!(Index::from(1..3).resolve(5).unwrap(), [1, 2]);
/// assert_eq!(Index::from(-2..).resolve(5).unwrap(), [3, 4]);
/// assert!(Index::from(5).resolve(5).is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Index {
    /// Every entry.
    All,
    /// One entry.
    One(i64),
    /// From the first number up to, not including, the second; absent: to the axis' end.
    Range(i64, Option<i64>),
    /// These entries, in any order.
    List(Vec<i64>),
}

impl Index {
    /// The entries meant on an axis of `len` entries, ascending and distinct.
    pub fn resolve(&self, len: usize) -> Result<Vec<usize>> {
        let mut found = match self {
            Index::All => (0..len).collect(),
            Index::One(i) => vec![place(*i, len)?],
            Index::List(list) => list.iter().map(|i| place(*i, len)).collect::<Result<_>>()?,
            Index::Range(from, to) => {
                let end = |i: i64| if i < 0 { i + len as i64 } else { i };
                let (start, stop) = (end(*from), to.map_or(len as i64, end));
                ensure!(
                    0 <= start && start < stop && stop <= len as i64,
                    "range {from}..{} is empty or leaves 0..{len}",
                    to.map(|i| i.to_string()).unwrap_or_default()
                );
                (start as usize..stop as usize).collect::<Vec<_>>()
            }
        };
        ensure!(!found.is_empty(), "the list of indices is empty");
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}

/// One index, counted from the end if negative.
pub(crate) fn place(i: i64, len: usize) -> Result<usize> {
    let at = if i < 0 { i + len as i64 } else { i };
    ensure!(0 <= at && at < len as i64, "index {i} is outside 0..{len} (or -{len}..-1)");
    Ok(at as usize)
}

/// One place per row, counted in the row's own tokens: padding never counts, -1 is the row's last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// The same number in every row.
    At(i64),
    /// Every row's last token.
    Last,
    /// One number a row.
    PerRow(Vec<i64>),
    /// A named place of a prompt set, such as `"S2"`: the tokens know where it is in each row.
    Role(String),
}

/// One or many positions in each row: what [`Intervention::pos`](crate::Intervention::pos) takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Positions {
    /// One place per row.
    One(Position),
    /// Several places, the same in every row.
    Many(Index),
}

/// Named places of a batch: role -> one position a row.
pub type Roles = BTreeMap<String, Vec<i64>>;

/// The places of a role, or an error that lists the roles there are.
pub(crate) fn role<'a>(roles: &'a Roles, name: &str) -> Result<&'a [i64]> {
    roles.get(name).map(Vec::as_slice).with_context(|| {
        let known: Vec<_> = roles.keys().map(String::as_str).collect();
        match known.as_slice() {
            [] => {
                format!("no role {name:?}: these tokens carry no roles (those of a prompt set do)")
            }
            list => format!("no role {name:?}: the tokens have {}", list.join(", ")),
        }
    })
}

impl Positions {
    /// The positions meant in each row, ascending, given the rows' lengths and the roles.
    pub(crate) fn resolve(&self, lens: &[usize], roles: &Roles) -> Result<Vec<Vec<usize>>> {
        let all: Vec<usize> = (0..lens.len()).collect();
        self.resolve_in(&all, lens, roles)
    }

    /// The same in some rows only: the others have none, whatever their length.
    pub(crate) fn resolve_in(
        &self,
        rows: &[usize],
        lens: &[usize],
        roles: &Roles,
    ) -> Result<Vec<Vec<usize>>> {
        let in_row = |row: usize, i: i64| {
            place(i, lens[row])
                .map_err(|_| anyhow::anyhow!("row {row} has {} tokens: no position {i}", lens[row]))
        };
        let listed = match self {
            Positions::One(Position::PerRow(list)) => Some(list.as_slice()),
            Positions::One(Position::Role(name)) => Some(role(roles, name)?),
            _ => None,
        };
        ensure!(
            listed.is_none_or(|list| list.len() == lens.len()),
            "{} positions for {} rows: expected one position a row",
            listed.map_or(0, <[i64]>::len),
            lens.len()
        );
        let mut found = vec![Vec::new(); lens.len()];
        for row in rows.iter().copied() {
            found[row] = match (self, listed) {
                (_, Some(list)) => vec![in_row(row, list[row])?],
                (Positions::One(Position::At(i)), _) => vec![in_row(row, *i)?],
                (Positions::Many(index), _) => index.resolve(lens[row]).map_err(|error| {
                    anyhow::anyhow!("row {row} has {} tokens: {error}", lens[row])
                })?,
                _ => vec![lens[row] - 1],
            };
        }
        Ok(found)
    }
}

/// A number too large for any axis stays so.
fn whole<I: TryInto<i64>>(i: I) -> i64 {
    i.try_into().unwrap_or(i64::MAX)
}

macro_rules! from_integers {
    ($($int:ty),*) => {$(
        impl From<$int> for Index {
            fn from(i: $int) -> Self { Index::One(whole(i)) }
        }
        impl From<std::ops::Range<$int>> for Index {
            fn from(r: std::ops::Range<$int>) -> Self { Index::Range(whole(r.start), Some(whole(r.end))) }
        }
        impl From<std::ops::RangeFrom<$int>> for Index {
            fn from(r: std::ops::RangeFrom<$int>) -> Self { Index::Range(whole(r.start), None) }
        }
        impl From<std::ops::RangeTo<$int>> for Index {
            fn from(r: std::ops::RangeTo<$int>) -> Self { Index::Range(0, Some(whole(r.end))) }
        }
        impl From<Vec<$int>> for Index {
            fn from(list: Vec<$int>) -> Self { Index::List(list.into_iter().map(whole).collect()) }
        }
        impl From<&[$int]> for Index {
            fn from(list: &[$int]) -> Self { list.to_vec().into() }
        }
        impl<const N: usize> From<[$int; N]> for Index {
            fn from(list: [$int; N]) -> Self { list.to_vec().into() }
        }
        impl From<$int> for Position {
            fn from(i: $int) -> Self { Position::At(whole(i)) }
        }
        impl From<Vec<$int>> for Position {
            fn from(list: Vec<$int>) -> Self { Position::PerRow(list.into_iter().map(whole).collect()) }
        }
        impl From<$int> for Positions {
            fn from(i: $int) -> Self { Positions::One(i.into()) }
        }
        impl From<std::ops::Range<$int>> for Positions {
            fn from(r: std::ops::Range<$int>) -> Self { Positions::Many(r.into()) }
        }
        impl From<std::ops::RangeFrom<$int>> for Positions {
            fn from(r: std::ops::RangeFrom<$int>) -> Self { Positions::Many(r.into()) }
        }
        impl From<std::ops::RangeTo<$int>> for Positions {
            fn from(r: std::ops::RangeTo<$int>) -> Self { Positions::Many(r.into()) }
        }
        impl From<Vec<$int>> for Positions {
            fn from(list: Vec<$int>) -> Self { Positions::Many(list.into()) }
        }
        impl From<&[$int]> for Positions {
            fn from(list: &[$int]) -> Self { Positions::Many(list.into()) }
        }
        impl<const N: usize> From<[$int; N]> for Positions {
            fn from(list: [$int; N]) -> Self { Positions::Many(list.into()) }
        }
    )*};
}
from_integers!(i32, i64, usize);

impl From<std::ops::RangeFull> for Index {
    fn from(_: std::ops::RangeFull) -> Self {
        Index::All
    }
}

impl From<std::ops::RangeFull> for Positions {
    fn from(_: std::ops::RangeFull) -> Self {
        Positions::Many(Index::All)
    }
}

impl From<Index> for Positions {
    fn from(index: Index) -> Self {
        Positions::Many(index)
    }
}

impl From<Position> for Positions {
    fn from(position: Position) -> Self {
        Positions::One(position)
    }
}

impl From<&Position> for Positions {
    fn from(position: &Position) -> Self {
        Positions::One(position.clone())
    }
}

impl From<&str> for Position {
    fn from(role: &str) -> Self {
        Position::Role(role.to_owned())
    }
}

impl From<&str> for Positions {
    fn from(role: &str) -> Self {
        Positions::One(role.into())
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Index::All => f.write_str(".."),
            Index::One(i) => write!(f, "{i}"),
            Index::Range(from, Some(to)) => write!(f, "{from}..{to}"),
            Index::Range(from, None) => write!(f, "{from}.."),
            Index::List(list) => write!(f, "{list:?}"),
        }
    }
}

impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Positions::One(Position::At(i)) => write!(f, "{i}"),
            Positions::One(Position::Last) => f.write_str("last"),
            Positions::One(Position::PerRow(list)) => write!(f, "per row {list:?}"),
            Positions::One(Position::Role(name)) => write!(f, "{name:?}"),
            Positions::Many(index) => write!(f, "{index}"),
        }
    }
}
