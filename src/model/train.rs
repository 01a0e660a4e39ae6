//! Weights that can be trained: the same forward page, with a graph that reaches them.

use anyhow::{Result, ensure};
use tch::Tensor;

use super::Model;
use crate::interrupt::Interrupt;

impl Model {
    /// A copy whose weights require gradients. Run it with `Plan::differentiable`, and change the
    /// tensors that [`parameters`](Self::parameters) gives.
    pub fn trainable(&self) -> Model {
        let copy = Model { weights: self.weights.copy(&self.config), ..self.clone() };
        for tensor in copy.parameters() {
            let _ = tensor.set_requires_grad(true);
        }
        copy
    }

    /// The tensors an optimizer changes, as they lie in memory (q, k, v in one; gate, up in one):
    /// handles on this model's weights, each once.
    pub fn parameters(&self) -> Vec<Tensor> {
        let mut list = self.weights.tensors();
        if self.config.tied {
            list.pop(); // the unembedding is the embedding
        }
        list.into_iter().map(Tensor::shallow_clone).collect()
    }
}

/// AdamW (Loshchilov and Hutter 2019) with the gradient clipped to a norm. Weight decay acts on
/// matrices only, not on norms and biases.
///
/// ```
/// use thalweg::model::AdamW;
/// use thalweg::tch::{Kind, Tensor};
/// let x = Tensor::from_slice(&[3.0f32]).set_requires_grad(true);
/// let mut optimizer = AdamW::new(vec![x.shallow_clone()]);
/// for _ in 0..200 {
///     optimizer.step(&x.square().sum(Kind::Float), 0.1)?;
/// }
/// assert!(x.double_value(&[0]).abs() < 0.1);
/// # anyhow::Ok(())
/// ```
#[derive(Debug)]
pub struct AdamW {
    /// Decay rates of the two running means.
    pub betas: (f64, f64),
    /// Share of a matrix taken off at each step, times the learning rate.
    pub decay: f64,
    /// Largest norm of the whole gradient.
    pub clip: f64,
    parameters: Vec<Tensor>,
    means: Vec<(Tensor, Tensor)>,
    steps: i32,
}

impl AdamW {
    /// For these tensors, with rates 0.9 and 0.98, decay 0.05 and clip 1.
    pub fn new(parameters: Vec<Tensor>) -> Self {
        let means = parameters.iter().map(|p| (p.zeros_like(), p.zeros_like())).collect();
        AdamW { betas: (0.9, 0.98), decay: 0.05, clip: 1.0, parameters, means, steps: 0 }
    }

    /// One step down the gradient of `loss` (one number) at this learning rate; returns the norm
    /// of the gradient before clipping. A loss or gradient that is not finite is an error, and
    /// so is an interrupt; then nothing has changed.
    pub fn step(&mut self, loss: &Tensor, rate: f64) -> Result<f64> {
        ensure!(loss.numel() == 1, "the loss has shape {:?}: expected one number", loss.size());
        let at = || format!("interrupted before training step {}", self.steps + 1);
        Interrupt::new().check(at)?;
        let gradients = Tensor::f_run_backward(&[loss], &self.parameters, false, false)?;
        let _guard = tch::no_grad_guard();
        // Of a model in pieces, gradients lie on several devices, and one sum needs one.
        let norms: Vec<Tensor> =
            gradients.iter().map(|g| g.norm().to_device(loss.device())).collect();
        let norm = Tensor::stack(&norms, 0).norm().double_value(&[]);
        ensure!(norm.is_finite(), "the gradient of the loss is {norm}: lower the learning rate");
        self.steps += 1;
        let shrink = (self.clip / norm).min(1.0);
        let (b1, b2) = self.betas;
        let (full1, full2) = (1.0 - b1.powi(self.steps), 1.0 - b2.powi(self.steps));
        for ((p, g), (m, v)) in self.parameters.iter().zip(gradients).zip(&mut self.means) {
            let g = g * shrink;
            *m = &*m * b1 + &g * (1.0 - b1);
            *v = &*v * b2 + g.square() * (1.0 - b2);
            let mut p = p.detach();
            if p.dim() > 1 {
                p *= 1.0 - rate * self.decay;
            }
            p -= (&*m / full1) / ((&*v / full2).sqrt() + 1e-8) * rate;
        }
        Ok(norm)
    }
}
