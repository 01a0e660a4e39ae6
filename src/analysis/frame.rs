//! What the methods share: the rungs of the residual stream, labels, marks of what does not exist.

use anyhow::{Result, ensure};
use ndarray::ArrayD;
use tch::{Kind, Tensor};

use crate::config::Config;
use crate::grid::Grid;
use crate::hook::cache::Cache;
use crate::hook::edit::entries;
use crate::hook::site::{Axis, Point, Site};
use crate::index::Position;
use crate::text::Tokens;

/// The places of the residual stream that a cache holds, from the embedding upwards, with the label
/// of each: `embed`, `L0 mid`, `L0`, ... Where `ResidPost` of the block below is cached, `ResidPre`
/// is the same stream and is left out.
pub(super) fn rungs(cache: &Cache) -> Result<Vec<(String, Site)>> {
    let mut rungs = Vec::new();
    let mut add = |label: String, site: Site| {
        let held = cache.contains(site);
        if held {
            rungs.push((label, site));
        }
        held
    };
    let mut below = add("embed".to_owned(), Point::ResidPre.at(0));
    if !below {
        below = add("embed".to_owned(), Site::Embed);
    }
    for layer in 0..cache.n_layers() {
        if !below {
            add(format!("L{layer} pre"), Point::ResidPre.at(layer));
        }
        add(format!("L{layer} mid"), Point::ResidMid.at(layer));
        below = add(format!("L{layer}"), Point::ResidPost.at(layer));
    }
    ensure!(
        !rungs.is_empty(),
        "the cache holds no place of the residual stream: plan.cache(Point::ResidPost); it is {cache:?}"
    );
    Ok(rungs)
}

/// A grid `[Batch, Layer, Pos]` from one `[Batch, Pos]` tensor for each label of `Layer`; without
/// `Batch` for one prompt, and with padding marked as missing.
pub(super) fn by_position(
    cache: &Cache,
    labels: Vec<String>,
    values: &[Tensor],
    unit: &str,
) -> Result<Grid> {
    let (stacked, tokens) = (Tensor::stack(values, 1), cache.tokens());
    let axes = [(Axis::Layer, labels), (Axis::Pos, position_labels(tokens))];
    hide(batched(cache, &stacked, &axes, unit)?, tokens, 0)
}

/// A grid of `values [Batch, ..axes]`, without `Batch` for one prompt, that notes its prompts and
/// its run.
pub(super) fn batched(
    cache: &Cache,
    values: &Tensor,
    axes: &[(Axis, Vec<String>)],
    unit: &str,
) -> Result<Grid> {
    let (tokens, origin) = (cache.tokens(), cache.origin().cloned());
    if tokens.batch() == 1 {
        let grid = Grid::from_tensor(&values.squeeze_dim(0), axes, unit)?.of_runs(origin);
        return Ok(grid.note("prompt", &tokens.pieces()[0].join("|")));
    }
    let rows = (0..tokens.batch()).map(|row| row.to_string()).collect();
    let axes = [&[(Axis::Batch, rows)], axes].concat();
    let grid = Grid::from_tensor(values, &axes, unit)?.of_runs(origin);
    Ok(grid.note("prompts", &tokens.batch().to_string()))
}

/// Labels of the `Pos` axis: the tokens, where all rows agree on them; else the name of the role that
/// stands there in every row (`S2`), or the place, counted from the end where rows differ in length,
/// for there they stand one above the other.
pub(super) fn position_labels(tokens: &Tokens) -> Vec<String> {
    position_labels_by(tokens, tokens)
}

/// [`position_labels`] with the roles of other tokens, the partner of each row.
pub(super) fn position_labels_by(tokens: &Tokens, named: &Tokens) -> Vec<String> {
    let width = tokens.width();
    let label = |column: usize| {
        let mut pieces = tokens.pieces().iter().enumerate().map(|(row, pieces)| {
            column.checked_sub(tokens.padding(row)).map(|own| pieces[own].as_str())
        });
        match pieces.next().flatten() {
            Some(first) if pieces.all(|piece| piece == Some(first)) => first.to_owned(),
            _ => match role_at(named, column) {
                Some(role) => role.to_owned(),
                None if tokens.is_padded() => format!("-{}", width - column),
                None => column.to_string(),
            },
        }
    };
    (0..width).map(label).collect()
}

