//! The training log, and the card beside the weights.

use super::baselines::baselines;
use super::circuits::circuits;
use super::prompt_sets::prompt_set;
use super::report::{
    Accuracy, COST, Heads, NOTHING, Scored, accuracy, asked, fresh, heads, members, needed, values,
};
use super::sentence::Task;
use super::trainer::{OTHERS, Recipe, Trainer};
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;
use thalweg::anyhow::Result;
use thalweg::{Metric, Model};

/// The seed of the prompts that the card reports on: none of them chose the checkpoint.
pub const CARD_SEED: u64 = 13;

/// Seeds of prompts that the card takes together.
const SETS: u64 = 3;

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
            "other_loss": rounded(counts.loss(OTHERS)), "recall_k": trainer.recall, "who": rounded(counts.who()),
            "weights": all(&weights), "train_test_heldout": accuracy,
            "previous": top(&heads.previous), "induction": top(&heads.induction),
            "repeat_loss": rounded(heads.base), "without_previous": all(&heads.without_previous),
            "without_induction": all(&heads.without_induction),
            "without_random": rounded(heads.random()), "mechanism": rounded(mechanism), "kept": false,
        });
        let mut text = format!(
            "{:5} {:5}s s{} k{} who {:.2}",
            trainer.step,
            time.as_secs(),
            trainer.symbols,
            trainer.recall,
            counts.who()
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
            heads.random(),
        );
        Ok(Line { mechanism, json, text })
    }

    /// For the terminal.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Marks the step as one whose weights were kept.
    pub fn keep(&mut self) {
        self.json["kept"] = true.into();
    }

    /// For the file.
    pub fn json(&self) -> &serde_json::Value {
        &self.json
    }
}

/// Tasks that a checkpoint must do before it ships.
pub const REQUIRED: [Task; 7] = [
    Task::Repeat,
    Task::Recall,
    Task::Ioi,
    Task::Fact,
    Task::Agree,
    Task::Pronoun,
    Task::Sentiment,
];

/// How much of what is required a checkpoint meets: a point for each task whose worst kind is at
/// 0.95, for a previous-token head at 0.8, an induction head at 0.6, each set that costs 1 nat when
/// ablated, random heads that cost less than half of what they may; a tenth of a point for each further task.
fn mechanism(tasks: &[(Task, Accuracy)], heads: &Heads) -> f64 {
    let share = |value: f64, goal: f64| (value / goal).clamp(0.0, 1.0);
    let mut sum = 0.0;
    for (task, accuracy) in tasks {
        let required = REQUIRED.contains(task);
        sum +=
            if required { share(accuracy.worst(*task), 0.95) } else { 0.1 * accuracy.of("test") };
    }
    sum += share(heads.previous[0].2, 0.8) + share(heads.induction[0].2, 0.6);
    sum += share(heads.without_previous.last().copied().unwrap_or(0.0), COST);
    sum += share(heads.without_induction.last().copied().unwrap_or(0.0), COST);
    sum + share(NOTHING / 2.0, heads.random().max(0.01))
        + 0.1 * heads.previous[0].2
        + 0.1 * heads.induction[0].2
}

/// Writes `README.md` and what transformers wants beside the weights, for the checkpoint in `dir`,
/// from measurements and from the training log beside it.
pub fn write(dir: &Path, recipe: &Recipe) -> Result<()> {
    let model = Model::load(dir)?;
    let heads = heads(&model, 32, CARD_SEED)?;
    let of = |task| Ok((task, accuracy(&model, &fresh(task, CARD_SEED, SETS))?));
    let tasks = Task::ALL.into_iter().map(of).collect::<Result<Vec<_>>>()?;
    let log = std::fs::read_to_string(dir.join("training_log.jsonl"))?;
    let lines = log.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let name = dir.file_name().map_or("tiny-world".into(), |name| name.to_string_lossy());
    let text = card(&name, recipe, &lines, &model, &tasks, &heads)
        + &shortcuts(&model)?
        + &circuits(&model, CARD_SEED)?
        + NOT_MET
        + if has_placed_facts(&lines) { FORMS } else { AT_THE_END };
    std::fs::write(dir.join("README.md"), text)?;
    let tokenizer = serde_json::json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "unk_token": "<unk>",
        "pad_token": "<pad>", "model_max_length": 64,
    });
    std::fs::write(dir.join("tokenizer_config.json"), format!("{tokenizer:#}\n"))?;
    Ok(())
}

