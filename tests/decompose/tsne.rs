//! t-SNE beside scikit-learn's, its gradient beside differences, and what a seed means.

use thalweg::prelude::*;
use thalweg::{Affinities, Items, TsneOptions, trustworthiness, tsne};

use super::{golden, near, normal, tensor, values};
use crate::support::{distance, same, says};

/// Two blobs far from each other.
fn blobs(each: i64) -> Tensor {
    Tensor::cat(&[normal(&[each, 6], 1), normal(&[each, 6], 2) + 30.0], 0)
}

#[test]
fn probabilities_divergence_and_gradient_are_those_of_scikit_learn() {
    let golden = &golden("decompose")["tsne"];
    let [n, d] = ["n", "d"].map(|key| golden[key].as_i64().unwrap());
    let x = tensor(&golden["x"], &[n, d]);
    let p = Affinities::exact(&x, golden["perplexity"].as_f64().unwrap()).unwrap();
    // Theirs come from distances in f32 and entropies to 1e-5.
    assert!(distance(&p.dense(), &tensor(&golden["p"], &[n, n])) < 2e-5);
    let layout = tensor(&golden["layout"], &[n, 2]);
    near(p.kl(&layout).unwrap(), golden["kl"].as_f64().unwrap(), 2e-5);
    let gradient = tensor(&golden["gradient"], &[n, 2]);
    assert!(distance(&p.gradient(&layout, 0.0).unwrap(), &gradient) < 2e-5);
}

#[test]
fn trustworthiness_is_that_of_scikit_learn() {
    let golden = &golden("decompose")["tsne"];
    let [n, d] = ["n", "d"].map(|key| golden[key].as_i64().unwrap());
    let (x, layout) = (tensor(&golden["x"], &[n, d]), tensor(&golden["layout"], &[n, 2]));
    for (k, theirs) in golden["trustworthiness"].as_object().unwrap() {
        let own = trustworthiness(&x, &layout, k.parse().unwrap()).unwrap();
        near(own, theirs.as_f64().unwrap(), 1e-12);
    }
}

#[test]
fn a_picture_is_as_good_as_scikit_learns() {
    let golden = &golden("decompose")["tsne"]["blobs"];
    let x = tensor(&golden["x"], &[200, 10]);
    let found = tsne(&x, golden["perplexity"].as_f64().unwrap()).unwrap();
    let largest = |key: &str| {
        let all = golden[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap());
        all.fold(f64::NEG_INFINITY, f64::max)
    };
    assert!(found.kl < 1.1 * largest("kl"), "{found:?}");
    assert!(found.trustworthiness > largest("trustworthiness") - 0.01, "{found:?}");
    near(found.kl, found.affinities.kl(&values(&found.points)).unwrap(), 0.01);
    scatter(&found.points).unwrap();
}

#[test]
fn probabilities_are_symmetric_sum_to_one_and_have_the_perplexity() {
    let x = normal(&[60, 4], 3);
    for p in [Affinities::of(&x, 7.0).unwrap(), Affinities::exact(&x, 7.0).unwrap()] {
        let dense = p.dense();
        near(dense.sum(None).double_value(&[]), 1.0, 1e-12);
        assert!(same(&dense, &dense.tr().contiguous()));
        assert_eq!(dense.diagonal(0, 0, 1).abs().max().double_value(&[]), 0.0);
        p.perplexities().iter().for_each(|found| near(*found, 7.0, 1e-5));
    }
}

#[test]
fn the_gradient_is_the_slope_of_the_divergence() {
    let p = Affinities::of(&normal(&[30, 4], 3), 5.0).unwrap();
    let layout = normal(&[30, 2], 4);
    let gradient = p.gradient(&layout, 0.0).unwrap();
    for (i, axis) in [(0, 0), (7, 1), (29, 0)] {
        let moved = |by: f64| {
            let other = layout.copy();
            let _ = other.get(i).narrow(0, axis, 1).g_add_scalar_(by);
            p.kl(&other).unwrap()
        };
        let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
        let own = gradient.double_value(&[i, axis]);
        assert!((own - slope).abs() < 1e-8, "{own} against {slope}");
    }
}

#[test]
fn without_theta_the_tree_gives_the_exact_gradient_and_with_it_nearly() {
    let x = normal(&[300, 4], 5);
    let p = Affinities::exact(&x, 20.0).unwrap();
    let layout = normal(&[300, 2], 6) * 8.0;
    let differences = layout.unsqueeze(1) - layout.unsqueeze(0); // [n, n, 2]
    let near =
        (differences.square().sum_dim_intlist([2i64].as_slice(), false, None) + 1.0).reciprocal();
    let _ = near.diagonal(0, 0, 1).fill_(0.0);
    let q = &near / near.sum(None);
    let pull = ((p.dense() - q) * near * 4.0).unsqueeze(2) * differences;
    let by_hand = pull.sum_dim_intlist([1i64].as_slice(), false, None);
    assert!(distance(&p.gradient(&layout, 0.0).unwrap(), &by_hand) < 1e-12);
    let tree = distance(&p.gradient(&layout, 0.5).unwrap(), &by_hand);
    assert!(tree > 0.0 && tree < 0.05, "{tree}");
}

