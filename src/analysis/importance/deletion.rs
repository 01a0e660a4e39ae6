//! Are the tokens that a method calls important those that the answer rests on?
//!
//! Deletion curves: Samek et al. 2017, <https://arxiv.org/abs/1509.06321>; Petsiuk et al. 2018,
//! <https://arxiv.org/abs/1806.07421>. Tokens are replaced one after the other, the most important
//! first; the better the method, the sooner the metric falls. The same tokens the other way round and
//! in random order stand beside it. The check shares its way of replacing with occlusion by the mean
//! embedding, and so favours it a little.

use anyhow::{Context, Result, ensure};
use tch::{Kind, Tensor};

use super::methods::missing_from;
use super::occlusion::Occlusion;
use crate::analysis::frame;
use crate::grid::Grid;
use crate::hook::intervention::Intervention;
use crate::hook::metric::Metric;
use crate::hook::plan::Plan;
use crate::hook::site::{Axis, Site};
use crate::model::Model;
use crate::rng::Rng;
use crate::show::progress;
use crate::text::Tokens;

/// A metric after none, one, two, ... `most` tokens of each prompt are replaced by the mean embedding:
/// `[Series, Count]`, in the metric's unit, the mean over prompts with its 95 % interval where there are
/// several. The series are `most important first`, `in random order` (drawn from `seed` for each
/// prompt) and `least important first`.
///
/// `importance` is a grid `[Pos]` or `[Batch, Pos]` of these tokens, such as those of
/// [`importance`](crate::importance()). Its largest value counts as most important: of methods with a
/// sign, the token that speaks most for what the metric asks, the one most against it last. Each prompt's
/// first token (the attention sink) and the token at which the metric looks are never replaced.
///
/// ```
/// use thalweg::{Metric, Model, Occlusion, deletion_curve, occlusion};
/// let model = Model::load("data/models/tiny-world")?;
/// let tokens = model.tokens("The capital of France is")?;
/// let metric = Metric::logit_diff(model.token("Paris")?, model.token("Madrid")?);
/// let lost = occlusion(&model, &tokens, &metric, &Occlusion::AttentionCut)?;
/// let curve = deletion_curve(&model, &tokens, &metric, &lost, 3, 0)?;
/// assert!(curve.get(&["most important first", "1"])? < curve.get(&["least important first", "1"])?);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn deletion_curve(
    model: &Model,
    tokens: &Tokens,
    metric: &Metric,
    importance: &Grid,
    most: usize,
    seed: u64,
) -> Result<Grid> {
    let ranked = ranked(tokens, metric, importance, most)?;
    let mut rng = Rng::new(seed);
    let mixed = |row: &Vec<usize>| -> Vec<usize> {
        rng.sample(row.len(), row.len()).iter().map(|at| row[*at]).collect()
    };
    let random: Vec<Vec<usize>> = ranked.iter().map(mixed).collect();
    let backwards = ranked.iter().map(|row| row.iter().rev().copied().collect()).collect();
    let orders = [
        ("most important first", ranked),
        ("in random order", random),
        ("least important first", backwards),
    ];
    let mean = Occlusion::MeanEmbedding.embedding(model)?.context("no mean embedding")?;
    let mut curves = Vec::new();
    for (name, order) in progress(orders, "deletion").unit("orders") {
        let (mut values, mut runs) = (Vec::new(), Vec::new());
        for k in 0..=most {
            let run = model.run(tokens, &without(&order, k, &mean))?;
            values.push(metric.of(&run.logits, tokens)?.to_kind(Kind::Double));
            runs.push(run.cache);
        }
        let counts = (0..=most).map(|k| k.to_string()).collect();
        let stacked = Tensor::stack(&values, 1);
        let each = frame::batched(&runs[0], &stacked, &[(Axis::Count, counts)], metric.unit())?;
        let grid = if tokens.batch() > 1 { each.mean_interval(Axis::Batch)? } else { each };
        let origins = runs.iter().filter_map(|cache| cache.origin().cloned());
        curves.push((name, grid.of_runs(origins)));
    }
    let name = format!("{metric:?} after replacing tokens");
    let all = Grid::stack(Axis::Series, &curves)?.name(&name);
    Ok(all.note("put in", "the mean embedding").note("seed", &seed.to_string()))
}

/// Each prompt's tokens that may be replaced, the most important first.
fn ranked(
    tokens: &Tokens,
    metric: &Metric,
    importance: &Grid,
    most: usize,
) -> Result<Vec<Vec<usize>>> {
    let (batch, width) = (tokens.batch(), tokens.width());
    let axes: Vec<Axis> = importance.axes.iter().map(|named| named.axis).collect();
    let shape = if batch > 1 { vec![batch, width] } else { vec![width] };
    ensure!(
        importance.shape() == shape && axes.last() == Some(&Axis::Pos),
        "deletion: the importance is {}, expected one value for each of {batch} x {width} tokens",
        importance.axes_text()
    );
    let places = metric.places(tokens)?;
    let open = missing_from(importance.clone(), tokens, &places, 0)?;
    let mut rows = vec![Vec::new(); batch];
    for (index, value) in open.present() {
        let (row, column) = if batch > 1 { (index[0], index[1]) } else { (0, index[0]) };
        let at = column - tokens.padding(row);
        if at > 0 && !places[row].contains(&at) {
            rows[row].push((at, value));
        }
    }
    let fewest = rows.iter().map(Vec::len).min().unwrap_or(0);
    ensure!(
        (1..=fewest).contains(&most),
        "deletion: {most} tokens, expected 1 to {fewest}, as many as every prompt can lose"
    );
    let order = |mut row: Vec<(usize, f64)>| -> Vec<usize> {
        row.sort_by(|a, b| b.1.total_cmp(&a.1));
        row.into_iter().map(|(at, _)| at).collect()
    };
    Ok(rows.into_iter().map(order).collect())
}

/// The first `k` tokens of each prompt's order replaced.
fn without(order: &[Vec<usize>], k: usize, by: &Tensor) -> Plan {
    if k == 0 {
        return Plan::new();
    }
    let put_in = Intervention::set(by);
    order.iter().enumerate().fold(Plan::new(), |plan, (row, order)| {
        let places: Vec<i64> = order[..k].iter().map(|at| *at as i64).collect();
        plan.intervene(Site::Embed, put_in.clone().batch(row).pos(places))
    })
}
