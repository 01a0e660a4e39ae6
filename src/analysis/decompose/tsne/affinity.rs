//! Who is a neighbour of whom, as probabilities.

use std::fmt;

use anyhow::{Result, ensure};
use tch::{Device, Kind, Tensor};

use super::threads::{by_rows, usual_threads};
use super::{flat, tree::Tree};
use crate::analysis::cluster::Items;
use crate::analysis::decompose::neighbors::nearest;

/// How near the entropy of a row comes to that of the perplexity, in nats.
const TOLERANCE: f64 = 1e-10;

/// Probabilities `p[i, j]` that i and j are neighbours, symmetric, summing to 1: Gaussians around each
/// point, as wide as gives the perplexity, made symmetric. Only the nearest `3 * perplexity` of each
/// point have a part, unless all were asked for.
#[derive(Clone, PartialEq)]
pub struct Affinities {
    perplexity: f64,
    /// Entries of row `i` are `rows[i]..rows[i + 1]`.
    rows: Vec<usize>,
    columns: Vec<u32>,
    values: Vec<f64>,
    found: Vec<f64>,
    threads: usize,
}

impl fmt::Debug for Affinities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (n, pairs) = (self.len(), self.values.len());
        write!(f, "affinities of {n} points at perplexity {}: {pairs} pairs", self.perplexity)
    }
}

impl Affinities {
    /// Affinities among items, or the rows of a tensor, each to its `3 * perplexity` nearest.
    pub fn of(items: impl Into<Items>, perplexity: f64) -> Result<Self> {
        Self::among(&items.into().checked("tsne")?, perplexity, false, usual_threads())
    }

    /// Affinities of each item to all others: `12 n²` bytes.
    ///
    /// ```
    /// use thalweg::{Affinities, rng::Rng};
    /// let p = Affinities::exact(&Rng::new(0).normal_tensor(&[20, 3]), 5.0)?;
    /// assert!((p.dense().sum(None).double_value(&[]) - 1.0).abs() < 1e-12);
    /// # thalweg::anyhow::Ok(())
    /// ```
    pub fn exact(items: impl Into<Items>, perplexity: f64) -> Result<Self> {
        Self::among(&items.into().checked("tsne")?, perplexity, true, usual_threads())
    }

    pub(super) fn among(x: &Tensor, perplexity: f64, all: bool, threads: usize) -> Result<Self> {
        let n = x.size()[0] as usize;
        ensure!(
            n >= 3 && perplexity >= 1.0 && perplexity < (n - 1) as f64,
            "tsne: perplexity {perplexity} of {n} points, expected 1 to less than {}",
            n.saturating_sub(1)
        );
        let few = (3.0 * perplexity) as usize + 1;
        let k = if all { n - 1 } else { few.min(n - 1) };
        let (indices, distances) = nearest(x, k as i64);
        let indices = Vec::<i64>::try_from(indices.contiguous().view([-1]))?;
        let distances = Vec::<f64>::try_from(distances.contiguous().view([-1]))?;
        // One row: the probabilities, then the perplexity found.
        let mut out = vec![0.0; n * (k + 1)];
        by_rows(threads, &mut out, k + 1, |first, rows| {
            for (i, row) in rows.chunks_mut(k + 1).enumerate() {
                let own = &distances[(first + i) * k..(first + i + 1) * k];
                let (values, found) = row.split_at_mut(k);
                found[0] = conditional(own, perplexity.ln(), values).exp();
            }
        });
        let found = out.iter().skip(k).step_by(k + 1).copied().collect();
        let (rows, columns, values) = symmetric(n, k, &indices, &out);
        Ok(Affinities { perplexity, rows, columns, values, found, threads })
    }

    /// Number of points.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// True of no points.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The perplexity asked for.
    pub fn perplexity(&self) -> f64 {
        self.perplexity
    }

    /// The perplexity of each point's own Gaussian as found; less than asked for where more points
    /// lie on one spot than the perplexity.
    pub fn perplexities(&self) -> &[f64] {
        &self.found
    }

    /// All probabilities, `[n, n]`, f64.
    pub fn dense(&self) -> Tensor {
        let n = self.len();
        let mut all = vec![0.0; n * n];
        for i in 0..n {
            self.row(i).for_each(|(j, p)| all[i * n + j] = p);
        }
        Tensor::from_slice(&all).view([n as i64, n as i64])
    }

    /// Kullback-Leibler divergence of a picture `[n, 2]` from these affinities, in nats, over all
    /// pairs.
    pub fn kl(&self, picture: &Tensor) -> Result<f64> {
        Ok(self.kl_by(&flat(picture, self.len())?, 0.0))
    }

    /// Gradient of [`kl`](Self::kl), `[n, 2]`, with groups of points taken as one where they are `theta` times
    /// as wide as far; 0 is exact.
    pub fn gradient(&self, picture: &Tensor, theta: f64) -> Result<Tensor> {
        let points = flat(picture, self.len())?;
        let mut forces = Vec::new();
        let z = self.forces(&points, theta, 1.0, &mut forces);
        let gradient: Vec<f64> = forces.chunks(5).flat_map(|f| gradient(f, z)).collect();
        Ok(Tensor::from_slice(&gradient).view([-1, 2]).to_device(Device::Cpu).to_kind(Kind::Double))
    }

