//! Sparse autoencoders and transcoders: an activation as a sum of few directions out of many.
//!
//! Cunningham et al. 2023, "Sparse Autoencoders Find Highly Interpretable Features in Language
//! Models", <https://arxiv.org/abs/2309.08600>. Activations: ReLU; gated (Rajamanoharan et al. 2024,
//! <https://arxiv.org/abs/2404.16014>); JumpReLU (the same 2024, <https://arxiv.org/abs/2407.14435>);
//! TopK (Gao et al. 2024, <https://arxiv.org/abs/2406.04093>); BatchTopK at its threshold (Bussmann et
//! al. 2024, <https://arxiv.org/abs/2412.06410>). Transcoders: Dunefsky et al. 2024,
//! <https://arxiv.org/abs/2406.11944>.

use std::fmt;

use anyhow::{Result, bail, ensure};
use tch::{Device, Kind, Tensor};

use super::normalization::Normalization;
use crate::hook::site::Site;

/// How latents follow from pre-activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaeKind {
    /// ReLU.
    Standard,
    /// A gate decides which latents are on, a second path how much.
    Gated,
    /// ReLU above each latent's threshold, 0 at or below it.
    JumpRelu,
    /// ReLU of each vector's `k` largest pre-activations.
    TopK {
        /// Latents that may be on.
        k: usize,
        /// Pre-activations are compared after multiplication by the norms of the decoder's rows,
        /// and latents are divided by them again when they are decoded.
        by_decoder_norm: bool,
    },
}

/// A sparse autoencoder, or a transcoder where `site_out` is another site than `site`.
///
/// `f = activation(norm(x) W_enc + b_enc)`, `x_hat = f W_dec + b_dec`, with `b_dec` subtracted from
/// the input where `subtract_b_dec` says so. Tensors are as SAELens stores them.
///
/// ```
/// use thalweg::{Model, Plan, Sae};
/// let model = Model::load("data/models/tiny-world")?;
/// let sae = Sae::load("data/models/tiny-world-sae")?;
/// let tokens = model.tokens("Mary and John went to the store")?;
/// let run = model.run(&tokens, &Plan::new().cache(sae.site))?;
/// let x = run.cache.get(sae.site)?; // [Batch, Pos, DModel]
/// let latents = sae.encode(&x)?; // [Batch, Pos, d_sae]
/// assert_eq!(latents.size(), [1, 8, sae.d_sae() as i64]);
/// assert_eq!(sae.reconstruct(&x)?.size(), x.size());
/// // Spliced in with its error term it changes nothing.
/// let spliced = model.run(&tokens, &sae.splice().plan(Plan::new())?)?;
/// assert!(spliced.logits.equal(&run.logits));
/// # thalweg::anyhow::Ok(())
/// ```
pub struct Sae {
    /// Where it reads.
    pub site: Site,
    /// Where it writes: `site`, unless it is a transcoder.
    pub site_out: Site,
    /// The activation function.
    pub kind: SaeKind,
    /// Treatment of the input.
    pub normalization: Normalization,
    /// Whether `b_dec` is subtracted from the input.
    pub subtract_b_dec: bool,
    /// `[d_in, d_sae]`
    pub w_enc: Tensor,
    /// `[d_sae]`; of a gated one, the bias of the gate.
    pub b_enc: Tensor,
    /// `[d_sae, d_out]`: a latent's row is the direction it writes.
    pub w_dec: Tensor,
    /// `[d_out]`
    pub b_dec: Tensor,
    /// Thresholds of JumpReLU, `[d_sae]`.
    pub threshold: Option<Tensor>,
    /// Of a gated one: log of the magnitudes' scale and their bias, `[d_sae]` each.
    pub magnitude: Option<(Tensor, Tensor)>,
    /// A transcoder's linear part, `[d_out, d_in]`.
    pub w_skip: Option<Tensor>,
    /// Keys of the file that this crate does not know; they change nothing here.
    pub unknown_keys: Vec<String>,
}

impl Sae {
    /// A plain ReLU autoencoder of `site` from its tensors `[d_in, d_sae]`, `[d_sae]`,
    /// `[d_sae, d_in]`, `[d_in]`; change its fields for another kind, then [`check`](Self::check).
    pub fn new(
        site: impl Into<Site>,
        w_enc: &Tensor,
        b_enc: &Tensor,
        w_dec: &Tensor,
        b_dec: &Tensor,
    ) -> Result<Self> {
        let site = site.into();
        let [w_enc, b_enc, w_dec, b_dec] = [w_enc, b_enc, w_dec, b_dec].map(|t| t.detach().copy());
        let sae = Sae {
            site,
            site_out: site,
            kind: SaeKind::Standard,
            normalization: Normalization::None,
            subtract_b_dec: false,
            w_enc,
            b_enc,
            w_dec,
            b_dec,
            threshold: None,
            magnitude: None,
            w_skip: None,
            unknown_keys: Vec::new(),
        };
        sae.check()?;
        Ok(sae)
    }

    /// Entries of what it reads.
    pub fn d_in(&self) -> usize {
        self.w_enc.size().first().map_or(0, |n| *n as usize)
    }

