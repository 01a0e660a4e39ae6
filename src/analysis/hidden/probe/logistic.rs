//! Logistic regression with an L2 penalty, by Newton's method.
//!
//! Each step solves `H s = -g` by conjugate gradients, which ask for products with `H` only
//! (Dembo & Steihaug 1983, "Truncated-Newton algorithms for large-scale unconstrained optimization"),
//! and is halved until the loss falls.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use super::Fitted;

/// Steps after which a fit has failed; it takes about ten.
const STEPS: usize = 100;
/// By how much a step may raise the loss, as a share of it: what rounding makes of none.
const ROUNDING: f64 = 1e-13;
/// The gradient's norm at the end, as a share of that at the start.
const SMALL: f64 = 1e-10;

/// Fits rows `x [n, D]` of mean 0, in the classes `y`.
pub(super) fn fit(x: &Tensor, y: &[usize], classes: usize, l2: f64) -> Result<Fitted> {
    ensure!(l2.is_finite() && l2 >= 0.0, "probe: logistic with l2 {l2}, expected 0 or more");
    let (n, d) = (x.size()[0], x.size()[1]);
    // The penalised optimum lies in the span of the rows: with fewer rows than dimensions, look
    // for it there.
    let (x, back) = if n < d {
        let (u, s, v) = x.f_svd(true, true)?;
        (u * s, Some(v))
    } else {
        (x.shallow_clone(), None)
    };
    let problem = Problem::new(&x, y, classes, l2);
    let theta = problem.solve()?;
    ensure!(
        l2 > 0.0 || !problem.all_right(&theta),
        "probe: the classes can be told apart without error, so that the logistic fit has no end: \
         give an l2 above 0"
    );
    let width = x.size()[1];
    let weights = theta.narrow(1, 0, width);
    let weights = match back {
        Some(v) => weights.matmul(&v.tr()),
        None => weights.contiguous(),
    };
    Ok(Fitted { weights, bias: theta.select(1, width).contiguous() })
}

/// The loss of parameters `[K, D + 1]`, the intercept last: one row for two classes.
struct Problem {
    /// `[n, D + 1]`, ones last.
    x: Tensor,
    /// `[n, K]`.
    targets: Tensor,
    /// `l2`, and 0 for the intercept: `[D + 1]`.
    penalty: Tensor,
}

impl Problem {
    fn new(x: &Tensor, y: &[usize], classes: usize, l2: f64) -> Self {
        let (n, d) = (x.size()[0], x.size()[1]);
        let options = (Kind::Double, x.device());
        let first = if classes == 2 { 1 } else { 0 };
        let target = |c: usize| y.iter().map(|own| f64::from(u8::from(*own == c))).collect();
        let targets: Vec<Vec<f64>> = (first..classes).map(target).collect();
        let penalty =
            Tensor::cat(&[Tensor::full([d], l2, options), Tensor::zeros([1], options)], 0);
        Problem {
            x: Tensor::cat(&[x.shallow_clone(), Tensor::ones([n, 1], options)], 1),
            targets: Tensor::from_slice2(&targets).tr().contiguous(),
            penalty,
        }
    }

    fn logits(&self, theta: &Tensor) -> Tensor {
        self.x.matmul(&theta.tr())
    }

    /// Whether every example is put in its class.
    fn all_right(&self, theta: &Tensor) -> bool {
        let logits = self.logits(theta);
        let wrong = match self.two() {
            true => (logits * (&self.targets * 2.0 - 1.0)).le(0.0),
            false => logits.argmax(1, false).ne_tensor(&self.targets.argmax(1, false)),
        };
        wrong.sum(Kind::Int64).int64_value(&[]) == 0
    }

    fn two(&self) -> bool {
        self.targets.size()[1] == 1
    }

    fn loss(&self, theta: &Tensor) -> f64 {
        let logits = self.logits(theta);
        let own = (&self.targets * &logits).sum(Kind::Double);
        let all = match self.two() {
            true => logits.softplus().sum(Kind::Double),
            false => logits.logsumexp([1i64].as_slice(), false).sum(Kind::Double),
        };
        let penalty = (theta.square() * &self.penalty).sum(Kind::Double) * 0.5;
        (all - own + penalty).double_value(&[])
    }

    fn probabilities(&self, theta: &Tensor) -> Tensor {
        let logits = self.logits(theta);
        if self.two() { logits.sigmoid() } else { logits.softmax(1, Kind::Double) }
    }

    fn gradient(&self, theta: &Tensor, p: &Tensor) -> Tensor {
        (p - &self.targets).tr().matmul(&self.x) + theta * &self.penalty
    }

    /// The Hessian times `v`.
    fn curvature(&self, p: &Tensor, v: &Tensor) -> Tensor {
        let moved = self.logits(v);
        let spread = match self.two() {
            true => p * (1.0 - p) * moved,
            false => {
                let mean = (p * &moved).sum_dim_intlist([1i64].as_slice(), true, None);
                p * (moved - mean)
            }
        };
        spread.tr().matmul(&self.x) + v * &self.penalty
    }

    fn solve(&self) -> Result<Tensor> {
        let shape = [self.targets.size()[1], self.x.size()[1]];
        let mut theta = Tensor::zeros(shape, (Kind::Double, self.x.device()));
        let mut loss = self.loss(&theta);
        let mut goal = 0.0;
        for step in 0..STEPS {
            let p = self.probabilities(&theta);
            let gradient = self.gradient(&theta, &p);
            let size = norm(&gradient);
            if step == 0 {
                goal = SMALL * size.max(f64::MIN_POSITIVE);
            }
            if size <= goal {
                return Ok(theta);
            }
            let near = (size * SMALL / goal).sqrt().min(0.1);
            let direction = self.newton_step(&p, &gradient, near * size);
            let slope = dot(&direction, &gradient);
            let mut length = 1.0;
            loop {
                let next = &theta + &direction * length;
                let found = self.loss(&next);
                if found <= loss + 1e-4 * length * slope + ROUNDING * (1.0 + loss.abs()) {
                    (theta, loss) = (next, found);
                    break;
                }
                length *= 0.5;
                ensure!(length > 1e-10, "{}", stuck(size));
            }
        }
        anyhow::bail!("{}", stuck(norm(&self.gradient(&theta, &self.probabilities(&theta)))))
    }

    /// Conjugate gradients on `H s = -g`, until what is left of it is no longer than `enough`.
    fn newton_step(&self, p: &Tensor, gradient: &Tensor, enough: f64) -> Tensor {
        let mut step = gradient.zeros_like();
        let mut residual = -gradient;
        let mut along = residual.copy();
        let mut square = dot(&residual, &residual);
        for _ in 0..10 * gradient.numel() {
            if square.sqrt() <= enough {
                break;
            }
            let curved = self.curvature(p, &along);
            let bend = dot(&along, &curved);
            if bend <= f64::MIN_POSITIVE {
                break;
            }
            let length = square / bend;
            step += &along * length;
            residual -= curved * length;
            let next = dot(&residual, &residual);
            along = &residual + along * (next / square);
            square = next;
        }
        step
    }
}

fn stuck(size: f64) -> String {
    format!(
        "probe: the logistic fit stopped at a gradient of {size:.1e}: give a larger l2, or standardise"
    )
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    (a * b).sum(Kind::Double).double_value(&[])
}

fn norm(a: &Tensor) -> f64 {
    dot(a, a).sqrt()
}
