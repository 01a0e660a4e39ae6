//! Trains tiny-adder, which learns to add modulo 53 and groks, and writes `data/models/tiny-adder`.
//!
//!     cargo run --release --example train_tiny_adder -- --out data/models/tiny-adder
//!
//! `--seed 2` changes the run; without `--out` nothing is kept. Half a minute of one core.

#![allow(clippy::print_stdout)] // what a program has to say

mod tiny_adder;

use std::path::PathBuf;

use thalweg::anyhow::{Context, Result, bail};
use tiny_adder::{MEMORISED, STEPS, card, train};

fn main() -> Result<()> {
    thalweg::tch::set_num_threads(1);
    let (mut seed, mut out) = (1, None);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--seed" => seed = value.parse()?,
            "--out" => out = Some(PathBuf::from(value)),
            other => bail!("unknown argument {other}: expected --seed or --out"),
        }
    }
    let mut lines = Vec::new();
    let model = train(seed, STEPS, |line, model| {
        println!("{line:?}");
        lines.push(line);
        match &out {
            Some(out) if line.step == MEMORISED => model.save(out.join("memorised")),
            _ => Ok(()),
        }
    })?;
    if let Some(out) = out {
        model.save(&out)?;
        std::fs::write(out.join("tokenizer_config.json"), card::TOKENIZER_CONFIG)?;
        std::fs::write(out.join("README.md"), card::text(seed, &model, &lines)?)?;
    }
    Ok(())
}
