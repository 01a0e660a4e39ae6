//! Function vectors: what a few heads write when a prompt shows a task by examples.
//!
//! Todd et al. 2023, "Function Vectors in Large Language Models", <https://arxiv.org/abs/2310.15213>;
//! Hendel et al. 2023, <https://arxiv.org/abs/2310.15916>.
//!
//! `a` is a head's mean output at the last token of few-shot prompts. Its causal indirect effect is
//! what the answer's probability gains when it stands in for the head's own output in prompts whose
//! examples have wrong answers. The vector is the sum of `a` over the heads of greatest mean effect.

use std::fmt;

use anyhow::{Context, Result, ensure};
use ndarray::ArrayD;
use tch::{Device, Kind, Tensor};

use super::few_shot::FewShotPrompts;
use super::states::{central, mean_interval, probability, recorded, states};
use crate::analysis::{frame, random_heads, top_heads};
use crate::grid::{Grid, GridAxis};
use crate::hook::intervention::Intervention;
use crate::hook::metric::Metric;
use crate::hook::plan::Plan;
use crate::hook::site::{Axis, Point, Site};
use crate::index::Position;
use crate::model::{Model, W};
use crate::rng::Rng;
use crate::show::progress;
use crate::text::Tokens;

/// Effects of heads, and what they write, over tasks.
pub struct FunctionVectors {
    /// Average indirect effect, the gain in probability: `[Layer, Head]`, the mean over tasks of
    /// the mean over prompts, with its 95 % interval over prompts.
    pub effect: Grid,
    /// The same of each task: `[Series, Layer, Head]`.
    pub tasks: Grid,
    /// What each head writes at the last token, the mean over a task's few-shot prompts:
    /// `[Layer, Head, DModel]`, f64, task by task.
    pub outputs: Vec<(String, Tensor)>,
}

impl Clone for FunctionVectors {
    fn clone(&self) -> Self {
        let outputs = self.outputs.iter();
        FunctionVectors {
            effect: self.effect.clone(),
            tasks: self.tasks.clone(),
            outputs: outputs.map(|(name, x)| (name.clone(), x.shallow_clone())).collect(),
        }
    }
}

/// One line: the tasks, and the heads of greatest effect.
impl fmt::Debug for FunctionVectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.outputs.iter().map(|(name, _)| name.as_str()).collect();
        let best = self.heads(3).unwrap_or_default();
        let best: Vec<_> = best
            .iter()
            .map(|(l, h)| format!("L{l}H{h} {:+.3}", self.effect.values[[*l, *h].as_slice()]))
            .collect();
        write!(f, "function vectors of {}: {}", names.join(", "), best.join(", "))
    }
}

/// The average indirect effect of every head over these tasks, and what it writes.
///
/// ```
/// use thalweg::{FewShot, Model, function_vectors};
/// let model = Model::load("data/models/tiny-world")?;
/// let pairs = [("Japan", "Tokyo", "Asia"), ("Italy", "Rome", "Europe"), ("Egypt", "Cairo", "Africa"),
///     ("Peru", "Lima", "America"), ("France", "Paris", "Europe"), ("Kenya", "Nairobi", "Africa")];
/// let capital = FewShot::new("capital", &pairs.map(|(x, y, _)| (x, y)))
///     .shuffled_from(&pairs.map(|(_, _, other)| other));
/// let prompts = capital.prompts(&model, 3, 8, 0)?;
/// let vectors = function_vectors(&model, &[prompts])?;
/// let heads = vectors.heads(3)?;
/// assert_eq!(vectors.vector("capital", &heads)?.size(), [128]);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn function_vectors(model: &Model, tasks: &[FewShotPrompts]) -> Result<FunctionVectors> {
    ensure!(!tasks.is_empty(), "function vectors: no tasks");
    for (i, task) in tasks.iter().enumerate() {
        let twice = tasks[..i].iter().any(|other| other.task == task.task);
        ensure!(!twice, "function vectors: two tasks are named {:?}", task.task);
    }
    let (mut outputs, mut gains) = (Vec::new(), Vec::new());
    for task in progress(tasks, "function vectors").unit("tasks") {
        let z = mean_z(model, &task.few_shot)?;
        gains.push(indirect_effects(model, task, &z)?);
        outputs.push((task.task.clone(), head_outputs(model, &z)?));
    }
    let (layers, heads) = (model.config().n_layers, model.config().n_heads);
    let axis = |axis, labels| GridAxis { axis, labels };
    let by_head = vec![
        axis(Axis::Layer, frame::numbered('L', layers)),
        axis(Axis::Head, frame::numbered('H', heads)),
    ];
    let n: usize = tasks.iter().map(|task| task.answers.len()).sum();
    let noted = |grid: Grid| -> Result<Grid> {
        let mut runs = tasks.iter().flat_map(|task| [&task.few_shot, &task.shuffled]);
        let all = runs.try_fold(grid, |grid, tokens| recorded(grid, model, tokens));
        Ok(all?.n(n).note("prompts", &n.to_string()))
    };
    // The standard error of a mean of means: tasks weigh alike, prompts are independent within each.
    let cells = (0..layers * heads).map(|cell| {
        let each = gains.iter().map(|task| mean_interval(&task[cell]));
        let (sum, square) = each.fold((0.0, 0.0), |(sum, square), (mean, _, high)| {
            (sum + mean, square + (high - mean).powi(2))
        });
        let tasks = gains.len() as f64;
        (sum / tasks, square.sqrt() / tasks)
    });
    let cells: Vec<(f64, f64)> = cells.collect();
    let part = |of: &dyn Fn(&(f64, f64)) -> f64| {
        ArrayD::from_shape_vec(vec![layers, heads], cells.iter().map(of).collect())
    };
    let effect = Grid::new(part(&|cell| cell.0)?, by_head.clone(), "probability")?.interval(
        part(&|cell| cell.0 - cell.1)?,
        part(&|cell| cell.0 + cell.1)?,
        "95 % normal interval over prompts within tasks",
    )?;
    let each: Vec<f64> =
        gains.iter().flat_map(|task| task.iter().map(|cell| mean_interval(cell).0)).collect();
    let names = tasks.iter().map(|task| task.task.clone()).collect();
    let axes = [vec![axis(Axis::Series, names)], by_head].concat();
    let values = ArrayD::from_shape_vec(vec![tasks.len(), layers, heads], each)?;
    let by_task = Grid::new(values, axes, "probability")?;
    Ok(FunctionVectors {
        effect: noted(effect)?.name("average indirect effect on the answer's probability"),
        tasks: noted(by_task)?.name("indirect effect on the answer's probability"),
        outputs,
    })
}

