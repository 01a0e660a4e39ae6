//! Paths whose answer is known: the hand-written induction model, and tiny-world.

use thalweg::prelude::*;
use thalweg::{
    Circuit, Composition, EdgePatching, Model, Reader, Selection, Writer, composition_effects,
    composition_scores, copying_scores, head_taxonomy, matching_scores, matching_scores_through,
    mixing_sites, token_attribution, token_copying,
};

use super::near;
use crate::induction_model::{broken, induction_model};

/// What the induction model was written to do.
const PLANTED: [(Writer, Reader); 3] = [
    (Writer::Embed, Reader::Value(0, 0)),
    (Writer::Head(0, 0), Reader::Key(1, 0)),
    (Writer::Head(1, 0), Reader::Logits),
];

fn tiny_world() -> Model {
    thalweg::tch::set_num_threads(1);
    Model::load(concat!(env!("CARGO_MANIFEST_DIR"), "/data/models/tiny-world")).unwrap()
}

/// BOS and a block of 16 of the symbols that tiny-world repeats, said twice.
fn symbols(model: &Model, prompts: usize, seed: u64) -> Tokens {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/prompts/repeat.json");
    let set = Prompts::load(path).unwrap();
    let said = set.prompts.iter().filter(|p| p.label.contains("symbols")).take(64);
    let ids = said.flat_map(|p| model.tokens(&p.clean).unwrap().ids()[0][1..].to_vec());
    let pool: std::collections::BTreeSet<i64> = ids.collect();
    let pool: Vec<i64> = pool.into_iter().collect();
    assert_eq!(pool.len(), 64);
    repeated_tokens_of(model, &pool, prompts, 16, seed).unwrap()
}

#[test]
fn composition_of_the_induction_model_is_by_keys_alone() {
    let model = induction_model((8.0, 14.0));
    let z = |model: &Model, kind| composition_scores(model, kind, 0, 1).unwrap();
    let keys = z(&model, Composition::K);
    // One identity of rank 13 written where another is read.
    near(keys.scores.values[[0, 1]], 13f64.sqrt() / 13.0);
    assert!(keys.z.values[[0, 1]] > 20.0, "{:?}", keys.z);
    for kind in [Composition::Q, Composition::V] {
        assert_eq!(z(&model, kind).scores.values[[0, 1]], 0.0, "{kind:?}");
    }
    assert!(z(&model.shuffled(3).unwrap(), Composition::K).z.values[[0, 1]] < 3.0);
    let known = broken(&model);
    let pair = EdgePatching::new(&model, &known.clean, &known.corrupt).unwrap();
    let lost = |kind| {
        let grid = composition_effects(&pair, kind, (0..1, 1..2), &known.metric).unwrap();
        grid.values[[0, 0]]
    };
    let all = Circuit::full(model.config());
    let none = Circuit::empty(model.config());
    let [whole, none] = [all, none].map(|c| pair.values(&c, &known.metric).unwrap()[0]);
    assert!((lost(Composition::K) / (whole - none) - 1.0).abs() < 1e-4);
    assert!(lost(Composition::Q).abs() < 1e-9 && lost(Composition::V).abs() < 1e-9);
}

