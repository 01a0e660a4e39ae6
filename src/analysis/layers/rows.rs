//! Which tokens of a batch count.

use anyhow::{Result, ensure};
use tch::{Device, Tensor};

use crate::text::Tokens;

/// The tokens that count: all but padding and the first few of each prompt.
pub(in crate::analysis) struct Rows {
    /// Their indices in `[Batch Pos]`.
    places: Vec<i64>,
    /// How many of them each prompt has.
    pub(in crate::analysis) counts: Vec<i64>,
}

impl Rows {
    pub(in crate::analysis) fn new(tokens: &Tokens, first: usize) -> Self {
        let mut places = Vec::new();
        let lens = tokens.lens();
        for (prompt, len) in lens.iter().enumerate() {
            let start = prompt * tokens.width() + tokens.padding(prompt);
            places.extend((first.min(*len)..*len).map(|pos| (start + pos) as i64));
        }
        let counts = lens.iter().map(|len| len.saturating_sub(first) as i64).collect();
        Rows { places, counts }
    }

    /// An error unless every prompt has one at least. `what` begins it.
    pub(in crate::analysis) fn check(&self, what: &str, first: usize) -> Result<()> {
        if let Some(row) = self.counts.iter().position(|n| *n == 0) {
            anyhow::bail!("{what}: prompt {row} has no token after the first {first}");
        }
        Ok(())
    }

    pub(in crate::analysis) fn len(&self) -> usize {
        self.places.len()
    }

    /// Their vectors: `[Batch, Pos, D]` -> `[n, D]`.
    pub(in crate::analysis) fn of(&self, x: &Tensor) -> Tensor {
        x.flatten(0, 1).index_select(0, &Tensor::from_slice(&self.places).to_device(x.device()))
    }

    /// 1 where a token counts and 0 elsewhere: `[Batch, Pos, 1]`, f64.
    pub(in crate::analysis) fn mask(&self, tokens: &Tokens, device: Device) -> Tensor {
        let shape = [tokens.batch() as i64, tokens.width() as i64, 1];
        let mut flat = vec![0.0; tokens.batch() * tokens.width()];
        self.places.iter().for_each(|place| flat[*place as usize] = 1.0);
        Tensor::from_slice(&flat).view(shape).to_device(device)
    }

    /// Means over each prompt's tokens of `x [n]`, `[Batch]`.
    pub(in crate::analysis) fn means(&self, x: &Tensor) -> Result<Vec<f64>> {
        let parts = x.split_with_sizes(&self.counts[..], 0);
        ensure!(parts.len() == self.counts.len(), "one part a prompt");
        Ok(parts.iter().map(|part| part.mean(tch::Kind::Double).double_value(&[])).collect())
    }
}
