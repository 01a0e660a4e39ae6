//! Trains the sparse autoencoder of tiny-world, `data/models/tiny-world-sae`, and its control: the same
//! recipe on a model whose weights were shuffled.
//!
//!     OMP_WAIT_POLICY=PASSIVE cargo run --example train_sae -- --out data/models/tiny-world-sae
//!
//! `--site`, `--k`, `--latents`, `--steps`, `--rate`, `--rows` and `--seed` change the recipe. Ten minutes on
//! two shared cores.

#![allow(clippy::print_stdout)] // what a program has to say

mod tiny_sae;
mod tiny_world;

use std::path::PathBuf;

use thalweg::Model;
use thalweg::anyhow::{Context, Result, bail};
use tiny_sae::Recipe;
use tiny_sae::card::{Card, Subject};

fn main() -> Result<()> {
    let (recipe, out) = arguments()?;
    let model = Model::load("data/models/tiny-world")?;
    let own = Subject::train(&model, &recipe)?;
    println!("{:?}\n{:?}", own.sae, own.scores);
    let control = Subject::train(&model.shuffled(recipe.seed)?, &recipe)?;
    println!("shuffled weights: {:?}", control.scores);
    if let Some(dir) = &out {
        own.sae.save(dir)?;
    }
    let card = Card { recipe, own, control }.text()?;
    match out {
        Some(dir) => Ok(std::fs::write(dir.join("README.md"), card)?),
        None => {
            println!("{card}");
            Ok(())
        }
    }
}

fn arguments() -> Result<(Recipe, Option<PathBuf>)> {
    let (mut recipe, mut out) = (Recipe::tiny_world(), None);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--out" => out = Some(PathBuf::from(value)),
            "--site" => recipe.site = value.parse()?,
            "--k" => recipe.training.k = value.parse()?,
            "--latents" => recipe.training.d_sae = value.parse()?,
            "--steps" => recipe.training.steps = value.parse()?,
            "--rate" => recipe.training.rate = value.parse()?,
            "--rows" => recipe.rows = value.parse()?,
            "--seed" => (recipe.seed, recipe.training.seed) = (value.parse()?, value.parse()?),
            other => bail!(
                "unknown argument {other}: expected --out, --site, --k, --latents, --steps, --rate, --rows or --seed"
            ),
        }
    }
    Ok((recipe, out))
}
