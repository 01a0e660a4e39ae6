//! Parts of the pass that are held constant: what makes a Llama linear, or a backward pass readable.

use std::fmt;

use anyhow::{Result, ensure};
use tch::Tensor;

use super::action::patched;
use super::cache::Cache;
use super::edit::Setting;
use super::plan::Plan;
use super::program::{Slot, slot};
use super::site::{Point, Site};

/// A part of the pass to hold constant. What is frozen keeps its value, lets no gradient through,
/// and follows no change made before it.
///
/// With [`Linear`](Freeze::Linear) the rest of the pass is linear in the embeddings and biases:
/// `sum of dm/de · e + sum of dm/db · b = m` for every logit `m`, exactly (Golden 2025,
/// <https://arxiv.org/abs/2505.24293>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Freeze {
    /// The denominators of all norms: `Ln1Scale`, `Ln2Scale`, `FinalScale`.
    Norm,
    /// Where heads look: `Pattern`. Gradients at Q, K, RotQ, RotK, Scores and Pattern become 0.
    Pattern,
    /// The gate of the MLP before SiLU: `MlpPre`.
    Gate,
    /// Norm, pattern and gate at once.
    Linear,
    /// The rules of RelP (Jafari et al. 2025, <https://arxiv.org/abs/2508.21258>): norm and pattern
    /// frozen; `silu(g) = sigmoid(g) g` with the sigmoid constant; and the gradient of the product
    /// of gate and linear branch shared out half and half. Only its gradients differ from a plain
    /// run's, so it takes no cache.
    RelP,
    /// What this layer's block writes to the stream: `AttnOut` and `MlpOut`. Gradients pass it by
    /// along the stream only, as GradDrop asks.
    Block(usize),
}

impl Freeze {
    /// The sites whose values are held in every layer.
    fn sites(self, n_layers: usize) -> Vec<Site> {
        if let Freeze::Block(layer) = self {
            return vec![Point::AttnOut.at(layer), Point::MlpOut.at(layer)];
        }
        let points: &[Point] = match self {
            Freeze::Norm => &[Point::Ln1Scale, Point::Ln2Scale],
            Freeze::Pattern => &[Point::Pattern],
            Freeze::Gate => &[Point::MlpPre],
            Freeze::Linear => &[Point::Ln1Scale, Point::Ln2Scale, Point::Pattern, Point::MlpPre],
            Freeze::RelP => &[Point::Ln1Scale, Point::Ln2Scale, Point::Pattern],
            Freeze::Block(_) => &[],
        };
        let blocks = points.iter().flat_map(|point| (0..n_layers).map(|layer| point.at(layer)));
        let norms = !matches!(self, Freeze::Pattern | Freeze::Gate);
        blocks.chain(norms.then_some(Site::FinalScale)).collect()
    }

    /// What the reader of the numbers should know.
    fn note(self) -> String {
        let norm = "norm scales";
        let blind = "the gradients at Q, K, RotQ, RotK, Scores and Pattern are 0: effects through where a head looks are not seen";
        match self {
            Freeze::Norm => format!("frozen: {norm}"),
            Freeze::Pattern => format!("frozen: pattern; {blind}"),
            Freeze::Gate => "frozen: gate; the gradient at MlpPre is 0".to_owned(),
            Freeze::Linear => format!("frozen: {norm}, pattern, gate; {blind}, and so is MlpPre's"),
            Freeze::Block(layer) => format!("frozen: what block {layer} writes"),
            Freeze::RelP => format!("RelP: {norm} and pattern frozen, gate x up halved; {blind}"),
        }
    }
}

/// What a frozen site holds.
#[derive(Debug)]
pub(crate) enum Hold {
    /// The run's own value.
    Own,
    /// A value given beforehand.
    At(Tensor),
}

/// A part frozen, and the cache whose values it takes; absent: the run's own.
pub(crate) type Frozen = (Freeze, Option<Cache>);

impl Plan {
    /// Freezes a part at the values of a cache that holds its sites, so that a change does not move
    /// it: patching under `freeze(Freeze::Linear, &cache)` is patching of the linear model that the
    /// cache's run stands on. Interventions at a frozen site act on the held value.
    pub fn freeze(mut self, what: Freeze, cache: &Cache) -> Self {
        self.frozen.push((what, Some(cache.clone())));
        self
    }

    /// Freezes a part at the run's own values: no value changes, only gradients do, and
    /// [`Run::notes`](crate::Run) says which become 0. Attention runs step by step.
    ///
    /// ```
    /// use thalweg::{Freeze, Metric, Model, Plan, Site};
    /// let model = Model::load("data/models/tiny-world")?;
    /// let tokens = model.tokens("Mary and John went to the store")?;
    /// let metric = Metric::logit(model.token("Mary")?);
    /// let plan = Plan::new().freeze_own(Freeze::Linear).cache(Site::Embed).gradients(metric.clone());
    /// let run = model.run(&tokens, &plan)?;
    /// let products = run.cache.get(Site::Embed)? * run.gradients.unwrap().get(Site::Embed)?;
    /// let logit = metric.of(&run.logits, &tokens)?;
    /// let parts = products.sum(thalweg::tch::Kind::Double).double_value(&[]);
    /// assert!((parts - logit.double_value(&[0])).abs() < 1e-3); // a model without biases
    /// # thalweg::anyhow::Ok(())
    /// ```
    pub fn freeze_own(mut self, what: Freeze) -> Self {
        self.frozen.push((what, None));
        self
    }
}

/// Marks the frozen sites; whether RelP's rule holds, and what to say of it all.
pub(crate) fn hold(
    frozen: &[Frozen],
    slots: &mut [Slot],
    setting: Setting,
) -> Result<(bool, Vec<String>)> {
    let n_layers = setting.config.n_layers;
    let mut notes = Vec::new();
    for (what, cache) in frozen {
        ensure!(
            *what != Freeze::RelP || cache.is_none(),
            "freeze(RelP): it is a rule for the gradients of a run at its own values: use freeze_own(RelP)"
        );
        if let Freeze::Block(layer) = what {
            ensure!(*layer < n_layers, "freeze({what}): the model has layers 0..{}", n_layers - 1);
        }
        for site in what.sites(n_layers) {
            let slot = &mut slots[slot(site, n_layers)];
            ensure!(slot.hold.is_none(), "freeze({what}): {site} is frozen already");
            slot.hold = Some(match cache {
                None => Hold::Own,
                Some(cache) => Hold::At(patched(cache, site, site, setting).map_err(|error| {
                    anyhow::anyhow!("freeze({what}): {error:#}; it needs the cache of {site}")
                })?),
            });
        }
        notes.push(what.note());
    }
    let is = |wanted: Freeze| frozen.iter().any(|(what, _)| *what == wanted);
    ensure!(
        !(is(Freeze::RelP) && is(Freeze::Gate)),
        "freeze: RelP has its own rule for the gate, which Gate would freeze whole: choose one"
    );
    Ok((is(Freeze::RelP), notes))
}

impl fmt::Display for Freeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
