//! Linear probes: what can be read off a hidden state by one direction.
//!
//! Alain & Bengio 2016, <https://arxiv.org/abs/1610.01644>; control labels and selectivity: Hewitt &
//! Liang 2019, <https://arxiv.org/abs/1909.03368>; mean difference: Marks & Tegmark 2023,
//! <https://arxiv.org/abs/2310.06824>.
//!
//! A probe that is right does not show that the model uses what it reads: ablate its direction, or
//! steer with it ([`DirectionEffect`](crate::DirectionEffect), [`DoseResponse`](crate::DoseResponse)).

mod closed;
mod folds;
mod logistic;
mod report;

use std::fmt;

use anyhow::{Context, Result, ensure};
use tch::{Device, Kind, Tensor};

pub use report::{ProbeReport, Probing};

/// How a probe is fitted. None penalises the intercept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ProbeMethod {
    /// The difference of the classes' means, with the threshold half way between them; of several
    /// classes, the nearest mean.
    MeanDifference,
    /// Linear discriminant analysis: the mean difference, whitened by the covariance within classes,
    /// `(1 - shrinkage) S + shrinkage tr(S)/D I`; shrinkage in 0..=1.
    Lda {
        /// 0 for none; needed where there are fewer examples than dimensions.
        shrinkage: f64,
    },
    /// Least squares on targets -1 and 1 with penalty `alpha |w|²`, in closed form; of several
    /// classes, each against the rest. scikit-learn's `RidgeClassifier`.
    Ridge {
        /// Strength of the penalty.
        alpha: f64,
    },
    /// Sum of the log losses plus `l2 / 2 |w|²` (scikit-learn's `LogisticRegression` with
    /// `C = 1 / l2`), softmax for several classes; by Newton's method with conjugate gradients.
    Logistic {
        /// Strength of the penalty.
        l2: f64,
    },
}

impl fmt::Display for ProbeMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProbeMethod::MeanDifference => f.write_str("mean difference"),
            ProbeMethod::Lda { shrinkage } => write!(f, "LDA (shrinkage {shrinkage})"),
            ProbeMethod::Ridge { alpha } => write!(f, "ridge (alpha {alpha})"),
            ProbeMethod::Logistic { l2 } => write!(f, "logistic (l2 {l2})"),
        }
    }
}

/// A linear classifier of vectors.
///
/// ```
/// use thalweg::{Probe, ProbeMethod, tch::Tensor};
/// let x = Tensor::from_slice2(&[[0.0, 1.0], [0.2, 0.0], [2.0, 1.1], [2.2, 0.1]]);
/// let probe = Probe::fit(&x, &["no", "no", "yes", "yes"], ProbeMethod::MeanDifference)?;
/// assert_eq!(probe.predict(&x)?, ["no", "no", "yes", "yes"]);
/// let direction = Vec::<f64>::try_from(probe.direction("no", "yes")?)?;
/// assert!((direction[0] - 2.0).abs() < 1e-12);
/// # thalweg::anyhow::Ok(())
/// ```
pub struct Probe {
    /// How it was fitted.
    pub method: ProbeMethod,
    /// The classes, in alphabetical order.
    pub classes: Vec<String>,
    /// Examples of each class that it was fitted on.
    pub counts: Vec<usize>,
    /// One row for two classes, whose product with a vector grows from the first to the second; one
    /// for each of several: `[.., D]`, f64.
    pub weights: Tensor,
    /// Added to those products, f64.
    pub bias: Tensor,
}

impl Clone for Probe {
    fn clone(&self) -> Self {
        Probe {
            method: self.method,
            classes: self.classes.clone(),
            counts: self.counts.clone(),
            weights: self.weights.shallow_clone(),
            bias: self.bias.shallow_clone(),
        }
    }
}

/// One line: the method, the width, and how many examples each class had.
impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.classes.iter().zip(&self.counts);
        let counts: Vec<String> = counts.map(|(class, n)| format!("{class} {n}")).collect();
        write!(f, "{} probe of {} dimensions: ", self.method, self.weights.size()[1])?;
        f.write_str(&counts.join(", "))
    }
}

impl Probe {
    /// Fits the rows of `x [n, D]` with a label each. Two classes at least.
    pub fn fit(x: &Tensor, labels: &[impl AsRef<str>], method: ProbeMethod) -> Result<Self> {
        Self::fit_with(x, labels, method, false)
    }

    /// The same on dimensions divided by their standard deviation, so that the penalty (or the
    /// distance) does not depend on their scale. The weights are for vectors as they are.
    pub fn fit_standardised(
        x: &Tensor,
        labels: &[impl AsRef<str>],
        method: ProbeMethod,
    ) -> Result<Self> {
        Self::fit_with(x, labels, method, true)
    }

    fn fit_with(
        x: &Tensor,
        labels: &[impl AsRef<str>],
        method: ProbeMethod,
        standardised: bool,
    ) -> Result<Self> {
        let (classes, y) = numbered(labels);
        ensure!(
            x.dim() == 2 && x.size()[0] == labels.len() as i64,
            "probe: {} labels for vectors of shape {:?}, expected [{}, D]",
            labels.len(),
            x.size(),
            labels.len()
        );
        ensure!(
            classes.len() > 1,
            "probe: {} examples, all of class {:?}: expected two classes",
            labels.len(),
            classes.first().map_or("", String::as_str)
        );
        let x = x.detach().to_device(Device::Cpu).to_kind(Kind::Double);
        ensure!(bool::try_from(x.isfinite().all())?, "probe: the data hold a non-finite number");
        let fitted = fit(&x, &y, classes.len(), method, standardised)?;
        let counts = (0..classes.len()).map(|c| y.iter().filter(|own| **own == c).count());
        let counts = counts.collect();
        Ok(Probe { method, classes, counts, weights: fitted.weights, bias: fitted.bias })
    }

