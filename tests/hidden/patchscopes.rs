//! Patchscopes: the identity, the logit lens, and what a hand-written circuit must answer.

use thalweg::Sampling;
use thalweg::prelude::*;

use crate::induction_model::{induction_model, prompt};
use crate::support::{distance, model, same, says};

fn source() -> Tokens {
    Tokens::from_ids(&[vec![3, 1, 4, 1, 5]]).unwrap()
}

fn target() -> Tokens {
    Tokens::from_ids(&[vec![9, 2, 6]]).unwrap()
}

#[test]
fn a_state_put_where_it_was_changes_nothing() {
    let (model, tokens) = (model(), source());
    let scope = Patchscope::new(&model, (&tokens, 2), (&tokens, 2)).unwrap();
    let plain = model.logits(&tokens).unwrap();
    for rung in 0..3 {
        let run = model.run(&tokens, &scope.plan(rung, rung).unwrap()).unwrap();
        assert!(same(&run.logits, &plain), "rung {rung}");
    }
    let run = model.run(&tokens, &scope.plan(0, 1).unwrap()).unwrap();
    assert!(distance(&run.logits, &plain) > 1e-3);
}

#[test]
fn the_last_rung_at_the_last_position_is_the_logit_lens() {
    let model = model();
    let cache = model.run(&source(), &Plan::new().cache([Point::ResidPre, Point::ResidPost]));
    let cache = cache.unwrap().cache;
    let lens = logit_lens(&model, &cache, 7).unwrap();
    for at in [1, -1] {
        let scope = Patchscope::new(&model, (&source(), at), (&target(), -1)).unwrap();
        let grid = scope.grid(&Metric::log_prob(7)).unwrap();
        let last = grid.select(Axis::Series, -1).unwrap();
        let lens = lens.select(Axis::Pos, at).unwrap();
        for rung in 0..3 {
            let (own, read) = (last.values[[rung].as_slice()], lens.values[[rung].as_slice()]);
            assert!((own - read).abs() < 1e-12, "rung {rung} at {at}: {own} against {read}");
        }
        assert_eq!(grid.labels(Axis::Layer).unwrap(), ["embed", "L0", "L1"]);
        assert_eq!(grid.labels(Axis::Series).unwrap(), ["into embed", "into L0", "into L1"]);
    }
}

#[test]
fn a_grid_is_a_loop_of_runs_and_a_map_acts_on_the_way() {
    let model = model();
    let scope = Patchscope::new(&model, (&source(), 1), (&target(), 1)).unwrap();
    let cache = model.run(&source(), &Plan::new().cache([Point::ResidPre, Point::ResidPost]));
    let cache = cache.unwrap().cache;
    let site = |rung: usize| match rung {
        0 => Point::ResidPre.at(0),
        _ => Point::ResidPost.at(rung - 1),
    };
    let metric = Metric::logit_diff(4, 11);
    let doubled = scope.clone().map("doubled where they differ", |from, to, x| {
        Ok(if from == to { x.shallow_clone() } else { x * 2.0 })
    });
    let (plain, mapped) = (scope.grid(&metric).unwrap(), doubled.grid(&metric).unwrap());
    let top = doubled.top().unwrap();
    heatmap(&plain).unwrap();
    for from in 0..3 {
        for to in 0..3 {
            let state = cache.get(site(from)).unwrap().select(1, 1);
            let run = |factor: f64| {
                let set = Intervention::set(&(&state * factor).unsqueeze(1)).pos(1);
                model.run(&target(), &Plan::new().intervene(site(to), set)).unwrap().logits
            };
            let value =
                |factor: f64| metric.of(&run(factor), &target()).unwrap().double_value(&[0]);
            let factor = if from == to { 1.0 } else { 2.0 };
            let at = [from, to];
            assert!((plain.values[at.as_slice()] - value(1.0)).abs() < 1e-12, "{at:?}");
            assert!((mapped.values[at.as_slice()] - value(factor)).abs() < 1e-12, "{at:?}");
            let best = run(factor).select(1, -1).softmax(-1, Kind::Double).max_dim(-1, false);
            assert_eq!(top.pieces[at], best.1.int64_value(&[0]).to_string());
            assert!((top.prob.values[at.as_slice()] - best.0.double_value(&[0])).abs() < 1e-12);
        }
    }
}

