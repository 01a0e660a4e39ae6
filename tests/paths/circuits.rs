//! Circuits and exact edge patching: what the runs must equal, and what choosing edges must keep.

use thalweg::prelude::*;
use thalweg::{
    Circuit, Comparison, Config, EdgePatching, Edges, MIB_SHARES, Reader, Selection, Writer,
    edge_count,
};

use super::near;
use crate::gradients::linear_model;
use crate::invariants::{models, others, tokens};
use crate::support::{config, distance, model_of, same, says};

fn metric() -> Metric {
    Metric::logit_diff(5, 11)
}

fn pair(model: &Model) -> EdgePatching {
    EdgePatching::new(model, &tokens(), &others()).unwrap()
}

/// Logits at each row's own tokens, one after the other.
fn logits(run: &Run) -> Tensor {
    let rows = tokens().lens().into_iter().enumerate().map(|(row, n)| {
        let own = run.logits.get(row as i64);
        own.narrow(0, own.size()[0] - n as i64, n as i64)
    });
    Tensor::cat(&rows.collect::<Vec<_>>(), 0)
}

fn all_edges(model: &Model) -> Vec<(Writer, Reader)> {
    Circuit::full(model.config()).edges()
}

/// Circuits of every size, drawn from a seed.
fn random(model: &Model, seed: u64) -> Circuit {
    let mut rng = thalweg::rng::Rng::new(seed);
    let all = all_edges(model);
    let n = rng.range(1..all.len());
    let some: Vec<_> = rng.sample(all.len(), n).into_iter().map(|i| all[i]).collect();
    Circuit::of(model.config(), &some).unwrap()
}

fn scored(model: &Model) -> Edges {
    EdgeAttribution::new(&metric(), Direction::Noise).run(model, &tokens(), &others()).unwrap()
}

#[test]
fn the_full_circuit_is_the_clean_run_and_the_empty_one_the_corrupt_run() {
    for model in models(Kind::Double) {
        let pair = pair(&model);
        let full = pair.run(&Circuit::full(model.config()), Plan::new()).unwrap();
        assert!(same(&full.logits, &model.logits(&tokens()).unwrap()));
        let empty = pair.run(&Circuit::empty(model.config()), Plan::new()).unwrap();
        let corrupt = model.run(&others(), &Plan::new()).unwrap();
        assert!(distance(&logits(&empty), &logits(&corrupt)) < 1e-12);
        for (circuit, expected) in
            [(Circuit::full(model.config()), 1.0), (Circuit::empty(model.config()), 0.0)]
        {
            near(pair.faithfulness(&circuit, &metric()).unwrap(), expected);
        }
    }
}

#[test]
fn with_all_edges_out_of_the_input_patched_the_run_is_the_corrupt_one() {
    for model in models(Kind::Double) {
        let out: Vec<_> =
            all_edges(&model).into_iter().filter(|(w, _)| *w == Writer::Embed).collect();
        let circuit = Circuit::full(model.config()).without(&out).unwrap();
        let run = pair(&model).run(&circuit, Plan::new()).unwrap();
        let corrupt = model.run(&others(), &Plan::new()).unwrap();
        assert!(distance(&logits(&run), &logits(&corrupt)) < 1e-12);
    }
}

#[test]
fn cutting_one_edge_changes_one_readers_input_by_the_writers_difference() {
    let sites: [Point; 5] =
        [Point::QInput, Point::KInput, Point::VInput, Point::MlpIn, Point::ResidPost];
    for model in models(Kind::Double) {
        let plan = Plan::new().cache([Point::HeadResult, Point::MlpOut]).cache(Site::Embed);
        let [clean, corrupt] =
            [tokens(), others()].map(|tokens| model.run(&tokens, &plan).unwrap().cache);
        let pair = pair(&model);
        let last = model.config().n_layers - 1;
        for (from, to) in all_edges(&model).into_iter().step_by(7) {
            let change = |site: Site| corrupt.get(site).unwrap() - clean.get(site).unwrap();
            let change = match from {
                Writer::Embed => change(Site::Embed),
                Writer::Head(l, h) => change(Point::HeadResult.at(l)).select(2, h as i64),
                Writer::Mlp(l) => change(Point::MlpOut.at(l)),
            };
            let change = std::sync::Mutex::new(change);
            let add = Intervention::custom("by hand", move |x| {
                let change = change.lock().unwrap();
                Ok(x + if x.dim() == 4 { change.unsqueeze(2) } else { change.shallow_clone() })
            });
            let (site, add) = match to {
                Reader::Query(l, h) => (sites[0].at(l), add.head(h)),
                Reader::Key(l, g) => (sites[1].at(l), add.kv_head(g)),
                Reader::Value(l, g) => (sites[2].at(l), add.kv_head(g)),
                Reader::Mlp(l) => (sites[3].at(l), add),
                Reader::Logits => (sites[4].at(last), add),
            };
            let by_hand = model.run(&tokens(), &Plan::new().intervene(site, add)).unwrap();
            let circuit = Circuit::full(model.config()).without(&[(from, to)]).unwrap();
            let run = pair.run(&circuit, Plan::new()).unwrap();
            let apart = distance(&logits(&run), &logits(&by_hand));
            assert!(apart < 1e-12, "{from} -> {to}: {apart}");
            let moved =
                distance(&logits(&run), &logits(&model.run(&tokens(), &Plan::new()).unwrap()));
            assert!(moved > 1e-9, "{from} -> {to} changes nothing");
        }
    }
}

