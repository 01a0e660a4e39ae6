//! What is grouped: tokens, heads, neurons, directions.

use thalweg::prelude::*;
use thalweg::{Config, Items, W};

use super::near;
use crate::support::{config, distance, model, model_of, same, says};

fn cache(point: Point) -> Cache {
    let tokens = Tokens::from_ids(&[vec![1, 4, 9, 2, 7], vec![3, 8, 5]]).unwrap();
    model().run(&tokens, &Plan::new().cache(point)).unwrap().cache
}

#[test]
fn tokens_are_items_without_padding_and_first_tokens() {
    let cache = cache(Point::ResidPost);
    let items = Items::tokens(&cache, Point::ResidPost.at(1)).unwrap();
    assert_eq!(items.labels, ["4", "9", "2", "7", "8", "5"]);
    assert!(same(&items.x.get(4), &cache.get(Point::ResidPost.at(1)).unwrap().get(1).get(3)));
    assert_eq!(items.name, "tokens at blocks.1.hook_resid_post");
    says(Items::tokens(&cache, Point::Pattern.at(1)), &["items at", "[Batch, Pos, ..]"]);
}

#[test]
fn heads_are_items_by_every_cell_of_their_patterns() {
    let cache = cache(Point::Pattern);
    let items = Items::patterns(&cache).unwrap();
    assert_eq!(items.x.size(), [8, 15 + 6]);
    assert_eq!(items.labels[5], "L1H1");
    let pattern = cache.get(Point::Pattern.at(1)).unwrap();
    let own = items.x.get(5);
    near(own.double_value(&[1]), pattern.double_value(&[0, 1, 1, 0]), 1e-15);
    // The shorter prompt stands at the end of its row.
    near(own.double_value(&[15 + 5]), pattern.double_value(&[1, 1, 4, 4]), 1e-15);
    near(own.sum(None).double_value(&[]), 8.0, 1e-12); // each query's attention sums to 1
}

#[test]
fn heads_by_ov_lie_as_far_apart_as_their_matrices() {
    let model = model();
    let items = Items::ov(&model).unwrap();
    let mut whole = Vec::new();
    for layer in 0..2 {
        let (v, o) =
            (model.weight_folded(W::V, layer).unwrap(), model.weight(W::O, layer).unwrap());
        for head in 0..4 {
            whole.push(v.get(head / 2).matmul(&o.get(head)).view([-1]));
        }
    }
    let whole = Tensor::stack(&whole, 0);
    let apart = |x: &Tensor| Tensor::cdist(x, x, 2.0, 2);
    assert!(distance(&apart(&items.x), &apart(&whole)) < 1e-7);
    assert!(distance(&items.x.matmul(&items.x.tr()), &whole.matmul(&whole.tr())) < 1e-12);
}

#[test]
fn neurons_are_items_by_what_they_write_and_by_when_they_are_active() {
    let model = model_of(Config { mlp_bias: true, ..config() }, Kind::Float, 3);
    let written = Items::neurons(&model, 1).unwrap();
    assert_eq!(written.labels[3], "L1N3");
    assert!(distance(&written.x, &model.weight(W::Out, 1).unwrap()) == 0.0);
    says(Items::neurons(&model, 2), &["no layer 2"]);
    let cache = cache(Point::MlpPost);
    let active = Items::activations(&cache, 0).unwrap();
    assert_eq!(active.x.size(), [20, 6]);
    let by_hand = cache.get(Point::MlpPost.at(0)).unwrap().double_value(&[0, 2, 7]);
    near(active.x.double_value(&[7, 1]), by_hand, 1e-15);
}

#[test]
fn items_reduced_keep_their_distances_where_they_have_few_dimensions() {
    let x = super::normal(&[30, 3], 1).matmul(&super::normal(&[3, 60], 2));
    let items = Items::from(&x);
    let reduced = items.clone().reduced(3).unwrap();
    let apart = |x: &Tensor| Tensor::cdist(x, x, 2.0, 2);
    assert!(distance(&apart(&reduced.x), &apart(&items.x)) < 1e-10);
    assert_eq!(format!("{reduced:?}"), "rows, 3 components: items and features [30, 3]");
}
