//! An intervention made ready for one run: checked, its tensors shaped, its part turned into a mask.

use anyhow::{Context, Result, ensure};
use tch::{Device, Kind, Tensor};

use super::cache::{Cache, version};
use super::intervention::{Function, Intervention, Op};
use super::part::{mask, part_shape};
use super::site::{Axis, Point, Site};
use crate::config::Config;
use crate::text::Tokens;

/// What the shapes of a run follow from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting<'a> {
    pub(crate) config: &'a Config,
    pub(crate) tokens: &'a Tokens,
    pub(crate) kind: Kind,
    pub(crate) device: Device,
}

impl Setting<'_> {
    /// Entries of an axis.
    pub(crate) fn len(&self, axis: Axis) -> usize {
        match axis {
            Axis::Batch => self.tokens.batch(),
            Axis::Pos | Axis::Query | Axis::Key => self.tokens.width(),
            Axis::Head => self.config.n_heads,
            Axis::KvHead => self.config.n_kv_heads,
            Axis::DModel => self.config.d_model,
            Axis::DHead => self.config.d_head,
            Axis::DMlp => self.config.d_mlp,
            Axis::Vocab => self.config.d_vocab,
            Axis::Layer => self.config.n_layers,
            _ => 1,
        }
    }

    /// Shape of the activation at a site.
    pub(crate) fn shape(&self, site: Site) -> Vec<i64> {
        site.axes().iter().map(|axis| self.len(*axis) as i64).collect()
    }
}

/// An intervention at one site of one run.
pub(crate) struct Edit {
    pub(crate) site: Site,
    pub(crate) label: String,
    action: Action,
    /// Where it acts; absent: everywhere.
    pub(crate) mask: Option<Tensor>,
    /// For strengths relative to norms: which entries count, `[Batch, Pos]`.
    counted: Option<Tensor>,
    /// First row and number of rows it acts on, one plan's part of a sweep's batch; absent: all.
    pub(crate) rows: Option<(i64, i64)>,
}

enum Action {
    Value(Tensor),
    Add { direction: Tensor, strength: f64, absolute: bool },
    Scale(f64),
    ProjectOut(Tensor),
    Custom(Function),
}

impl Edit {
    /// Checks everything that can be known before the run.
    pub(crate) fn new(intervention: &Intervention, site: Site, setting: Setting) -> Result<Self> {
        let label = format!("{intervention:?}");
        let wrap =
            |error: anyhow::Error| anyhow::anyhow!("intervention at {site}: {label}: {error:#}");
        let mask = mask(&intervention.region, site, setting).map_err(wrap)?;
        let action = action(intervention, site, setting, mask.as_ref()).map_err(wrap)?;
        let relative = matches!(action, Action::Add { absolute: false, .. });
        let counted = relative.then(|| counted(setting));
        Ok(Edit { site, label, action, mask, counted, rows: None })
    }

