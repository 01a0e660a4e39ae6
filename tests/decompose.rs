//! Decomposition and embedding: invariants, and numbers of scikit-learn and tensorly.

use serde_json::Value;
use thalweg::prelude::*;
use thalweg::rng::Rng;

mod fourier;
mod layers;
mod pca;
mod tsne;
mod tucker;

/// One of the files of data/golden/analysis.
pub(crate) fn golden(name: &str) -> Value {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/golden/analysis");
    let text = std::fs::read_to_string(dir.join(format!("{name}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Numbers of a golden as a tensor of this shape.
#[track_caller]
pub(crate) fn tensor(of: &Value, shape: &[i64]) -> Tensor {
    let numbers: Vec<f64> = of.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    Tensor::from_slice(&numbers).view(shape)
}

pub(crate) fn normal(shape: &[i64], seed: u64) -> Tensor {
    Rng::new(seed).normal_tensor(shape).to_kind(Kind::Double)
}

/// A matrix with orthonormal columns.
pub(crate) fn orthonormal(rows: i64, columns: i64, seed: u64) -> Tensor {
    Tensor::linalg_qr(&normal(&[rows, columns], seed), "reduced").0
}

/// A grid's values as a tensor.
pub(crate) fn values(grid: &Grid) -> Tensor {
    let shape: Vec<i64> = grid.shape().iter().map(|n| *n as i64).collect();
    Tensor::from_slice(&grid.values.iter().copied().collect::<Vec<f64>>()).view(&shape[..])
}

#[track_caller]
pub(crate) fn near(a: f64, b: f64, within: f64) {
    assert!((a - b).abs() <= within * b.abs().max(1.0), "{a} against {b}, {within} allowed");
}
