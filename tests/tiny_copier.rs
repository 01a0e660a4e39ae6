//! Induction forms in two layers, all at once: in the shipped checkpoints, and whenever it is
//! trained.

#[path = "../examples/tiny_copier/mod.rs"]
mod copier;

use copier::{KEPT, Measured, Recipe, Trainer, measure, name};
use thalweg::Model;
use thalweg::anyhow::Result;
use thalweg::tch::{Device, Kind};

use crate::tiny_world::world as tiny_world;

fn shipped() -> Result<Vec<(usize, Model)>> {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/models/tiny-copier");
    let load =
        |step: usize| Ok((step, Model::load_on(dir.join(name(step)), Device::Cpu, Kind::Float)?));
    KEPT.into_iter().map(load).collect()
}

/// Chance among the symbols in use, in nats.
fn chance() -> f64 {
    (copier::IN_USE as f64).ln()
}

#[test]
fn the_ten_checkpoints_show_a_plateau_a_jump_and_a_plateau() -> Result<()> {
    let measured = |(step, model): (usize, Model)| Ok((step, measure(&model)?));
    let all: Vec<(usize, Measured)> =
        shipped()?.into_iter().map(measured).collect::<Result<_>>()?;
    // the first copy cannot be foreseen, whatever is learnt
    assert!(all[1..].iter().all(|(_, m)| (m.first - chance()).abs() < 0.2), "{all:?}");
    let (before, after) = (&all[..4], &all[8..]);
    assert!(before.iter().all(|(_, m)| m.induction < 0.2), "{before:?}");
    assert!(before[1..].iter().all(|(_, m)| m.second > chance() - 0.6), "{before:?}");
    assert!(after.iter().all(|(_, m)| m.induction > 0.7 && m.second < 0.3), "{after:?}");
    assert!(after.iter().all(|(_, m)| m.previous > 2.0 * all[3].1.previous), "{all:?}");
    Ok(())
}

#[test]
fn shuffled_weights_of_the_last_checkpoint_have_no_induction() -> Result<()> {
    let (_, last) = shipped()?.pop().expect("ten checkpoints");
    let m = measure(&last.shuffled(1)?)?;
    assert!(m.induction < 0.15 && m.second > 3.0, "{m:?}");
    Ok(())
}

#[test]
fn a_two_layer_model_learns_to_continue_repeats_within_seconds() -> Result<()> {
    thalweg::tch::set_num_threads(1);
    let mut trainer = Trainer::new(Recipe::tiny_copier(1))?;
    let mut rows = vec![(0, measure(&trainer.model)?)];
    while trainer.step < 325 && rows.last().is_some_and(|(_, m)| m.induction < 0.55) {
        for _ in 0..25 {
            trainer.step()?;
        }
        rows.push((trainer.step, measure(&trainer.model)?));
    }
    let (first, last) = (rows[0].1, rows[rows.len() - 1].1);
    assert!(first.induction < 0.1 && last.induction > 0.5, "{rows:?}");
    assert!(last.second < 1.0 && last.first > 3.0, "{rows:?}");
    let early = rows[1..].iter().filter(|(step, _)| *step <= 125);
    let plateau = |m: &Measured| m.induction < 0.25 && m.second > chance() - 0.7;
    assert!(early.clone().count() == 5 && early.clone().all(|(_, m)| plateau(m)), "{rows:?}");
    Ok(())
}