/// The first role, by name, that stands in this column of every row.
fn role_at(tokens: &Tokens, column: usize) -> Option<&str> {
    let lens = tokens.lens();
    let stands = |places: &Vec<i64>| {
        places.iter().zip(&lens).enumerate().all(|(row, (at, len))| {
            let own = if *at < 0 { at + *len as i64 } else { *at };
            own + tokens.padding(row) as i64 == column as i64
        })
    };
    tokens.roles().iter().find(|(_, places)| stands(places)).map(|(name, _)| name.as_str())
}

/// Marks as missing what does not exist, and the first tokens of each row: padding plus `first`
/// tokens (all but one, where a row has no more) at every axis of positions, and keys after their
/// query.
pub(super) fn hide(mut grid: Grid, tokens: &Tokens, first: usize) -> Result<Grid> {
    let find = |wanted: Axis| grid.axes.iter().position(|named| named.axis == wanted);
    let batch = find(Axis::Batch);
    let places: Vec<usize> =
        [Axis::Pos, Axis::Query, Axis::Key].into_iter().filter_map(find).collect();
    let causal = find(Axis::Query).zip(find(Axis::Key));
    let own_start = |row: usize| {
        let len = tokens.ids()[row].len();
        tokens.padding(row) + first.min(len.saturating_sub(1))
    };
    let hidden = ArrayD::from_shape_fn(grid.values.raw_dim(), |index| {
        let start = own_start(batch.map_or(0, |batch| index[batch]));
        places.iter().any(|place| index[*place] < start)
            || causal.is_some_and(|(query, key)| index[key] > index[query])
    });
    grid.missing = hidden.iter().any(|hidden| *hidden).then_some(hidden);
    grid.check()?;
    Ok(grid)
}

/// Each row's entry of `x [Batch, Pos, ..]` at a position, in f64: `[Batch, ..]`.
pub(super) fn at_position(x: &Tensor, tokens: &Tokens, position: &Position) -> Result<Tensor> {
    let places = tokens.places(position)?;
    let own = |(row, places): (usize, &Vec<usize>)| {
        let column = tokens.padding(row) + places[0];
        x.get(row as i64).get(column as i64)
    };
    let rows: Vec<Tensor> = places.iter().enumerate().map(own).collect();
    Ok(Tensor::stack(&rows, 0).to_kind(Kind::Double))
}

/// One vector for each token of each prompt, `[n, D]`, a head's axes joined into one, with the tokens;
/// without padding and the `first` first tokens of each prompt. The site's axes are `[Batch, Pos, ..]`.
pub(super) fn token_vectors(
    cache: &Cache,
    site: Site,
    first: usize,
) -> Result<(Tensor, Vec<String>)> {
    let axes = site.axes();
    ensure!(
        axes[..2] == [Axis::Batch, Axis::Pos],
        "{site}: its axes are {axes:?}, expected [Batch, Pos, ..]"
    );
    let (x, tokens) = (cache.get(site)?, cache.tokens());
    let (mut rows, mut labels) = (Vec::new(), Vec::new());
    for (row, pieces) in tokens.pieces().iter().enumerate().filter(|(_, p)| p.len() > first) {
        let start = (tokens.padding(row) + first) as i64;
        let own = x.get(row as i64).narrow(0, start, (pieces.len() - first) as i64);
        rows.push(own.flatten(1, -1));
        labels.extend_from_slice(&pieces[first..]);
    }
    ensure!(!rows.is_empty(), "{site}: no prompt has more than {first} tokens");
    Ok((Tensor::cat(&rows, 0), labels))
}

/// `L0`, `L1`, ... or `H0`, `H1`, ...
pub(super) fn numbered(letter: char, n: usize) -> Vec<String> {
    (0..n).map(|i| format!("{letter}{i}")).collect()
}

/// Entries of one vector at a site, in a model of this config.
pub(super) fn width(site: Site, config: &Config) -> usize {
    let own = site.axes().get(2..).unwrap_or_default(); // beyond Batch and Pos
    own.iter().map(|axis| entries(config, *axis)).product()
}
