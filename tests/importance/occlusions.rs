//! Occlusion: what is lost without a token, by hand, in additive models, and between equal tokens.

use super::*;

fn cut(token: usize) -> Plan {
    Plan::new().intervene(Point::Scores, Intervention::knockout(token + 1.., token))
}

#[test]
fn every_cell_is_the_metric_less_that_of_a_run_of_its_own_with_and_without_padding() {
    for model in models(Kind::Double) {
        let mean = model.weight(W::E, 0).unwrap().mean_dim([0i64].as_slice(), false, None);
        let neutral = model.embed(&Tokens::from_ids(&[vec![7]]).unwrap()).unwrap().view([-1]);
        for how in [Occlusion::AttentionCut, Occlusion::Token(7), Occlusion::MeanEmbedding] {
            let all = occlusion(&model, &tokens(), &metric(), &how).unwrap();
            assert_eq!(all.shape(), [3, 6]);
            let is_cut = how == Occlusion::AttentionCut;
            assert_eq!(cells(&all).len(), if is_cut { 5 + 2 + 3 } else { 6 + 3 + 4 });
            for (index, found) in cells(&all) {
                let own = tokens().row(index[0]).unwrap();
                let token = index[1] - tokens().padding(index[0]);
                let put_in = |x: &Tensor| {
                    Plan::new().intervene(Site::Embed, Intervention::set(x).pos(token))
                };
                let plan = match how {
                    Occlusion::AttentionCut => cut(token),
                    Occlusion::Token(_) => put_in(&neutral),
                    Occlusion::MeanEmbedding => put_in(&mean),
                };
                let run = |plan: &Plan| measure(&model, &own, plan, &metric())[0];
                near(found, run(&Plan::new()) - run(&plan), 1e-10, (&how, index));
            }
        }
    }
}

#[test]
fn the_first_token_cut_off_is_the_prompt_without_it() {
    // RoPE sees distances alone: what is left of the prompt may begin anywhere.
    for model in models(Kind::Double) {
        let whole = Tokens::from_ids(&[vec![3, 1, 4, 1, 5, 9]]).unwrap();
        let rest = Tokens::from_ids(&[vec![1, 4, 1, 5, 9]]).unwrap();
        let lost = occlusion(&model, &whole, &metric(), &Occlusion::AttentionCut).unwrap();
        let expected = measure(&model, &whole, &Plan::new(), &metric())[0]
            - measure(&model, &rest, &Plan::new(), &metric())[0];
        near(lost.at(&[0]).unwrap(), expected, 1e-10, "first token");
    }
}

/// A model that is linear in its embeddings: eps drowns what the norms divide by, heads look
/// everywhere alike, MLPs write nothing.
fn linear(model: &Model) -> Model {
    let edited = model.with_weights(|name, w| {
        Ok(match name {
            _ if name.contains("norm") => w * 1e8,
            _ if name.contains("q_proj") || name.contains("down_proj") => w.zeros_like(),
            _ => w.shallow_clone(),
        })
    });
    edited.unwrap()
}

#[test]
fn in_an_additive_model_replacement_is_exact_and_integrated_gradients_say_the_same() {
    let config = Config { n_layers: 3, eps: 1e16, attention_bias: true, ..config() };
    let model = linear(&model_of(config, Kind::Double, 4));
    let lost = occlusion(&model, &tokens(), &metric(), &Occlusion::MeanEmbedding).unwrap();
    let shares =
        integrated_gradients(&model, &tokens(), &metric(), Baseline::MeanEmbedding).unwrap();
    let gradients = gradient_times_input(&model, &tokens(), &metric(), None).unwrap();
    for (index, value) in cells(&lost) {
        near(shares.tokens.values[index.as_slice()], value, 1e-6, index);
    }
    let mean = model.weight(W::E, 0).unwrap().mean_dim([0i64].as_slice(), false, None);
    let everywhere = Plan::new().intervene(Site::Embed, Intervention::set(&mean));
    let base = measure(&model, &tokens(), &Plan::new(), &metric());
    let emptied = measure(&model, &tokens(), &everywhere, &metric());
    for row in 0..3 {
        let own = lost.select(Axis::Batch, row as i64).unwrap();
        let sum: f64 = cells(&own).iter().map(|(_, value)| value).sum();
        near(sum, base[row] - emptied[row], 1e-6, row);
    }
    // Gradient times input asks about zeros, not about the mean: other numbers, the same answer
    // where the mean is taken off.
    assert!(distance_of(&gradients, &lost) > 1e-3);
}

/// Largest difference of cells that exist in both.
fn distance_of(a: &Grid, b: &Grid) -> f64 {
    let apart = |(index, value): (Vec<usize>, f64)| (value - b.values[index.as_slice()]).abs();
    a.present().filter(|(index, _)| b.exists(index)).map(apart).fold(0.0, f64::max)
}

#[test]
fn two_equal_tokens_that_are_seen_alike_matter_alike() {
    // One layer whose heads look everywhere alike: where a token stands makes no difference.
    let one_layer = model_of(Config { n_layers: 1, ..config() }, Kind::Double, 8);
    let blind = one_layer.with_weights(|name, w| {
        Ok(if name.contains("q_proj") { w.zeros_like() } else { w.shallow_clone() })
    });
    let (blind, tokens) = (blind.unwrap(), Tokens::from_ids(&[vec![6, 2, 9, 2, 4]]).unwrap());
    let mut methods = ImportanceMethod::all(&metric());
    methods.push(Occlusion::Token(7).into());
    let found = importance(&blind, &tokens, &metric(), &methods).unwrap();
    for (name, grid) in &found.methods {
        let at = |i: i64| grid.at(&[i]).unwrap();
        near(at(1), at(3), 1e-9, name);
        assert!((at(1) - at(2)).abs() > 1e-6 || name == "attention rollout", "{name}");
    }
}

