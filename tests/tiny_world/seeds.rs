//! Further seeds of the same recipe do the same tasks, each by heads of its own; so does the model
//! that was taught to look its facts up elsewhere.

use thalweg::Model;
use thalweg::anyhow::Result;
use thalweg::tch::{Device, Kind};

use super::world::card::REQUIRED;
use super::world::prompt_sets::prompt_set;
use super::world::report::{COST, NOTHING, accuracy, asked, heads, members};
use super::world::sentence::Task;
use super::{SEED, data};

/// Directories under `data/models`.
const SEEDS: [&str; 2] = ["tiny-world-2", "tiny-world-3"];

fn load(name: &str) -> Result<Model> {
    Model::load_on(data(&format!("models/{name}")), Device::Cpu, Kind::Float)
}

#[test]
fn further_seeds_and_the_model_with_placed_facts_do_the_tasks() -> Result<()> {
    for name in SEEDS.into_iter().chain(["tiny-world-facts"]) {
        let model = load(name)?;
        for task in REQUIRED.into_iter().chain([Task::Icl]) {
            let mut set = prompt_set(task, SEED);
            set.prompts.retain(|p| asked(task, &p.split, &p.label));
            let found = accuracy(&model, &set)?;
            let (all, worst) = (found.of(""), found.worst(task));
            assert!(all >= 0.98 && worst >= 0.9, "{name}, {}: {found:?}", task.name());
        }
        let later = accuracy(&model, &prompt_set(Task::Greater, SEED))?;
        assert!(later.of("") >= 0.8, "{name}: {later:?}");
    }
    Ok(())
}

#[test]
fn further_seeds_have_both_sets_of_heads_and_not_the_same_ones() -> Result<()> {
    let first = heads(&super::model()?, 32, SEED)?;
    let named = |heads: &[(usize, usize, f64)]| {
        heads.iter().map(|h| (h.0, h.1)).collect::<std::collections::BTreeSet<_>>()
    };
    for name in SEEDS {
        let model = load(name)?;
        let found = heads(&model, 32, SEED)?;
        let (previous, induction) = (found.previous[0], found.induction[0]);
        assert!(previous.2 >= 0.8 && induction.2 >= 0.6, "{name}: {previous:?} {induction:?}");
        assert!(induction.0 > previous.0, "{name}: {induction:?} must come after {previous:?}");
        let last = |v: &[f64]| v.last().copied().unwrap_or(0.0);
        assert!(last(&found.without_previous) >= COST, "{name}: {:?}", found.without_previous);
        assert!(last(&found.without_induction) >= COST, "{name}: {:?}", found.without_induction);
        let (with, without) = found.by_keys;
        assert!(with - without >= 0.5, "{name}: patched keys: from {with} to {without}");
        assert!(found.random() < NOTHING, "{name}: {:?}", found.without_random);
        let [own, shipped] = [&found, &first].map(|h| named(members(&h.previous)));
        assert_ne!(own, shipped, "{name} has the previous-token heads of tiny-world");
    }
    Ok(())
}
