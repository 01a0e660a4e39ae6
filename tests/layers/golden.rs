//! TransformerLens' lens, lengths and cosines on tiny-world: `data/golden/analysis/layers.py`.

use std::fs;
use std::path::Path;

use serde_json::Value;
use thalweg::prelude::*;
use thalweg::{
    Against, component_cosines, component_norms, head_cosines, head_norms, lens_entropy, lens_kl,
    lens_rank, lens_top_k, resid_updates, with_first,
};

use super::{cached, stream};

/// Both compute in f64, in other orders; the file holds 12 digits.
const LIMIT: f64 = 1e-9;

fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/golden/analysis/layers.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The numbers of nested lists, in order.
fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(list) => list.iter().flat_map(numbers).collect(),
        other => vec![other.as_f64().unwrap()],
    }
}

/// Whether each cell that exists equals its number of the golden; there must be `n` of them.
#[track_caller]
fn equal(grid: &Grid, golden: &Value, first: bool) {
    let expected = numbers(golden);
    assert_eq!(grid.values.len(), expected.len(), "{grid:?}");
    let width = *grid.shape().last().unwrap();
    let present = grid.present().count();
    assert_eq!(present, expected.len() - if first { 0 } else { expected.len() / width });
    for ((at, found), expected) in grid.values.iter().enumerate().zip(expected) {
        let apart = (found - expected).abs() / expected.abs().max(1.0);
        let hidden = !first && at % width == 0;
        assert!(hidden || apart < LIMIT, "{}, cell {at}: {found}, expected {expected}", grid.name);
    }
}

#[test]
fn lens_lengths_and_cosines_of_tiny_world_are_those_of_transformer_lens() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/models/tiny-world");
    let model = Model::load_on(dir, Device::Cpu, Kind::Double).unwrap();
    let document = golden();
    let prompts = document["prompts"].as_array().unwrap();
    assert_eq!(prompts.len(), 2);
    for prompt in prompts {
        let tokens = model.tokens(prompt["text"].as_str().unwrap()).unwrap();
        assert_eq!(
            numbers(&prompt["ids"]),
            tokens.ids()[0].iter().map(|id| *id as f64).collect::<Vec<_>>()
        );
        let answer = model.token(prompt["answer"].as_str().unwrap()).unwrap();
        let sites =
            vec![Sites::from(stream()), Sites::from([Point::AttnOut, Point::MlpOut, Point::Z])];
        let cache = cached(&model, &tokens, sites).cache;
        equal(&logit_lens(&model, &cache, answer).unwrap(), &prompt["log_prob"], true);
        equal(&lens_rank(&model, &cache, answer).unwrap(), &prompt["rank"], true);
        equal(&lens_entropy(&model, &cache).unwrap(), &prompt["entropy"], true);
        equal(&lens_kl(&model, &cache).unwrap(), &prompt["kl"], true);
        let top = lens_top_k(&model, &cache, 3).unwrap();
        equal(&top.prob, &prompt["top_probs"], true);
        assert_eq!(
            top.ids.iter().map(|id| *id as f64).collect::<Vec<_>>(),
            numbers(&prompt["top_ids"])
        );
        equal(&with_first(resid_norms(&cache).unwrap(), &cache).unwrap(), &prompt["norms"], true);
        equal(&resid_cosines(&cache).unwrap(), &prompt["cosines"], false);
        equal(&resid_updates(&cache).unwrap(), &prompt["updates"], false);
        equal(&head_norms(&model, &cache).unwrap(), &prompt["head_norms"], false);
        let before = head_cosines(&model, &cache, Against::Before).unwrap();
        equal(&before, &prompt["head_before"], false);
        for (grid, attention, mlp) in [
            (component_norms(&cache), "attention_norms", "mlp_norms"),
            (component_cosines(&cache, Against::Final), "attention_final", "mlp_final"),
        ] {
            let grid = grid.unwrap();
            equal(
                &grid.select_many(Axis::Component, &[1, 3, 5, 7]).unwrap(),
                &prompt[attention],
                false,
            );
            equal(&grid.select_many(Axis::Component, &[2, 4, 6, 8]).unwrap(), &prompt[mlp], false);
        }
    }
}
