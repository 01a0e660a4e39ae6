//! Any analysis over a prompt set, batch by batch: mean and interval of every cell.
//!
//! One prompt's heat map is an anecdote. The interval is a percentile bootstrap over prompts (Efron
//! 1979, <https://doi.org/10.1214/aos/1176344552>), which asks for no normal distribution.

use anyhow::{Context, Result, bail, ensure};
use ndarray::{ArrayD, Axis as Nth};
use tch::{Kind, Tensor};

use crate::grid::{Grid, GridAxis};
use crate::hook::site::Axis;
use crate::model::Model;
use crate::prompts::Prompts;
use crate::rng::Rng;
use crate::show::Bar;

/// Resamples of the bootstrap: enough for two digits of a 95 % interval.
const RESAMPLES: usize = 2000;
/// The same numbers give the same interval.
const SEED: u64 = 0x5eed;

/// The mean of an analysis over the prompts of a set, cell by cell, with its 95 % bootstrap interval;
/// `n` is the number of prompts (of each cell at most, where prompts lack some).
///
/// `what` is given the set in batches of at most `batch` prompts, and returns a grid with a row a
/// prompt (`Batch`), or, of one prompt, without. [`each_prompt`] keeps the prompts apart, and
/// [`bootstrap_mean`] then takes the mean.
///
/// ```
/// use thalweg::{Axis, Metric, Model, Patching, Point, Prompts, over_prompts};
/// let model = Model::load("data/models/tiny-world")?;
/// let prompts = Prompts::load("data/prompts/ioi.json")?.labelled("T1 ABBA")?.first(12);
/// let effect = over_prompts(&model, &prompts, 6, |model, part| {
///     let part = part.aligned(model)?;
///     let metric = Metric::logit_diff(&part.right, &part.wrong);
///     let pair = Patching::new(model, &part.clean, part.corrupted("ABC")?)?;
///     pair.each_prompt().grid(Point::Z, &[Axis::Head], &metric)
/// })?;
/// assert_eq!((effect.shape(), effect.n), ([4, 8].as_slice(), 12));
/// assert!(effect.interval.unwrap().method.contains("over 12 prompts"));
/// # thalweg::anyhow::Ok(())
/// ```
pub fn over_prompts(
    model: &Model,
    prompts: &Prompts,
    batch: usize,
    what: impl FnMut(&Model, &Prompts) -> Result<Grid>,
) -> Result<Grid> {
    ensure!(
        prompts.len() > 1,
        "over_prompts: `{}` has {} prompts, expected two at least for an interval",
        prompts.task,
        prompts.len()
    );
    bootstrap_mean(&each_prompt(model, prompts, batch, what)?, Axis::Batch, RESAMPLES, SEED)
}

/// An analysis of every prompt of a set, `Batch` outermost, the prompts in their order: see
/// [`over_prompts`]. Labels along other axes that differ between batches (tokens, where prompts
/// differ) become numbers, counted from the end ("-1") where those of a batch are.
pub fn each_prompt(
    model: &Model,
    prompts: &Prompts,
    batch: usize,
    mut what: impl FnMut(&Model, &Prompts) -> Result<Grid>,
) -> Result<Grid> {
    let mut bar = Bar::new(&prompts.task, prompts.len()).unit("prompts");
    let mut parts: Vec<Grid> = Vec::new();
    let mut done = 0;
    for part in prompts.batches(batch)? {
        let at = format!("prompts {done}..{} of `{}`", done + part.len(), prompts.task);
        let grid = what(model, &part)
            .map_err(|error| error.context(at.clone()))
            .and_then(|grid| by_prompt(grid, part.len()).with_context(|| at.clone()))
            .map_err(|error| anyhow::anyhow!("{error:#}"))?;
        if let Some(first) = parts.first() {
            alike(first, &grid).with_context(|| at).map_err(|e| anyhow::anyhow!("{e:#}"))?;
        }
        parts.push(grid);
        done += part.len();
        bar.add(part.len());
    }
    joined(parts, prompts)
}

/// The mean over an axis whose entries are independent (prompts, seeds), with its 95 % percentile
/// bootstrap interval: the entries drawn anew `resamples` times. Cells that do not exist are left out.
pub fn bootstrap_mean(grid: &Grid, axis: Axis, resamples: usize, seed: u64) -> Result<Grid> {
    ensure!(resamples > 0, "bootstrap_mean: 0 resamples, expected at least 1");
    let place = grid.place(axis)?;
    let n = grid.axes[place].len();
    ensure!(n > 1, "bootstrap_mean: an interval over {axis} needs two entries at least, found {n}");
    let mean = grid.mean(axis)?;
    let here = |index: &[usize]| grid.exists(index);
    let present = ArrayD::from_shape_fn(grid.values.raw_dim(), |index| {
        if here(ndarray::Dimension::slice(&index)) { 1.0 } else { 0.0 }
    });
    let mut values = grid.values.clone();
    values.zip_mut_with(&present, |value, here| *value = if *here > 0.0 { *value } else { 0.0 });
    // [Entry, Cell]
    let rows = |array: &ArrayD<f64>| -> Tensor {
        let flat: Vec<f64> = array
            .axis_iter(Nth(place))
            .flat_map(|row| row.iter().copied().collect::<Vec<_>>())
            .collect();
        Tensor::from_slice(&flat).view([n as i64, -1])
    };
    let (values, present) = (rows(&values), rows(&present));
    let mut rng = Rng::new(seed);
    let mut times = vec![0.0; resamples * n];
    for draw in 0..resamples {
        (0..n).for_each(|_| times[draw * n + rng.below(n)] += 1.0);
    }
    let times = Tensor::from_slice(&times).view([resamples as i64, n as i64]);
    let (mut low, mut high) = (Vec::new(), Vec::new());
    // a few columns at once: each takes as many numbers as there are resamples
    for start in (0..values.size()[1]).step_by(4096) {
        let len = 4096.min(values.size()[1] - start);
        let part = |x: &Tensor| times.matmul(&x.narrow(1, start, len));
        let drawn = part(&values) / part(&present); // NaN where no entry drawn has the cell
        let (sorted, _) = drawn.sort(0, false);
        let last =
            drawn.isnan().logical_not().sum_dim_intlist([0i64].as_slice(), true, Kind::Double)
                - 1.0;
        for (bound, share) in [(&mut low, 0.025), (&mut high, 0.975)] {
            let at = (&last * share).round().clamp_min(0.0).to_kind(Kind::Int64);
            bound.extend(Vec::<f64>::try_from(sorted.gather(0, &at, false).reshape([-1]))?);
        }
    }
    let shape = mean.values.raw_dim();
    let [low, high] = [low, high].map(|bound| ArrayD::from_shape_vec(shape.clone(), bound));
    let over =
        if axis == Axis::Batch { "prompts".to_owned() } else { format!("entries of {axis}") };
    let mut mean = mean
        .interval(low?, high?, &format!("95 % bootstrap interval over {n} {over}"))?
        .note("resamples", &resamples.to_string())
        .note("seed", &seed.to_string());
    mean.provenance.remove(&axis.to_string());
    Ok(mean)
}