    /// Number of latents.
    pub fn d_sae(&self) -> usize {
        self.b_enc.numel()
    }

    /// Entries of what it writes.
    pub fn d_out(&self) -> usize {
        self.b_dec.numel()
    }

    /// Whether it reads one site and writes another.
    pub fn is_transcoder(&self) -> bool {
        self.site != self.site_out
    }

    /// The direction that a latent writes, `[d_out]`.
    pub fn direction(&self, latent: usize) -> Result<Tensor> {
        self.check_latent(latent)?;
        Ok(self.w_dec.get(latent as i64).copy())
    }

    /// Fails, naming what does not fit, unless the tensors' shapes fit each other, the numbers are
    /// finite, and the kind has what it needs. Constructors call it; call it after changing a field.
    pub fn check(&self) -> Result<()> {
        let (i, s, o) = (self.d_in() as i64, self.d_sae() as i64, self.d_out() as i64);
        ensure!(i > 0 && s > 0 && o > 0, "an SAE of {i} -> {s} -> {o} entries is empty");
        let mut list: Vec<(&str, &Tensor, Vec<i64>)> = vec![
            ("W_enc", &self.w_enc, vec![i, s]),
            ("b_enc", &self.b_enc, vec![s]),
            ("W_dec", &self.w_dec, vec![s, o]),
            ("b_dec", &self.b_dec, vec![o]),
        ];
        list.extend(self.threshold.iter().map(|t| ("threshold", t, vec![s])));
        list.extend(self.w_skip.iter().map(|t| ("W_skip", t, vec![o, i])));
        if let Some((scale, bias)) = &self.magnitude {
            list.extend([("r_mag", scale, vec![s]), ("b_mag", bias, vec![s])]);
        }
        for (name, tensor, shape) in list {
            let found = tensor.size();
            ensure!(found == shape, "{name} is {found:?}, expected {shape:?}");
            let finite = bool::try_from(tensor.isfinite().all())?;
            ensure!(finite, "{name} holds a non-finite number");
        }
        let has = (self.threshold.is_some(), self.magnitude.is_some());
        let wants = (self.kind == SaeKind::JumpRelu, self.kind == SaeKind::Gated);
        ensure!(has == wants, "{:?}: (threshold, magnitude) are {has:?}", self.kind);
        if let SaeKind::TopK { k, .. } = self.kind {
            ensure!(k > 0 && k as i64 <= s, "k = {k}: expected 1 to {s}, the number of latents");
        }
        let twisted = self.is_transcoder() && self.subtract_b_dec;
        ensure!(!twisted, "a transcoder's b_dec belongs to its output: it cannot be subtracted");
        ensure!(
            self.is_transcoder() || (i == o && self.w_skip.is_none()),
            "an autoencoder of {} reads {i} entries and writes {o}, skip connection: {}",
            self.site,
            self.w_skip.is_some()
        );
        Ok(())
    }

    /// Latents of activations `[.., d_in]`, or `[.., Head, DHead]` with both axes joined:
    /// `[.., d_sae]`, in the SAE's own kind of number, as SAELens computes them.
    pub fn encode(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.normalization.apply(&self.flat(x)?);
        let x = if self.subtract_b_dec { x - &self.b_dec } else { x };
        let pre = x.matmul(&self.w_enc) + &self.b_enc;
        Ok(match (self.kind, &self.threshold, &self.magnitude) {
            (SaeKind::JumpRelu, Some(threshold), _) => {
                pre.relu() * pre.gt_tensor(threshold).to_kind(pre.kind())
            }
            (SaeKind::Gated, _, Some((scale, bias))) => {
                let magnitude = x.matmul(&(&self.w_enc * scale.exp())) + bias;
                magnitude.relu() * pre.gt(0.0).to_kind(pre.kind())
            }
            (SaeKind::TopK { k, by_decoder_norm }, ..) => {
                let pre = if by_decoder_norm { pre * self.decoder_norms() } else { pre };
                top_k(&pre, k)
            }
            _ => pre.relu(),
        })
    }

