//! What heads look at on repeated random tokens.
//!
//! Elhage et al. 2021, <https://transformer-circuits.pub/2021/framework>, and Olsson et al. 2022,
//! "In-context Learning and Induction Heads", <https://arxiv.org/abs/2209.11895> (prefix matching).
//!
//! The prompts are `[BOS, r1 .. rT, r1 .. rT]` with tokens drawn without replacement, so that only
//! the repetition can tell what comes next. A score is the mean attention from the queries it is
//! about, and from no others, to the one key it is about.

use std::collections::HashSet;

use anyhow::{Result, bail, ensure};
use tch::Tensor;

use crate::analysis::frame;
use crate::grid::Grid;
use crate::hook::cache::Cache;
use crate::hook::site::{Axis, Point};
use crate::model::Model;
use crate::rng::Rng;
use crate::text::Tokens;

/// What a head may look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Motif {
    /// The token before: mean of `A[i, i-1]` over `i >= 2` (the key of `i = 1` is the attention sink).
    PreviousToken,
    /// The same token in the first copy: mean of `A[i, i-T]` over the second copy.
    Duplicate,
    /// The token after the same token in the first copy (prefix matching): mean of `A[i, i-T+1]`
    /// over the second copy.
    Induction,
    /// The prompt's first token, the attention sink: mean of `A[i, 0]` over `i >= 2` (for `i = 1` it is
    /// also the token before).
    FirstToken,
}

impl Motif {
    fn name(self) -> &'static str {
        match self {
            Motif::PreviousToken => "previous-token score",
            Motif::Duplicate => "duplicate-token score",
            Motif::Induction => "induction score",
            Motif::FirstToken => "first-token score",
        }
    }

    /// A head's mean attention to the motif in one prompt, from its pattern `[Head, Query, Key]`.
    fn score(self, pattern: &Tensor, ids: &[i64]) -> Result<Tensor> {
        let n = ids.len() as i64;
        // Entry j of the diagonal `back` below the main one is A[j + back, j].
        let back = |back: i64, first_query: i64| {
            let diagonal = pattern.diagonal(-back, 1, 2);
            diagonal.narrow(1, first_query - back, n - first_query)
        };
        let read = match self {
            Motif::PreviousToken | Motif::FirstToken => {
                ensure!(n > 2, "{}: {n} tokens, expected at least 3", self.name());
                match self {
                    Motif::PreviousToken => back(1, 2),
                    _ => pattern.select(2, 0).narrow(1, 2, n - 2),
                }
            }
            Motif::Duplicate | Motif::Induction => {
                let (start, period) = repetition(ids)?;
                back(period - i64::from(self == Motif::Induction), start + period)
            }
        };
        Ok(read.mean_dim([1i64].as_slice(), false, tch::Kind::Double))
    }
}

/// Where the first copy starts and how long it is, in `[BOS, r1 .. rT, r1 .. rT]`.
fn repetition(ids: &[i64]) -> Result<(i64, i64)> {
    let start = ids.len() % 2;
    let period = ids.len() / 2;
    let repeats = ids[start..start + period] == ids[start + period..];
    ensure!(
        repeats && period > 1,
        "the prompt of {} tokens is not a block given twice after at most one first token: make prompts with repeated_tokens",
        ids.len()
    );
    Ok((start as i64, period as i64))
}

/// How much each head attends as a motif says, 0..1: `[Layer, Head]`, the mean over the prompts of
/// the cache, with its 95 % interval where there are several. Needs `Point::Pattern` and, for
/// `Duplicate` and `Induction`, prompts from [`repeated_tokens`].
///
/// ```no_run
/// use thalweg::{Model, Motif, Plan, Point, head_scores, repeated_tokens, top_heads};
/// let model = Model::load("data/models/tiny-world")?;
/// let tokens = repeated_tokens(&model, 16, 12, 0)?;
/// let run = model.run(&tokens, &Plan::new().cache(Point::Pattern))?;
/// let induction = head_scores(&run.cache, Motif::Induction)?;
/// let best = top_heads(&induction, 3)?; // (layer, head), best first
/// # let _ = best;
/// # thalweg::anyhow::Ok(())
/// ```
pub fn head_scores(cache: &Cache, motif: Motif) -> Result<Grid> {
    let grid = by_head(cache, "attention", |pattern, ids| motif.score(pattern, ids))?;
    Ok(grid.name(motif.name()).zero_one("none of the attention", "all of the attention"))
}

/// One number for each head, the mean over prompts of `score(pattern [Head, Query, Key], ids)`.
fn by_head(
    cache: &Cache,
    unit: &str,
    score: impl Fn(&Tensor, &[i64]) -> Result<Tensor>,
) -> Result<Grid> {
    let tokens = cache.tokens();
    let mut layers = Vec::new();
    for layer in 0..cache.n_layers() {
        let patterns = cache.get(Point::Pattern.at(layer))?;
        let rows = tokens.ids().iter().enumerate().map(|(row, ids)| {
            let (first, n) = (tokens.padding(row) as i64, ids.len() as i64);
            let own = patterns.get(row as i64).narrow(1, first, n).narrow(2, first, n);
            score(&own, ids).map_err(|error| anyhow::anyhow!("prompt {row}: {error}"))
        });
        layers.push(Tensor::stack(&rows.collect::<Result<Vec<_>>>()?, 0));
    }
    let heads = layers.first().map_or(0, |layer| layer.size()[1]) as usize;
    let axes = [
        (Axis::Layer, frame::numbered('L', cache.n_layers())),
        (Axis::Head, frame::numbered('H', heads)),
    ];
    let each = frame::batched(cache, &Tensor::stack(&layers, 1), &axes, unit)?;
    if tokens.batch() > 1 { each.mean_interval(Axis::Batch) } else { Ok(each) }
}

