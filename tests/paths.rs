//! Path patching: equal to four runs by hand in both conventions, and what is known of the
//! induction circuit.

mod circuits;
mod golden;
mod planted;
mod source;
mod weights;

use thalweg::W;
use thalweg::prelude::*;

use crate::induction_model::{Broken, broken, induction_model};
use crate::patching::{metric, pair};
use crate::support::{config, model_of, says};

fn mean_of(logits: &Tensor, tokens: &Tokens) -> f64 {
    metric().of(logits, tokens).unwrap().mean(Kind::Double).double_value(&[])
}

fn deep() -> Model {
    model_of(thalweg::Config { n_layers: 3, ..config() }, Kind::Double, 6)
}

const RULES: [PathRule; 2] = [PathRule::MlpsRecompute, PathRule::MlpsFrozen];

/// All activations of a run.
fn everything(model: &Model, tokens: &Tokens) -> Cache {
    model.run(tokens, &Plan::new().cache(Sites::everything())).unwrap().cache
}

/// What reaches the stream before each layer, and after the last, when one head of the receiving
/// run writes what it wrote in the other: made block by block from weights and recorded parts.
fn streams(
    model: &Model,
    own: &Cache,
    other: &Cache,
    head: (usize, usize),
    rule: PathRule,
) -> Vec<Tensor> {
    let written = |cache: &Cache, layer: usize| -> Tensor {
        let z = cache.get(Point::Z.at(layer)).unwrap().select(2, head.1 as i64);
        z.matmul(&model.weight(W::O, layer).unwrap().get(head.1 as i64))
    };
    let mut x = own.get(Site::Embed).unwrap();
    let mut streams = Vec::new();
    for layer in 0..model.config().n_layers {
        streams.push(x.shallow_clone());
        x = &x + own.get(Point::AttnOut.at(layer)).unwrap();
        if layer == head.0 {
            x = x + written(other, layer) - written(own, layer);
        }
        let mlp = match rule {
            PathRule::MlpsFrozen => own.get(Point::MlpOut.at(layer)).unwrap(),
            PathRule::MlpsRecompute => mlp(model, layer, &x),
        };
        x = &x + mlp;
    }
    streams.push(x);
    streams
}

/// The norm before attention or the MLP of a layer, by hand.
fn normed(model: &Model, which: W, layer: usize, x: &Tensor) -> Tensor {
    let scale = (x.square().mean_dim([-1i64].as_slice(), true, None) + model.config().eps).sqrt();
    x / scale * model.weight(which, layer).unwrap()
}

fn mlp(model: &Model, layer: usize, x: &Tensor) -> Tensor {
    let weight = |which: W| model.weight(which, layer).unwrap();
    let u = normed(model, W::Ln2, layer, x);
    (u.matmul(&weight(W::Gate)).silu() * u.matmul(&weight(W::In))).matmul(&weight(W::Out))
}

#[test]
fn paths_to_the_logits_are_the_stream_made_by_hand() {
    let (model, (clean, corrupt)) = (deep(), pair());
    let [own, other] = [&clean, &corrupt].map(|tokens| everything(&model, tokens));
    let noise = Patching::new(&model, &clean, &corrupt).unwrap().direction(Direction::Noise);
    for rule in RULES {
        let to = [Receiver::logits()];
        let grid = noise.paths(Point::Z, &[Axis::Head], &to, rule, &metric()).unwrap();
        assert_eq!(grid.shape(), [3, 4]);
        for (index, value) in grid.present() {
            let streams = streams(&model, &own, &other, (index[0], index[1]), rule);
            let logits = model.unembed(streams.last().unwrap()).unwrap();
            assert!((value - mean_of(&logits, &clean)).abs() < 1e-10, "{rule:?} at {index:?}");
        }
    }
}

#[test]
fn paths_to_heads_and_mlps_are_runs_with_an_input_made_by_hand() {
    let (model, (clean, corrupt)) = (deep(), pair());
    let [own, other] = [&clean, &corrupt].map(|tokens| everything(&model, tokens));
    let noise = Patching::new(&model, &clean, &corrupt).unwrap().direction(Direction::Noise);
    let base = mean_of(&model.logits(&clean).unwrap(), &clean);
    for rule in RULES {
        for (to, point, which, head) in [
            (Receiver::q(2, 1), Point::Q, W::Q, 1),
            (Receiver::k(2, 0), Point::K, W::K, 0),
            (Receiver::v(1, 1), Point::V, W::V, 1),
        ] {
            let layer = if point == Point::V { 1 } else { 2 };
            let to = [to];
            let grid = noise.paths(Point::Z, &[Axis::Head], &to, rule, &metric()).unwrap();
            for (index, value) in grid.present() {
                let streams = streams(&model, &own, &other, (index[0], index[1]), rule);
                let u = normed(&model, W::Ln1, layer, &streams[layer]);
                let input = u.matmul(&model.weight(which, layer).unwrap().get(head)).unsqueeze(2);
                let edit = Intervention::set(&input);
                let edit = if point == Point::Q { edit.head(head) } else { edit.kv_head(head) };
                let plan = Plan::new().intervene(point.at(layer), edit);
                let by_hand = mean_of(&model.run(&clean, &plan).unwrap().logits, &clean);
                assert!((value - by_hand).abs() < 1e-10, "{rule:?}, {to:?} at {index:?}");
                // A sender that lies no earlier has no path there.
                assert_eq!((value - base).abs() < 1e-12, index[0] >= layer, "{index:?}");
            }
        }
        let to = [Receiver::mlp(2)];
        let grid = noise.paths(Point::Z, &[Axis::Head], &to, rule, &metric()).unwrap();
        for (index, value) in grid.present() {
            let x = &streams(&model, &own, &other, (index[0], index[1]), rule)[2];
            let x = x + own.get(Point::AttnOut.at(2)).unwrap();
            let z = |cache: &Cache| cache.get(Point::Z.at(2)).unwrap().select(2, index[1] as i64);
            let o = model.weight(W::O, 2).unwrap().get(index[1] as i64);
            let x = if index[0] == 2 { x + (z(&other) - z(&own)).matmul(&o) } else { x };
            let edit = Intervention::set(&mlp(&model, 2, &x));
            let plan = Plan::new().intervene(Point::MlpOut.at(2), edit);
            let by_hand = mean_of(&model.run(&clean, &plan).unwrap().logits, &clean);
            assert!((value - by_hand).abs() < 1e-10, "{rule:?} to the MLP at {index:?}");
        }
    }
}

