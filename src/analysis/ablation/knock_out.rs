//! Components taken out one after the other in order of rank, beside random orders: how few carry a
//! behaviour?

use std::fmt;

use anyhow::{Result, ensure};
use ndarray::{Array1, ArrayD};

use super::component::Component;
use super::study::{AblationStudy, Parts, plan, swept};
use crate::grid::{Grid, GridAxis, Interval};
use crate::hook::plan::Plan;
use crate::hook::site::Axis;
use crate::model::Model;
use crate::rng::Rng;

/// Knock-out curves of a study: a metric after none, one, two, ... components are gone.
#[derive(Clone)]
#[non_exhaustive]
pub struct KnockOut {
    /// In order of rank: `[Step]`, the number of components gone, in the metric's unit; the mean over
    /// prompts with its 95 % interval, where there are several.
    pub ranked: Grid,
    /// The control: the mean over random orders of the same components, with the range of 95 % of them.
    /// Its ends are those of `ranked`.
    pub random: Grid,
    /// The order of rank.
    pub order: Vec<Component>,
}

impl AblationStudy {
    /// Takes the components out together, in order of rank under one baseline, and in `draws` random orders
    /// drawn from `seed`. Of resamples, the first draw is taken.
    ///
    /// A curve that falls at once and stays is a circuit of few; one that falls late, while each component
    /// alone does little, is redundancy.
    pub fn knock_out(
        &self,
        model: &Model,
        baseline: usize,
        draws: usize,
        seed: u64,
    ) -> Result<KnockOut> {
        ensure!(draws > 1, "knock_out: {draws} random orders, expected two at least for a band");
        let label = self.label(baseline)?.to_owned();
        let order: Vec<Component> = self.ranking(baseline)?.into_iter().map(|(c, _)| c).collect();
        let place = |component: &Component| self.components.iter().position(|own| own == component);
        let ranked: Vec<usize> = order.iter().filter_map(place).collect();
        let (n, rng) = (ranked.len(), Rng::new(seed));
        let random = (0..draws).map(|draw| rng.fork(draw as u64).sample(n, n));
        let orders: Vec<Vec<usize>> = std::iter::once(ranked).chain(random).collect();
        let plans: Vec<Plan> =
            orders.iter().flat_map(|order| self.plans(baseline, order)).collect();
        let (values, base) = swept(model, &self.tokens, &plans, &self.metric)?;
        // A step none, then each order's steps.
        let curve = |order: usize| -> Vec<Vec<f64>> {
            let own = values[order * n..(order + 1) * n].iter().cloned();
            std::iter::once(base.clone()).chain(own).collect()
        };
        let first = curve(0);
        let by_prompt = grid(self, Axis::Batch, base.len(), |row, step| first[step][row])?;
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let means: Vec<Vec<f64>> =
            (1..=draws).map(|order| curve(order).iter().map(|row| mean(row)).collect()).collect();
        let mut ranked = match base.len() {
            1 => by_prompt.select(Axis::Batch, 0)?,
            _ => by_prompt.mean_interval(Axis::Batch)?,
        };
        if let Some(interval) = &mut ranked.interval {
            interval.method = "95 % normal interval over prompts".to_owned();
        }
        let names: Vec<String> = order.iter().map(ToString::to_string).collect();
        Ok(KnockOut {
            ranked: ranked
                .name(&format!("{:?} after components are gone, by rank", self.metric))
                .note("ablation", &label)
                .note("order", &names.join(", ")),
            random: band(self, &means)?
                .name(&format!("{:?} after components are gone, in random order", self.metric))
                .note("ablation", &label)
                .note("seed", &seed.to_string()),
            order,
        })
    }

    /// One plan for each number of components gone, from one on.
    fn plans(&self, baseline: usize, order: &[usize]) -> Vec<Plan> {
        let parts: Vec<&Parts> = order.iter().map(|i| &self.parts[baseline][0][*i]).collect();
        (1..=parts.len()).map(|gone| plan(parts[..gone].iter().copied())).collect()
    }
}

impl KnockOut {
    /// Both curves in one grid, `[Series, Step]`: "by rank", "random order". `lines` draws it.
    pub fn grid(&self) -> Result<Grid> {
        let both = Grid::stack(
            Axis::Series,
            &[("by rank", &self.ranked), ("random order", &self.random)],
        )?;
        let Some(random) = &self.random.interval else { return Ok(both) };
        // Of one prompt the curve by rank has no interval of its own.
        let none = Interval {
            low: self.ranked.values.clone(),
            high: self.ranked.values.clone(),
            method: "one prompt, no interval".to_owned(),
        };
        let ranked = self.ranked.interval.as_ref().unwrap_or(&none);
        let join = |a: &ArrayD<f64>, b: &ArrayD<f64>| {
            ndarray::stack(ndarray::Axis(0), &[a.view(), b.view()])
        };
        let (low, high) = (join(&ranked.low, &random.low)?, join(&ranked.high, &random.high)?);
        let method = format!("by rank: {}; random order: {}", ranked.method, random.method);
        let both = both.interval(low, high, &method)?;
        Ok(both.name(self.ranked.name.trim_end_matches(", by rank")))
    }
}

/// One line: the metric before, half way and after.
impl fmt::Debug for KnockOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ranked, random) = (&self.ranked.values, &self.random.values);
        let (n, half) = (self.order.len(), self.order.len() / 2);
        write!(f, "{}: {:.3} with all", self.ranked.name, ranked[[0]])?;
        write!(f, ", {:.3} without {half} (random {:.3})", ranked[[half]], random[[half]])?;
        write!(f, ", {:.3} without all {n}", ranked[[n]])
    }
}

/// `[axis, Step]`.
fn grid(
    study: &AblationStudy,
    axis: Axis,
    rows: usize,
    value: impl Fn(usize, usize) -> f64,
) -> Result<Grid> {
    let steps = study.components.len() + 1;
    let numbers = |n: usize| (0..n).map(|i| i.to_string()).collect();
    let axes = vec![
        GridAxis { axis, labels: numbers(rows) },
        GridAxis { axis: Axis::Step, labels: numbers(steps) },
    ];
    let values = ArrayD::from_shape_fn(vec![rows, steps], |index| value(index[0], index[1]));
    let notes = ["metric", "model", "unedited run"];
    let mut grid = Grid::new(values, axes, study.metric.unit())?.of_runs_of(&study.effects);
    for key in notes {
        if let Some(text) = study.effects.provenance.get(key) {
            grid = grid.note(key, text);
        }
    }
    Ok(grid)
}

/// The mean over random orders, with the range of 95 % of them.
fn band(study: &AblationStudy, curves: &[Vec<f64>]) -> Result<Grid> {
    let all = grid(study, Axis::Series, curves.len(), |row, step| curves[row][step])?;
    let mut mean = all.mean(Axis::Series)?;
    mean.provenance.remove(&Axis::Series.to_string());
    let steps = study.components.len() + 1;
    let bound = |share: f64| -> ArrayD<f64> {
        let one = |step: usize| {
            let mut column: Vec<f64> = curves.iter().map(|curve| curve[step]).collect();
            column.sort_by(f64::total_cmp);
            column[((column.len() - 1) as f64 * share).round() as usize]
        };
        Array1::from_iter((0..steps).map(one)).into_dyn()
    };
    mean.interval(
        bound(0.025),
        bound(0.975),
        &format!("range of 95 % of {} random orders", curves.len()),
    )
}
