//! Probes in closed form, of rows whose mean is 0.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use super::{Fitted, rows_of};

/// The classes' means, `[C, D]`.
fn means(x: &Tensor, y: &[usize], classes: usize) -> Tensor {
    let each = (0..classes).map(|c| rows_of(x, y, c).mean_dim([0i64].as_slice(), false, None));
    Tensor::stack(&each.collect::<Vec<_>>(), 0)
}

/// Of two classes the second less the first, else as they are.
fn of_two(each: Fitted) -> Fitted {
    match each.weights.size()[0] {
        2 => Fitted {
            weights: (each.weights.get(1) - each.weights.get(0)).unsqueeze(0),
            bias: (each.bias.get(1) - each.bias.get(0)).unsqueeze(0),
        },
        _ => each,
    }
}

fn solve(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(Tensor::f_linalg_solve(a, b, true)?)
}

fn sum_last(x: Tensor) -> Tensor {
    x.sum_dim_intlist([-1i64].as_slice(), false, None)
}

/// The nearest mean: `m · x - |m|²/2`.
pub(super) fn mean_difference(x: &Tensor, y: &[usize], classes: usize) -> Fitted {
    let weights = means(x, y, classes);
    let bias = sum_last(weights.square()) * -0.5;
    of_two(Fitted { weights, bias })
}

/// `S⁻¹ m · x - m S⁻¹ m / 2 + ln prior`, `S` the covariance within classes.
pub(super) fn lda(x: &Tensor, y: &[usize], classes: usize, shrinkage: f64) -> Result<Fitted> {
    ensure!(
        (0.0..=1.0).contains(&shrinkage),
        "probe: LDA with shrinkage {shrinkage}, expected a number in 0..=1"
    );
    let (n, d) = (x.size()[0], x.size()[1]);
    let means = means(x, y, classes);
    let numbers = Tensor::from_slice(&y.iter().map(|c| *c as i64).collect::<Vec<_>>());
    let within = x - means.index_select(0, &numbers);
    let covariance = within.tr().matmul(&within) / n as f64;
    let level = covariance.trace().double_value(&[]) / d as f64;
    ensure!(level > 0.0, "probe: LDA: every example is its class's mean, so nothing varies");
    let shrunk = covariance * (1.0 - shrinkage)
        + Tensor::eye(d, (Kind::Double, x.device())) * (shrinkage * level);
    let smallest = shrunk.linalg_eigvalsh("L").get(0).double_value(&[]);
    ensure!(
        smallest > 1e-12 * level,
        "probe: LDA of {n} examples in {d} dimensions: their covariance is singular; give a shrinkage \
         above {shrinkage}"
    );
    let weights = solve(&shrunk, &means.tr())?.tr();
    let counts = numbers.bincount::<Tensor>(None, classes as i64).to_kind(Kind::Double);
    let bias = sum_last(&weights * &means) * -0.5 + (counts / n as f64).log();
    Ok(of_two(Fitted { weights, bias }))
}

/// `(XᵀX + alpha I)⁻¹ Xᵀ t`, targets less their mean; by the smaller of `XᵀX` and `XXᵀ`.
pub(super) fn ridge(x: &Tensor, y: &[usize], classes: usize, alpha: f64) -> Result<Fitted> {
    let (n, d) = (x.size()[0], x.size()[1]);
    ensure!(
        alpha.is_finite() && (alpha > 0.0 || alpha == 0.0 && n > d),
        "probe: ridge with alpha {alpha} on {n} examples in {d} dimensions, expected a positive number"
    );
    let first = if classes == 2 { 1 } else { 0 };
    let target = |c: usize| y.iter().map(|own| if *own == c { 1.0 } else { -1.0 }).collect();
    let targets: Vec<Vec<f64>> = (first..classes).map(target).collect();
    let targets = Tensor::from_slice2(&targets).tr(); // [n, K]
    let bias = targets.mean_dim([0i64].as_slice(), false, None);
    let centred = targets - &bias;
    let eye = |k: i64| Tensor::eye(k, (Kind::Double, x.device())) * alpha;
    let weights = if d <= n {
        solve(&(x.tr().matmul(x) + eye(d)), &x.tr().matmul(&centred))?
    } else {
        x.tr().matmul(&solve(&(x.matmul(&x.tr()) + eye(n)), &centred)?)
    };
    Ok(Fitted { weights: weights.tr(), bias })
}
