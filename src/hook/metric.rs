//! What a run is judged by: one number per row of the batch, from the logits at one position.

use std::fmt;
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use tch::{Kind, Tensor};

use super::held::Held;
use crate::index::{Position, Positions};
use crate::text::Tokens;

/// A user's function on logits, `[Batch, Vocab] -> [Batch]`.
type Function = Arc<dyn Fn(&Tensor) -> Result<Tensor> + Send + Sync>;

/// One id, or one set of ids, for each row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers(Vec<Vec<i64>>);

impl Answers {
    /// The set of row `row`; one set given for all serves every row.
    pub fn row(&self, row: usize) -> &[i64] {
        &self.0[if self.0.len() == 1 { 0 } else { row }]
    }

    /// Whether one id, or one set of ids, serves every row.
    pub(crate) fn is_shared(&self) -> bool {
        self.0.len() == 1
    }

    pub(crate) fn check(&self, batch: usize, d_vocab: i64) -> Result<()> {
        ensure!(
            self.0.len() == 1 || self.0.len() == batch,
            "answers for {} rows, the run has {batch}",
            self.0.len()
        );
        for (row, set) in self.0.iter().enumerate() {
            ensure!(!set.is_empty(), "row {row} has no answer");
            if let Some(id) = set.iter().find(|id| **id < 0 || **id >= d_vocab) {
                bail!("answer {id} of row {row} is outside the vocabulary of {d_vocab}");
            }
        }
        Ok(())
    }

    /// Reduces `[Batch, Vocab]` to `[Batch]`: each row's answers gathered, then `reduce`d.
    fn gather(&self, x: &Tensor, reduce: impl Fn(Tensor) -> Tensor) -> Result<Tensor> {
        self.check(x.size()[0] as usize, x.size()[1])?;
        let one_each = self.0.iter().all(|set| set.len() == 1);
        if one_each {
            let ids: Vec<i64> = (0..x.size()[0] as usize).map(|row| self.row(row)[0]).collect();
            let ids = Tensor::from_slice(&ids).to_device(x.device()).unsqueeze(1);
            return Ok(x.gather(1, &ids, false).squeeze_dim(1));
        }
        let rows = (0..x.size()[0]).map(|row| {
            let ids = Tensor::from_slice(self.row(row as usize)).to_device(x.device());
            reduce(x.get(row).index_select(0, &ids))
        });
        Ok(Tensor::stack(&rows.collect::<Vec<_>>(), 0))
    }
}

impl From<i64> for Answers {
    fn from(id: i64) -> Self {
        Answers(vec![vec![id]])
    }
}

impl From<&[i64]> for Answers {
    /// One id a row.
    fn from(ids: &[i64]) -> Self {
        Answers(ids.iter().map(|id| vec![*id]).collect())
    }
}

impl From<Vec<i64>> for Answers {
    fn from(ids: Vec<i64>) -> Self {
        ids.as_slice().into()
    }
}

impl From<&Vec<i64>> for Answers {
    fn from(ids: &Vec<i64>) -> Self {
        ids.as_slice().into()
    }
}

impl From<&[Vec<i64>]> for Answers {
    /// One set of ids a row.
    fn from(sets: &[Vec<i64>]) -> Self {
        Answers(sets.to_vec())
    }
}

impl From<Vec<Vec<i64>>> for Answers {
    fn from(sets: Vec<Vec<i64>>) -> Self {
        Answers(sets)
    }
}

impl From<&Answers> for Answers {
    fn from(answers: &Answers) -> Self {
        answers.clone()
    }
}

/// One number per row, from the logits at a position (default: each row's last token).
#[derive(Clone)]
pub struct Metric {
    what: What,
    at: Position,
}

#[derive(Clone)]
enum What {
    Logit(Answers),
    LogitDiff(Answers, Answers),
    LogProb(Answers),
    ProbDiff(Answers, Answers),
    Rank(Answers),
    Accuracy(Answers),
    Loss(Positions),
    Kl(Held),
    Custom(String, Function),
}

