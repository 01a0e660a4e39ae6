//! The training log, and the card beside the weights.

use super::report::{Accuracy, Heads, Scored, members, report};
use super::sentence::Task;
use super::trainer::{OTHERS, Recipe, Trainer};
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;
use thalweg::Model;
use thalweg::anyhow::Result;

/// The seed of the prompts that the card reports on: none of them chose the checkpoint.
pub const CARD_SEED: u64 = 13;

/// One line of the training log.
#[derive(Debug)]
pub struct Line {
    /// How much of what is asked of the model it does, 1 for each thing done; not its loss.
    pub mechanism: f64,
    json: serde_json::Value,
    text: String,
}

impl Line {
    /// From a report, and the trainer's counts since the last line.
    pub fn new(
        trainer: &mut Trainer,
        loss: f64,
        time: Duration,
        tasks: &[(Task, Accuracy)],
        heads: &Heads,
    ) -> Result<Self> {
        let weights = trainer.weights;
        let counts = trainer.look()?;
        let rounded = |x: f64| (x * 1000.0).round() / 1000.0;
        let mechanism = mechanism(tasks, heads);
        let accuracy: serde_json::Map<_, _> = tasks
            .iter()
            .map(|(t, a)| {
                let (test, held) = (rounded(a.of("test")), rounded(a.of("held out")));
                let train = rounded(counts.accuracy(*t as usize));
                (t.name().to_string(), serde_json::json!([train, test, held]))
            })
            .collect();
        let top = |ranking: &[Scored]| {
            let best = ranking.iter().take(3);
            best.map(|h| serde_json::json!([h.0, h.1, rounded(h.2)])).collect::<Vec<_>>()
        };
        let all = |values: &[f64]| values.iter().map(|v| rounded(*v)).collect::<Vec<_>>();
        let json = serde_json::json!({
            "step": trainer.step, "seconds": time.as_secs(), "loss": rounded(loss),
            "other_loss": rounded(counts.loss(OTHERS)), "recall_k": trainer.recall,
            "weights": all(&weights), "train_test_heldout": accuracy,
            "previous": top(&heads.previous), "induction": top(&heads.induction),
            "repeat_loss": rounded(heads.base), "without_previous": all(&heads.without_previous),
            "without_induction": all(&heads.without_induction),
            "without_random": rounded(heads.without_random), "mechanism": rounded(mechanism),
        });
        let mut text = format!(
            "{:5} {:5}s s{} k{}",
            trainer.step,
            time.as_secs(),
            trainer.symbols,
            trainer.recall
        );
        for (t, a) in tasks {
            let (train, test, held) =
                (counts.accuracy(*t as usize), a.of("test"), a.of("held out"));
            let _ = write!(text, " {} {train:.2}/{test:.2}/{held:.2}", &t.name()[..3]);
        }
        let best = |r: &[Scored]| format!("{:.2}@L{}H{}", r[0].2, r[0].0, r[0].1);
        let _ = write!(
            text,
            " | prev {} x{} ind {} x{} | base {:.2} -prev {:.2} -ind {:.2} -rnd {:.2} | m {mechanism:.2}",
            best(&heads.previous),
            members(&heads.previous).len(),
            best(&heads.induction),
            members(&heads.induction).len(),
            heads.base,
            heads.without_previous.last().unwrap_or(&0.0),
            heads.without_induction.last().unwrap_or(&0.0),
            heads.without_random,
        );
        Ok(Line { mechanism, json, text })
    }

    /// For the terminal.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// For the file.
    pub fn json(&self) -> &serde_json::Value {
        &self.json
    }
}

/// Tasks that a checkpoint must do before it ships.
pub const REQUIRED: [Task; 6] =
    [Task::Repeat, Task::Ioi, Task::Fact, Task::Agree, Task::Pronoun, Task::Sentiment];

