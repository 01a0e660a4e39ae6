//! What training a tuned lens takes: batches, the loss, and one translator with its optimizer.

use anyhow::{Result, ensure};
use tch::{Device, Kind, Tensor};

use super::lens::sum_vocab;
use super::rows::Rows;
use super::tuned_training::LensOptimizer;
use crate::hook::plan::Plan;
use crate::hook::site::Point;
use crate::model::{AdamW, Model, scoped};
use crate::rng::Rng;
use crate::text::Tokens;

/// Largest norm of a gradient, as in the paper's code.
const CLIP: f64 = 1.0;

/// The stream before each block, and what the model says, at the tokens that count.
pub(super) struct Batch {
    /// `[n, DModel]` for each layer.
    pub(super) streams: Vec<Tensor>,
    /// Log-probabilities, `[n, Vocab]`.
    pub(super) target: Tensor,
    pub(super) rows: Rows,
}

impl Batch {
    pub(super) fn new(model: &Model, tokens: &Tokens, first: usize) -> Result<Self> {
        let rows = Rows::new(tokens, first);
        let run = model.run(tokens, &Plan::new().cache(Point::ResidPre))?;
        let stream = |layer: usize| Ok(rows.of(&run.cache.get(Point::ResidPre.at(layer))?));
        let streams = (0..model.config().n_layers).map(stream).collect::<Result<_>>()?;
        let target = rows.of(&run.logits).log_softmax(-1, None::<Kind>);
        Ok(Batch { streams, target, rows })
    }

    /// A control: each stream beside another token's prediction.
    pub(super) fn shuffle(&mut self, rng: &mut Rng) {
        let mut order: Vec<i64> = (0..self.rows.len() as i64).collect();
        rng.shuffle(&mut order);
        let order = Tensor::from_slice(&order).to_device(self.target.device());
        self.target = self.target.index_select(0, &order);
    }
}

/// `KL(target || logits)` of each token, `[n]`.
pub(super) fn divergence(target: &Tensor, logits: &Tensor) -> Tensor {
    sum_vocab(target.exp() * (target - logits.log_softmax(-1, None::<Kind>)))
}

/// Prompts in an order drawn anew each time all have been used.
pub(super) struct Draw {
    order: Vec<usize>,
    at: usize,
    n: usize,
    rng: Rng,
}

impl Draw {
    /// `n` prompts of `all` at a time; all of them, where it is no more.
    pub(super) fn new(all: usize, n: usize, rng: Rng) -> Self {
        Draw { order: (0..all).collect(), at: all, n, rng }
    }

    pub(super) fn next(&mut self) -> &[usize] {
        if self.n >= self.order.len() {
            return &self.order;
        }
        if self.at + self.n > self.order.len() {
            self.rng.shuffle(&mut self.order);
            self.at = 0;
        }
        self.at += self.n;
        &self.order[self.at - self.n..self.at]
    }
}

/// One layer's `A` and `b` while they are trained.
pub(super) struct Translator {
    /// `[DModel, DModel]`
    pub(super) a: Tensor,
    /// `[DModel]`
    pub(super) b: Tensor,
    optimizer: Stepper,
}

enum Stepper {
    Adam(AdamW),
    Sgd { momentum: f64, decay: f64, moving: [Tensor; 2] },
}

impl Translator {
    pub(super) fn new(
        d: i64,
        kind: Kind,
        device: Device,
        optimizer: LensOptimizer,
        decay: f64,
    ) -> Self {
        let zeros = |shape: &[i64]| Tensor::zeros(shape, (kind, device)).set_requires_grad(true);
        let (a, b) = (zeros(&[d, d]), zeros(&[d]));
        let optimizer = match optimizer {
            LensOptimizer::Adam => {
                let mut adam = AdamW::new(vec![a.shallow_clone(), b.shallow_clone()]);
                (adam.betas, adam.decay, adam.clip) = ((0.9, 0.999), decay, CLIP);
                Stepper::Adam(adam)
            }
            LensOptimizer::Sgd { momentum } => {
                let moving = [&a, &b].map(|p| p.detach().zeros_like());
                Stepper::Sgd { momentum, decay, moving }
            }
        };
        Translator { a, b, optimizer }
    }

    /// One step down the mean divergence at these vectors `[n, DModel]`; returns what it was before.
    pub(super) fn step(
        &mut self,
        model: &Model,
        x: &Tensor,
        target: &Tensor,
        rate: f64,
    ) -> Result<f64> {
        let loss = scoped(true, || -> Result<Tensor> {
            let x = x.detach().to_kind(self.a.kind());
            let read = &x + (x.matmul(&self.a.tr()) + &self.b);
            Ok(divergence(target, &model.unembed_with(&read, true)?).mean(None))
        })?;
        match &mut self.optimizer {
            Stepper::Adam(adam) => {
                adam.step(&loss, rate)?;
            }
            Stepper::Sgd { momentum, decay, moving } => {
                nesterov([&self.a, &self.b], moving, &loss, (rate, *momentum, *decay))?;
            }
        }
        Ok(loss.double_value(&[]))
    }
}

/// Gradient descent with Nesterov's momentum (Sutskever et al. 2013); the decay is part of the
/// gradient.
fn nesterov(
    parameters: [&Tensor; 2],
    moving: &mut [Tensor; 2],
    loss: &Tensor,
    (rate, momentum, decay): (f64, f64, f64),
) -> Result<()> {
    let gradients = Tensor::f_run_backward(&[loss], &parameters[..], false, false)?;
    let _guard = tch::no_grad_guard();
    let norms: Vec<Tensor> = gradients.iter().map(Tensor::norm).collect();
    let norm = Tensor::stack(&norms, 0).norm().double_value(&[]);
    ensure!(norm.is_finite(), "the gradient of the loss is {norm}: lower the learning rate");
    let shrink = (CLIP / norm).min(1.0);
    for ((p, g), moving) in parameters.into_iter().zip(gradients).zip(moving) {
        let mut p = p.detach();
        let g = g * shrink + &p * decay;
        *moving = &*moving * momentum + &g;
        p -= (g + &*moving * momentum) * rate;
    }
    Ok(())
}
