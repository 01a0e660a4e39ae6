//! A model whose blocks run on a server: what lies before and after them is here.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail, ensure};
use tch::{Device, Kind, Tensor};

use super::devices::Devices;
use super::forward::Pass;
use super::weights::Weights;
use super::{KINDS, Model, Run, scoped};
use crate::hook::plan::Plan;
use crate::hook::program::Program;
use crate::hook::residual::{Steering, state_of};
use crate::hook::site::{Point, Site};
use crate::hook::tap::{Fired, Tap};
use crate::remote::Remote;
use crate::text::Tokens;

impl Remote {
    /// The server's model as a [`Model`]: `dir` is the model's directory, of which the embedding, the
    /// final norm, the unembedding and the tokenizer are read, not the blocks. `model.run` takes plans
    /// that record the residual stream, computes the logits here, and is refused what only the blocks
    /// could give. On the first GPU if there is one, in the kind the weights are stored in, or the
    /// server's if that is wider.
    ///
    /// Every answer must begin with the embeddings that `dir` gives, to the server's rounding:
    /// another model, or another prompt's states, would not.
    pub fn model(&self, dir: impl AsRef<Path>) -> Result<Model> {
        self.model_in(dir.as_ref(), Device::cuda_if_available(), None)
    }

    /// The same on `device`, in `kind`, at least as wide as the server's.
    pub fn model_on(&self, dir: impl AsRef<Path>, device: Device, kind: Kind) -> Result<Model> {
        ensure!(KINDS.contains(&kind), "kind {kind:?}: expected Double, Float, Half or BFloat16");
        ensure!(
            holds(kind, self.kind()),
            "kind {kind:?} does not hold what the server sends, {:?}: expected {:?} or Double",
            self.kind(),
            wider(kind, self.kind())
        );
        self.model_in(dir.as_ref(), device, Some(kind))
    }

    fn model_in(&self, dir: &Path, device: Device, kind: Option<Kind>) -> Result<Model> {
        let mut model = Model::read(dir, |config, files| {
            ensure!(
                (config.n_layers, config.d_model) == (self.n_layers(), self.d_model()),
                "{} layers of width {}, and {self} has {} of width {}: another model?",
                config.n_layers,
                config.d_model,
                self.n_layers(),
                self.d_model()
            );
            let load = |kind| Weights::load((config, 0), files, &Devices::one(device), kind);
            let weights = load(kind)?;
            let stored = weights.embed.kind();
            if holds(stored, self.kind()) {
                Ok(weights)
            } else {
                load(Some(wider(stored, self.kind())))
            }
        })?;
        model.source = format!("{}, blocks of {self}", model.source);
        model.served = Some(self.clone());
        let first = Tokens::from_ids(&[vec![0, 1]])?;
        model.run(&first, &Plan::new())?; // its embeddings are compared
        Ok(model)
    }
}

impl Model {
    /// Whether its blocks run on a server.
    pub(crate) fn is_served(&self) -> bool {
        self.served.is_some()
    }

    /// An error for what needs blocks that are not here.
    pub(crate) fn whole(&self, what: &str) -> Result<()> {
        if let Some(remote) = &self.served {
            bail!(
                "{what}: the blocks of this model run at {}, which shows the residual stream only: load it here, Model::load(dir), or over several devices, Model::load_spread(dir, &devices, kind)",
                remote.url()
            );
        }
        Ok(())
    }

    /// Runs a plan on states that the server gives.
    pub(super) fn run_served(&self, remote: &Remote, tokens: &Tokens, plan: &Plan) -> Result<Run> {
        let n_layers = self.config.n_layers;
        if let Some(what) = plan.asks_of_blocks(n_layers, remote.steers()) {
            return Err(remote.lacks(&what));
        }
        plan.check(self.setting(tokens))?; // all of it, before what the server does is taken out
        let added = plan.steering(tokens, n_layers, self.config.d_model)?;
        let mut program = plan.without_steering(n_layers).check(self.setting(tokens))?;
        program.notes.push(format!(
            "the residual stream is of {remote}, in {:?}; the weights' hash is of embedding, final norm and unembedding",
            remote.kind()
        ));
        let program = self.noted(program, tokens, plan);
        ensure!(
            remote.states().contains(&n_layers),
            "{}: it does not show the stream after the last block, which logits are made from; it shows {:?}: use Remote::run, which gives the cache alone",
            remote.url(),
            remote.states()
        );
        let states = self.states(remote, tokens, plan, &added)?;
        let mut run = scoped(false, || self.after_blocks(tokens, &program, &states))?;
        let steered =
            added.into_iter().map(|one| Fired { site: one.site, intervention: one.label });
        run.fired = steered.chain(run.fired).collect();
        Ok(run)
    }

