//! Distributed alignment search finds a variable where it is, and its controls do not.

use thalweg::prelude::*;
use thalweg::rng::Rng;
use thalweg::{CausalModel, Das, DasStudy, InterchangePairs};

use super::{data, tiny_world};
use crate::support::{model, says};

fn of(study: &DasStudy, name: &str) -> f64 {
    study.iia.get(&[name]).unwrap()
}

/// Blocks write nothing; coordinate 3 of an embedding is +2 for even tokens and -2 for odd ones, the
/// others are noise; token 0 is said after the former, token 1 after the latter.
fn parity_model() -> Model {
    model()
        .with_weights(|name, w| {
            let mut rng = Rng::new(8);
            Ok(match name {
                _ if name.contains("o_proj") || name.contains("down_proj") => w.zeros_like(),
                "model.embed_tokens.weight" => {
                    let x = rng.normal_tensor(&w.size()).to_kind(w.kind()) * 2.0;
                    let signs: Vec<f64> =
                        (0..23).map(|t| if t % 2 == 0 { 2.0 } else { -2.0 }).collect();
                    x.select(1, 3).copy_(&Tensor::from_slice(&signs));
                    x
                }
                "model.norm.weight" => w.ones_like(),
                "lm_head.weight" => {
                    let x = w.zeros_like();
                    let _ = x.get(0).get(3).fill_(4.0);
                    let _ = x.get(1).get(3).fill_(-4.0);
                    x
                }
                _ => w.shallow_clone(),
            })
        })
        .unwrap()
}

/// Pairs of tokens, labelled by a causal model of the parity of the last one.
fn parity_pairs(n: usize) -> InterchangePairs {
    let causal = CausalModel::new(&["token"])
        .unwrap()
        .variable("odd", |v| Ok(v.get("token")? % 2))
        .unwrap()
        .variable("answer", |v| v.get("odd"))
        .unwrap();
    let mut rng = Rng::new(3);
    let (mut base, mut source, mut labels, mut items) = (vec![], vec![], vec![], vec![]);
    for _ in 0..n {
        let [a, b] = [rng.below(23) as i64, rng.below(23) as i64];
        base.push(vec![5, a]);
        source.push(vec![6, b]);
        labels.push(causal.interchange(&[a], &[b], &["odd"]).unwrap());
        items.push(vec![a.to_string(), b.to_string()]);
    }
    let [base, source] = [base, source].map(|rows| Tokens::from_ids(&rows).unwrap());
    InterchangePairs::new(base, source, labels, items).unwrap()
}

#[test]
fn das_finds_a_planted_coordinate() {
    let (model, site) = (parity_model(), Point::ResidPost.at(0));
    let (train, held_out) = parity_pairs(600).split(0.6, 2).unwrap();
    let das = Das { steps: 150, ..Das::new(site, -1, 1, 4) };
    let study = das.study(&model, &train, &held_out).unwrap();
    assert_eq!((of(&study, "learned"), of(&study, "whole vector")), (1.0, 1.0));
    let aligned = study.subspace.rows.abs().double_value(&[0, 3]);
    assert!(aligned > 0.97, "cosine with the planted coordinate {aligned}");
    for control in ["random subspaces", "shuffled labels", "shuffled weights", "no intervention"] {
        assert!(of(&study, control) < 0.8, "{control}: {study:?}");
    }
    let (first, last) = (study.loss.values[[0]], study.loss.values[[149]]);
    assert!(last < 0.5 * first, "the loss fell from {first} to {last}");
}

