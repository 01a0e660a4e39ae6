//! Waves on a circle of numbers, of which a network that adds modulo n makes its answer.
//!
//! Nanda, Chan, Lieberum, Smith and Steinhardt 2023, "Progress measures for grokking via mechanistic
//! interpretability", <https://arxiv.org/abs/2301.05217>. A function of the numbers 0 .. n - 1 is a
//! constant plus, for each frequency k from 1 to n / 2, a cosine and a sine of 2πk a / n.

use anyhow::{Result, ensure};
use ndarray::{Array1, Array2};
use tch::{Device, Kind, Tensor};

use crate::grid::{Grid, GridAxis};
use crate::hook::site::Axis;

/// Squares this small beside all of them are what rounding leaves of nothing.
const ROUNDING: f64 = 1e-24;

/// Amplitudes of the waves that the columns of `x [n, D]` are made of, row a being about the number
/// a: `[Frequency, Feature]`, in the unit of `x`, rows `constant`, `cos 1`, `sin 1`, `cos 2` ... The
/// waves are orthonormal, so that squares add up to those of `x`.
///
/// ```
/// use thalweg::{fourier, tch::Tensor};
/// let x = Tensor::from_slice(&[1.0, 0.0, -1.0, 0.0]).view([4, 1]); // a cosine of frequency 1
/// let found = fourier(&x)?;
/// assert!((found.get(&["cos 1", "0"])? - 2f64.sqrt()).abs() < 1e-12);
/// assert!(found.get(&["sin 1", "0"])?.abs() < 1e-12);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn fourier(x: &Tensor) -> Result<Grid> {
    let [n, _] = rows(x, "fourier")?;
    let (basis, names) = waves(n);
    let found = basis.matmul(&x.detach().to_device(Device::Cpu).to_kind(Kind::Double));
    let columns = (0..found.size()[1]).map(|i| i.to_string()).collect();
    let axes = [(Axis::Frequency, names), (Axis::Feature, columns)];
    Ok(Grid::from_tensor(&found, &axes, "amplitude")?.name("Fourier transform over the numbers"))
}

/// Share of the squares of `x [n, D]`, less each column's mean, that each frequency holds:
/// `[Frequency]`, labelled 1 .. n / 2, together 1. Row a is about the number a.
///
/// ```
/// use thalweg::{fourier_power, tch::{Kind, Tensor}};
/// let angle = Tensor::arange(7, (Kind::Double, thalweg::tch::Device::Cpu)) * (std::f64::consts::TAU * 3.0 / 7.0);
/// let ring = Tensor::stack(&[angle.cos(), angle.sin()], 1); // turns three times
/// assert!((fourier_power(&ring)?.get(&["3"])? - 1.0).abs() < 1e-12);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn fourier_power(x: &Tensor) -> Result<Grid> {
    let [n, _] = rows(x, "fourier_power")?;
    let found = fourier(x)?;
    let mut power = Array1::<f64>::zeros(n / 2);
    for (index, amplitude) in found.present().filter(|(index, _)| index[0] > 0) {
        power[(index[0] - 1) / 2] += amplitude * amplitude;
    }
    let (total, all) = (power.sum(), found.values.mapv(|v| v * v).sum());
    ensure!(
        total > ROUNDING * all,
        "fourier_power: all {n} rows are the same, there is nothing to share out"
    );
    let labels: Vec<String> = (1..=n / 2).map(|k| k.to_string()).collect();
    Grid::from_array(power / total, &[Axis::Frequency], "share of squares")?
        .relabel(Axis::Frequency, &labels)
        .map(|grid| grid.name("power of each frequency"))
}

/// The fewest frequencies that together hold `share` of the power, strongest first, from
/// [`fourier_power`].
pub fn key_frequencies(power: &Grid, share: f64) -> Result<Vec<usize>> {
    ensure!((0.0..=1.0).contains(&share), "a share of {share}: expected 0 to 1");
    power.place(Axis::Frequency)?;
    ensure!(power.axes.len() == 1, "key_frequencies: axes are {}", power.axes_text());
    let mut all: Vec<(usize, f64)> =
        power.present().map(|(index, value)| (index[0] + 1, value)).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    let wanted = share * all.iter().map(|(_, value)| value).sum::<f64>() - 1e-9;
    let mut found = Vec::new();
    let mut held = 0.0;
    for (frequency, value) in all {
        if held >= wanted {
            break;
        }
        held += value;
        found.push(frequency);
    }
    Ok(found)
}

