//! Centred kernel alignment with the linear kernel.
//!
//! Kornblith et al. 2019, "Similarity of Neural Network Representations Revisited",
//! <https://arxiv.org/abs/1905.00414>; without bias by the estimator of Song et al. 2012, and over
//! minibatches, Nguyen et al. 2021, <https://arxiv.org/abs/2010.15327>.
//!
//! Plain CKA of independent sets tends to 1 where there are more dimensions than points: compare
//! with the debiased one. Both follow the few directions of largest variance, and outliers (Davari et
//! al. 2023, <https://arxiv.org/abs/2210.16156>).

use anyhow::{Result, ensure};
use tch::Tensor;

use super::data::{by_row, centred, number, pair, squares};

/// Linear CKA of two sets of vectors `[n, D]` and `[n, E]`, 0..1: 1 where one is the other turned,
/// scaled and moved.
///
/// ```
/// use thalweg::{cka, cka_debiased, rng::Rng};
/// let mut rng = Rng::new(1);
/// let (x, y) = (rng.normal_tensor(&[50, 40]), rng.normal_tensor(&[50, 40]));
/// assert!((cka(&x, &(&x * -3.0 + 1.0))? - 1.0).abs() < 1e-6);
/// assert!(cka(&x, &y)? > 0.3); // though they have nothing in common
/// assert!(cka_debiased(&x, &y)?.abs() < 0.2);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn cka(x: &Tensor, y: &Tensor) -> Result<f64> {
    let [x, y] = pair("cka", x, y, 2)?;
    let (x, y) = (centred("cka", &x)?, centred("cka", &y)?);
    let [n, d, e] = [x.size()[0], x.size()[1], y.size()[1]];
    if n < d.min(e) {
        let [k, l] = [&x, &y].map(|t| t.matmul(&t.tr())); // [n, n]
        let products = number(&(&k * &l).sum(None));
        return Ok(products / (squares(&k) * squares(&l)).sqrt());
    }
    Ok(squares(&y.tr().matmul(&x)) / (own_squares(&x) * own_squares(&y)).sqrt())
}

/// Columns of a matrix's product with itself that are computed together.
const BLOCK: i64 = 128;

/// Sum of the squares of all entries of `xᵀ x`: what is above the diagonal counts twice, and what is
/// below is never computed.
fn own_squares(x: &Tensor) -> f64 {
    let d = x.size()[1];
    let block = |start: i64| {
        let own = x.narrow(1, start, BLOCK.min(d - start)).tr();
        let beyond = (start + BLOCK).min(d);
        squares(&own.matmul(&own.tr()))
            + 2.0 * squares(&own.matmul(&x.narrow(1, beyond, d - beyond)))
    };
    (0..d).step_by(BLOCK as usize).map(block).sum()
}

/// Linear CKA from unbiased estimates, at most 1 and about 0 for independent sets, sometimes below.
/// Needs 4 points at least.
pub fn cka_debiased(x: &Tensor, y: &Tensor) -> Result<f64> {
    let mut one = MinibatchCka::new();
    one.add(x, y).map_err(|error| anyhow::anyhow!("{error:#}"))?;
    one.value()
}

/// Debiased CKA of more vectors than fit at a time: the unbiased estimates of each batch are averaged
/// before they are divided. Batches of one size; which vectors share one must not matter.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MinibatchCka {
    /// Summed estimates for x with y, x with x, y with y.
    sums: [f64; 3],
    batches: usize,
}

impl MinibatchCka {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a batch of vectors, `[n, D]` and `[n, E]`.
    pub fn add(&mut self, x: &Tensor, y: &Tensor) -> Result<()> {
        let [x, y] = pair("debiased cka", x, y, 4)?;
        // Moving the points changes nothing but the rounding.
        let (x, y) = (centred("debiased cka", &x)?, centred("debiased cka", &y)?);
        let found = [hsic(&x, &y), hsic(&x, &x), hsic(&y, &y)];
        self.sums.iter_mut().zip(found).for_each(|(sum, own)| *sum += own);
        self.batches += 1;
        Ok(())
    }

    /// Batches seen.
    pub fn batches(&self) -> usize {
        self.batches
    }

    /// The alignment of all that was added.
    pub fn value(&self) -> Result<f64> {
        ensure!(self.batches > 0, "debiased cka: nothing was added yet");
        let [both, x, y] = self.sums;
        ensure!(
            x > 0.0 && y > 0.0,
            "debiased cka: a set's own estimate is not above 0: too few points for what they vary"
        );
        Ok(both / (x * y).sqrt())
    }
}

/// Song's unbiased estimate of the Hilbert-Schmidt independence criterion, of the kernels `K = X X'`
/// and `L = Y Y'` without their diagonals, by sums that need neither:
/// `(tr KL + 1'K1 1'L1 / ((n-1)(n-2)) - 2 1'KL1 / (n-2)) / (n (n-3))`.
fn hsic(x: &Tensor, y: &Tensor) -> f64 {
    let n = x.size()[0] as f64;
    let sums = |t: &Tensor| {
        let own = by_row(t.square()); // the diagonal
        let all = t.matmul(&t.sum_dim_intlist([0i64].as_slice(), false, None));
        (all - &own, own)
    };
    let ((k, own_k), (l, own_l)) = (sums(x), sums(y)); // row sums without the diagonal, diagonal
    let trace = squares(&x.tr().matmul(y)) - number(&own_k.dot(&own_l));
    let whole = number(&k.sum(None)) * number(&l.sum(None)) / ((n - 1.0) * (n - 2.0));
    let crossed = 2.0 * number(&k.dot(&l)) / (n - 2.0);
    (trace + whole - crossed) / (n * (n - 3.0))
}