#[test]
fn the_circuit_of_the_induction_model_is_recovered() {
    let model = induction_model((8.0, 14.0));
    let known = broken(&model);
    let pair = EdgePatching::new(&model, &known.clean, &known.corrupt).unwrap();
    let faithful = |circuit: &Circuit| pair.faithfulness(circuit, &known.metric).unwrap();
    let planted = Circuit::of(model.config(), &PLANTED).unwrap();
    assert!((faithful(&planted) - 1.0).abs() < 1e-9);
    // Exactly: each of the three edges is needed, and no other does anything.
    let full = Circuit::full(model.config());
    let whole = pair.values(&full, &known.metric).unwrap()[0];
    let exact = pair.effects(&full.edges(), &known.metric).unwrap();
    for cell in exact.ranked() {
        let [from, to] = [&cell.labels[0], &cell.labels[1]];
        let own = PLANTED
            .iter()
            .any(|edge| [edge.0.to_string(), edge.1.to_string()] == [from.clone(), to.clone()]);
        let share = cell.value.abs() / whole.abs();
        assert!(if own { share > 0.9 } else { share < 1e-3 }, "{from} -> {to}: {share}");
    }
    // Leaving out edges one by one leaves the three.
    let left = pair.acdc(&known.metric, 0.01).unwrap();
    assert_eq!(left, planted, "{left:?}");
    // By EAP-IG: among the four best, and enough.
    let edges = EdgeAttribution::new(&known.metric, Direction::Noise)
        .integrated(50)
        .run(&model, &known.clean, &known.corrupt)
        .unwrap();
    let found = Circuit::best(&edges, 4, Selection::Greedy);
    assert!(PLANTED.iter().all(|edge| found.contains(edge.0, edge.1)), "{found:?}");
    assert!((faithful(&found) - 1.0).abs() < 1e-9);
    for edge in PLANTED {
        let without = found.clone().without(&[edge]).unwrap();
        assert!(faithful(&without).abs() < 0.05, "without {edge:?}");
    }
    // Four edges at random are a circuit hardly ever: of 23, in 20 of 8855 choices.
    let random = (0..50).map(|seed| {
        let chosen = Circuit::best(&edges.shuffled(seed), 4, Selection::Greedy);
        faithful(&chosen)
    });
    let random: Vec<f64> = random.collect();
    let good = random.iter().filter(|f| **f > 0.5).count();
    assert!(good <= 2, "{good} of 50 random circuits do: {random:?}");
}

#[test]
fn the_induction_heads_logit_comes_from_the_token_that_followed() {
    let model = induction_model((60.0, 400.0));
    let known = broken(&model);
    let plan = Plan::new().cache(mixing_sites());
    let of = |tokens: &Tokens| {
        let run = model.run(tokens, &plan).unwrap();
        token_attribution(&model, &run.cache, &known.metric).unwrap()
    };
    let clean = of(&known.clean);
    let whole = model.run(&known.clean, &Plan::new()).unwrap().logits;
    let whole = known.metric.of(&whole, &known.clean).unwrap().double_value(&[0]);
    for (at, value) in clean.present() {
        let own = at[0] == 1 && at[2] == known.source + 1;
        assert!((value - if own { whole } else { 0.0 }).abs() < 1e-9, "{at:?}: {value}");
    }
    let corrupt = of(&known.corrupt).at(&[1, 0, known.source as i64 + 1]).unwrap();
    assert!(corrupt.abs() < 0.1 * whole, "{corrupt}");
}

#[test]
fn the_induction_head_copies_and_matches_through_the_head_before() {
    let model = induction_model((8.0, 14.0));
    let copying = copying_scores(&model).unwrap();
    near(copying.values[[1, 0]], 1.0);
    assert_eq!(copying.values[[0, 0]], 0.0, "layer 0 writes where nothing is unembedded");
    near(matching_scores_through(&model, (0, 0), 0).unwrap().values[[1, 0]], 1.0);
    assert_eq!(matching_scores(&model, 0).unwrap().values[[1, 0]], 0.0, "not by its own token");
    let ids: Vec<i64> = (0..13).collect();
    let shares = token_copying(&model, &ids, 1).unwrap();
    assert_eq!(shares.copied.values[[1, 0]], 1.0);
    let shuffled = token_copying(&model.shuffled(2).unwrap(), &ids, 1).unwrap();
    assert!(shuffled.suppressed.values[[1, 0]] < 1.0);
}

#[test]
fn tiny_worlds_heads_are_found_by_behaviour() {
    let model = tiny_world();
    let kinds = head_taxonomy(&model, &symbols(&model, 16, 3), 1).unwrap();
    let mut previous = kinds.heads("previous token", 0.5).unwrap();
    previous.sort_unstable();
    assert_eq!(previous, [(0, 1), (0, 3), (0, 7)]);
    let mut induction = kinds.heads("induction", 0.5).unwrap();
    induction.sort_unstable();
    assert_eq!(induction, (0..8).map(|head| (1, head)).collect::<Vec<_>>());
    assert!(kinds.heads("duplicate", 0.5).unwrap().is_empty());
    let copying = kinds.heads("copying", 0.5).unwrap();
    // One of them says whose an object is, too, and its values are not for copying alone.
    let copy = induction.iter().filter(|head| copying.contains(head)).count();
    assert!(copy >= 7, "{copying:?}");
    // Shuffled weights have no such head, and look everywhere alike.
    for series in 0..3 {
        let control = kinds.shuffled.select(Axis::Series, series).unwrap();
        assert!(control.values.iter().all(|score| *score < 0.3), "{control:?}");
    }
    let even = kinds.shuffled.select(Axis::Series, 4).unwrap();
    assert!(even.values.iter().all(|share| *share > 0.8), "{even:?}");
}