/// How much of what is required a checkpoint meets: a point for each task at 0.95, for a
/// previous-token head at 0.8, an induction head at 0.6, each set that costs 1 nat when ablated,
/// random heads that cost less than 0.2; a tenth of a point for each further task.
fn mechanism(tasks: &[(Task, Accuracy)], heads: &Heads) -> f64 {
    let share = |value: f64, goal: f64| (value / goal).clamp(0.0, 1.0);
    let mut sum = 0.0;
    for (task, accuracy) in tasks {
        let met = share(
            accuracy.of("test").max(accuracy.of("held out") * f64::from(task_held(*task))),
            0.95,
        );
        sum += if REQUIRED.contains(task) { met } else { 0.1 * accuracy.of("test") };
    }
    sum += share(heads.previous[0].2, 0.8) + share(heads.induction[0].2, 0.6);
    sum += share(heads.without_previous.last().copied().unwrap_or(0.0), 1.0);
    sum += share(heads.without_induction.last().copied().unwrap_or(0.0), 1.0);
    sum + share(0.2, heads.without_random.max(0.01))
        + 0.1 * heads.previous[0].2
        + 0.1 * heads.induction[0].2
}

/// Tasks whose test prompts are all held out.
fn task_held(task: Task) -> u8 {
    u8::from([Task::Ioi, Task::Agree].contains(&task))
}

/// Writes `README.md` and what transformers wants beside the weights, for the checkpoint in `dir`.
pub fn write(dir: &Path, recipe: &Recipe, time: Duration) -> Result<()> {
    let model = Model::load(dir)?;
    let (tasks, heads) = report(&model, CARD_SEED, usize::MAX)?;
    std::fs::write(dir.join("README.md"), card(recipe, time, &model, &tasks, &heads))?;
    let tokenizer = serde_json::json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "unk_token": "<unk>",
        "pad_token": "<pad>", "model_max_length": 64,
    });
    std::fs::write(dir.join("tokenizer_config.json"), format!("{tokenizer:#}\n"))?;
    Ok(())
}

fn card(
    recipe: &Recipe,
    time: Duration,
    model: &Model,
    tasks: &[(Task, Accuracy)],
    heads: &Heads,
) -> String {
    let mut text = format!(
        "# tiny-world\n\nA Llama of {} weights ({} layers, d {}, {} query and {} key/value heads) that speaks a small \
         made-up language. Made by `examples/train_tiny_world.rs`: seed {}, {} steps of {} rows (at \
         most the first {} on repeats alone), learning rates {:?}, {} minutes on 2 shared CPU cores. The checkpoint is the one of the run whose \
         mechanism is best (`training_log.jsonl`, last field). Licence: MIT OR Apache-2.0.\n\n",
        model.config().n_params(),
        model.config().n_layers,
        model.config().d_model,
        model.config().n_heads,
        model.config().n_kv_heads,
        recipe.seed,
        recipe.steps,
        recipe.batch,
        recipe.first,
        recipe.rates,
        time.as_secs() / 60,
    );
    text += "## Heads\n\nOn BOS and a block of 24 symbols said twice; the loss in nats is that of the second copy, and \
             heads are replaced by their mean, the best first.\n\n";
    let list = |ranking: &[Scored]| {
        let shown = members(ranking).iter().map(|h| format!("L{}H{} {:.2}", h.0, h.1, h.2));
        shown.collect::<Vec<_>>().join(", ")
    };
    let nats = |v: &[f64]| v.iter().map(|x| format!("{x:+.2}")).collect::<Vec<_>>().join(", ");
    let _ = write!(
        text,
        "| set | heads and scores | loss added by ablating the first 1, 2, ... |\n|---|---|---|\n\
         | previous token | {} | {} |\n| induction | {} | {} |\n| random others, as many | mean of 8 draws | {:+.2} |\n\n\
         Loss of the second copy: {:.3} nats (chance among 64 symbols: 4.16).\n\n",
        list(&heads.previous),
        nats(&heads.without_previous),
        list(&heads.induction),
        nats(&heads.without_induction),
        heads.without_random,
        heads.base,
    );
    text += "## Tasks\n\nShare of fresh prompts answered rightly (`greater`: probability of later years less that of \
             the others). Held out: of a kind that training never showed.\n\n| task | kind | right | n |\n|---|---|---|---|\n";
    for (task, accuracy) in tasks {
        for (cell, (right, n)) in &accuracy.cells {
            let _ = writeln!(text, "| {} | {cell} | {:.3} | {n} |", task.name(), right / *n as f64);
        }
    }
    text
}
