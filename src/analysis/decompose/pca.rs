//! Principal components of activations.
//!
//! Pearson 1901, "On lines and planes of closest fit"; computed as by Jolliffe and Cadima 2016,
//! <https://doi.org/10.1098/rsta.2015.0202>: singular values of the centred data, or eigenvalues of
//! its covariance where there are more points than dimensions, by libtorch in f64.
//!
//! Signs are arbitrary in the mathematics and fixed here: the largest loading of each component is
//! positive. Variance ratios are over the total variance, not over that of the components kept.

use std::fmt;

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use crate::analysis::frame;
use crate::grid::Grid;
use crate::hook::cache::Cache;
use crate::hook::site::{Axis, Site};

use super::covariance::second_moments;

/// Principal components of a set of vectors.
pub struct Pca {
    /// Coordinates of each vector: `[Pos, Pc]` for one prompt, `[Series, Pc]` for several, labelled
    /// by token; the labels of `Pc` state the share of variance. `scatter` takes it.
    pub scores: Grid,
    /// Share of the total variance that each component explains, 0..1: `[Pc]`.
    pub explained: Grid,
    /// Variance along each component: `[Pc]`, in the activation's unit squared.
    pub variance: Grid,
    /// Directions, orthonormal, `[Pc, D]`, f64.
    pub components: Tensor,
    /// What was subtracted, `[D]`, f64.
    pub mean: Tensor,
    /// Variance summed over all dimensions.
    pub total: f64,
}

impl Clone for Pca {
    fn clone(&self) -> Self {
        Pca {
            scores: self.scores.clone(),
            explained: self.explained.clone(),
            variance: self.variance.clone(),
            components: self.components.shallow_clone(),
            mean: self.mean.shallow_clone(),
            total: self.total,
        }
    }
}

/// One line: what was decomposed, and the share of variance of each component.
impl fmt::Debug for Pca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shares = self.explained.values.iter().map(|share| format!("{:.1} %", 100.0 * share));
        let rows = self.scores.shape()[0].to_string();
        let points = self.scores.provenance.get("points").unwrap_or(&rows);
        let d = self.mean.size()[0];
        let shares = shares.collect::<Vec<_>>().join(", ");
        write!(f, "{}: {points} points in {d} dimensions, {shares} of variance", self.scores.name)
    }
}

impl Pca {
    /// Coordinates of other vectors, `[.., D]` -> `[.., Pc]`, f64.
    pub fn transform(&self, x: &Tensor) -> Result<Tensor> {
        let d = self.mean.size()[0];
        ensure!(x.size().last() == Some(&d), "the vectors are {:?}, expected [.., {d}]", x.size());
        Ok((x.to_kind(Kind::Double) - &self.mean).matmul(&self.components.tr()))
    }
}

/// The first `k` principal components of an activation whose axes are `[Batch, Pos, ..]`, one vector
/// for each token of each prompt; a head's axes are joined into one. Padding and each prompt's
/// first token are left out: the first token is an attention sink far from all others, and alone
/// would be the first component.
///
/// ```no_run
/// use thalweg::{Model, Plan, Point, pca};
/// let model = Model::load("data/models/tiny-world")?;
/// let run = model.run(&model.tokens("Mary and John went to the store")?, &Plan::new().cache(Point::ResidPost))?;
/// let pca = pca(&run.cache, Point::ResidPost.at(2), 2)?;
/// assert!(pca.explained.values.sum() <= 1.0 + 1e-9);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn pca(cache: &Cache, site: impl Into<Site>, k: usize) -> Result<Pca> {
    pca_from(cache, site, k, 1)
}

/// [`pca`] without the first `first` tokens of each prompt; 0 keeps all.
pub fn pca_from(cache: &Cache, site: impl Into<Site>, k: usize, first: usize) -> Result<Pca> {
    let site = site.into();
    let tokens = cache.tokens();
    let (x, labels) = frame::token_vectors(cache, site, first)
        .map_err(|error| anyhow::anyhow!("pca at {error}"))?;
    let mut pca = fit(&x, k).map_err(|error| anyhow::anyhow!("pca at {site}: {error}"))?;
    let points = if tokens.batch() == 1 { Axis::Pos } else { Axis::Series };
    pca.scores.axes[0].axis = points;
    pca.scores = pca
        .scores
        .relabel(points, &labels)?
        .of_runs(cache.origin().cloned())
        .name(&format!("PCA of {site}"))
        .note("left out", &format!("first {first} tokens of each prompt"))
        .note("site", &site.to_string());
    Ok(pca)
}

/// The first `k` principal components of the rows of `x [n, D]`.
pub fn pca_of(x: &Tensor, k: usize) -> Result<Pca> {
    fit(x, k).map_err(|error| anyhow::anyhow!("pca: {error}"))
}

