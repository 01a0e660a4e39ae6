//! The shipped model does what its card says, and by the heads it says.

#[path = "../examples/tiny_world/mod.rs"]
pub(crate) mod world;

mod circuits;
mod questions;
mod seeds;

use std::collections::{HashMap, HashSet};

use thalweg::anyhow::Result;
use thalweg::prompts::Prompts;
use thalweg::rng::Rng;
use thalweg::tch::{Device, Kind};
use thalweg::{Model, Tokens};
use world::card::REQUIRED;
use world::prompt_sets::prompt_set;
use world::report::{COST, Heads, NOTHING, accuracy, asked, heads};
use world::rows::{Mixture, OTHER, evenly, row};
use world::sentence::{Draw, Level, Split, Task};
use world::trainer::{Recipe, Trainer, untrained};
use world::words::{NAMES, OBJECTS, Vocabulary};

/// A seed that neither training nor the choice of the checkpoint has used.
const SEED: u64 = 2026;

fn data(path: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(path)
}

fn model() -> Result<Model> {
    Model::load_on(data("models/tiny-world"), Device::Cpu, Kind::Float)
}

#[test]
fn the_words_of_the_vocabulary_are_its_tokens() -> Result<()> {
    let (model, vocabulary) = (model()?, Vocabulary::new());
    assert_eq!(model.config().d_vocab, vocabulary.len());
    for id in 0..vocabulary.len() as i64 {
        let word = vocabulary.word(id).expect("an id below the length has a word");
        assert_eq!((model.token(word)?, vocabulary.id(word)), (id, id), "{word}");
    }
    assert_eq!(model.tokens("Mary has a ball")?.ids()[0][0], vocabulary.id("<s>"));
    let error = model.token("xylophone").expect_err("this is no word of the vocabulary");
    assert!(error.to_string().contains("not in the vocabulary"), "{error}");
    Ok(())
}

#[test]
fn training_rows_never_hold_what_is_held_out_and_no_name_twice_in_two_sentences() {
    let level = Level::full();
    let mut rng = Rng::new(5);
    for _ in 0..300 {
        let mut draw = Draw::new(&mut rng, Split::Train);
        let mut said = HashSet::new();
        for task in [Task::Ioi, Task::Recall, Task::Pronoun, Task::Fact, Task::Greater, Task::Agree]
        {
            let Some(sentence) = draw.sentence(task, &level) else { continue };
            assert!(!sentence.held_out, "{:?}", sentence.words);
            let words: HashSet<_> = sentence.words.iter().copied().collect();
            for word in words.iter().filter(|w| NAMES.contains(w) || OBJECTS.contains(w)) {
                assert!(said.insert(*word), "{word} is in two sentences of one row");
            }
        }
    }
}

#[test]
fn rows_are_full_start_with_bos_and_score_every_task() {
    let (vocabulary, mut rng) = (Vocabulary::new(), Rng::new(6));
    let mixture = Mixture {
        length: 64,
        repeats: 0.3,
        recalls: 0.0,
        tasks: evenly(),
        level: Level::full(),
        split: Split::Train,
    };
    let mut scored = [0; OTHER + 1];
    for _ in 0..200 {
        let row = row(&mut rng, &mixture, &vocabulary);
        assert_eq!((row.ids.len(), row.task.len(), row.ids[0]), (64, 64, vocabulary.id("<s>")));
        assert!(!row.ids.contains(&vocabulary.id("<unk>")));
        row.task.iter().for_each(|t| scored[*t] += 1);
    }
    assert!(scored.iter().all(|n| *n > 20), "{scored:?}");
}

#[test]
fn a_repeated_item_follows_from_the_first_copy_and_filler_is_never_from_the_block() {
    let mut rng = Rng::new(7);
    for _ in 0..100 {
        let mut draw = Draw::new(&mut rng, Split::Test);
        let Some(s) = draw.sentence(Task::Repeat, &Level::full()) else { continue };
        for at in s.scored {
            let before = s.words[..at - 1].iter().rposition(|w| *w == s.words[at - 1]);
            let first = before.expect("the item before a scored one was said before");
            assert_eq!(s.words[first + 1], s.words[at], "{:?}", s.words);
        }
    }
}

