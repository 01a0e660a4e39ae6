//! The constant that does least harm in a component's place.
//!
//! Li and Janson 2024, "Optimal ablation for interpretability", <https://arxiv.org/abs/2409.09951>. Descent is
//! Adam (Kingma and Ba 2015, <https://arxiv.org/abs/1412.6980>) with a rate in units of the component's own
//! spread, which falls to nothing in a straight line; the best constant seen is kept, so that none is worse
//! than zero or the mean.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use super::baseline::without_firsts;
use super::component::Component;
use crate::hook::intervention::Intervention;
use crate::hook::metric::Metric;
use crate::hook::plan::Plan;
use crate::hook::site::Site;
use crate::model::Model;
use crate::text::Tokens;

/// The first step, as a share of the root mean square of the component's values.
const RATE: f64 = 0.1;
/// Decay of Adam's running means of gradient and squared gradient: short, for the steps are few.
const DECAY: (f64, f64) = (0.8, 0.95);

/// Over which prompts a constant is found, by which loss, and in how many steps.
#[derive(Debug, Clone)]
pub(super) struct Optimal {
    pub(super) from: Tokens,
    pub(super) objective: Metric,
    pub(super) steps: usize,
}

/// A component's constant: one vector for each of its sites, and the objective's mean under it.
#[derive(Debug)]
struct Constant {
    values: Vec<Tensor>,
    objective: f64,
}

impl Optimal {
    /// The interventions that put a component's best constant in its place.
    pub(super) fn constants(
        &self,
        model: &Model,
        of: Component,
    ) -> Result<Vec<(Site, Intervention)>> {
        let sites = of.sites();
        let cache = model.run(&self.from, &Plan::new().cache(sites.clone()))?.cache;
        let cache = without_firsts(&cache)?;
        let (mut mean, mut scale) = (Vec::new(), Vec::new());
        let mask = cache.tokens().mask(model.device());
        for site in &sites {
            let rows = of.part(&cache.get(*site)?).to_kind(Kind::Double);
            let rows =
                rows.flatten(0, 1).index_select(0, &mask.flatten(0, 1).nonzero().squeeze_dim(1));
            mean.push(rows.mean_dim([0i64].as_slice(), false, None));
            scale.push(rows.square().mean(None).sqrt().double_value(&[]));
        }
        let zero = mean.iter().map(Tensor::zeros_like).collect();
        let mut best = self.tried(model, of, zero)?.0;
        let start = self.tried(model, of, mean)?.0;
        if start.objective < best.objective {
            best = start;
        }
        let best = self.descend(model, of, best, &scale)?;
        let set = |(site, value): (&Site, &Tensor)| (*site, of.narrow(Intervention::set(value)));
        Ok(sites.iter().zip(&best.values).map(set).collect())
    }

    /// Adam from a constant; the best of those seen.
    fn descend(
        &self,
        model: &Model,
        of: Component,
        start: Constant,
        scale: &[f64],
    ) -> Result<Constant> {
        let mut now: Vec<Tensor> = start.values.iter().map(Tensor::copy).collect();
        let mut best = start;
        let zeros = || now.iter().map(Tensor::zeros_like).collect::<Vec<_>>();
        let (mut first, mut second) = (zeros(), zeros());
        for step in 0..self.steps {
            let (found, slopes) = self.tried(model, of, now)?;
            let rate = RATE * (1.0 - step as f64 / self.steps as f64);
            let full = (1.0 - DECAY.0.powi(step as i32 + 1), 1.0 - DECAY.1.powi(step as i32 + 1));
            let mut next = Vec::new();
            for (i, slope) in slopes.iter().enumerate() {
                first[i] = &first[i] * DECAY.0 + slope * (1.0 - DECAY.0);
                second[i] = &second[i] * DECAY.1 + slope.square() * (1.0 - DECAY.1);
                let toward =
                    (&first[i] / full.0) / ((&second[i] / full.1).sqrt() + f64::MIN_POSITIVE);
                next.push(&found.values[i] - toward * (rate * scale[i]));
            }
            if found.objective < best.objective {
                best = found;
            }
            now = next;
        }
        if self.steps > 0 {
            let last = self.tried(model, of, now)?.0;
            best = if last.objective < best.objective { last } else { best };
        }
        Ok(best)
    }

    /// The objective's mean with these values in the component's place, and its slope along each.
    fn tried(
        &self,
        model: &Model,
        of: Component,
        values: Vec<Tensor>,
    ) -> Result<(Constant, Vec<Tensor>)> {
        let sites = of.sites();
        let mut plan = Plan::new().gradients(self.objective.clone());
        for (site, value) in sites.iter().zip(&values) {
            let value = value.to_kind(model.kind());
            plan = plan.cache(*site).intervene(*site, of.narrow(Intervention::set(&value)));
        }
        let run = model.run(&self.from, &plan)?;
        let each = self.objective.of(&run.logits, &self.from)?.to_kind(Kind::Double);
        let objective = each.mean(None).double_value(&[]);
        ensure!(
            objective.is_finite(),
            "optimal ablation of {of}: {:?} is {objective}",
            self.objective
        );
        let mut slopes = Vec::new();
        if let Some(gradients) = &run.gradients {
            for site in &sites {
                let all = of.part(&gradients.get(*site)?).to_kind(Kind::Double);
                let sum = all.sum_dim_intlist([0i64, 1].as_slice(), false, None);
                slopes.push(sum / self.from.batch() as f64);
            }
        }
        Ok((Constant { values, objective }, slopes))
    }
}
