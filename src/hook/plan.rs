//! What one run records and changes: plain data, checked whole before any work.

use std::fmt;

use anyhow::{Result, bail, ensure};
use tch::{Kind, Tensor};

use super::edit::{Edit, Setting};
use super::freeze::{Frozen, hold};
use super::intervention::{Intervention, Op, Scope};
use super::metric::Metric;
use super::offload::Offload;
use super::program::{Program, Slot, n_slots, slot};
use super::site::{Point, Site};
use super::sites::Sites;
use crate::config::Config;
use crate::index::Positions;
use crate::text::Tokens;

/// What one run should record and change. A by-value builder: keep it, clone it, vary it.
///
/// ```
/// use thalweg::{Intervention, Plan, Point};
/// let plan = Plan::new()
///     .cache(Point::ResidPost)
///     .intervene(Point::Z.at(1), Intervention::zero().head(0))
///     .logits_at(-1);
/// # let _ = plan;
/// ```
#[derive(Clone, Default)]
pub struct Plan {
    pub(super) cache: Vec<Sites>,
    pub(super) interventions: Vec<(Sites, Intervention)>,
    pub(super) logits_at: Option<Positions>,
    pub(super) gradients: Option<Metric>,
    pub(super) attention: Option<Attention>,
    differentiable: bool,
    pub(super) frozen: Vec<Frozen>,
    pub(super) cap: Option<u64>,
    pub(super) offload: Option<Offload>,
}

/// How attention is computed. Both are exact; they differ by rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attention {
    /// Scores, softmax and mixing one after the other, each to be seen and changed.
    Eager,
    /// libtorch's fused kernel, which never holds scores or pattern.
    Fused,
}

impl Plan {
    /// Records and changes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records these sites: a [`Site`], a [`Point`] (in every layer), a list of either, or
    /// [`Sites::everything`]. What is recorded is the value after interventions.
    pub fn cache(mut self, sites: impl Into<Sites>) -> Self {
        self.cache.push(sites.into());
        self
    }

    /// Changes an activation at these sites. Several at one site act in the order given.
    pub fn intervene(mut self, sites: impl Into<Sites>, intervention: Intervention) -> Self {
        self.interventions.push((sites.into(), intervention));
        self
    }

    /// Computes logits only at these positions, one place or several a row: `[Batch, n, Vocab]`.
    pub fn logits_at(mut self, positions: impl Into<Positions>) -> Self {
        self.logits_at = Some(positions.into());
        self
    }

    /// Records d metric / d activation at every cached site, into `Run::gradients`.
    pub fn gradients(mut self, metric: Metric) -> Self {
        self.gradients = Some(metric);
        self
    }

    /// Forces one arithmetic; default: fused unless scores or pattern are named.
    pub fn attention(mut self, attention: Attention) -> Self {
        self.attention = Some(attention);
        self
    }

    /// Keeps the graph, so that a loss on the run's logits or cache can be differentiated.
    pub fn differentiable(mut self) -> Self {
        self.differentiable = true;
        self
    }

    /// Refuses to run if the cache, and what the pass works with beyond 64 MiB, would take more bytes
    /// of memory; default: half of what is free.
    pub fn cap(mut self, bytes: u64) -> Self {
        self.cap = Some(bytes);
        self
    }

    /// A check of the plan on the prompt of a generation, where scopes mean something and what a
    /// growing text cannot have is an error.
    pub(crate) fn check_for_generation(&self, setting: Setting) -> Result<Program> {
        let mut plan = self.clone();
        for (_, intervention) in &mut plan.interventions {
            ensure!(
                !(intervention.names_positions()
                    && intervention.scope_in_generation() != Scope::Prompt),
                "{intervention:?}: positions count in the prompt: expected no positions, or Scope::Prompt"
            );
            intervention.scope = None;
        }
        let program = plan.check(setting)?;
        ensure!(
            program.logits_at.is_none() && !program.needs_grad(),
            "generate: not together with logits_at, gradients or differentiable"
        );
        ensure!(
            !program.holds_values() && program.offload.is_none(),
            "generate: not together with a freeze at a cache, or offload: the text grows"
        );
        Ok(program)
    }

    /// Every site that is changed, with its intervention, in order.
    pub(crate) fn each_intervention(&self, setting: Setting) -> Result<Vec<(Site, Intervention)>> {
        let mut each = Vec::new();
        for (sites, intervention) in &self.interventions {
            for site in in_range(sites, setting.config)? {
                each.push((site, intervention.clone()));
            }
        }
        Ok(each)
    }

    /// The arithmetic it forces, if it does.
    pub(crate) fn forced_attention(&self) -> Option<Attention> {
        self.attention
    }