/// Mean `z` of each head at the last token, one `[Head, DHead]` a layer, f64.
fn mean_z(model: &Model, tokens: &Tokens) -> Result<Vec<Tensor>> {
    let sites: Vec<Site> = (0..model.config().n_layers).map(|l| Point::Z.at(l)).collect();
    let (found, _) = states("function vectors", (model, tokens), &sites, &Position::Last)?;
    Ok(found.iter().map(|z| z.mean_dim([0i64].as_slice(), false, Kind::Double)).collect())
}

/// `[Layer, Head, DModel]`, f64.
fn head_outputs(model: &Model, z: &[Tensor]) -> Result<Tensor> {
    let each = z.iter().enumerate().map(|(layer, z)| {
        let o = model.weight(W::O, layer)?.to_device(Device::Cpu).to_kind(Kind::Double);
        Ok(z.unsqueeze(1).matmul(&o).squeeze_dim(1))
    });
    Ok(Tensor::stack(&each.collect::<Result<Vec<_>>>()?, 0))
}

/// What the answer's probability gains in each prompt, head by head.
fn indirect_effects(model: &Model, task: &FewShotPrompts, z: &[Tensor]) -> Result<Vec<Vec<f64>>> {
    let heads = model.config().n_heads;
    let plans: Vec<Plan> = (0..z.len() * heads)
        .map(|cell| {
            let (layer, head) = (cell / heads, cell % heads);
            let own = Intervention::set(&z[layer].get(head as i64)).head(head).pos(-1);
            Plan::new().intervene(Point::Z.at(layer), own)
        })
        .collect();
    let swept = model.sweep(&task.shuffled, &plans, &probability(&task.answers))?;
    let gain =
        |plan: usize, row: usize| swept.values.values[[plan, row].as_slice()] - swept.base[row];
    Ok((0..plans.len())
        .map(|plan| (0..task.answers.len()).map(|row| gain(plan, row)).collect())
        .collect())
}

/// What adding a vector does to the answer's probability, layer by layer.
#[derive(Debug, Clone)]
pub struct FunctionVectorEffect {
    /// In prompts that are the question alone: `[Layer, Series]`. Series: no vector; the function
    /// vector; equally many random heads, the mean and central 95 % of the draws; the vector of
    /// every other task.
    pub zero_shot: Grid,
    /// In prompts whose examples have wrong answers: `[Layer, Series]`.
    pub shuffled: Grid,
}

impl FunctionVectors {
    /// The `k` heads of greatest average effect, best first, as (layer, head).
    pub fn heads(&self, k: usize) -> Result<Vec<(usize, usize)>> {
        top_heads(&self.effect, k)
    }

    /// The function vector of a task: the sum of what these heads write, `[DModel]`, f64.
    pub fn vector(&self, task: &str, heads: &[(usize, usize)]) -> Result<Tensor> {
        let found = self.outputs.iter().find(|(name, _)| name == task);
        let (_, outputs) = found.with_context(|| {
            let known: Vec<&str> = self.outputs.iter().map(|(name, _)| name.as_str()).collect();
            format!("function vectors: no task {task:?}; there are {}", known.join(", "))
        })?;
        ensure!(!heads.is_empty(), "function vector of {task:?}: no heads");
        let size = outputs.size();
        let mut sum = Tensor::zeros([size[2]], (Kind::Double, Device::Cpu));
        for (layer, head) in heads {
            ensure!(
                (*layer as i64) < size[0] && (*head as i64) < size[1],
                "function vector of {task:?}: no head L{layer}H{head} among {} layers of {}",
                size[0],
                size[1]
            );
            sum += outputs.get(*layer as i64).get(*head as i64);
        }
        Ok(sum)
    }