#[test]
fn path_patching_with_all_held_is_the_patching_of_one_edge() {
    let model = &models(Kind::Double)[0];
    let paths = Patching::new(model, &tokens(), &others()).unwrap().direction(Direction::Noise);
    let receivers = [
        (Receiver::q(2, 3), Reader::Query(2, 3)),
        (Receiver::k(1, 1), Reader::Key(1, 1)),
        (Receiver::v(2, 0), Reader::Value(2, 0)),
        (Receiver::mlp(1), Reader::Mlp(1)),
        (Receiver::logits(), Reader::Logits),
    ];
    let pair = pair(model);
    let base = Circuit::full(model.config());
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
    for (receiver, reader) in receivers {
        let grid = paths
            .paths(Point::Z, &[Axis::Head], &[receiver], PathRule::MlpsFrozen, &metric())
            .unwrap();
        for (layer, head) in [(0, 0), (0, 2), (1, 1), (1, 3)] {
            let edge = (Writer::Head(layer, head), reader);
            let Ok(circuit) = base.clone().without(&[edge]) else { continue };
            let exact = mean(pair.values(&circuit, &metric()).unwrap());
            near(grid.at(&[layer as i64, head as i64]).unwrap(), exact);
        }
    }
}

#[test]
fn edges_that_dangle_change_nothing() {
    for model in models(Kind::Double) {
        let pair = pair(&model);
        for seed in 0..6 {
            let circuit = random(&model, seed);
            let pruned = circuit.pruned();
            assert_eq!(pruned.pruned(), pruned);
            let [a, b] = [&circuit, &pruned].map(|c| pair.run(c, Plan::new()).unwrap());
            assert!(distance(&logits(&a), &logits(&b)) < 1e-12, "{circuit:?}");
        }
    }
    let model = &models(Kind::Double)[0]; // 4 heads, 2 key/value heads
    let keys = [
        (Writer::Embed, Reader::Key(0, 1)),
        (Writer::Head(0, 3), Reader::Logits),
        (Writer::Head(0, 2), Reader::Mlp(0)),
        (Writer::Head(0, 1), Reader::Logits),
    ];
    let pruned = Circuit::of(model.config(), &keys).unwrap().pruned();
    assert_eq!(pruned.edges(), [keys[0], keys[1]], "key/value head 1 feeds heads 2 and 3");
}

#[test]
fn in_a_linear_model_the_estimates_are_the_exact_effects_and_add_up() {
    let model = linear_model();
    let edges = scored(&model);
    let exact = pair(&model).effects(&all_edges(&model), &metric()).unwrap();
    let comparison = Comparison::of(&edges.scores, &exact).unwrap();
    assert_eq!(comparison.n, edge_count(model.config()));
    for (cell, estimate) in comparison.ranked() {
        assert!(
            (cell.value - estimate).abs() < 1e-6 * edges.difference.abs(),
            "{cell:?}: {estimate}"
        );
    }
    let out: f64 = exact.select(Axis::Writer, 0).unwrap().present().map(|(_, x)| x).sum();
    assert!((out - edges.difference).abs() < 1e-6 * edges.difference.abs());
}

