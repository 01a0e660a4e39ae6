//! A matrix of low rank kept as the product of its factors.
//!
//! What a head reads and writes, `W_V W_O` and `W_Q W_Kᵀ`, is `[DModel, DModel]` of rank `DHead`
//! (Elhage et al. 2021, <https://transformer-circuits.pub/2021/framework>). Its spectrum follows from
//! the thin factors: singular values from two QR decompositions and a small core, eigenvalues of
//! `A B` from those of `B A`, which are the same but for zeros.

use std::fmt;

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

/// The matrix `A B`, `A [m, r]`, `B [r, n]`, in f64. Rows are inputs: `y = x A B`.
///
/// ```
/// use thalweg::{FactoredMatrix, tch::Tensor};
/// let a = Tensor::from_slice2(&[[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]]);
/// let matrix = FactoredMatrix::new(&a, &a.tr())?;
/// assert_eq!(matrix.shape(), (3, 3));
/// assert_eq!(matrix.eigenvalues()?[0], (4.0, 0.0)); // real and imaginary part
/// assert!((matrix.norm() - 17f64.sqrt()).abs() < 1e-12);
/// # thalweg::anyhow::Ok(())
/// ```
pub struct FactoredMatrix {
    a: Tensor,
    b: Tensor,
}

/// Singular value decomposition of a [`FactoredMatrix`]: `A B = U diag(S) Vᵀ`, largest first.
pub struct Svd {
    /// Left singular vectors as columns, what is read: `[m, r]`.
    pub u: Tensor,
    /// Singular values, `[r]`.
    pub s: Tensor,
    /// Right singular vectors as columns, what is written: `[n, r]`.
    pub v: Tensor,
}

impl Clone for FactoredMatrix {
    fn clone(&self) -> Self {
        FactoredMatrix { a: self.a.shallow_clone(), b: self.b.shallow_clone() }
    }
}

impl Clone for Svd {
    fn clone(&self) -> Self {
        let [u, s, v] = [&self.u, &self.s, &self.v].map(Tensor::shallow_clone);
        Svd { u, s, v }
    }
}

impl FactoredMatrix {
    /// From factors `[m, r]` and `[r, n]`, which are copied to f64.
    pub fn new(a: &Tensor, b: &Tensor) -> Result<Self> {
        let (left, right) = (a.size(), b.size());
        ensure!(
            left.len() == 2 && right.len() == 2 && left[1] == right[0],
            "factors {left:?} and {right:?}: expected [m, r] and [r, n]"
        );
        let [a, b] = [a, b].map(|x| x.detach().to_kind(Kind::Double));
        Ok(FactoredMatrix { a: a.copy(), b: b.copy() })
    }

    /// The left factor, `[m, r]`.
    pub fn a(&self) -> Tensor {
        self.a.shallow_clone()
    }

    /// The right factor, `[r, n]`.
    pub fn b(&self) -> Tensor {
        self.b.shallow_clone()
    }

    /// Rows and columns, `(m, n)`.
    pub fn shape(&self) -> (usize, usize) {
        (self.a.size()[0] as usize, self.b.size()[1] as usize)
    }

    /// The factors' common size `r`, the most the rank can be.
    pub fn inner(&self) -> usize {
        self.a.size()[1] as usize
    }

    /// The whole matrix, `[m, n]`: large.
    pub fn dense(&self) -> Tensor {
        self.a.matmul(&self.b)
    }

    /// `Bᵀ Aᵀ`.
    pub fn transpose(&self) -> Self {
        FactoredMatrix { a: self.b.tr(), b: self.a.tr() }
    }

    /// This matrix times another, kept as factors around the smaller of the two inner sizes.
    pub fn times(&self, other: &FactoredMatrix) -> Result<Self> {
        let (own, next) = (self.shape(), other.shape());
        ensure!(
            own.1 == next.0,
            "a {} x {} matrix times a {} x {} one: columns and rows must agree",
            own.0,
            own.1,
            next.0,
            next.1
        );
        let core = self.b.matmul(&other.a); // [r, r']
        Ok(if self.inner() <= other.inner() {
            FactoredMatrix { a: self.a(), b: core.matmul(&other.b) }
        } else {
            FactoredMatrix { a: self.a.matmul(&core), b: other.b() }
        })
    }

