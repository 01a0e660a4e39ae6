//! Paths against TransformerLens, dense matrices and plain autograd: `data/golden/analysis/paths.py`.

use serde_json::Value;
use thalweg::prelude::*;
use thalweg::{
    Circuit, Composition, EdgePatching, Edges, Reader, Rule, Selection, Writer, composition_scores,
    copying_scores, matching_scores, ov_circuit, qk_circuit,
};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/golden");

fn golden() -> Value {
    stored("paths")
}

fn stored(name: &str) -> Value {
    let path = format!("{DATA}/analysis/{name}.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn model() -> Model {
    model_of("gqa-llama3")
}

fn model_of(name: &str) -> Model {
    thalweg::tch::set_num_threads(1);
    Model::load_on(format!("{DATA}/{name}"), Device::Cpu, Kind::Double).unwrap()
}

/// All numbers of nested lists, in order.
fn flat(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(list) => list.iter().flat_map(flat).collect(),
        other => vec![other.as_f64().unwrap()],
    }
}

fn ids(value: &Value) -> Tokens {
    let rows = value.as_array().unwrap().iter();
    let row = |row: &Value| flat(row).iter().map(|id| *id as i64).collect::<Vec<_>>();
    Tokens::from_ids(&rows.map(row).collect::<Vec<_>>()).unwrap()
}

#[track_caller]
fn close(found: f64, expected: f64, bound: f64) {
    assert!((found - expected).abs() < bound * expected.abs().max(1.0), "{found}, not {expected}");
}

#[test]
fn composition_scores_are_those_of_transformer_lens() {
    let (golden, model) = (&golden()["transformer_lens"], model());
    for (name, kind) in [("Q", Composition::Q), ("K", Composition::K), ("V", Composition::V)] {
        let found = composition_scores(&model, kind, 0, 0).unwrap().scores;
        let expected = flat(&golden["composition"][name]);
        let mut compared = 0;
        for (at, score) in found.present() {
            close(score, expected[at[0] * 8 + at[1]], 1e-12);
            compared += 1;
        }
        assert_eq!(compared, 16); // 4 heads of layer 0, 4 of layer 1
    }
}

#[test]
fn spectra_of_ov_and_qk_circuits_are_those_of_transformer_lens() {
    let (golden, model) = (&golden()["transformer_lens"], model());
    for at in 0..8 {
        let (layer, head) = (at / 4, at % 4);
        let ov = ov_circuit(&model, layer, head).unwrap();
        let qk = qk_circuit(&model, layer, head, 0).unwrap();
        for (name, matrix) in [("ov", ov), ("qk", qk)] {
            let expected = flat(&golden[name]["singular_values"][at]);
            let found = matrix.singular_values().unwrap();
            assert_eq!(found.len(), expected.len());
            found.iter().zip(&expected).for_each(|(a, b)| close(*a, *b, 1e-12));
            let expected = flat(&golden[name]["eigenvalues"][at]);
            let found = matrix.eigenvalues().unwrap();
            for ((re, im), expected) in found.iter().zip(expected.chunks(2)) {
                close(*re, expected[0], 1e-9);
                close(im.abs(), expected[1].abs(), 1e-9);
            }
        }
    }
}

#[test]
fn head_scores_hold_the_same_attention_as_transformer_lens_detectors() {
    let (golden, model) = (&golden()["transformer_lens"]["detector"], model());
    let tokens = ids(&serde_json::json!([golden["tokens"]]));
    let (n, block) = (tokens.width() as f64, 10.0);
    let run = model.run(&tokens, &Plan::new().cache(Point::Pattern)).unwrap();
    let motifs = [
        ("previous_token_head", Motif::PreviousToken, n - 2.0),
        ("duplicate_token_head", Motif::Duplicate, block),
        ("induction_head", Motif::Induction, block),
    ];
    for (name, motif, rows) in motifs {
        let expected = flat(&golden["scores"][name]);
        let scores = head_scores(&run.cache, motif).unwrap();
        for (at, score) in scores.present() {
            // Theirs is a share of all attention, of every row; ours the mean over the rows scored.
            // Theirs counts the second token's look at the first as a previous token, ours does not.
            let pattern = run.cache.get(Point::Pattern.at(at[0])).unwrap();
            let first = match motif {
                Motif::PreviousToken => pattern.double_value(&[0, at[1] as i64, 1, 0]),
                _ => 0.0,
            };
            // It takes its llama3 frequencies in f32, whatever the model's kind.
            close(score * rows + first, expected[at[0] * 4 + at[1]] * n, 1e-6);
        }
    }
}

