//! Tucker's decomposition beside tensorly's, and of the residual stream.

use thalweg::prelude::*;
use thalweg::{hosvd, resid_tensor, tucker, tucker_of};

use super::{golden, near, normal, orthonormal, tensor, values};
use crate::support::{distance, model, same, says};

#[test]
fn hosvd_and_tucker_are_those_of_tensorly() {
    let golden = &golden("decompose")["tucker"];
    let numbers = |key: &str| -> Vec<i64> {
        golden[key].as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect()
    };
    let (shape, ranks) = (numbers("shape"), numbers("ranks"));
    let ranks: Vec<usize> = ranks.iter().map(|rank| *rank as usize).collect();
    let x = tensor(&golden["x"], &shape);
    for (found, key, within) in [
        (hosvd(&x, &ranks).unwrap(), "hosvd", 1e-10),
        (tucker_of(&x, &ranks).unwrap(), "tucker", 1e-5),
    ] {
        assert!(distance(&found.reconstruct(), &tensor(&golden[key], &shape)) < within, "{key}");
        let error = golden[format!("{key}_error")].as_f64().unwrap();
        near((1.0 - found.explained).sqrt() / error, 1.0, 1e-6);
        let left = (found.reconstruct() - &x).square().sum(None) / x.square().sum(None);
        near(left.double_value(&[]) / (1.0 - found.explained), 1.0, 1e-9);
    }
}

#[test]
fn at_full_rank_nothing_is_lost_and_axes_are_orthonormal() {
    let x = normal(&[4, 5, 6], 1);
    for found in [hosvd(&x, &[4, 5, 6]).unwrap(), tucker_of(&x, &[4, 5, 6]).unwrap()] {
        assert!(distance(&found.reconstruct(), &x) < 1e-12);
        near(found.explained, 1.0, 1e-12);
        for (factor, n) in found.factors.iter().zip([4, 5, 6]) {
            let unit = factor.tr().matmul(factor);
            assert!(distance(&unit, &Tensor::eye(n, (Kind::Double, Device::Cpu))) < 1e-12);
        }
        // All-orthogonal: slices of the core along one mode are at right angles.
        let flat = found.core.reshape([4, -1]);
        let gram = flat.matmul(&flat.tr());
        assert!(distance(&gram, &gram.diag(0).diag(0)) < 1e-10);
    }
    // A tall mode, whose singular vectors come another way.
    let tall = normal(&[40, 3, 4], 2);
    assert!(distance(&hosvd(&tall, &[12, 3, 4]).unwrap().reconstruct(), &tall) < 1e-12);
}

#[test]
fn tucker_finds_planted_axes() {
    let bases = [orthonormal(6, 2, 1), orthonormal(20, 3, 2), orthonormal(15, 2, 3)];
    let core = normal(&[2, 3, 2], 4);
    let planted = Tensor::einsum(
        "abc,ia,jb,kc->ijk",
        &[
            core.shallow_clone(),
            bases[0].shallow_clone(),
            bases[1].shallow_clone(),
            bases[2].shallow_clone(),
        ],
        None::<i64>,
    );
    let found = tucker_of(&planted, &[2, 3, 2]).unwrap();
    near(found.explained, 1.0, 1e-12);
    for (own, basis) in found.factors.iter().zip(&bases) {
        assert!(distance(&own.matmul(&own.tr()).matmul(basis), basis) < 1e-6);
    }
    let noise = tucker_of(&normal(&[6, 20, 15], 5), &[2, 3, 2]).unwrap();
    assert!(noise.explained < 0.2, "{noise:?}");
}

#[test]
fn improving_never_loses_and_more_axes_hold_more() {
    let x = normal(&[5, 9, 8], 3);
    let mut before = 0.0;
    for rank in 1..=4 {
        let (first, best) = (hosvd(&x, &[rank; 3]).unwrap(), tucker_of(&x, &[rank; 3]).unwrap());
        assert!(best.explained >= first.explained && best.explained > before);
        before = best.explained;
    }
}

#[test]
fn the_stream_of_a_cache_is_one_tensor_with_names() {
    let tokens = Tokens::from_ids(&[vec![1, 4, 9, 2, 7], vec![3, 8, 5]]).unwrap();
    let cache =
        model().run(&tokens, &Plan::new().cache([Point::ResidPost, Point::Z])).unwrap().cache;
    let (x, axes) = resid_tensor(&cache, Point::ResidPost).unwrap();
    assert_eq!(x.size(), [2, 6, 12]);
    assert!(same(&x.get(1).get(0), &cache.get(Point::ResidPost.at(1)).unwrap().get(0).get(1)));
    assert_eq!(
        axes.iter().map(|axis| axis.axis).collect::<Vec<_>>(),
        [Axis::Layer, Axis::Series, Axis::DModel]
    );
    assert_eq!(axes[1].labels, ["4", "9", "2", "7", "8", "5"]);
    assert_eq!(resid_tensor(&cache, Point::Z).unwrap().0.size(), [2, 6, 24]);
    let found = tucker(&cache, Point::ResidPost, [2, 3, 4]).unwrap();
    let layers = found.factor(Axis::Layer).unwrap();
    assert_eq!(layers.shape(), [2, 2]);
    assert_eq!(layers.labels(Axis::Rank).unwrap()[1], "Layer axis 2");
    heatmap(&layers).unwrap();
    near(found.shares(Axis::DModel).unwrap().values.sum(), 1.0, 1e-12);
    assert!(values(&layers).select(1, 0).abs().max().double_value(&[]) <= 1.0);
    let line = format!("{found:?}");
    assert!(line.starts_with("Tucker of [Layer 2, Series 6, DModel 12]: core [2, 3, 4]"), "{line}");
}

#[test]
fn tucker_says_what_it_cannot_do() {
    let x = normal(&[3, 4, 5], 0);
    says(tucker_of(&x, &[2, 2]), &["tucker", "2 ranks", "[3, 4, 5]"]);
    says(hosvd(&x, &[4, 2, 2]), &["hosvd", "4 axes of mode 0", "1 to 3"]);
    says(hosvd(&x, &[2, 0, 2]), &["0 axes of mode 1"]);
    says(hosvd(&(&x / 0.0), &[1, 1, 1]), &["non-finite"]);
    let found = hosvd(&x, &[1, 1, 1]).unwrap();
    says(found.factor(Axis::Head), &["no mode Head", "[Layer, Series, Feature]"]);
}
