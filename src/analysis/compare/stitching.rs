//! Stitching: one model goes on from the stream of another.
//!
//! Lenc and Vedaldi 2015, <https://arxiv.org/abs/1411.5908>; Bansal et al. 2021,
//! <https://arxiv.org/abs/2106.07682>. Where a map of A's stream does in B what B's own does, the
//! two hold what B needs in a form that the map can translate.

use std::fmt;

use anyhow::{Result, ensure};
use ndarray::Array2;

use super::stream_map::{StreamFit, StreamMap};
use crate::analysis::frame;
use crate::grid::{Grid, GridAxis};
use crate::hook::cache::Cache;
use crate::hook::metric::Metric;
use crate::hook::plan::Plan;
use crate::hook::site::{Axis, Point};
use crate::interrupt::check_interrupt;
use crate::model::Model;
use crate::show::progress;
use crate::text::Tokens;

/// Model B run from the streams of model A, for every place of both.
///
/// ```
/// use thalweg::{Model, Prompts, Stitching};
/// let model = Model::load("data/models/tiny-world")?;
/// let set = Prompts::load("data/prompts/fact.json")?;
/// let tokens = model.batch(&set.first(60).clean())?;
/// let found = Stitching::new(&model, &model, &tokens, &tokens).kl()?;
/// assert!(found.values.get(&["L2", "L2"])? < 0.1);
/// # thalweg::anyhow::Ok(())
/// ```
#[derive(Debug, Clone)]
pub struct Stitching {
    a: Model,
    b: Model,
    fit: Tokens,
    tokens: Tokens,
    by: StreamFit,
    seed: u64,
}

/// What a stitched model says, beside its control.
#[derive(Clone)]
#[non_exhaustive]
pub struct Stitched {
    /// The metric of B with its stream replaced, the mean over prompts: `[Layer, OtherLayer]`, the
    /// place of A and the place of B.
    pub values: Grid,
    /// The same through maps that were fitted on tokens paired at random.
    pub shuffled: Grid,
    /// Share of the variance of B's stream that each map explains on prompts held out of its fit.
    pub r2: Grid,
}

/// One line: that of the values.
impl fmt::Debug for Stitched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.values, f)
    }
}

impl Stitching {
    /// From A into B: maps are fitted on `fit`, B is run on `tokens`. Default: ridge with penalty 1,
    /// seed 0.
    pub fn new(a: &Model, b: &Model, fit: &Tokens, tokens: &Tokens) -> Self {
        let ([a, b], [fit, tokens]) = ([a, b].map(Model::clone), [fit, tokens].map(Tokens::clone));
        Stitching { a, b, fit, tokens, by: StreamFit::Ridge(1.0), seed: 0 }
    }

    /// How maps are fitted.
    pub fn by(mut self, fit: StreamFit) -> Self {
        self.by = fit;
        self
    }

    /// The seed of what is held out and of the control.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// `KL(B || stitched B)` in nats of what the last token predicts.
    pub fn kl(&self) -> Result<Stitched> {
        let base = self.b.run(&self.tokens, &Plan::new().logits_at(-1))?.logits;
        self.of(&Metric::kl(&base.squeeze_dim(1)))
    }

    /// A metric of the stitched model.
    pub fn of(&self, metric: &Metric) -> Result<Stitched> {
        let run = |model: &Model, tokens: &Tokens| -> Result<Cache> {
            let plan = Plan::new().cache([Point::ResidPre.at(0)]).cache(Point::ResidPost);
            Ok(model.run(tokens, &plan.logits_at(-1))?.cache)
        };
        let fitted = [run(&self.a, &self.fit)?, run(&self.b, &self.fit)?];
        let own = [run(&self.a, &self.tokens)?, run(&self.b, &self.tokens)?];
        let (from, to) = (frame::rungs(&own[0])?, frame::rungs(&own[1])?);
        let shape = (from.len(), to.len());
        let mut found = [(); 3].map(|()| Array2::zeros(shape));
        for (i, (_, site)) in progress(from.iter().enumerate(), "stitching").unit("layers") {
            let mut plans = Vec::new();
            for (j, (_, into)) in to.iter().enumerate() {
                check_interrupt()?;
                let ends = ((&fitted[0], *site), (&fitted[1], *into));
                let map = StreamMap::fit(ends.0, ends.1, self.by, self.seed)?;
                found[2][[i, j]] = map.r2;
                plans.push(map.stitched(&own[0], &own[1])?);
                plans.push(map.shuffled()?.stitched(&own[0], &own[1])?);
            }
            let swept = self.b.sweep(&self.tokens, &plans, metric)?.values.mean(Axis::Batch)?;
            ensure!(swept.shape() == [plans.len()], "stitching: one number a plan");
            for (plan, value) in swept.values.iter().enumerate() {
                found[plan % 2][[i, plan / 2]] = *value;
            }
        }
        let [values, shuffled, r2] = found;
        let labels = |rungs: &[(String, _)]| rungs.iter().map(|(name, _)| name.clone()).collect();
        let grid = |values: Array2<f64>, unit: &str, name: &str| -> Result<Grid> {
            let axes = vec![
                GridAxis { axis: Axis::Layer, labels: labels(&from) },
                GridAxis { axis: Axis::OtherLayer, labels: labels(&to) },
            ];
            Ok(Grid::new(values.into_dyn(), axes, unit)?
                .name(name)
                .n(self.tokens.batch())
                .of_runs(own.iter().chain(&fitted).filter_map(|cache| cache.origin().cloned()))
                .note("map", &self.by.to_string())
                .note("seed", &self.seed.to_string())
                .note("first token of each prompt", "the second model's own"))
        };
        let (unit, name) = (metric.unit(), format!("{metric:?} of the stitched model"));
        Ok(Stitched {
            values: grid(values, unit, &name)?,
            shuffled: grid(shuffled, unit, &format!("{name}, maps of shuffled tokens"))?,
            r2: grid(r2, "R2", "held-out R2 of maps between streams")?,
        })
    }
}
