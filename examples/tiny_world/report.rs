//! What a checkpoint can do, and by which heads.

use super::prompt_sets::prompt_set;
use super::sentence::Task;
use super::words::{BOS, SYMBOLS};
use std::collections::{BTreeMap, BTreeSet};
use thalweg::anyhow::Result;
use thalweg::prompts::Prompts;
use thalweg::rng::Rng;
use thalweg::tch::Kind;
use thalweg::{Axis, Cache, Intervention, Metric, Model, Plan, Point, Tokens};

/// A head and its score: layer, head, score in 0..1.
pub type Scored = (usize, usize, f64);

/// Items of the repeated block that heads are scored on.
const BLOCK: usize = 24;
/// A head this much devoted to a pattern belongs to its set.
const MEMBER: f64 = 0.4;

/// What ablating a set must add to the loss on a second copy, in nats.
pub const COST: f64 = 1.0;

/// What ablating random heads may add, in nats.
pub const NOTHING: f64 = 0.2;
/// Draws of random heads.
const DRAWS: usize = 100;

/// Prompts in one run: more do not fit the processor's cache.
const BATCH: usize = 64;

/// Share of prompts whose most likely next word is right, by split and label.
#[derive(Debug, Clone, Default)]
pub struct Accuracy {
    /// `split: label` -> (right, all).
    pub cells: BTreeMap<String, (f64, usize)>,
}

impl Accuracy {
    /// Over all cells whose name starts with `prefix`; 0 if there is none.
    pub fn of(&self, prefix: &str) -> f64 {
        let chosen = self.cells.iter().filter(|(name, _)| name.starts_with(prefix));
        let (sum, n) = chosen.fold((0.0, 0), |(s, n), (_, (right, all))| (s + right, n + all));
        if n == 0 { 0.0 } else { sum / n as f64 }
    }

    /// The lowest share among the kinds that a task [asks for](asked); 0 if there is none.
    pub fn worst(&self, task: Task) -> f64 {
        let kinds = self.cells.iter().filter(|(name, _)| {
            name.split_once(": ").is_some_and(|(split, label)| asked(task, split, label))
        });
        kinds.map(|(_, (right, n))| right / *n as f64).reduce(f64::min).unwrap_or(0.0)
    }
}

/// One value a prompt under a metric made of each batch's answers.
pub fn values(
    model: &Model,
    prompts: &Prompts,
    metric: impl Fn(Vec<Vec<i64>>, Vec<Vec<i64>>) -> Metric,
) -> Result<Vec<f64>> {
    let ids = |words: &[String]| words.iter().map(|w| model.token(w)).collect::<Result<Vec<_>>>();
    let mut all = Vec::new();
    for part in prompts.batches(BATCH)? {
        let right = part.prompts.iter().map(|p| ids(&p.right)).collect::<Result<Vec<_>>>()?;
        let wrong = part.prompts.iter().map(|p| ids(&p.wrong)).collect::<Result<Vec<_>>>()?;
        let tokens = model.batch(&part.clean())?;
        let value = metric(right, wrong).of(&model.logits(&tokens)?, &tokens)?;
        all.extend(Vec::<f64>::try_from(value.to_kind(Kind::Double))?);
    }
    Ok(all)
}

/// Accuracy on a prompt set; for `greater` the probability of later years less that of the others.
pub fn accuracy(model: &Model, prompts: &Prompts) -> Result<Accuracy> {
    let values = if prompts.task == Task::Greater.name() {
        values(model, prompts, Metric::prob_diff)?
    } else {
        values(model, prompts, |right, _| Metric::accuracy(right))?
    };
    let mut found = Accuracy::default();
    for (p, value) in prompts.prompts.iter().zip(values) {
        let cell = found.cells.entry(format!("{}: {}", p.split, p.label)).or_default();
        *cell = (cell.0 + value, cell.1 + 1);
    }
    Ok(found)
}

/// Rows of BOS and a block of different symbols said twice.
pub fn repeated(model: &Model, rows: usize, seed: u64) -> Result<Tokens> {
    let mut rng = Rng::new(seed);
    let bos = model.token(BOS)?;
    let symbols = SYMBOLS.iter().map(|w| model.token(w)).collect::<Result<Vec<_>>>()?;
    let row = |_| {
        let block = rng.sample(symbols.len(), BLOCK).into_iter().map(|i| symbols[i]);
        let block: Vec<i64> = block.collect();
        [vec![bos], block.clone(), block].concat()
    };
    Tokens::from_ids(&(0..rows).map(row).collect::<Vec<_>>())
}

