//! Occlusion of whole words: all pieces of a word at once.

use anyhow::{Context, Result, anyhow};
use ndarray::{ArrayD, IxDyn};
use tch::Tensor;

use super::occlusion::{MASKS, Occlusion};
use super::words::Words;
use crate::grid::{Grid, GridAxis};
use crate::hook::intervention::Intervention;
use crate::hook::metric::Metric;
use crate::hook::plan::Plan;
use crate::hook::site::{Axis, Point, Site};
use crate::model::{Model, SweepOptions};
use crate::show::Bar;
use crate::text::Tokens;

/// What the metric loses without each word, all its pieces occluded at once:
/// `[Pos]`, or `[Batch, Pos]` for several prompts, one cell a word as in
/// [`by_word`](crate::by_word), in the metric's unit. One run of the model a word.
///
/// Pieces that stand in for each other are worth little one by one and much together, so that this is
/// not the sum of [`occlusion`](crate::occlusion). Under an attention cut the pieces of a word go on
/// seeing each other, and a word that the metric looks at, or that comes after, is missing.
///
/// ```
/// use thalweg::{Axis, Metric, Model, Occlusion, occlusion_by_word};
/// let model = Model::load("data/models/tiny-world")?;
/// let tokens = model.tokens("The capital of France is")?;
/// let metric = Metric::logit_diff(model.token("Paris")?, model.token("Madrid")?);
/// let lost = occlusion_by_word(&model, &tokens, &metric, &Occlusion::AttentionCut)?;
/// assert_eq!(lost.top(1).axes[0].labels, ["France"]);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn occlusion_by_word(
    model: &Model,
    tokens: &Tokens,
    metric: &Metric,
    how: &Occlusion,
) -> Result<Grid> {
    let words = Words::new(tokens);
    let put_in = how.embedding(model)?;
    let places = metric.places(tokens)?;
    let last = |row: usize| places[row].iter().copied().max().unwrap_or(0);
    let (batch, width) = (tokens.batch(), words.width());
    let masks = model.config().n_layers * (batch * tokens.width()).pow(2);
    let all: Vec<usize> = (0..width).collect();
    let mut values = ArrayD::zeros(vec![batch, width]);
    let mut missing = ArrayD::from_elem(vec![batch, width], false);
    let mut swept = None;
    let mut bar = Bar::new("occlusion by word", width).unit("words");
    for part in all.chunks((MASKS / masks).max(1)) {
        let plans: Vec<Plan> =
            part.iter().map(|column| plan(&words, tokens, *column, put_in.as_ref())).collect();
        let sweep = model
            .sweep_with(tokens, &plans, metric, SweepOptions::new().within(&mut bar))
            .map_err(|error| anyhow!("occlusion_by_word: {error:#}"))?;
        for (index, column) in part.iter().enumerate() {
            for (row, base) in sweep.base.iter().enumerate() {
                let at = IxDyn(&[row, *column]);
                let word = words.span(row, *column);
                missing[&at] = word.is_none_or(|word| put_in.is_none() && word.end > last(row));
                values[&at] = base - sweep.values.values[IxDyn(&[index, row])];
            }
        }
        swept.get_or_insert(sweep.values);
    }
    let mut grid = swept.context("no words")?.transpose(&[Axis::Batch, Axis::Plan])?;
    grid.values = values;
    grid.axes[1] = GridAxis { axis: Axis::Pos, labels: words.labels(tokens) };
    grid.missing = missing.iter().any(|gone| *gone).then_some(missing);
    if tokens.batch() == 1 {
        grid = grid.select(Axis::Batch, 0)?;
        grid.provenance.remove("Batch");
    }
    grid.check()?;
    Ok(grid.name(&format!("occlusion by word, {}", how.label(model))))
}

/// A word of each row occluded; `put_in` in its place, or cut off where that is absent.
fn plan(words: &Words, tokens: &Tokens, column: usize, put_in: Option<&Tensor>) -> Plan {
    let mut plan = Plan::new();
    for row in 0..tokens.batch() {
        let Some(word) = words.span(row, column) else { continue };
        plan = match put_in {
            Some(vector) => {
                plan.intervene(Site::Embed, Intervention::set(vector).pos(word).batch(row))
            }
            None if word.end < tokens.ids()[row].len() => {
                plan.intervene(Point::Scores, Intervention::knockout(word.end.., word).batch(row))
            }
            None => plan, // nothing comes after the last
        };
    }
    plan
}
