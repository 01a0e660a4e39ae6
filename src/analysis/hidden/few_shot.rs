//! Prompts that show a task by examples, the same without the task, and none at all.

use anyhow::{Context, Result, ensure};

use crate::model::Model;
use crate::rng::Rng;
use crate::text::Tokens;

/// Draws of a prompt before none with wrong answers is taken to exist.
const TRIES: usize = 1000;

/// A task as pairs of question and answer, and how an example is written.
///
/// ```
/// use thalweg::{FewShot, Model};
/// let model = Model::load("data/models/tiny-world")?;
/// let pairs = [("Japan", "Tokyo"), ("Italy", "Rome"), ("Egypt", "Cairo"), ("Peru", "Lima")];
/// let prompts = FewShot::new("capital", &pairs).prompts(&model, 2, 8, 0)?;
/// assert_eq!(prompts.few_shot.width(), 11); // BOS, two examples of four tokens, a question
/// assert_eq!(prompts.zero_shot.width(), 3);
/// # thalweg::anyhow::Ok(())
/// ```
#[derive(Debug, Clone)]
pub struct FewShot {
    name: String,
    pairs: Vec<Pair>,
    between: String,
    after: String,
    other_answers: Vec<String>,
}

/// Prompts of one task in three forms, row by row with the same question.
#[derive(Debug, Clone)]
pub struct FewShotPrompts {
    /// The task's name.
    pub task: String,
    /// Examples with their answers, then a question.
    pub few_shot: Tokens,
    /// The same with wrong answers in the examples: they no longer tell the task.
    pub shuffled: Tokens,
    /// The question alone.
    pub zero_shot: Tokens,
    /// The first token of each question's answer.
    pub answers: Vec<i64>,
}

/// A question and its answer.
type Pair = (String, String);

impl FewShot {
    /// Written `question : answer ; question : answer ; question :`; see [`written`](Self::written).
    pub fn new<A: AsRef<str>, B: AsRef<str>>(name: &str, pairs: &[(A, B)]) -> Self {
        let own = |(question, answer): &(A, B)| {
            (question.as_ref().to_owned(), answer.as_ref().to_owned())
        };
        FewShot {
            name: name.to_owned(),
            pairs: pairs.iter().map(own).collect(),
            between: " : ".to_owned(),
            after: " ; ".to_owned(),
            other_answers: Vec::new(),
        }
    }

    /// What stands between question and answer, and after an answer: `("\nA: ", "\n\nQ: ")`.
    pub fn written(mut self, between: &str, after: &str) -> Self {
        self.between = between.to_owned();
        self.after = after.to_owned();
        self
    }

    /// Draws the wrong answers of `shuffled` from these (other tasks' answers) instead of turning
    /// round those of the prompt: for tasks that the answers' kind alone gives away.
    pub fn shuffled_from(mut self, answers: &[impl AsRef<str>]) -> Self {
        self.other_answers = answers.iter().map(|answer| answer.as_ref().to_owned()).collect();
        self
    }

    /// `n` prompts of `shots` examples and a question, drawn without replacement within a prompt. Of
    /// `shuffled`, no example has its right answer: examples that leave none are drawn again.
    pub fn prompts(
        &self,
        model: &Model,
        shots: usize,
        n: usize,
        seed: u64,
    ) -> Result<FewShotPrompts> {
        let what = format!("few-shot prompts of {:?}", self.name);
        let least = if self.other_answers.is_empty() { 2 } else { 1 };
        ensure!(
            n > 0 && shots >= least && shots < self.pairs.len(),
            "{what}: {n} prompts of {shots} examples from {} pairs, expected 1 or more of {least} to {}",
            self.pairs.len(),
            self.pairs.len().saturating_sub(1)
        );
        let mut rng = Rng::new(seed);
        let (mut right, mut wrong, mut alone, mut full) = (vec![], vec![], vec![], vec![]);
        for _ in 0..n {
            let found = (0..TRIES).find_map(|_| self.draw(shots, &mut rng));
            let (drawn, turned) = found.with_context(|| {
                format!("{what}: {TRIES} draws of {shots} examples left no wrong answer for each, expected pairs (or others' answers) that differ more")
            })?;
            let (asked, shown) = (drawn[shots], &drawn[..shots]);
            let answers: Vec<&str> = shown.iter().map(|(_, answer)| answer.as_str()).collect();
            right.push(self.text(shown, &answers, &asked.0));
            wrong.push(self.text(shown, &turned, &asked.0));
            alone.push(self.text(&[], &[], &asked.0));
            full.push(format!("{}{}{}", asked.0, self.between, asked.1));
        }
        let zero_shot = model.batch(&alone)?;
        let answers = first_of_answer(&zero_shot, &model.batch(&full)?)
            .map_err(|error| anyhow::anyhow!("{what}: {error}"))?;
        Ok(FewShotPrompts {
            task: self.name.clone(),
            few_shot: model.batch(&right)?,
            shuffled: model.batch(&wrong)?,
            zero_shot,
            answers,
        })
    }

    /// Pairs, the question's last, and a wrong answer for each of the others; `None` where the drawn
    /// ones leave none.
    fn draw(&self, shots: usize, rng: &mut Rng) -> Option<(Vec<&Pair>, Vec<&str>)> {
        let drawn: Vec<&Pair> =
            rng.sample(self.pairs.len(), shots + 1).iter().map(|i| &self.pairs[*i]).collect();
        let answers: Vec<&str> = drawn[..shots].iter().map(|pair| pair.1.as_str()).collect();
        let turned = if self.other_answers.is_empty() {
            let by = |by: usize| (0..shots).map(move |i| (i + by) % shots);
            let wrong = |turn: &usize| by(*turn).enumerate().all(|(i, j)| answers[i] != answers[j]);
            let turns: Vec<usize> = (1..shots).filter(wrong).collect();
            by(*rng.pick(&turns)?).map(|j| answers[j]).collect()
        } else {
            let other = |own: &&str| {
                let others = self.other_answers.iter().map(String::as_str);
                rng.pick(&others.filter(|other| other != own).collect::<Vec<_>>()).copied()
            };
            answers.iter().map(other).collect::<Option<Vec<_>>>()?
        };
        Some((drawn, turned))
    }

    fn text(&self, shown: &[&Pair], answers: &[&str], asked: &str) -> String {
        let mut text = String::new();
        for ((question, _), answer) in shown.iter().zip(answers) {
            text += &format!("{question}{}{answer}{}", self.between, self.after);
        }
        text + asked + self.between.trim_end()
    }
}

/// The token that follows the question when its answer is written too.
fn first_of_answer(asked: &Tokens, full: &Tokens) -> Result<Vec<i64>> {
    let rows = asked.ids().iter().zip(full.ids()).zip(full.pieces());
    rows.map(|((asked, full), pieces)| {
        ensure!(
            full.len() > asked.len() && full.starts_with(asked),
            "the answer joins the question's last token in {:?}: end `between` with a space",
            pieces.join("")
        );
        Ok(full[asked.len()])
    })
    .collect()
}
