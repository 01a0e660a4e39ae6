//! A sentence with the words to be predicted in it, and what tasks draw their words with.

use super::{facts, lists, stories};
use std::collections::HashSet;
use std::ops::RangeInclusive;
use thalweg::rng::Rng;

/// The nine tasks of the mixture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Task {
    /// A block of distinct items, said again: the next item follows from the first copy.
    Repeat,
    /// Who has what, asked after several statements.
    Recall,
    /// Indirect object identification (Wang et al. 2022).
    Ioi,
    /// Capitals and continents, stored in the weights.
    Fact,
    /// A relation shown by examples, to be continued.
    Icl,
    /// A war ends after it begins (Hanna et al. 2023).
    Greater,
    /// A verb agrees with its subject, not with the noun beside it.
    Agree,
    /// She or he, by the name.
    Pronoun,
    /// Loved what was great, hated what was not.
    Sentiment,
}

impl Task {
    /// In the order of their discriminants.
    pub const ALL: [Task; 9] = [
        Task::Repeat,
        Task::Recall,
        Task::Ioi,
        Task::Fact,
        Task::Icl,
        Task::Greater,
        Task::Agree,
        Task::Pronoun,
        Task::Sentiment,
    ];

    /// Its name in logs and prompt sets.
    pub fn name(self) -> &'static str {
        ["repeat", "recall", "ioi", "fact", "icl", "greater", "agree", "pronoun", "sentiment"]
            [self as usize]
    }

    /// Share of the loss before it is adjusted to what the model can do already; sums to 1.
    pub fn weight(self) -> f64 {
        [0.26, 0.20, 0.13, 0.10, 0.11, 0.09, 0.05, 0.02, 0.04][self as usize]
    }
}

/// Which sentences may be drawn: those trained on, or those for testing, which hold what training
/// never sees wherever a task holds something out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Nothing that is held out.
    Train,
    /// Held-out combinations, beside fresh ones where a task holds out only a part.
    Test,
}

/// How hard the tasks with a curriculum are.
#[derive(Debug, Clone)]
pub struct Level {
    /// Items in a repeated block.
    pub block: RangeInclusive<usize>,
    /// Items before the first copy.
    pub prefix: RangeInclusive<usize>,
    /// Copies of the block.
    pub copies: RangeInclusive<usize>,
    /// Most filler items between copies.
    pub gap: usize,
    /// Most statements before a `recall` question (at least 2).
    pub recall: usize,
    /// Symbols that `repeat` draws from; with more than there are, a quarter of the blocks are made
    /// of words that also mean something.
    pub symbols: usize,
    /// Share of `recall` sentences that end in a statement instead of a question; of several
    /// questions in a row, the share of short ones.
    pub statement: f64,
    /// Share of `recall` questions that ask `Who`.
    pub who: f64,
    /// Most questions in a row after the statements of a `recall` sentence.
    pub questions: usize,
}

impl Level {
    /// The whole mixture as it is tested.
    pub fn full() -> Self {
        Level {
            block: 4..=16,
            prefix: 0..=10,
            copies: 2..=3,
            gap: 3,
            recall: 5,
            symbols: usize::MAX,
            statement: 0.0,
            who: 0.5,
            questions: 1,
        }
    }

    /// The first stage: repeats of the first so many symbols.
    pub fn first(symbols: usize) -> Self {
        Level { block: 6..=12, prefix: 0..=1, gap: 1, recall: 2, symbols, ..Level::full() }
    }
}

/// One sentence, ready to be packed into a row or cut before its answer into a prompt.
#[derive(Debug, Clone)]
pub struct Sentence {
    /// Its task.
    pub task: Task,
    /// Which kind of sentence within the task: accuracies are reported by it.
    pub cell: String,
    /// Whether training never shows this combination.
    pub held_out: bool,
    /// All words.
    pub words: Vec<&'static str>,
    /// Indices of the words the model is to predict, in order; the last is the answer of a prompt.
    pub scored: Vec<usize>,
    /// Named places: index of the word.
    pub roles: Vec<(&'static str, usize)>,
    /// What may stand at the last scored place.
    pub right: Vec<&'static str>,
    /// Tempting wrong answers for that place.
    pub wrong: Vec<&'static str>,
}

impl Sentence {
    /// An empty sentence to be spoken word by word.
    pub fn new(task: Task) -> Self {
        Sentence {
            task,
            cell: String::new(),
            held_out: false,
            words: Vec::new(),
            scored: Vec::new(),
            roles: Vec::new(),
            right: Vec::new(),
            wrong: Vec::new(),
        }
    }

    /// Append the words of `text`.
    pub fn say(&mut self, text: &'static str) -> &mut Self {
        self.words.extend(text.split_whitespace());
        self
    }

    /// Append one word and name its place.
    pub fn role(&mut self, name: &'static str, word: &'static str) -> &mut Self {
        self.roles.push((name, self.words.len()));
        self.say(word)
    }

    /// Append a word the model is to predict; it becomes the answer.
    pub fn answer(&mut self, word: &'static str, wrong: &[&'static str]) -> &mut Self {
        self.scored.push(self.words.len());
        self.right = vec![word];
        self.wrong = wrong.to_vec();
        self.say(word)
    }

    /// Index of the last scored word: a prompt ends before it.
    pub fn end(&self) -> usize {
        self.scored.last().copied().unwrap_or(self.words.len())
    }

    /// The words before the answer, as text.
    pub fn prompt(&self) -> String {
        self.words[..self.end()].join(" ")
    }
}

/// Draws words for the sentences of one row, none twice.
#[derive(Debug)]
pub struct Draw<'a> {
    /// Where the numbers come from.
    pub rng: &'a mut Rng,
    /// Names, objects, countries, capitals and nouns already in this row.
    pub used: HashSet<&'static str>,
    /// Train or test.
    pub split: Split,
}

impl<'a> Draw<'a> {
    /// For a new row.
    pub fn new(rng: &'a mut Rng, split: Split) -> Self {
        Draw { rng, used: HashSet::new(), split }
    }

    /// `n` different words of `class` that the row does not hold yet, or `None` if too few are left.
    pub fn fresh(&mut self, class: &[&'static str], n: usize) -> Option<Vec<&'static str>> {
        let mut left: Vec<_> = class.iter().copied().filter(|w| !self.used.contains(w)).collect();
        if left.len() < n {
            return None;
        }
        for i in 0..n {
            let j = self.rng.range(i..left.len());
            left.swap(i, j);
        }
        left.truncate(n);
        self.used.extend(&left);
        Some(left)
    }

    /// One word of a class that may be said again. The class must not be empty.
    pub fn any(&mut self, class: &[&'static str]) -> &'static str {
        class[self.rng.below(class.len())]
    }

    /// One sentence of `task`, or `None` if this row has no words left for it.
    pub fn sentence(&mut self, task: Task, level: &Level) -> Option<Sentence> {
        match task {
            Task::Repeat => lists::repeat(self, level),
            Task::Recall => lists::recall(self, level),
            Task::Icl => lists::icl(self),
            Task::Fact => facts::fact(self),
            Task::Greater => facts::greater(self),
            Task::Ioi => stories::ioi(self),
            Task::Agree => stories::agree(self),
            Task::Pronoun => stories::pronoun(self),
            Task::Sentiment => stories::sentiment(self),
        }
    }
}
