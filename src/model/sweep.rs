//! Many plans on the same prompts, one number a prompt each: the loop of every causal experiment.

use std::fmt;

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use super::Model;
use crate::grid::Grid;
use crate::hook::metric::Metric;
use crate::hook::plan::Plan;
use crate::hook::site::Axis;
use crate::text::Tokens;

/// What a sweep found.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Sweep {
    /// The metric under each plan, for each prompt: `[Plan, Batch]`. Plans that a stopped sweep did
    /// not reach are marked as missing.
    pub values: Grid,
    /// Plans done.
    pub done: usize,
    /// The metric of the unedited run, one number a prompt.
    pub base: Vec<f64>,
    /// What the reader of the numbers should know, such as plans that ran alone.
    pub notes: Vec<String>,
}

impl Model {
    /// The metric under each of `plans`, run on the same tokens. Every value equals that of
    /// [`Model::run`] with that plan, to rounding.
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
        ensure!(!plans.is_empty(), "sweep: no plans: expected at least one");
        let value = |plan: &Plan| -> Result<Tensor> {
            let logits = self.run(tokens, plan)?.logits;
            Ok(metric.of(&logits, tokens)?.to_kind(Kind::Double))
        };
        let base = Vec::<f64>::try_from(value(&Plan::new())?)?;
        let values = plans.iter().map(value).collect::<Result<Vec<_>>>()?;
        let rows = (0..tokens.batch()).map(|row| row.to_string()).collect();
        let numbers = (0..plans.len()).map(|plan| plan.to_string()).collect();
        let axes = [(Axis::Plan, numbers), (Axis::Batch, rows)];
        let values = Grid::from_tensor(&Tensor::stack(&values, 0), &axes, metric.unit())?;
        Ok(Sweep { values, done: plans.len(), base, notes: Vec::new() })
    }
}

impl fmt::Display for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} plans on {} prompts", self.done, self.base.len())
    }
}
