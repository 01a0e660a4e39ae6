//! Principal components beside scikit-learn's, by random projection, and in many dimensions.

use thalweg::prelude::*;
use thalweg::{pca_of, pca_randomized};

use super::{golden, near, normal, orthonormal, tensor, values};
use crate::support::{distance, same, says};

#[test]
fn principal_components_are_those_of_scikit_learn_to_sign() {
    for case in golden("decompose")["pca"].as_array().unwrap() {
        let [n, d, k] = ["n", "d", "k"].map(|key| case[key].as_i64().unwrap());
        let x = tensor(&case["x"], &[n, d]);
        for own in [pca_of(&x, k as usize).unwrap(), pca_randomized(&x, k as usize, 3).unwrap()] {
            let theirs = tensor(&case["components"], &[k, d]);
            let signs = (&own.components * &theirs).sum_dim_intlist([1i64].as_slice(), true, None);
            assert!(distance(&(&own.components * signs.sign()), &theirs) < 1e-10);
            assert!(distance(&values(&own.variance), &tensor(&case["variance"], &[k])) < 1e-12);
            assert!(distance(&values(&own.explained), &tensor(&case["ratio"], &[k])) < 1e-12);
            let scores = tensor(&case["scores"], &[n, k]);
            assert!(distance(&(values(&own.scores) * signs.sign().tr()), &scores) < 1e-10);
        }
    }
}

#[test]
fn turned_data_have_turned_components_and_the_same_variances() {
    let (x, turn) = (
        normal(&[40, 6], 1) * Tensor::arange_start(1, 7, (Kind::Double, Device::Cpu)),
        orthonormal(6, 6, 2),
    );
    let (a, b) = (pca_of(&x, 4).unwrap(), pca_of(&x.matmul(&turn), 4).unwrap());
    assert!(distance(&values(&a.variance), &values(&b.variance)) < 1e-12);
    let overlap = a.components.matmul(&turn).matmul(&b.components.tr()).abs();
    assert!(distance(&overlap, &Tensor::eye(4, (Kind::Double, Device::Cpu))) < 1e-10);
}

#[test]
fn a_covariance_made_of_blocks_has_the_singular_values_of_the_data() {
    let x = normal(&[620, 600], 5).cumsum(1, None);
    let own = pca_of(&x, 8).unwrap();
    let centred = &x - x.mean_dim([0i64].as_slice(), true, None);
    let by_svd = centred.svd(true, true).1.square().narrow(0, 0, 8) / 619.0;
    assert!(distance(&values(&own.variance), &by_svd) < 1e-12);
    near(own.total, centred.square().sum(None).double_value(&[]) / 619.0, 1e-12);
}

#[test]
fn random_projection_is_exact_for_data_of_low_rank_and_close_for_a_flat_spectrum() {
    let low = normal(&[80, 3], 1).matmul(&normal(&[3, 200], 2)) + 7.0;
    let (exact, fast) = (pca_of(&low, 3).unwrap(), pca_randomized(&low, 3, 9).unwrap());
    assert!(distance(&values(&fast.variance), &values(&exact.variance)) < 1e-10);
    assert!(distance(&fast.components, &exact.components) < 1e-8);
    let flat = normal(&[300, 120], 4);
    let (exact, fast) = (pca_of(&flat, 5).unwrap(), pca_randomized(&flat, 5, 9).unwrap());
    near(fast.total, exact.total, 1e-12);
    for i in 0..5 {
        let ratio = fast.variance.values[[i]] / exact.variance.values[[i]];
        assert!((0.93..=1.0 + 1e-12).contains(&ratio), "component {i}: {ratio}");
    }
    // What is left out has at most (1 + e) times the next singular value: Halko's bound.
    let centred = &flat - flat.mean_dim([0i64].as_slice(), true, None);
    let left = &centred - centred.matmul(&fast.components.tr()).matmul(&fast.components);
    let next = centred.svd(true, true).1.double_value(&[5]);
    let largest = left.svd(true, true).1.double_value(&[0]);
    assert!(largest < 1.1 * next, "{largest} left, the next singular value is {next}");
}

#[test]
fn random_projection_follows_its_seed_and_says_what_it_cannot_do() {
    let x = normal(&[50, 30], 4);
    let [a, b, c] = [1, 1, 2].map(|seed| pca_randomized(&x, 2, seed).unwrap());
    assert!(same(&a.components, &b.components) && !same(&a.components, &c.components));
    assert_eq!(a.scores.provenance["seed"], "1");
    says(pca_randomized(&x, 31, 0), &["pca_randomized", "31 components of 50 points", "1 to 30"]);
    says(pca_randomized(&(x / 0.0), 2, 0), &["non-finite"]);
    says(pca_randomized(&normal(&[4], 0), 1, 0), &["[4]", "[points, dimensions]"]);
}

/// Points near a plane of 30 dimensions, or as far in every direction, and the plane.
fn cloud(planted: bool) -> (Tensor, Tensor) {
    let plane = orthonormal(30, 2, 3).tr();
    let noise = normal(&[200, 30], 4) * if planted { 1e-8 } else { 1.0 };
    (normal(&[200, 2], 5).matmul(&plane) + noise, plane)
}

#[test]
fn pca_finds_a_planted_plane() {
    // Sines of the angles between the plane and what was found.
    let angles = |(x, plane): (Tensor, Tensor)| {
        let found = pca_of(&x, 2).unwrap();
        let left = &plane - plane.matmul(&found.components.tr()).matmul(&found.components);
        let largest = left.svd(true, true).1.double_value(&[0]);
        (largest, found.explained.values.sum())
    };
    let (angle, share) = angles(cloud(true));
    assert!(angle < 1e-6 && share > 1.0 - 1e-9, "angle {angle}, share {share}");
    let (angle, share) = angles(cloud(false));
    assert!(angle > 0.1 && share < 0.3, "angle {angle}, share {share}");
}
