//! Layers of one model against those of another.

use std::path::Path;

use thalweg::Config;

use super::*;
use crate::support::{config, model, model_of};

fn tokens(n: usize, len: usize) -> Tokens {
    let mut rng = Rng::new(3);
    let rows: Vec<Vec<i64>> =
        (0..n).map(|i| (0..len - i % 2).map(|_| rng.below(23) as i64).collect()).collect();
    Tokens::from_ids(&rows).unwrap()
}

fn stream(model: &Model, tokens: &Tokens) -> Cache {
    model.run(tokens, &Plan::new().cache([Point::ResidPre, Point::ResidPost])).unwrap().cache
}

/// Neurons in another order, and the two key/value groups of heads exchanged.
fn permuted(model: &Model) -> Model {
    let neurons = |w: &Tensor, axis: i64| w.flip([axis]);
    let groups = |w: &Tensor, axis: i64| {
        let half = w.size()[axis as usize] / 2;
        Tensor::cat(&[w.narrow(axis, half, half), w.narrow(axis, 0, half)], axis)
    };
    model
        .with_weights(|name, w| {
            Ok(match name {
                name if name.contains("gate_proj") || name.contains("up_proj") => neurons(w, 0),
                name if name.contains("down_proj") => neurons(w, 1),
                name if name.contains("o_proj") => groups(w, 1),
                name if ["q_proj", "k_proj", "v_proj"].iter().any(|p| name.contains(p)) => {
                    groups(w, 0)
                }
                _ => w.shallow_clone(),
            })
        })
        .unwrap()
}

#[test]
fn a_model_with_its_neurons_and_heads_in_another_order_is_the_same_model() {
    let model = model();
    let tokens = tokens(12, 6);
    let [a, b] = [stream(&model, &tokens), stream(&permuted(&model), &tokens)];
    for measure in ALL {
        let found = compare_layers(&a, &b, measure, 1).unwrap().values;
        assert_eq!(found.labels(Axis::Layer).unwrap(), ["embed", "L0", "L1"]);
        assert_eq!(found.labels(Axis::OtherLayer).unwrap(), ["embed", "L0", "L1"]);
        for layer in 0..3 {
            // Equal tokens have equal embeddings, whose order is a matter of rounding to RSA.
            let apart = found.at(&[layer, layer]).unwrap() - perfect(measure);
            assert!(apart.abs() < 1e-6, "{measure}, layer {layer}: {apart}");
        }
        let itself = compare_layers(&a, &a, measure, 1).unwrap().values;
        found.values.iter().zip(&itself.values).for_each(|(a, b)| assert!((a - b).abs() < 1e-6));
    }
}

#[test]
fn padding_and_first_tokens_do_not_count_and_shuffled_tokens_are_the_control() {
    let model = model();
    let tokens = tokens(40, 6);
    let wide = model_of(Config { d_model: 16, ..config() }, Kind::Double, 4);
    let [a, b] = [stream(&model, &tokens), stream(&wide, &tokens)];
    let found = compare_layers(&a, &b, Similarity::DebiasedCka, 1).unwrap();
    assert_eq!(found.values.n, 20 * 5 + 20 * 4);
    let rows = |cache: &Cache| {
        let x = cache.get(Point::ResidPost.at(0)).unwrap();
        let own = (0..40).map(|row| x.get(row).narrow(0, 1 + row % 2, 5 - row % 2));
        Tensor::cat(&own.collect::<Vec<_>>(), 0)
    };
    let by_hand = cka_debiased(&rows(&a), &rows(&b)).unwrap();
    near(found.values.get(&["L0", "L0"]).unwrap(), by_hand);
    // Both embed the same tokens, so that even models of other weights have much in common.
    let chance = found.shuffled.values.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    assert!(by_hand > 0.1 && chance < 0.05, "{by_hand}, by chance {chance}");
    let other = Tokens::from_ids(&[vec![1, 2, 3, 4, 5, 6]]).unwrap();
    let other = stream(&model, &other);
    says(compare_layers(&a, &other, Similarity::Cka, 1), &["different tokens"]);
    assert!(!format!("{found:?}").contains('\n'));
}

#[test]
fn trained_layers_are_like_their_neighbours_and_unlike_those_of_shuffled_weights() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let model = Model::load(root.join("data/models/tiny-world")).unwrap();
    let set = Prompts::load(root.join("data/prompts/ioi.json")).unwrap();
    let tokens = model.batch(&set.first(12).clean()).unwrap();
    let plan = Plan::new().cache(Point::ResidPost);
    let cache = |model: &Model| model.run(&tokens, &plan).unwrap().cache;
    let (own, control) = (cache(&model), cache(&model.shuffled(4).unwrap()));
    let itself = compare_layers(&own, &own, Similarity::DebiasedCka, 2).unwrap();
    let other = compare_layers(&own, &control, Similarity::DebiasedCka, 2).unwrap();
    let at = |grid: &Grid, a: i64, b: i64| grid.at(&[a, b]).unwrap();
    for layer in 0..3 {
        let next = at(&itself.values, layer, layer + 1);
        assert!(next > 0.8, "layer {layer} and the next: {next}");
        for further in layer + 2..4 {
            let before = at(&itself.values, layer, further - 1);
            assert!(before > at(&itself.values, layer, further), "layers {layer} and {further}");
        }
        let of_control = at(&other.values, layer, layer);
        assert!(of_control < 0.5 * next, "layer {layer}: {of_control} against {next}");
        let chance = at(&itself.shuffled, layer, layer + 1);
        assert!(chance.abs() < 0.05, "layer {layer}, shuffled tokens: {chance}");
    }
}
