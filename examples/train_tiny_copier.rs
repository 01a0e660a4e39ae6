//! Trains tiny-copier and writes its ten checkpoints, `data/models/tiny-copier`.
//!
//!     cargo run --release --example train_tiny_copier -- --out data/models/tiny-copier
//!
//! `--seed 2` changes the run; without `--out` it is measured and nothing is kept. Half a minute of
//! one core.

#![allow(clippy::print_stdout)] // what a program has to say

mod tiny_copier;
mod tiny_world;

use std::path::PathBuf;

use thalweg::Model;
use thalweg::anyhow::{Context, Result, bail};
use thalweg::tch::{Device, Kind};
use tiny_copier::{KEPT, Recipe, Trainer, card, measure, name, write};

/// Steps between two lines.
const LOOK: usize = 25;

fn main() -> Result<()> {
    thalweg::tch::set_num_threads(1);
    let (recipe, out) = arguments()?;
    let mut trainer = Trainer::new(recipe.clone())?;
    let mut rows = Vec::new();
    loop {
        let kept = KEPT.contains(&trainer.step);
        if kept || trainer.step.is_multiple_of(LOOK) {
            println!("{:4} {:?}", trainer.step, measure(&trainer.model)?);
        }
        if let (true, Some(out)) = (kept, &out) {
            let dir = out.join(name(trainer.step));
            write(&trainer.model, &dir)?;
            let shipped = Model::load_on(&dir, Device::Cpu, Kind::Float)?;
            rows.push((trainer.step, measure(&shipped)?));
        }
        if trainer.step == KEPT[KEPT.len() - 1] {
            break;
        }
        trainer.step()?;
    }
    if let Some(out) = out {
        std::fs::write(out.join("README.md"), card::text(&recipe, &rows))?;
    }
    Ok(())
}

fn arguments() -> Result<(Recipe, Option<PathBuf>)> {
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
    Ok((Recipe::tiny_copier(seed), out))
}