#[test]
fn one_target_serves_many_sources_each_with_a_place_of_its_own() {
    let model = model();
    let sources = Tokens::from_ids(&[vec![3, 1, 4, 1, 5], vec![2, 6, 5], vec![8, 8]]).unwrap();
    let metric = Metric::log_prob(7);
    let from = Position::PerRow(vec![3, 0, -1]);
    let together = Patchscope::new(&model, (&sources, from), (&target(), 1)).unwrap();
    let together = together.grid(&metric).unwrap();
    let alone = [3i64, 0, -1].iter().enumerate().map(|(row, at)| {
        let scope = Patchscope::new(&model, (&sources.row(row).unwrap(), *at), (&target(), 1));
        scope.unwrap().grid(&metric).unwrap().values
    });
    let mean = alone.reduce(|a, b| a + b).unwrap() / 3.0;
    let apart = (&together.values - &mean).mapv(f64::abs).into_iter().fold(0.0, f64::max);
    assert!(apart < 1e-12 && together.n == 3 && together.interval.is_some(), "{apart}");
}

#[test]
fn its_plan_generates() {
    let model = model();
    let scope = Patchscope::new(&model, (&source(), -1), (&target(), 1)).unwrap();
    let plan = scope.plan(1, 0).unwrap();
    let text = model.generate(&target(), Sampling::new(4), &plan).unwrap();
    let first = model.run(&target(), &plan).unwrap().logits.select(1, -1).argmax(-1, false);
    assert_eq!(text.tokens.ids()[0][3], first.int64_value(&[0]));
}

#[test]
fn what_cannot_be_placed_is_said() {
    let model = model();
    let two = Tokens::from_ids(&[vec![1, 2], vec![3, 4]]).unwrap();
    let three = Tokens::from_ids(&[vec![1, 2], vec![3, 4], vec![5, 6]]).unwrap();
    says(Patchscope::new(&model, (&three, 0), (&two, 0)), &["3 source prompts", "2 target"]);
    says(Patchscope::new(&model, (&two, 7), (&two, 0)), &["source", "no position 7"]);
    says(Patchscope::new(&model, (&two, 0), (&two, "S2")), &["target", "S2"]);
    let scope = Patchscope::new(&model, (&two, 0), (&two, 0)).unwrap();
    says(scope.plan(0, 3), &["rungs 0 and 3", "to 2"]);
    says(scope.top(), &["2 source prompts"]);
    let cut = scope.map("cut", |_, _, x| Ok(x.narrow(1, 0, 3)));
    says(cut.plan(0, 0), &["\"cut\"", "[2, 3]", "[2, 12]"]);
}

#[test]
fn a_state_moved_to_another_prompt_asks_for_what_followed_its_own_token() {
    let model = induction_model((60.0, 400.0));
    let tokens = prompt(&model);
    let ids = tokens.ids()[0].clone();
    let (last, period) = (ids.len() - 2, (ids.len() - 1) / 2);
    let tokens = Tokens::from_ids(&[ids[..=last].to_vec()]).unwrap();
    let answer = |id: i64| ids[ids.iter().position(|own| *own == id).unwrap() + 1].to_string();
    for asked in period + 1..last {
        let scope = Patchscope::new(&model, (&tokens, asked as i64), (&tokens, -1)).unwrap();
        let top = scope.top().unwrap();
        // Embedding and first layer: the induction head asks for the moved token. Second: its answer
        // itself is moved.
        for rung in 0..3 {
            assert_eq!(top.pieces[[rung, rung]], answer(ids[asked]), "rung {rung}");
            assert_ne!(top.pieces[[rung, rung]], answer(ids[last]));
        }
        // The embedding put in at the end holds no answer yet.
        assert!(top.prob.values[[0, 2].as_slice()] < 0.2, "{:?}", top.prob.values);
    }
}
