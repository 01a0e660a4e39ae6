//! Groups: invariants, and numbers of scikit-learn and scipy.

use thalweg::prelude::*;

use crate::decompose::{golden, near, normal, tensor, values};

mod heads;
mod items;
mod kmeans;
mod trees;
mod trust;

/// Blobs of these sizes, far from each other, and which item is of which.
fn blobs(sizes: &[i64], features: i64) -> (Tensor, Vec<usize>) {
    let (mut rows, mut planted) = (Vec::new(), Vec::new());
    for (i, size) in sizes.iter().enumerate() {
        let shift = Tensor::zeros([1, features], (Kind::Double, Device::Cpu));
        let _ = shift
            .narrow(1, i as i64 % features, 1)
            .fill_(40.0 * (1 + i / features as usize) as f64);
        rows.push(normal(&[*size, features], i as u64 + 1) + shift);
        planted.extend(vec![i; *size as usize]);
    }
    (Tensor::cat(&rows, 0), planted)
}