/// How evenly each head spreads its attention: the entropy of a query's pattern in nats, the mean over
/// queries from the third token on, `[Layer, Head]`; of several prompts their mean, with its 95 %
/// interval. 0 is all on one key; queries over `n` keys have `ln n` at most, whose mean over the same
/// queries is noted. Needs `Point::Pattern`.
pub fn head_entropy(cache: &Cache) -> Result<Grid> {
    let most = |n: usize| (3..=n).map(|keys| (keys as f64).ln()).sum::<f64>() / (n - 2) as f64;
    let lens = cache.tokens().lens();
    let grid = by_head(cache, "nats", |pattern, ids| {
        let n = ids.len() as i64;
        ensure!(n > 2, "entropy: {n} tokens, expected at least 3");
        let p = pattern.narrow(1, 2, n - 2).to_kind(tch::Kind::Double);
        let each = -p.special_xlogy(&p).sum_dim_intlist([2i64].as_slice(), false, None);
        Ok(each.mean_dim([1i64].as_slice(), false, None))
    })?;
    let most = lens.iter().map(|len| most(*len)).sum::<f64>() / lens.len() as f64;
    Ok(grid.name("attention entropy").note("of even attention", &format!("{most:.6}")))
}

/// The `k` heads of highest score, best first, as (layer, head), from a grid `[Layer, Head]`.
pub fn top_heads(scores: &Grid, k: usize) -> Result<Vec<(usize, usize)>> {
    let axes: Vec<Axis> = scores.axes.iter().map(|named| named.axis).collect();
    ensure!(
        axes == [Axis::Layer, Axis::Head],
        "top_heads: the axes are {axes:?}, expected [Layer, Head]"
    );
    let mut cells: Vec<(Vec<usize>, f64)> = scores.present().collect();
    cells.sort_by(|a, b| b.1.total_cmp(&a.1));
    Ok(cells.iter().take(k).map(|(index, _)| (index[0], index[1])).collect())
}

/// Prompts `[BOS, r1 .. rT, r1 .. rT]` of `block` random tokens given twice, drawn from `seed`
/// without replacement from the whole vocabulary but its special tokens. `BOS` is there if the
/// model has one.
pub fn repeated_tokens(model: &Model, prompts: usize, block: usize, seed: u64) -> Result<Tokens> {
    let mut special: HashSet<i64> = model.config().eos.iter().copied().collect();
    special.extend(model.config().bos);
    if let Some(tokenizer) = model.tokenizer() {
        let added = tokenizer.get_added_tokens_decoder();
        special.extend(added.iter().filter(|(_, t)| t.special).map(|(id, _)| i64::from(*id)));
    }
    let all = 0..model.config().d_vocab as i64;
    let pool: Vec<i64> = all.filter(|id| !special.contains(id)).collect();
    repeated_tokens_of(model, &pool, prompts, block, seed)
}

/// [`repeated_tokens`] with tokens from `pool` only.
pub fn repeated_tokens_of(
    model: &Model,
    pool: &[i64],
    prompts: usize,
    block: usize,
    seed: u64,
) -> Result<Tokens> {
    let start = model.config().bos;
    let (len, longest) =
        (usize::from(start.is_some()) + 2 * block, model.config().longest_prompt());
    ensure!(
        prompts > 0 && block > 1,
        "{prompts} prompts of blocks of {block}: expected at least 1 and 2"
    );
    ensure!(
        len <= longest,
        "blocks of {block} make prompts of {len} tokens, the model's context is {longest}"
    );
    if let Some(repeated) = first_repeat(pool) {
        bail!("token id {repeated} is twice in the pool: tokens are drawn without replacement");
    }
    ensure!(block <= pool.len(), "blocks of {block} from a pool of {} tokens", pool.len());
    let mut rng = Rng::new(seed);
    let prompt = |_| {
        let block: Vec<i64> = rng.sample(pool.len(), block).iter().map(|i| pool[*i]).collect();
        start.into_iter().chain(block.iter().copied()).chain(block.iter().copied()).collect()
    };
    let rows: Vec<Vec<i64>> = (0..prompts).map(prompt).collect();
    let pieces = |row: &Vec<i64>| row.iter().map(|id| model.piece(*id)).collect();
    Tokens::from_ids(&rows)?.labelled(rows.iter().map(pieces).collect())
}

fn first_repeat(ids: &[i64]) -> Option<i64> {
    let mut seen = HashSet::new();
    ids.iter().copied().find(|id| !seen.insert(*id))
}
