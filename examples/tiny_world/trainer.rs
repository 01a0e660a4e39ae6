//! The training itself: stages, the loss by task, weights that follow what is not known yet.

pub use super::recipe::{Recipe, Size, untrained};

use super::blindfold::{FactPlaces, blindfold};
use super::recipe::grown;
use super::rows::{OTHER, Row, evenly, row};
use super::sentence::Task;
use super::words::{NAMES, Vocabulary};
use thalweg::anyhow::Result;
use thalweg::model::AdamW;
use thalweg::rng::Rng;
use thalweg::tch::{Kind, Reduction, Tensor};
use thalweg::{Intervention, Model, Plan, Point, Site, Tokens};

/// Loss weight of the tokens that are no answers.
const OTHER_WEIGHT: f64 = 0.1;

/// Share of its weight that a task keeps once it is known.
const KEPT: f64 = 0.15;
/// Accuracy on repeats that doubles the number of symbols.
const LEARNT: f64 = 0.9;
/// Share of steps that leave out a head of the first layer.
const DROPPED: f64 = 0.7;
/// Most heads of the first layer that a step of the third stage leaves out.
const DROPPED_LATE: usize = 3;
/// Share of the steps of the fourth stage that hide the names of the statements from the questions.
const BLIND: f64 = 0.8;
/// Share of the steps of the fifth stage that confuse facts everywhere but in the first MLP at their subject.
const ASTRAY: f64 = 0.8;
/// How much more of the facts the fifth stage sees.
const MORE_FACTS: f64 = 4.0;
/// Symbols at the start: few are matched soon, and then more are quickly added.
const FEW: usize = 16;
/// Symbols when all are in use; the stage ends after one more round, with words among them.
const MANY: usize = 64;

/// What a run of the trainer teaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The first two stages: repeats, then the whole mixture.
    Mixture,
    /// The third: a trained model learns to do without any few heads of its first layer.
    Heads,
    /// The fourth: many questions after several statements, most of them blindfold.
    Questions,
    /// Its end: these are answered, whatever the number of statements.
    Answered,
    /// The fifth: facts are looked up where their subject stands.
    Facts,
}

/// A model in training.
#[derive(Debug)]
pub struct Trainer {
    /// The model; its weights change at each step.
    pub model: Model,
    /// Steps done.
    pub step: usize,
    /// Share of each task in the loss.
    pub weights: [f64; 9],
    /// How often each task is drawn.
    pub tasks: [f64; 9],
    /// Most statements of a `recall` question now.
    pub recall: usize,
    /// Symbols in use in the first stage.
    pub symbols: usize,
    /// The step at which the second stage began.
    pub second: Option<usize>,
    stage: Stage,
    recipe: Recipe,
    optimizer: AdamW,
    vocabulary: Vocabulary,
    rng: Rng,
    counts: Counts,
}

/// Sums since the last line of the log, by task; the last entry is the other tokens.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    right: [f64; 10],
    loss: [f64; 10],
    n: [f64; 10],
    /// Answers of `recall` that are a name: right, all.
    who: [f64; 2],
}

impl Counts {
    /// Share of a task's answers that were the most likely word.
    pub fn accuracy(&self, task: usize) -> f64 {
        self.right[task] / self.n[task].max(1.0)
    }

    /// Share of the `Who` questions of `recall` that were answered with the right name.
    pub fn who(&self) -> f64 {
        self.who[0] / self.who[1].max(1.0)
    }

    /// Mean loss of a task's answers in nats.
    pub fn loss(&self, task: usize) -> f64 {
        self.loss[task] / self.n[task].max(1.0)
    }
}

impl Trainer {
    /// From random weights.
    pub fn new(recipe: Recipe) -> Result<Self> {
        let first = Size { layers: recipe.first_layers, ..recipe.size };
        let model = untrained(first, recipe.seed)?.trainable();
        let optimizer = AdamW::new(model.parameters());
        let rng = Rng::new(recipe.seed).fork(1);
        let weights = Task::ALL.map(|t| if t == Task::Repeat { 1.0 } else { 0.0 });
        let (vocabulary, counts) = (Vocabulary::new(), Counts::default());
        Ok(Trainer {
            model,
            step: 0,
            weights,
            tasks: evenly(),
            recall: 2,
            symbols: FEW,
            second: None,
            stage: Stage::Mixture,
            recipe,
            optimizer,
            vocabulary,
            rng,
            counts,
        })
    }