#[test]
fn a_mean_or_nothing_can_stand_outside_the_circuit() {
    for model in models(Kind::Double) {
        let none = Circuit::empty(model.config());
        let plan = Plan::new().cache(Point::ResidPost);
        let last = Point::ResidPost.at(model.config().n_layers - 1);
        // The final stream is then the mean of final streams, at every position but the first.
        let run = model.run(&others(), &plan).unwrap();
        let stream = run.cache.get(last).unwrap();
        let own = others().lens().into_iter().enumerate().map(|(row, n)| {
            let row = stream.get(row as i64);
            row.narrow(0, row.size()[0] - n as i64 + 1, n as i64 - 1)
        });
        let mean =
            Tensor::cat(&own.collect::<Vec<_>>(), 0).mean_dim([0i64].as_slice(), false, None);
        let with_mean = EdgePatching::with_mean(&model, &tokens(), &others()).unwrap();
        let run = with_mean.run(&none, Plan::new().cache(last)).unwrap();
        let own = model.run(&tokens(), &Plan::new().cache(last)).unwrap().cache.get(last).unwrap();
        for (row, n) in tokens().lens().into_iter().enumerate() {
            let first = tokens().padding(row) as i64;
            let [found, own] = [&run.cache.get(last).unwrap(), &own]
                .map(|x| x.get(row as i64).narrow(0, first, n as i64));
            assert!(distance(&found.get(0), &own.get(0)) < 1e-12);
            let found = found.narrow(0, 1, n as i64 - 1);
            assert!(distance(&found, &mean.expand_as(&found)) < 1e-12);
        }
        // And without any writer only biases of attention are left in it.
        let with_zero = EdgePatching::with_zero(&model, &tokens()).unwrap();
        let run = with_zero.run(&none, Plan::new().cache(last)).unwrap();
        let biases = (0..model.config().n_layers).map(|l| model.weight(W::BO, l).unwrap());
        let biases: Tensor = biases.sum();
        let found = run.cache.get(last).unwrap().get(0);
        assert!((found - biases).abs().max().double_value(&[]) < 1e-12);
    }
}

#[test]
fn the_best_edges_are_the_largest_and_greedy_ones_lead_to_the_logits() {
    for model in models(Kind::Double) {
        let edges = scored(&model);
        let all = edge_count(model.config());
        for selection in
            [Selection::Top, Selection::Greedy, Selection::TopSigned, Selection::GreedySigned]
        {
            let full = Circuit::best(&edges, all, selection);
            assert_eq!(full, Circuit::full(model.config()));
            assert!(Circuit::best(&edges, 0, selection).is_empty());
            let some = Circuit::best(&edges, 20, selection);
            assert!(some.len() <= 20 && some == some.pruned(), "{some:?}");
        }
        let ranked = edges.ranked();
        let best: Vec<_> = ranked.iter().take(20).map(|edge| (edge.from, edge.to)).collect();
        let top = Circuit::of(model.config(), &best).unwrap();
        assert_eq!(Circuit::best(&edges, 20, Selection::Top), top.pruned());
        // Greedy: the best edge into the logits comes first, whatever else is larger.
        let into = ranked.iter().find(|edge| edge.to == Reader::Logits).unwrap();
        let grown = |n| Circuit::best(&edges, n, Selection::Greedy);
        assert!(grown(30).contains(into.from, into.to));
        // By sign: no edge against the difference while there is one for it.
        let for_it = ranked.iter().filter(|e| e.score * edges.difference > 0.0).count();
        let signed = Circuit::best(&edges, for_it, Selection::TopSigned);
        let against = |(from, to): &(Writer, Reader)| {
            let edge = ranked.iter().find(|e| e.from == *from && e.to == *to).unwrap();
            edge.score * edges.difference <= 0.0
        };
        assert!(!signed.edges().iter().any(against));
    }
}

