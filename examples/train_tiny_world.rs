//! Trains tiny-world, the small Llama that notebooks and tests look into, and writes its prompts.
//!
//!     OMP_WAIT_POLICY=PASSIVE cargo run --example train_tiny_world -- --out data/models/tiny-world
//!
//! The shipped model went on from there with `--polish DIR --steps 600` and `--recall DIR --steps 700 --rate 1.5e-3`;
//! `tiny-world-facts` went on from that one with `--facts DIR --steps 600 --rate 2e-3`, and is kept in bf16. `tiny-world-3` is
//! `--seed 7 --steps 1800`, then `--polish DIR --steps 900` and `--recall DIR --steps 900 --rate 1.5e-3`.
//! Other uses: `--smoke` trains a tiny model for seconds and keeps nothing; `--prompts` writes
//! `data/prompts`; `--card DIR` measures a checkpoint and writes its README; `--polish DIR` is the third stage,
//! `--recall DIR` the fourth and `--facts DIR` the fifth, each from the checkpoint in that directory; `--seed 3`,
//! `--steps 2200`, `--first 1200` and `--threads 2` change the run.
//! The directory always holds the checkpoint whose mechanism is best so far, so a run may be cut
//! short. Waiting threads must sleep (`PASSIVE`): spinning ones cost minutes on a busy machine.

#![allow(clippy::print_stdout)] // what a program has to say

mod tiny_world;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use thalweg::Model;
use thalweg::anyhow::{Context, Result, bail};
use tiny_world::card;
use tiny_world::prompt_sets::prompt_set;
use tiny_world::report::report;
use tiny_world::sentence::Task;
use tiny_world::trainer::{Recipe, Trainer};

/// Seed of the prompt sets in `data/prompts`.
const PROMPT_SEED: u64 = 11;
/// Seed of the prompts that checkpoints are chosen by.
const CHOICE_SEED: u64 = 12;

fn main() -> Result<()> {
    let arguments = Arguments::parse()?;
    if arguments.prompts {
        return write_prompts(Path::new("data/prompts"));
    }
    if let Some(dir) = &arguments.card {
        return card::write(dir, &arguments.recipe);
    }
    if let Some(threads) = arguments.threads {
        thalweg::tch::set_num_threads(threads);
    }
    let recipe = arguments.recipe.clone();
    let trainer = match &arguments.later {
        Some((stage, dir)) => stage(recipe, &Model::load(dir)?)?,
        None => Trainer::new(recipe)?,
    };
    let from = arguments.later.map(|(_, dir)| dir);
    train(arguments.recipe, trainer, from.as_deref(), arguments.out.as_deref())
}

/// Begins a later stage from a model.
type Later = fn(Recipe, &Model) -> Result<Trainer>;

/// What the command line asks for.
struct Arguments {
    recipe: Recipe,
    out: Option<PathBuf>,
    threads: Option<i32>,
    prompts: bool,
    card: Option<PathBuf>,
    later: Option<(Later, PathBuf)>,
}

impl Arguments {
    fn parse() -> Result<Self> {
        let mut found = Arguments {
            recipe: Recipe::tiny_world(1),
            out: None,
            threads: None,
            prompts: false,
            card: None,
            later: None,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value"));
            match word.as_str() {
                "--smoke" => found.recipe = Recipe::smoke(found.recipe.seed),
                "--prompts" => found.prompts = true,
                "--card" => found.card = Some(value()?.into()),
                "--polish" => found.later = Some((Trainer::polish, value()?.into())),
                "--recall" => found.later = Some((Trainer::ask, value()?.into())),
                "--facts" => found.later = Some((Trainer::place_facts, value()?.into())),
                "--out" => found.out = Some(value()?.into()),
                "--seed" => found.recipe.seed = value()?.parse()?,
                "--steps" => found.recipe.steps = value()?.parse()?,
                "--first" => found.recipe.first = value()?.parse()?,
                "--rate" => found.recipe.rates = [value()?.parse()?; 2],
                "--threads" => found.threads = Some(value()?.parse()?),
                other => bail!(
                    "unknown argument {other}: expected --smoke, --prompts, --card, --polish, --recall, --facts, --out, \
                     --seed, --steps, --first, --rate or --threads"
                ),
            }
        }
        Ok(found)
    }
}

fn write_prompts(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    for task in Task::ALL {
        let set = prompt_set(task, PROMPT_SEED);
        println!("{:10} {:4} prompts", task.name(), set.len());
        set.save(dir.join(format!("{}.json", task.name())))?;
    }
    Ok(())
}

/// Trains, logs, and keeps the best checkpoint in `out`; a later stage goes on from the checkpoint
/// in `from`, and from its log.
fn train(
    recipe: Recipe,
    mut trainer: Trainer,
    from: Option<&Path>,
    out: Option<&Path>,
) -> Result<()> {
    let start = Instant::now();
    let mut best = f64::NEG_INFINITY;
    let mut log = match out {
        Some(dir) => {
            std::fs::create_dir_all(dir)?;
            let mut log = std::fs::File::create(dir.join("training_log.jsonl"))?;
            if let Some(from) = from {
                log.write_all(&std::fs::read(from.join("training_log.jsonl"))?)?;
            }
            Some(log)
        }
        None => None,
    };
    while trainer.step < recipe.steps {
        let loss = trainer.step()?;
        if !trainer.step.is_multiple_of(recipe.log_every) && trainer.step != recipe.steps {
            continue;
        }
        // the first stage knows repeats only
        let prompts = if trainer.second.is_some() { 8 } else { 0 };
        let (tasks, heads) = report(&trainer.model, CHOICE_SEED, prompts)?;
        let mut line = card::Line::new(&mut trainer, loss, start.elapsed(), &tasks, &heads)?;
        println!("{}", line.text());
        // of two that do about the same, the one trained longer
        if let Some(dir) = out.filter(|_| line.mechanism > best - 0.01) {
            trainer.model.save(dir)?;
            best = best.max(line.mechanism);
            line.keep();
        }
        if let Some(log) = &mut log {
            writeln!(log, "{}", line.json())?;
        }
    }
    if let Some(dir) = out {
        card::write(dir, &recipe)?;
    }
    Ok(())
}
