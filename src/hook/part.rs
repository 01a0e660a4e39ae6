//! The part of an activation that an intervention covers, as a mask.

use anyhow::{Context, Result, bail, ensure};
use tch::{Kind, Tensor};

use super::edit::Setting;
use super::intervention::By;
use super::site::{Axis, Site};
use crate::index::Positions;

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
        add(flags(places, at, axes, setting).with_context(|| by.method().to_owned())?);
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

/// The entries of one axis as booleans, shaped to broadcast over the site.
fn flags(places: &Positions, at: usize, axes: &[Axis], setting: Setting) -> Result<Tensor> {
    let tokens = setting.tokens;
    if matches!(axes[at], Axis::Pos | Axis::Query | Axis::Key) {
        let mut flags = vec![false; tokens.batch() * tokens.width()];
        for (row, list) in tokens.places(places.clone())?.iter().enumerate() {
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

/// The shape of the part a mask covers, if it is a box (the same number of entries everywhere).
pub(crate) fn part_shape(mask: &Tensor) -> Option<Vec<i64>> {
    let mut part = Vec::new();
    for at in 0..mask.dim() as i64 {
        let counts = mask.sum_dim_intlist([at].as_slice(), false, Kind::Int64);
        let most = i64::try_from(counts.max()).ok()?;
        let covered = counts.gt(0);
        let least = i64::try_from(counts.masked_select(&covered).min()).ok()?;
        if most != least {
            return None;
        }
        part.push(most);
    }
    let total = i64::try_from(mask.sum(Kind::Int64)).ok()?;
    (part.iter().product::<i64>() == total).then_some(part)
}
