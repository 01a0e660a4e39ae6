//! Training a tuned lens, as Belrose et al. 2023 do: <https://arxiv.org/abs/2303.08112>.
//!
//! The mean over tokens of `KL(final || lens)` is lowered for each layer apart. Held-out divergences
//! come beside those of the logit lens, and of the best that a lens can do which does not look at
//! the stream: the mean prediction, which is what training on shuffled targets tends to.

use std::fmt;

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use super::maps::Owner;
use super::tuned::TunedLens;
use super::tuned_steps::{Batch, Draw, Translator, divergence};
use crate::analysis::layers::lens::Lens;
use crate::grid::Grid;
use crate::hook::site::{Axis, Point};
use crate::model::Model;
use crate::model::forward::wide;
use crate::rng::Rng;
use crate::show::progress;
use crate::text::Tokens;

/// How a tuned lens goes down its loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LensOptimizer {
    /// AdamW, rates 0.9 and 0.999.
    Adam,
    /// Gradient descent with Nesterov's momentum; the paper's has momentum 0.9 and rate 1.
    Sgd {
        /// Share of the last step that goes on, 0..1.
        momentum: f64,
    },
}

/// How to train a tuned lens.
///
/// ```no_run
/// use thalweg::{Lens, Model, Plan, Point, Prompts, TunedLensTraining};
/// let model = Model::load("data/models/tiny-world")?;
/// let set = Prompts::load("data/prompts/fact.json")?;
/// let (train, held_out) = (model.batch(&set.clean()[..96])?, model.batch(&set.clean()[96..128])?);
/// let fit = TunedLensTraining::new(&train, &held_out).steps(100).run(&model)?;
/// assert!(fit.held_out.get(&["tuned lens", "embed"])? < fit.held_out.get(&["logit lens", "embed"])?);
/// fit.lens.save("tiny-world.tuned.safetensors")?;
/// let run = model.run(&held_out, &Plan::new().cache(Point::ResidPost))?;
/// let kl = Lens::tuned(&model, &fit.lens)?.kl(&run.cache)?;
/// # thalweg::anyhow::Ok(())
/// ```
#[derive(Debug, Clone)]
pub struct TunedLensTraining {
    train: Tokens,
    held_out: Tokens,
    steps: usize,
    prompts: usize,
    rate: f64,
    decay: f64,
    optimizer: LensOptimizer,
    first: usize,
    seed: u64,
    shuffled: bool,
}

/// A trained lens, and how well it does.
#[derive(Clone)]
#[non_exhaustive]
pub struct TunedLensFit {
    /// The translators.
    pub lens: TunedLens,
    /// `KL(final || lens)` in nats on each step's tokens, before the step: `[Step, Layer]`.
    pub loss: Grid,
    /// `KL(final || lens)` in nats on the held-out prompts, a mean over tokens, then over prompts, with
    /// a 95 % interval over prompts where there are several: `[Series, Layer]`, the series `logit
    /// lens`, `tuned lens` and `mean prediction` (the mean of what the model said in training, a
    /// control that does not look at the stream).
    pub held_out: Grid,
}

/// One line: the lens.
impl fmt::Debug for TunedLensFit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.lens, f)
    }
}

impl TunedLensTraining {
    /// 250 steps of AdamW at rate 0.001, falling to 0 in a line, with weight decay 0.001, on 32
    /// prompts a step; all tokens but each prompt's first; seed 0. `held_out` must be other prompts.
    pub fn new(train: &Tokens, held_out: &Tokens) -> Self {
        TunedLensTraining {
            train: train.clone(),
            held_out: held_out.clone(),
            steps: 250,
            prompts: 32,
            rate: 1e-3,
            decay: 1e-3,
            optimizer: LensOptimizer::Adam,
            first: 1,
            seed: 0,
            shuffled: false,
        }
    }

    /// Steps of each translator.
    pub fn steps(mut self, steps: usize) -> Self {
        self.steps = steps;
        self
    }

    /// Prompts a step; as many as there are make it a step on the full batch.
    pub fn prompts(mut self, prompts: usize) -> Self {
        self.prompts = prompts;
        self
    }

    /// Learning rate of the first step.
    pub fn rate(mut self, rate: f64) -> Self {
        self.rate = rate;
        self
    }

    /// Weight decay: the pull towards the logit lens.
    pub fn decay(mut self, decay: f64) -> Self {
        self.decay = decay;
        self
    }

    /// Another optimizer. Gradient descent wants a larger rate.
    pub fn optimizer(mut self, optimizer: LensOptimizer) -> Self {
        self.optimizer = optimizer;
        self
    }

    /// Leaves out the first `first` tokens of each prompt.
    pub fn skip_first(mut self, first: usize) -> Self {
        self.first = first;
        self
    }

    /// Seed of the order of prompts.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// A control: every stream is trained to say what the model says at another token, drawn at
    /// random. The held-out divergences are still from what it says at the token itself.
    pub fn shuffled(mut self) -> Self {
        self.shuffled = true;
        self
    }

