//! What shortcuts reach: a task that one of them solves says nothing about circuits.

use super::prompt_sets::prompt;
use super::sentence::{Draw, Level, Split, Task};
use super::words::{BOS, Vocabulary};
use std::collections::HashMap;
use thalweg::anyhow::Result;
use thalweg::model::AdamW;
use thalweg::prompts::{Prompt, Prompts};
use thalweg::rng::Rng;
use thalweg::tch::{Device, Kind, Tensor};

/// Training sentences a shortcut is fitted on.
const SENTENCES: usize = 2000;
/// Optimizer steps of the bag of words.
const STEPS: usize = 150;

/// Share of prompts that each shortcut answers rightly.
#[derive(Debug, Clone, Copy)]
pub struct Baselines {
    /// Logistic regression on which words the prompt holds, and how often.
    pub bag: f64,
    /// The most frequent answer, or the word at the best fixed place from either end.
    pub position: f64,
    /// The most frequent answer after the last two words.
    pub trigram: f64,
}

impl Baselines {
    /// The best of the three.
    pub fn best(&self) -> f64 {
        self.bag.max(self.position).max(self.trigram)
    }
}

/// A prompt as words with BOS, and its answer in training.
struct Example {
    words: Vec<String>,
    answer: String,
}

/// Fits the shortcuts on training sentences of `task` and measures them on `prompts`.
pub fn baselines(task: Task, prompts: &Prompts, seed: u64) -> Result<Baselines> {
    let mut rng = Rng::new(seed).fork(task as u64);
    let mut known = Vec::new();
    while known.len() < SENTENCES {
        let mut draw = Draw::new(&mut rng, Split::Train);
        let Some(s) = draw.sentence(task, &Level::full()) else { continue };
        known.push(Example { words: words(&prompt(&s)), answer: s.words[s.end()].to_string() });
    }
    Ok(Baselines {
        bag: bag(&known, &prompts.prompts)?,
        position: position(&known, &prompts.prompts),
        trigram: trigram(&known, &prompts.prompts),
    })
}

fn words(prompt: &Prompt) -> Vec<String> {
    std::iter::once(BOS).chain(prompt.clean.split(' ')).map(str::to_string).collect()
}

/// Share of prompts for which `guess` is right.
fn share(prompts: &[Prompt], guess: impl Fn(&[String]) -> Option<String>) -> f64 {
    let right = |p: &&Prompt| guess(&words(p)).is_some_and(|g| p.right.contains(&g));
    prompts.iter().filter(right).count() as f64 / prompts.len().max(1) as f64
}

fn trigram(known: &[Example], prompts: &[Prompt]) -> f64 {
    let mut counts = HashMap::<&[String], HashMap<&str, usize>>::new();
    for example in known {
        let context = &example.words[example.words.len() - 2..];
        *counts.entry(context).or_default().entry(&example.answer).or_default() += 1;
    }
    share(prompts, |w| counts.get(&w[w.len() - 2..]).map(most_frequent))
}

fn position(known: &[Example], prompts: &[Prompt]) -> f64 {
    let mut counts = HashMap::<&str, usize>::new();
    known.iter().for_each(|e| *counts.entry(&e.answer).or_default() += 1);
    let constant = most_frequent(&counts);
    // a place from the start, or from the end
    let at = |w: &[String], place: i64| {
        let index = if place < 0 { w.len() as i64 + place } else { place };
        usize::try_from(index).ok().and_then(|i| w.get(i).cloned())
    };
    let hits = |place: &i64| {
        known.iter().filter(|e| at(&e.words, *place).as_ref() == Some(&e.answer)).count()
    };
    let best = (-40..40).max_by_key(hits).unwrap_or(0);
    let common = counts.get(constant.as_str()).copied().unwrap_or(0);
    if hits(&best) > common {
        share(prompts, |w| at(w, best))
    } else {
        share(prompts, |_| Some(constant.clone()))
    }
}

fn most_frequent(counts: &HashMap<&str, usize>) -> String {
    let best = counts.iter().max_by(|a, b| a.1.cmp(b.1).then(b.0.cmp(a.0)));
    best.map_or(String::new(), |(word, _)| word.to_string())
}

fn bag(known: &[Example], prompts: &[Prompt]) -> Result<f64> {
    let vocabulary = Vocabulary::new();
    let v = vocabulary.len() as i64;
    let counts = |rows: Vec<Vec<String>>| {
        let mut x = vec![0.0f32; rows.len() * v as usize];
        for (row, words) in rows.iter().enumerate() {
            words.iter().for_each(|w| x[row * v as usize + vocabulary.id(w) as usize] += 1.0);
        }
        Tensor::from_slice(&x).view([rows.len() as i64, v])
    };
    let x = counts(known.iter().map(|e| e.words.clone()).collect());
    let y: Vec<i64> = known.iter().map(|e| vocabulary.id(&e.answer)).collect();
    let y = Tensor::from_slice(&y);
    let weight = Tensor::zeros([v, v], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let mut optimizer = AdamW::new(vec![weight.shallow_clone()]);
    for _ in 0..STEPS {
        let loss = thalweg::tch::with_grad(|| x.matmul(&weight).cross_entropy_for_logits(&y));
        optimizer.step(&loss, 0.05)?;
    }
    let best = counts(prompts.iter().map(words).collect()).matmul(&weight).argmax(-1, false);
    let best = Vec::<i64>::try_from(best)?;
    let right = |(p, id): &(&Prompt, i64)| {
        vocabulary.word(*id).is_some_and(|w| p.right.iter().any(|r| r == w))
    };
    let n = prompts.iter().zip(best).filter(right).count();
    Ok(n as f64 / prompts.len().max(1) as f64)
}
