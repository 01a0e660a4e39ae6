//! The part of an activation that an intervention covers, as a mask.

use anyhow::{Context, Result, bail, ensure};
use tch::{Kind, Tensor};

use super::edit::Setting;
use super::intervention::{By, Intervention, Scope};
use super::site::{Axis, Site};
use crate::index::{Index, Positions};

/// Where an intervention acts, broadcastable to the site's shape; absent: everywhere.
pub(crate) fn mask(
    region: &[(By, Positions)],
    site: Site,
    setting: Setting,
) -> Result<Option<Tensor>> {
    let axes = site.axes();
    let mut mask: Option<Tensor> = None;
    let mut add = |part: Tensor| {
        mask = Some(match mask.take() {
            Some(so_far) => so_far.logical_and(&part),
            None => part,
        });
    };
    let mut named = Vec::new();
    let rows = rows(region, setting)?;
    for (by, places) in region {
        let Some(at) = by.find(axes) else {
            bail!("{} needs an axis this site lacks; its axes are {axes:?}", by.method());
        };
        ensure!(
            !named.contains(&at),
            "{} narrows the same axis twice; the axes are {axes:?}",
            by.method()
        );
        named.push(at);
        add(flags(places, at, axes, (&rows, setting)).with_context(|| by.method().to_owned())?);
    }
    if setting.tokens.is_padded() {
        for (at, axis) in axes.iter().enumerate() {
            if matches!(axis, Axis::Pos | Axis::Query | Axis::Key) {
                add(shaped(setting.tokens.mask(setting.device), at, axes, true));
            }
        }
    }
    Ok(mask)
}

/// The same for a text that has grown: places are named in the prompt, `before`; the scope says which
/// of the columns count.
pub(crate) fn mask_grown(
    intervention: &Intervention,
    site: Site,
    before: Setting,
    now: Setting,
) -> Result<Option<Tensor>> {
    let axes = site.axes();
    let (old, new) = (before.tokens.width(), now.tokens.width());
    let mut parts = Vec::new();
    let rows = rows(&intervention.region, before)?;
    for (by, places) in &intervention.region {
        let Some(at) = by.find(axes) else { continue }; // the prompt's own mask has said so
        let part =
            flags(places, at, axes, (&rows, before)).with_context(|| by.method().to_owned())?;
        let along = matches!(axes[at], Axis::Pos | Axis::Query | Axis::Key);
        let everywhere = *places == Positions::Many(Index::All);
        if along && everywhere {
            continue;
        }
        parts.push(if along && new > old {
            let mut shape = part.size();
            shape[at] = (new - old) as i64;
            Tensor::cat(&[&part, &Tensor::zeros(&shape, (Kind::Bool, now.device))], at as i64)
        } else {
            part
        });
    }
    let along = axes.iter().position(|axis| matches!(axis, Axis::Pos | Axis::Query));
    let scope = intervention.scope_in_generation();
    if let Some(at) = along.filter(|_| scope != Scope::All) {
        let flags: Vec<bool> = (0..new).map(|column| (column < old) == scope.in_prompt()).collect();
        parts.push(shaped(Tensor::from_slice(&flags).to_device(now.device), at, axes, false));
    }
    if now.tokens.is_padded() {
        for (at, axis) in axes.iter().enumerate() {
            if matches!(axis, Axis::Pos | Axis::Query | Axis::Key) {
                parts.push(shaped(now.tokens.mask(now.device), at, axes, true));
            }
        }
    }
    Ok(parts.into_iter().reduce(|a, b| a.logical_and(&b)))
}

/// The rows of the batch that a region covers: only they need have the places that it names.
fn rows(region: &[(By, Positions)], setting: Setting) -> Result<Vec<usize>> {
    let batch = setting.tokens.batch();
    match region.iter().find(|(by, _)| *by == By::Axis(Axis::Batch)) {
        Some((_, Positions::Many(index))) => index
            .resolve(batch)
            .with_context(|| format!("axis {} has {batch} entries", Axis::Batch))
            .context(".batch"),
        _ => Ok((0..batch).collect()),
    }
}

/// The entries of one axis as booleans, shaped to broadcast over the site.
fn flags(
    places: &Positions,
    at: usize,
    axes: &[Axis],
    (rows, setting): (&[usize], Setting),
) -> Result<Tensor> {
    let tokens = setting.tokens;
    if matches!(axes[at], Axis::Pos | Axis::Query | Axis::Key) {
        let mut flags = vec![false; tokens.batch() * tokens.width()];
        for (row, list) in tokens.places_in(rows, places)?.iter().enumerate() {
            let first = row * tokens.width() + tokens.padding(row);
            list.iter().for_each(|i| flags[first + i] = true);
        }
        let flags = Tensor::from_slice(&flags).view([tokens.batch() as i64, tokens.width() as i64]);
        return Ok(shaped(flags.to_device(setting.device), at, axes, true));
    }
    let Positions::Many(index) = places else {
        bail!("{places} is a position, the axis is {}", axes[at]);
    };
    let len = setting.len(axes[at]);
    let mut flags = vec![false; len];
    let entries =
        index.resolve(len).with_context(|| format!("axis {} has {len} entries", axes[at]))?;
    entries.iter().for_each(|i| flags[*i] = true);
    Ok(shaped(Tensor::from_slice(&flags).to_device(setting.device), at, axes, false))
}

/// `[len]`, or `[Batch, len]`, with 1 for every other axis.
fn shaped(flags: Tensor, at: usize, axes: &[Axis], per_row: bool) -> Tensor {
    let mut shape = vec![1; axes.len()];
    let size = flags.size();
    if per_row {
        shape[0] = size[0];
    }
    shape[at] = size[size.len() - 1];
    flags.view(&shape[..])
}

/// The shape of the part a mask covers, if every row of it covers equally many entries. Which ones
/// may differ: a place of its own in each row of the batch is `[Batch, 1, ..]`.
pub(crate) fn part_shape(mask: &Tensor) -> Option<Vec<i64>> {
    let mut part = Vec::new();
    let mut left = mask.shallow_clone();
    for _ in 0..mask.dim() {
        let counts = left.sum_dim_intlist([-1i64].as_slice(), false, Kind::Int64);
        left = left.any_dim(-1, false);
        let covered = counts.masked_select(&left);
        if covered.numel() == 0 {
            return None;
        }
        let [most, least] = [covered.max(), covered.min()].map(|n| i64::try_from(n).ok());
        if most != least {
            return None;
        }
        part.insert(0, most?);
    }
    Some(part)
}
