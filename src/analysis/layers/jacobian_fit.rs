//! Finding a Jacobian lens: one backward pass for each dimension of the final stream.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use super::jacobian::JacobianLens;
use super::rows::Rows;
use crate::hook::plan::Plan;
use crate::hook::site::Point;
use crate::interrupt::check_interrupt;
use crate::model::Model;
use crate::show::Bar;
use crate::text::Tokens;

/// How to find a Jacobian lens.
///
/// A one-hot cotangent at all positions of the final stream at once gives, at a source position, the
/// derivatives summed over all positions that it writes to; so that one forward pass and `DModel`
/// backward passes serve all layers. Each prompt's mean over its source positions counts the same.
///
/// ```no_run
/// use thalweg::{JacobianFit, Lens, Model, Plan, Point};
/// let model = Model::load("data/models/tiny-world")?;
/// let tokens = model.batch(&["The capital of France is", "The capital of Italy is"])?;
/// let mut jacobian = JacobianFit::new(1).run(&model, &tokens.row(0)?)?;
/// jacobian.merge(&JacobianFit::new(1).run(&model, &tokens.row(1)?)?)?; // found elsewhere
/// let run = model.run(&tokens, &Plan::new().cache(Point::ResidPost))?;
/// let rank = Lens::jacobian(&model, &jacobian)?.rank(&run.cache, model.token("Paris")?)?;
/// assert_eq!(rank.at(&[0, -1, -1])?, 0.0); // the last stream is read as it is
/// # thalweg::anyhow::Ok(())
/// ```
#[derive(Debug, Clone)]
pub struct JacobianFit {
    skip_first: usize,
    at_once: usize,
    same_position: bool,
    plan: Plan,
}

impl JacobianFit {
    /// Source positions after the first `skip_first` tokens of each prompt: 16 for models that were
    /// trained on long texts, whose first positions are like no others; 1 for small ones.
    pub fn new(skip_first: usize) -> Self {
        JacobianFit { skip_first, at_once: 8, same_position: false, plan: Plan::new() }
    }

    /// Prompts that run as one batch; default 8.
    pub fn at_once(mut self, prompts: usize) -> Self {
        self.at_once = prompts.max(1);
        self
    }

    /// Only what a position writes to itself, without the later positions that attend to it. Costs a
    /// backward pass for each position and dimension.
    pub fn same_position(mut self) -> Self {
        self.same_position = true;
        self
    }

    /// Derivatives of the pass under a plan, such as one with `freeze_own(Freeze::Linear)`.
    pub fn plan(mut self, plan: Plan) -> Self {
        self.plan = plan;
        self
    }

    /// The mean over these prompts.
    pub fn run(&self, model: &Model, tokens: &Tokens) -> Result<JacobianLens> {
        ensure!(
            self.plan.records_nothing(),
            "Jacobian lens: the plan caches sites, which would be thrown away: leave cache(..) out"
        );
        Rows::new(tokens, self.skip_first).check("Jacobian lens", self.skip_first)?;
        let [layers, d] = [model.config().n_layers, model.config().d_model].map(|n| n as i64);
        let sum = Tensor::zeros([layers, d, d], (Kind::Double, model.device()));
        let all: Vec<usize> = (0..tokens.batch()).collect();
        let total = all.chunks(self.at_once).len() * d as usize;
        let mut bar = Bar::new("Jacobian lens", total).unit("dimensions");
        for part in all.chunks(self.at_once) {
            self.add(model, &tokens.rows(part)?, &sum, &mut bar)?;
        }
        bar.finish();
        let what = match self.same_position {
            false => format!("later positions summed, {:?}", self.plan),
            true => format!("same position, {:?}", self.plan),
        };
        let mean = sum / tokens.batch() as f64;
        Ok(JacobianLens::new(model, mean, (tokens.batch(), self.skip_first, what)))
    }

    /// Adds each prompt's mean to `sum [Layer, DModel, DModel]`.
    fn add(&self, model: &Model, tokens: &Tokens, sum: &Tensor, bar: &mut Bar) -> Result<()> {
        let n_layers = model.config().n_layers;
        let last = Point::ResidPost.at(n_layers - 1);
        let plan = self.plan.clone().cache(Point::ResidPre).cache(last);
        let run = model.run(tokens, &plan.differentiable().logits_at(-1))?;
        let sources = (0..n_layers).map(|layer| run.cache.get(Point::ResidPre.at(layer)));
        let sources: Vec<Tensor> = sources.collect::<Result<_>>()?;
        let end = run.cache.get(last)?; // [Batch, Pos, DModel]
        let targets = self.targets(tokens, &end);
        let d = end.size()[2];
        for i in 0..d {
            check_interrupt()?;
            let rows = Tensor::zeros([n_layers as i64, d], (Kind::Double, sum.device()));
            for (at, weight) in &targets {
                // One-hot in dimension i at the positions of `at`.
                let total = (end.select(2, i) * at.squeeze_dim(2)).sum(None);
                let found = Tensor::f_run_backward(&[total], &sources, true, false)?;
                for (layer, gradient) in found.iter().enumerate() {
                    let mean = gradient.to_device(sum.device()).to_kind(Kind::Double) * weight;
                    let mean = mean.sum_dim_intlist([0i64, 1].as_slice(), false, None);
                    let _ = rows.get(layer as i64).g_add_(&mean);
                }
            }
            let _ = sum.select(1, i).g_add_(&rows);
            bar.add(1);
        }
        Ok(())
    }

    /// Where cotangents are put, `[Batch, Pos, 1]`, and with what weight the gradient at each source
    /// then counts, `[Batch, Pos, 1]` in f64.
    fn targets(&self, tokens: &Tokens, end: &Tensor) -> Vec<(Tensor, Tensor)> {
        let rows = Rows::new(tokens, self.skip_first);
        let mask = rows.mask(tokens, end.device());
        let counts = Tensor::from_slice(&rows.counts).to_device(end.device()).view([-1, 1, 1]);
        let weight = &mask / counts;
        if !self.same_position {
            return vec![(mask.to_kind(end.kind()), weight)];
        }
        let one = |column: i64| {
            let mut at = mask.zeros_like();
            at.narrow(1, column, 1).copy_(&mask.narrow(1, column, 1));
            at = at.contiguous();
            (at.to_kind(end.kind()), &weight * &at)
        };
        (0..tokens.width() as i64).map(one).collect()
    }
}