#[test]
fn circuits_of_weights_are_those_of_dense_matrices() {
    let (golden, model) = (&golden()["dense"], model());
    let copying = copying_scores(&model).unwrap();
    let matching = matching_scores(&model, 1).unwrap();
    for (scores, name) in [(copying, "copying"), (matching, "matching_1")] {
        let expected = flat(&golden[name]);
        scores.values.iter().zip(&expected).for_each(|(a, b)| close(*a, *b, 1e-9));
    }
    for offset in [0, 1, 3] {
        let expected = flat(&golden["qk_norms"][offset.to_string()]);
        for (at, expected) in expected.iter().enumerate() {
            let qk = qk_circuit(&model, at / 4, at % 4, offset).unwrap();
            close(qk.norm(), *expected, 1e-12);
        }
    }
    let dense = qk_circuit(&model, 1, 3, 3).unwrap().dense();
    let expected = Tensor::from_slice(&flat(&golden["qk_1_3_offset_3"])).view([24, 24]);
    assert!(crate::support::distance(&dense, &expected) < 1e-12);
}

#[test]
fn edge_scores_and_runs_of_circuits_are_those_of_plain_autograd() {
    let (golden, model) = (&golden()["edges"], model());
    let (clean, corrupt) = (ids(&golden["clean"]), ids(&golden["corrupt"]));
    let metric =
        Metric::logit_diff(golden["right"].as_i64().unwrap(), golden["wrong"].as_i64().unwrap());
    let edges =
        EdgeAttribution::new(&metric, Direction::Noise).run(&model, &clean, &corrupt).unwrap();
    let (scores, readers) = (flat(&golden["scores"]), edges.readers.len());
    assert_eq!(scores.len(), edges.writers.len() * readers);
    for (at, score) in edges.scores.present() {
        close(score, scores[at[0] * readers + at[1]], 1e-11);
    }
    let pair = EdgePatching::new(&model, &clean, &corrupt).unwrap();
    for circuit in golden["circuits"].as_array().unwrap() {
        let own = circuit_of(&model, &edges, &circuit["edges"]);
        let values = pair.values(&own, &metric).unwrap();
        values.iter().zip(flat(&circuit["metric"])).for_each(|(a, b)| close(*a, b, 1e-11));
    }
    let none = pair.values(&Circuit::empty(model.config()), &metric).unwrap();
    none.iter().zip(flat(&golden["corrupt_metric"])).for_each(|(a, b)| close(*a, b, 1e-11));
}

/// A circuit from pairs of places, of writers and of readers.
fn circuit_of(model: &Model, edges: &Edges, pairs: &Value) -> Circuit {
    let edge = |pair: &[f64]| -> (Writer, Reader) {
        (edges.writers[pair[0] as usize], edges.readers[pair[1] as usize])
    };
    let all: Vec<_> = flat(pairs).chunks(2).map(edge).collect();
    Circuit::of(model.config(), &all).unwrap()
}

#[test]
fn scores_circuits_and_their_metric_are_those_of_the_published_code() {
    let golden = stored("eap_ig");
    let model = model_of("mha-bf16-shards");
    let (clean, corrupt) = (ids(&golden["clean"]), ids(&golden["corrupt"]));
    let [right, wrong, steps] =
        ["right", "wrong", "steps"].map(|name| golden[name].as_i64().unwrap());
    let metric = Metric::logit_diff(right, wrong);
    let eap = EdgeAttribution::new(&metric, Direction::Noise);
    let by_steps = eap.clone().integrated_by(Rule::LeftFromCorrupt, steps as usize);
    let pair = EdgePatching::new(&model, &clean, &corrupt).unwrap();
    for (name, method) in [("EAP", eap), ("EAP-IG", by_steps)] {
        let golden = &golden["methods"][name];
        let edges = method.run(&model, &clean, &corrupt).unwrap();
        let (scores, readers) = (flat(&golden["scores"]), edges.readers.len());
        for (at, score) in edges.scores.present() {
            close(score, scores[at[0] * readers + at[1]], 1e-11);
        }
        for expected in golden["circuits"].as_array().unwrap() {
            let selection = match expected["choice"].as_str() {
                Some("Top") => Selection::Top,
                _ => Selection::Greedy,
            };
            let found = Circuit::best(&edges, expected["n"].as_u64().unwrap() as usize, selection);
            assert_eq!(found, circuit_of(&model, &edges, &expected["edges"]), "{name} {expected}");
            let values = pair.values(&found, &metric).unwrap();
            values.iter().zip(flat(&expected["metric"])).for_each(|(a, b)| close(*a, b, 1e-11));
        }
    }
}
