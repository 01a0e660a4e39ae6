//! Which latent tells two kinds of prompt apart at the last token, and what its ablation does.

use thalweg::anyhow::{Context, Result, ensure};
use thalweg::prompts::Prompts;
use thalweg::rng::Rng;
use thalweg::tch::{Kind, Tensor};
use thalweg::{Metric, Model, Plan, Position, Sae, Tokens};

/// Prompts that end in one of two answers, as tokens, and which of the two is right.
pub struct Contrast {
    /// The prompts.
    pub tokens: Tokens,
    /// Whether the first of the two answers is the right one.
    pub first: Vec<bool>,
    /// Ids of the two answers.
    pub answers: [i64; 2],
}

/// A latent and how well it tells the two kinds apart.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// The latent.
    pub latent: usize,
    /// Whether it is on where the first answer is right.
    pub first: bool,
    /// Share of prompts told apart rightly: on for one kind, off for the other; the mean of both kinds'.
    pub accuracy: f64,
}

impl Contrast {
    /// The prompts of a set whose right answer is one of two words.
    pub fn new(model: &Model, set: &Prompts, words: [&str; 2]) -> Result<Self> {
        let set = set.filter(|p| p.right.len() == 1 && words.contains(&p.right[0].as_str()));
        ensure!(!set.is_empty(), "no prompt of {} is answered by {words:?}", set.task);
        let first = set.prompts.iter().map(|p| p.right[0] == words[0]).collect();
        let answers = [model.token(words[0])?, model.token(words[1])?];
        Ok(Contrast { tokens: model.batch(&set.clean())?, first, answers })
    }

    /// Every other prompt, beginning with the first or the second.
    pub fn half(&self, start: usize) -> Result<Self> {
        let rows: Vec<usize> = (start..self.first.len()).step_by(2).collect();
        let first = rows.iter().map(|row| self.first[*row]).collect();
        Ok(Contrast { tokens: self.tokens.rows(&rows)?, first, answers: self.answers })
    }

    /// The latents at the last token, `[Batch, d_sae]`.
    pub fn latents(&self, model: &Model, sae: &Sae) -> Result<Tensor> {
        let x = model.run(&self.tokens, &Plan::new().cache(sae.site))?.cache.get(sae.site)?;
        sae.encode(&x.select(1, -1)) // padding is on the left
    }

    /// How well each latent tells the kinds apart by being on at the last token, the best first.
    pub fn ranking(&self, model: &Model, sae: &Sae) -> Result<Vec<Found>> {
        let on = self.latents(model, sae)?.gt(0.0).to_kind(Kind::Double);
        let kind = Tensor::from_slice(&self.first).to_kind(Kind::Double).unsqueeze(1);
        let share = |kind: &Tensor| {
            let on = (&on * kind).sum_dim_intlist([0i64].as_slice(), false, None);
            on / kind.sum(None)
        };
        let difference = share(&kind) - share(&(1.0 - &kind));
        let list = Vec::<f64>::try_from(&difference)?;
        let mut found: Vec<Found> = list
            .iter()
            .enumerate()
            .map(|(latent, d)| Found { latent, first: *d > 0.0, accuracy: 0.5 + d.abs() / 2.0 })
            .collect();
        found.sort_by(|a, b| b.accuracy.total_cmp(&a.accuracy));
        Ok(found)
    }

    /// Accuracy of one latent, as in [`ranking`](Self::ranking), with its direction given.
    pub fn accuracy(&self, model: &Model, sae: &Sae, found: Found) -> Result<f64> {
        let list = self.ranking(model, sae)?;
        let own = list.iter().find(|f| f.latent == found.latent).context("no such latent")?;
        Ok(if own.first == found.first { own.accuracy } else { 1.0 - own.accuracy })
    }

    /// Mean fall of the logit difference right - wrong over the prompts at which the latent is on
    /// (all, if it is on nowhere), when latents are turned off at the last token, in nats.
    pub fn effect(
        &self,
        model: &Model,
        sae: &Sae,
        latents: &[usize],
        rows: &[usize],
    ) -> Result<f64> {
        let tokens = self.tokens.rows(rows)?;
        let side = |row: &usize, right: bool| self.answers[usize::from(self.first[*row] != right)];
        let [right, wrong] =
            [true, false].map(|r| rows.iter().map(|row| side(row, r)).collect::<Vec<_>>());
        let metric = Metric::logit_diff(right, wrong);
        let splice = latents.iter().fold(sae.splice().pos(Position::Last), |s, l| s.zero(*l));
        let plain = metric.of(&model.logits(&tokens)?, &tokens)?;
        let edited = model.run(&tokens, &splice.plan(Plan::new())?)?.logits;
        Ok((plain - metric.of(&edited, &tokens)?).mean(Kind::Double).double_value(&[]))
    }

    /// Prompts at which a latent is on at the last token.
    pub fn on(&self, model: &Model, sae: &Sae, latent: usize) -> Result<Vec<usize>> {
        let on = self.latents(model, sae)?.select(1, latent as i64).gt(0.0);
        let on = Vec::<bool>::try_from(on)?;
        Ok((0..on.len()).filter(|row| on[*row]).collect())
    }

    /// The effects of turning off another latent that is on at those prompts, drawn at random: one
    /// number a draw, in nats.
    pub fn random_effects(
        &self,
        model: &Model,
        sae: &Sae,
        but: usize,
        rows: &[usize],
        draws: usize,
        seed: u64,
    ) -> Result<Vec<f64>> {
        let mut rng = Rng::new(seed);
        let latents = self.latents(model, sae)?;
        let mut each = Vec::new();
        for _ in 0..draws {
            // In each draw, one other latent that is on at some of the rows.
            let row = rows[rng.below(rows.len())];
            let on =
                Vec::<i64>::try_from(latents.get(row as i64).gt(0.0).nonzero().squeeze_dim(1))?;
            let others: Vec<i64> = on.into_iter().filter(|l| *l != but as i64).collect();
            let Some(latent) = rng.pick(&others) else { continue };
            let own = self.on(model, sae, *latent as usize)?;
            each.push(self.effect(model, sae, &[*latent as usize], &own)?);
        }
        Ok(each)
    }
}