#[test]
fn the_shipped_prompt_sets_are_what_their_generator_writes() -> Result<()> {
    for task in Task::ALL {
        let path = data(&format!("prompts/{}.json", task.name()));
        let set = Prompts::load(path)?;
        assert_eq!(set, prompt_set(task, set.seed), "{}", task.name());
        let texts: HashSet<_> = set.clean().into_iter().collect();
        assert!(texts.len() >= 512, "{} has {} prompts", task.name(), texts.len());
        for p in &set.prompts {
            let wrong = p.corrupt.values().any(|c| *c == p.clean);
            assert!(!wrong, "a corruption changes nothing: {}", p.clean);
        }
    }
    Ok(())
}

#[test]
fn prompt_sets_align_within_a_label() -> Result<()> {
    let model = model()?;
    for task in Task::ALL {
        let set = prompt_set(task, SEED);
        let labels: HashSet<&str> = set.labels().into_iter().collect();
        for label in labels {
            let aligned = set.labelled(label)?.aligned(&model)?;
            let end = aligned.position("END")?;
            assert_eq!(end + 1, aligned.length(), "{} {label}", task.name());
        }
    }
    let error =
        prompt_set(Task::Ioi, SEED).aligned(&model).expect_err("templates differ in length");
    assert!(error.to_string().contains(".labelled("), "{error}");
    Ok(())
}

#[test]
fn the_tasks_are_done_on_fresh_prompts_of_every_kind() -> Result<()> {
    let model = model()?;
    for task in REQUIRED.into_iter().chain([Task::Icl]) {
        let mut set = prompt_set(task, SEED);
        set.prompts.retain(|p| asked(task, &p.split, &p.label));
        let found = accuracy(&model, &set)?;
        let (all, worst) = (found.of(""), found.worst(task));
        assert!(all >= 0.98 && worst >= 0.95, "{} on {}: {found:?}", task.name(), set.len());
    }
    Ok(())
}

#[test]
fn a_war_ends_in_a_later_year_in_trained_and_held_out_years() -> Result<()> {
    let found = accuracy(&model()?, &prompt_set(Task::Greater, SEED))?;
    assert!(found.of("test") >= 0.8 && found.of("held out") >= 0.8, "{found:?}");
    Ok(())
}

#[test]
fn induction_is_a_set_of_heads_fed_by_a_set_of_previous_token_heads() -> Result<()> {
    let found = heads(&model()?, 64, SEED)?;
    let (previous, induction) = (found.previous[0], found.induction[0]);
    assert!(previous.2 >= 0.8, "best previous-token head: {previous:?}");
    assert!(induction.2 >= 0.6, "best induction head: {induction:?}");
    assert!(induction.0 > previous.0, "{induction:?} must come after {previous:?}");
    let last = |v: &[f64]| v.last().copied().unwrap_or(0.0);
    assert!(last(&found.without_previous) >= COST, "{:?}", found.without_previous);
    assert!(last(&found.without_induction) >= COST, "{:?}", found.without_induction);
    let (with, without) = found.by_keys;
    assert!(with - without >= 0.5, "patched keys lower the score from {with} to {without}");
    assert!(found.random() < NOTHING, "{:?}", found.without_random);
    Ok(())
}

#[test]
fn untrained_and_shuffled_weights_have_none_of_it() -> Result<()> {
    let fails = |found: &Heads| found.previous[0].2 < 0.5 && found.induction[0].2 < 0.3;
    let shipped = model()?;
    assert!(fails(&heads(&untrained(Recipe::tiny_world(1).size, 3)?, 16, SEED)?));
    assert!(fails(&heads(&shipped.shuffled(4)?, 16, SEED)?));
    Ok(())
}

#[test]
fn a_few_steps_of_training_lower_the_loss_and_repeat_exactly_from_the_seed() -> Result<()> {
    let mut losses = HashMap::<u64, Vec<f64>>::new();
    for seed in [1, 1, 2] {
        let mut trainer = Trainer::new(Recipe::smoke(seed))?;
        let run: Result<Vec<f64>> = (0..12).map(|_| trainer.step()).collect();
        let run = run?;
        assert!(run[11] < run[0], "{run:?}");
        let known = losses.entry(seed).or_insert_with(|| run.clone());
        let same = known.iter().zip(&run).all(|(a, b)| (a - b).abs() < 1e-4);
        assert!(same, "the same seed gave {known:?} and {run:?}");
    }
    assert_ne!(losses[&1], losses[&2]);
    let tokens = Tokens::from_ids(&[vec![1, 5, 6]])?;
    assert_eq!(untrained(Recipe::smoke(1).size, 1)?.logits(&tokens)?.size()[..2], [1, 3]);
    Ok(())
}
