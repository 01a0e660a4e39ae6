//! Coefficients of correlation: how two lists of numbers go together.
//!
//! Pearson 1895; Spearman 1904, the same of the ranks, ties at their mean rank; partial correlation
//! by the residuals of least squares; distance correlation of Székely, Rizzo and Bakirov 2007,
//! <https://arxiv.org/abs/0803.4101>, which is 0 in the limit only where nothing goes together at all,
//! but positive in every finite sample: read it beside its shuffles.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

/// Which coefficient: what "going together" means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coefficient {
    /// Along a line: -1..1.
    Pearson,
    /// In the same order, whatever the curve: -1..1.
    Spearman,
    /// In any way at all: 0..1. Takes memory in the square of the number of samples.
    Distance,
}

/// Deviations that are rounding alone: below this share of the largest value a list is constant.
const CONSTANT: f64 = 1e-13;

/// Samples made ready for one coefficient: what is left is an inner product for each pair.
#[derive(Debug)]
pub(super) struct Ready {
    how: Coefficient,
    /// `[Cell, m]`: deviations, of which `m` belong to each cell.
    rows: Tensor,
    /// `[Cell]`: their lengths; 0 where a cell is constant.
    lengths: Tensor,
}

impl Coefficient {
    /// Makes `x [Cell, Sample]` ready, without what least squares on `given [K, Sample]` explains.
    pub(super) fn ready(self, x: &Tensor, given: Option<&Tensor>) -> Ready {
        let sum = |x: &Tensor| x.sum_dim_intlist([-1i64].as_slice(), true, None);
        let x = if self == Coefficient::Spearman { ranks_of(x) } else { x.shallow_clone() };
        let n = x.size()[1];
        let largest = x.abs().amax([-1i64].as_slice(), false);
        let rows = if self == Coefficient::Distance {
            let apart = (x.unsqueeze(2) - x.unsqueeze(1)).abs(); // [Cell, Sample, Sample]
            let mean = apart.mean_dim([2i64].as_slice(), true, None);
            let all = mean.mean_dim([1i64].as_slice(), true, None);
            (apart - &mean - mean.transpose(1, 2) + all).reshape([-1, n * n])
        } else {
            let centred = &x - sum(&x) / n as f64;
            match given {
                Some(given) => {
                    let given = match self {
                        Coefficient::Spearman => ranks_of(given),
                        _ => given.shallow_clone(),
                    };
                    let basis = span(&(&given - sum(&given) / n as f64));
                    &centred - centred.matmul(&basis).matmul(&basis.tr())
                }
                None => centred,
            }
        };
        let rounding = rows.abs().amax([-1i64].as_slice(), false).le_tensor(&(largest * CONSTANT));
        let lengths = rows.norm_scalaropt_dim(2, [1i64].as_slice(), false);
        Ready { how: self, rows, lengths: lengths.masked_fill(&rounding, 0.0) }
    }
}

impl Ready {
    /// The same with its samples in another order.
    pub(super) fn reordered(&self, order: &Tensor) -> Ready {
        let rows = match self.how {
            Coefficient::Distance => {
                let n = order.size()[0];
                let square = self.rows.view([-1, n, n]);
                square.index_select(1, order).index_select(2, order).reshape([-1, n * n])
            }
            _ => self.rows.index_select(1, order),
        };
        Ready { how: self.how, rows, lengths: self.lengths.shallow_clone() }
    }

    /// The coefficient of every cell here with every cell of the other, `[Cell, Cell]`; NaN where
    /// either is constant.
    pub(super) fn with(&self, other: &Ready) -> Tensor {
        let products = self.rows.matmul(&other.rows.tr());
        self.of_products(&products, &(self.lengths.unsqueeze(1) * other.lengths.unsqueeze(0)))
    }

    /// The coefficient of each cell here with the cell of the same number.
    pub(super) fn row_by_row(&self, other: &Ready) -> Vec<f64> {
        let products = (&self.rows * &other.rows).sum_dim_intlist([1i64].as_slice(), false, None);
        let r = self.of_products(&products, &(&self.lengths * &other.lengths));
        (0..r.size()[0]).map(|i| r.double_value(&[i])).collect()
    }

    fn of_products(&self, products: &Tensor, lengths: &Tensor) -> Tensor {
        let r = products / lengths;
        let r = match self.how {
            // the square of the distance correlation, whose rounding may lie below 0
            Coefficient::Distance => r.clamp(0.0, 1.0).sqrt(),
            _ => r.clamp(-1.0, 1.0),
        };
        r.masked_fill(&lengths.eq(0.0), f64::NAN)
    }
}

/// For each value of `x [Cell, Sample]` the number of smaller ones in its row, i64: all that ranks depend
/// on, of the samples and of any drawn from them.
pub(super) fn places(x: &Tensor) -> Tensor {
    let (sorted, _) = x.sort(-1, false);
    let x = x.contiguous();
    x.searchsorted(&sorted.contiguous(), false, false, "left", None::<Tensor>)
}

