//! Day-one questions: what comes next, how likely is an answer, what does the model lose.

use std::fmt;

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use super::Model;
use crate::hook::metric::next_token_loss;
use crate::hook::plan::Plan;
use crate::show::{Content, Show, escape, show_value};
use crate::text::Tokens;

/// One possible next token.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Token id.
    pub id: i64,
    /// What to show for it.
    pub piece: String,
    /// Probability, 0..1.
    pub prob: f64,
    /// Logit, in nats up to a constant.
    pub logit: f64,
    /// How many ids are more likely.
    pub rank: usize,
}

/// Ranked next tokens after each prompt of a batch.
#[derive(Clone)]
pub struct Top {
    /// The most likely candidates of each row, best first.
    pub rows: Vec<Vec<Candidate>>,
}

impl Top {
    /// Shows the candidates in a notebook: a line a prompt, best first.
    pub fn evcxr_display(&self) {
        show_value(self);
    }
}

impl Show for Top {
    fn content(&self) -> Content {
        let cell = |c: &Candidate| {
            let piece = escape(&c.piece).replace(' ', "\u{2423}").replace('\n', "\u{21b5}");
            let shade = format!("rgba(33,102,172,{:.2})", 0.7 * c.prob);
            let (id, logit, percent) = (c.id, c.logit, 100.0 * c.prob);
            format!(
                "<td style=\"background:{shade};text-align:left;padding:2px 8px\" title=\"id {id}, logit {logit:.2}\"><code>{piece}</code> {percent:.1}&nbsp;%</td>"
            )
        };
        let line = |(row, list): (usize, &Vec<Candidate>)| {
            format!("<tr><th>row {row}</th>{}</tr>", list.iter().map(cell).collect::<String>())
        };
        let body: String = self.rows.iter().enumerate().map(line).collect();
        Content::text(format!("{self:?}"))
            .with("text/html", format!("<table class=\"thalweg-top\">{body}</table>"))
    }
}

impl fmt::Debug for Top {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (row, list) in self.rows.iter().enumerate() {
            let words = list.iter().map(|c| format!("{:?} {:.1} %", c.piece, 100.0 * c.prob));
            let line = words.collect::<Vec<_>>().join(", ");
            let end = if row + 1 < self.rows.len() { "; " } else { "" };
            write!(f, "row {row}: {line}{end}")?;
        }
        Ok(())
    }
}

impl Model {
    /// The `k` most likely next tokens after each prompt.
    pub fn top(&self, tokens: &Tokens, k: usize) -> Result<Top> {
        ensure!(k > 0, "top: expected k of at least 1");
        let all = self.last_logits(tokens)?;
        let (values, ids) = all.topk(k.min(self.config.d_vocab) as i64, -1, true, true);
        let probs = all.softmax(-1, None::<Kind>).gather(1, &ids, false);
        let mut rows = Vec::new();
        for row in 0..tokens.batch() as i64 {
            let ids = Vec::<i64>::try_from(ids.get(row))?;
            let logits = Vec::<f64>::try_from(values.get(row))?;
            let probs = Vec::<f64>::try_from(probs.get(row))?;
            let list = ids.iter().zip(logits).zip(probs).enumerate();
            rows.push(
                list.map(|(rank, ((id, logit), prob))| Candidate {
                    id: *id,
                    piece: self.piece(*id),
                    prob,
                    logit,
                    rank,
                })
                .collect(),
            );
        }
        Ok(Top { rows })
    }

    /// Rank and probability of one answer, a single token, after each prompt.
    pub fn rank(&self, tokens: &Tokens, answer: &str) -> Result<Vec<Candidate>> {
        let id = self.token(answer)?;
        let all = self.last_logits(tokens)?;
        let own = all.select(1, id);
        let ranks = Vec::<i64>::try_from(all.gt_tensor(&own.unsqueeze(1)).sum_dim_intlist(
            [1i64].as_slice(),
            false,
            Kind::Int64,
        ))?;
        let probs = Vec::<f64>::try_from(all.softmax(-1, None::<Kind>).select(1, id))?;
        let logits = Vec::<f64>::try_from(own)?;
        let each = ranks.into_iter().zip(probs).zip(logits);
        Ok(each
            .map(|((rank, prob), logit)| Candidate {
                id,
                piece: self.piece(id),
                prob,
                logit,
                rank: rank as usize,
            })
            .collect())
    }

    /// Log-probability in nats of an answer of one or more tokens after each prompt: the sum over
    /// its tokens, each given those before it.
    pub fn answer_log_prob(&self, tokens: &Tokens, answer: &str) -> Result<Vec<f64>> {
        let ids = self.token_ids(answer)?;
        ensure!(!ids.is_empty(), "the answer is empty");
        let rows: Vec<Vec<i64>> =
            tokens.ids().iter().map(|row| [row.as_slice(), &ids].concat()).collect();
        let longer = Tokens::from_ids(&rows)?;
        let loss = self.loss(&longer)?;
        let n = ids.len() as i64;
        let tail = loss.narrow(1, loss.size()[1] - n, n).sum_dim_intlist(
            [1i64].as_slice(),
            false,
            Kind::Double,
        );
        Ok(Vec::<f64>::try_from(-tail)?)
    }

    /// Loss of each next token in nats, `[Batch, Pos - 1]`; entry `i` is the loss of token `i + 1`.
    /// Entries of padding are 0: average with [`Tokens::lens`], or use [`Metric::loss`](crate::Metric::loss).
    pub fn loss(&self, tokens: &Tokens) -> Result<Tensor> {
        ensure!(tokens.width() > 1, "loss: a prompt of one token has no next token to predict");
        let logits = self.logits(tokens)?;
        let _guard = tch::no_grad_guard();
        Ok(next_token_loss(&logits, tokens))
    }

    /// Logits after each prompt, `[Batch, Vocab]`, on the CPU in f64.
    fn last_logits(&self, tokens: &Tokens) -> Result<Tensor> {
        let logits = self.run(tokens, &Plan::new().logits_at(-1))?.logits;
        Ok(logits.squeeze_dim(1).to_device(tch::Device::Cpu).to_kind(Kind::Double))
    }
}