/// The first `k` principal components of `n` points known by their mean `[D]` and unbiased
/// covariance `[D, D]`; the scores have no rows.
pub(in crate::analysis) fn pca_of_covariance(
    mean: &Tensor,
    cov: &Tensor,
    n: i64,
    k: usize,
) -> Result<Pca> {
    let d = cov.size()[0];
    check_components(n, d, k)?;
    ensure!(bool::try_from(cov.isfinite().all())?, "the data hold a non-finite number");
    let total = cov.trace().double_value(&[]);
    ensure!(total > 0.0, "all {n} points are equal, so no direction has variance");
    let (variance, components) = first_axes(eigen(cov)?, k as i64);
    let none = Tensor::zeros([0, k as i64], (Kind::Double, cov.device()));
    finish(&none, variance, components, mean.shallow_clone(), (n, total))
}

fn check_components(n: i64, d: i64, k: usize) -> Result<()> {
    ensure!(n > 1, "{n} points, expected at least 2");
    let most = d.min(n - 1);
    ensure!(
        k > 0 && k as i64 <= most,
        "{k} components of {n} points in {d} dimensions, expected 1 to {most}"
    );
    Ok(())
}

fn fit(x: &Tensor, k: usize) -> Result<Pca> {
    let Centred { rows, mean, n, total } = Centred::new(x, k)?;
    let (variance, components) = axes_of_variance(&rows, k as i64)?;
    let scores = rows.matmul(&components.tr());
    finish(&scores, variance, components, mean, (n, total))
}

/// Points `[n, D]` in f64 less their mean `[D]`, of which `k` components can be asked.
pub(super) struct Centred {
    pub(super) rows: Tensor,
    pub(super) mean: Tensor,
    pub(super) n: i64,
    /// Their variance, summed over dimensions.
    pub(super) total: f64,
}

impl Centred {
    pub(super) fn new(x: &Tensor, k: usize) -> Result<Self> {
        let &[n, d] = x.size().as_slice() else {
            anyhow::bail!("the data are {:?}, expected [points, dimensions]", x.size())
        };
        check_components(n, d, k)?;
        let x = x.detach().to_kind(Kind::Double);
        let mean = x.mean_dim([0i64].as_slice(), false, None);
        let rows = x - &mean;
        let total = rows.norm().double_value(&[]).powi(2) / (n - 1) as f64;
        ensure!(total.is_finite(), "the data hold a non-finite number");
        ensure!(total > 0.0, "all {n} points are equal, so no direction has variance");
        Ok(Centred { rows, mean, n, total })
    }
}

/// Puts together what was found, with the number of points and their total variance.
pub(super) fn finish(
    scores: &Tensor,
    variance: Tensor,
    components: Tensor,
    mean: Tensor,
    (n, total): (i64, f64),
) -> Result<Pca> {
    let shares = Vec::<f64>::try_from(&variance / total)?;
    let names: Vec<String> = shares
        .iter()
        .enumerate()
        .map(|(i, share)| format!("PC{} ({:.1} %)", i + 1, 100.0 * share))
        .collect();
    let scores = Grid::of(scores, &[Axis::Series, Axis::Pc], "activation")?
        .relabel(Axis::Pc, &names)?
        .name("PCA")
        .note("points", &n.to_string())
        .note("signs", "largest loading of each component positive");
    let per_component = |values: &Tensor, unit: &str| Grid::of(values, &[Axis::Pc], unit);
    Ok(Pca {
        scores,
        explained: per_component(&(&variance / total), "share of total variance")?
            .name("explained variance"),
        variance: per_component(&variance, "variance")?,
        components,
        mean,
        total,
    })
}

/// Variance along, and direction of, the `k` components of centred rows: `[k]`, `[k, D]`.
fn axes_of_variance(centred: &Tensor, k: i64) -> Result<(Tensor, Tensor)> {
    let (n, d) = (centred.size()[0], centred.size()[1]);
    let all = if n < d {
        let (_, singular, directions) = centred.f_svd(true, true)?;
        (singular.square() / (n - 1) as f64, directions.tr())
    } else {
        eigen(&(second_moments(centred) / (n - 1) as f64))?
    };
    Ok(first_axes(all, k))
}

/// Variance along, and direction of, all components, largest first: `[D]`, `[D, D]`.
fn eigen(covariance: &Tensor) -> Result<(Tensor, Tensor)> {
    let (values, vectors) = covariance.f_linalg_eigh("L")?; // ascending
    Ok((values.flip([0i64]).clamp_min(0.0), vectors.tr().flip([0i64])))
}

/// The first `k`, the largest loading of each positive.
pub(super) fn first_axes((variance, components): (Tensor, Tensor), k: i64) -> (Tensor, Tensor) {
    let components = components.narrow(0, 0, k);
    let largest = components.abs().argmax(1, true);
    let signs = components.gather(1, &largest, false).sign();
    (variance.narrow(0, 0, k), (components * signs).contiguous())
}
