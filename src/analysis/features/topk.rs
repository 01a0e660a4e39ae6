//! Training of TopK sparse autoencoders.
//!
//! Gao et al. 2024, "Scaling and evaluating sparse autoencoders",
//! <https://arxiv.org/abs/2406.04093>: of each vector's pre-activations the `k` largest stay; decoder
//! rows have norm 1; latents that are never on learn from what the others leave over (AuxK).

use anyhow::{Context, Result, ensure};
use tch::{Kind, Tensor};

use super::sae::{Sae, SaeKind, top_k};
use crate::grid::Grid;
use crate::hook::site::{Axis, Site};
use crate::model::AdamW;
use crate::rng::Rng;
use crate::show::progress;

/// Weight of the loss of latents that are never on.
const AUX_WEIGHT: f64 = 1.0 / 32.0;
/// Steps between two points of the curve returned.
const EVERY: usize = 50;

/// How a TopK autoencoder is trained.
///
/// ```
/// use thalweg::{Axis, Point, TopKTraining, rng::Rng, tch::Tensor};
/// // Points on ten axes, each on one of them: one latent a direction.
/// let mut rng = Rng::new(1);
/// let points: Vec<f32> = (0..800)
///     .flat_map(|i| {
///         let far = 1.0 + rng.uniform() as f32;
///         (0..10).map(move |axis| if axis == i % 10 { far } else { 0.0 })
///     })
///     .collect();
/// let x = Tensor::from_slice(&points).view([800, 10]);
/// let options = TopKTraining { steps: 300, batch: 64, ..TopKTraining::new(20, 1, 7) };
/// let (sae, fvu) = options.train(Point::ResidPost.at(0), &x)?;
/// assert!(fvu.select(Axis::Step, -1)?.values.sum() < 0.2);
/// assert_eq!(sae.d_sae(), 20);
/// # thalweg::anyhow::Ok(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct TopKTraining {
    /// Latents.
    pub d_sae: usize,
    /// Latents on at once.
    pub k: usize,
    /// Optimizer steps.
    pub steps: usize,
    /// Vectors in a step.
    pub batch: usize,
    /// Highest learning rate; warmed up over the first twentieth, down to zero in the last fifth.
    pub rate: f64,
    /// Steps without being on after which a latent counts as dead.
    pub dead_after: usize,
    /// Dead latents that learn from one vector's error.
    pub k_aux: usize,
    /// Decides the weights at the start and the order of the vectors.
    pub seed: u64,
}

impl TopKTraining {
    /// 4,000 steps of 1,024 vectors at a rate of 0.001.
    pub fn new(d_sae: usize, k: usize, seed: u64) -> Self {
        let k_aux = 2 * k;
        TopKTraining {
            d_sae,
            k,
            steps: 4000,
            batch: 1024,
            rate: 1e-3,
            dead_after: 100,
            k_aux,
            seed,
        }
    }

    /// Trains on vectors `[n, D]` of a site; returns the autoencoder, f32, and how much of the
    /// batch's variance it left unexplained, every 50 steps: `[Step]`.
    pub fn train(&self, site: impl Into<Site>, x: &Tensor) -> Result<(Sae, Grid)> {
        let site = site.into();
        let x = self.checked(site, x)?;
        let mut rng = Rng::new(self.seed);
        let mean = x.mean_dim([0i64].as_slice(), false, None);
        // A unit that makes the learning rate mean the same for every site.
        let scale = (&x - &mean).square().mean(None).sqrt().double_value(&[]);
        ensure!(scale > 0.0, "TopK at {site}: all vectors are equal");
        let x = x / scale;
        let mut state = State::new(self, &(mean / scale), &mut rng);
        let (mut steps, mut curve) = (Vec::new(), Vec::new());
        let mut order: Vec<i64> = (0..x.size()[0]).collect();
        let mut next = order.len();
        for step in progress(0..self.steps, "training an SAE").unit("steps") {
            if next + self.batch > order.len() {
                rng.shuffle(&mut order);
                next = 0;
            }
            let rows = Tensor::from_slice(&order[next..next + self.batch]).to_device(x.device());
            next += self.batch;
            let fvu = state.step(self, &x.index_select(0, &rows), step)?;
            if step % EVERY == EVERY - 1 || step + 1 == self.steps {
                steps.push((step + 1).to_string());
                curve.push(fvu);
            }
        }
        let curve =
            Grid::from_array(ndarray::Array1::from(curve), &[Axis::Step], "share of variance")?;
        let curve =
            curve.relabel(Axis::Step, &steps)?.name("variance left unexplained in training");
        Ok((state.sae(self, site, scale)?, curve.note("seed", &self.seed.to_string())))
    }