    /// Everything that can be wrong, found before any work: names, ranges, axes, shapes, kinds,
    /// rows of attention left without a key, memory.
    pub(crate) fn check(&self, setting: Setting) -> Result<Program> {
        let Setting { config, tokens, .. } = setting;
        check_tokens(config, tokens)?;
        let mut slots: Vec<Slot> = Vec::new();
        slots.resize_with(n_slots(config.n_layers), Slot::default);
        for sites in &self.cache {
            ensure!(!sites.is_empty(), "cache: the list of sites is empty");
            for site in in_range(sites, config)? {
                slots[slot(site, config.n_layers)].record = true;
            }
        }
        let mut edits = Vec::new();
        for (sites, intervention) in &self.interventions {
            let sites = in_range(sites, config)?;
            ensure!(!sites.is_empty(), "{intervention:?}: the list of sites is empty");
            for site in sites {
                ensure!(
                    !(site == Site::Logits && self.logits_at.is_some()),
                    "intervention at {site}: not together with logits_at, which leaves positions out"
                );
                slots[slot(site, config.n_layers)].edits.push(edits.len());
                edits.push(Edit::new(intervention, site, setting)?);
            }
        }
        let (relp, notes) = hold(&self.frozen, &mut slots, setting)?;
        self.check_gradients(setting)?;
        self.check_knockouts(&edits, setting)?;
        self.check_offload()?;
        self.check_memory(setting)?;
        let attention = self.choose_attention(&slots)?;
        let logits_at = self.logits_at.as_ref().map(|at| columns(at, setting)).transpose()?;
        Ok(Program {
            slots,
            edits,
            n_layers: config.n_layers,
            attention,
            logits_at,
            gradients: self.gradients.clone(),
            differentiable: self.differentiable,
            relp,
            notes,
            home: Some(setting.device),
            offload: self.offload.clone(),
            origin: None,
        })
    }

    pub(super) fn needs_graph(&self) -> bool {
        self.gradients.is_some() || self.differentiable
    }

    /// The cap, where one was set.
    pub(crate) fn cap_bytes(&self) -> Option<u64> {
        self.cap
    }

    /// Every site that an intervention names.
    pub(crate) fn changed_sites(&self, n_layers: usize) -> Vec<Site> {
        self.interventions.iter().flat_map(|(sites, _)| sites.resolve(n_layers)).collect()
    }

    pub(crate) fn records_nothing(&self) -> bool {
        self.cache.is_empty()
    }

    fn check_gradients(&self, setting: Setting) -> Result<()> {
        let Some(metric) = &self.gradients else { return Ok(()) };
        ensure!(
            !self.cache.is_empty(),
            "gradients: no site is cached; gradients are recorded at the cached sites"
        );
        let same = |at| metric.position().cloned().map(Positions::One).as_ref() == Some(at);
        ensure!(
            self.logits_at.as_ref().is_none_or(same),
            "gradients: not together with logits_at at another position than the metric's"
        );
        metric
            .check(setting.tokens, setting.config.d_vocab)
            .map_err(|error| anyhow::anyhow!("gradients: {error:#}"))
    }

    fn choose_attention(&self, slots: &[Slot]) -> Result<Attention> {
        let named = slots.iter().enumerate().find(|(at, slot)| {
            let point = at.checked_sub(1).and_then(|at| Point::ALL.get(at % Point::ALL.len()));
            slot.is_used()
                && matches!(point, Some(Point::Scores | Point::Pattern))
                && *at <= slots.len() - 4
        });
        match (self.attention, named) {
            (Some(Attention::Fused), Some(_)) => bail!(
                "attention(Fused): the plan names Scores or Pattern, which the fused kernel never holds; use Eager"
            ),
            (Some(choice), _) => Ok(choice),
            (None, Some(_)) => Ok(Attention::Eager),
            (None, None) => Ok(Attention::Fused),
        }
    }

