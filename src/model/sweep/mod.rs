//! Many plans on the same prompts, one number a prompt each: the loop of every causal experiment.
//!
//! Every value is that of a run of its plan, to rounding. It is had for less, for a plan changes
//! nothing before the first layer and the first position that it touches; and where another run's
//! values are put in, nothing before the first that is not there already, which between prompts that
//! begin alike is a good part of a grid of patches:
//!
//! - the pass restarts there, from the unedited stream and from the unedited keys and values;
//! - plans run as rows of one batch, each joining it at its own layer and beginning at its own
//!   position: the rows lie in one line for all that is done position by position, and side by side
//!   for attention ([`cells`] says which plans go together);
//! - after the last block's keys and values only the positions that the metric looks at go on.
//!
//! Every batch carries an unedited row along, and one that strays from the unedited run is an error.

mod batch;
mod cells;
mod layout;
mod progress;

use std::fmt;

use anyhow::{Result, bail, ensure};
use tch::{Kind, Tensor};

use self::batch::Base;
use self::cells::{Cell, Start, batches, start};
use self::progress::Watch;
pub use self::progress::{Progress, SweepOptions};
use super::Model;
use super::run::scoped;
use crate::grid::Grid;
use crate::hook::edit::Setting;
use crate::hook::memory::free_memory;
use crate::hook::metric::Metric;
use crate::hook::plan::{Attention, Plan};
use crate::hook::program::Program;
use crate::hook::site::Axis;
use crate::show::{Content, Show, show_value};
use crate::text::Tokens;

/// What a sweep found.
#[derive(Clone)]
#[non_exhaustive]
pub struct Sweep {
    /// The metric under each plan, for each prompt: `[Plan, Batch]`. Plans that a stopped sweep did
    /// not reach are marked as missing.
    pub values: Grid,
    /// Plans done.
    pub done: usize,
    /// The metric of the unedited run, one number a prompt.
    pub base: Vec<f64>,
    /// The arithmetic attention was computed in, the same for all plans.
    pub attention: Attention,
    /// What the reader of the numbers should know, such as plans that ran alone.
    pub notes: Vec<String>,
}

impl Model {
    /// The metric under each of `plans`, run on the same tokens. Every value equals that of
    /// [`Model::run`] with that plan, to rounding. Where it takes longer than two seconds a
    /// [`Bar`](crate::Bar) says how far it is. Interrupted, it is an error, and what it had found is
    /// lost; a watcher ([`SweepOptions::watch`]) can stop it and keep that.
    ///
    /// ```no_run
    /// use thalweg::{Intervention, Metric, Model, Plan, Point};
    /// let model = Model::load("data/models/tiny-world")?;
    /// let tokens = model.tokens("When Mary and John went to the store , John gave a drink to")?;
    /// let metric = Metric::logit_diff(model.token("Mary")?, model.token("John")?);
    /// let plans: Vec<_> = (0..8)
    ///     .map(|head| Plan::new().intervene(Point::Z.at(0), Intervention::zero().head(head)))
    ///     .collect();
    /// let sweep = model.sweep(&tokens, &plans, &metric)?;
    /// assert_eq!(sweep.values.shape(), [8, 1]);
    /// # thalweg::anyhow::Ok(())
    /// ```
    pub fn sweep(&self, tokens: &Tokens, plans: &[Plan], metric: &Metric) -> Result<Sweep> {
        self.sweep_with(tokens, plans, metric, SweepOptions::default())
    }

    /// The same with a memory cap of its own, or a watcher that may stop it.
    pub fn sweep_with(
        &self,
        tokens: &Tokens,
        plans: &[Plan],
        metric: &Metric,
        options: SweepOptions,
    ) -> Result<Sweep> {
        self.whole("sweep")?;
        ensure!(!plans.is_empty(), "sweep: no plans: expected at least one");
        metric
            .check(tokens, self.config.d_vocab)
            .map_err(|error| anyhow::anyhow!("sweep: {error:#}"))?;
        scoped(false, || self.sweep_checked(tokens, plans, metric, options))
    }

    fn sweep_checked(
        &self,
        tokens: &Tokens,
        plans: &[Plan],
        metric: &Metric,
        options: SweepOptions,
    ) -> Result<Sweep> {
        let setting = self.setting(tokens);
        let (mut cells, mut alone, mut untouched) = (Vec::new(), Vec::new(), Vec::new());
        let mut arithmetic = Arithmetic::default();
        let asked = asked_columns(metric, tokens)?;
        for (index, plan) in plans.iter().enumerate() {
            let program = checked(index, plan, setting)?;
            arithmetic.see(index, plan, &program);
            match start(&program, setting, &asked)? {
                Start::Alone => alone.push(index),
                Start::Nowhere => untouched.push(index),
                Start::At { layer, column, whole } => {
                    cells.push(Cell { index, edits: program.edits, layer, column, whole });
                }
            }
        }
        let attention = arithmetic.choose()?;
        let cap = options.cap.or_else(|| free_memory().map(|free| free / 2)).unwrap_or(1 << 30);
        let base = Base::new(self, tokens, metric, attention, &cells, asked, cap)?;
        let (cells, same) = base.changing(cells)?;
        untouched.extend(same);
        let mut notes = Vec::new();
        if !alone.is_empty() {
            notes.push(format!(
                "{} of {} plans hold a custom function, or a part frozen at other values: they ran alone, each as a whole pass",
                alone.len(),
                plans.len()
            ));
        }
        let mut found: Vec<Option<Vec<f64>>> = vec![None; plans.len()];
        for index in untouched {
            found[index] = Some(base.values.clone());
        }
        let mut watch = Watch::new(plans.len(), options);
        watch.add(found.iter().flatten().count());
        for batch in batches(cells, &base) {
            if watch.stopped() {
                break;
            }
            let n = batch.cells.len();
            for (index, values) in base.run(batch).map_err(|error| watch.retold(error))? {
                found[index] = Some(values);
            }
            watch.add(n);
        }
        for index in alone {
            if watch.stopped() {
                break;
            }
            let plan = plans[index].clone().attention(attention);
            let run = self.run(tokens, &plan).map_err(|error| watch.retold(error))?;
            let logits = run.logits;
            found[index] = Some(numbers(&metric.of(&logits, tokens)?)?);
            watch.add(1);
        }
        let done = found.iter().flatten().count();
        if done < plans.len() {
            notes.push(format!("stopped after {done} of {} plans", plans.len()));
        }
        let what: Vec<_> = plans.iter().map(|plan| format!("{plan:?}")).collect();
        let what = format!("sweep of {} plans: {}", plans.len(), what.join("; "));
        let origin = self.origin(tokens, what, attention, notes.clone(), None);
        let values = grid(&found, tokens, metric)?
            .of_runs([origin])
            .note("metric", &format!("{metric:?}"))
            .note("model", &format!("{self:?}"));
        Ok(Sweep { values, done, base: base.values, attention, notes })
    }
}

