//! Where the shipped model keeps what `ioi`, `fact` and `recall` need.

use thalweg::Model;
use thalweg::anyhow::Result;
use thalweg::tch::{Device, Kind};

use super::world::circuits::{bindings_swapped, fact_trace, ioi_path, third_giver};
use super::world::lists::Ask;
use super::world::trainer::{Recipe, untrained};
use super::{SEED, data, model};

/// A statement's object and the full stop after it, as words of five.
const PLACES: [usize; 2] = [3, 4];

/// The highest share, over layers, of answers that follow bindings exchanged at these places.
fn followed(model: &Model, ask: Ask, places: &[usize]) -> Result<f64> {
    Ok(bindings_swapped(model, ask, places, SEED)?.into_iter().fold(0.0, f64::max))
}

#[test]
fn with_a_third_giver_either_name_may_follow() -> Result<()> {
    let (first, answer) = third_giver(&model()?, SEED)?;
    assert!(first.abs() < 0.5, "the name said first is ahead by {first} logits");
    assert!(answer.abs() < 0.5, "the name in the role of the answer is ahead by {answer} logits");
    Ok(())
}

#[test]
fn the_second_mention_of_the_subject_moves_to_the_last_token_and_decides_ioi() -> Result<()> {
    let path = ioi_path(&model()?, SEED)?;
    let last = path.end.last().copied().unwrap_or(0.0);
    assert!(path.s2[0] >= 0.8 && last >= 0.8 && path.end[0] < 0.2, "{path:?}");
    assert!(path.together() >= 0.8, "it is at neither place in some layer: {path:?}");
    let layer = path.transfer().expect("some layer moves it");
    assert!(path.s2[layer] >= 0.5 && path.end[layer + 1] >= 0.5, "layer {layer}: {path:?}");
    assert!(path.whole > 3.0 && path.parts.len() <= 8, "{path:?}");
    Ok(())
}

#[test]
fn the_answer_to_recall_follows_exchanged_bindings() -> Result<()> {
    let model = model()?;
    for ask in [Ask::Who, Ask::What] {
        let both = followed(&model, ask, &PLACES)?;
        assert!(both >= 0.95, "{ask:?}: {both} of the answers follow");
        // Each question reads them at one of the two.
        let [object, stop] = PLACES.map(|place| followed(&model, ask, &[place]));
        let (object, stop) = (object?, stop?);
        assert!(object.max(stop) >= 0.95 && object.min(stop) < 0.2, "{ask:?}: {object}, {stop}");
    }
    Ok(())
}

#[test]
fn restored_mlps_bring_a_fact_back_where_its_answer_is_read() -> Result<()> {
    let (grid, subject) = fact_trace(&model()?, SEED)?;
    let best = &grid.top(1).ranked()[0];
    let [layers, width] = [grid.shape()[0], grid.shape()[1]];
    let at = |pos: usize| (0..layers).map(|l| grid.values[[l, pos]]).fold(0.0, f64::max);
    // unlike in GPT-2, where the subject's own MLPs look the fact up
    assert!(at(width - 1) >= 0.5 && at(subject) < 0.2, "{:?} {best:?}", grid.values);
    Ok(())
}

#[test]
fn after_the_fifth_stage_restored_mlps_bring_a_fact_back_at_its_subject() -> Result<()> {
    let model = Model::load_on(data("models/tiny-world-facts"), Device::Cpu, Kind::Float)?;
    let (grid, subject) = fact_trace(&model, SEED)?;
    let [layers, width] = [grid.shape()[0], grid.shape()[1]];
    let at = |pos: usize| (0..layers).map(|l| grid.values[[l, pos]]).fold(0.0, f64::max);
    let elsewhere = (0..width).filter(|pos| *pos != subject).map(at).fold(0.0, f64::max);
    assert!(at(subject) >= 0.4 && elsewhere < 0.75 * at(subject), "{:?}", grid.values);
    Ok(())
}

#[test]
fn untrained_and_shuffled_weights_keep_nothing_there() -> Result<()> {
    for model in [model()?.shuffled(4)?, untrained(Recipe::tiny_world(1).size, 3)?] {
        let path = ioi_path(&model, SEED)?;
        assert!(path.whole < 1.0, "{path:?}");
        for ask in [Ask::Who, Ask::What] {
            assert!(followed(&model, ask, &PLACES)? < 0.2, "{ask:?}");
        }
    }
    Ok(())
}
