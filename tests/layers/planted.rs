//! What the lenses must find on models whose mechanism is known, and what their controls must not.

use std::path::Path;

use thalweg::prelude::*;
use thalweg::{
    Against, JacobianFit, Lens, TunedLensTraining, component_norms, head_cosines, lens_resolution,
};

use super::{cached, stream};
use crate::induction_model::{induction_model, prompt};

fn root(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn tiny_world() -> Model {
    Model::load(root("data/models/tiny-world")).unwrap()
}

fn set(name: &str) -> Prompts {
    Prompts::load(root(&format!("data/prompts/{name}.json"))).unwrap()
}

/// Facts and agreement, as many of each, from all parts of the sets.
fn texts(n: usize) -> Vec<String> {
    let sets = ["fact", "agree"].map(set);
    let pick = |i: usize| {
        let prompts = &sets[i % 2].prompts;
        prompts[(i / 2) * 5 % prompts.len()].clean.clone()
    };
    (0..n).map(pick).collect()
}

/// Where the answers of the last position are settled, of those that are.
fn depths(model: &Model, tokens: &Tokens, answers: &[i64]) -> Vec<f64> {
    let run = cached(model, tokens, stream());
    let all = lens_resolution(model, &run.cache, answers).unwrap();
    all.select(Axis::Pos, -1).unwrap().present().map(|(_, depth)| depth).collect()
}

#[test]
fn repeats_are_settled_by_the_attention_of_layer_1_and_not_before() {
    let model = induction_model((60.0, 400.0));
    let tokens = prompt(&model);
    let ids = tokens.ids()[0].clone();
    let run = cached(&model, &tokens, stream());
    for pos in 13..ids.len() - 1 {
        let settled = lens_resolution(&model, &run.cache, ids[pos + 1]).unwrap();
        assert_eq!(settled.at(&[pos as i64]).unwrap(), 1.5, "position {pos}");
        // In the first copy nothing says what comes next.
        assert!(settled.at(&[pos as i64 - 12]).is_err(), "position {}", pos - 12);
    }
    let model = tiny_world();
    let set = set("repeat").labelled("words 12").unwrap().first(48);
    let tokens = model.batch(&set.clean()).unwrap();
    let answers: Vec<i64> =
        set.prompts.iter().map(|prompt| model.token(&prompt.right[0]).unwrap()).collect();
    let found = depths(&model, &tokens, &answers);
    assert_eq!(found.len(), 48, "all are answered");
    let at_once = found.iter().filter(|depth| **depth == 1.5).count();
    assert!(at_once >= 40 && found.iter().all(|depth| *depth >= 1.5), "{found:?}");
    let control = depths(&model.shuffled(4).unwrap(), &tokens, &answers);
    assert!(control.is_empty(), "shuffled weights: {control:?}");
}

#[test]
fn a_tuned_lens_is_nearer_to_the_prediction_at_every_layer() {
    let model = tiny_world();
    let texts = texts(112);
    let (train, held_out) =
        (model.batch(&texts[..80]).unwrap(), model.batch(&texts[80..]).unwrap());
    let training = TunedLensTraining::new(&train, &held_out).steps(40).prompts(16).rate(1e-3);
    let found = training.clone().run(&model).unwrap().held_out;
    let control = training.shuffled().run(&model).unwrap().held_out;
    for place in ["embed", "L0", "L1", "L2"] {
        let kl = |grid: &Grid, series: &str| grid.get(&[series, place]).unwrap();
        let (plain, tuned) = (kl(&found, "logit lens"), kl(&found, "tuned lens"));
        assert!(tuned < 0.7 * plain, "{place}: {tuned} against {plain}");
        let blind = kl(&found, "mean prediction");
        assert!(tuned < 0.7 * blind, "{place}: {tuned} against {blind}");
        // Shuffled targets teach how often each token comes, and no more.
        let gain = (plain - kl(&control, "tuned lens")) / (plain - tuned);
        assert!(gain < 0.35, "{place}, shuffled targets: {gain} of the gain");
    }
}

#[test]
fn a_jacobian_lens_reads_what_a_later_position_will_say() {
    let model = induction_model((60.0, 400.0));
    let tokens = thalweg::repeated_tokens(&model, 2, 12, 9).unwrap();
    let run = cached(&model, &tokens, Point::ResidPost);
    let site = Point::ResidPost.at(0);
    let stream = run.cache.get(site).unwrap();
    // Where a first copy finds nothing to attend to, the slightest change would move its pattern.
    let fit = JacobianFit::new(1).plan(Plan::new().freeze_own(Freeze::Pattern));
    let whole = fit.run(&model, &tokens).unwrap();
    let own = fit.same_position().run(&model, &tokens).unwrap();
    let read = |lens: Lens| lens.unembed(site, &stream).unwrap(); // [Batch, Pos, Vocab]
    let whole = read(Lens::jacobian(&model, &whole).unwrap());
    // Blind: the stream as it is, and what a position writes to itself.
    let controls = [Lens::logit(&model), Lens::jacobian(&model, &own).unwrap()].map(read);
    for row in 0..2i64 {
        for pos in 1..13i64 {
            // The first copy's token is said again, by the attention of a later position.
            let token = tokens.ids()[row as usize][pos as usize];
            let (best, ids) = whole.get(row).get(pos).topk(2, 0, true, true);
            assert_eq!(ids.int64_value(&[0]), token, "row {row} at {pos}");
            assert!(best.double_value(&[0]) > best.double_value(&[1]) + 1.0);
            for control in &controls {
                let logits = control.get(row).get(pos);
                let spread = (logits.max() - logits.min()).double_value(&[]);
                assert!(spread < 0.3, "a control tells tokens apart by {spread}");
            }
        }
    }
}

#[test]
fn heads_of_the_induction_model_write_one_unit_each_and_its_mlps_nothing() {
    let model = induction_model((60.0, 400.0));
    let tokens = prompt(&model);
    let sites = vec![Sites::from(stream()), Sites::from([Point::AttnOut, Point::MlpOut, Point::Z])];
    let cache = cached(&model, &tokens, sites).cache;
    let norms = component_norms(&cache).unwrap();
    // Each head copies one one-hot part of a stream that its norm has scaled.
    let d = model.config().d_model as f64;
    let scale = |square: f64| (square / d + model.config().eps).sqrt();
    let first = 1.0 / scale(2.0);
    let second = 1.0 / scale(2.0 + first * first);
    let at = |component: &str| norms.index_of(Axis::Component, component).unwrap() as i64;
    for pos in 13..24 {
        let length = |component: &str| norms.at(&[at(component), pos]).unwrap();
        assert!((length("L0 attn") - first).abs() < 1e-9);
        assert!((length("L1 attn") - second).abs() < 1e-9);
        assert_eq!((length("L0 mlp"), length("L1 mlp")), (0.0, 0.0));
        // Parts of the stream that nothing had written to: at right angles to what was there.
        let before = head_cosines(&model, &cache, Against::Before).unwrap();
        for layer in 0..2 {
            assert!(before.at(&[layer, 0, pos]).unwrap().abs() < 1e-9);
        }
        let end = head_cosines(&model, &cache, Against::Final).unwrap();
        let whole = (2.0 + first * first + second * second).sqrt();
        for (layer, own) in [(0, first), (1, second)] {
            assert!((end.at(&[layer, 0, pos]).unwrap() - own / whole).abs() < 1e-9);
        }
    }
}
