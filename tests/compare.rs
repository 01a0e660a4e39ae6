//! Comparative analysis: how alike two sets of vectors are, and the layers of two models.

use thalweg::prelude::*;
use thalweg::rng::Rng;
use thalweg::{
    MinibatchCka, Similarity, cca, cka, cka_debiased, compare_layers, mutual_neighbours,
    procrustes, pwcca, rsa, svcca,
};

use crate::support::{distance, message, says};

mod golden;
mod heads;
mod layers;
mod maps;
mod models;

const ALL: [Similarity; 8] = [
    Similarity::Cka,
    Similarity::DebiasedCka,
    Similarity::Procrustes,
    Similarity::Cca,
    Similarity::Svcca(0.99),
    Similarity::Pwcca,
    Similarity::MutualNeighbours(4),
    Similarity::Rsa,
];

/// What a measure is of a set with itself.
fn perfect(measure: Similarity) -> f64 {
    if measure == Similarity::Procrustes { 0.0 } else { 1.0 }
}

fn draw(n: i64, d: i64, seed: u64) -> Tensor {
    let x = Rng::new(seed).normal_tensor(&[n, d]).to_kind(Kind::Double);
    let widths: Vec<f64> = (0..d).map(|i| 1.0 + 0.3 * i as f64).collect();
    x * Tensor::from_slice(&widths) + 1.0
}

/// A rotation drawn at random.
fn rotation(d: i64, seed: u64) -> Tensor {
    let drawn = Rng::new(seed).normal_tensor(&[d, d]).to_kind(Kind::Double);
    Tensor::linalg_qr(&drawn, "reduced").0
}

#[track_caller]
fn near(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-9, "{a} against {b}");
}

#[test]
fn a_set_is_perfectly_alike_to_itself() {
    let x = draw(40, 7, 1);
    for measure in ALL {
        near(measure.of(&x, &x).unwrap(), perfect(measure));
    }
}

#[test]
fn a_turned_scaled_and_moved_set_is_the_same_to_those_that_forgive_it() {
    let x = draw(40, 7, 1);
    for scale in [3.0, -0.2] {
        let turned = x.matmul(&rotation(7, 2)) * scale;
        for measure in &ALL[..6] {
            near(measure.of(&x, &(&turned + 5.0)).unwrap(), perfect(*measure));
        }
        // Cosines and correlations of vectors see where the origin is; and RSA the axes.
        near(mutual_neighbours(&x, &turned, 4).unwrap(), 1.0);
        assert!(rsa(&x, &turned).unwrap() < 0.99);
        near(rsa(&x, &(&x * scale.abs() + 5.0)).unwrap(), 1.0);
    }
}

#[test]
fn only_canonical_correlations_forgive_any_linear_map() {
    let x = draw(60, 5, 3);
    let stretch = Tensor::from_slice(&[30.0, 1.0, 1.0, 0.1, 1.0]);
    let mapped = (&x * stretch).matmul(&rotation(5, 4));
    for value in [
        cca(&x, &mapped).unwrap().mean(),
        svcca(&x, &mapped, 1.0).unwrap(),
        pwcca(&x, &mapped).unwrap(),
    ] {
        near(value, 1.0);
    }
    for measure in [Similarity::Cka, Similarity::DebiasedCka] {
        assert!(measure.of(&x, &mapped).unwrap() < 0.9, "{measure}");
    }
    assert!(procrustes(&x, &mapped).unwrap().distance > 0.1);
}

#[test]
fn measures_are_symmetric_but_for_weighted_correlations_and_in_their_range() {
    let (x, y) = (draw(50, 6, 5), draw(50, 4, 6) + draw(50, 6, 5).narrow(1, 0, 4));
    for measure in ALL {
        let (a, b) = (measure.of(&x, &y).unwrap(), measure.of(&y, &x).unwrap());
        if measure != Similarity::Pwcca {
            near(a, b);
        }
        let most = if measure == Similarity::Procrustes { 2.0 } else { 1.0 };
        assert!((-1.0..=most).contains(&a), "{measure}: {a}");
    }
    assert!((pwcca(&x, &y).unwrap() - pwcca(&y, &x).unwrap()).abs() > 1e-3);
}

#[test]
fn independent_sets_have_debiased_cka_about_zero_and_plain_cka_far_above() {
    let each = |seed: u64| {
        let (x, y) = (draw(40, 120, 2 * seed), draw(40, 120, 2 * seed + 1));
        (cka(&x, &y).unwrap(), cka_debiased(&x, &y).unwrap())
    };
    let (plain, debiased): (Vec<f64>, Vec<f64>) = (10..30).map(each).unzip();
    let mean = |list: &[f64]| list.iter().sum::<f64>() / list.len() as f64;
    let spread = debiased.iter().map(|x| (x - mean(&debiased)).powi(2)).sum::<f64>() / 19.0;
    let error = (spread / 20.0).sqrt();
    assert!(mean(&debiased).abs() < 3.0 * error, "{} +- {error}", mean(&debiased));
    assert!(plain.iter().all(|x| *x > 0.4), "{plain:?}");
    assert!(debiased.iter().any(|x| *x < 0.0), "{debiased:?}");
}

