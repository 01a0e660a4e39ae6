//! Which measure two sets of vectors are compared by.

use std::fmt;

use anyhow::Result;
use tch::Tensor;

use super::cca::{cca, pwcca, svcca};
use super::cka::{cka, cka_debiased};
use super::neighbours::{mutual_neighbours, rsa};
use super::procrustes::procrustes;

/// A measure of how alike two sets of vectors `[n, D]` are whose rows belong together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Similarity {
    /// Linear CKA, 0..1: [`cka`](crate::cka).
    Cka,
    /// Linear CKA without its bias: [`cka_debiased`](crate::cka_debiased).
    DebiasedCka,
    /// Procrustes' distance, 0 where one is the other turned, at most 2: [`procrustes`](crate::procrustes).
    Procrustes,
    /// Mean canonical correlation: [`cca`](crate::cca).
    Cca,
    /// The same of the components that hold this share of the variance: [`svcca`](crate::svcca).
    Svcca(f64),
    /// Weighted canonical correlation: [`pwcca`](crate::pwcca).
    Pwcca,
    /// Share of so many nearest neighbours in common: [`mutual_neighbours`](crate::mutual_neighbours).
    MutualNeighbours(usize),
    /// Correlation of dissimilarities: [`rsa`](crate::rsa).
    Rsa,
}

impl Similarity {
    /// The measure of `x [n, D]` and `y [n, E]`.
    ///
    /// ```
    /// use thalweg::{Similarity, rng::Rng};
    /// let x = Rng::new(1).normal_tensor(&[40, 6]);
    /// assert!((Similarity::Rsa.of(&x, &(&x * 2.0))? - 1.0).abs() < 1e-9);
    /// assert!((Similarity::MutualNeighbours(5).of(&x, &x)? - 1.0).abs() < 1e-9);
    /// # thalweg::anyhow::Ok(())
    /// ```
    pub fn of(self, x: &Tensor, y: &Tensor) -> Result<f64> {
        match self {
            Similarity::Cka => cka(x, y),
            Similarity::DebiasedCka => cka_debiased(x, y),
            Similarity::Procrustes => Ok(procrustes(x, y)?.distance),
            Similarity::Cca => Ok(cca(x, y)?.mean()),
            Similarity::Svcca(variance) => svcca(x, y, variance),
            Similarity::Pwcca => pwcca(x, y),
            Similarity::MutualNeighbours(k) => mutual_neighbours(x, y, k),
            Similarity::Rsa => rsa(x, y),
        }
    }
}

/// As the field writes it: "debiased CKA", "SVCCA (0.99)".
impl fmt::Display for Similarity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Similarity::Cka => f.write_str("linear CKA"),
            Similarity::DebiasedCka => f.write_str("debiased CKA"),
            Similarity::Procrustes => f.write_str("Procrustes distance"),
            Similarity::Cca => f.write_str("mean CCA"),
            Similarity::Svcca(variance) => write!(f, "SVCCA ({variance})"),
            Similarity::Pwcca => f.write_str("PWCCA"),
            Similarity::MutualNeighbours(k) => write!(f, "mutual {k} nearest neighbours"),
            Similarity::Rsa => f.write_str("RSA"),
        }
    }
}