fn card(
    name: &str,
    recipe: &Recipe,
    log: &[Value],
    model: &Model,
    tasks: &[(Task, Accuracy)],
    heads: &Heads,
) -> String {
    let config = model.config();
    let mut text = format!(
        "# {name}\n\nA Llama of {} weights ({} layers, d {}, {} query and {} key/value heads) that speaks a \
         small made-up language of nine tasks. Made by `examples/train_tiny_world.rs` with seed {}, {} rows of up to 64 \
         tokens a step, on CPU cores shared with other work: {}. The checkpoints are those whose mechanism was the best \
         (last but one field of `training_log.jsonl`; the loss chose nothing). Licence: MIT OR Apache-2.0.\n\n",
        config.n_params(),
        config.n_layers,
        config.d_model,
        config.n_heads,
        config.n_kv_heads,
        recipe.seed,
        recipe.batch,
        runs(log).join("; then "),
    );
    text += WORKED;
    if has_placed_facts(log) {
        text.truncate(text.trim_end().len());
        text = text + "\n" + PLACED;
    }
    text += "## Heads\n\nOn BOS and a block of 24 symbols said twice; the loss in nats is that of the second copy, and \
             heads are replaced by their mean, the best first. Random others are as many as it takes of the larger set to cost a \
             nat.\n\n";
    let list = |ranking: &[Scored]| {
        let shown = members(ranking).iter().map(|h| format!("L{}H{} {:.2}", h.0, h.1, h.2));
        shown.collect::<Vec<_>>().join(", ")
    };
    let nats = |v: &[f64]| v.iter().map(|x| format!("{x:+.2}")).collect::<Vec<_>>().join(", ");
    let _ = write!(
        text,
        "| set | heads and scores | loss added by ablating the first 1, 2, ... |\n|---|---|---|\n\
         | previous token | {} | {} |\n| induction | {} | {} |\n| {} random others | mean of {} draws | {:+.2} |\n\n\
         Loss of the second copy: {:.3} nats (chance among 64 symbols: 4.16).\n\n",
        list(&heads.previous),
        nats(&heads.without_previous),
        list(&heads.induction),
        nats(&heads.without_induction),
        needed(&heads.without_previous).max(needed(&heads.without_induction)),
        heads.without_random.len(),
        heads.random(),
        heads.base,
    );
    let _ = write!(
        text,
        "When only the keys of the induction heads come from the run without the previous-token set, their mean score \
         falls from {:.2} to {:.2}.\n\n",
        heads.by_keys.0, heads.by_keys.1
    );
    for (layer, head, cost) in &heads.silent {
        let _ = writeln!(
            text,
            "L{layer}H{head} belongs to neither set, yet ablating it alone costs {cost:.2} nats.\n"
        );
    }
    text += "## Tasks\n\nShare of fresh prompts answered rightly (`greater`: probability of later years less that of \
             the others). Held out: of a kind that training never showed.\n\n| task | kind | right | n |\n|---|---|---|---|\n";
    for (task, accuracy) in tasks {
        for (cell, (right, n)) in &accuracy.cells {
            let _ = writeln!(text, "| {} | {cell} | {:.3} | {n} |", task.name(), right / *n as f64);
        }
    }
    text
}

/// Whether the last run of a log was the fifth stage.
fn has_placed_facts(log: &[Value]) -> bool {
    runs(log).len() > 3
}

/// What each run of a log did: the steps begin anew where another one goes on.
fn runs(log: &[Value]) -> Vec<String> {
    let number = |line: &Value, key: &str| line[key].as_f64().unwrap_or(0.0);
    let parts = log.chunk_by(|a, b| number(a, "step") < number(b, "step"));
    let parts = parts.enumerate().filter_map(|(i, lines)| {
        let (last, kept) = (lines.last()?, lines.iter().rfind(|line| line["kept"] == true)?);
        let how = match i {
            0 => "",
            1 => " of the third stage from there (`--polish`)",
            2 => " of the fourth stage from there (`--recall`)",
            _ => " of the fifth stage from there (`--facts`)",
        };
        Some(format!(
            "{} steps{how} in {:.0} minutes, of which step {} was kept",
            number(last, "step"),
            number(last, "seconds") / 60.0,
            number(kept, "step")
        ))
    });
    parts.collect()
}

