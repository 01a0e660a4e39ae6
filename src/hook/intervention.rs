//! What may be done to an activation, and to which part of it: plain data, checked by the plan.

use std::fmt;
use std::sync::Arc;

use anyhow::Result;
use tch::Tensor;

use super::cache::Cache;
use super::held::Held;
use super::site::{Axis, Site};
use crate::index::{Index, Positions};

/// A user's function on an activation.
pub(crate) type Function = Arc<dyn Fn(&Tensor) -> Result<Tensor> + Send + Sync>;

/// A change to an activation: an operation, and the part it covers (default: all of it).
///
/// ```
/// use thalweg::{Intervention, Plan, Point};
/// let plan = Plan::new().intervene(Point::Z.at(2), Intervention::zero().head(3).pos(-1));
/// assert_eq!(
///     format!("{plan:?}"),
///     "Plan { blocks.2.attn.hook_z: zero().head(3).pos(-1) }"
/// );
/// ```
#[derive(Clone)]
pub struct Intervention {
    pub(crate) op: Op,
    pub(crate) region: Vec<(By, Positions)>,
    pub(crate) scope: Option<Scope>,
}

/// When an intervention acts while text is generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// At the positions of the prompt.
    Prompt,
    /// At the positions of what is generated: wherever a generated token is the input.
    Generated,
    /// At both.
    All,
}

impl Scope {
    pub(crate) fn in_prompt(self) -> bool {
        self != Scope::Generated
    }

    pub(crate) fn in_generated(self) -> bool {
        self != Scope::Prompt
    }
}

#[derive(Clone)]
pub(crate) enum Op {
    Zero,
    Mean(Cache),
    MeanByPos(Cache),
    Resample(Cache, Vec<usize>),
    Patch(Cache, Option<Site>),
    Set(Held),
    Add { direction: Held, strength: f64, absolute: bool },
    Scale(f64),
    ProjectOut(Held),
    Knockout,
    Custom(String, Function),
}

/// The axis a narrowing names; `.dim` means the last one, whichever that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Axis(Axis),
    Dim,
}

impl By {
    /// Where that axis stands among `axes`.
    pub(crate) fn find(self, axes: &[Axis]) -> Option<usize> {
        axes.iter().position(|axis| match self {
            By::Axis(wanted) => *axis == wanted,
            By::Dim => matches!(axis, Axis::DModel | Axis::DHead | Axis::Vocab),
        })
    }

    /// The method that narrows by it.
    pub(crate) fn method(self) -> &'static str {
        match self {
            By::Axis(Axis::Batch) => ".batch",
            By::Axis(Axis::Pos) => ".pos",
            By::Axis(Axis::Query) => ".query",
            By::Axis(Axis::Key) => ".key",
            By::Axis(Axis::Head) => ".head",
            By::Axis(Axis::KvHead) => ".kv_head",
            By::Axis(Axis::DMlp) => ".neuron",
            _ => ".dim",
        }
    }
}

impl Intervention {
    fn new(op: Op) -> Self {
        Intervention { op, region: Vec::new(), scope: None }
    }

    /// Replaces by 0. Off the data's distribution: put a mean ablation beside it.
    pub fn zero() -> Self {
        Self::new(Op::Zero)
    }

    /// Replaces by the mean of the same site in `reference`, over its batch and unpadded positions.
    pub fn mean(reference: &Cache) -> Self {
        Self::new(Op::Mean(reference.clone()))
    }

    /// Replaces by the mean of the same site in `reference` over its batch, position by position.
    pub fn mean_by_pos(reference: &Cache) -> Self {
        Self::new(Op::MeanByPos(reference.clone()))
    }

    /// Row `i` takes row `rows[i]` of the same site in `source` (resample ablation).
    pub fn resample(source: &Cache, rows: &[usize]) -> Self {
        Self::new(Op::Resample(source.clone(), rows.to_vec()))
    }

    /// Replaces by the same site of `source`, the same part of it (activation patching). A source
    /// of one row serves every row.
    pub fn patch(source: &Cache) -> Self {
        Self::new(Op::Patch(source.clone(), None))
    }

    /// Replaces by another site of `source` that has the same axes.
    pub fn patch_from(source: &Cache, site: Site) -> Self {
        Self::new(Op::Patch(source.clone(), Some(site)))
    }

    /// Replaces by `value`, broadcast to the whole site or to the part covered. Copies `value`.
    pub fn set(value: &Tensor) -> Self {
        Self::new(Op::Set(Held(value.detach().copy())))
    }

    /// Adds a direction, `[DModel]` (or the site's last axis). `strength` is in units of the mean
    /// norm of the row's vectors at the site (its first token, the attention sink, left out);
    /// after [`absolute`](Self::absolute), `direction * strength` is added as it is.
    pub fn add(direction: &Tensor, strength: f64) -> Self {
        let direction = Held(direction.detach().copy());
        Self::new(Op::Add { direction, strength, absolute: false })
    }