    /// What the matrix makes of rows `x [.., m]`: `[.., n]`, f64.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let m = self.a.size()[0];
        ensure!(x.size().last() == Some(&m), "rows {:?}, expected [.., {m}]", x.size());
        Ok(x.to_kind(Kind::Double).matmul(&self.a).matmul(&self.b))
    }

    /// Frobenius norm.
    pub fn norm(&self) -> f64 {
        let [a, b] = [self.a(), self.b.tr()].map(|x| core(&x));
        a.matmul(&b.tr()).square().sum(None).sqrt().double_value(&[])
    }

    /// Sum of the diagonal, which is that of the eigenvalues.
    pub fn trace(&self) -> Result<f64> {
        self.check_square("trace")?;
        Ok((&self.a * self.b.tr()).sum(None).double_value(&[]))
    }

    /// The diagonal, `[m]`.
    pub fn diagonal(&self) -> Result<Tensor> {
        self.check_square("diagonal")?;
        Ok((&self.a * self.b.tr()).sum_dim_intlist([-1i64].as_slice(), false, None))
    }

    /// Singular value decomposition, from the factors' own.
    pub fn svd(&self) -> Result<Svd> {
        let (left, left_core) = Tensor::f_linalg_qr(&self.a, "reduced")?;
        let (right, right_core) = Tensor::f_linalg_qr(&self.b.tr(), "reduced")?;
        let (u, s, v) = left_core.matmul(&right_core.tr()).f_svd(true, true)?;
        Ok(Svd { u: left.matmul(&u), s, v: right.matmul(&v) })
    }

    /// Singular values, largest first.
    pub fn singular_values(&self) -> Result<Vec<f64>> {
        Ok(Vec::try_from(self.svd()?.s)?)
    }

    /// Eigenvalues as (real, imaginary), largest magnitude first: the `r` that need not be 0, found
    /// from `B A`.
    pub fn eigenvalues(&self) -> Result<Vec<(f64, f64)>> {
        self.check_square("eigenvalues")?;
        eigenvalues(&self.b.matmul(&self.a))
    }

    fn check_square(&self, what: &str) -> Result<()> {
        let (m, n) = self.shape();
        ensure!(m == n, "{what} of a {m} x {n} matrix: expected a square one");
        Ok(())
    }
}

/// Eigenvalues of a square matrix as (real, imaginary), largest magnitude first.
pub(super) fn eigenvalues(square: &Tensor) -> Result<Vec<(f64, f64)>> {
    ensure!(bool::try_from(square.isfinite().all())?, "the matrix holds a non-finite number");
    let parts = square.f_linalg_eigvals()?.view_as_real().contiguous();
    let flat = Vec::<f64>::try_from(parts.flatten(0, -1))?;
    let mut values: Vec<(f64, f64)> = flat.chunks(2).map(|pair| (pair[0], pair[1])).collect();
    values.sort_by(|a, b| b.0.hypot(b.1).total_cmp(&a.0.hypot(a.1)));
    Ok(values)
}

/// A small square matrix with the same `XᵀX` as the tall `x [.., m, r]`: what its norms rest on.
pub(super) fn core(x: &Tensor) -> Tensor {
    Tensor::linalg_qr(x, "r").1
}

/// `Σ Re λ / Σ |λ|`, in -1..1: 1 where every eigenvalue is positive; 0 for a matrix of zeros.
pub(super) fn positive_share(values: &[(f64, f64)]) -> f64 {
    let size: f64 = values.iter().map(|(re, im)| re.hypot(*im)).sum();
    if size == 0.0 { 0.0 } else { values.iter().map(|(re, _)| re).sum::<f64>() / size }
}

/// One line: shape, inner size and norm.
impl fmt::Debug for FactoredMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (m, n) = self.shape();
        write!(f, "FactoredMatrix {{ {m} x {n}, inner {}, norm {:.4} }}", self.inner(), self.norm())
    }
}

/// One line: shape and largest values.
impl fmt::Debug for Svd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = Vec::<f64>::try_from(self.s.shallow_clone()).unwrap_or_default();
        let first: Vec<String> = values.iter().take(4).map(|s| format!("{s:.4}")).collect();
        write!(f, "Svd {{ {} singular values: {}, ... }}", values.len(), first.join(", "))
    }
}
