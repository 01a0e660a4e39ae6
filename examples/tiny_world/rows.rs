//! Packing: sentences into rows of equal length, with the task of every scored token.

use super::sentence::{Draw, Level, Split, Task};
use super::words::{BOS, Vocabulary};
use thalweg::rng::Rng;

/// One row of tokens. `task[i]` belongs to `ids[i]`, the token to be predicted from those before.
#[derive(Debug, Clone)]
pub struct Row {
    /// Token ids; the first is BOS.
    pub ids: Vec<i64>,
    /// The [`Task`] as a number where a token is scored, else [`OTHER`].
    pub task: Vec<usize>,
}

/// How often tasks are drawn before anything is known: the root of the weights, for the loss is a
/// mean over each task's answers, and a rare task needs enough of them for a quiet mean.
pub fn evenly() -> [f64; 9] {
    Task::ALL.map(|t| t.weight().sqrt())
}

/// Marks a token that is no answer.
pub const OTHER: usize = Task::ALL.len();

/// What rows are made of.
#[derive(Debug, Clone)]
pub struct Mixture {
    /// Tokens in a row, BOS included.
    pub length: usize,
    /// Share of rows that start with a `repeat`.
    pub repeats: f64,
    /// Share of rows that start with a `recall` instead.
    pub recalls: f64,
    /// How often each task but `repeat` is drawn, by its number; `repeat` starts rows only.
    pub tasks: [f64; 9],
    /// How hard.
    pub level: Level,
    /// Train or test.
    pub split: Split,
}

/// One row: BOS, perhaps a `repeat`, then other sentences until the row is full; the last may be
/// cut. No name, object or country is said in two sentences, so no answer can be copied from an
/// earlier one.
pub fn row(rng: &mut Rng, mixture: &Mixture, vocabulary: &Vocabulary) -> Row {
    let mut row = Row { ids: vec![vocabulary.id(BOS)], task: vec![OTHER] };
    let mut draw = Draw::new(rng, mixture.split);
    let mut next = draw.rng.chance(mixture.repeats).then_some(Task::Repeat);
    if mixture.recalls > 0.0 && next.is_none() {
        next = draw.rng.chance(mixture.recalls / (1.0 - mixture.repeats)).then_some(Task::Recall);
    }
    while row.ids.len() < mixture.length {
        let task =
            next.take().unwrap_or_else(|| Task::ALL[1 + draw.rng.weighted(&mixture.tasks[1..])]);
        let Some(sentence) = draw.sentence(task, &mixture.level) else { continue };
        let start = row.task.len();
        row.ids.extend(sentence.words.iter().map(|w| vocabulary.id(w)));
        row.task.resize(row.ids.len(), OTHER);
        for at in sentence.scored {
            row.task[start + at] = task as usize;
        }
    }
    row.ids.truncate(mixture.length);
    row.task.truncate(mixture.length);
    row
}