/// Ranks from 1 within each row of `x [Cell, Sample]`, of numbers or of their [`places`]; equal values share
/// the mean of theirs.
fn ranks_of(x: &Tensor) -> Tensor {
    let places = if x.kind() == Kind::Int64 { x.shallow_clone() } else { places(x) };
    let most = places.max().int64_value(&[]) + 1;
    let ones = places.ones_like().to_kind(Kind::Double);
    let none = Tensor::zeros([places.size()[0], most], (Kind::Double, places.device()));
    let equal = none.scatter_add(1, &places, &ones);
    let up_to = equal.cumsum(1, None::<Kind>).gather(1, &places, false);
    up_to - (equal.gather(1, &places, false) - 1.0) / 2.0
}

/// An orthonormal basis `[Sample, K']` of what the rows of `x [K, Sample]` span.
fn span(x: &Tensor) -> Tensor {
    let lengths = x.norm_scalaropt_dim(2, [1i64].as_slice(), true);
    let (u, s, _) = (x / lengths.clamp_min(f64::MIN_POSITIVE)).tr().svd(true, true);
    let largest = s.max().double_value(&[]);
    let kept = s.gt(1e-10 * largest).sum(Kind::Int64).int64_value(&[]);
    u.narrow(1, 0, kept)
}

/// Pearson's correlation of two lists, in -1..1; NaN where either is constant.
///
/// ```
/// let r = thalweg::pearson(&[1.0, 2.0, 3.0], &[5.0, 3.0, 1.0])?;
/// assert!((r + 1.0).abs() < 1e-12);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn pearson(x: &[f64], y: &[f64]) -> Result<f64> {
    checked("pearson", x, &[y])?;
    Ok(coefficient(Coefficient::Pearson, x, y))
}

/// Spearman's correlation: Pearson's of the ranks, equal values at the mean of theirs. NaN where
/// either list is constant.
///
/// ```
/// let r = thalweg::spearman(&[1.0, 2.0, 3.0, 4.0], &[1.0, 10.0, 100.0, 1000.0])?;
/// assert!((r - 1.0).abs() < 1e-12);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn spearman(x: &[f64], y: &[f64]) -> Result<f64> {
    checked("spearman", x, &[y])?;
    Ok(coefficient(Coefficient::Spearman, x, y))
}

/// Distance correlation (the V-statistic), 0..1: 1 on a line, positive by chance alone in a finite
/// sample. NaN where either list is constant.
///
/// ```
/// let x: Vec<f64> = (-20..=20).map(f64::from).collect();
/// let parabola: Vec<f64> = x.iter().map(|x| x * x).collect();
/// assert!(thalweg::pearson(&x, &parabola)?.abs() < 1e-12);
/// assert!(thalweg::distance_correlation(&x, &parabola)? > 0.4);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn distance_correlation(x: &[f64], y: &[f64]) -> Result<f64> {
    checked("distance_correlation", x, &[y])?;
    Ok(coefficient(Coefficient::Distance, x, y))
}

/// Pearson's correlation of what is left of `x` and `y` once each of `given` has explained what it
/// can of them by least squares: do they still go together when these are held fixed? NaN where
/// nothing is left of either.
///
/// ```
/// // z is behind both x and y
/// let z = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
/// let x = [1.1, 1.9, 3.1, 3.9, 5.1, 5.9];
/// let y = [1.1, 2.1, 2.9, 3.9, 5.1, 6.1];
/// assert!(thalweg::pearson(&x, &y)? > 0.99);
/// assert!(thalweg::partial_correlation(&x, &y, &[&z])?.abs() < 0.5);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn partial_correlation(x: &[f64], y: &[f64], given: &[&[f64]]) -> Result<f64> {
    let all: Vec<&[f64]> = [&[y], given].concat();
    checked("partial_correlation", x, &all)?;
    ensure!(
        x.len() > given.len() + 2,
        "partial_correlation: {} samples with {} given lists, expected {} at least",
        x.len(),
        given.len(),
        given.len() + 3
    );
    let given = (!given.is_empty()).then(|| rows(given));
    let [x, y] = [x, y].map(|x| Coefficient::Pearson.ready(&rows(&[x]), given.as_ref()));
    Ok(x.with(&y).double_value(&[0, 0]))
}

/// The coefficient of two lists of equal length; NaN where either is constant or not finite.
pub(in crate::analysis) fn coefficient(how: Coefficient, x: &[f64], y: &[f64]) -> f64 {
    if x.iter().chain(y).any(|x| !x.is_finite()) {
        return f64::NAN;
    }
    let [x, y] = [x, y].map(|x| how.ready(&rows(&[x]), None));
    x.with(&y).double_value(&[0, 0])
}

/// Lists of equal length as the rows of a tensor.
fn rows(lists: &[&[f64]]) -> Tensor {
    Tensor::stack(&lists.iter().map(|x| Tensor::from_slice(x)).collect::<Vec<_>>(), 0)
}

/// Two values at least in each list, as many in each, all of them finite.
fn checked(what: &str, x: &[f64], others: &[&[f64]]) -> Result<()> {
    ensure!(x.len() > 1, "{what}: {} samples, expected two at least", x.len());
    for y in others {
        ensure!(
            x.len() == y.len(),
            "{what}: lists of {} and {} numbers, expected as many in each",
            x.len(),
            y.len()
        );
    }
    for list in others.iter().chain([&x]) {
        if let Some(i) = list.iter().position(|x| !x.is_finite()) {
            anyhow::bail!("{what}: value {i} is {}, expected finite numbers", list[i]);
        }
    }
    Ok(())
}
