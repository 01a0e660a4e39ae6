//! The training itself: stages, the loss by task, weights that follow what is not known yet.

use super::rows::{Mixture, OTHER, Row, evenly, row};
use super::sentence::{Level, Split, Task};
use super::words::{BOS, Vocabulary};
use std::collections::HashMap;
use thalweg::anyhow::{Result, anyhow};
use thalweg::model::AdamW;
use thalweg::rng::Rng;
use thalweg::tch::{Kind, Reduction, Tensor};
use thalweg::{Config, Intervention, Model, Plan, Point, Tokens};
use tokenizers::Tokenizer;

/// Loss weight of the tokens that are no answers.
const OTHER_WEIGHT: f64 = 0.1;

/// Size of the part that all embeddings share at the start, beside that of their own.
const SHARED: f64 = 1.5;
/// Share of its weight that a task keeps once it is known.
const KEPT: f64 = 0.15;
/// Accuracy on repeats that doubles the number of symbols.
const LEARNT: f64 = 0.9;
/// Share of steps that leave out a head of the first layer.
const DROPPED: f64 = 0.7;
/// Most heads of the first layer that a step of the third stage leaves out.
const DROPPED_LATE: usize = 3;
/// Symbols at the start: few are matched soon, and then more are quickly added.
const FEW: usize = 16;
/// Symbols when all are in use; the stage ends after one more round, with words among them.
const MANY: usize = 64;

/// A model's size and the course of its training.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Decides the weights at the start and every row.
    pub seed: u64,
    /// Layers and widths; the rest of the configuration follows.
    pub size: Size,
    /// Optimizer steps in all.
    pub steps: usize,
    /// Most steps of the first stage, which sees repeats only and ends once they are learnt.
    pub first: usize,
    /// Layers that the first stage trains; the others join afterwards.
    pub first_layers: usize,
    /// Rows in a step.
    pub batch: usize,
    /// Learning rate of the first stage, and the highest of the second.
    pub rates: [f64; 2],
    /// Steps between two lines of the log.
    pub log_every: usize,
}

/// The dimensions of a model.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Blocks.
    pub layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Query heads; half as many key/value heads.
    pub heads: usize,
    /// Neurons of an MLP.
    pub d_mlp: usize,
}

impl Recipe {
    /// The shipped model.
    pub fn tiny_world(seed: u64) -> Self {
        let size = Size { layers: 4, d_model: 128, heads: 8, d_mlp: 344 };
        Recipe {
            seed,
            size,
            steps: 3000,
            first: 1200,
            first_layers: 2,
            batch: 48,
            rates: [4e-3, 2e-3],
            log_every: 50,
        }
    }

    /// A model that trains in seconds, and yet its induction heads form.
    pub fn smoke(seed: u64) -> Self {
        let size = Size { layers: 2, d_model: 64, heads: 4, d_mlp: 128 };
        Recipe {
            seed,
            size,
            steps: 300,
            first: 250,
            first_layers: 2,
            batch: 32,
            rates: [6e-3, 2e-3],
            log_every: 50,
        }
    }

    /// The rows of a step: first repeats of few symbols, then the whole mixture.
    fn mixture(&self, symbols: Option<usize>, recall: usize, tasks: [f64; 9]) -> Mixture {
        let split = Split::Train;
        if let Some(symbols) = symbols {
            return Mixture {
                length: 40,
                repeats: 1.0,
                tasks,
                level: Level::first(symbols),
                split,
            };
        }
        let statement = if recall == 2 { 0.3 } else { 0.1 };
        let level = Level { recall, statement, ..Level::full() };
        Mixture { length: 64, repeats: 0.25, tasks, level, split }
    }

    /// Warm-up over 100 steps; from the `start` of the second stage on once more, and a cosine down
    /// to 2 %.
    fn rate_at(&self, step: usize, start: Option<usize>) -> f64 {
        let warm = |steps: usize| ((steps + 1) as f64 / 100.0).min(1.0);
        let Some(start) = start else { return self.rates[0] * warm(step) };
        let share = (step - start) as f64 / (self.steps - start).max(1) as f64;
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * share).cos());
        self.rates[1] * warm(step - start) * (0.02 + 0.98 * cosine)
    }
}

