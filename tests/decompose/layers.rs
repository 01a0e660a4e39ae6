//! Components that keep their axes from layer to layer.

use thalweg::prelude::*;
use thalweg::{Alignment, pca_layers, pca_of};

use super::{near, normal, orthonormal, values};
use crate::support::{distance, model, says};

fn stretched(seed: u64) -> Tensor {
    normal(&[40, 5], seed) * Tensor::from_slice(&[5.0, 3.0, 2.0, 1.0, 0.5])
}

#[test]
fn flipped_components_are_flipped_back() {
    let x = stretched(1);
    let a = pca_of(&x, 3).unwrap();
    let flips = Tensor::from_slice(&[-1.0, 1.0, -1.0, 1.0, 1.0]);
    let b = pca_of(&(x * flips), 3).unwrap().aligned(&a, Alignment::Signs).unwrap();
    assert!(distance(&values(&b.scores), &values(&a.scores)) < 1e-10);
    assert!(distance(&values(&b.variance), &values(&a.variance)) < 1e-12);
}

#[test]
fn procrustes_turns_a_turned_picture_back_and_keeps_distances_and_variance() {
    let x = stretched(1);
    let a = pca_of(&x, 3).unwrap();
    // The same points, their second and third axes of like variance and so in another order.
    let other = &x * Tensor::from_slice(&[1.0, 0.6, 1.1, 1.0, 1.0]);
    let b = pca_of(&other, 3).unwrap();
    let c = b.aligned(&a, Alignment::Procrustes).unwrap();
    let apart = |pca: &thalweg::Pca| {
        (values(&pca.scores) - values(&a.scores)).square().sum(None).double_value(&[])
    };
    let signs = b.aligned(&a, Alignment::Signs).unwrap();
    assert!(apart(&c) < 0.2 * apart(&signs) && apart(&signs) <= apart(&b));
    let spread = |pca: &thalweg::Pca| values(&pca.scores).matmul(&values(&pca.scores).tr());
    assert!(distance(&spread(&c), &spread(&b)) < 1e-12);
    near(c.variance.values.sum(), b.variance.values.sum(), 1e-12);
    let unit = c.components.matmul(&c.components.tr());
    assert!(distance(&unit, &Tensor::eye(3, (Kind::Double, Device::Cpu))) < 1e-12);
    assert!(distance(&c.transform(&other).unwrap(), &values(&c.scores)) < 1e-10);
    for i in 0..3 {
        let own = values(&c.scores).select(1, i as i64).var(true).double_value(&[]);
        near(c.variance.values[[i]], own, 1e-10);
    }
}

#[test]
fn no_rotation_brings_a_picture_nearer_than_procrustes_does() {
    let x = stretched(4).narrow(1, 0, 2);
    // A shear: axes of greatest variance turn by an angle that is its own only way round.
    let shear = Tensor::from_slice(&[1.0, 0.4, -1.5, 0.7]).view([2, 2]);
    let (a, b) = (pca_of(&x, 2).unwrap(), pca_of(&x.matmul(&shear), 2).unwrap());
    let (goal, start) = (values(&a.scores), values(&b.scores));
    let apart = |scores: &Tensor| (scores - &goal).square().sum(None).double_value(&[]);
    let best = apart(&values(&b.aligned(&a, Alignment::Procrustes).unwrap().scores));
    let mut nearest = f64::INFINITY;
    for step in 0..720 {
        let (sin, cos) = (step as f64 * std::f64::consts::TAU / 720.0).sin_cos();
        for flip in [1.0, -1.0] {
            let turn = Tensor::from_slice(&[cos, -sin * flip, sin, cos * flip]).view([2, 2]);
            nearest = nearest.min(apart(&start.matmul(&turn)));
        }
    }
    assert!(best <= nearest && nearest < 1.001 * best, "{best}, by search {nearest}");
}

#[test]
fn layers_that_differ_by_a_rotation_of_the_stream_have_one_picture() {
    let x = stretched(2);
    let a = pca_of(&x, 2).unwrap();
    let b = pca_of(&x.matmul(&orthonormal(5, 5, 7)), 2).unwrap();
    let b = b.aligned(&a, Alignment::Procrustes).unwrap();
    assert!(distance(&values(&b.scores), &values(&a.scores)) < 1e-10);
}

#[test]
fn a_cache_gives_aligned_layers_and_one_grid_of_them() {
    let tokens = Tokens::from_ids(&[vec![1, 4, 9, 2, 7, 11], vec![3, 8, 5]]).unwrap();
    let cache = model().run(&tokens, &Plan::new().cache(Point::ResidPost)).unwrap().cache;
    for how in [Alignment::Signs, Alignment::Procrustes] {
        let (layers, grid) = pca_layers(&cache, Point::ResidPost, 2, how).unwrap();
        assert_eq!(grid.shape(), [2, 7, 2]);
        assert_eq!(grid.labels(Axis::Layer).unwrap(), ["L0", "L1"]);
        assert_eq!(grid.labels(Axis::Series).unwrap()[0], "4");
        for (i, layer) in layers.iter().enumerate() {
            assert_eq!(grid.values.index_axis(thalweg::ndarray::Axis(0), i), layer.scores.values);
        }
        let cross = values(&layers[0].scores).tr().matmul(&values(&layers[1].scores));
        assert!((0..2).all(|i| cross.double_value(&[i, i]) >= 0.0));
        scatter(&grid.select(Axis::Layer, 1).unwrap()).unwrap();
    }
}

#[test]
fn alignment_says_what_it_cannot_do() {
    let a = pca_of(&stretched(1), 3).unwrap();
    let other = pca_of(&stretched(1).narrow(0, 0, 20), 3).unwrap();
    says(other.aligned(&a, Alignment::Signs), &["[20, 3]", "[40, 3]", "the same points"]);
    let cache = model()
        .run(&Tokens::from_ids(&[vec![1, 4, 9, 2]]).unwrap(), &Plan::new().cache(Point::Z))
        .unwrap()
        .cache;
    says(
        pca_layers(&cache, Point::ResidPost, 2, Alignment::Signs),
        &["no ResidPost", "plan.cache"],
    );
}
