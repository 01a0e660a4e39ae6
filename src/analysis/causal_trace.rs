//! Causal tracing: where does the stream bring back what noise on the subject destroyed?
//!
//! Meng et al. 2022, "Locating and editing factual associations in GPT" (ROME),
//! <https://arxiv.org/abs/2202.05262>. Noise takes a run off its distribution, and its size matters
//! (Zhang & Nanda 2024, <https://arxiv.org/abs/2309.16042>): patching between two prompts is the
//! more careful experiment.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use super::ablation::{around, check_window, default_window};
use super::cells::{CHUNK, Cells, Swept};
use super::effect::{mean_text, scale};
use crate::grid::Grid;
use crate::hook::intervention::Intervention;
use crate::hook::metric::Metric;
use crate::hook::plan::Plan;
use crate::hook::site::{Axis, Point, Site};
use crate::index::Positions;
use crate::model::{Model, W};
use crate::rng::Rng;
use crate::text::Tokens;

/// Layers of a window of `AttnOut` or `MlpOut` in the paper's model of 48 layers.
const WINDOW: usize = 10;

/// A prompt whose subject is hidden by noise on its embeddings.
///
/// ```
/// use thalweg::{CausalTrace, Metric, Model, Point, heatmap};
/// let model = Model::load("data/models/tiny-world")?;
/// let tokens = model.tokens("When Mary and John went to the store , John gave a drink to")?;
/// let metric = Metric::log_prob(model.token("Mary")?);
/// let trace = CausalTrace::new(&model, &tokens, tokens.find("Mary")?)?.draws(4).seed(1);
/// let stream = trace.grid(Point::ResidPost, &metric)?; // what restoring each vector brings back
/// let mlps = trace.clone().normalised().grid(Point::MlpOut, &metric)?;
/// assert_eq!(stream.axes, mlps.axes);
/// # thalweg::anyhow::Ok(())
/// ```
#[derive(Debug, Clone)]
pub struct CausalTrace {
    model: Model,
    tokens: Tokens,
    subject: Positions,
    noise: f64,
    draws: usize,
    seed: u64,
    window: Option<usize>,
    normalised: bool,
    each_prompt: bool,
}

impl CausalTrace {
    /// Default: noise of 3 standard deviations, 10 draws, seed 0, the mean over draws and prompts.
    pub fn new(model: &Model, tokens: &Tokens, subject: impl Into<Positions>) -> Result<Self> {
        let subject = subject.into();
        tokens
            .places(subject.clone())
            .map_err(|error| anyhow::anyhow!("causal trace: the subject: {error:#}"))?;
        Ok(CausalTrace {
            model: model.clone(),
            tokens: tokens.clone(),
            subject,
            noise: 3.0,
            draws: 10,
            seed: 0,
            window: None,
            normalised: false,
            each_prompt: false,
        })
    }

    /// The noise's standard deviation, in units of that of all entries of the embedding matrix.
    pub fn noise(mut self, sigmas: f64) -> Self {
        self.noise = sigmas;
        self
    }

    /// How many times noise is drawn; every cell sees the same draws.
    pub fn draws(mut self, draws: usize) -> Self {
        self.draws = draws;
        self
    }

    /// The seed of the noise, which comes from this crate's own generator.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Layers restored together, around each layer. Default: 1 for the residual stream; for
    /// `AttnOut` and `MlpOut` 10, but at most half of the model's.
    pub fn window(mut self, layers: usize) -> Self {
        self.window = Some(layers);
        self
    }

    /// Reports `(m - m_noised) / (m_clean - m_noised)`: 0 is the noised run and 1 the clean one,
    /// both means over draws and prompts.
    pub fn normalised(mut self) -> Self {
        self.normalised = true;
        self
    }

    /// Keeps the `Batch` axis, outermost, instead of the mean over prompts.
    pub fn each_prompt(mut self) -> Self {
        self.each_prompt = true;
        self
    }