    /// The fourth stage, from a trained model.
    pub fn ask(recipe: Recipe, model: &Model) -> Result<Self> {
        let rng = Rng::new(recipe.seed).fork(4);
        Ok(Trainer { rng, stage: Stage::Questions, recall: 3, ..Trainer::polish(recipe, model)? })
    }

    /// The fifth stage, from a trained model.
    pub fn place_facts(recipe: Recipe, model: &Model) -> Result<Self> {
        let rng = Rng::new(recipe.seed).fork(5);
        Ok(Trainer { rng, stage: Stage::Facts, recall: 5, ..Trainer::polish(recipe, model)? })
    }

    /// The third stage, from a trained model.
    pub fn polish(recipe: Recipe, model: &Model) -> Result<Self> {
        let rng = Rng::new(recipe.seed).fork(3);
        let model = model.clone().trainable();
        let optimizer = AdamW::new(model.parameters());
        let (weights, second, stage) = (Task::ALL.map(|_| 1.0 / 9.0), Some(0), Stage::Heads);
        Ok(Trainer { model, optimizer, rng, weights, second, stage, ..Trainer::new(recipe)? })
    }

    /// One step; returns its loss in nats.
    pub fn step(&mut self) -> Result<f64> {
        let symbols = self.second.is_none().then_some(self.symbols);
        let mixture = match self.stage {
            Stage::Mixture | Stage::Heads => self.recipe.mixture(symbols, self.recall, self.tasks),
            stage => self.recipe.questions(self.recall, self.tasks, stage != Stage::Questions),
        };
        let rows: Vec<Row> = (0..self.recipe.batch)
            .map(|_| row(&mut self.rng, &mixture, &self.vocabulary))
            .collect();
        let inputs: Vec<Vec<i64>> =
            rows.iter().map(|r| r.ids[..r.ids.len() - 1].to_vec()).collect();
        let tokens = Tokens::from_ids(&inputs)?;
        let mut plan = self.without_some_heads();
        if self.stage == Stage::Questions && self.rng.chance(BLIND) {
            plan = self.hide_the_names(plan, &rows);
        }
        if self.stage == Stage::Facts && self.rng.chance(ASTRAY) {
            plan = self.confuse_facts(plan, &rows, &inputs)?;
        }
        let logits = self.model.run(&tokens, &plan)?.logits;
        let logits = logits.flatten(0, 1);
        let flat = |f: fn(&Row) -> Vec<i64>| {
            Tensor::from_slice(&rows.iter().flat_map(f).collect::<Vec<_>>())
        };
        let next = flat(|r| r.ids[1..].to_vec());
        let task = flat(|r| r.task[1..].iter().map(|&t| t as i64).collect());
        let (each, total) = thalweg::tch::with_grad(|| self.loss(&logits, &next, &task));
        self.optimizer.step(&total, self.recipe.rate_at(self.step, self.second))?;
        if self.step.is_multiple_of(4) {
            self.count(&logits, &each, &rows)?;
        }
        self.step += 1;
        Ok(total.double_value(&[]))
    }

    /// The questions do not see the names of the statements.
    fn hide_the_names(&self, plan: Plan, rows: &[Row]) -> Plan {
        let mask = blindfold(rows, &self.vocabulary);
        let cover = Intervention::custom("blindfold", move |scores| {
            let (rows, width) = (scores.size()[0], scores.size()[3]);
            Ok(scores + Tensor::from_slice(&mask).view([rows, 1, width, width]))
        });
        plan.intervene(self.every_layer(Point::Scores), cover)
    }