/// A model with random weights, std 0.5/sqrt(d): the usual 0.02 forbids induction heads. The
/// embeddings start with a part that all words share, so that the first layer can attend by
/// position from the beginning.
pub fn untrained(size: Size, seed: u64) -> Result<Model> {
    let vocabulary = Vocabulary::new();
    let (d, d_head) = (size.d_model, size.d_model / size.heads);
    let config = Config::from_json(&serde_json::json!({
        "model_type": "llama", "hidden_act": "silu", "hidden_size": d,
        "intermediate_size": size.d_mlp, "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads, "num_key_value_heads": size.heads / 2,
        "head_dim": d_head, "vocab_size": vocabulary.len(), "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false,
        "bos_token_id": vocabulary.id(BOS), "eos_token_id": null,
    }))?;
    let mut rng = Rng::new(seed);
    let std = 0.5 / (d as f64).sqrt();
    let mut normal =
        |rows: usize, columns: usize| rng.normal_tensor(&[rows as i64, columns as i64]) * std;
    let ones = || Tensor::ones([d as i64], (Kind::Float, thalweg::tch::Device::Cpu));
    let mut tensors = HashMap::new();
    let mut put = |name: String, tensor: Tensor| tensors.insert(name, tensor);
    let shared = normal(1, d) * SHARED;
    put("model.embed_tokens.weight".into(), normal(vocabulary.len(), d) + shared);
    for layer in 0..size.layers {
        let kv = size.heads / 2 * d_head;
        for (name, rows, columns) in [
            ("self_attn.q_proj", d, d),
            ("self_attn.k_proj", kv, d),
            ("self_attn.v_proj", kv, d),
            ("self_attn.o_proj", d, d),
            ("mlp.gate_proj", size.d_mlp, d),
            ("mlp.up_proj", size.d_mlp, d),
            ("mlp.down_proj", d, size.d_mlp),
        ] {
            put(format!("model.layers.{layer}.{name}.weight"), normal(rows, columns));
        }
        for name in ["input_layernorm", "post_attention_layernorm"] {
            put(format!("model.layers.{layer}.{name}.weight"), ones());
        }
    }
    put("model.norm.weight".into(), ones());
    put("lm_head.weight".into(), normal(vocabulary.len(), d));
    let tokenizer: Tokenizer = vocabulary
        .tokenizer_json()
        .to_string()
        .parse()
        .map_err(|error| anyhow!("the tokenizer does not load: {error}"))?;
    Model::from_parts(config, tensors, Some(tokenizer))
}

/// The model with as many more layers as `size` asks for, random but for what they write, which is
/// nothing yet: the function stays what it was.
fn grown(model: &Model, size: Size, seed: u64) -> Result<Model> {
    let whole = untrained(size, seed ^ 1)?;
    let known = model.named_weights();
    whole.with_weights(|name, fresh| {
        let silent = name.contains("o_proj") || name.contains("down_proj");
        Ok(match known.get(name) {
            Some(weight) => weight.detach(),
            None if silent => fresh.zeros_like(),
            None => fresh.shallow_clone(),
        })
    })
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
    /// The third stage: a trained model learns to do without any few heads of its first layer.
    polishing: bool,
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
}

impl Counts {
    /// Share of a task's answers that were the most likely word.
    pub fn accuracy(&self, task: usize) -> f64 {
        self.right[task] / self.n[task].max(1.0)
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
            polishing: false,
            recipe,
            optimizer,
            vocabulary,
            rng,
            counts,
        })
    }

    /// The third stage, from a trained model.
    pub fn polish(recipe: Recipe, model: &Model) -> Result<Self> {
        let rng = Rng::new(recipe.seed).fork(3);
        let model = model.clone().trainable();
        let optimizer = AdamW::new(model.parameters());
        let (weights, second, polishing) = (Task::ALL.map(|_| 1.0 / 9.0), Some(0), true);
        Ok(Trainer { model, optimizer, rng, weights, second, polishing, ..Trainer::new(recipe)? })
    }

    /// One step; returns its loss in nats.
    pub fn step(&mut self) -> Result<f64> {
        let symbols = self.second.is_none().then_some(self.symbols);
        let mixture = self.recipe.mixture(symbols, self.recall, self.tasks);
        let rows: Vec<Row> = (0..self.recipe.batch)
            .map(|_| row(&mut self.rng, &mixture, &self.vocabulary))
            .collect();
        let inputs: Vec<Vec<i64>> =
            rows.iter().map(|r| r.ids[..r.ids.len() - 1].to_vec()).collect();
        let tokens = Tokens::from_ids(&inputs)?;
        let plan = self.without_some_heads();
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

    /// Without a head of the first layer, another one each time: no head becomes a single point of
    /// failure that shows no pattern. In the third stage without up to three, zero and two kinds of
    /// mean in turn in their place: what is learnt without heads at zero fails without heads at
    /// their mean.
    fn without_some_heads(&mut self) -> Plan {
        let plan = Plan::new().differentiable();
        let heads = self.recipe.size.heads;
        if !self.polishing {
            let drop = self.rng.chance(DROPPED);
            let zero = |head| Intervention::zero().head(head);
            let mut one = drop.then(|| self.rng.below(heads)).into_iter();
            return one
                .by_ref()
                .fold(plan, |plan, head| plan.intervene(Point::Z.at(0), zero(head)));
        }
        let dropped = self.rng.below(DROPPED_LATE + 1);
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
        let known = |task: Task| counts.accuracy(task as usize);
        let mut unknown = Task::ALL.map(|t| KEPT + 1.0 - known(t));
        if self.polishing {
            unknown[Task::Repeat as usize] = 1.0; // it is what the heads left out are missed by
        }
        self.tasks = unknown;
        self.weights = unknown.map(|w| w / unknown.iter().sum::<f64>());
        if known(Task::Recall) > 0.9 && self.recall < 5 {
            self.recall += 1;
        }
        Ok(counts)
    }
}

/// Index of the other tokens in [`Counts`].
pub const OTHERS: usize = OTHER;