    /// The indirect effect: what restoring the clean `point` at each layer (or window of layers) and
    /// position brings back of the metric, `m_restored - m_noised`: `[Layer, Pos]`, in the metric's
    /// unit; 0 is the noised run. Its 95 % interval is over prompts, or over draws of one prompt.
    /// `point` is one of the stream's: `ResidPre`, `ResidMid`, `ResidPost`, `AttnOut`, `MlpOut`.
    pub fn grid(&self, point: Point, metric: &Metric) -> Result<Grid> {
        let n_layers = self.model.config().n_layers;
        let window = self.check(point)?;
        let by = (&point.into(), [Axis::Pos].as_slice());
        let cells = Cells::new("causal trace of", self.model.config(), &self.tokens, by)?;
        let clean = Plan::new().cache(point).cache(Site::Embed).logits_at(-1);
        let clean = self.model.run(&self.tokens, &clean)?.cache;
        let noised = self.noised(&clean.get(Site::Embed)?)?;
        let corrupt = self.corrupt(&noised, metric)?;
        let plan = |draw: usize, cell: &[usize]| {
            let layers = around(cells.site(cell).layer().unwrap_or(0), window, n_layers);
            let sites: Vec<Site> = layers.map(|layer| point.at(layer)).collect();
            let noised = Plan::new().intervene(Site::Embed, noised[draw].clone());
            Ok(noised.intervene(sites, cells.narrow(cell, Intervention::patch(&clean))))
        };
        let what = (&self.model, &self.tokens, metric);
        let swept = Swept::new(what, (&cells, self.draws, CHUNK), plan)?;
        self.finish(swept, &corrupt, metric, window).map(|grid| {
            grid.name(&format!(
                "{metric:?} brought back by restoring {point:?} of a noised subject"
            ))
        })
    }

    fn check(&self, point: Point) -> Result<usize> {
        use Point::{AttnOut, MlpOut, ResidMid, ResidPost, ResidPre};
        let own = match point {
            ResidPre | ResidMid | ResidPost => 1,
            AttnOut | MlpOut => default_window(WINDOW, self.model.config().n_layers),
            other => anyhow::bail!(
                "causal trace of {other:?}: expected one of {:?}",
                [ResidPre, ResidMid, ResidPost, AttnOut, MlpOut]
            ),
        };
        let window = self.window.unwrap_or(own);
        check_window("causal trace", window, self.model.config().n_layers)?;
        ensure!(self.draws > 0, "causal trace: 0 draws of noise, expected at least 1");
        ensure!(
            self.noise.is_finite() && self.noise >= 0.0,
            "causal trace: noise of {} standard deviations, expected 0 or more",
            self.noise
        );
        Ok(window)
    }

    /// One intervention a draw: the subject's embeddings with noise added.
    fn noised(&self, embed: &Tensor) -> Result<Vec<Intervention>> {
        let std = self.noise * self.sigma()?;
        let mut rng = Rng::new(self.seed);
        let mut one = || {
            let noise = rng.normal_tensor(&embed.size()).to_kind(Kind::Double) * std;
            let noise = noise.to_device(embed.device());
            let noised = (embed.to_kind(Kind::Double) + noise).to_kind(embed.kind());
            Intervention::set(&noised).pos(self.subject.clone())
        };
        Ok((0..self.draws).map(|_| one()).collect())
    }

    /// Standard deviation of all entries of the embedding matrix.
    fn sigma(&self) -> Result<f64> {
        let embedding = self.model.weight(W::E, 0)?.to_kind(Kind::Double);
        Ok(embedding.std(true).double_value(&[]))
    }

    /// The metric of the noised run, for each draw and prompt.
    fn corrupt(&self, noised: &[Intervention], metric: &Metric) -> Result<Vec<Vec<f64>>> {
        let plan = |noise: &Intervention| Plan::new().intervene(Site::Embed, noise.clone());
        let plans: Vec<Plan> = noised.iter().map(plan).collect();
        let swept = self.model.sweep(&self.tokens, &plans, metric)?;
        ensure!(
            swept.done == plans.len(),
            "causal trace: stopped before the noised runs were done"
        );
        Ok(swept.values.values.outer_iter().map(|row| row.iter().copied().collect()).collect())
    }

    fn finish(
        &self,
        swept: Swept,
        corrupt: &[Vec<f64>],
        metric: &Metric,
        window: usize,
    ) -> Result<Grid> {
        let clean = swept.base.clone();
        let by_row = |row: usize| corrupt.iter().map(|draw| draw[row]).sum::<f64>();
        let noised: Vec<f64> =
            (0..clean.len()).map(|row| by_row(row) / corrupt.len() as f64).collect();
        let swept = swept.map(|value, draw, row| value - corrupt[draw][row]);
        let mut grid = if self.normalised {
            let (runs, each) = ((noised.as_slice(), clean.as_slice()), self.each_prompt);
            let scale = scale("causal trace", (&self.model, metric), runs, each)?;
            let grid = swept.map(|value, _, row| value / scale[row]).mean(self.each_prompt)?;
            grid.zero_one("the noised run", "the clean run")
                .unit(&format!("share of {metric:?} moved"))
        } else {
            swept.mean(self.each_prompt)?
        };
        grid = grid.note("clean run", &mean_text(&clean)).note("noised run", &mean_text(&noised));
        Ok(grid
            .note("noise", &format!("{} x {:.6} on {}", self.noise, self.sigma()?, self.subject))
            .note("draws", &self.draws.to_string())
            .note("seed", &self.seed.to_string())
            .note("window", &format!("{window} layers")))
    }
}