impl Metric {
    fn new(what: What) -> Self {
        Metric { what, at: Position::Last }
    }

    /// The logit; of a set, the mean of its members'.
    pub fn logit(answers: impl Into<Answers>) -> Self {
        Self::new(What::Logit(answers.into()))
    }

    /// `logit[right] - logit[wrong]`, in nats; of sets, the difference of their means.
    pub fn logit_diff(right: impl Into<Answers>, wrong: impl Into<Answers>) -> Self {
        Self::new(What::LogitDiff(right.into(), wrong.into()))
    }

    /// Log-probability in nats; of a set, of any of its members.
    pub fn log_prob(answers: impl Into<Answers>) -> Self {
        Self::new(What::LogProb(answers.into()))
    }

    /// Probability of one set less that of another, in -1..1.
    pub fn prob_diff(right: impl Into<Answers>, wrong: impl Into<Answers>) -> Self {
        Self::new(What::ProbDiff(right.into(), wrong.into()))
    }

    /// How many ids have a larger logit: 0 for the most likely; of a set, its best member's.
    pub fn rank(answers: impl Into<Answers>) -> Self {
        Self::new(What::Rank(answers.into()))
    }

    /// 1 where the most likely id is one of the answers, else 0.
    pub fn accuracy(answers: impl Into<Answers>) -> Self {
        Self::new(What::Accuracy(answers.into()))
    }

    /// Mean next-token loss over the row's own tokens, in nats. Looks at all positions.
    pub fn loss() -> Self {
        Self::loss_at(1..)
    }

    /// Mean loss of the tokens at these positions, each predicted from those before it, in nats.
    /// The first token of a row is predicted by nothing: `loss_at(1..)` is [`loss`](Self::loss).
    pub fn loss_at(positions: impl Into<Positions>) -> Self {
        Self::new(What::Loss(positions.into()))
    }

    /// KL divergence in nats from `base` to the run, `KL(base || run)`; `base` holds logits,
    /// `[Vocab]` or `[Batch, Vocab]`.
    pub fn kl(base: &Tensor) -> Self {
        Self::new(What::Kl(Held(base.detach().copy())))
    }

    /// A function of the logits at the position, `[Batch, Vocab] -> [Batch]`.
    pub fn custom(
        label: &str,
        function: impl Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static,
    ) -> Self {
        Self::new(What::Custom(label.to_owned(), Arc::new(function)))
    }

    /// Looks at another position than each row's last.
    pub fn at(mut self, position: impl Into<Position>) -> Self {
        self.at = position.into();
        self
    }

    /// The position looked at; absent: all of them.
    pub fn position(&self) -> Option<&Position> {
        match self.what {
            What::Loss(_) => None,
            _ => Some(&self.at),
        }
    }

    /// The positions whose logits it looks at, in each row's own tokens.
    pub(crate) fn places(&self, tokens: &Tokens) -> Result<Vec<Vec<usize>>> {
        let What::Loss(positions) = &self.what else { return tokens.places(&self.at) };
        let mut places = tokens.places(positions.clone())?;
        places.iter_mut().flatten().for_each(|at| *at = at.saturating_sub(1));
        Ok(places)
    }

    /// The first column of the batch whose logits it looks at.
    pub(crate) fn first_column(&self, tokens: &Tokens) -> Result<usize> {
        let places = self.places(tokens)?;
        let columns = places.iter().enumerate();
        let columns =
            columns.flat_map(|(row, at)| at.iter().map(move |at| tokens.padding(row) + at));
        Ok(columns.min().unwrap_or(0))
    }

