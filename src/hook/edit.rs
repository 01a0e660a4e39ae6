//! An intervention made ready for one run: checked, its tensors shaped, its part turned into a mask.

use anyhow::{Context, Result, ensure};
use tch::{Device, Kind, Tensor};

use super::action::{Action, action};
use super::cache::version;
use super::intervention::{Function, Intervention, Scope};
use super::part::{mask, mask_grown};
use super::site::{Axis, Site};
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

/// Entries of an axis that a model has whatever its tokens; 1 for any other.
pub(crate) fn entries(config: &Config, axis: Axis) -> usize {
    match axis {
        Axis::Head => config.n_heads,
        Axis::KvHead => config.n_kv_heads,
        Axis::DModel => config.d_model,
        Axis::DHead => config.d_head,
        Axis::DMlp => config.d_mlp,
        Axis::Vocab => config.d_vocab,
        Axis::Layer => config.n_layers,
        _ => 1,
    }
}

impl Setting<'_> {
    /// Entries of an axis.
    pub(crate) fn len(&self, axis: Axis) -> usize {
        match axis {
            Axis::Batch => self.tokens.batch(),
            Axis::Pos | Axis::Query | Axis::Key => self.tokens.width(),
            _ => entries(self.config, axis),
        }
    }

    /// Shape of the activation at a site.
    pub(crate) fn shape(&self, site: Site) -> Vec<i64> {
        site.axes().iter().map(|axis| self.len(*axis) as i64).collect()
    }
}

/// Some rows of an activation that many plans share.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rows {
    /// Of `[Batch, ..]`: the first row and how many.
    SideBySide(i64, i64),
    /// Of rows in a line, `[1, N, ..]`: the first position, how many rows, and the columns of each.
    InLine(i64, i64, i64),
}

impl Rows {
    /// A view of them, `[rows, columns, ..]`.
    fn of(self, x: &Tensor) -> Tensor {
        match self {
            Rows::SideBySide(first, n) => x.narrow(0, first, n),
            Rows::InLine(first, n, columns) => {
                let shape = [&[n, columns], &x.size()[2..]].concat();
                x.narrow(1, first, n * columns).view(&shape[..])
            }
        }
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
    /// One plan's part of a sweep's batch; absent: all.
    pub(crate) rows: Option<Rows>,
}

impl Edit {
    /// Checks everything that can be known before the run.
    pub(crate) fn new(intervention: &Intervention, site: Site, setting: Setting) -> Result<Self> {
        let label = format!("{intervention:?}");
        let wrap =
            |error: anyhow::Error| anyhow::anyhow!("intervention at {site}: {label}: {error:#}");
        ensure!(
            intervention.scope != Some(Scope::Generated),
            "intervention at {site}: {label}: a run has no generated tokens; Model::generate has"
        );
        let mask = mask(&intervention.region, site, setting).map_err(wrap)?;
        let action = action(intervention, site, setting, mask.as_ref()).map_err(wrap)?;
        let relative = matches!(action, Action::Add { absolute: false, .. });
        let counted = relative.then(|| counted(setting));
        Ok(Edit { site, label, action, mask, counted, rows: None })
    }