/// Mean loss in nats over the second copy, its first item left out, under a plan.
pub fn repeat_loss(model: &Model, tokens: &Tokens, plan: &Plan) -> Result<f64> {
    let (from, n) = (BLOCK as i64 + 1, BLOCK as i64 - 1);
    let logits = model.run(tokens, plan)?.logits;
    let next = tokens.tensor(model.device()).narrow(1, from + 1, n);
    let log_probs = logits.narrow(1, from, n).log_softmax(-1, Kind::Float);
    Ok(-log_probs.gather(2, &next.unsqueeze(2), false).mean(Kind::Double).double_value(&[]))
}

/// The heads of a model and what becomes of repetition without them.
#[derive(Debug, Clone)]
pub struct Heads {
    /// By attention to the token before, best first.
    pub previous: Vec<Scored>,
    /// By attention to the token after the first copy of this one, best first.
    pub induction: Vec<Scored>,
    /// Loss on the second copy, in nats.
    pub base: f64,
    /// What mean-ablating the best 1, 2, ... previous-token heads adds to it.
    pub without_previous: Vec<f64>,
    /// The same for the induction heads.
    pub without_induction: Vec<f64>,
    /// The same for random heads of neither ranking's top, as many as it takes of the larger set to
    /// cost [`COST`]: several draws, ascending.
    pub without_random: Vec<f64>,
    /// Mean score of the induction heads, and what it falls to when only their keys come from the
    /// run without the previous-token heads.
    pub by_keys: (f64, f64),
    /// Heads of neither ranking's top that cost more than [`NOTHING`] alone: they take part without
    /// showing either pattern. Layer, head, nats.
    pub silent: Vec<Scored>,
}

/// Those at the top of a ranking that are devoted to the pattern; at least one.
pub fn members(ranking: &[Scored]) -> &[Scored] {
    let n = ranking.iter().take_while(|h| h.2 >= MEMBER).count();
    &ranking[..n.max(1)]
}

/// Mean attention of every head from the queries at `from` and later to the key `back` before.
fn scores(cache: &Cache, back: usize, from: usize) -> Result<Vec<Scored>> {
    let (back, from, width) = (back as i64, from as i64, 2 * BLOCK as i64 + 1);
    let mut all = Vec::new();
    for layer in 0..cache.n_layers() {
        let pattern = cache.get(Point::Pattern.at(layer))?;
        for head in 0..pattern.size()[1] {
            let band = pattern.select(1, head).diagonal(-back, 1, 2);
            let score = band.narrow(1, from - back, width - from).mean(Kind::Double);
            all.push((layer, head as usize, score.double_value(&[])));
        }
    }
    Ok(all)
}

/// K-composition, causally: the induction heads' mean score, and the same when their keys alone
/// are those of the run without the previous-token heads.
fn by_keys(
    model: &Model,
    tokens: &Tokens,
    cache: &Cache,
    previous: &[Scored],
    induction: &[Scored],
) -> Result<(f64, f64)> {
    let ablated = previous.iter().fold(Plan::new().cache(Point::K), |plan, h| {
        plan.intervene(Point::Z.at(h.0), Intervention::mean(cache).head(h.1 as i64))
    });
    let ablated = model.run(tokens, &ablated)?.cache;
    let group = model.config().group();
    let keys: BTreeSet<_> = induction.iter().map(|h| (h.0, h.1 / group)).collect();
    let patched = keys.iter().fold(Plan::new().cache(Point::Pattern), |plan, key| {
        plan.intervene(Point::K.at(key.0), Intervention::patch(&ablated).kv_head(key.1 as i64))
    });
    let after = scores(&model.run(tokens, &patched)?.cache, BLOCK - 1, BLOCK + 1)?;
    let after = after.iter().filter(|h| among(induction, h));
    let mean = |sum: f64| sum / induction.len() as f64;
    Ok((mean(induction.iter().map(|h| h.2).sum()), mean(after.map(|h| h.2).sum())))
}