#[test]
fn shuffled_scores_are_the_same_numbers_at_other_edges() {
    let edges = scored(&models(Kind::Double)[0]);
    let sorted = |edges: &Edges| {
        let mut values: Vec<f64> = edges.ranked().iter().map(|edge| edge.score).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let shuffled = edges.shuffled(1);
    assert_eq!(sorted(&shuffled), sorted(&edges));
    assert_eq!(shuffled.scores.values, edges.shuffled(1).scores.values);
    assert_ne!(shuffled.scores.values, edges.shuffled(2).scores.values);
    assert_ne!(shuffled.scores.values, edges.scores.values);
}

#[test]
fn a_faithfulness_curve_ends_at_one_and_its_areas_are_those_of_the_benchmark() {
    let model = &models(Kind::Double)[1];
    let (pair, edges) = (pair(model), scored(model));
    let shares = &MIB_SHARES[3..];
    let curve = pair.curve(&edges, Selection::Greedy, shares, &metric(), 3, 7).unwrap();
    let values: Vec<f64> = curve.curve.values.iter().copied().collect();
    near(*values.last().unwrap(), 1.0);
    for (circuit, value) in curve.circuits.iter().zip(&values) {
        near(pair.faithfulness(circuit, &metric()).unwrap(), *value);
    }
    // The trapezoidal rule written out.
    let mut areas = (0.0, 0.0);
    for i in 0..shares.len() - 1 {
        let width = shares[i + 1] - shares[i];
        areas.0 += width * (values[i] + values[i + 1]) / 2.0;
        areas.1 += width * ((1.0 - values[i]).abs() + (1.0 - values[i + 1]).abs()) / 2.0;
    }
    near(curve.cpr, areas.0);
    near(curve.cmd, areas.1);
    assert_eq!(curve.curve.n, 3);
    assert!(curve.curve.interval.is_some() && curve.random.interval.is_some());
    assert_eq!((curve.random.n, curve.random_cpr.len(), curve.random_cmd.len()), (3, 3, 3));
    let again = pair.curve(&edges, Selection::Greedy, shares, &metric(), 3, 7).unwrap();
    assert_eq!(curve.random.values, again.random.values);
    assert_eq!(curve.grid().unwrap().shape(), [2, shares.len()]);
    assert_eq!(curve.smallest(10.0).unwrap().0, 0);
}

#[test]
fn acdc_keeps_every_edge_below_all_thresholds_and_none_above_them() {
    let model = &models(Kind::Double)[2];
    let pair = pair(model);
    let circuit = |threshold| pair.acdc(&metric(), threshold).unwrap();
    assert_eq!(circuit(f64::NEG_INFINITY), Circuit::full(model.config()));
    assert!(circuit(f64::INFINITY).is_empty());
    says(pair.acdc(&metric(), f64::NAN), &["NaN"]);
    // The same cuts one by one, from the logits backwards.
    let some = circuit(0.02);
    let apart = |circuit: &Circuit| {
        let whole = pair.values(&Circuit::full(model.config()), &metric()).unwrap();
        let own = pair.values(circuit, &metric()).unwrap();
        own.iter().zip(whole).map(|(a, b)| (a - b).abs()).sum::<f64>() / 3.0
    };
    let scores = scored(model);
    let (mut left, mut now) = (Circuit::full(model.config()), 0.0);
    for to in scores.readers.iter().rev() {
        for from in scores.writers.iter().rev() {
            let Ok(less) = left.clone().without(&[(*from, *to)]) else { continue };
            let after = apart(&less);
            if after - now < 0.02 {
                (left, now) = (less, after);
            }
        }
    }
    assert!(!some.is_empty() && some.len() < edge_count(model.config()), "{some:?}");
    assert_eq!(some, left.pruned());
    assert_eq!(some, some.pruned());
}

#[test]
fn what_cannot_be_a_circuit_says_why() {
    let config = Config { n_layers: 3, ..config() };
    let of = |from, to| Circuit::of(&config, &[(from, to)]);
    says(of(Writer::Head(1, 0), Reader::Key(1, 0)), &["L1H0 -> L1G0 k", "before"]);
    says(of(Writer::Head(0, 4), Reader::Logits), &["L0H4", "heads 0..3"]);
    says(of(Writer::Embed, Reader::Value(0, 2)), &["key/value heads 0..1"]);
    says(of(Writer::Embed, Reader::Mlp(3)), &["layers 0..2"]);
    let model = &models(Kind::Double)[0];
    let other = Circuit::full(&Config { n_kv_heads: 4, ..config.clone() });
    says(pair(model).run(&other, Plan::new()), &["4 key/value heads", "and 2"]);
    let edges = scored(model);
    let curve = |shares: &[f64]| pair(model).curve(&edges, Selection::Top, shares, &metric(), 0, 0);
    says(curve(&[0.5]), &["1 shares"]);
    says(curve(&[0.5, 0.2]), &["rising"]);
    says(curve(&[0.5, 1.2]), &["0..1"]);
    let same = EdgePatching::new(model, &tokens(), &tokens()).unwrap();
    says(
        same.faithfulness(&Circuit::empty(&config), &metric()),
        &["faithfulness", "no difference"],
    );
    let short = Tokens::from_ids(&[vec![1]]).unwrap();
    says(EdgePatching::with_mean(model, &tokens(), &short), &["no token after their first"]);
    let _ = model_of(config, Kind::Double, 1);
}
