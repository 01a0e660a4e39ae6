//! Prompts of one unit -> batches. What is in a batch follows from the unit alone, for the numbers
//! of a batch depend on its shape, if only by rounding.

use anyhow::{Error, Result, bail};
use thalweg::{Model, Tokens};

use crate::manifest::{Manifest, Totals};
use crate::prompts::Prompt;

/// One prompt that will be run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// Its row in the prompt file.
    pub(crate) number: u64,
    pub(crate) ids: Vec<i64>,
}

/// The prompts of rows `first..` of the file: tokenized, cut, empty ones counted and left out. An
/// error of tokenizing comes with the number of its prompt.
pub(crate) fn tokenized(
    model: &Model,
    manifest: &Manifest,
    first: u64,
    prompts: impl Iterator<Item = Result<Prompt>>,
) -> Result<(Vec<Row>, Totals), (Option<u64>, Error)> {
    let (mut rows, mut totals) = (Vec::new(), Totals::default());
    for (number, prompt) in (first..).zip(prompts) {
        let prompt = prompt.map_err(|error| (None, error))?;
        let ids = encode(model, prompt).map_err(|error| (Some(number), error))?;
        let Some(mut ids) = ids else {
            totals.empty += 1;
            continue;
        };
        if ids.len() > manifest.max_tokens {
            ids.truncate(manifest.max_tokens);
            totals.cut += 1;
        }
        totals.prompts += 1;
        totals.tokens += ids.len() as u64;
        rows.push(Row { number, ids });
    }
    Ok((rows, totals))
}

/// Ids of a prompt; none of an empty one.
pub(crate) fn encode(model: &Model, prompt: Prompt) -> Result<Option<Vec<i64>>> {
    match prompt {
        Prompt::Empty => Ok(None),
        Prompt::Text(text) => Ok(Some(model.tokens(&text)?.ids()[0].clone())),
        Prompt::Ids(ids) => {
            let vocabulary = model.config().d_vocab as i64;
            if let Some(bad) = ids.iter().find(|id| !(0..vocabulary).contains(id)) {
                bail!("token id {bad}: the model has 0..{}", vocabulary - 1);
            }
            Ok(Some(ids))
        }
    }
}

/// Batches of rows by their places in `rows`, each of at most `tokens` tokens with its padding, or
/// of one row. Rows of like length go together, the longest first: little is padded, and where
/// memory is short that shows at once.
pub(crate) fn by_length(rows: &[Row], tokens: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|at| (std::cmp::Reverse(rows[*at].ids.len()), *at));
    grouped(order, rows, tokens)
}

/// The same in the order of the prompts, a new batch wherever a row of the file was empty.
pub(crate) fn in_order(rows: &[Row], tokens: usize) -> Vec<Vec<usize>> {
    let all: Vec<usize> = (0..rows.len()).collect();
    let runs = all.chunk_by(|a, b| rows[*a].number + 1 == rows[*b].number);
    runs.flat_map(|run| grouped(run.to_vec(), rows, tokens)).collect()
}

fn grouped(order: Vec<usize>, rows: &[Row], tokens: usize) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut width = 0;
    for at in order {
        let len = rows[at].ids.len();
        match batches.last_mut() {
            Some(batch) if (batch.len() + 1) * width.max(len) <= tokens => {
                width = width.max(len);
                batch.push(at);
            }
            _ => {
                width = len;
                batches.push(vec![at]);
            }
        }
    }
    batches
}

/// The tokens of a batch.
pub(crate) fn tokens(rows: &[Row], batch: &[usize]) -> Result<Tokens> {
    Tokens::from_ids(&batch.iter().map(|at| rows[*at].ids.clone()).collect::<Vec<_>>())
}