    /// What latents `[.., d_sae]` stand for, `[.., d_out]`. Where the input is normalised, its scale
    /// is needed: [`decode_like`](Self::decode_like).
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        ensure!(
            self.normalization == Normalization::None && self.w_skip.is_none(),
            "decode: this SAE needs its input too ({:?}, skip connection: {}): use decode_like(latents, x)",
            self.normalization,
            self.w_skip.is_some()
        );
        self.written(latents)
    }

    /// The same, of latents of (or changed from those of) the activations `x`.
    pub fn decode_like(&self, latents: &Tensor, x: &Tensor) -> Result<Tensor> {
        let x = self.flat(x)?;
        let y = self.written(latents)?;
        // A transcoder's output has another scale than its input: SAELens leaves it as it is.
        let y = if self.is_transcoder() { y } else { self.normalization.undo(y, &x) };
        Ok(match &self.w_skip {
            Some(skip) => y + x.matmul(&skip.tr()),
            None => y,
        })
    }

    /// `decode(encode(x))`: of the shape and kind of `x`, but for a transcoder's width.
    pub fn reconstruct(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.decode_like(&self.encode(x)?, x)?.to_kind(x.kind());
        Ok(if y.numel() == x.numel() { y.view_as(x) } else { y })
    }

    /// The same SAE, its tensors of another kind of number.
    pub fn to_kind(&self, kind: Kind) -> Sae {
        self.each(|t| t.to_kind(kind))
    }

    /// The same SAE on another device.
    pub fn to_device(&self, device: Device) -> Sae {
        self.each(|t| t.to_device(device))
    }

    /// The same function with decoder rows of norm 1: latents take up their norms.
    pub fn with_unit_decoder(&self) -> Result<Sae> {
        let norms = self.decoder_norms();
        ensure!(norms.min().double_value(&[]) > 0.0, "a row of W_dec is zero: it has no direction");
        let mut sae = self.clone();
        if let SaeKind::TopK { k, by_decoder_norm } = self.kind {
            ensure!(
                by_decoder_norm,
                "the choice of the {k} largest latents would change with the norms of W_dec"
            );
        }
        sae.w_dec = &self.w_dec / norms.unsqueeze(1);
        // TopK by decoder norm keeps latents that hold the norm already.
        sae.w_enc = &self.w_enc * &norms;
        sae.b_enc = &self.b_enc * &norms;
        sae.threshold = self.threshold.as_ref().map(|t| t * &norms);
        sae.magnitude = self.magnitude.as_ref().map(|(r, b)| (r.shallow_clone(), b * &norms));
        Ok(sae)
    }

    pub(super) fn check_latent(&self, latent: usize) -> Result<()> {
        let n = self.d_sae();
        ensure!(latent < n, "there is no latent {latent}: the SAE has latents 0..{}", n - 1);
        Ok(())
    }

    /// `[.., d_in]`, in the SAE's kind.
    pub(super) fn flat(&self, x: &Tensor) -> Result<Tensor> {
        let (shape, d) = (x.size(), self.d_in() as i64);
        let joined =
            |n: usize| shape.len() >= n && shape[shape.len() - n..].iter().product::<i64>() == d;
        let (own, other) = (self.w_enc.device(), x.device());
        ensure!(own == other, "the SAE is on {own:?}, the activations on {other:?}: to_device");
        let x = x.to_kind(self.w_enc.kind());
        Ok(match () {
            _ if joined(1) => x,
            _ if joined(2) => x.flatten(-2, -1),
            _ => bail!("the SAE of {} reads [.., {d}], the activations are {shape:?}", self.site),
        })
    }

    fn written(&self, latents: &Tensor) -> Result<Tensor> {
        let n = self.d_sae() as i64;
        let shape = latents.size();
        ensure!(shape.last() == Some(&n), "the latents are {shape:?}, expected [.., {n}]");
        let f = latents.to_kind(self.w_dec.kind());
        let by_norm = matches!(self.kind, SaeKind::TopK { by_decoder_norm: true, .. });
        let f = if by_norm { f / self.decoder_norms() } else { f };
        Ok(f.matmul(&self.w_dec) + &self.b_dec)
    }

    fn decoder_norms(&self) -> Tensor {
        self.w_dec.norm_scalaropt_dim(2, [-1i64].as_slice(), false)
    }

    fn each(&self, change: impl Fn(&Tensor) -> Tensor) -> Sae {
        Sae {
            w_enc: change(&self.w_enc),
            b_enc: change(&self.b_enc),
            w_dec: change(&self.w_dec),
            b_dec: change(&self.b_dec),
            threshold: self.threshold.as_ref().map(&change),
            magnitude: self.magnitude.as_ref().map(|(a, b)| (change(a), change(b))),
            w_skip: self.w_skip.as_ref().map(&change),
            unknown_keys: self.unknown_keys.clone(),
            ..*self
        }
    }
}

/// ReLU of the `k` largest entries of each vector, 0 elsewhere.
pub(super) fn top_k(pre: &Tensor, k: usize) -> Tensor {
    let (values, places) = pre.topk(k as i64, -1, true, false);
    pre.zeros_like().scatter(-1, &places, &values.relu())
}

impl Clone for Sae {
    /// Shares the memory.
    fn clone(&self) -> Self {
        self.each(Tensor::shallow_clone)
    }
}

/// One line: kind, place and sizes.
impl fmt::Debug for Sae {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.is_transcoder() { "Transcoder" } else { "Sae" };
        let kind = match self.kind {
            SaeKind::TopK { k, .. } => format!("TopK (k {k})"),
            kind => format!("{kind:?}"),
        };
        write!(f, "{what} {kind} at {}", self.site)?;
        if self.is_transcoder() {
            write!(f, " -> {}", self.site_out)?;
        }
        let (i, s, o) = (self.d_in(), self.d_sae(), self.d_out());
        write!(f, ": {i} -> {s} -> {o}, {:?}", self.w_enc.kind())?;
        if self.normalization != Normalization::None {
            write!(f, ", input normalised by {:?}", self.normalization)?;
        }
        match self.unknown_keys.len() {
            0 => Ok(()),
            n => write!(f, "; {n} keys of the file unknown"),
        }
    }
}