    /// A score for each class, `[.., D]` -> `[.., classes]`, f64: the largest is the prediction. For
    /// [`ProbeMethod::Logistic`] and [`ProbeMethod::Lda`] their softmax is the probability.
    pub fn scores(&self, x: &Tensor) -> Result<Tensor> {
        let d = self.weights.size()[1];
        ensure!(
            x.size().last() == Some(&d),
            "probe: the vectors are {:?}, expected [.., {d}]",
            x.size()
        );
        Ok(scores(&x.detach().to_device(Device::Cpu), &self.weights, &self.bias))
    }

    /// The class of each row of `x [n, D]`.
    pub fn predict(&self, x: &Tensor) -> Result<Vec<String>> {
        let best = Vec::<i64>::try_from(self.scores(x)?.argmax(-1, false).flatten(0, -1))?;
        Ok(best.into_iter().map(|class| self.classes[class as usize].clone()).collect())
    }

    /// Share of the rows of `x [n, D]` whose class is their label's.
    pub fn accuracy(&self, x: &Tensor, labels: &[impl AsRef<str>]) -> Result<f64> {
        let found = self.predict(x)?;
        ensure!(
            found.len() == labels.len() && !found.is_empty(),
            "probe: {} labels for {} vectors",
            labels.len(),
            found.len()
        );
        let right = found.iter().zip(labels).filter(|(own, label)| *own == label.as_ref()).count();
        Ok(right as f64 / found.len() as f64)
    }

    /// The direction along which the score of class `to` gains on that of `from`, `[D]`, f64: to
    /// ablate, or to steer with.
    pub fn direction(&self, from: &str, to: &str) -> Result<Tensor> {
        let find = |class: &str| {
            let found = self.classes.iter().position(|own| own == class);
            found.with_context(|| {
                format!("probe: no class {class:?}; it has {}", self.classes.join(", "))
            })
        };
        let (from, to) = (find(from)? as i64, find(to)? as i64);
        ensure!(from != to, "probe: a direction leads from one class to another");
        let each = all_rows(&self.weights);
        Ok(each.get(to) - each.get(from))
    }
}

/// Weights `[1 or C, D]` and bias of a fit.
struct Fitted {
    weights: Tensor,
    bias: Tensor,
}

/// Fits rows `x [n, D]` (f64) whose classes are numbered `0..classes`, each present.
fn fit(
    x: &Tensor,
    y: &[usize],
    classes: usize,
    method: ProbeMethod,
    standardised: bool,
) -> Result<Fitted> {
    let over_rows = [0i64];
    let mean = x.mean_dim(over_rows.as_slice(), false, None);
    let centred = x - &mean;
    let scale = standardised.then(|| {
        let deviation = centred.square().mean_dim(over_rows.as_slice(), false, None).sqrt();
        let constant = deviation.le(1e-12);
        deviation.masked_fill(&constant, 1.0)
    });
    let own = match &scale {
        Some(scale) => &centred / scale,
        None => centred,
    };
    let found = match method {
        ProbeMethod::MeanDifference => closed::mean_difference(&own, y, classes),
        ProbeMethod::Lda { shrinkage } => closed::lda(&own, y, classes, shrinkage)?,
        ProbeMethod::Ridge { alpha } => closed::ridge(&own, y, classes, alpha)?,
        ProbeMethod::Logistic { l2 } => logistic::fit(&own, y, classes, l2)?,
    };
    let weights = match scale {
        Some(scale) => found.weights / scale,
        None => found.weights,
    };
    let bias = found.bias - weights.matmul(&mean);
    Ok(Fitted { weights, bias })
}

/// `[.., classes]`.
fn scores(x: &Tensor, weights: &Tensor, bias: &Tensor) -> Tensor {
    let each = x.to_kind(Kind::Double).matmul(&weights.tr()) + bias;
    match weights.size()[0] {
        1 => Tensor::cat(&[each.zeros_like(), each], -1),
        _ => each,
    }
}

/// One row a class, of two classes too.
fn all_rows(weights: &Tensor) -> Tensor {
    match weights.size()[0] {
        1 => Tensor::cat(&[weights.zeros_like(), weights.shallow_clone()], 0),
        _ => weights.shallow_clone(),
    }
}

/// The different labels, sorted, and the number of each example's.
fn numbered(labels: &[impl AsRef<str>]) -> (Vec<String>, Vec<usize>) {
    let mut names: Vec<String> = labels.iter().map(|label| label.as_ref().to_owned()).collect();
    names.sort_unstable();
    names.dedup();
    let find = |label: &str| names.partition_point(|name| name.as_str() < label);
    let numbers = labels.iter().map(|label| find(label.as_ref())).collect();
    (names, numbers)
}

/// Rows of one class.
fn rows_of(x: &Tensor, y: &[usize], class: usize) -> Tensor {
    let own = y.iter().enumerate().filter(|(_, own)| **own == class).map(|(row, _)| row as i64);
    x.index_select(0, &Tensor::from_slice(&own.collect::<Vec<_>>()))
}