    /// The states that a plan needs, by number; the embeddings are compared with those of this model.
    fn states(
        &self,
        remote: &Remote,
        tokens: &Tokens,
        plan: &Plan,
        added: &[Steering],
    ) -> Result<BTreeMap<usize, Tensor>> {
        let n_layers = self.config.n_layers;
        let recorded = plan.recorded_sites(n_layers).into_iter().filter_map(state_of);
        let first = remote.states().first().copied().filter(|state| *state == 0);
        let mut wanted: Vec<usize> = recorded.chain(first).chain([n_layers]).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let read = remote.read(tokens, &wanted, added)?.into_iter();
        let here = read.map(|x| x.to_device(self.device()).to_kind(self.kind()));
        let states: BTreeMap<usize, Tensor> = wanted.into_iter().zip(here).collect();
        if let Some(sent) = states.get(&0) {
            self.compare_embeddings(remote, tokens, sent)?;
        }
        Ok(states)
    }

    fn compare_embeddings(&self, remote: &Remote, tokens: &Tokens, sent: &Tensor) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let ids = tokens.tensor(self.device());
        let own = Tensor::embedding(&self.weights.embed, &ids, -1, false, false);
        let most = (sent - &own).abs().amax([-1i64].as_slice(), false); // [Batch, Pos]
        let allowed = own.abs().amax([-1i64].as_slice(), false) * rounding(remote.kind());
        let wrong = most.le_tensor(&allowed).logical_not().logical_and(&tokens.mask(self.device()));
        if !bool::try_from(wrong.any())? {
            return Ok(());
        }
        let first = Vec::<i64>::try_from(wrong.nonzero().get(0))?;
        let (row, column) = (first[0] as usize, first[1] as usize);
        bail!(
            "{}: the stream it sent for prompt {row} does not begin with this model's embeddings (position {}): another model?",
            remote.url(),
            column - tokens.padding(row)
        )
    }

    /// The pass from the states onwards: each is recorded as the plan says, the last one becomes
    /// logits.
    fn after_blocks(
        &self,
        tokens: &Tokens,
        program: &Program,
        states: &BTreeMap<usize, Tensor>,
    ) -> Result<Run> {
        let n_layers = self.config.n_layers;
        let mut tap = Tap::new(program, tokens);
        for (state, x) in states {
            let own = || x.shallow_clone();
            if *state == 0 {
                let _ = tap.site(Site::Embed, own())?;
            } else {
                let _ = tap.at(state - 1, Point::ResidPost, own())?;
            }
            if *state < n_layers {
                let _ = tap.at(*state, Point::ResidPre, own())?;
            }
        }
        let pass = Pass::new(&self.config, &self.weights, tokens, program.attention);
        let last = &states[&n_layers];
        let logits = pass.unembed(last, program.logits_at.as_ref(), &mut tap)?;
        let (cache, fired) = tap.finish()?;
        let (attention, notes) = (program.attention, program.notes.clone());
        Ok(Run { logits, cache: cache.sealed()?, gradients: None, fired, attention, notes })
    }
}

/// Whether `kind` holds every number of `other` exactly.
fn holds(kind: Kind, other: Kind) -> bool {
    kind == other || kind == Kind::Double || kind == Kind::Float && other != Kind::Double
}

/// The narrower kind that holds both.
fn wider(kind: Kind, other: Kind) -> Kind {
    let both = [kind, other, Kind::Float, Kind::Double];
    both.into_iter().find(|k| holds(*k, kind) && holds(*k, other)).unwrap_or(Kind::Double)
}

/// How far a number may be off that went through this kind, as a share of the largest beside it.
fn rounding(kind: Kind) -> f64 {
    match kind {
        Kind::BFloat16 => 1.0 / 128.0,
        Kind::Half => 1.0 / 1024.0,
        _ => 1e-6,
    }
}