impl Sweep {
    /// Shows the values in a notebook, a row a plan.
    pub fn evcxr_display(&self) {
        show_value(self);
    }
}

impl Show for Sweep {
    fn content(&self) -> Content {
        self.values.content()
    }
}

impl fmt::Debug for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (plans, prompts) = (self.values.shape()[0], self.base.len());
        write!(f, "Sweep of {} of {plans} plans on {prompts} prompts", self.done)?;
        write!(f, ", {:?} attention: {}", self.attention, self.values.name)?;
        self.notes.iter().try_for_each(|note| write!(f, "; {note}"))
    }
}

/// A plan made ready, if all it asks for is the metric.
fn checked(index: usize, plan: &Plan, setting: Setting) -> Result<Program> {
    let program =
        plan.check(setting).map_err(|error| anyhow::anyhow!("sweep: plan {index}: {error:#}"))?;
    ensure!(
        !program.records() && !program.needs_grad() && program.logits_at.is_none(),
        "sweep: plan {index} ({plan:?}) asks for more than the metric: a sweep records nothing, use Model::run"
    );
    Ok(program)
}

/// Which attention the plans ask for; each kind by the first plan that does.
#[derive(Debug, Default)]
struct Arithmetic {
    fused: Option<usize>,
    eager: Option<usize>,
}

impl Arithmetic {
    fn see(&mut self, index: usize, plan: &Plan, program: &Program) {
        if program.attention == Attention::Eager {
            self.eager.get_or_insert(index);
        } else if plan.forced_attention().is_some() {
            self.fused.get_or_insert(index);
        }
    }

    /// A plan that needs scores or pattern makes all plans run that way: one arithmetic a
    /// comparison.
    fn choose(&self) -> Result<Attention> {
        if let (Some(fused), Some(eager)) = (self.fused, self.eager) {
            bail!(
                "sweep: plan {fused} forces attention(Fused), plan {eager} needs Eager: expected one for all"
            );
        }
        Ok(if self.eager.is_some() { Attention::Eager } else { Attention::Fused })
    }
}

/// The columns of the batch whose logits the metric looks at: one a row, or all from the first one.
#[derive(Debug, Clone)]
enum Asked {
    One(Vec<i64>),
    From(i64),
}

impl Asked {
    fn first(&self) -> i64 {
        match self {
            Asked::One(columns) => columns.iter().copied().min().unwrap_or(0),
            Asked::From(column) => *column,
        }
    }

    fn last(&self, width: i64) -> i64 {
        match self {
            Asked::One(columns) => columns.iter().copied().max().unwrap_or(0),
            Asked::From(_) => width - 1,
        }
    }
}

fn asked_columns(metric: &Metric, tokens: &Tokens) -> Result<Asked> {
    let Some(at) = metric.position() else {
        return Ok(Asked::From(metric.first_column(tokens)? as i64));
    };
    let places = tokens.places(at)?;
    let column = |(row, at): (usize, &Vec<usize>)| (tokens.padding(row) + at[0]) as i64;
    Ok(Asked::One(places.iter().enumerate().map(column).collect()))
}

fn numbers(values: &Tensor) -> Result<Vec<f64>> {
    Ok(Vec::<f64>::try_from(values.to_kind(Kind::Double))?)
}

fn grid(found: &[Option<Vec<f64>>], tokens: &Tokens, metric: &Metric) -> Result<Grid> {
    let batch = tokens.batch();
    let flat: Vec<f64> =
        found.iter().flat_map(|v| v.clone().unwrap_or_else(|| vec![f64::NAN; batch])).collect();
    let gone: Vec<bool> = found.iter().flat_map(|v| vec![v.is_none(); batch]).collect();
    let values = ndarray::Array2::from_shape_vec((found.len(), batch), flat)?;
    let grid = Grid::from_array(values, &[Axis::Plan, Axis::Batch], metric.unit())?
        .name(&format!("{metric:?} under each plan"));
    if gone.iter().any(|gone| *gone) {
        return grid
            .missing(ndarray::Array2::from_shape_vec((found.len(), batch), gone)?.into_dyn());
    }
    Ok(grid)
}