/// Head scores on repeated blocks (mean attention over the scored queries; previous-token from the
/// third token on, as the second can only see BOS and itself), and ablations of the sets.
pub fn heads(model: &Model, rows: usize, seed: u64) -> Result<Heads> {
    let tokens = repeated(model, rows, seed)?;
    let plan = Plan::new().cache(Point::Pattern).cache(Point::Z);
    let run = model.run(&tokens, &plan)?;
    let mut previous = scores(&run.cache, 1, 2)?;
    let mut induction = scores(&run.cache, BLOCK - 1, BLOCK + 1)?;
    for ranking in [&mut previous, &mut induction] {
        ranking.sort_by(|a, b| b.2.total_cmp(&a.2));
    }
    let base = repeat_loss(model, &tokens, &Plan::new())?;
    let without = |heads: &[Scored]| {
        let plan = heads.iter().fold(Plan::new(), |plan, &(layer, head, _)| {
            plan.intervene(Point::Z.at(layer), Intervention::mean(&run.cache).head(head as i64))
        });
        Ok(repeat_loss(model, &tokens, &plan)? - base)
    };
    let (p, i) = (members(&previous), members(&induction));
    let cumulative = |set: &[Scored]| -> Result<Vec<f64>> {
        (1..=set.len()).map(|k| without(&set[..k])).collect()
    };
    let others: Vec<Scored> =
        previous.iter().filter(|h| !among(p, h) && !among(i, h)).copied().collect();
    let without_previous = cumulative(p)?;
    let without_induction = cumulative(i)?;
    let many = needed(&without_previous).max(needed(&without_induction));
    let without_random = without_random(model, &others, many, rows, seed)?;
    let mut silent = Vec::new();
    for head in &others {
        let cost = without(&[*head])?;
        if cost > NOTHING {
            silent.push((head.0, head.1, cost));
        }
    }
    let by_keys = by_keys(model, &tokens, &run.cache, p, i)?;
    Ok(Heads {
        by_keys,
        base,
        without_previous,
        without_induction,
        without_random,
        silent,
        previous,
        induction,
    })
}

/// What it adds to the loss when heads drawn from `others`, `many` at a time, are replaced by their
/// mean: ascending.
fn without_random(
    model: &Model,
    others: &[Scored],
    many: usize,
    rows: usize,
    seed: u64,
) -> Result<Vec<f64>> {
    let tokens = repeated(model, rows.div_ceil(4), seed + 1)?;
    let cache = model.run(&tokens, &Plan::new().cache(Point::Z))?.cache;
    let mean = Intervention::mean(&cache);
    let mut rng = Rng::new(seed);
    let draw = |_| {
        rng.sample(others.len(), many).into_iter().fold(Plan::new(), |plan, i| {
            plan.intervene(Point::Z.at(others[i].0), mean.clone().head(others[i].1 as i64))
        })
    };
    let plans: Vec<Plan> = (0..DRAWS).map(draw).collect();
    let sweep = model.sweep(&tokens, &plans, &Metric::loss_at(BLOCK as i64 + 2..))?;
    let base = sweep.base.iter().sum::<f64>() / sweep.base.len() as f64;
    let costs = sweep.values.mean(Axis::Batch)?.values;
    let mut costs: Vec<f64> = costs.iter().map(|loss| loss - base).collect();
    costs.sort_by(f64::total_cmp);
    Ok(costs)
}

impl Heads {
    /// The mean cost of ablating random heads.
    pub fn random(&self) -> f64 {
        self.without_random.iter().sum::<f64>() / self.without_random.len() as f64
    }
}

/// How many heads of a ranking must go, best first, before it costs [`COST`].
pub fn needed(costs: &[f64]) -> usize {
    costs.iter().position(|c| *c >= COST).map_or(costs.len(), |at| at + 1)
}

fn among(set: &[Scored], head: &Scored) -> bool {
    set.iter().any(|h| (h.0, h.1) == (head.0, head.1))
}

/// Whether the model should answer prompts of this split and label. Facts in a form never shown,
/// relations for a country never shown in them and a third giver (either name may follow) are in the
/// card, as measured.
pub fn asked(task: Task, split: &str, label: &str) -> bool {
    match task {
        Task::Fact | Task::Icl => split == "test",
        Task::Ioi => !label.ends_with('C'),
        _ => true,
    }
}

/// The prompts of a task from `sets` seeds, none twice: at least 500 a split, or all there are.
pub fn fresh(task: Task, seed: u64, sets: u64) -> Prompts {
    let mut all = prompt_set(task, seed);
    let mut seen: BTreeSet<String> = all.prompts.iter().map(|p| p.clean.clone()).collect();
    for seed in seed + 1..seed + sets {
        let more = prompt_set(task, seed).prompts.into_iter();
        all.prompts.extend(more.filter(|p| seen.insert(p.clean.clone())));
    }
    all
}

/// Accuracies of all tasks on prompts drawn with `seed`, at most `n` a label, and the heads.
pub fn report(model: &Model, seed: u64, n: usize) -> Result<(Vec<(Task, Accuracy)>, Heads)> {
    let mut tasks = Vec::new();
    for task in Task::ALL {
        let mut counts = BTreeMap::<String, usize>::new();
        let mut set = prompt_set(task, seed);
        set.prompts.retain(|p| {
            let count = counts.entry(p.label.clone()).or_default();
            *count += 1;
            *count <= n
        });
        tasks.push((task, accuracy(model, &set)?));
    }
    Ok((tasks, heads(model, 32, seed)?))
}
