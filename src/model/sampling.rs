//! How the next token is chosen.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use crate::rng::Rng;

/// How many tokens to generate, and how each is chosen. A number alone means the most likely token
/// each time.
///
/// ```
/// use thalweg::Sampling;
/// let greedy: Sampling = 20.into();
/// let drawn = Sampling::new(20).temperature(0.8).top_p(0.95).seed(7);
/// assert_ne!(format!("{greedy:?}"), format!("{drawn:?}"));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    pub(super) n: usize,
    temperature: f64,
    top_p: f64,
    seed: u64,
    pub(super) stop: Option<Vec<i64>>,
    pub(super) recompute: bool,
}

impl From<usize> for Sampling {
    fn from(n: usize) -> Self {
        Sampling::new(n)
    }
}

impl Sampling {
    /// At most `n` tokens, the most likely one each time, up to the model's end-of-text token.
    pub fn new(n: usize) -> Self {
        Sampling { n, temperature: 0.0, top_p: 1.0, seed: 0, stop: None, recompute: false }
    }

    /// Draws from the softmax of the logits divided by this; 0 means the most likely token.
    pub fn temperature(mut self, temperature: f64) -> Self {
        self.temperature = temperature;
        self
    }

    /// Draws among the fewest tokens whose probabilities add up to at least `p` (nucleus sampling,
    /// Holtzman et al. 2020, <https://arxiv.org/abs/1904.09751>).
    pub fn top_p(mut self, p: f64) -> Self {
        self.top_p = p;
        self
    }

    /// The same seed draws the same tokens, on every device.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// A row ends at any of these ids; default: the end-of-text ids of the model's config.
    pub fn stop_at(mut self, ids: &[i64]) -> Self {
        self.stop = Some(ids.to_vec());
        self
    }

    /// Runs the whole text again for each token instead of keeping keys and values: slow, and the
    /// same numbers to rounding.
    pub fn recompute(mut self) -> Self {
        self.recompute = true;
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        ensure!(self.n > 0, "generate: 0 tokens asked for: expected at least 1");
        ensure!(
            self.temperature.is_finite() && self.temperature >= 0.0,
            "generate: temperature {}: expected a number of at least 0",
            self.temperature
        );
        ensure!(
            self.top_p > 0.0 && self.top_p <= 1.0,
            "generate: top_p {}: expected more than 0 and at most 1",
            self.top_p
        );
        Ok(())
    }

    /// A generator of its own for each row, so that a row's draws do not depend on its neighbours.
    pub(super) fn generators(&self, rows: usize) -> Vec<Rng> {
        (0..rows as u64).map(|row| Rng::new(self.seed).fork(row)).collect()
    }

    /// The seed, where tokens are drawn.
    pub(super) fn drawn_from(&self) -> Option<u64> {
        (self.temperature > 0.0).then_some(self.seed)
    }

    /// The next id of a row from its logits `[Vocab]`.
    pub(super) fn choose(&self, logits: &Tensor, rng: &mut Rng) -> Result<i64> {
        ensure!(
            bool::try_from(logits.isfinite().any())?,
            "generate: no logit is finite: nothing can be chosen"
        );
        if self.temperature == 0.0 {
            return Ok(logits.argmax(0, false).int64_value(&[]));
        }
        let logits = logits.to_device(tch::Device::Cpu).to_kind(Kind::Double);
        // stable, so that equal logits keep the order of their ids
        let (probs, ids) =
            (logits / self.temperature).softmax(0, None::<Kind>).sort_stable(true, 0, true);
        let (probs, ids) = (Vec::<f64>::try_from(probs)?, Vec::<i64>::try_from(ids)?);
        let mut kept = 0.0;
        let enough = probs.iter().position(|p| {
            kept += p;
            kept >= self.top_p
        });
        let n = enough.map_or(probs.len(), |last| last + 1);
        Ok(ids[rng.weighted(&probs[..n])])
    }
}