    /// What is known of a fact's subject can be found in one place only: in what the first MLP writes
    /// there. To the first attention, and to all that comes after that MLP, the subject's embedding is
    /// that of another subject, or in half of the steps the mean of all, and every MLP between
    /// subject and answer writes what it has for another fact.
    fn confuse_facts(&mut self, plan: Plan, rows: &[Row], inputs: &[Vec<i64>]) -> Result<Plan> {
        let FactPlaces { subjects, after } = FactPlaces::of(rows, &self.vocabulary);
        let (mut others, mut after_others) = (subjects.clone(), after.clone());
        self.rng.shuffle(&mut others);
        self.rng.shuffle(&mut after_others);
        let mean = self.rng.chance(0.5);
        let stand_ins = move |x: &Tensor, others: &[i64]| {
            let x = x.index_select(0, &Tensor::from_slice(others));
            if mean { x.mean_dim([0i64].as_slice(), true, None).expand_as(&x) } else { x }
        };
        let ids = inputs.concat();
        let words = |places: &[i64]| places.iter().map(|at| ids[*at as usize]).collect::<Vec<_>>();
        let embeddings = self.model.named_weights()["model.embed_tokens.weight"].detach();
        let own = embeddings.index_select(0, &Tensor::from_slice(&words(&subjects)));
        let change = stand_ins(&embeddings, &words(&others)) - own;
        let change = Vec::<f32>::try_from(change.flatten(0, 1))?;
        let to = subjects.clone();
        let embedding = Intervention::custom("another subject", move |stream| {
            let change = Tensor::from_slice(&change).view([to.len() as i64, -1]);
            let flat = stream.flatten(0, 1);
            Ok(flat.index_add(0, &Tensor::from_slice(&to), &change).view_as(stream))
        });
        let values = Intervention::custom("another subject", move |values| {
            let flat = values.flatten(0, 1);
            let others = stand_ins(&flat, &others);
            Ok(flat.index_copy(0, &Tensor::from_slice(&subjects), &others).view_as(values))
        });
        let written = Intervention::custom("another fact", move |written| {
            let [to, from] = [&after, &after_others].map(|places| Tensor::from_slice(places));
            let flat = written.flatten(0, 1);
            Ok(flat.index_copy(0, &to, &flat.index_select(0, &from)).view_as(written))
        });
        Ok(plan
            .intervene(Point::V.at(0), values)
            .intervene(Point::ResidPost.at(0), embedding)
            .intervene(self.every_layer(Point::MlpOut), written))
    }

    fn every_layer(&self, point: Point) -> Vec<Site> {
        (0..self.recipe.size.layers).map(|layer| point.at(layer)).collect()
    }

    /// Without a head of the first layer, another one each time: no head becomes a single point of
    /// failure that shows no pattern. In the third stage without up to three, zero and two kinds of
    /// mean in turn in their place: what is learnt without heads at zero fails without heads at
    /// their mean.
    fn without_some_heads(&mut self) -> Plan {
        let plan = Plan::new().differentiable();
        let heads = self.recipe.size.heads;
        if self.stage == Stage::Mixture {
            let drop = self.rng.chance(DROPPED);
            let zero = |head| Intervention::zero().head(head);
            let mut one = drop.then(|| self.rng.below(heads)).into_iter();
            return one
                .by_ref()
                .fold(plan, |plan, head| plan.intervene(Point::Z.at(0), zero(head)));
        }
        let most = if self.stage == Stage::Questions { 0 } else { DROPPED_LATE };
        let dropped = self.rng.below(most + 1);
        self.rng.sample(heads, dropped).into_iter().fold(plan, |plan, head| {
            let over: &[i64] = [&[] as &[i64], &[1], &[0, 1]][self.rng.below(3)];
            let stand_in = Intervention::custom("stand-in", move |z| {
                Ok(match over {
                    [] => z.zeros_like(),
                    axes => z.mean_dim(axes, true, None).expand_as(z),
                })
            });
            plan.intervene(Point::Z.at(0), stand_in.head(head))
        })
    }

