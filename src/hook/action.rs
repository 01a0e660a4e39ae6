//! What an intervention puts in place of an activation: checked against the run, its tensors shaped.

use anyhow::{Context, Result, ensure};
use tch::{Kind, Tensor};

use super::cache::Cache;
use super::edit::Setting;
use super::intervention::{Function, Intervention, Op};
use super::part::part_shape;
use super::site::{Axis, Point, Site};

/// An operation made ready.
pub(crate) enum Action {
    Value(Tensor),
    Add { direction: Tensor, strength: f64, absolute: bool },
    Scale(f64),
    ProjectOut(Tensor),
    Custom(Function),
}

/// The operation of an intervention at one site of one run.
pub(crate) fn action(
    intervention: &Intervention,
    site: Site,
    setting: Setting,
    mask: Option<&Tensor>,
) -> Result<Action> {
    let like = Tensor::zeros(vec![1; site.axes().len()], (setting.kind, setting.device));
    Ok(match &intervention.op {
        Op::Zero => Action::Value(like),
        Op::Mean(cache) => {
            let _ = source(cache, site, setting)?;
            Action::Value(cache.mean(site)?.to_device(setting.device))
        }
        Op::MeanByPos(cache) => Action::Value(mean_by_pos(cache, site, setting)?),
        Op::Resample(cache, rows) => Action::Value(resampled(cache, rows, site, setting)?),
        Op::Patch(cache, from) => {
            Action::Value(patched(cache, from.unwrap_or(site), site, setting)?)
        }
        Op::Set(value) => Action::Value(placed(&value.0, site, setting, mask)?),
        Op::Scale(factor) => {
            ensure!(factor.is_finite(), "expected a finite factor");
            Action::Scale(*factor)
        }
        Op::Add { direction, strength, absolute } => {
            ensure!(strength.is_finite(), "expected a finite strength");
            let direction = checked_direction(&direction.0, site, setting)?;
            let unit = if *absolute { direction } else { normalized(&direction)? };
            Action::Add { direction: unit, strength: *strength, absolute: *absolute }
        }
        Op::ProjectOut(direction) => {
            Action::ProjectOut(normalized(&checked_direction(&direction.0, site, setting)?)?)
        }
        Op::Knockout => {
            ensure!(
                site.point() == Some(Point::Scores),
                "a knockout acts on scores: use Point::Scores.at({})",
                site.layer().unwrap_or(0)
            );
            Action::Value(like + f64::NEG_INFINITY)
        }
        Op::Custom(_, function) => Action::Custom(function.clone()),
    })
}

/// The activation a source holds, once its kind of site and its device fit.
fn source(cache: &Cache, site: Site, setting: Setting) -> Result<Tensor> {
    let x = cache.get(site)?.to_device(setting.device); // an offloaded cache may lie elsewhere
    let want = setting.shape(site);
    let have = x.size();
    let (batch, width) = (cache.tokens().batch() as i64, cache.tokens().width() as i64);
    for (at, axis) in site.axes().iter().enumerate() {
        let (own, whose) = match axis {
            Axis::Batch => (batch, "its tokens ask for"),
            Axis::Pos | Axis::Query | Axis::Key => (width, "its tokens ask for"),
            _ => (want[at], "this model has"),
        };
        ensure!(
            have.len() == want.len() && have[at] == own,
            "the cache holds {have:?} for axes {:?}, {whose} {own} on {axis}",
            site.axes()
        );
    }
    Ok(x)
}

pub(super) fn patched(cache: &Cache, origin: Site, site: Site, setting: Setting) -> Result<Tensor> {
    ensure!(
        origin.axes() == site.axes(),
        "{origin} has axes {:?}, {site} has {:?}: patch_from needs the same",
        origin.axes(),
        site.axes()
    );
    let x = source(cache, origin, setting)?;
    let (from, to) = (cache.tokens().lens(), setting.tokens.lens());
    let same = from == to || from.len() == 1 && to.iter().all(|len| *len == from[0]);
    ensure!(
        same,
        "the source's rows have {from:?} tokens, this run's {to:?}: patching needs equal lengths (Prompts::aligned says where pairs differ)"
    );
    ensure!(x.size().len() == site.axes().len(), "the cache holds {:?} there", x.size());
    Ok(x)
}

fn resampled(cache: &Cache, rows: &[usize], site: Site, setting: Setting) -> Result<Tensor> {
    let x = source(cache, site, setting)?;
    let (from, to) = (cache.tokens().lens(), setting.tokens.lens());
    ensure!(rows.len() == to.len(), "{} rows chosen for {} rows", rows.len(), to.len());
    for (row, chosen) in rows.iter().enumerate() {
        let len = from.get(*chosen);
        ensure!(
            len.is_some(),
            "row {chosen} chosen for row {row}: the source has {} rows",
            from.len()
        );
        ensure!(
            len == Some(&to[row]),
            "row {chosen} of the source has {} tokens, row {row} of this run has {}: resampling needs equal lengths",
            from[*chosen],
            to[row]
        );
    }
    let chosen: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
    let mut picked = x.index_select(0, &Tensor::from_slice(&chosen).to_device(x.device()));
    // Padding sits in front; the wider of the two batches has more of it.
    let (wide, width) = (cache.tokens().width() as i64, setting.tokens.width() as i64);
    for (at, axis) in site.axes().iter().enumerate() {
        if matches!(axis, Axis::Pos | Axis::Query | Axis::Key) && wide != width {
            ensure!(wide > width, "the source's batch is {wide} wide, this run's {width}");
            picked = picked.narrow(at as i64, wide - width, width);
        }
    }
    Ok(picked)
}