#[test]
fn small_steps_without_momentum_only_lower_the_divergence() {
    let p = Affinities::of(&blobs(20), 6.0).unwrap();
    let mut layout = normal(&[40, 2], 1);
    let mut before = f64::INFINITY;
    for _ in 0..40 {
        let now = p.kl(&layout).unwrap();
        assert!(now < before, "{now} after {before}");
        before = now;
        layout -= p.gradient(&layout, 0.0).unwrap() * 2.0;
    }
}

#[test]
fn the_divergence_falls_after_the_exaggeration() {
    let found = tsne(&blobs(30), 8.0).unwrap();
    let at = |step: &str| found.history.get(&[step]).unwrap();
    assert!(found.kl < at("300") && at("300") < at("250"), "{:?}", found.history);
    near(found.history.values[[found.history.shape()[0] - 1]], found.kl, 1e-12);
}

#[test]
fn tsne_keeps_two_far_blobs_apart() {
    let side = |picture: &Tensor| -> f64 {
        // Share of points whose nearest neighbour in the picture is of their own half.
        let distance = Tensor::cdist(picture, picture, 2.0, 2).fill_diagonal_(f64::INFINITY, false);
        let nearest = Vec::<i64>::try_from(distance.argmin(1, false)).unwrap();
        let own = nearest.iter().enumerate().filter(|(i, j)| (*i < 40) == (**j < 40)).count();
        own as f64 / 80.0
    };
    let found = tsne(&blobs(40), 10.0).unwrap();
    assert_eq!(side(&values(&found.points)), 1.0);
    let nothing = tsne(&normal(&[80, 6], 9), 10.0).unwrap();
    let share = side(&values(&nothing.points));
    assert!((0.3..0.75).contains(&share), "{share}");
}

#[test]
fn a_seed_means_one_picture_bit_for_bit_with_any_number_of_threads() {
    let x = normal(&[700, 8], 3);
    let options = TsneOptions::new(12.0).steps(60);
    let one = options.clone().threads(1).run(&x).unwrap();
    for threads in [1, 2, 3] {
        let other = options.clone().threads(threads).run(&x).unwrap();
        assert_eq!(other.points.values, one.points.values, "{threads} threads");
    }
    let few = x.narrow(0, 0, 50);
    let drawn = |seed| options.clone().random_start(seed).run(&few).unwrap().points.values;
    assert!(drawn(1) == drawn(1) && drawn(1) != drawn(2));
}

#[test]
fn items_on_one_spot_and_data_of_one_dimension_are_laid_out_too() {
    let spot =
        Tensor::cat(&[Tensor::zeros([20, 3], (Kind::Double, Device::Cpu)), normal(&[20, 3], 1)], 0);
    let found = tsne(&spot, 5.0).unwrap();
    assert!(found.points.values.iter().all(|value| value.is_finite()), "{found:?}");
    let line = tsne(&normal(&[40, 1], 2), 5.0).unwrap();
    assert!(line.points.values.iter().all(|value| value.is_finite()) && line.trustworthiness > 0.9);
    // More than 50 dimensions are reduced first.
    let wide = normal(&[70, 5], 3).matmul(&normal(&[5, 80], 4));
    assert!(tsne(&wide, 8.0).unwrap().trustworthiness > 0.85);
}

#[test]
fn names_and_notes_travel_with_the_picture() {
    let names: Vec<String> = (0..30).map(|i| format!("item {i}")).collect();
    let items = Items::new(&normal(&[30, 4], 1), &names).unwrap();
    let found = TsneOptions::new(5.0).steps(300).run(&items).unwrap();
    assert_eq!(found.points.labels(Axis::Series).unwrap(), names);
    assert_eq!(found.points.provenance["perplexity"], "5");
    let line = format!("{found:?}");
    assert!(line.starts_with("t-SNE of rows: 30 points, perplexity 5, KL 0."), "{line}");
}

#[test]
fn tsne_says_what_it_cannot_do() {
    let x = normal(&[20, 4], 1);
    says(tsne(&x, 19.0), &["perplexity 19 of 20 points", "less than 19"]);
    says(tsne(&x, 0.5), &["perplexity 0.5"]);
    says(TsneOptions::new(5.0).theta(0.9).run(&x), &["theta is 0.9", "0 to 0.7"]);
    says(tsne(&(&x / 0.0), 5.0), &["non-finite"]);
    says(trustworthiness(&x, &x, 10), &["10 neighbours of 20", "1 to 9"]);
    says(trustworthiness(&x, &normal(&[19, 2], 0), 3), &["20 points, 19 in the picture"]);
    says(Affinities::of(&x, 5.0).unwrap().kl(&normal(&[3, 2], 0)), &["[3, 2]", "[20, 2]"]);
}