#[test]
fn cka_is_the_same_by_features_and_by_kernels() {
    // Fewer dimensions than points, and more: two ways to compute it.
    let (x, y) = (draw(30, 8, 7), draw(30, 9, 8));
    let pad =
        |t: &Tensor| Tensor::cat(&[t, &Tensor::zeros([30, 60], (Kind::Double, Device::Cpu))], 1);
    near(cka(&x, &y).unwrap(), cka(&pad(&x), &pad(&y)).unwrap());
}

#[test]
fn cka_of_many_dimensions_is_its_definition() {
    let (x, y) = (draw(330, 300, 15), draw(330, 270, 16));
    let [a, b] = [&x, &y].map(|t| t - t.mean_dim([0i64].as_slice(), true, None));
    let product = |a: &Tensor, b: &Tensor| a.tr().matmul(b).norm().double_value(&[]);
    let both = product(&a, &b).powi(2);
    near(cka(&x, &y).unwrap(), both / (product(&a, &a) * product(&b, &b)));
}

#[test]
fn minibatches_average_the_estimates_and_one_batch_is_the_whole() {
    let (x, y) = (draw(64, 5, 9), draw(64, 5, 9) + draw(64, 5, 10));
    let mut one = MinibatchCka::new();
    one.add(&x, &y).unwrap();
    near(one.value().unwrap(), cka_debiased(&x, &y).unwrap());
    let mut parts = MinibatchCka::new();
    for at in (0..64).step_by(16) {
        parts.add(&x.narrow(0, at, 16), &y.narrow(0, at, 16)).unwrap();
    }
    assert_eq!(parts.batches(), 4);
    let apart = parts.value().unwrap() - cka_debiased(&x, &y).unwrap();
    assert!(apart.abs() > 1e-9 && apart.abs() < 0.1, "{apart}");
    says(MinibatchCka::new().value(), &["nothing was added"]);
}

#[test]
fn procrustes_recovers_the_rotation_and_carries_points_and_directions_over() {
    let x = draw(40, 6, 11);
    let turn = rotation(6, 12);
    let y = x.matmul(&turn) * 2.5 - 4.0;
    let found = procrustes(&x, &y).unwrap();
    assert!(found.distance < 1e-12 && (found.scale - 2.5).abs() < 1e-12);
    assert!(distance(&found.rotation, &turn) < 1e-12);
    assert!(distance(&found.transform(&x).unwrap(), &y) < 1e-12);
    assert!(distance(&found.turn(&x.get(3)).unwrap(), &x.get(3).matmul(&turn)) < 1e-12);
    // Into more dimensions: a map whose rows are orthonormal.
    let wide = procrustes(&x, &Tensor::cat(&[&y, &y], 1)).unwrap();
    let eye = Tensor::eye(6, (Kind::Double, Device::Cpu));
    assert!(distance(&wide.rotation.matmul(&wide.rotation.tr()), &eye) < 1e-12);
    assert!(distance(&wide.transform(&x).unwrap(), &Tensor::cat(&[&y, &y], 1)) < 1e-12);
    // Into fewer: what is left of points that spread alike everywhere is as large as it was.
    let (even, _) = Tensor::linalg_qr(&(&x - x.mean_dim([0i64].as_slice(), true, None)), "reduced");
    let narrow = procrustes(&even, &even.narrow(1, 0, 3)).unwrap();
    assert!((narrow.scale - 1.0).abs() < 1e-12, "{narrow:?}");
    assert!(distance(&narrow.transform(&even).unwrap(), &even.narrow(1, 0, 3)) < 1e-12);
    says(found.transform(&draw(3, 5, 1)), &["[3, 5]", "6"]);
    assert!(!format!("{found:?}").contains('\n'));
}

#[test]
fn neighbours_of_independent_sets_are_shared_by_chance() {
    let chance = 10.0 / 199.0;
    let shared = (0..6).map(|seed| {
        mutual_neighbours(&(draw(200, 8, seed) - 1.0), &(draw(200, 8, 50 + seed) - 1.0), 10)
            .unwrap()
    });
    let mean = shared.sum::<f64>() / 6.0;
    assert!((mean - chance).abs() < 0.012, "{mean}, by chance {chance}");
}

#[test]
fn what_cannot_be_compared_says_why() {
    let x = draw(20, 3, 1);
    says(cka(&x, &draw(21, 3, 1)), &["20 vectors against 21"]);
    says(cka_debiased(&draw(3, 2, 1), &draw(3, 2, 2)), &["3 points", "at least 4"]);
    says(cka(&x, &x.ones_like()), &["nothing varies"]);
    says(rsa(&x, &x.get(0)), &["[3]", "[points, dimensions]"]);
    says(procrustes(&x, &(&x / 0.0)), &["non-finite"]);
    says(mutual_neighbours(&x, &x, 20), &["20 neighbours of 20 points"]);
    says(svcca(&x, &x, 1.5), &["variance 1.5"]);
    let error = message(cca(&draw(20, 12, 1), &draw(20, 9, 2)));
    assert!(error.contains("20 points") && error.contains("svcca"), "{error}");
}