/// Position means, each row's own positions brought to its columns.
fn mean_by_pos(cache: &Cache, site: Site, setting: Setting) -> Result<Tensor> {
    let _ = source(cache, site, setting)?;
    let means = cache.mean_by_pos(site)?.to_device(setting.device);
    let (tokens, known) = (setting.tokens, cache.tokens().width());
    if site.axes().contains(&Axis::Query) {
        ensure!(
            !tokens.is_padded() && tokens.width() == known,
            "the reference rows have {known} tokens, this run's {:?}: attention means need equal lengths",
            tokens.lens()
        );
        return Ok(means.unsqueeze(0));
    }
    ensure!(
        site.axes().contains(&Axis::Pos),
        "mean_by_pos needs a Pos axis; the axes are {:?}",
        site.axes()
    );
    let mut rows = Vec::new();
    for (row, len) in tokens.lens().into_iter().enumerate() {
        ensure!(len <= known, "row {row} has {len} tokens, the longest reference row {known}");
        let mut shape = setting.shape(site);
        shape[0] = tokens.padding(row) as i64;
        shape.remove(1);
        let padding = Tensor::zeros(&shape, (means.kind(), means.device()));
        rows.push(Tensor::cat(&[padding, means.narrow(0, 0, len as i64)], 0));
    }
    Ok(Tensor::stack(&rows, 0))
}

fn checked_direction(direction: &Tensor, site: Site, setting: Setting) -> Result<Tensor> {
    let last = site.axes()[site.axes().len() - 1];
    ensure!(
        matches!(last, Axis::DModel | Axis::DHead | Axis::DMlp | Axis::Vocab)
            && site.axes().contains(&Axis::Pos),
        "a direction needs a site whose last axis is DModel, DHead, DMlp or Vocab; the axes are {:?}",
        site.axes()
    );
    ensure!(
        direction.size() == [setting.len(last) as i64],
        "the direction is {:?}, expected [{last}] = [{}]",
        direction.size(),
        setting.len(last)
    );
    ensure!(bool::try_from(direction.isfinite().all())?, "the direction holds a non-finite number");
    floating(direction)?;
    Ok(direction.to_device(setting.device))
}

fn normalized(direction: &Tensor) -> Result<Tensor> {
    let norm = direction.to_kind(Kind::Double).norm();
    ensure!(norm.double_value(&[]) > 0.0, "the direction is zero");
    Ok((direction.to_kind(Kind::Double) / norm).to_kind(direction.kind()))
}

fn floating(tensor: &Tensor) -> Result<()> {
    let kinds = [Kind::Double, Kind::Float, Kind::Half, Kind::BFloat16];
    ensure!(
        kinds.contains(&tensor.kind()),
        "a {:?} tensor: expected a floating kind",
        tensor.kind()
    );
    Ok(())
}

/// A value for `set`, as it is if it broadcasts to the site, else laid into the part covered.
fn placed(value: &Tensor, site: Site, setting: Setting, mask: Option<&Tensor>) -> Result<Tensor> {
    floating(value)?;
    let value = value.to_device(setting.device);
    let shape = setting.shape(site);
    if broadcasts(&value.size(), &shape) {
        let missing = shape.len() - value.dim();
        let full = [vec![1; missing], value.size()].concat();
        return Ok(value.reshape(full));
    }
    let fits = mask.and_then(|mask| {
        let mask = mask.expand(&shape, false);
        let part = part_shape(&mask)?;
        let squeezed: Vec<i64> = part.iter().copied().filter(|n| *n != 1).collect();
        let value = if broadcasts(&value.size(), &part) {
            value.expand(&part, false)
        } else if broadcasts(&value.size(), &squeezed) {
            value.expand(&squeezed, false)
        } else {
            return None;
        };
        let full = Tensor::zeros(&shape, (value.kind(), value.device()));
        Some(full.masked_scatter(&mask, &value.contiguous()))
    });
    fits.with_context(|| {
        let part = mask.and_then(|mask| part_shape(&mask.expand(&shape, false)));
        let part =
            part.map(|part| format!(" nor to the part covered, {part:?}")).unwrap_or_default();
        format!("the value is {:?}, which does not broadcast to {shape:?}{part}", value.size())
    })
}

fn broadcasts(from: &[i64], to: &[i64]) -> bool {
    from.len() <= to.len() && from.iter().rev().zip(to.iter().rev()).all(|(a, b)| *a == 1 || a == b)
}