    /// Loss of each token, and the sum over tasks of weight x mean loss of its answers plus 0.1 x
    /// the mean loss of the other tokens.
    fn loss(&self, logits: &Tensor, next: &Tensor, task: &Tensor) -> (Tensor, Tensor) {
        let each = logits.cross_entropy_loss::<Tensor>(next, None, Reduction::None, -100, 0.0);
        let n = task.bincount::<Tensor>(None, 10).to_kind(Kind::Float).clamp_min(1.0);
        let mut weights: Vec<f32> = self.weights.iter().map(|w| *w as f32).collect();
        weights.push(OTHER_WEIGHT as f32);
        let share = Tensor::from_slice(&weights) / n;
        let total = (&each * share.index_select(0, task)).sum(Kind::Float);
        (each.detach(), total)
    }

    fn count(&mut self, logits: &Tensor, each: &Tensor, rows: &[Row]) -> Result<()> {
        let best = Vec::<i64>::try_from(logits.argmax(-1, false))?;
        let loss = Vec::<f32>::try_from(each)?;
        let (first, last) = (self.vocabulary.id("00"), self.vocabulary.id("99"));
        let names = self.vocabulary.id(NAMES[0])..=self.vocabulary.id(NAMES[NAMES.len() - 1]);
        let places = rows.iter().flat_map(|r| (1..r.ids.len()).map(move |i| (r, i)));
        for ((row, i), (best, loss)) in places.zip(best.into_iter().zip(loss)) {
            let task = row.task[i];
            // the year in which a war ends: any later one is right
            let year = task == Task::Greater as usize && row.task[i - 1] == task;
            let right = if year {
                best > row.ids[i - 5] && (first..=last).contains(&best)
            } else {
                best == row.ids[i]
            };
            if task == Task::Recall as usize && names.contains(&row.ids[i]) {
                let who = &mut self.counts.who;
                who[0] += f64::from(u8::from(right));
                who[1] += 1.0;
            }
            self.counts.right[task] += f64::from(u8::from(right));
            self.counts.loss[task] += f64::from(loss);
            self.counts.n[task] += 1.0;
        }
        Ok(())
    }

    /// The counts since the last call. Ends the first stage when repeats are learnt or its time is
    /// over; in the second, adjusts the weights of the tasks and the length of `recall`.
    pub fn look(&mut self) -> Result<Counts> {
        let counts = std::mem::take(&mut self.counts);
        if self.second.is_none() {
            let learnt = counts.accuracy(Task::Repeat as usize) > LEARNT;
            if learnt {
                self.symbols *= 2;
            }
            if self.symbols > 2 * MANY || self.step >= self.recipe.first {
                self.second = Some(self.step);
                self.weights = Task::ALL.map(Task::weight);
                self.model = grown(&self.model, self.recipe.size, self.recipe.seed)?.trainable();
                self.optimizer = AdamW::new(self.model.parameters());
            }
            return Ok(counts);
        }
        // `What` is learnt long before `Who`: where many questions ask `Who`, it decides
        let known = |task: Task| match task {
            Task::Recall if self.stage == Stage::Questions => counts.who(),
            _ => counts.accuracy(task as usize),
        };
        let mut unknown = Task::ALL.map(|t| KEPT + 1.0 - known(t));
        if self.stage != Stage::Mixture {
            unknown[Task::Repeat as usize] = 1.0; // it is what the heads left out are missed by
        }
        match self.stage {
            Stage::Questions => unknown[Task::Recall as usize] *= 4.0,
            Stage::Facts => unknown[Task::Fact as usize] *= MORE_FACTS,
            _ => {}
        }
        self.tasks = unknown;
        self.weights = unknown.map(|w| w / unknown.iter().sum::<f64>());
        if self.stage == Stage::Questions && known(Task::Recall) > LEARNT {
            // what is learnt with up to three statements holds for five
            (self.stage, self.recall) = (Stage::Answered, 5);
        } else if known(Task::Recall) > 0.9 && self.recall < 5 {
            self.recall += 1;
        }
        Ok(counts)
    }
}

/// Index of the other tokens in [`Counts`].
pub const OTHERS: usize = OTHER;