    pub(super) fn kl_by(&self, points: &[f64], theta: f64) -> f64 {
        let mut forces = Vec::new();
        let z = self.forces(points, theta, 1.0, &mut forces);
        self.kl_given(points, z)
    }

    /// The divergence, given the sum over all pairs of `1 / (1 + d²)`.
    pub(super) fn kl_given(&self, points: &[f64], z: f64) -> f64 {
        let mut terms = vec![0.0; self.len()];
        by_rows(self.threads, &mut terms, 1, |first, terms| {
            for (i, term) in terms.iter_mut().enumerate() {
                let i = first + i;
                let near = |(j, p): (usize, f64)| {
                    let (x, y) =
                        (points[2 * i] - points[2 * j], points[2 * i + 1] - points[2 * j + 1]);
                    p * (p * (1.0 + x * x + y * y) * z).ln()
                };
                *term = self.row(i).filter(|(_, p)| *p > 0.0).map(near).sum();
            }
        });
        terms.iter().sum()
    }

    /// For each point attraction (x, y), repulsion (x, y) and its share of the sum over all pairs of
    /// `1 / (1 + d²)`, which is returned: five numbers a point.
    pub(super) fn forces(
        &self,
        points: &[f64],
        theta: f64,
        exaggeration: f64,
        out: &mut Vec<f64>,
    ) -> f64 {
        out.resize(5 * self.len(), 0.0);
        let tree = Tree::new(points, theta);
        by_rows(self.threads, out, 5, |first, rows| {
            for (i, row) in rows.chunks_mut(5).enumerate() {
                let i = first + i;
                let (px, py) = (points[2 * i], points[2 * i + 1]);
                let (mut ax, mut ay) = (0.0, 0.0);
                for (j, p) in self.row(i) {
                    let (x, y) = (px - points[2 * j], py - points[2 * j + 1]);
                    let pull = p / (1.0 + x * x + y * y);
                    ax += pull * x;
                    ay += pull * y;
                }
                let (rx, ry, z) = tree.repulsion(px, py);
                row.copy_from_slice(&[exaggeration * ax, exaggeration * ay, rx, ry, z]);
            }
        });
        out.chunks(5).map(|row| row[4]).sum()
    }

    fn row(&self, i: usize) -> impl Iterator<Item = (usize, f64)> + '_ {
        let own = self.rows[i]..self.rows[i + 1];
        let columns = self.columns[own.clone()].iter().map(|j| *j as usize);
        columns.zip(self.values[own].iter().copied())
    }
}

/// The gradient at a point from its five numbers and their common sum.
pub(super) fn gradient(forces: &[f64], z: f64) -> [f64; 2] {
    [4.0 * (forces[0] - forces[2] / z), 4.0 * (forces[1] - forces[3] / z)]
}

/// Fills in `p[j] ∝ exp(-beta d²[j])` with the beta whose entropy is `wanted`, by bisection; gives the
/// entropy found.
fn conditional(distances: &[f64], wanted: f64, p: &mut [f64]) -> f64 {
    // Only differences count; the nearest at 0 keeps the sum away from underflow.
    let least = distances.iter().copied().fold(f64::INFINITY, f64::min);
    let mean = distances.iter().map(|d| d - least).sum::<f64>() / distances.len() as f64;
    let (mut low, mut high) = (0.0, f64::INFINITY);
    let mut beta = if mean > 0.0 { 1.0 / mean } else { 1.0 };
    let mut entropy = 0.0;
    for _ in 0..200 {
        let (mut sum, mut weighted) = (0.0, 0.0);
        for (p, d) in p.iter_mut().zip(distances) {
            *p = (-beta * (d - least)).exp();
            sum += *p;
            weighted += *p * (d - least);
        }
        entropy = sum.ln() + beta * weighted / sum;
        p.iter_mut().for_each(|p| *p /= sum);
        if (entropy - wanted).abs() < TOLERANCE {
            break;
        }
        (low, high) = if entropy > wanted { (beta, high) } else { (low, beta) };
        beta = if high.is_finite() { (low + high) / 2.0 } else { 2.0 * beta };
    }
    entropy
}

/// `(p[j | i] + p[i | j]) / 2n` in rows of ascending columns, from rows of `k` probabilities and one
/// number more.
fn symmetric(n: usize, k: usize, indices: &[i64], p: &[f64]) -> (Vec<usize>, Vec<u32>, Vec<f64>) {
    let mut lists: Vec<Vec<(u32, f64)>> = (0..n).map(|_| Vec::with_capacity(2 * k)).collect();
    for i in 0..n {
        for (j, p) in indices[i * k..(i + 1) * k].iter().zip(&p[i * (k + 1)..]) {
            lists[i].push((*j as u32, *p));
            lists[*j as usize].push((i as u32, *p));
        }
    }
    let (mut rows, mut columns, mut values) = (vec![0], Vec::new(), Vec::new());
    for mut list in lists {
        list.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        for (j, p) in list {
            match columns.last() {
                Some(last) if columns.len() > rows[rows.len() - 1] && *last == j => {
                    if let Some(value) = values.last_mut() {
                        *value += p;
                    }
                }
                _ => {
                    columns.push(j);
                    values.push(p);
                }
            }
        }
        rows.push(columns.len());
    }
    let sum: f64 = values.iter().sum();
    values.iter_mut().for_each(|p| *p /= sum);
    (rows, columns, values)
}
