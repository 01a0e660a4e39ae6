//! Training of TopK autoencoders finds the directions that data are made of.

use thalweg::TopKTraining;
use thalweg::prelude::*;
use thalweg::rng::Rng;

use super::count;
use crate::support::{same, says};

/// `n` vectors of 16 entries, each a sum of two out of 24 unit directions `[24, 16]`.
fn sparse(n: i64, seed: u64) -> (Tensor, Tensor) {
    let mut rng = Rng::new(seed);
    let directions = rng.normal_tensor(&[24, 16]);
    let directions = &directions / directions.norm_scalaropt_dim(2, [1i64].as_slice(), true);
    let rows = (0..n).map(|_| {
        let two = rng.sample(24, 2);
        let part = |i: &usize, size: f64| directions.get(*i as i64) * (1.0 + size);
        part(&two[0], rng.uniform()) + part(&two[1], rng.uniform())
    });
    let rows: Vec<Tensor> = rows.collect();
    (Tensor::stack(&rows, 0), directions)
}

/// Mean over directions of the largest cosine with a latent's.
fn found(sae: &thalweg::Sae, directions: &Tensor) -> f64 {
    let cosines = directions.matmul(&sae.w_dec.tr());
    cosines.max_dim(1, false).0.mean(Kind::Double).double_value(&[])
}

fn options() -> TopKTraining {
    TopKTraining {
        steps: 350,
        batch: 96,
        rate: 4e-3,
        dead_after: 20,
        ..TopKTraining::new(32, 2, 1)
    }
}

#[test]
fn a_topk_sae_finds_the_directions_that_data_are_sums_of() {
    let site = Point::ResidPost.at(0);
    let (x, directions) = sparse(2000, 3);
    let (sae, curve) = options().train(site, &x).unwrap();
    let own = found(&sae, &directions);
    assert!(own > 0.95, "mean cosine {own}");
    let last = curve.select(Axis::Step, -1).unwrap().values.sum();
    assert!(last < 0.1, "{last} of the variance left");
    // Control: data of the same covariance without such directions.
    let covariance = x.tr().matmul(&x) / 2000.0;
    let noise = Rng::new(9).normal_tensor(&[2000, 16]).matmul(&covariance.linalg_cholesky(true));
    let (control, curve) = options().train(site, &noise).unwrap();
    let none = found(&control, &directions);
    assert!(none < 0.85, "mean cosine {none} without such directions");
    assert!(curve.select(Axis::Step, -1).unwrap().values.sum() > 2.0 * last);
}

#[test]
fn what_is_trained_is_a_topk_sae_with_a_decoder_of_norm_1_and_few_dead_latents() {
    let (x, _) = sparse(1000, 4);
    let (sae, _) = options().train(Point::ResidPost.at(0), &x).unwrap();
    let norms = sae.w_dec.square().sum_dim_intlist([1i64].as_slice(), false, None);
    assert!((norms - 1.0).abs().max().double_value(&[]) < 1e-5);
    let latents = sae.encode(&x).unwrap();
    assert!(count(&latents.gt(0.0)) <= 2 * 1000);
    let on = latents.gt(0.0).any_dim(0, false);
    assert!(count(&on) >= 24, "{} of 32 are on somewhere", count(&on));
    let shifted = &x * 7.0 + 3.0;
    let (moved, _) = options().train(Point::ResidPost.at(0), &shifted).unwrap();
    let fvu = |sae: &thalweg::Sae, x: &Tensor| {
        let centred = x - x.mean_dim([0i64].as_slice(), false, None);
        let error = x - sae.reconstruct(x).unwrap();
        (error.square().sum(None) / centred.square().sum(None)).double_value(&[])
    };
    assert!((fvu(&moved, &shifted) - fvu(&sae, &x)).abs() < 0.03, "scale and origin do not matter");
}

#[test]
fn the_same_seed_trains_the_same_sae() {
    let (x, _) = sparse(500, 5);
    let short = |seed| TopKTraining { steps: 20, seed, ..options() };
    let train = |seed| short(seed).train(Point::ResidPost.at(0), &x).unwrap().0;
    let (a, b, c) = (train(1), train(1), train(2));
    assert!(same(&a.w_enc, &b.w_enc) && same(&a.b_dec, &b.b_dec));
    assert!(!same(&a.w_enc, &c.w_enc));
}

#[test]
fn options_that_cannot_be_are_named() {
    let (x, _) = sparse(50, 5);
    let site = Point::ResidPost.at(0);
    let with = |change: fn(&mut TopKTraining)| {
        let mut options = TopKTraining { batch: 10, ..options() };
        change(&mut options);
        options.train(site, &x)
    };
    says(with(|o| o.k = 33), &["k = 33 of 32 latents"]);
    says(with(|o| o.batch = 51), &["batches of 51 vectors of 50"]);
    says(with(|o| o.steps = 0), &["no steps"]);
    says(options().train(site, &x.get(0)), &["expected [n, D]"]);
    says(
        options().train(site, &(x.expand([128, 50, 16], true).flatten(0, 1) * f64::NAN)),
        &["non-finite"],
    );
    says(with(|o| o.rate = f64::INFINITY), &["lower the learning rate"]);
}