    /// Trains one translator for the input of each block.
    pub fn run(&self, model: &Model) -> Result<TunedLensFit> {
        self.check()?;
        let (config, kind) = (model.config(), wide(model.kind()));
        let d = config.d_model as i64;
        let new = |_| Translator::new(d, kind, model.device(), self.optimizer, self.decay);
        let mut translators: Vec<Translator> = (0..config.n_layers).map(new).collect();
        let rng = Rng::new(self.seed);
        let mut draw = Draw::new(self.train.batch(), self.prompts, rng.fork(0));
        let mut pairs = rng.fork(1);
        let mut said = Tensor::zeros([config.d_vocab as i64], (Kind::Double, model.device()));
        let mut losses = Vec::new();
        for step in progress(0..self.steps, "tuned lens").unit("steps") {
            let mut batch = Batch::new(model, &self.train.rows(draw.next())?, self.first)?;
            let wide = batch.target.to_kind(Kind::Double);
            said += wide.exp().mean_dim([0i64].as_slice(), false, Kind::Double);
            if self.shuffled {
                batch.shuffle(&mut pairs);
            }
            let rate = self.rate * (1.0 - step as f64 / self.steps as f64);
            for (translator, x) in translators.iter_mut().zip(&batch.streams) {
                losses.push(translator.step(model, x, &batch.target, rate)?);
            }
        }
        let stack = |pick: fn(&Translator) -> &Tensor| {
            let each: Vec<Tensor> = translators.iter().map(|t| pick(t).detach()).collect();
            Tensor::stack(&each, 0)
        };
        let mut lens = TunedLens::from_parts(model, &stack(|t| &t.a), &stack(|t| &t.b))?;
        lens.training = self.in_words();
        // A token that is never said has the smallest number there is, whose logarithm is finite.
        let said = (said / self.steps as f64).clamp_min(f64::MIN_POSITIVE);
        let held_out = self.hold_out(model, &lens, &said.log())?;
        let loss = ndarray::Array2::from_shape_vec((self.steps, config.n_layers), losses)?;
        let loss = Grid::from_array(loss, &[Axis::Step, Axis::Layer], "nats")?;
        let loss = self.noted(loss.relabel(Axis::Layer, &labels(config.n_layers))?, model);
        Ok(TunedLensFit { lens, loss: loss.name("tuned lens: KL in training"), held_out })
    }

    fn check(&self) -> Result<()> {
        ensure!(self.steps > 0 && self.prompts > 0, "tuned lens: no step, or no prompts in one");
        for (what, tokens) in [("training", &self.train), ("held-out", &self.held_out)] {
            let what = format!("tuned lens, {what} prompts");
            super::rows::Rows::new(tokens, self.first).check(&what, self.first)?;
        }
        Ok(())
    }

    /// Divergences on the held-out prompts, a batch at a time.
    fn hold_out(&self, model: &Model, tuned: &TunedLens, mean: &Tensor) -> Result<Grid> {
        let n_layers = model.config().n_layers;
        let lenses = [Lens::logit(model), Lens::tuned(model, tuned)?];
        let all: Vec<usize> = (0..self.held_out.batch()).collect();
        let mut values = ndarray::Array3::zeros((3, all.len(), n_layers));
        for part in all.chunks(self.prompts) {
            let batch = Batch::new(model, &self.held_out.rows(part)?, self.first)?;
            let mean = mean.to_kind(batch.target.kind());
            for (layer, x) in batch.streams.iter().enumerate() {
                let site = Point::ResidPre.at(layer);
                let logits = [lenses[0].unembed(site, x)?, lenses[1].unembed(site, x)?];
                for (series, logits) in logits.iter().chain([&mean]).enumerate() {
                    let each = batch.rows.means(&divergence(&batch.target, logits))?;
                    for (prompt, kl) in part.iter().zip(each) {
                        values[[series, *prompt, layer]] = kl;
                    }
                }
            }
        }
        let axes = [Axis::Series, Axis::Batch, Axis::Layer];
        let each = Grid::from_array(values, &axes, "nats")?
            .relabel(Axis::Series, &["logit lens", "tuned lens", "mean prediction"])?
            .relabel(Axis::Layer, &labels(n_layers))?;
        let mean = match all.len() {
            1 => each.mean(Axis::Batch),
            _ => each.mean_interval(Axis::Batch),
        };
        Ok(self.noted(mean?, model).name("KL from the model's prediction, held-out prompts"))
    }

    fn noted(&self, grid: Grid, model: &Model) -> Grid {
        let weights = Owner::of(model).weights;
        grid.note("model", &format!("{model:?}"))
            .note("weights", &weights)
            .note("training", &self.in_words())
    }

    fn in_words(&self) -> String {
        let TunedLensTraining { steps, prompts, rate, decay, optimizer, first, seed, .. } = self;
        let (all, control) =
            (self.train.batch(), if self.shuffled { ", shuffled targets" } else { "" });
        format!(
            "{steps} steps of {optimizer:?} at rate {rate}, decay {decay}, {} of {all} prompts a step, first {first} tokens left out, seed {seed}{control}",
            prompts.min(&all)
        )
    }
}

/// The place each translator reads, named as rungs are.
fn labels(n_layers: usize) -> Vec<String> {
    let below = (1..n_layers).map(|layer| format!("L{}", layer - 1));
    std::iter::once("embed".to_owned()).chain(below).collect()
}
