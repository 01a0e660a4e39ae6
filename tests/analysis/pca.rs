//! Principal components against an independent computation.

use thalweg::anyhow::Result;
use thalweg::prelude::*;
use thalweg::{GridAxis, pca_from, pca_of};

use super::{batch, cached, close, flat, prompt};
use crate::support::{distance, message, model, same, says};

/// Eigenvalues (descending) and eigenvectors (rows) of a symmetric matrix, by Jacobi's rotations:
/// slow, short, and independent of libtorch.
fn jacobi(mut a: Vec<Vec<f64>>) -> Vec<(f64, Vec<f64>)> {
    let n = a.len();
    let mut v: Vec<Vec<f64>> =
        (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    for _ in 0..60 {
        for p in 0..n {
            for q in p + 1..n {
                if a[p][q].abs() < 1e-300 {
                    continue;
                }
                let angle = 0.5 * (2.0 * a[p][q]).atan2(a[p][p] - a[q][q]);
                let (s, c) = angle.sin_cos();
                for row in a.iter_mut() {
                    (row[p], row[q]) = (c * row[p] + s * row[q], c * row[q] - s * row[p]);
                }
                for i in 0..n {
                    (a[p][i], a[q][i]) = (c * a[p][i] + s * a[q][i], c * a[q][i] - s * a[p][i]);
                    (v[p][i], v[q][i]) = (c * v[p][i] + s * v[q][i], c * v[q][i] - s * v[p][i]);
                }
            }
        }
    }
    let mut pairs: Vec<_> = (0..n).map(|i| (a[i][i], v[i].clone())).collect();
    pairs.sort_by(|x, y| y.0.total_cmp(&x.0));
    pairs
}

fn cloud(n: i64, d: i64, seed: u64) -> Tensor {
    let mut rng = thalweg::rng::Rng::new(seed);
    let x = rng.normal_tensor(&[n, d]).to_kind(Kind::Double);
    let widths: Vec<f64> = (0..d).map(|i| 3.0 / (1.0 + i as f64)).collect();
    let mix = rng.normal_tensor(&[d, d]).to_kind(Kind::Double);
    (x * Tensor::from_slice(&widths)).matmul(&mix) + 5.0
}

#[test]
fn principal_components_are_those_of_an_independent_computation() {
    // More points than dimensions, and fewer: libtorch's eigenvalues and its singular values.
    for (n, d) in [(40, 6), (7, 11)] {
        let x = cloud(n, d, n as u64);
        let k = d.min(n - 1) as usize;
        let pca = pca_of(&x, k).unwrap();
        let centred = &x - x.mean_dim([0i64].as_slice(), true, None);
        let covariance = centred.tr().matmul(&centred) / (n - 1) as f64;
        let rows = (0..d).map(|i| Vec::<f64>::try_from(covariance.get(i)).unwrap()).collect();
        for (i, (value, vector)) in jacobi(rows).into_iter().take(k).enumerate() {
            close(pca.variance.values[[i]] / value, 1.0);
            let own = Vec::<f64>::try_from(pca.components.get(i as i64)).unwrap();
            let along: f64 = own.iter().zip(&vector).map(|(a, b)| a * b).sum();
            close(along.abs(), 1.0);
            let largest = own.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap();
            assert!(largest > 0.0, "the largest loading of component {i} is {largest}");
        }
    }
}

#[test]
fn all_principal_components_together_hold_all_variance_and_all_data() {
    for (n, d) in [(40, 6), (7, 11)] {
        let x = cloud(n, d, 2);
        let k = d.min(n - 1) as usize;
        let pca = pca_of(&x, k).unwrap();
        close(pca.variance.values.sum() / pca.total, 1.0);
        close(pca.explained.values.sum(), 1.0);
        let unit = pca.components.matmul(&pca.components.tr());
        assert!(distance(&unit, &Tensor::eye(k as i64, (Kind::Double, Device::Cpu))) < 1e-12);
        let scores = pca.transform(&x).unwrap();
        assert!(distance(&(scores.matmul(&pca.components) + &pca.mean), &x) < 1e-12);
        let spread = scores.tr().matmul(&scores) / (n - 1) as f64;
        let variance = Vec::<f64>::try_from(spread.diagonal(0, 0, 1)).unwrap();
        variance.iter().zip(pca.variance.values.iter()).for_each(|(a, b)| close(a / b, 1.0));
        assert!(distance(&spread, &spread.diag(0).diag(0)) < 1e-12);
    }
}

#[test]
fn explained_variance_is_a_share_of_the_total_and_not_of_what_is_kept() {
    let x = cloud(40, 6, 4);
    let (two, all) = (pca_of(&x, 2).unwrap(), pca_of(&x, 6).unwrap());
    assert_eq!(flat(&two.explained), flat(&all.explained)[..2]);
    assert!(two.explained.values.sum() < 0.999);
    assert!(two.scores.labels(Axis::Pc).unwrap()[0].starts_with("PC1 ("));
}

#[test]
fn a_planted_plane_is_found() {
    let mut rng = thalweg::rng::Rng::new(8);
    let plane = rng.normal_tensor(&[2, 30]).to_kind(Kind::Double);
    let points = rng.normal_tensor(&[50, 2]).to_kind(Kind::Double);
    let pca = pca_of(&points.matmul(&plane), 2).unwrap();
    close(pca.explained.values.sum(), 1.0);
    let back = plane.matmul(&pca.components.tr()).matmul(&pca.components);
    assert!(distance(&back, &plane) < 1e-10);
}

#[test]
fn pca_of_a_cache_leaves_out_padding_and_first_tokens() {
    let (model, tokens) = (model(), batch());
    let cache = cached(&model, &tokens, [Point::ResidPost, Point::Z]).cache;
    let site = Point::ResidPost.at(1);
    let own = pca(&cache, site, 2).unwrap();
    assert_eq!(
        own.scores.labels(Axis::Series).unwrap(),
        ["4", "9", "2", "7", "3", "8", "0", "5", "6"]
    );
    let x = cache.get(site).unwrap();
    let rows = [x.get(0).narrow(0, 1, 4), x.get(1).narrow(0, 3, 2), x.get(2).narrow(0, 2, 3)];
    let by_hand = pca_of(&Tensor::cat(&rows, 0), 2).unwrap();
    assert!(same(&own.components, &by_hand.components));
    assert_eq!(flat(&own.scores), flat(&by_hand.scores));
    assert_eq!(pca_from(&cache, site, 2, 0).unwrap().scores.shape(), [12, 2]);
    assert_eq!(pca(&cache, Point::Z.at(0), 3).unwrap().components.size(), [3, 24]);
    let one = cache.row(0).unwrap();
    let axes: Vec<GridAxis> = pca(&one, site, 2).unwrap().scores.axes;
    assert_eq!((axes[0].axis, axes[0].len()), (Axis::Pos, 4));
    let line = format!("{own:?}");
    let start = "PCA of blocks.1.hook_resid_post: 9 points in 12 dimensions, ";
    assert!(line.starts_with(start) && !line.contains('\n'), "{line}");
}

#[test]
fn pca_says_what_it_cannot_do() -> Result<()> {
    let x = cloud(5, 8, 1);
    says(pca_of(&x, 5), &["5 components of 5 points", "1 to 4"]);
    says(pca_of(&Tensor::ones([4, 3], (Kind::Float, Device::Cpu)), 1), &["all 4 points are equal"]);
    says(pca_of(&(x / 0.0), 1), &["non-finite"]);
    let cache = cached(&model(), &prompt(), [Point::Pattern, Point::ResidPost]).cache;
    says(pca(&cache, Point::Pattern.at(0), 1), &["blocks.0.attn.hook_pattern", "[Batch, Pos, ..]"]);
    let error = message(pca(&cache, Point::ResidPost.at(0), 9));
    assert_eq!(
        error,
        "pca at blocks.0.hook_resid_post: 9 components of 4 points in 12 dimensions, expected 1 to 3"
    );
    Ok(())
}
