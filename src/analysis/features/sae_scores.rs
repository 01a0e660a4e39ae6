//! How good an SAE is: how sparse, how exact, and what the model loses when it takes its place.
//!
//! Measures as in Gao et al. 2024, <https://arxiv.org/abs/2406.04093>, and Karvonen et al. 2025,
//! "SAEBench", <https://arxiv.org/abs/2503.09532>.

use std::fmt;

use anyhow::{Context, Result, ensure};
use tch::{Kind, Tensor};

use super::sae::Sae;
use crate::analysis::frame::width;
use crate::grid::Grid;
use crate::hook::intervention::Intervention;
use crate::hook::metric::Metric;
use crate::hook::plan::Plan;
use crate::hook::site::{Axis, Site};
use crate::model::Model;
use crate::show::progress;
use crate::text::Tokens;

/// What [`Sae::scores`] finds. Padding and each prompt's first token count nowhere.
#[derive(Clone)]
#[non_exhaustive]
pub struct SaeScores {
    /// Latents on at once, mean over tokens.
    pub l0: f64,
    /// Fraction of variance unexplained: `sum |y - y_hat|² / sum |y - mean|²`, 0 for an exact one.
    pub fvu: f64,
    /// Share of latents that are on at no token.
    pub dead: f64,
    /// Share of tokens that each latent is on at: `[Feature]`.
    pub frequency: Grid,
    /// The model's next-token loss in nats.
    pub loss_clean: f64,
    /// The loss with the reconstruction in place of the activation.
    pub loss_spliced: f64,
    /// The loss with zero in its place.
    pub loss_zero: f64,
    /// The loss with its mean in its place.
    pub loss_mean: f64,
    /// `(zero - spliced) / (zero - clean)`: 1 where nothing is lost, 0 as bad as zero.
    pub loss_recovered: f64,
    /// The same against the mean, the harder of the two.
    pub loss_recovered_mean: f64,
    /// Tokens seen.
    pub tokens: usize,
}

impl SaeScores {
    /// The numbers side by side, `[Series]`, to be shown as a table.
    pub fn grid(&self) -> Result<Grid> {
        let list = [
            ("L0", self.l0),
            ("FVU", self.fvu),
            ("dead share", self.dead),
            ("loss clean", self.loss_clean),
            ("loss spliced", self.loss_spliced),
            ("loss zero", self.loss_zero),
            ("loss mean", self.loss_mean),
            ("loss recovered", self.loss_recovered),
            ("loss recovered (mean)", self.loss_recovered_mean),
        ];
        let values = ndarray::Array1::from_iter(list.iter().map(|(_, value)| *value));
        let grid = Grid::from_array(values, &[Axis::Series], "latents, shares, nats")?;
        let grid = grid.relabel(Axis::Series, &list.map(|(name, _)| name))?;
        Ok(grid.name("SAE scores").n(self.tokens))
    }
}

/// One line: the scores.
impl fmt::Debug for SaeScores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SaeScores: L0 {:.1}, FVU {:.3}, dead {:.1} %, loss recovered {:.3} (mean {:.3}): clean {:.3}, spliced {:.3}, zero {:.3}, mean {:.3}; {} tokens",
            self.l0,
            self.fvu,
            100.0 * self.dead,
            self.loss_recovered,
            self.loss_recovered_mean,
            self.loss_clean,
            self.loss_spliced,
            self.loss_zero,
            self.loss_mean,
            self.tokens
        )
    }
}

impl Sae {
    /// Scores on prompts of at least two tokens, the error term left out. The data should be those
    /// that the SAE was not trained on. Each batch is run four times.
    pub fn scores(&self, model: &Model, batches: &[Tokens]) -> Result<SaeScores> {
        self.fits(model)?;
        ensure!(!batches.is_empty(), "scores: no prompts");
        let mut sums = Sums::default();
        for tokens in progress(batches, "scores").unit("batches") {
            let plan = Plan::new().cache([self.site, self.site_out].as_slice());
            let run = model.run(tokens, &plan)?;
            let [x, y] = [self.site, self.site_out].map(|site| run.cache.get(site));
            sums.add(self, &own(&x?, tokens)?, &own(&y?, tokens)?)?;
            sums.clean.add(&run.logits, tokens)?;
        }
        let mean = (&sums.total()?.1 / sums.n).to_kind(model.kind()).to_device(model.device());
        let shape = self.shape(self.site_out, model);
        let zero = Intervention::zero();
        let mean = Intervention::set(&mean.reshape(&shape[..]));
        let replaced = |by: Intervention| Plan::new().intervene(self.site_out, by.pos(1..));
        let plans = [
            self.splice().without_error().pos(1..).plan(Plan::new())?,
            replaced(zero),
            replaced(mean),
        ];
        let mut losses = [Loss::default(), Loss::default(), Loss::default()];
        for tokens in progress(batches, "losses").unit("batches") {
            for (plan, loss) in plans.iter().zip(&mut losses) {
                loss.add(&model.run(tokens, plan)?.logits, tokens)?;
            }
        }
        sums.scores(self, losses.map(|loss| loss.mean()))
    }

