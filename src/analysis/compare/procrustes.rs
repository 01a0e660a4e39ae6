//! The rotation that carries one set of vectors onto another, and how far they stay apart.
//!
//! Schonemann 1966, "A generalized solution of the orthogonal Procrustes problem"; as a measure of
//! representations Ding, Denain and Steinhardt 2021, <https://arxiv.org/abs/2108.01661>.

use std::fmt;

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use super::data::{centred, number, pair, squares};

/// The best rotation (with reflection, scale and shift) of one set of vectors onto another.
pub struct Procrustes {
    /// `2 - 2 |X'Y|_*` of both sets centred and scaled to length 1: 0 where one is the other turned,
    /// 2 at most.
    pub distance: f64,
    /// `Q [D, E]`, f64: `x Q` is nearest to `y`; orthogonal where `D = E`. Where `D > E` its columns
    /// are orthonormal and the inner product of `x Q` and `y` is greatest.
    pub rotation: Tensor,
    /// The scale that brings `x Q` nearest to `y`.
    pub scale: f64,
    /// Mean of `x`, `[D]`, f64.
    pub mean_x: Tensor,
    /// Mean of `y`, `[E]`, f64.
    pub mean_y: Tensor,
}

impl Clone for Procrustes {
    fn clone(&self) -> Self {
        Procrustes {
            rotation: self.rotation.shallow_clone(),
            mean_x: self.mean_x.shallow_clone(),
            mean_y: self.mean_y.shallow_clone(),
            ..*self
        }
    }
}

/// One line: the distance, and what is mapped to what.
impl fmt::Debug for Procrustes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (size, distance, scale) = (self.rotation.size(), self.distance, self.scale);
        write!(f, "Procrustes {} -> {}: distance {distance:.4}, scale {scale:.4}", size[0], size[1])
    }
}

impl Procrustes {
    /// Other vectors carried over: `(x - mean_x) Q scale + mean_y`, `[.., D]` -> `[.., E]`, f64.
    pub fn transform(&self, x: &Tensor) -> Result<Tensor> {
        let d = self.rotation.size()[0];
        ensure!(x.size().last() == Some(&d), "the vectors are {:?}, expected [.., {d}]", x.size());
        let moved = x.to_device(self.mean_x.device()).to_kind(Kind::Double) - &self.mean_x;
        Ok(moved.matmul(&self.rotation) * self.scale + &self.mean_y)
    }

    /// A direction carried over: turned, neither scaled nor moved, `[.., D]` -> `[.., E]`, f64.
    pub fn turn(&self, direction: &Tensor) -> Result<Tensor> {
        let d = self.rotation.size()[0];
        ensure!(
            direction.size().last() == Some(&d),
            "the direction is {:?}, expected [.., {d}]",
            direction.size()
        );
        Ok(direction.to_device(self.rotation.device()).to_kind(Kind::Double).matmul(&self.rotation))
    }
}

/// The rotation of `x [n, D]` onto `y [n, E]`.
///
/// ```
/// use thalweg::{procrustes, rng::Rng};
/// let x = Rng::new(1).normal_tensor(&[30, 4]);
/// let turned = x.flip([1i64]) * 2.0 + 1.0; // mirrored, twice as long, moved
/// let found = procrustes(&x, &turned)?;
/// assert!(found.distance < 1e-6 && (found.scale - 2.0).abs() < 1e-6);
/// assert!((found.transform(&x)? - &turned).abs().max().double_value(&[]) < 1e-5);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn procrustes(x: &Tensor, y: &Tensor) -> Result<Procrustes> {
    let [x, y] = pair("procrustes", x, y, 2)?;
    let [mean_x, mean_y] = [&x, &y].map(|t| t.mean_dim([0i64].as_slice(), false, None));
    let (x, y) = (centred("procrustes", &x)?, centred("procrustes", &y)?);
    let (u, singular, v) = x.tr().matmul(&y).f_svd(true, true)?;
    let (size_x, size_y) = (squares(&x), squares(&y));
    let nuclear = number(&singular.sum(None));
    let rotation = u.matmul(&v.tr());
    // Into fewer dimensions part of `x` is lost, and its size with it.
    let size_turned = squares(&x.matmul(&rotation));
    Ok(Procrustes {
        distance: (2.0 - 2.0 * nuclear / (size_x * size_y).sqrt()).max(0.0),
        rotation,
        scale: if size_turned > 0.0 { nuclear / size_turned } else { 0.0 },
        mean_x,
        mean_y,
    })
}
