//! One number for each token: what heads, components and the stream are correlated with, and what
//! with.
//!
//! Grids `[Batch, .., Pos]`, without `Batch` for one prompt; padding, and positions that lack the
//! number, are marked as missing.

use anyhow::{Result, bail, ensure};
use ndarray::Dimension;
use tch::{Kind, Tensor};

use crate::analysis::Motif;
use crate::analysis::frame;
use crate::grid::Grid;
use crate::hook::cache::Cache;
use crate::hook::metric::next_token_loss;
use crate::hook::site::{Axis, Point};
use crate::model::Run;

/// The loss at each token in predicting the one after it, in nats: `[Pos]`, or `[Batch, Pos]`. A row's
/// last token predicts nothing and is missing.
pub fn token_losses(run: &Run) -> Result<Grid> {
    let grid = outputs(run, &["loss"])?;
    Ok(grid.select(Axis::Series, 0)?.name("loss of the next token").unit("nats"))
}

/// What the model puts out at each token: the loss in predicting the next one, the entropy of its prediction
/// (both in nats), and the probability of its most likely next token: `[Series, Pos]`, or
/// `[Batch, Series, Pos]`. A row's last token is missing.
pub fn token_outputs(run: &Run) -> Result<Grid> {
    outputs(run, &["loss", "entropy", "top probability"])
}

fn outputs(run: &Run, which: &[&str]) -> Result<Grid> {
    let tokens = run.cache.tokens();
    let (batch, width) = (tokens.batch() as i64, tokens.width() as i64);
    ensure!(
        run.logits.size()[..2] == [batch, width],
        "token_outputs: the logits are {:?}, expected all positions [{batch}, {width}, ..]: a plan without logits_at",
        run.logits.size()
    );
    ensure!(width > 1, "token_outputs: a prompt of one token has no next token to predict");
    let _guard = tch::no_grad_guard();
    let logits = run.logits.to_kind(Kind::Double);
    let log_probs = logits.narrow(1, 0, width - 1).log_softmax(-1, None::<Kind>);
    let one = |name: &str| match name {
        "loss" => next_token_loss(&logits, tokens),
        "entropy" => {
            -(log_probs.exp() * &log_probs).sum_dim_intlist([-1i64].as_slice(), false, None)
        }
        _ => log_probs.amax([-1i64].as_slice(), false).exp(),
    };
    let values: Vec<Tensor> = which.iter().map(|name| one(name)).collect();
    let values = Tensor::stack(&values, 1).constant_pad_nd([0, 1]); // [Batch, Series, Pos]
    let names = which.iter().map(|name| (*name).to_owned()).collect();
    let axes = [(Axis::Series, names), (Axis::Pos, frame::position_labels(tokens))];
    let mut grid = frame::hide(frame::batched(&run.cache, &values, &axes, "")?, tokens, 0)?;
    let mut missing = grid.missing.take().unwrap_or_else(|| grid.values.mapv(|_| false));
    for (index, gone) in missing.indexed_iter_mut() {
        *gone |= index[index.ndim() - 1] + 1 == width as usize;
    }
    grid.missing(missing)
}