/// The part of `x [n, n, ..]` that is waves of these frequencies in the sum of its first two
/// indices: `x[a, b]` projected onto cos and sin of 2πk (a + b) / n, in f64. Of logits, what is left
/// without it gives the excluded loss of the paper, and the part itself, with the mean over a and b,
/// the restricted one.
pub fn sum_waves(x: &Tensor, frequencies: &[usize]) -> Result<Tensor> {
    let n = square(x, "sum_waves")?;
    if let Some(odd) = frequencies.iter().find(|k| !(1..=n / 2).contains(*k)) {
        anyhow::bail!("sum_waves: no frequency {odd} among {n} numbers: expected 1 to {}", n / 2);
    }
    let (basis, _) = waves(n);
    let chosen: Vec<i64> =
        (1..n as i64).filter(|row| frequencies.contains(&((*row as usize - 1) / 2 + 1))).collect();
    let basis = basis.index_select(0, &Tensor::from_slice(&chosen)) / (n as f64).sqrt();
    let numbers = Tensor::arange(n as i64, (Kind::Int64, Device::Cpu));
    let sums = (numbers.unsqueeze(1) + numbers).remainder(n as i64).flatten(0, 1);
    let basis = basis.index_select(1, &sums); // [waves, n * n], orthonormal rows
    let flat = x.detach().to_device(Device::Cpu).to_kind(Kind::Double).flatten(0, 1);
    let flat = flat.reshape([(n * n) as i64, -1]);
    Ok(basis.tr().matmul(&basis.matmul(&flat)).reshape(x.size()))
}

/// How far logits `[n, n, n]` of c after a and b depend on c - a - b alone, as they do where each is
/// a sum of cosines of 2πk (a + b - c) / n.
#[derive(Debug, Clone)]
pub struct SumProfile {
    /// Mean logit by (c - a - b) mod n, each question's own mean taken off: `[Step]`.
    pub profile: Grid,
    /// Share of the logits' variance within questions that the profile explains, 0..1.
    pub explained: f64,
}

/// The [`SumProfile`] of logits `[n, n, n]`: `x[a, b, c]`.
pub fn sum_profile(x: &Tensor) -> Result<SumProfile> {
    let n = square(x, "sum_profile")?;
    ensure!(x.size() == [n as i64; 3], "sum_profile: {:?}, expected [n, n, n]", x.size());
    let raw = x.detach().to_device(Device::Cpu).to_kind(Kind::Double);
    let x = &raw - raw.mean_dim(-1, true, None);
    let flat = Vec::<f64>::try_from(x.flatten(0, -1))?;
    let mut mean = vec![0.0; n];
    for (i, value) in flat.iter().enumerate() {
        let (a, b, c) = (i / (n * n), i / n % n, i % n);
        mean[(c + 2 * n - a - b) % n] += value / (n * n) as f64;
    }
    let total: f64 = flat.iter().map(|value| value * value).sum();
    let all = raw.square().sum(Kind::Double).double_value(&[]);
    ensure!(total > ROUNDING * all, "sum_profile: every answer has the same logit");
    let explained = mean.iter().map(|m| m * m).sum::<f64>() * (n * n) as f64 / total;
    let labels = (0..n).map(|d| d.to_string()).collect();
    let axes = vec![GridAxis { axis: Axis::Step, labels }];
    let profile =
        Grid::new(ndarray::arr1(&mean).into_dyn(), axes, "logit")?.name("mean logit by c - a - b");
    Ok(SumProfile { profile, explained })
}

/// The orthonormal waves on 0 .. n, one a row, and their names.
fn waves(n: usize) -> (Tensor, Vec<String>) {
    let mut names = vec!["constant".to_owned()];
    for k in 1..=n / 2 {
        names.push(format!("cos {k}"));
        if 2 * k < n {
            names.push(format!("sin {k}"));
        }
    }
    let wave = |(row, a): (usize, usize)| {
        let k = row.div_ceil(2);
        let angle = std::f64::consts::TAU * ((k * a) % n) as f64 / n as f64;
        let size = if row == 0 || 2 * k == n { 1.0 } else { 2.0 };
        (size / n as f64).sqrt() * if row % 2 == 1 || row == 0 { angle.cos() } else { angle.sin() }
    };
    let values: Array2<f64> = Array2::from_shape_fn((n, n), wave);
    let flat: Vec<f64> = values.into_iter().collect();
    (Tensor::from_slice(&flat).view([n as i64; 2]), names)
}

fn rows(x: &Tensor, what: &str) -> Result<[usize; 2]> {
    let size = x.size();
    ensure!(
        matches!(size[..], [n, d] if n > 1 && d > 0),
        "{what}: {size:?}, expected [n, D], a row for each number"
    );
    Ok([size[0] as usize, size[1] as usize])
}

fn square(x: &Tensor, what: &str) -> Result<usize> {
    let size = x.size();
    ensure!(
        size.len() >= 2 && size[0] == size[1] && size[0] > 1,
        "{what}: {size:?}, expected [n, n, ..], a cell for each pair of numbers"
    );
    Ok(size[0] as usize)
}