/// The grid with `Batch` outermost, an entry a prompt.
fn by_prompt(mut grid: Grid, prompts: usize) -> Result<Grid> {
    grid.interval = None;
    match grid.axes.iter().position(|named| named.axis == Axis::Batch) {
        Some(_) => grid = grid.move_axis(Axis::Batch, 0)?,
        None if prompts == 1 => {
            grid.values.insert_axis_inplace(Nth(0));
            grid.missing.iter_mut().for_each(|missing| missing.insert_axis_inplace(Nth(0)));
            grid.axes.insert(0, GridAxis { axis: Axis::Batch, labels: vec![String::new()] });
        }
        None => bail!(
            "the grid has axes {}, expected Batch {prompts} too: an analysis that keeps prompts apart \
             (such as Patching::each_prompt), or batches of 1",
            grid.axes_text()
        ),
    }
    ensure!(
        grid.axes[0].len() == prompts,
        "the grid has axes {}, expected Batch {prompts}: a row a prompt",
        grid.axes_text()
    );
    Ok(grid)
}

/// Whether two batches' grids can stand one below the other.
fn alike(first: &Grid, grid: &Grid) -> Result<()> {
    let own = |grid: &Grid| -> Vec<(Axis, usize)> {
        grid.axes[1..].iter().map(|named| (named.axis, named.len())).collect()
    };
    ensure!(
        own(first) == own(grid) && first.unit == grid.unit,
        "the grid is {} in {:?}, that of the first batch {} in {:?}: expected the same but for Batch; \
         choose prompts of one length, .labelled(..)",
        grid.axes_text(),
        grid.unit,
        first.axes_text(),
        first.unit
    );
    Ok(())
}

/// One label for each place of several batches' axes: the one they share, else the place, counted
/// from the end where a batch does so, for there rows of different lengths end in one column.
fn labels(each: &[&[String]]) -> Vec<String> {
    let len = each[0].len();
    let back = |label: &String| label.strip_prefix('-').and_then(|k| k.parse::<usize>().ok());
    let at_end =
        |labels: &&[String]| (0..len).any(|i| back(&labels[i]).is_some_and(|k| i + k == len));
    let from_end = each.iter().any(at_end);
    let label = |i: usize| {
        let all = || each.iter().map(|labels| &labels[i]);
        if all().all(|label| *label == each[0][i]) {
            return each[0][i].clone();
        }
        match all().find(|label| back(label).is_some()) {
            Some(label) => label.clone(),
            None if from_end => format!("-{}", len - i),
            None => i.to_string(),
        }
    };
    (0..len).map(label).collect()
}

fn joined(parts: Vec<Grid>, prompts: &Prompts) -> Result<Grid> {
    let first =
        parts.first().context("each_prompt: the set is empty, expected a prompt at least")?;
    let views: Vec<_> = parts.iter().map(|part| part.values.view()).collect();
    let mut grid = first.clone();
    grid.values = ndarray::concatenate(Nth(0), &views)?;
    if parts.iter().any(|part| part.missing.is_some()) {
        let none = |part: &Grid| ArrayD::from_elem(part.values.raw_dim(), false);
        let marks: Vec<ArrayD<bool>> =
            parts.iter().map(|part| part.missing.clone().unwrap_or_else(|| none(part))).collect();
        let views: Vec<_> = marks.iter().map(ArrayD::view).collect();
        grid.missing = Some(ndarray::concatenate(Nth(0), &views)?);
    }
    for (at, named) in grid.axes.iter_mut().enumerate().skip(1) {
        let each: Vec<&[String]> = parts.iter().map(|part| &part.axes[at].labels[..]).collect();
        named.labels = labels(&each);
    }
    grid.axes[0].labels = (0..prompts.len()).map(|i| i.to_string()).collect();
    grid.code = None;
    grid.n = 1; // each prompt is one, over however many tokens its own numbers are means
    grid.provenance.remove("prompt");
    let grid = parts.iter().skip(1).fold(grid, Grid::of_runs_of);
    grid.check()?;
    let set = format!("{} of `{}`, seed {}", prompts.len(), prompts.task, prompts.seed);
    Ok(grid.note("prompts", &set))
}