#[test]
fn tiny_worlds_induction_is_found_in_its_weights() {
    let model = tiny_world();
    let shuffled = model.shuffled(1).unwrap();
    let previous = [1, 3, 7];
    let z = |model: &Model, kind| composition_scores(model, kind, 0, 1).unwrap().z;
    let (keys, queries) = (z(&model, Composition::K), z(&model, Composition::Q));
    let control = z(&shuffled, Composition::K);
    for from in previous {
        for to in 8..16 {
            assert!(keys.values[[from, to]] > 20.0, "{from} {to}: {}", keys.values[[from, to]]);
            assert!(queries.values[[from, to]] < 5.0);
            assert!(control.values[[from, to]].abs() < 5.0);
        }
        let through = |model: &Model| {
            let grid = matching_scores_through(model, (0, from), 0).unwrap();
            grid.select(Axis::Layer, 1).unwrap().values
        };
        assert!(through(&model).iter().all(|score| *score > 0.7));
        assert!(through(&shuffled).iter().all(|score| score.abs() < 0.5));
    }
    let direct = matching_scores(&model, 0).unwrap().select(Axis::Layer, 1).unwrap();
    assert!(direct.values.iter().all(|score| *score < 0.0), "not by their own token: {direct:?}");
    let copying = copying_scores(&model).unwrap().select(Axis::Layer, 1).unwrap();
    assert!(copying.values.iter().filter(|score| **score > 0.5).count() >= 7, "{copying:?}");
    assert!(copying.values.mean().unwrap() > 0.7, "{copying:?}");
    let none = copying_scores(&shuffled).unwrap();
    assert!(none.values.iter().all(|score| score.abs() < 0.5));
}

#[test]
fn a_tenth_of_tiny_worlds_edges_does_its_induction() {
    let model = tiny_world();
    let clean = symbols(&model, 4, 2);
    // The same second copy after a first one that is turned round: what followed went before.
    let mut ids = clean.ids().to_vec();
    ids.iter_mut().for_each(|row| row[1..17].reverse());
    let corrupt = Tokens::from_ids(&ids).unwrap();
    let right: Vec<i64> = clean.ids().iter().map(|row| row[16]).collect();
    let wrong: Vec<i64> = clean.ids().iter().map(|row| row[14]).collect();
    let metric = Metric::logit_diff(right, wrong).at(-2);
    let edges = EdgeAttribution::new(&metric, Direction::Noise)
        .integrated(8)
        .run(&model, &clean, &corrupt)
        .unwrap();
    let pair = EdgePatching::new(&model, &clean, &corrupt).unwrap();
    let shares = [0.05, 0.1, 1.0];
    let curve = pair.curve(&edges, Selection::Greedy, &shares, &metric, 5, 0).unwrap();
    assert!(curve.curve.values[[0]] > 0.8 && curve.curve.values[[1]] > 0.95, "{:?}", curve.curve);
    assert!((curve.curve.values[[2]] - 1.0).abs() < 1e-4);
    assert!(curve.random.values[[1]].abs() < 0.1, "{:?}", curve.random);
    assert!(curve.cmd < 0.1 && curve.random_cmd.iter().all(|cmd| *cmd > 0.3), "{curve:?}");
    assert_eq!(curve.smallest(0.05).unwrap().0, 1);
    // It runs through the heads that make induction: layer 0 to the keys of layer 1.
    let circuit = &curve.circuits[1];
    let keys = circuit
        .edges()
        .into_iter()
        .filter(|edge| matches!(edge, (Writer::Head(0, 1 | 3 | 7), Reader::Key(1, _))));
    assert!(keys.count() >= 6, "{circuit:?}");
}