#[test]
fn the_conventions_differ_by_what_mlps_pass_on() {
    let (model, (clean, corrupt)) = (deep(), pair());
    let noise = Patching::new(&model, &clean, &corrupt).unwrap().direction(Direction::Noise);
    let to = [Receiver::logits()];
    let [recompute, frozen] =
        RULES.map(|rule| noise.paths(Point::Z, &[Axis::Head], &to, rule, &metric()).unwrap());
    assert!(recompute.values.iter().zip(&frozen.values).all(|(a, b)| (a - b).abs() > 1e-6));
    assert_eq!(frozen.provenance["paths"], "MlpsFrozen");
    // Without MLPs they are one.
    let silent = model
        .with_weights(|name, weight| {
            let down = name.ends_with("down_proj.weight");
            Ok(if down { weight.zeros_like() } else { weight.shallow_clone() })
        })
        .unwrap();
    let noise = Patching::new(&silent, &clean, &corrupt).unwrap().direction(Direction::Noise);
    let [recompute, frozen] =
        RULES.map(|rule| noise.paths(Point::Z, &[Axis::Head], &to, rule, &metric()).unwrap());
    assert!(recompute.values.iter().zip(&frozen.values).all(|(a, b)| (a - b).abs() < 1e-12));
}

#[test]
fn the_last_writer_has_one_path_and_its_effect_is_the_whole_effect() {
    let (model, (clean, corrupt)) = (deep(), pair());
    for direction in [Direction::Denoise, Direction::Noise] {
        let pair = Patching::new(&model, &clean, &corrupt).unwrap().direction(direction);
        let whole = pair.grid(Point::MlpOut, &[Axis::Pos], &metric()).unwrap();
        for rule in RULES {
            let to = [Receiver::logits()];
            let path = pair.paths(Point::MlpOut, &[Axis::Pos], &to, rule, &metric()).unwrap();
            let [whole, path] = [&whole, &path].map(|grid| grid.select(Axis::Layer, 2).unwrap());
            for (a, b) in whole.values.iter().zip(&path.values) {
                assert!((a - b).abs() < 1e-10, "{direction:?}, {rule:?}");
            }
        }
    }
}

#[test]
fn the_previous_token_head_speaks_to_the_keys_of_the_induction_head_alone() {
    let model = induction_model((60.0, 400.0));
    let Broken { clean, corrupt, metric, .. } = broken(&model);
    let pair = Patching::new(&model, &clean, &corrupt).unwrap().direction(Direction::Noise);
    let pair = pair.normalised();
    for rule in RULES {
        for (to, expected) in [
            (Receiver::k(1, 0), 1.0),
            (Receiver::q(1, 0), 0.0),
            (Receiver::v(1, 0), 0.0),
            (Receiver::mlp(1), 0.0),
            (Receiver::logits(), 0.0),
        ] {
            let to = [to];
            let grid = pair.paths(Point::Z, &[Axis::Head], &to, rule, &metric).unwrap();
            let value = grid.get(&["L0", "H0"]).unwrap();
            // Not to the last bit: a query without its key looks at all, also at the changed token.
            assert!((value - expected).abs() < 1e-4, "{to:?}: {value}");
        }
        // Several receivers at once.
        let to = [Receiver::q(1, 0), Receiver::k(1, ..)];
        let grid = pair.paths(Point::Z, &[], &to, rule, &metric).unwrap();
        assert!((grid.values[[0]] - 1.0).abs() < 1e-4);
        assert_eq!(grid.provenance["receivers"], "L1 Q 0, L1 K ..");
    }
}

#[test]
fn a_wrong_path_is_an_error_that_says_what_there_is() {
    let (model, (clean, corrupt)) = (deep(), pair());
    let pair = Patching::new(&model, &clean, &corrupt).unwrap();
    let paths = |point, by: &[Axis], to: &[Receiver]| {
        pair.paths(point, by, to, PathRule::MlpsFrozen, &metric())
    };
    let logits = [Receiver::logits()];
    says(paths(Point::Q, &[Axis::Head], &logits), &["from Q", "[Z, AttnOut, MlpOut]"]);
    says(paths(Point::MlpOut, &[Axis::Head], &logits), &["MlpOut by Head", "[Pos, DModel]"]);
    says(paths(Point::Z, &[], &[]), &["no receivers"]);
    says(paths(Point::Z, &[], &[Receiver::logits(), Receiver::mlp(1)]), &["receive alone"]);
    says(paths(Point::Z, &[], &[Receiver::q(3, 0)]), &["L3 Q 0", "layers 0..2"]);
    says(paths(Point::Z, &[], &[Receiver::k(2, 3)]), &["attn.hook_k", "KvHead has 2"]);
}

/// Equal to rounding.
#[track_caller]
fn near(found: f64, expected: f64) {
    let apart = (found - expected).abs() / expected.abs().max(1.0);
    assert!(apart < 1e-10, "{found}, expected {expected}");
}