    /// The unit of the number.
    pub fn unit(&self) -> &'static str {
        match self.what {
            What::LogitDiff(..) | What::LogProb(_) | What::Loss(_) | What::Kl(_) => "nats",
            What::Logit(_) => "logits",
            What::ProbDiff(..) => "probability",
            What::Rank(_) => "rank",
            What::Accuracy(_) => "share correct",
            What::Custom(..) => "",
        }
    }

    /// What can be wrong with these tokens, found without a run.
    pub(crate) fn check(&self, tokens: &Tokens, d_vocab: usize) -> Result<()> {
        let (batch, d_vocab) = (tokens.batch(), d_vocab as i64);
        let answers = |answers: &Answers| {
            answers.check(batch, d_vocab).map_err(|error| anyhow::anyhow!("{self:?}: {error}"))
        };
        if let Some(position) = self.position() {
            let places = tokens.places(position);
            places.map_err(|error| anyhow::anyhow!("{self:?}: {error:#}"))?;
        }
        match &self.what {
            What::LogitDiff(right, wrong) | What::ProbDiff(right, wrong) => {
                answers(right)?;
                answers(wrong)
            }
            What::Logit(list) | What::LogProb(list) | What::Rank(list) | What::Accuracy(list) => {
                answers(list)
            }
            What::Kl(base) => fits(&base.0, batch as i64, d_vocab),
            What::Loss(positions) => {
                if let Some(row) = tokens.lens().iter().position(|len| *len < 2) {
                    bail!("{self:?}: row {row} is one token, which has no next token");
                }
                let places = tokens.places(positions.clone());
                let places = places.map_err(|error| anyhow::anyhow!("{self:?}: {error:#}"))?;
                if let Some(row) = places.iter().position(|places| places.contains(&0)) {
                    bail!(
                        "{self:?}: position 0 of row {row} is predicted by nothing, expected positions from 1"
                    );
                }
                Ok(())
            }
            What::Custom(..) => Ok(()),
        }
    }

    /// The number of each row, `[Batch]`, from logits at all positions, `[Batch, Pos, Vocab]`.
    pub fn of(&self, logits: &Tensor, tokens: &Tokens) -> Result<Tensor> {
        let (batch, width) = (tokens.batch() as i64, tokens.width() as i64);
        ensure!(
            logits.dim() == 3 && logits.size()[..2] == [batch, width],
            "{self:?}: the logits are {:?}, expected [Batch, Pos, Vocab] = [{batch}, {width}, ..]",
            logits.size()
        );
        if let What::Loss(positions) = &self.what {
            self.check(tokens, logits.size()[2] as usize)?;
            return loss_of(positions, logits, tokens);
        }
        let places = tokens.places(&self.at)?;
        let column = |(row, at): (usize, &Vec<usize>)| (tokens.padding(row) + at[0]) as i64;
        let columns: Vec<i64> = places.iter().enumerate().map(column).collect();
        let columns = Tensor::from_slice(&columns).to_device(logits.device());
        let columns = columns.view([-1, 1, 1]).expand([batch, 1, logits.size()[2]], false);
        self.of_row(&logits.gather(1, &columns, false).squeeze_dim(1))
    }

    /// Right and wrong answers of a metric that is linear in the logits; absent: it is not.
    pub(crate) fn sides(&self) -> Option<(&Answers, Option<&Answers>)> {
        match &self.what {
            What::Logit(answers) => Some((answers, None)),
            What::LogitDiff(right, wrong) => Some((right, Some(wrong))),
            _ => None,
        }
    }

    /// The number of each row, `[Batch]`, from logits at its position, `[Batch, Vocab]`.
    pub fn of_row(&self, logits: &Tensor) -> Result<Tensor> {
        let log_probs = || logits.log_softmax(-1, None::<Kind>);
        match &self.what {
            What::LogitDiff(right, wrong) => {
                let mean = |x: Tensor| x.mean(None);
                Ok(right.gather(logits, mean)? - wrong.gather(logits, mean)?)
            }
            What::LogProb(answers) => {
                answers.gather(&log_probs(), |x| x.logsumexp([0i64].as_slice(), false))
            }
            What::ProbDiff(right, wrong) => {
                let probs = log_probs().exp();
                let sum = |x: Tensor| x.sum(None);
                Ok(right.gather(&probs, sum)? - wrong.gather(&probs, sum)?)
            }
            What::Rank(answers) => {
                let best = answers.gather(logits, |x| x.max())?.unsqueeze(1);
                Ok(logits.gt_tensor(&best).sum_dim_intlist([1i64].as_slice(), false, logits.kind()))
            }
            What::Accuracy(answers) => {
                answers.check(logits.size()[0] as usize, logits.size()[1])?;
                let top = Vec::<i64>::try_from(logits.argmax(-1, false))?;
                let hit = |(row, id): (usize, &i64)| f64::from(answers.row(row).contains(id));
                let hits: Vec<f64> = top.iter().enumerate().map(hit).collect();
                Ok(Tensor::from_slice(&hits).to_device(logits.device()).to_kind(logits.kind()))
            }
            What::Logit(answers) => answers.gather(logits, |x| x.mean(None)),
            What::Loss(_) => bail!("{self:?} looks at many positions: use Metric::of"),
            What::Kl(base) => {
                let base = base.0.to_device(logits.device()).to_kind(logits.kind());
                fits(&base, logits.size()[0], logits.size()[1])?;
                let base = base.log_softmax(-1, None::<Kind>);
                let difference = &base - log_probs();
                Ok((base.exp() * difference).sum_dim_intlist([-1i64].as_slice(), false, None))
            }
            What::Custom(label, function) => {
                let values = function(logits)?;
                ensure!(
                    values.size() == [logits.size()[0]],
                    "metric {label:?} returned {:?}, expected [Batch] = [{}]",
                    values.size(),
                    logits.size()[0]
                );
                Ok(values)
            }
        }
    }
}

