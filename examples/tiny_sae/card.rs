//! The card beside the weights: recipe, scores, what latents tell apart, the control.

use super::Recipe;
use super::contrast::{Contrast, Found};
use super::data::{activations, rows};
use crate::tiny_world::sentence::Split;
use std::fmt::Write;
use std::time::Instant;
use thalweg::anyhow::Result;
use thalweg::prompts::Prompts;
use thalweg::{Model, Sae, SaeScores};

/// Tasks whose prompts end in one of two words, and these.
pub const TASKS: [(&str, [&str; 2]); 3] =
    [("agree", ["is", "are"]), ("sentiment", ["loved", "hated"]), ("pronoun", ["she", "he"])];
/// A latent tells two kinds apart if it does so for this share of prompts.
pub const TELLS: f64 = 0.95;
/// Latents drawn at random beside one that tells.
pub const DRAWS: usize = 20;

/// A model and the autoencoder trained on it.
pub struct Subject {
    /// The model.
    pub model: Model,
    /// The autoencoder.
    pub sae: Sae,
    /// Its scores on rows it was not trained on.
    pub scores: SaeScores,
    /// Seconds of training.
    pub seconds: u64,
}

impl Subject {
    /// Trains by the recipe.
    pub fn train(model: &Model, recipe: &Recipe) -> Result<Self> {
        let train = rows(recipe.rows, Split::Train, recipe.seed)?;
        let x = activations(model, &train, recipe.site)?;
        let start = Instant::now();
        let (sae, _) = recipe.training.train(recipe.site, &x)?;
        let seconds = start.elapsed().as_secs();
        let test = rows(recipe.test_rows, Split::Test, recipe.seed + 1)?;
        let scores = sae.scores(model, &test)?;
        Ok(Subject { model: model.clone(), sae, scores, seconds })
    }
}

/// What the best latent of one task does, measured on prompts that did not choose it.
#[derive(Debug, Clone)]
pub struct Effect {
    /// The latent, its accuracy on the prompts that chose it.
    pub found: Found,
    /// Its accuracy on the others.
    pub held: f64,
    /// Latents that tell the kinds apart on the prompts that chose.
    pub tell: usize,
    /// Mean fall of the logit difference where it is on when it is turned off, in nats.
    pub fall: f64,
    /// The same for latents drawn at random among those on at the same prompts, each where it is on.
    pub random: Vec<f64>,
}

/// Of the latents that tell the kinds apart (or the best, if none does), the one whose ablation costs
/// most on the even prompts; measured on the odd ones.
pub fn effect(model: &Model, sae: &Sae, contrast: &Contrast, seed: u64) -> Result<Effect> {
    let (choose, test) = (contrast.half(0)?, contrast.half(1)?);
    let ranking = choose.ranking(model, sae)?;
    let tell = ranking.iter().filter(|f| f.accuracy >= TELLS).count();
    let mut best: Option<(f64, Found)> = None;
    for found in &ranking[..tell.max(1)] {
        let on = choose.on(model, sae, found.latent)?;
        let fall = choose.effect(model, sae, &[found.latent], &on)?;
        if best.is_none_or(|(other, _)| fall > other) {
            best = Some((fall, *found));
        }
    }
    let found = best.map_or(ranking[0], |(_, found)| found);
    let held = test.accuracy(model, sae, found)?;
    let on = test.on(model, sae, found.latent)?;
    let fall = test.effect(model, sae, &[found.latent], &on)?;
    let random = test.random_effects(model, sae, found.latent, &on, DRAWS, seed)?;
    Ok(Effect { found, held, tell, fall, random })
}

/// All that the card says.
pub struct Card {
    /// How both were made.
    pub recipe: Recipe,
    /// What is shipped.
    pub own: Subject,
    /// On the model with shuffled weights.
    pub control: Subject,
}

impl Card {
    /// The card, in Markdown.
    pub fn text(&self) -> Result<String> {
        let Recipe { site, training, rows, test_rows, seed } = &self.recipe;
        let (d_sae, k) = (training.d_sae, training.k);
        let mut text = format!(
            "# tiny-world-sae\n\nA TopK sparse autoencoder (Gao et al. 2024, <https://arxiv.org/abs/2406.04093>) of `{site}` of tiny-world: \
             {} entries, {d_sae} latents, {k} of them on at once, f32, in SAELens' format. Made by `examples/train_sae.rs` with seed {seed}: \
             {} steps of {} vectors from {rows} rows of 64 tokens of tiny-world's language (its training mixture, each row's first token left out), \
             {} s on two shared cores. Scored on {test_rows} rows of another seed, held-out combinations among them. Licence: MIT OR Apache-2.0.\n\n",
            self.own.sae.d_in(),
            training.steps,
            training.batch,
            self.own.seconds
        );
        text += "## Scores\n\nLoss in nats a token with the reconstruction alone in the stream's place (no error term); recovered: \
                 0 as bad as zero (or the mean) in its place, 1 nothing lost. Control: the same recipe on the model with each weight tensor shuffled; \
                 that model predicts nothing (chance is 5.90), so that only its L0, FVU and dead share mean something.\n\n";
        text += "| | L0 | FVU | dead | loss | spliced | zero | mean | recovered (zero) | recovered (mean) |\n|---|---|---|---|---|---|---|---|---|---|\n";
        for (name, subject) in [("tiny-world", &self.own), ("shuffled weights", &self.control)] {
            let s = &subject.scores;
            writeln!(
                text,
                "| {name} | {:.2} | {:.4} | {:.1} % | {:.3} | {:.3} | {:.3} | {:.3} | {:.4} | {:.4} |",
                s.l0,
                s.fvu,
                100.0 * s.dead,
                s.loss_clean,
                s.loss_spliced,
                s.loss_zero,
                s.loss_mean,
                s.loss_recovered,
                s.loss_recovered_mean
            )?;
        }
        write!(
            text,
            "\n## What latents tell apart\n\nAt the last token of prompts that end in one of two words: a latent tells them apart if it is on before \
             one word and off before the other. Latents are chosen on every other prompt and measured on the rest. Cost: mean fall in nats of the logit \
             difference, right less wrong, where the latent is on, when it is turned off there with the error term kept. Beside it {DRAWS} latents drawn at \
             random among those on at the same tokens.\n\n\
             | model | task | words | latents that tell {:.0} % | latent | right on the rest | cost | random: mean (least to most) |\n|---|---|---|---|---|---|---|---|\n",
            100.0 * TELLS
        )?;
        for (name, subject) in [("tiny-world", &self.own), ("shuffled", &self.control)] {
            for (task, words) in TASKS {
                let set = Prompts::load(format!("data/prompts/{task}.json"))?;
                let contrast = Contrast::new(&subject.model, &set, words)?;
                let e = effect(&subject.model, &subject.sae, &contrast, *seed)?;
                let word = words[usize::from(!e.found.first)];
                let mean = e.random.iter().sum::<f64>() / e.random.len().max(1) as f64;
                let least = e.random.iter().copied().fold(f64::INFINITY, f64::min);
                let most = e.random.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                writeln!(
                    text,
                    "| {name} | {task} | {} or {} | {} | {} (\"{word}\") | {:.3} | {:+.2} | {mean:+.2} ({least:+.2} to {most:+.2}) |",
                    words[0], words[1], e.tell, e.found.latent, e.held, e.fall
                )?;
            }
        }
        Ok(text)
    }
}