    /// Knocked-out keys must leave every query one key to look at.
    fn check_knockouts(&self, edits: &[Edit], setting: Setting) -> Result<()> {
        let knocks = |op: &Op| matches!(op, Op::Knockout);
        if !self.interventions.iter().any(|(_, intervention)| knocks(&intervention.op)) {
            return Ok(());
        }
        let device = setting.device;
        for layer in 0..setting.config.n_layers {
            let here = edits.iter().filter(|edit| {
                edit.site == Point::Scores.at(layer) && edit.label.starts_with("knockout")
            });
            let mut left: Option<Tensor> = None;
            for edit in here {
                if let Some(mask) = &edit.mask {
                    ensure!(
                        bool::try_from(exists(setting.tokens, device).logical_and(mask).any())?,
                        "{}: {} covers no pair: a query sees only itself and the keys before it",
                        edit.site,
                        edit.label
                    );
                }
                let so_far = left.take().unwrap_or_else(|| {
                    exists(setting.tokens, device)
                        .expand(setting.shape(Point::Scores.at(layer)), false)
                });
                left = Some(match &edit.mask {
                    Some(mask) => so_far.logical_and(&mask.logical_not()),
                    None => so_far.zeros_like(),
                });
            }
            let Some(left) = left else { continue };
            // [Batch, Head, Query]: rows of real tokens that have no key left.
            let real = setting.tokens.mask(device).unsqueeze(1);
            let empty = left.any_dim(-1, false).logical_not().logical_and(&real);
            if bool::try_from(empty.any())? {
                let first = Vec::<i64>::try_from(empty.nonzero().get(0))?;
                let (row, query) = (first[0] as usize, first[2] as usize);
                bail!(
                    "knockouts at {} leave query {} of row {row}, head {}, no key: softmax over nothing is not defined",
                    Point::Scores.at(layer),
                    query - setting.tokens.padding(row),
                    first[1]
                );
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.cache.is_empty() {
            let sites: Vec<_> = self.cache.iter().map(|sites| sites.to_string()).collect();
            parts.push(format!("cache {}", sites.join(", ")));
        }
        for (sites, intervention) in &self.interventions {
            parts.push(format!("{sites}: {intervention:?}"));
        }
        if let Some(at) = &self.logits_at {
            parts.push(format!("logits at {at}"));
        }
        if let Some(metric) = &self.gradients {
            parts.push(format!("gradients of {metric:?}"));
        }
        for (what, cache) in &self.frozen {
            parts
                .push(format!("freeze {what}{}", if cache.is_some() { " at a cache" } else { "" }));
        }
        if let Some(attention) = self.attention {
            parts.push(format!("attention {attention:?}"));
        }
        if let Some(cap) = self.cap {
            parts.push(format!("cap {cap} bytes"));
        }
        match &self.offload {
            Some(Offload::Device(device)) => parts.push(format!("offload to {device:?}")),
            Some(Offload::File(path)) => parts.push(format!("offload to {}", path.display())),
            None => {}
        }
        if self.differentiable {
            parts.push("differentiable".to_owned());
        }
        match parts.as_slice() {
            [] => f.write_str("Plan { }"),
            _ => write!(f, "Plan {{ {} }}", parts.join("; ")),
        }
    }
}

fn in_range(sites: &Sites, config: &Config) -> Result<Vec<Site>> {
    let sites = sites.resolve(config.n_layers);
    for site in &sites {
        if let Some(layer) = site.layer() {
            let last = config.n_layers - 1;
            ensure!(
                layer <= last,
                "{site}: the model has layers 0..{last}; did you mean layer {last}?"
            );
        }
    }
    Ok(sites)
}

fn check_tokens(config: &Config, tokens: &Tokens) -> Result<()> {
    for (row, ids) in tokens.ids().iter().enumerate() {
        let longest = config.longest_prompt();
        ensure!(
            ids.len() <= longest,
            "row {row} has {} tokens, the model's context is {longest}",
            ids.len()
        );
        for (at, id) in ids.iter().enumerate() {
            ensure!(
                (0..config.d_vocab as i64).contains(id),
                "token id {id} at position {at} of row {row} is outside the vocabulary of {}",
                config.d_vocab
            );
        }
    }
    Ok(())
}

/// Which (query, key) pairs exist: `[Batch or 1, 1, Query, Key]`, false above the diagonal and at
/// padding.
pub(crate) fn exists(tokens: &Tokens, device: tch::Device) -> Tensor {
    let width = tokens.width() as i64;
    let causal =
        Tensor::ones([width, width], (Kind::Bool, device)).tril(0).view([1, 1, width, width]);
    if !tokens.is_padded() {
        return causal;
    }
    let real = tokens.mask(device);
    causal.logical_and(&real.unsqueeze(1).unsqueeze(2)).logical_and(&real.unsqueeze(1).unsqueeze(3))
}

/// Columns of the padded batch for positions of each row, `[Batch, n]`.
fn columns(at: &Positions, setting: Setting) -> Result<Tensor> {
    let tokens = setting.tokens;
    let places =
        tokens.places(at.clone()).map_err(|error| anyhow::anyhow!("logits_at({at}): {error}"))?;
    let each = places[0].len();
    let mut flat = Vec::new();
    for (row, list) in places.iter().enumerate() {
        ensure!(
            list.len() == each,
            "logits_at({at}): {} positions in row {row}, {each} in row 0: expected the same number",
            list.len()
        );
        flat.extend(list.iter().map(|i| (i + tokens.padding(row)) as i64));
    }
    Ok(Tensor::from_slice(&flat).view([-1, each as i64]).to_device(setting.device))
}
