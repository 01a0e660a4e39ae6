//! The card beside the checkpoints.

use super::{BLOCK, IN_USE, KEPT, LENGTH, Measured, Recipe, TEST_BLOCK, TEST_ROWS};
use std::fmt::Write;

/// `README.md`, from what was measured at each kept step.
pub fn text(recipe: &Recipe, rows: &[(usize, Measured)]) -> String {
    let (last, size) = (KEPT[KEPT.len() - 1], recipe.size);
    let mut table = String::new();
    for (step, m) in rows {
        let _ = writeln!(
            table,
            "| {step} | {:.2} | {:.2} | {:.2} | {:.2} |",
            m.first, m.second, m.previous, m.induction
        );
    }
    format!(
        "# tiny-copier

Ten checkpoints of a Llama of {} layers (d {}, {} query and {} key/value heads, MLP {}) on the way to induction: it learns one thing,
to go on with a text that repeats itself, and learns it all at once (the phase change of Olsson et al. 2022). Made by
`cargo run --release --example train_tiny_copier -- --out DIR` with seed {}: {last} steps of {} rows, AdamW, rate {}, less than
half a minute of one quiet core. Licence: MIT OR Apache-2.0.

Each directory is a Hugging Face directory with the words of tiny-world, weights in bf16. Load them in f32:
`Model::load_on(dir, Device::Cpu, Kind::Float)`.

## Task

A row is `<s>`, up to eight syllables, then a block of {} to {} other syllables, all different, said again and again until the row
has {LENGTH} tokens. The first {IN_USE} of tiny-world's 64 syllables are in use (`ja je ji` ... `mo`); every token counts alike in the
loss. How far back the answer lies differs from row to row. A block holds most of the syllables in use, so that knowing which ones it
holds is worth little; with short blocks of 64 syllables the model learnt that first and stayed there for the 500 steps tried.

## The phase change

On {TEST_ROWS} rows of `<s>` and a block of {TEST_BLOCK} said twice, drawn with another seed. Losses in nats (chance among {IN_USE}: {:.2}); the second
copy without its first syllable, which nothing announces. Scores are those of the best head: attention to the token before, and to the
token after the same one in the first copy. The weights are those shipped.

| step | loss, first copy | loss, second copy | previous-token score | induction score |
|---|---|---|---|---|
{table}",
        size.layers,
        size.d_model,
        size.heads,
        size.heads / 2,
        size.d_mlp,
        recipe.seed,
        recipe.batch,
        recipe.rate,
        BLOCK.0,
        BLOCK.1,
        (IN_USE as f64).ln(),
    )
}