    /// Fails unless the model has the SAE's sites, of its widths.
    pub(super) fn fits(&self, model: &Model) -> Result<()> {
        self.check()?;
        let layers = model.config().n_layers;
        for (site, d) in [(self.site, self.d_in()), (self.site_out, self.d_out())] {
            let exists = site.layer().is_none_or(|layer| layer < layers);
            ensure!(exists, "{self:?}: the model has layers 0..{}", layers - 1);
            let own = width(site, model.config());
            ensure!(own == d, "{self:?}: {site} has {own} entries, the SAE {d}");
        }
        Ok(())
    }

    /// Shape of one vector at a site.
    fn shape(&self, site: Site, model: &Model) -> Vec<i64> {
        let c = model.config();
        match site.axes().get(2..) {
            Some([Axis::Head, _]) => vec![c.n_heads as i64, -1],
            Some([Axis::KvHead, _]) => vec![c.n_kv_heads as i64, -1],
            _ => vec![-1],
        }
    }
}

/// Vectors `[n, D]` of all tokens but padding and each row's first.
pub(super) fn own(x: &Tensor, tokens: &Tokens) -> Result<Tensor> {
    let mut rows = Vec::new();
    for row in 0..tokens.batch() {
        let len = tokens.ids()[row].len();
        ensure!(len > 1, "row {row} is one token: expected two at least");
        let start = tokens.padding(row) as i64 + 1;
        rows.push(x.get(row as i64).narrow(0, start, len as i64 - 1).flatten(1, -1));
    }
    Ok(Tensor::cat(&rows, 0))
}

/// A mean loss over tokens.
#[derive(Default)]
struct Loss {
    sum: f64,
    n: f64,
}

impl Loss {
    fn add(&mut self, logits: &Tensor, tokens: &Tokens) -> Result<()> {
        let rows = Vec::<f64>::try_from(Metric::loss().of(logits, tokens)?.to_kind(Kind::Double))?;
        for (loss, len) in rows.iter().zip(tokens.lens()) {
            self.sum += loss * (len - 1) as f64;
            self.n += (len - 1) as f64;
        }
        Ok(())
    }

    fn mean(&self) -> f64 {
        self.sum / self.n
    }
}

/// Sums over tokens.
#[derive(Default)]
struct Sums {
    n: f64,
    clean: Loss,
    /// Squared errors of the reconstruction.
    error: f64,
    /// Squares `[D]` and sum `[D]` of the activations, less the first batch's mean.
    total: Option<(Tensor, Tensor, Tensor)>,
    /// Tokens that each latent is on at, `[d_sae]`.
    on: Option<Tensor>,
}

impl Sums {
    fn add(&mut self, sae: &Sae, x: &Tensor, y: &Tensor) -> Result<()> {
        let sum = |t: &Tensor| t.sum_dim_intlist([0i64].as_slice(), false, Kind::Double);
        let latents = sae.encode(x)?;
        let y = y.to_kind(Kind::Double);
        let error = &y - sae.decode_like(&latents, x)?.to_kind(Kind::Double);
        self.error += error.square().sum(None).double_value(&[]);
        let on = sum(&latents.ne(0.0));
        self.on = Some(match self.on.take() {
            Some(old) => old + on,
            None => on,
        });
        let shift = match &self.total {
            Some((.., shift)) => shift.shallow_clone(),
            None => y.mean_dim([0i64].as_slice(), false, None),
        };
        let moved = &y - &shift; // sums of squares about a point near the mean lose nothing
        let (squares, sums) = (sum(&moved.square()), sum(&moved));
        self.total = Some(match self.total.take() {
            Some((a, b, shift)) => (a + squares, b + sums, shift),
            None => (squares, sums, shift),
        });
        self.n += y.size()[0] as f64;
        Ok(())
    }

    /// Summed squares about the mean, and the sum `[D]`.
    fn total(&self) -> Result<(f64, Tensor)> {
        let (squares, sums, shift) = self.total.as_ref().context("no tokens")?;
        let about = squares - sums.square() / self.n;
        Ok((about.sum(None).double_value(&[]), sums + shift * self.n))
    }

    fn scores(self, sae: &Sae, [spliced, zero, mean]: [f64; 3]) -> Result<SaeScores> {
        let variance = self.total()?.0;
        let site = sae.site_out;
        ensure!(variance > 0.0, "scores: the activations at {site} are all equal");
        let on = self.on.as_ref().context("no tokens")? / self.n;
        let frequency = Grid::of(&on, &[Axis::Feature], "share of tokens")?;
        let clean = self.clean.mean();
        let recovered = |worst: f64| (worst - spliced) / (worst - clean);
        Ok(SaeScores {
            l0: on.sum(None).double_value(&[]),
            fvu: self.error / variance,
            dead: on.eq(0.0).to_kind(Kind::Double).mean(None).double_value(&[]),
            frequency: frequency.name("how often each latent is on").n(self.n as usize),
            loss_clean: clean,
            loss_spliced: spliced,
            loss_zero: zero,
            loss_mean: mean,
            loss_recovered: recovered(zero),
            loss_recovered_mean: recovered(mean),
            tokens: self.n as usize,
        })
    }
}
