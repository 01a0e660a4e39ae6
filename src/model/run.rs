//! Running a plan: one pass, its records, and the same pass by hand.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use anyhow::{Context, Result, ensure};
use tch::Tensor;

use super::Model;
use super::forward::Pass;
use crate::hook::cache::Cache;
use crate::hook::plan::{Attention, Plan, exists};
use crate::hook::program::Program;
use crate::hook::site::Point;
use crate::hook::tap::{Fired, Tap};
use crate::interrupt::check_interrupt;
use crate::record::Record;
use crate::text::Tokens;

/// What one run gave.
#[derive(Debug)]
pub struct Run {
    /// `[Batch, Pos, Vocab]`, f32 (f64 for an f64 model); `[Batch, n, Vocab]` with `logits_at`.
    pub logits: Tensor,
    /// The activations the plan asked for.
    pub cache: Cache,
    /// d metric / d activation at the cached sites, where the plan asked for gradients.
    pub gradients: Option<Cache>,
    /// Every intervention of the plan, in order: each took place.
    pub fired: Vec<Fired>,
    /// The arithmetic attention was computed in.
    pub attention: Attention,
    /// What the reader of the numbers should know, such as `dynamic` RoPE in force.
    pub notes: Vec<String>,
}

impl Clone for Run {
    /// Shares the memory.
    fn clone(&self) -> Self {
        Run {
            logits: self.logits.shallow_clone(),
            cache: self.cache.clone(),
            gradients: self.gradients.clone(),
            fired: self.fired.clone(),
            attention: self.attention,
            notes: self.notes.clone(),
        }
    }
}

impl Run {
    /// What this run was: model and hash of its weights, arithmetic, prompts and plan. The first
    /// record of a model reads all its weights; later ones know the hash.
    pub fn record(&self) -> Result<Record> {
        self.cache.record()
    }
}

impl Model {
    /// Runs the tokens under a plan. The plan is checked whole before any work, and every
    /// intervention it declares has taken place when this returns.
    ///
    /// ```no_run
    /// use thalweg::{Model, Plan, Point};
    /// let model = Model::load("data/models/tiny-world")?;
    /// let tokens = model.tokens("Mary and John went to the store")?;
    /// let run = model.run(&tokens, &Plan::new().cache(Point::ResidPost))?;
    /// assert_eq!(run.cache.get(Point::ResidPost.at(0))?.size(), [1, 8, 128]);
    /// # anyhow::Ok(())
    /// ```
    pub fn run(&self, tokens: &Tokens, plan: &Plan) -> Result<Run> {
        if let Some(remote) = &self.served {
            return self.run_served(remote, tokens, plan);
        }
        let setting = self.setting(tokens);
        let program = self.noted(plan.check(setting)?, tokens, plan);
        plan.announce_records(setting);
        scoped(program.needs_grad(), || self.run_program(tokens, &program))
    }

    /// Logits of every position, `[Batch, Pos, Vocab]`: a run of the empty plan.
    pub fn logits(&self, tokens: &Tokens) -> Result<Tensor> {
        Ok(self.run(tokens, &Plan::new())?.logits)
    }

    fn run_program(&self, tokens: &Tokens, program: &Program) -> Result<Run> {
        let pass = Pass::new(&self.config, &self.weights, tokens, program.attention);
        let mut tap = Tap::new(program, tokens);
        let ids = tokens.tensor(self.device());
        let logits = pass.forward(&ids, program.logits_at.as_ref(), &mut tap)?;
        let logits = logits.to_device(self.device());
        let (cache, fired) = tap.finish()?;
        let (cache, attention, notes) = (cache.sealed()?, program.attention, program.notes.clone());
        let mut run = Run { logits, cache, gradients: None, fired, attention, notes };
        if let Some(metric) = &program.gradients {
            let values = match program.logits_at {
                Some(_) => metric.of_row(&run.logits.squeeze_dim(1))?, // at its own position
                None => metric.of(&run.logits, tokens)?,
            };
            let total = values.sum(None);
            run.gradients = Some(gradients(&total, &run.cache, program.differentiable)?);
        }
        if !program.differentiable && program.gradients.is_some() {
            run.logits = run.logits.detach();
            run.cache = run.cache.detached()?;
        }
        Ok(run)
    }