    /// Multiplies by `factor`.
    pub fn scale(factor: f64) -> Self {
        Self::new(Op::Scale(factor))
    }

    /// Removes the component along `direction` (the site's last axis; its length does not matter).
    pub fn project_out(direction: &Tensor) -> Self {
        Self::new(Op::ProjectOut(Held(direction.detach().copy())))
    }

    /// Forbids attention from `query` to `key`: those scores become -inf. For `Point::Scores`.
    pub fn knockout(query: impl Into<Positions>, key: impl Into<Positions>) -> Self {
        Self::new(Op::Knockout).query(query).key(key)
    }

    /// Calls a function with the whole activation; it must keep shape and kind. A narrowed one
    /// takes only its part from the result. `label` is what `Debug` prints.
    pub fn custom(
        label: &str,
        function: impl Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static,
    ) -> Self {
        Self::new(Op::Custom(label.to_owned(), Arc::new(function)))
    }

    /// For [`add`](Self::add): the strength is a plain factor.
    pub fn absolute(mut self) -> Self {
        if let Op::Add { absolute, .. } = &mut self.op {
            *absolute = true;
        }
        self
    }

    /// When it acts in [`Model::generate`](crate::Model::generate). Default: in the prompt where
    /// positions are named, for they count in the prompt; else in prompt and generated text alike.
    /// A plain run has nothing generated, so there `Scope::Generated` is an error.
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = Some(scope);
        self
    }

    /// Whether positions of what it changes are named.
    pub(crate) fn names_positions(&self) -> bool {
        let along = |by: By| matches!(by, By::Axis(Axis::Pos | Axis::Query));
        self.region.iter().any(|(by, places)| along(*by) && *places != Positions::Many(Index::All))
    }

    /// When it acts while text is generated.
    pub(crate) fn scope_in_generation(&self) -> Scope {
        let default = if self.names_positions() { Scope::Prompt } else { Scope::All };
        self.scope.unwrap_or(default)
    }

    fn narrow(mut self, by: By, places: Positions) -> Self {
        self.region.push((by, places));
        self
    }

    /// Only these rows of the batch.
    pub fn batch(self, rows: impl Into<Index>) -> Self {
        self.narrow(By::Axis(Axis::Batch), rows.into().into())
    }

    /// Only these positions, counted in each row's own tokens: a number, a range, a list, a
    /// [`Position`](crate::Position), or the name of a role.
    pub fn pos(self, places: impl Into<Positions>) -> Self {
        self.narrow(By::Axis(Axis::Pos), places.into())
    }

    /// Only these query positions of `Scores` or `Pattern`.
    pub fn query(self, places: impl Into<Positions>) -> Self {
        self.narrow(By::Axis(Axis::Query), places.into())
    }

    /// Only these key positions of `Scores` or `Pattern`.
    pub fn key(self, places: impl Into<Positions>) -> Self {
        self.narrow(By::Axis(Axis::Key), places.into())
    }

    /// Only these query heads.
    pub fn head(self, heads: impl Into<Index>) -> Self {
        self.narrow(By::Axis(Axis::Head), heads.into().into())
    }

    /// Only these key/value heads.
    pub fn kv_head(self, heads: impl Into<Index>) -> Self {
        self.narrow(By::Axis(Axis::KvHead), heads.into().into())
    }

    /// Only these neurons of the MLP.
    pub fn neuron(self, neurons: impl Into<Index>) -> Self {
        self.narrow(By::Axis(Axis::DMlp), neurons.into().into())
    }

    /// Only these entries of the last axis: dimensions of the stream or of a head.
    pub fn dim(self, dims: impl Into<Index>) -> Self {
        self.narrow(By::Dim, dims.into().into())
    }
}

impl fmt::Debug for Intervention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.op {
            Op::Zero => f.write_str("zero()"),
            Op::Mean(_) => f.write_str("mean(..)"),
            Op::MeanByPos(_) => f.write_str("mean_by_pos(..)"),
            Op::Resample(_, rows) => write!(f, "resample(.., {rows:?})"),
            Op::Patch(_, None) => f.write_str("patch(..)"),
            Op::Patch(_, Some(site)) => write!(f, "patch_from(.., {site})"),
            Op::Set(value) => write!(f, "set({value:?})"),
            Op::Add { strength, absolute, .. } => {
                write!(f, "add(.., {strength}){}", if *absolute { ".absolute()" } else { "" })
            }
            Op::Scale(factor) => write!(f, "scale({factor})"),
            Op::ProjectOut(_) => f.write_str("project_out(..)"),
            Op::Knockout => f.write_str("knockout"),
            Op::Custom(label, _) => write!(f, "custom({label:?})"),
        }?;
        for (by, places) in &self.region {
            write!(f, "{}({places})", by.method())?;
        }
        if let Some(scope) = self.scope {
            write!(f, ".scope({scope:?})")?;
        }
        Ok(())
    }
}