    /// For a text that has grown since `before`, its prompt: what the intervention names (positions,
    /// caches) is the prompt's, and it acts where its scope says.
    pub(crate) fn grown(
        intervention: &Intervention,
        site: Site,
        before: Setting,
        now: Setting,
    ) -> Result<Self> {
        let label = format!("{intervention:?}");
        let wrap =
            |error: anyhow::Error| anyhow::anyhow!("intervention at {site}: {label}: {error:#}");
        let scope = intervention.scope_in_generation();
        let known = mask(&intervention.region, site, before).map_err(wrap)?;
        let action = action(intervention, site, before, known.as_ref()).map_err(wrap)?;
        let counted = matches!(action, Action::Add { absolute: false, .. });
        ensure!(
            !(counted && scope.in_generated()),
            "intervention at {site}: {label}: a strength in units of the row's mean norm is not known for a text that grows: use .absolute() or .scope(Scope::Prompt)"
        );
        let (old, new) = (before.tokens.width() as i64, now.tokens.width() as i64);
        let action = match action {
            Action::Value(value) => {
                let own = along(site.axes()).is_some_and(|at| value.size()[at as usize] > 1);
                ensure!(
                    !(own && scope.in_generated()),
                    "intervention at {site}: {label}: it holds a value for each position of the prompt, none for what is generated: use .scope(Scope::Prompt)"
                );
                Action::Value(lengthened(&value, site, old, new))
            }
            other => other,
        };
        let mask = mask_grown(intervention, site, before, now).map_err(wrap)?;
        let counted = counted.then(|| lengthened_at(&self::counted(before), 1, new - old));
        Ok(Edit { site, label, action, mask, counted, rows: None })
    }

    /// The activation after the intervention. Of one that acts on some rows only, `x` must be
    /// memory that nobody else reads: those rows are changed in place.
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let Some(rows) = self.rows else { return self.change(x) };
        let mut own = rows.of(x);
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

    /// Whether it puts in values that differ from position to position, as another run's do.
    pub(crate) fn has_columns(&self) -> bool {
        let Action::Value(value) = &self.action else { return false };
        along(self.site.axes()).is_some_and(|at| value.size()[at as usize] > 1)
    }

    /// The first column of the batch that it can change; `exists` says which pairs there are. With
    /// the site's `unedited` activation: the first where what it puts in is something else.
    pub(crate) fn first_column(&self, exists: &Tensor, unedited: Option<&Tensor>) -> Result<i64> {
        let axes = self.site.axes();
        // A strength in units of a mean norm looks at every token of the row.
        if self.counted.is_some() {
            return Ok(0);
        }
        let differs = match (&self.action, unedited) {
            (Action::Value(value), Some(x)) => Some(value.to_kind(x.kind()).ne_tensor(x)),
            _ => None,
        };
        let parts = self.mask.as_ref().map(Tensor::shallow_clone).into_iter().chain(differs);
        let Some(mut changed) = parts.reduce(|a, b| a.logical_and(&b)) else { return Ok(0) };
        if axes.contains(&Axis::Query) {
            changed = changed.logical_and(exists);
        }
        let at = along(axes).context("a site without positions")?;
        let others: Vec<i64> = (0..axes.len() as i64).filter(|axis| *axis != at).collect();
        let touched = changed.to_kind(Kind::Int64).sum_dim_intlist(&others[..], false, Kind::Int64);
        let first = touched.gt(0).nonzero();
        if touched.size() == [1] {
            return Ok(if first.size()[0] == 0 { i64::MAX } else { 0 });
        }
        Ok(if first.size()[0] == 0 { i64::MAX } else { first.int64_value(&[0, 0]) })
    }

    /// The same for a pass over the last `n` of `width` columns, and over some rows of its batch.
    pub(crate) fn narrowed(&self, n: i64, width: i64, rows: Option<Rows>) -> Self {
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
            rows,
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

/// A tensor over the prompt's positions, with zeros for those that came after.
fn lengthened(x: &Tensor, site: Site, old: i64, new: i64) -> Tensor {
    let mut x = x.shallow_clone();
    for (at, axis) in site.axes().iter().enumerate() {
        let own = matches!(axis, Axis::Pos | Axis::Query | Axis::Key) && old > 1;
        if own && x.size()[at] == old {
            x = lengthened_at(&x, at as i64, new - old);
        }
    }
    x
}

fn lengthened_at(x: &Tensor, at: i64, by: i64) -> Tensor {
    let mut shape = x.size();
    shape[at as usize] = by;
    Tensor::cat(&[x, &Tensor::zeros(&shape, (x.kind(), x.device()))], at)
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