    fn checked(&self, site: Site, x: &Tensor) -> Result<Tensor> {
        let shape = x.size();
        ensure!(shape.len() == 2, "TopK at {site}: the vectors are {shape:?}, expected [n, D]");
        let (n, d) = (shape[0] as usize, self.d_sae);
        ensure!(0 < self.k && self.k <= d, "TopK at {site}: k = {} of {d} latents", self.k);
        ensure!(
            0 < self.batch && self.batch <= n,
            "TopK at {site}: batches of {} vectors of {n}",
            self.batch
        );
        ensure!(self.steps > 0, "TopK at {site}: no steps");
        ensure!(
            bool::try_from(x.isfinite().all())?,
            "TopK at {site}: the vectors hold a non-finite number"
        );
        Ok(x.detach().to_kind(Kind::Float))
    }

    fn rate_at(&self, step: usize) -> f64 {
        let share = (step + 1) as f64 / self.steps as f64;
        self.rate * (share * 20.0).min(1.0) * ((1.0 - share) * 5.0).clamp(0.01, 1.0)
    }
}

/// An autoencoder in training: weights that require gradients, and when each latent was on last.
struct State {
    w_enc: Tensor,
    b_enc: Tensor,
    w_dec: Tensor,
    b_dec: Tensor,
    /// Steps since each latent was on, `[d_sae]`.
    idle: Tensor,
    optimizer: AdamW,
}

impl State {
    fn new(options: &TopKTraining, mean: &Tensor, rng: &mut Rng) -> Self {
        let (d, s) = (mean.numel() as i64, options.d_sae as i64);
        let device = mean.device();
        let w_dec = unit_rows(&rng.normal_tensor(&[s, d]).to_device(device));
        let own = |t: Tensor| t.copy().set_requires_grad(true);
        let idle = Tensor::zeros([s], (Kind::Float, device));
        let b_enc = own(idle.shallow_clone());
        let (w_enc, w_dec) = (own(w_dec.tr().contiguous()), own(w_dec));
        let b_dec = own(mean.shallow_clone());
        let list = [&w_enc, &b_enc, &w_dec, &b_dec].map(Tensor::shallow_clone);
        let mut optimizer = AdamW::new(list.into());
        (optimizer.decay, optimizer.betas) = (0.0, (0.9, 0.999));
        State { w_enc, b_enc, w_dec, b_dec, idle, optimizer }
    }

    /// One step; returns the share of variance that the batch's reconstruction leaves.
    fn step(&mut self, options: &TopKTraining, x: &Tensor, step: usize) -> Result<f64> {
        let dead = self.idle.ge(options.dead_after as f64);
        let n_dead = dead.sum(Kind::Int64).int64_value(&[]) as usize;
        let (loss, fvu, latents) = tch::with_grad(|| {
            let pre = (x - &self.b_dec).matmul(&self.w_enc) + &self.b_enc;
            let latents = top_k(&pre, options.k);
            let error = x - (latents.matmul(&self.w_dec) + &self.b_dec);
            let variance = (x - x.mean_dim([0i64].as_slice(), false, None)).square().sum(None);
            let fvu = error.square().sum(None) / variance;
            let k_aux = options.k_aux.min(n_dead);
            if k_aux == 0 {
                return (fvu.shallow_clone(), fvu.detach(), latents.detach());
            }
            let only = pre.masked_fill(&dead.logical_not(), f64::NEG_INFINITY);
            let guess = top_k(&only, k_aux).matmul(&self.w_dec);
            let left = error.detach();
            let aux = (&left - guess).square().sum(None) / left.square().sum(None).clamp_min(1e-9);
            let loss = &fvu + aux * AUX_WEIGHT;
            (loss, fvu.detach(), latents.detach())
        });
        self.optimizer.step(&loss, options.rate_at(step))?;
        let _guard = tch::no_grad_guard();
        self.w_dec.detach().copy_(&unit_rows(&self.w_dec));
        let on = latents.gt(0.0).any_dim(0, false);
        self.idle = (&self.idle + 1.0).masked_fill(&on, 0.0);
        Ok(fvu.double_value(&[]))
    }

    fn sae(&self, options: &TopKTraining, site: Site, scale: f64) -> Result<Sae> {
        let [b_enc, b_dec] = [&self.b_enc, &self.b_dec].map(|b| b.detach() * scale);
        let mut sae = Sae::new(site, &self.w_enc, &b_enc, &self.w_dec, &b_dec)?;
        sae.kind = SaeKind::TopK { k: options.k, by_decoder_norm: false };
        sae.subtract_b_dec = true;
        sae.check().context("training went wrong")?;
        Ok(sae)
    }
}

fn unit_rows(x: &Tensor) -> Tensor {
    x / x.norm_scalaropt_dim(2, [-1i64].as_slice(), true).clamp_min(1e-8)
}