/// Shortcuts beside the model, on the prompts that it is asked to answer.
fn shortcuts(model: &Model) -> Result<String> {
    let mut text = String::from(
        "\n## Shortcuts\n\nFitted on 2,000 training sentences of the task and measured, like the model, by their first \
         guess: which words the prompt holds (logistic regression), one place or one answer, the last two words. Where \
         one comes within 0.05 of the model, the task shows no circuit.\n\n\
         | task | model | bag of words | place | trigram | |\n|---|---|---|---|---|---|\n",
    );
    for task in Task::ALL {
        let mut set = prompt_set(task, CARD_SEED);
        set.prompts.retain(|p| asked(task, &p.split, &p.label));
        let right = values(model, &set, |right, _| Metric::accuracy(right))?;
        let right = right.iter().sum::<f64>() / right.len() as f64;
        let b = baselines(task, &set, CARD_SEED)?;
        let note = if b.best() > right - 0.05 { "no circuit claimed" } else { "" };
        let _ = writeln!(
            text,
            "| {} | {right:.3} | {:.3} | {:.3} | {:.3} | {note} |",
            task.name(),
            b.bag,
            b.position,
            b.trigram
        );
    }
    Ok(text)
}

/// What the training needed, for whoever changes it.
const WORKED: &str = "\
## What the training needed

- Repeats first and alone, two layers first, 16 symbols first: there induction forms within 200 steps. Symbols double \
whenever 90 % of the repeats are right; then the other two layers join, writing nothing at first, and the whole mixture \
begins. With 64 symbols or four layers from the start, 1,000 steps did not suffice: the model learnt which items a block \
holds, or how far back it usually lies, instead of what followed what.
- Embeddings that share a common part at the start: attention by position then forms in the first layer. Larger embeddings \
delayed it.
- Each task's loss is a mean over its own answers. In the second stage weights in the loss and shares of the sentences both \
follow 1.15 - accuracy and nothing else: with a base weight for each task, `sentiment` stayed at its first form for 2,000 steps.
- A quarter of the `sentiment` sentences negated: with half of them the adjective alone says nothing, and nothing was learnt in \
1,700 steps. Seven in ten of the sentences have the second, harder form.
- Every beginning of an `ioi` sentence with every verb: with the second beginning mostly before its own verb, whose sentences are \
all in one order, the held-out order was always wrong.
- A head of the first layer left out, another one in each step: without that one head that shows no pattern carries repetition \
alone (ablating it costs 4 nats), and `recall` was never learnt beyond two statements. A third stage leaves out up to three, \
with zero and two kinds of mean in their place: what is learnt without heads at zero fails without heads at their mean.
- A fourth stage with a blindfold. Until then `Who has the key ?` was answered with any of the names. Hundreds of steps of little \
else, several questions in a row, did not change that: any name of the text is right in one of k cases, and to find the object gains \
nothing before its owner is read there. So in eight of ten steps these questions could not see the names of the statements, nor the \
two words after each. The owner had to be read at the object \
or at the full stop after it, where the first layer puts it, and within 200 steps the question found the place; it does so with five \
statements and without the blindfold all the same.

";

/// What the fifth stage needed.
const PLACED: &str = "\
- A fifth stage that confuses facts. Until then the last token looked a fact up in its own MLPs, as soon as the first layer had \
brought the country there. In eight of ten steps what is known of a fact's subject now stands in one place only, in what the first \
MLP writes there: to all else the subject's embedding is that of another subject, or the mean of all, and the \
MLPs between subject and answer write what they have for another fact. Four easier ways did not do. With those MLPs silent both \
places looked the fact up; with those of another fact there, attention read the answer from the subject's embedding, for 24 \
countries are few enough for a linear map; with another embedding only from the second layer on, the first layer's attention read \
it before; and with other subjects alone, never their mean, nothing was learnt in 200 steps. Where the subject saw no other \
word, or what it saw belonged to another subject, the MLPs at the end came back.

";

/// Checks that this checkpoint does not meet, or that nothing here measures yet.
const NOT_MET: &str = include_str!("not_met.md");
/// The same, before the fifth stage.
const AT_THE_END: &str = "\
- `fact`: noise on the subject is undone at the last token, not at the subject: the first layer already carries the country to
  the last token, and an MLP looks the answer up there. `tiny-world-facts` is `tiny-world` after a fifth stage, which moved it
  to the subject.
";
/// The same, after it.
const FORMS: &str = "\
- A fact in a form that training never showed for its country is sometimes wrong (held out above). Before the fifth stage, when
  the last token looked facts up, none was; with weights at half way between the two none is, and the MLPs of the last token
  matter most again.
";
