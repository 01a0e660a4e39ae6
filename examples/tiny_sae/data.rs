//! Activations of tiny-world on rows of its own language.

use crate::tiny_world::rows::{Mixture, evenly, row};
use crate::tiny_world::sentence::{Level, Split};
use crate::tiny_world::words::Vocabulary;
use thalweg::anyhow::Result;
use thalweg::rng::Rng;
use thalweg::tch::Tensor;
use thalweg::{Model, Plan, Site, Tokens, progress};

/// Rows run together.
const BATCH: usize = 64;

/// Rows of the language as batches of tokens: 64 tokens each, tasks mixed as in training.
pub fn rows(n: usize, split: Split, seed: u64) -> Result<Vec<Tokens>> {
    let (mut rng, vocabulary) = (Rng::new(seed), Vocabulary::new());
    let mixture = Mixture {
        length: 64,
        repeats: 0.25,
        recalls: 0.0,
        tasks: evenly(),
        level: Level::full(),
        split,
    };
    let rows: Vec<Vec<i64>> = (0..n).map(|_| row(&mut rng, &mixture, &vocabulary).ids).collect();
    rows.chunks(BATCH).map(Tokens::from_ids).collect()
}

/// Vectors at `site` of every token but each row's first, `[n, D]`.
pub fn activations(model: &Model, batches: &[Tokens], site: Site) -> Result<Tensor> {
    let plan = Plan::new().cache(site).logits_at(-1);
    let mut parts = Vec::new();
    for tokens in progress(batches, "activations").unit("batches") {
        let x = model.run(tokens, &plan)?.cache.get(site)?;
        parts.push(x.narrow(1, 1, x.size()[1] - 1).flatten(0, 1).flatten(1, -1));
    }
    Ok(Tensor::cat(&parts, 0))
}