#[test]
fn a_token_that_nothing_reads_is_worth_nothing() {
    // The metric looks at position 2: what comes later cannot matter.
    let model = &models(Kind::Double)[0];
    let one = tokens().row(0).unwrap();
    let early = metric().at(2);
    let lost = occlusion(model, &one, &early, &Occlusion::MeanEmbedding).unwrap();
    assert!((3..6).all(|at| lost.at(&[at]).unwrap() == 0.0));
    let lost = occlusion(model, &one, &early, &Occlusion::AttentionCut).unwrap();
    assert_eq!(cells(&lost).len(), 2);
    // A loss looks at every place but the last.
    let lost = occlusion(model, &one, &Metric::loss(), &Occlusion::AttentionCut).unwrap();
    assert_eq!(cells(&lost).len(), 4);
}

#[test]
fn a_token_outside_the_vocabulary_is_refused() {
    let model = &models(Kind::Double)[0];
    let wrong = Occlusion::Token(99);
    says(occlusion(model, &tokens(), &metric(), &wrong), &["occlusion", "99", "vocabulary of 23"]);
}

#[test]
fn an_intervention_on_some_rows_asks_for_its_places_in_these_rows_alone() {
    let model = &models(Kind::Double)[0];
    let zero = || Intervention::zero().pos(4);
    let plan = |edit: Intervention| Plan::new().intervene(Point::ResidMid.at(1), edit);
    says(model.run(&tokens(), &plan(zero())), &["row 1 has 3 tokens: no position 4"]);
    let base = measure(model, &tokens(), &Plan::new(), &metric());
    let found = measure(model, &tokens(), &plan(zero().batch(0)), &metric());
    assert!((found[0] - base[0]).abs() > 1e-6);
    assert_eq!(found[1..], base[1..]);
    says(model.run(&tokens(), &plan(zero().batch([0, 2]))), &["row 2 has 4 tokens"]);
}

#[test]
fn a_word_is_occluded_whole_while_its_pieces_go_on_seeing_each_other() {
    let model = &models(Kind::Double)[1];
    let pieces = [
        vec!["The", " ca", "ts", " sl", "ee", "p"],
        vec!["A", " ca", "t"],
        vec!["A", " c", "a", "t"],
    ];
    let owned = pieces.map(|row| row.into_iter().map(str::to_owned).collect()).to_vec();
    let tokens = tokens().labelled(owned).unwrap();
    let spans = [vec![0..1, 1..3, 3..6], vec![0..1, 1..3], vec![0..1, 1..4]];
    for how in [Occlusion::AttentionCut, Occlusion::Token(7)] {
        let found = occlusion_by_word(model, &tokens, &metric(), &how).unwrap();
        assert_eq!(found.labels(Axis::Pos).unwrap(), ["-3", "-2", "-1"]);
        let is_cut = how == Occlusion::AttentionCut;
        assert_eq!(cells(&found).len(), if is_cut { 2 + 1 + 1 } else { 3 + 2 + 2 });
        let neutral = model.embed(&Tokens::from_ids(&[vec![7]]).unwrap()).unwrap().view([-1]);
        for (index, lost) in cells(&found) {
            let (row, own) = (index[0], tokens.row(index[0]).unwrap());
            let word = spans[row][index[1] + spans[row].len() - 3].clone();
            let plan = match is_cut {
                // Edge by edge: every later token to every piece.
                true => (word.end..own.width()).fold(Plan::new(), |plan, query| {
                    let cut = Intervention::knockout(query, word.clone());
                    plan.intervene(Point::Scores, cut)
                }),
                false => Plan::new()
                    .intervene(Site::Embed, Intervention::set(&neutral).pos(word.clone())),
            };
            let run = |plan: &Plan| measure(model, &own, plan, &metric())[0];
            near(lost, run(&Plan::new()) - run(&plan), 1e-10, (&how, index));
        }
    }
    // Whole words are words: the same as occlusion.
    let one = Tokens::from_ids(&[vec![3, 1, 4, 1, 5]]).unwrap();
    let by_word = occlusion_by_word(model, &one, &metric(), &Occlusion::AttentionCut).unwrap();
    let plain = occlusion(model, &one, &metric(), &Occlusion::AttentionCut).unwrap();
    assert_eq!(cells(&by_word).len(), 4);
    for (index, value) in cells(&plain) {
        near(by_word.at(&[index[0] as i64]).unwrap(), value, 1e-10, index);
    }
}

#[test]
fn with_every_edge_between_tokens_cut_each_token_is_alone() {
    for model in models(Kind::Double) {
        let one = tokens().row(0).unwrap();
        let cuts = (1..6usize).fold(Plan::new(), |plan, query| {
            plan.intervene(Point::Scores, Intervention::knockout(query, 0..query))
        });
        let logits = model.run(&one, &cuts).unwrap().logits.get(0);
        for (at, id) in one.ids()[0].iter().enumerate() {
            let alone = model.logits(&Tokens::from_ids(&[vec![*id]]).unwrap()).unwrap();
            assert!(distance(&logits.get(at as i64), &alone.get(0).get(0)) < 1e-12, "{at}");
        }
    }
}
