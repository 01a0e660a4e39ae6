//! The shipped adder has grokked: it adds pairs it has never seen, by waves.

#[path = "../examples/tiny_adder/mod.rs"]
mod adder;

use adder::{P, Pair, logits, score, split};
use thalweg::anyhow::Result;
use thalweg::tch::{Device, Kind, Tensor};
use thalweg::{Model, Plan, W, fourier_power, key_frequencies, sum_profile};

fn shipped(name: &str) -> Result<Model> {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/models").join(name);
    Model::load_on(dir, Device::Cpu, Kind::Float)
}

/// Frequencies that hold 90 % of the embedding's power, and the share of the logits' variance that
/// follows from c - a - b.
fn waves(model: &Model) -> Result<(usize, f64)> {
    let power = fourier_power(&model.weight(W::E, 0)?.narrow(0, 0, P))?;
    let every: Vec<Pair> = (0..P * P).map(|i| (i / P, i % P)).collect();
    let cube: Tensor = logits(model, &every, Plan::new())?.narrow(1, 0, P).reshape([P, P, P]);
    Ok((key_frequencies(&power, 0.9)?.len(), sum_profile(&cube)?.explained))
}

#[test]
fn pairs_held_out_are_added_rightly_and_by_heart_they_were_not() -> Result<()> {
    let (train, held_out) = split(1);
    assert!(train.iter().all(|pair| !held_out.contains(pair)));
    assert_eq!(train.len() + held_out.len(), (P * P) as usize);
    let (after, before) = (shipped("tiny-adder")?, shipped("tiny-adder/memorised")?);
    assert!(score(&after, &held_out)?.1 > 0.99 && score(&after, &train)?.1 > 0.99);
    let known = (score(&before, &train)?, score(&before, &held_out)?);
    assert!(known.0.1 > 0.95 && known.1.1 < 0.5 && known.1.0 > 4.0, "{known:?}");
    let top = after.top(&after.tokens("17 38 =")?, 1)?;
    assert_eq!(top.rows[0][0].piece, "2");
    Ok(())
}

#[test]
fn few_waves_make_the_sum_and_only_after_grokking() -> Result<()> {
    let after = shipped("tiny-adder")?;
    let (frequencies, explained) = waves(&after)?;
    assert!(frequencies <= 10 && explained > 0.8, "{frequencies} frequencies, {explained}");
    for control in [shipped("tiny-adder/memorised")?, after.untrained(1)?, after.shuffled(1)?] {
        let (frequencies, explained) = waves(&control)?;
        assert!(frequencies > 12 && explained < 0.4, "{control:?}: {frequencies}, {explained}");
    }
    Ok(())
}