    /// Embeddings of the tokens, `[Batch, Pos, DModel]`: the residual stream's beginning.
    pub fn embed(&self, tokens: &Tokens) -> Result<Tensor> {
        self.by_hand(tokens, false, |pass, tap| pass.embed(&tokens.tensor(self.device()), tap))
    }

    /// Block `layer` on a residual stream `[Batch, Pos, DModel]` of these tokens.
    pub fn block(&self, layer: usize, resid: &Tensor, tokens: &Tokens) -> Result<Tensor> {
        self.whole("block by hand")?;
        let block = self.weights.blocks.get(layer).with_context(|| {
            format!("no layer {layer}: the model has layers 0..{}", self.config.n_layers - 1)
        })?;
        let expected = [tokens.batch() as i64, tokens.width() as i64, self.config.d_model as i64];
        ensure!(
            resid.size() == expected,
            "block {layer}: the stream is {:?}, expected [Batch, Pos, DModel] = {expected:?}",
            resid.size()
        );
        let resid = resid.to_device(self.device()).to_kind(self.kind());
        self.by_hand(tokens, false, |pass, tap| pass.block(layer, block, resid, tap))
    }

    /// Final norm and unembedding of any residual vectors: `[.., DModel]` -> `[.., Vocab]`.
    pub fn unembed(&self, resid: &Tensor) -> Result<Tensor> {
        self.unembed_with(resid, false)
    }

    /// The same; with `grad` the logits keep the graph of the vectors.
    pub(crate) fn unembed_with(&self, resid: &Tensor, grad: bool) -> Result<Tensor> {
        let mut shape = resid.size();
        let d_model = self.config.d_model as i64;
        ensure!(
            shape.pop() == Some(d_model),
            "unembed: the vectors are {:?}, expected [.., DModel] = [.., {d_model}]",
            resid.size()
        );
        let rows = resid.to_device(self.device()).to_kind(self.kind()).reshape([1, -1, d_model]);
        let one = Tokens::from_ids(&[vec![0]])?;
        shape.push(self.config.d_vocab as i64);
        let logits = self.by_hand(&one, grad, |pass, tap| pass.unembed(&rows, None, tap))?;
        Ok(logits.reshape(shape))
    }

    fn by_hand(
        &self,
        tokens: &Tokens,
        grad: bool,
        step: impl FnOnce(&Pass, &mut Tap) -> Result<Tensor>,
    ) -> Result<Tensor> {
        check_interrupt()?;
        let program = Plan::new().check(self.setting(tokens))?;
        scoped(grad, || {
            let pass = Pass::new(&self.config, &self.weights, tokens, program.attention);
            Ok(step(&pass, &mut Tap::new(&program, tokens))?.to_device(self.device()))
        })
    }
}

/// d total / d activation for every site of the cache; zeros where the total does not reach.
fn gradients(total: &Tensor, cache: &Cache, keep_graph: bool) -> Result<Cache> {
    let mut list = Vec::new();
    for site in cache.sites() {
        list.push((site, cache.get(site)?));
    }
    let inputs: Vec<&Tensor> = list.iter().map(|(_, x)| x).filter(|x| x.requires_grad()).collect();
    ensure!(
        total.requires_grad(),
        "gradients: the metric does not depend on the model's activations"
    );
    let found = Tensor::f_run_backward(&[total], &inputs, keep_graph, false)?;
    let mut found = found.into_iter();
    let mut gradients = cache.emptied();
    for (site, x) in &list {
        let gradient = if x.requires_grad() { found.next() } else { None };
        let mut gradient = gradient.filter(Tensor::defined).unwrap_or_else(|| x.zeros_like());
        if site.point() == Some(Point::Pattern) {
            // No change can bring in a pair that does not exist.
            let absent = exists(cache.tokens(), x.device()).logical_not();
            gradient = gradient.masked_fill(&absent, 0.0);
        }
        gradients.insert(*site, gradient.detach());
    }
    Ok(gradients)
}

/// Runs with gradients on or off, whatever the caller's mode is, and leaves that as it was, also
/// after an error or a panic.
pub(crate) fn scoped<T>(grad: bool, body: impl FnOnce() -> T) -> T {
    if !grad {
        let _guard = tch::no_grad_guard();
        return body();
    }
    // tch switches gradients on by a closure only, and a panic through it would leave them on.
    match tch::with_grad(|| catch_unwind(AssertUnwindSafe(body))) {
        Ok(value) => value,
        Err(panic) => resume_unwind(panic),
    }
}
