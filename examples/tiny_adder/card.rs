//! The card beside the weights.

use super::{BATCH, DECAY, LOOK, Line, MEMORISED, P, RATE, SHARE, STEPS};
use std::fmt::Write;
use thalweg::anyhow::Result;
use thalweg::{Model, W, fourier_power, key_frequencies};

/// `tokenizer_config.json`, which transformers reads.
pub const TOKENIZER_CONFIG: &str = r#"{
  "tokenizer_class": "PreTrainedTokenizerFast",
  "unk_token": "=",
  "model_max_length": 16
}
"#;

/// `README.md`, from what was measured along the training.
pub fn text(seed: u64, model: &Model, lines: &[Line]) -> Result<String> {
    let embedding = model.weight(W::E, 0)?.narrow(0, 0, P);
    let power = fourier_power(&embedding)?;
    let frequencies = key_frequencies(&power, 0.9)?;
    let mut table = String::new();
    for line in lines.iter().filter(|line| line.step % (2 * LOOK) == 0) {
        let ((train, known), (held, right)) = (line.train, line.held_out);
        let _ =
            writeln!(table, "| {} | {train:.3} | {known:.3} | {held:.3} | {right:.3} |", line.step);
    }
    let (c, n) = (model.config(), model.config().n_params());
    Ok(format!(
        "# tiny-adder

A Llama of {n} weights ({} layer, d {}, {} query and {} key/value heads, MLP {}) that adds modulo {P}: `17 38 =` -> `2`. It groks: it knows
its training set by heart long before it can add (Power et al. 2022, Nanda et al. 2023). Made by
`cargo run --release --example train_tiny_adder -- --out DIR` with seed {seed}; notebook 10 trains the same model live. `memorised` is the
same run at step {MEMORISED}. Licence: MIT OR Apache-2.0.

Words: `0` to `{}` and `=`. Of the {} pairs {:.0} %, drawn at random, are trained on: {STEPS} steps of {BATCH} questions, AdamW, rate {RATE}
falling in a line to 0, weight decay {DECAY}, less than half a minute of one quiet core.

| step | loss, trained | right, trained | loss, held out | right, held out |
|---|---|---|---|---|
{table}
A mirrored pair (`b a =` for a trained `a b =`) is easily right, so that about {:.0} % of the held-out pairs are right by heart alone.

Of the squares of the embedding of the numbers, less their mean, 90 % lie in {} of {} frequencies: {frequencies:?}.
",
        c.n_layers,
        c.d_model,
        c.n_heads,
        c.n_kv_heads,
        c.d_mlp,
        P - 1,
        P * P,
        100.0 * SHARE,
        100.0 * SHARE,
        frequencies.len(),
        P / 2,
    ))
}