/// Pairs of the shortest `agree` prompts with the verb of the source's subject as the label.
fn agreement(model: &Model, n: usize) -> (InterchangePairs, usize) {
    let all = Prompts::load(data("prompts/agree.json")).unwrap();
    let set = all.filter(|p| ["congruent", "incongruent"].contains(&p.label.as_str()));
    let tokens = model.batch(&set.clean()).unwrap();
    let at = set.prompts[0].roles["subject"][1] - 1;
    assert!(set.prompts.iter().all(|p| p.roles["subject"][1] - 1 == at));
    let (is, are) = (model.token("is").unwrap(), model.token("are").unwrap());
    let causal = CausalModel::new(&["noun", "plural"])
        .unwrap()
        .variable("number", |v| v.get("plural"))
        .unwrap()
        .variable("verb", move |v| Ok(if v.get("number")? == 1 { are } else { is }))
        .unwrap();
    let facts = |row: usize| {
        let noun = tokens.ids()[row][at];
        [noun, i64::from(set.prompts[row].right[0] == "are")]
    };
    // Nouns are items in either number.
    let item = |row: usize| {
        let word = model.piece(tokens.ids()[row][at]);
        word.trim().trim_end_matches('s').trim_end_matches("xe").trim_end_matches('x').to_owned()
    };
    let mut rng = Rng::new(5);
    let drawn: Vec<[usize; 2]> =
        (0..n).map(|_| [rng.below(set.len()), rng.below(set.len())]).collect();
    let side = |i: usize| drawn.iter().map(|pair| pair[i]).collect::<Vec<_>>();
    let labels =
        drawn.iter().map(|[a, b]| causal.interchange(&facts(*a), &facts(*b), &["number"]).unwrap());
    let items = drawn.iter().map(|[a, b]| vec![item(*a), item(*b)]).collect();
    let [base, source] = [side(0), side(1)].map(|rows| tokens.rows(&rows).unwrap());
    (InterchangePairs::new(base, source, labels.collect(), items).unwrap(), at)
}

#[test]
fn das_finds_where_tiny_world_keeps_the_number_of_the_subject() {
    let model = tiny_world();
    let (pairs, at) = agreement(&model, 500);
    let (train, held_out) = pairs.split(0.7, 1).unwrap();
    let das = Das { steps: 25, batch: 16, ..Das::new(Point::ResidPost.at(0), at, 1, 4) };
    let study = das.study(&model, &train, &held_out).unwrap();
    assert!(of(&study, "learned") > 0.9, "{study:?}");
    for control in ["random subspaces", "shuffled labels", "shuffled weights", "no intervention"] {
        assert!(of(&study, control) < 0.7, "{control}: {study:?}");
    }
}

#[test]
fn the_same_seed_finds_the_same_subspace_and_an_empty_one_is_no_intervention() {
    let (model, site, pairs) = (parity_model(), Point::ResidPost.at(0), parity_pairs(60));
    let fit = |k, seed| {
        let das = Das { steps: 5, ..Das::new(site, -1, k, seed) };
        das.fit(&model, &pairs).unwrap()
    };
    let (a, b, c) = (fit(2, 1).0, fit(2, 1).0, fit(2, 2).0);
    assert!(a.rows.equal(&b.rows) && !a.rows.equal(&c.rows));
    assert_eq!(fit(0, 1).0.k(), 0);
    assert_eq!(fit(2, 1).1.shape(), [5]);
    // Labels that nothing but the whole source could give are given by the whole space.
    assert_eq!(fit(12, 1).0.iia(&model, &pairs).unwrap(), 1.0);
}

#[test]
fn a_search_that_cannot_be_is_refused() {
    let (model, pairs) = (parity_model(), parity_pairs(4));
    says(Das::new(Point::ResidPost.at(0), -1, 13, 1).fit(&model, &pairs), &["13 dimensions of 12"]);
    says(Das::new(Point::ResidPost.at(2), -1, 1, 1).fit(&model, &pairs), &["layers 0..1"]);
    let none = Das { steps: 0, ..Das::new(Point::ResidPost.at(0), -1, 1, 1) };
    says(none.fit(&model, &pairs), &["steps: 0"]);
    let das = Das::new(Point::ResidPost.at(0), -1, 1, 1);
    for label in [-100, 23] {
        let mut wrong = pairs.clone();
        wrong.labels[2] = label;
        says(das.fit(&model, &wrong), &[&format!("label {label}"), "0..22"]);
    }
    let InterchangePairs { base, source, items, .. } = pairs;
    says(InterchangePairs::new(base, source, vec![0, 1, -1, 0], items), &["label -1"]);
}