    /// The activation after the intervention. Of one that acts on some rows only, `x` must be
    /// memory that nobody else reads: those rows are changed in place.
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let Some((first, n)) = self.rows else { return self.change(x) };
        let mut own = x.narrow(0, first, n);
        let changed = self.change(&own)?;
        own.copy_(&changed);
        Ok(x.shallow_clone())
    }

    fn change(&self, x: &Tensor) -> Result<Tensor> {
        let changed = match &self.action {
            // Without a mask this is the result itself, which must not share the plan's memory.
            Action::Value(value) if self.mask.is_none() => {
                value.to_kind(x.kind()).expand_as(x).copy()
            }
            Action::Value(value) => value.to_kind(x.kind()).expand_as(x),
            Action::Add { direction, strength, absolute: true } => {
                x + direction.to_kind(x.kind()) * *strength
            }
            Action::Add { direction, strength, .. } => {
                let length = (self.mean_norm(x) * *strength).to_kind(x.kind());
                x + direction.to_kind(x.kind()) * length
            }
            Action::Scale(factor) => x * *factor,
            Action::ProjectOut(unit) => {
                let unit = unit.to_kind(x.kind());
                let along = (x * &unit).sum_dim_intlist([-1i64].as_slice(), true, None);
                x - along * unit
            }
            Action::Custom(function) => self.custom(function, x)?,
        };
        Ok(match &self.mask {
            Some(mask) => changed.where_self(mask, x),
            None => changed,
        })
    }

    /// Calls a user's function, and checks what it did.
    fn custom(&self, function: &Function, x: &Tensor) -> Result<Tensor> {
        let (site, label, before) = (self.site, &self.label, version(x));
        let y = function(x)
            .map_err(|error| anyhow::anyhow!("intervention at {site}: {label}: {error:#}"))?;
        // The argument's memory is that of other steps too: the stream, an earlier record.
        ensure!(
            version(x) == before,
            "intervention at {site}: {label} changed its argument in place: change a copy of it (x.copy())"
        );
        ensure!(
            y.size() == x.size() && y.kind() == x.kind() && y.device() == x.device(),
            "intervention at {site}: {label} returned {:?} {:?} on {:?}, expected {:?} {:?} on {:?}",
            y.kind(),
            y.size(),
            y.device(),
            x.kind(),
            x.size(),
            x.device()
        );
        Ok(y)
    }

    /// Whether it calls a user's function, which sees the whole activation of a whole run.
    pub(crate) fn is_custom(&self) -> bool {
        matches!(self.action, Action::Custom(_))
    }

    /// Whether its strength depends on every position of the row.
    pub(crate) fn sees_all_positions(&self) -> bool {
        self.counted.is_some()
    }

    /// The first column of the batch that it can change; `exists` says which pairs there are.
    pub(crate) fn first_column(&self, exists: &Tensor) -> Result<i64> {
        let axes = self.site.axes();
        // A strength in units of a mean norm looks at every token of the row.
        let (Some(mask), None) = (&self.mask, &self.counted) else { return Ok(0) };
        let mask = match axes.contains(&Axis::Query) {
            true => mask.logical_and(exists),
            false => mask.shallow_clone(),
        };
        let at = along(axes).context("a site without positions")?;
        let others: Vec<i64> = (0..axes.len() as i64).filter(|axis| *axis != at).collect();
        let touched = mask.to_kind(Kind::Int64).sum_dim_intlist(&others[..], false, Kind::Int64);
        let first = touched.gt(0).nonzero();
        if touched.size() == [1] {
            return Ok(if first.size()[0] == 0 { i64::MAX } else { 0 });
        }
        Ok(if first.size()[0] == 0 { i64::MAX } else { first.int64_value(&[0, 0]) })
    }

    /// The same for a pass over the last `n` of `width` columns, and over some rows of its batch.
    pub(crate) fn narrowed(&self, n: i64, width: i64, rows: (i64, i64)) -> Self {
        let last = |x: &Tensor| match along(self.site.axes()) {
            Some(at) if x.size()[at as usize] == width && width > 1 => x.narrow(at, width - n, n),
            _ => x.shallow_clone(),
        };
        let action = match &self.action {
            Action::Value(value) => Action::Value(last(value)),
            Action::Add { direction, strength, absolute } => Action::Add {
                direction: direction.shallow_clone(),
                strength: *strength,
                absolute: *absolute,
            },
            Action::Scale(factor) => Action::Scale(*factor),
            Action::ProjectOut(unit) => Action::ProjectOut(unit.shallow_clone()),
            Action::Custom(function) => Action::Custom(function.clone()),
        };
        Edit {
            site: self.site,
            label: self.label.clone(),
            action,
            mask: self.mask.as_ref().map(last),
            counted: self.counted.as_ref().map(Tensor::shallow_clone),
            rows: Some(rows),
        }
    }

    /// Mean norm of each row's vectors, shaped to multiply `x`.
    fn mean_norm(&self, x: &Tensor) -> Tensor {
        let x = &x.to_kind(if x.kind() == Kind::Double { Kind::Double } else { Kind::Float });
        let norms = x.norm_scalaropt_dim(2, [-1i64].as_slice(), false);
        let norms = if norms.dim() > 2 {
            norms.flatten(2, -1).mean_dim([2i64].as_slice(), false, None)
        } else {
            norms
        };
        let weight = match &self.counted {
            Some(counted) => counted.to_kind(x.kind()),
            None => norms.ones_like(),
        };
        let mean = (norms * &weight).sum_dim_intlist([1i64].as_slice(), false, None)
            / weight.sum_dim_intlist([1i64].as_slice(), false, None);
        let mut shape = vec![1; x.dim()];
        shape[0] = x.size()[0];
        mean.view(&shape[..])
    }
}

/// Where the axis of positions, or of queries, stands.
fn along(axes: &[Axis]) -> Option<i64> {
    axes.iter().position(|axis| matches!(axis, Axis::Pos | Axis::Query)).map(|at| at as i64)
}

impl std::fmt::Debug for Edit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.site, self.label)
    }
}

/// Tokens whose norms count: all but padding and, where there are others, the first.
fn counted(setting: Setting) -> Tensor {
    let tokens = setting.tokens;
    let mut flags = Vec::with_capacity(tokens.batch() * tokens.width());
    for row in 0..tokens.batch() {
        let (padding, len) = (tokens.padding(row), tokens.ids()[row].len());
        flags.extend((0..tokens.width()).map(|i| i >= padding + usize::from(len > 1)));
    }
    Tensor::from_slice(&flags)
        .view([tokens.batch() as i64, tokens.width() as i64])
        .to_device(setting.device)
}

fn action(
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
            Action::Value(cache.mean(site)?)
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
    let x = cache.get(site)?;
    ensure!(
        x.device() == setting.device,
        "the cache is on {:?}, the model on {:?}: move it with cache.to_device",
        x.device(),
        setting.device
    );
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
    let means = cache.mean_by_pos(site)?;
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
    on_device(direction, setting)
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

fn on_device(tensor: &Tensor, setting: Setting) -> Result<Tensor> {
    ensure!(
        tensor.device() == setting.device,
        "the tensor is on {:?}, the model on {:?}",
        tensor.device(),
        setting.device
    );
    Ok(tensor.shallow_clone())
}

/// A value for `set`, as it is if it broadcasts to the site, else laid into the part covered.
fn placed(value: &Tensor, site: Site, setting: Setting, mask: Option<&Tensor>) -> Result<Tensor> {
    floating(value)?;
    let value = on_device(value, setting)?;
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
