//! tiny-copier: a 2-layer Llama that learns one thing, to go on with a text that repeats itself, and
//! the moment at which it does.

// The example and a test each use a part of what stands here.
#![allow(dead_code, unreachable_pub)]

pub mod card;

use super::tiny_world::trainer::{Size, untrained};
use super::tiny_world::words::{BOS, SYMBOLS, Vocabulary};
use std::path::Path;
use thalweg::anyhow::Result;
use thalweg::model::AdamW;
use thalweg::rng::Rng;
use thalweg::tch::{Kind, with_grad};
use thalweg::{Metric, Model, Motif, Plan, Point, Tokens, head_scores, repeated_tokens_of};

/// Tokens in a row, BOS included.
pub const LENGTH: usize = 48;
/// Syllables in use, the first of tiny-world's 64.
pub const IN_USE: usize = 32;
/// Least and most symbols in a block. Most of those in use: then it hardly helps to know which
/// symbols the block holds, and what helps is to know which one followed which. With short blocks
/// of many symbols a model learns the former first and stays there for a long time.
pub const BLOCK: (usize, usize) = (16, 22);
/// Rows that a checkpoint is measured on.
pub const TEST_ROWS: usize = 32;
/// Symbols in their block.
pub const TEST_BLOCK: usize = 20;
/// Decides those rows.
pub const TEST_SEED: u64 = 2026;
/// Steps that are kept: the second copy's loss falls between the fifth and the ninth.
pub const KEPT: [usize; 10] = [0, 50, 100, 150, 200, 225, 250, 275, 325, 450];

/// The course of a training.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Decides the weights at the start and every row.
    pub seed: u64,
    /// Layers and widths.
    pub size: Size,
    /// Rows in a step.
    pub batch: usize,
    /// Learning rate, reached over the first `warm` steps.
    pub rate: f64,
    /// Steps over which the rate rises.
    pub warm: usize,
}

impl Recipe {
    /// The shipped one.
    pub fn tiny_copier(seed: u64) -> Self {
        let size = Size { layers: 2, d_model: 64, heads: 4, d_mlp: 128 };
        Recipe { seed, size, batch: 32, rate: 6e-3, warm: 50 }
    }
}

/// One row: BOS, up to eight symbols, then a block of other symbols, all different, said again and
/// again until the row is full. How far back the answer lies differs from row to row, so that it
/// cannot be found by position alone.
pub fn row(rng: &mut Rng, vocabulary: &Vocabulary) -> Vec<i64> {
    let block = rng.range(BLOCK.0..BLOCK.1 + 1);
    let before = rng.below(9);
    let drawn = rng.sample(IN_USE, block + before);
    let ids: Vec<i64> = drawn.into_iter().map(|i| vocabulary.id(SYMBOLS[i])).collect();
    let (before, block) = ids.split_at(before);
    let text = before.iter().chain(block.iter().cycle()).copied().take(LENGTH - 1);
    std::iter::once(vocabulary.id(BOS)).chain(text).collect()
}

/// A model in training.
#[derive(Debug)]
pub struct Trainer {
    /// The model; its weights change at each step.
    pub model: Model,
    /// Steps done.
    pub step: usize,
    recipe: Recipe,
    optimizer: AdamW,
    vocabulary: Vocabulary,
    rng: Rng,
}

impl Trainer {
    /// From random weights.
    pub fn new(recipe: Recipe) -> Result<Self> {
        let model = untrained(recipe.size, recipe.seed)?.trainable();
        let optimizer = AdamW::new(model.parameters());
        let rng = Rng::new(recipe.seed).fork(1);
        Ok(Trainer { model, step: 0, recipe, optimizer, vocabulary: Vocabulary::new(), rng })
    }

    /// One step on the mean loss of all tokens; returns it, in nats.
    pub fn step(&mut self) -> Result<f64> {
        let rows: Vec<Vec<i64>> =
            (0..self.recipe.batch).map(|_| row(&mut self.rng, &self.vocabulary)).collect();
        let tokens = Tokens::from_ids(&rows)?;
        let logits = self.model.run(&tokens, &Plan::new().differentiable())?.logits;
        let loss = with_grad(|| Metric::loss().of(&logits, &tokens).map(|each| each.mean(None)))?;
        let rate = self.recipe.rate * ((self.step + 1) as f64 / self.recipe.warm as f64).min(1.0);
        self.optimizer.step(&loss, rate)?;
        self.step += 1;
        Ok(loss.double_value(&[]))
    }
}

/// What a checkpoint does with a block of 20 symbols said twice: losses in nats, and the best head's
/// attention to the token before and to the token that followed last time.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Mean loss of the first copy.
    pub first: f64,
    /// Mean loss of the second copy, its first symbol left out.
    pub second: f64,
    /// Best previous-token score.
    pub previous: f64,
    /// Best induction score.
    pub induction: f64,
}

/// Blocks that checkpoints are measured on, said twice.
pub fn test_rows(model: &Model) -> Result<Tokens> {
    let ids = SYMBOLS[..IN_USE].iter().map(|w| model.token(w)).collect::<Result<Vec<_>>>()?;
    repeated_tokens_of(model, &ids, TEST_ROWS, TEST_BLOCK, TEST_SEED)
}

/// Measures a checkpoint.
pub fn measure(model: &Model) -> Result<Measured> {
    let tokens = test_rows(model)?;
    let run = model.run(&tokens, &Plan::new().cache(Point::Pattern))?;
    let mean = |positions: std::ops::Range<i64>| -> Result<f64> {
        let each = Metric::loss_at(positions).of(&run.logits, &tokens)?;
        Ok(each.mean(Kind::Double).double_value(&[]))
    };
    let n = TEST_BLOCK as i64;
    let best = |motif| -> Result<f64> {
        let scores = head_scores(&run.cache, motif)?;
        Ok(scores.present().map(|(_, score)| score).fold(0.0, f64::max))
    };
    Ok(Measured {
        first: mean(1..n + 1)?,
        second: mean(n + 2..2 * n + 1)?,
        previous: best(Motif::PreviousToken)?,
        induction: best(Motif::Induction)?,
    })
}

/// The directory of a kept step.
pub fn name(step: usize) -> String {
    format!("step-{step:04}")
}

/// Writes a checkpoint as it is shipped: tiny-world's words, weights in bf16.
pub fn write(model: &Model, dir: &Path) -> Result<()> {
    let named = model.named_weights().into_iter();
    let tensors = named.map(|(name, w)| (name, w.to_kind(Kind::BFloat16))).collect();
    Model::from_parts(model.config().clone(), tensors, model.tokenizer().cloned())?.save(dir)?;
    let tokenizer = include_str!("../../data/models/tiny-world/tokenizer_config.json");
    Ok(std::fs::write(dir.join("tokenizer_config.json"), tokenizer)?)
}
