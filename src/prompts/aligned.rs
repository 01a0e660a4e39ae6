//! The proof that the prompts of a set can be compared token by token.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow, bail, ensure};

use super::{Prompt, Prompts};
use crate::hook::metric::Answers;
use crate::text::Tokens;

/// What turns text into tokens: a [`Model`](crate::Model), or a tokenizer of one's own.
pub trait Encode {
    /// Prompts as tokens, with BOS where the tokenizer adds one.
    fn encode(&self, texts: &[&str]) -> Result<Tokens>;
    /// The id of `text` as exactly one token, or an error that names the pieces it splits into.
    fn one_token(&self, text: &str) -> Result<i64>;
}

/// A prompt set as tokens, all rows equally long, roles at equal places.
#[derive(Debug, Clone)]
pub struct Aligned {
    /// The clean prompts; their roles are known by name, as in `.pos("S2")`.
    pub clean: Tokens,
    /// The corrupted prompts by the corruption's name: those that every prompt has.
    pub corrupt: BTreeMap<String, Tokens>,
    /// The right answers of each row.
    pub right: Answers,
    /// The wrong answers of each row. A row without any is an error when a metric asks for it.
    pub wrong: Answers,
    /// Named places: first token and one past the last, the same in every row.
    pub roles: BTreeMap<String, [usize; 2]>,
}

impl Aligned {
    /// Tokens in a row.
    pub fn length(&self) -> usize {
        self.clean.width()
    }

    /// The last token of a role, the same in every row.
    pub fn position(&self, role: &str) -> Result<usize> {
        match self.roles.get(role) {
            Some([_, end]) => Ok(end - 1),
            None => bail!(
                "this set has no role `{role}`; {}",
                super::one_of("it has", self.roles.keys())
            ),
        }
    }

    /// The prompts under the corruption of this name.
    pub fn corrupted(&self, name: &str) -> Result<&Tokens> {
        match self.corrupt.get(name) {
            Some(tokens) => Ok(tokens),
            None => bail!(
                "this set has no corruption `{name}` of every prompt; {}",
                super::one_of("it has", self.corrupt.keys())
            ),
        }
    }
}

impl Prompts {
    /// Proves that clean prompts and corruptions are equally long, that every role stands at the
    /// same place in each, and that every answer is one token; the error says which prompts differ
    /// where, and what to change.
    pub fn aligned(&self, tokenizer: &impl Encode) -> Result<Aligned> {
        let Some(first) = self.prompts.first() else {
            bail!("the prompt set `{}` is empty: nothing to align", self.task)
        };
        let clean = self.encode(tokenizer, |p| &p.clean)?;
        self.same_length(clean.ids())?;
        self.same_roles(first, clean.width())?;
        let mut corrupt = BTreeMap::new();
        for name in first.corrupt.keys() {
            if self.prompts.iter().all(|p| p.corrupt.contains_key(name)) {
                let rows = self.encode(tokenizer, |p| &p.corrupt[name])?;
                self.same_as_clean(name, clean.ids(), rows.ids())?;
                corrupt.insert(name.clone(), self.with_roles(rows, first)?);
            }
        }
        let (right, wrong) = (self.right(tokenizer)?, self.wrong(tokenizer)?);
        let clean = self.with_roles(clean, first)?;
        Ok(Aligned { clean, corrupt, right, wrong, roles: first.roles.clone() })
    }

    /// The right answers of each prompt as ids, whatever the prompts' lengths: what a metric takes. An
    /// error if one of them is not a single token.
    ///
    /// ```no_run
    /// # use thalweg::prelude::*;
    /// let model = Model::load("data/models/tiny-world")?;
    /// let set = Prompts::load("data/prompts/fact.json")?;
    /// let tokens = model.batch(&set.clean())?;
    /// let run = model.run(&tokens, &Plan::new())?;
    /// let right = Metric::accuracy(set.right(&model)?).of(&run.logits, &tokens)?; // [Batch]
    /// # thalweg::anyhow::Ok(())
    /// ```
    pub fn right(&self, tokenizer: &impl Encode) -> Result<Answers> {
        self.answers(tokenizer, "right", |p| &p.right)
    }

    /// The wrong answers of each prompt as ids, as [`right`](Self::right) gives the right ones.
    pub fn wrong(&self, tokenizer: &impl Encode) -> Result<Answers> {
        self.answers(tokenizer, "wrong", |p| &p.wrong)
    }

    fn encode(&self, t: &impl Encode, text: impl Fn(&Prompt) -> &String) -> Result<Tokens> {
        let texts: Vec<&str> = self.prompts.iter().map(|p| text(p).as_str()).collect();
        t.encode(&texts).map_err(|e| anyhow!("cannot encode the prompts of `{}`: {e:#}", self.task))
    }