    /// Adds the task's vector of these heads to `ResidPost` at the last token, at each layer in
    /// turn, with its controls; `draws` sets of random heads are drawn from `seed`.
    pub fn added(
        &self,
        model: &Model,
        prompts: &FewShotPrompts,
        heads: &[(usize, usize)],
        (draws, seed): (usize, u64),
    ) -> Result<FunctionVectorEffect> {
        ensure!(draws > 1, "function vectors: {draws} draws of random heads, expected 2 or more");
        let own = self.vector(&prompts.task, heads)?;
        let rng = Rng::new(seed);
        let random = (0..draws as u64).map(|i| {
            let others = random_heads(model, heads.len(), heads, rng.fork(i).bits())?;
            self.vector(&prompts.task, &others)
        });
        let random = random.collect::<Result<Vec<_>>>()?;
        let others = self.outputs.iter().filter(|(name, _)| *name != prompts.task);
        let others = others.map(|(name, _)| Ok((name.as_str(), self.vector(name, heads)?)));
        let others = others.collect::<Result<Vec<_>>>()?;
        let metric = probability(&prompts.answers);
        let of = |tokens: &Tokens, which: &str| -> Result<Grid> {
            let vectors = Vectors { own: &own, random: &random, others: &others };
            let names: Vec<_> = heads.iter().map(|(l, h)| format!("L{l}H{h}")).collect();
            Ok(vectors
                .swept(model, tokens, &metric)?
                .of_runs_of(&self.effect)
                .name(&format!("probability of the answer to {which} {:?}", prompts.task))
                .note("heads", &names.join(", "))
                .note("draws of random heads", &draws.to_string())
                .note("seed", &seed.to_string()))
        };
        Ok(FunctionVectorEffect {
            zero_shot: of(&prompts.zero_shot, "zero-shot")?,
            shuffled: of(&prompts.shuffled, "shuffled")?,
        })
    }
}

struct Vectors<'a> {
    own: &'a Tensor,
    random: &'a [Tensor],
    others: &'a [(&'a str, Tensor)],
}

impl Vectors<'_> {
    /// The metric with each vector added at each layer: `[Layer, Series]`.
    fn swept(&self, model: &Model, tokens: &Tokens, metric: &Metric) -> Result<Grid> {
        let layers = model.config().n_layers;
        let vectors: Vec<&Tensor> = std::iter::once(self.own)
            .chain(self.random)
            .chain(self.others.iter().map(|(_, vector)| vector))
            .collect();
        let mut plans = Vec::new();
        for layer in 0..layers {
            plans.extend(vectors.iter().map(|vector| {
                let add = Intervention::add(vector, 1.0).absolute().pos(-1);
                Plan::new().intervene(Point::ResidPost.at(layer), add)
            }));
        }
        let swept = model.sweep(tokens, &plans, metric)?;
        let value = |plan: usize| -> Vec<f64> {
            (0..tokens.batch()).map(|row| swept.values.values[[plan, row].as_slice()]).collect()
        };
        let mut cells = Vec::new();
        for first in (0..plans.len()).step_by(vectors.len()) {
            cells.push(mean_interval(&swept.base));
            cells.push(mean_interval(&value(first)));
            let after = first + 1 + self.random.len();
            let means: Vec<f64> =
                (first + 1..after).map(|plan| mean_interval(&value(plan)).0).collect();
            let (low, high) = central(&means);
            cells.push((mean_interval(&means).0, low, high));
            cells.extend((0..self.others.len()).map(|i| mean_interval(&value(after + i))));
        }
        let names = ["no vector", "function vector", "random heads"].map(str::to_owned);
        let others = self.others.iter().map(|(name, _)| format!("vector of {name}"));
        let series: Vec<String> = names.into_iter().chain(others).collect();
        let part = |of: fn(&(f64, f64, f64)) -> f64| {
            let shape = vec![layers, series.len()];
            ArrayD::from_shape_vec(shape, cells.iter().map(of).collect())
        };
        let axes = vec![
            GridAxis { axis: Axis::Layer, labels: frame::numbered('L', layers) },
            GridAxis { axis: Axis::Series, labels: series.clone() },
        ];
        let method =
            "95 % normal interval over prompts; of random heads, the central 95 % of the draws";
        let grid = Grid::new(part(|cell| cell.0)?, axes, "probability")?
            .interval(part(|cell| cell.1)?, part(|cell| cell.2)?, method)?
            .n(tokens.batch());
        recorded(grid, model, tokens)
    }
}
