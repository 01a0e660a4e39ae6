//! Heads of one model matched with those of another.

use std::path::Path;

use thalweg::{Config, HeadMatching, HeadSimilarity, match_heads};

use super::*;
use crate::support::{config, model, model_of, same};

const BOTH: [HeadSimilarity; 2] = [HeadSimilarity::Pattern, HeadSimilarity::Output];

/// Head `i` of each layer becomes head `order[i]` of before, key/value heads with them.
fn reordered(model: &Model, order: &[i64]) -> Model {
    let c = model.config().clone();
    let each = (c.n_heads / c.n_kv_heads) as i64;
    let groups: Vec<i64> = order.iter().step_by(each as usize).map(|head| head / each).collect();
    let pick = |w: &Tensor, axis: i64, order: &[i64]| {
        let (n, d) = (order.len() as i64, c.d_head as i64);
        let (shape, split) = match axis {
            0 => (w.size(), vec![n, d, -1]),
            _ => (w.size(), vec![-1, n, d]),
        };
        w.view(&split[..]).index_select(axis, &Tensor::from_slice(order)).reshape(&shape[..])
    };
    model
        .with_weights(|name, w| {
            Ok(match name {
                name if name.contains("q_proj") => pick(w, 0, order),
                name if name.contains("k_proj") || name.contains("v_proj") => pick(w, 0, &groups),
                name if name.contains("o_proj") => pick(w, 1, order),
                _ => w.shallow_clone(),
            })
        })
        .unwrap()
}

fn batch() -> Tokens {
    let mut rng = Rng::new(5);
    let rows: Vec<Vec<i64>> =
        (0..10).map(|i| (0..8 - i % 3).map(|_| rng.below(23) as i64).collect()).collect();
    Tokens::from_ids(&rows).unwrap()
}

fn cache(model: &Model, tokens: &Tokens) -> Cache {
    model.run(tokens, &Plan::new().cache([Point::Pattern, Point::HeadResult])).unwrap().cache
}

/// Every head of the second model is matched with the one it was made of, which it equals.
#[track_caller]
fn matched(found: &HeadMatching, order: &[i64]) {
    for pair in &found.pairs {
        assert_eq!(pair.a, (pair.b.0, order[pair.b.1] as usize), "{pair:?}");
        assert!((pair.score - 1.0).abs() < 1e-5, "{pair:?}");
    }
}

#[test]
fn heads_in_another_order_are_matched_with_themselves() {
    let (model, tokens) = (model(), batch());
    let own = cache(&model, &tokens);
    for order in [[0, 1, 2, 3], [2, 3, 0, 1], [1, 0, 2, 3], [3, 2, 0, 1]] {
        let other = reordered(&model, &order);
        assert!(distance(&model.logits(&tokens).unwrap(), &other.logits(&tokens).unwrap()) < 1e-9);
        let own_order = order.map(|head| head as usize);
        let library = model.with_heads_in_order(&own_order).unwrap();
        for (name, w) in library.named_weights() {
            assert!(same(&w, &other.named_weights()[&name]), "{name} {order:?}");
        }
        for by in BOTH {
            let found = match_heads(&own, &cache(&other, &tokens), by, 1).unwrap();
            assert_eq!(found.pairs.len(), 8);
            matched(&found, &order);
            assert!((found.mean - 1.0).abs() < 1e-9 && found.shuffled_mean < 0.8, "{found:?}");
            assert!(!format!("{found:?}").contains('\n'));
        }
    }
}

#[test]
fn an_order_that_parts_heads_of_one_group_or_names_one_twice_is_refused() {
    for order in [vec![1, 2, 3, 0], vec![0, 1, 2, 2], vec![0, 1], vec![0, 1, 2, 4]] {
        says(model().with_heads_in_order(&order), &[&format!("{order:?}"), "0..4", "side by side"]);
    }
}

#[test]
fn each_score_is_the_correlation_or_the_cka_of_the_two_heads() {
    let wide = model_of(Config { d_model: 16, n_layers: 1, ..config() }, Kind::Double, 2);
    let tokens = batch();
    let (a, b) = (cache(&model(), &tokens), cache(&wide, &tokens));
    let found = match_heads(&a, &b, HeadSimilarity::Output, 1).unwrap();
    assert_eq!((found.values.shape(), found.pairs.len()), (&[8, 4][..], 4));
    let written = |cache: &Cache, layer: usize, head: i64| {
        let x = cache.get(Point::HeadResult.at(layer)).unwrap().select(2, head);
        let own = (0..10).map(|row| {
            let first = tokens.padding(row as usize) as i64 + 1;
            x.get(row).narrow(0, first, 8 - first)
        });
        Tensor::cat(&own.collect::<Vec<_>>(), 0)
    };
    let by_hand = cka(&written(&a, 1, 2), &written(&b, 0, 3)).unwrap();
    near(found.values.get(&["L1H2", "L0H3"]).unwrap(), by_hand);
    let found = match_heads(&a, &b, HeadSimilarity::Pattern, 1).unwrap();
    let looks = |cache: &Cache, layer: usize, head: i64| -> Vec<f64> {
        let x = cache.get(Point::Pattern.at(layer)).unwrap();
        let mut all = Vec::new();
        for row in 0..10 {
            let first = tokens.padding(row as usize) as i64 + 1;
            for query in first..8 {
                all.extend((first..=query).map(|key| x.double_value(&[row, head, query, key])));
            }
        }
        all
    };
    let by_hand = thalweg::pearson(&looks(&a, 1, 2), &looks(&b, 0, 3)).unwrap();
    near(found.values.get(&["L1H2", "L0H3"]).unwrap(), by_hand);
    let other = cache(&model(), &tokens.row(0).unwrap());
    says(match_heads(&a, &other, HeadSimilarity::Pattern, 1), &["different tokens"]);
}

#[test]
fn heads_of_tiny_world_are_found_in_any_order_and_not_in_shuffled_weights() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let model = Model::load(root.join("data/models/tiny-world")).unwrap();
    let set = Prompts::load(root.join("data/prompts/ioi.json")).unwrap();
    let tokens = model.batch(&set.first(10).clean()).unwrap();
    let each = (model.config().n_heads / model.config().n_kv_heads) as i64;
    // Groups from last to first, and the heads of each group too.
    let order: Vec<i64> = (0..model.config().n_heads as i64).rev().collect();
    assert!(each > 1, "heads within groups");
    let own = cache(&model, &tokens);
    let (other, control) = (reordered(&model, &order), model.shuffled(4).unwrap());
    for by in BOTH {
        let found = match_heads(&own, &cache(&other, &tokens), by, 1).unwrap();
        matched(&found, &order);
        let chance = match_heads(&own, &cache(&control, &tokens), by, 1).unwrap();
        assert!(found.mean > 0.9999 && chance.mean < 0.6, "{by}: {found:?}, {chance:?}");
        assert!(chance.pairs.iter().all(|pair| pair.score < 0.95));
    }
}