/// Whether the base of a KL divergence belongs to such logits.
fn fits(base: &Tensor, batch: i64, d_vocab: i64) -> Result<()> {
    let shape = base.size();
    ensure!(
        shape == [d_vocab] || shape == [1, d_vocab] || shape == [batch, d_vocab],
        "kl: the base is {shape:?}, expected [Vocab] = [{d_vocab}] or [Batch, Vocab] = [{batch}, {d_vocab}]"
    );
    Ok(())
}

/// Mean loss of the tokens at these positions of each row, `[Batch]`.
fn loss_of(positions: &Positions, logits: &Tensor, tokens: &Tokens) -> Result<Tensor> {
    let each = next_token_loss(logits, tokens);
    let mut rows = Vec::new();
    for (row, places) in tokens.places(positions.clone())?.iter().enumerate() {
        let columns = places.iter().map(|at| (tokens.padding(row) + at - 1) as i64);
        let columns = Tensor::from_slice(&columns.collect::<Vec<_>>()).to_device(each.device());
        rows.push(each.get(row as i64).index_select(0, &columns).mean(None));
    }
    Ok(Tensor::stack(&rows, 0))
}

/// Loss of each next token in nats, `[Batch, Pos - 1]`; 0 where a row has no such token.
pub(crate) fn next_token_loss(logits: &Tensor, tokens: &Tokens) -> Tensor {
    let width = tokens.width() as i64;
    let ids = tokens.tensor(logits.device());
    let log_probs = logits.narrow(1, 0, width - 1).log_softmax(-1, None::<Kind>);
    let next = ids.narrow(1, 1, width - 1).unsqueeze(-1);
    let loss = -log_probs.gather(2, &next, false).squeeze_dim(-1);
    if !tokens.is_padded() {
        return loss;
    }
    let real = tokens.mask(logits.device()).narrow(1, 0, width - 1);
    loss.where_self(&real, &loss.zeros_like())
}

impl fmt::Debug for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::LogitDiff(..) => f.write_str("logit_diff"),
            What::LogProb(_) => f.write_str("log_prob"),
            What::ProbDiff(..) => f.write_str("prob_diff"),
            What::Rank(_) => f.write_str("rank"),
            What::Accuracy(_) => f.write_str("accuracy"),
            What::Logit(_) => f.write_str("logit"),
            What::Loss(_) => f.write_str("loss"),
            What::Kl(_) => f.write_str("kl"),
            What::Custom(label, _) => write!(f, "custom({label:?})"),
        }
    }
}