    fn with_roles(&self, mut tokens: Tokens, first: &Prompt) -> Result<Tokens> {
        for (name, [_, end]) in &first.roles {
            tokens = tokens.with_role(name, vec![*end as i64 - 1; self.len()])?;
        }
        Ok(tokens)
    }

    fn same_length(&self, rows: &[Vec<i64>]) -> Result<()> {
        let Some(i) = rows.iter().position(|r| r.len() != rows[0].len()) else { return Ok(()) };
        let at = first_difference(&rows[0], &rows[i]);
        bail!(
            "`{}` is not aligned: prompt 0 has {} tokens and prompt {i} has {}; they part at token {at} \
             (`{}` and `{}`); {}",
            self.task,
            rows[0].len(),
            rows[i].len(),
            word_near(&self.prompts[0].clean, at, rows[0].len()),
            word_near(&self.prompts[i].clean, at, rows[i].len()),
            self.advice(rows)
        )
    }

    /// The largest label within which all lengths agree, as something to do.
    fn advice(&self, rows: &[Vec<i64>]) -> String {
        let mut lengths: BTreeMap<&str, (usize, bool, usize)> = BTreeMap::new();
        for (p, row) in self.prompts.iter().zip(rows) {
            let entry = lengths.entry(&p.label).or_insert((row.len(), true, 0));
            entry.1 &= entry.0 == row.len();
            entry.2 += 1;
        }
        match lengths.iter().filter(|(_, l)| l.1).max_by_key(|(_, l)| l.2) {
            Some((label, (length, _, n))) => {
                format!("`.labelled(\"{label}\")` keeps {n} prompts of {length} tokens each")
            }
            None => "keep prompts of one length with `.filter(...)`, or reword them".to_string(),
        }
    }

    fn same_roles(&self, first: &Prompt, length: usize) -> Result<()> {
        for (i, p) in self.prompts.iter().enumerate() {
            let names = first.roles.keys().chain(p.roles.keys());
            for name in names {
                let (a, b) = (first.roles.get(name), p.roles.get(name));
                ensure!(
                    a == b,
                    "`{}` is not aligned: role `{name}` is at {} in prompt 0 and at {} in prompt {i}; \
                     keep one kind of prompt, for instance `.labelled(\"{}\")`",
                    self.task,
                    span(a),
                    span(b),
                    first.label
                );
            }
        }
        if let Some((name, s)) = first.roles.iter().find(|(_, s)| s[1] > length) {
            bail!(
                "role `{name}` of `{}` spans tokens {}..{}, but its prompts have {length} tokens with \
                 this tokenizer: the set was written for another one",
                self.task,
                s[0],
                s[1]
            );
        }
        Ok(())
    }

    fn same_as_clean(&self, name: &str, clean: &[Vec<i64>], rows: &[Vec<i64>]) -> Result<()> {
        let Some(i) = clean.iter().zip(rows).position(|(a, b)| a.len() != b.len()) else {
            return Ok(());
        };
        bail!(
            "`{}` is not aligned: prompt {i} has {} tokens and its corruption `{name}` has {}; they part \
             at token {}: replace words by words of as many tokens",
            self.task,
            clean[i].len(),
            rows[i].len(),
            first_difference(&clean[i], &rows[i])
        )
    }

    fn answers(
        &self,
        t: &impl Encode,
        which: &str,
        answers: impl Fn(&Prompt) -> &Vec<String>,
    ) -> Result<Answers> {
        let mut rows: Vec<Vec<i64>> = Vec::new();
        for (i, p) in self.prompts.iter().enumerate() {
            let ids = answers(p).iter().map(|a| {
                t.one_token(a).map_err(|e| {
                    anyhow!(
                        "the {which} answer `{a}` of prompt {i} of `{}` is not one token: {e:#}; choose \
                         another, or compare whole answers by their summed log-probability",
                        self.task
                    )
                })
            });
            rows.push(ids.collect::<Result<_>>()?);
        }
        Ok(rows.into())
    }
}

/// Index of the first place where two rows differ, the shorter one's end at the latest.
fn first_difference(a: &[i64], b: &[i64]) -> usize {
    a.iter().zip(b).position(|(x, y)| x != y).unwrap_or(a.len().min(b.len()))
}

/// The word of `text` that token `at` of `length` most likely belongs to, counted from the end.
fn word_near(text: &str, at: usize, length: usize) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let from_end = length.saturating_sub(at);
    match words.len().checked_sub(from_end) {
        Some(i) if i < words.len() => words[i].to_string(),
        _ => "the end".to_string(),
    }
}

/// "tokens 3..4", or "no place".
fn span(span: Option<&[usize; 2]>) -> String {
    span.map_or("no place".to_string(), |[a, b]| format!("tokens {a}..{b}"))
}