/// How much each head attends, from each token, to the tokens that a motif names there, 0..1:
/// `[Layer, Head, Pos]`, or `[Batch, Layer, Head, Pos]`. Needs `Point::Pattern`.
///
/// In any text: `Duplicate` is attention to earlier places of the same token, `Induction` to the tokens
/// right after those. Tokens for which there is no such place are missing; so are the first two for
/// `PreviousToken` and `FirstToken`. The mean over a head's tokens of `repeated_tokens` is its
/// [`head_scores`](crate::head_scores).
///
/// ```
/// use thalweg::{Axis, Model, Motif, Plan, Point, attention_to, repeated_tokens};
/// let model = Model::load("data/models/tiny-world")?;
/// let tokens = repeated_tokens(&model, 4, 10, 0)?;
/// let run = model.run(&tokens, &Plan::new().cache(Point::Pattern))?;
/// let each = attention_to(&run.cache, Motif::Induction)?;
/// assert_eq!(each.shape(), [4, 4, 8, 21]);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn attention_to(cache: &Cache, motif: Motif) -> Result<Grid> {
    let tokens = cache.tokens();
    let (batch, width) = (tokens.batch(), tokens.width());
    let mut wanted = vec![0.0; batch * width * width];
    let mut has = vec![false; batch * width];
    for (row, ids) in tokens.ids().iter().enumerate() {
        let first = tokens.padding(row);
        for query in 0..ids.len() {
            for key in keys(motif, ids, query)? {
                wanted[(row * width + first + query) * width + first + key] = 1.0;
                has[row * width + first + query] = true;
            }
        }
    }
    let size = [batch, 1, width, width].map(|n| n as i64);
    let wanted = Tensor::from_slice(&wanted).view(size);
    let unit = "attention";
    let grid = by_head(cache, unit, |pattern| {
        let wanted = wanted.to_device(pattern.device());
        (pattern * wanted).sum_dim_intlist([-1i64].as_slice(), false, None)
    })?;
    let several = usize::from(batch > 1);
    let mut missing = grid.values.mapv(|_| false);
    for (index, gone) in missing.indexed_iter_mut() {
        let row = if several == 1 { index[0] } else { 0 };
        *gone = !has[row * width + index[index.ndim() - 1]];
    }
    let name = format!("attention of each token ({motif:?})");
    grid.name(&name).zero_one("none of the attention", "all of the attention").missing(missing)
}

/// The positions that a motif names for one query.
fn keys(motif: Motif, ids: &[i64], query: usize) -> Result<Vec<usize>> {
    let earlier = (0..query).filter(|key| ids[*key] == ids[query]);
    Ok(match motif {
        Motif::PreviousToken if query >= 2 => vec![query - 1],
        Motif::FirstToken if query >= 2 => vec![0],
        Motif::PreviousToken | Motif::FirstToken => Vec::new(),
        Motif::Duplicate => earlier.collect(),
        Motif::Induction => earlier.map(|key| key + 1).filter(|key| *key < query).collect(),
        #[allow(unreachable_patterns)] // motifs that name no place of their own
        _ => bail!(
            "attention_to: {motif:?} names no tokens, expected PreviousToken, FirstToken, Duplicate or Induction"
        ),
    })
}

/// The entropy of each head's attention from each token, in nats: 0 where it looks at one place alone:
/// `[Layer, Head, Pos]`, or `[Batch, Layer, Head, Pos]`. Each prompt's first token, which has no choice, is
/// missing. Needs `Point::Pattern`.
pub fn attention_entropies(cache: &Cache) -> Result<Grid> {
    let grid = by_head(cache, "nats", |pattern| {
        -pattern.xlogy(pattern).sum_dim_intlist([-1i64].as_slice(), false, None)
    })?;
    Ok(frame::hide(grid, cache.tokens(), 1)?.name("entropy of each token's attention"))
}

/// A number of each head and token from the patterns `[Batch, Head, Query, Key]` in f64.
fn by_head(cache: &Cache, unit: &str, reduce: impl Fn(&Tensor) -> Tensor) -> Result<Grid> {
    let mut layers = Vec::new();
    for layer in 0..cache.n_layers() {
        layers.push(reduce(&cache.get(Point::Pattern.at(layer))?.to_kind(Kind::Double)));
    }
    let values = Tensor::stack(&layers, 1); // [Batch, Layer, Head, Query]
    let axes = [
        (Axis::Layer, frame::numbered('L', cache.n_layers())),
        (Axis::Head, frame::numbered('H', values.size()[2] as usize)),
        (Axis::Pos, frame::position_labels(cache.tokens())),
    ];
    frame::batched(cache, &values, &axes, unit)
}
