//! A picture in which near points stay near: t-SNE.
//!
//! Van der Maaten and Hinton 2008, "Visualizing Data using t-SNE"; Barnes and Hut's tree as in van der
//! Maaten 2014, <https://jmlr.org/papers/v15/vandermaaten14a.html>; learning rate after Belkina et al.
//! 2019, <https://doi.org/10.1038/s41467-019-13055-y>; start at the principal components after Kobak and
//! Berens 2019, <https://doi.org/10.1038/s41467-019-13056-x>. Exaggeration, momentum, gains and the end of
//! the descent are those of `sklearn.manifold.TSNE`.
//!
//! Sizes of clusters and distances between them mean nothing; look at several perplexities. Our own code: the
//! crate at hand sums in an order that threads choose, so that a picture never came twice.
//! Here sums have one order whatever the number of threads, and a seed means one picture.

mod affinity;
mod descent;
mod threads;
mod tree;

use std::fmt;

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use super::neighbors::trustworthiness;
use super::pca::pca_of;
use crate::analysis::cluster::Items;
use crate::grid::Grid;
use crate::hook::site::Axis;
use crate::rng::Rng;
pub use affinity::Affinities;

/// Dimensions that are kept, by principal components, before distances are taken.
const REDUCED: i64 = 50;
/// Standard deviation of the first coordinate at the start.
const SPREAD: f64 = 1e-4;
/// Neighbours that the trustworthiness of a picture is about.
const NEIGHBORS: usize = 5;

/// How [`tsne`] is done, where its defaults are not wanted.
///
/// ```
/// use thalweg::{TsneOptions, rng::Rng};
/// let x = Rng::new(0).normal_tensor(&[30, 8]);
/// let found = TsneOptions::new(5.0).steps(300).run(&x)?;
/// assert_eq!(found.points.shape(), [30, 2]);
/// assert_eq!(found.points.values, TsneOptions::new(5.0).steps(300).run(&x)?.points.values);
/// # thalweg::anyhow::Ok(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct TsneOptions {
    perplexity: f64,
    theta: f64,
    steps: usize,
    learning_rate: Option<f64>,
    random_start: bool,
    seed: u64,
    threads: Option<usize>,
}

impl TsneOptions {
    /// The defaults for a perplexity, which is about the number of neighbours that count: 30 is
    /// usual, and it must be below the number of points.
    pub fn new(perplexity: f64) -> Self {
        TsneOptions {
            perplexity,
            theta: 0.5,
            steps: 1000,
            learning_rate: None,
            random_start: false,
            seed: 0,
            threads: None,
        }
    }

    /// How wide a group of points may be for its distance to be taken as one point, 0 to 0.7; the
    /// default is 0.5. 0 takes all pairs, and all points as neighbours.
    pub fn theta(mut self, theta: f64) -> Self {
        self.theta = theta;
        self
    }

    /// Steps of the descent, the first 250 with attraction exaggerated 12 times; the default is 1000.
    pub fn steps(mut self, steps: usize) -> Self {
        self.steps = steps;
        self
    }

    /// The factor of the gradient, that of the paper with its 4; the default is `max(n / 48, 50)`,
    /// scikit-learn's, which is `n / 12` for a gradient without the 4.
    pub fn learning_rate(mut self, rate: f64) -> Self {
        self.learning_rate = Some(rate);
        self
    }

    /// Starts at points drawn from `seed`, not at the first two principal components.
    pub fn random_start(mut self, seed: u64) -> Self {
        self.random_start = true;
        self.seed = seed;
        self
    }

    /// Threads that share the work; the default is as many as libtorch uses. The picture is the same
    /// with any number.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Lays out items, or the rows of a tensor, in the plane.
    pub fn run(&self, items: impl Into<Items>) -> Result<Tsne> {
        let items = items.into();
        let x = items.checked("tsne")?;
        let (n, d) = (x.size()[0], x.size()[1]);
        ensure!(
            (0.0..=0.7).contains(&self.theta),
            "tsne: theta is {}, expected 0 to 0.7",
            self.theta
        );
        let x = match d > REDUCED && n > REDUCED {
            true => {
                let pca = pca_of(&x, REDUCED as usize)?;
                pca.transform(&x)?
            }
            false => x,
        };
        let exact = self.theta == 0.0;
        let threads = self.threads.unwrap_or_else(threads::usual_threads);
        let affinities = Affinities::among(&x, self.perplexity, exact, threads)?;
        let start = if self.random_start { self.drawn(n) } else { self.principal(&x)? };
        let rate = self.learning_rate.unwrap_or((n as f64 / 48.0).max(50.0));
        let found = descent::descend(&affinities, start, self.theta, self.steps, rate)?;
        let picture = Tensor::from_slice(&found.points).view([n, 2]);
        let kept = NEIGHBORS.min((n as usize - 1) / 2);
        let axes = [
            (Axis::Series, items.labels.clone()),
            (Axis::Feature, vec!["t-SNE 1".to_owned(), "t-SNE 2".to_owned()]),
        ];
        let kl = affinities.kl_by(&found.points, self.theta);
        let points = Grid::from_tensor(&picture, &axes, "no unit")?
            .of_runs(items.origins.iter().cloned())
            .name(&format!("t-SNE of {}", items.name))
            .note("perplexity", &self.perplexity.to_string())
            .note("KL", &format!("{kl:.4} nats"))
            .note("theta", &self.theta.to_string())
            .note("learning rate", &rate.to_string())
            .note("start", if self.random_start { "random" } else { "principal components" })
            .note("seed", &self.seed.to_string());
        Ok(Tsne {
            points,
            kl,
            history: history(found.history)?,
            trustworthiness: trustworthiness(&x, &picture, kept)?,
            affinities,
        })
    }

    fn drawn(&self, n: i64) -> Vec<f64> {
        let mut rng = Rng::new(self.seed);
        (0..2 * n).map(|_| SPREAD * rng.normal()).collect()
    }

    /// The first two principal components, the first of standard deviation [`SPREAD`]; numbers drawn
    /// from the seed, where the data have but one.
    fn principal(&self, x: &Tensor) -> Result<Vec<f64>> {
        let k = x.size()[1].min(2);
        let scores = pca_of(x, k as usize)?.transform(x)?;
        let scale = SPREAD / scores.select(1, 0).std(false).double_value(&[]);
        let mut start = self.drawn(x.size()[0]);
        for axis in 0..k {
            let own = Vec::<f64>::try_from(scores.select(1, axis).contiguous())?;
            let flat = own.iter().all(|value| value * scale < 1e-9 * SPREAD);
            if !flat {
                own.iter().enumerate().for_each(|(i, v)| start[2 * i + axis as usize] = v * scale);
            }
        }
        Ok(start)
    }
}

fn history(kl: Vec<(usize, f64)>) -> Result<Grid> {
    let (steps, values): (Vec<String>, Vec<f64>) =
        kl.into_iter().map(|(step, kl)| (step.to_string(), kl)).unzip();
    let grid = Grid::from_tensor(&Tensor::from_slice(&values), &[(Axis::Step, steps)], "nats")?;
    Ok(grid.name("KL divergence of the picture from the data"))
}

/// A picture of points in the plane, and how good it is.
#[derive(Clone)]
pub struct Tsne {
    /// Where each item lies: `[Series, Feature]`. `scatter` takes it.
    pub points: Grid,
    /// Kullback-Leibler divergence of the picture from the neighbourhoods in the data, in nats: what
    /// t-SNE makes small. Comparable at equal perplexity only.
    pub kl: f64,
    /// The divergence every 50 steps, without exaggeration: `[Step]`.
    pub history: Grid,
    /// [`trustworthiness`] of the picture at five neighbours.
    pub trustworthiness: f64,
    /// The neighbourhoods in the data that the picture is to keep.
    pub affinities: Affinities,
}

/// One line: how many items, the divergence and the trustworthiness.
impl fmt::Debug for Tsne {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, n, kl) = (&self.points.name, self.points.shape()[0], self.kl);
        let perplexity = self.affinities.perplexity();
        let trust = self.trustworthiness;
        write!(
            f,
            "{name}: {n} points, perplexity {perplexity}, KL {kl:.3}, trustworthiness {trust:.3}"
        )
    }
}

/// A picture of items, or of the rows of a tensor, in which near ones stay near: t-SNE by Barnes and Hut's
/// tree, from the first 50 principal components, started at the first two.
///
/// ```
/// use thalweg::{rng::Rng, scatter, tch::Tensor, tsne};
/// let blob = |seed, at: f64| Rng::new(seed).normal_tensor(&[20, 6]) + at;
/// let found = tsne(&Tensor::cat(&[blob(0, 0.0), blob(1, 20.0)], 0), 8.0)?;
/// assert!(found.trustworthiness > 0.9);
/// let figure = scatter(&found.points)?;
/// # thalweg::anyhow::Ok(())
/// ```
pub fn tsne(items: impl Into<Items>, perplexity: f64) -> Result<Tsne> {
    TsneOptions::new(perplexity).run(items)
}

/// Coordinates of a picture `[n, 2]`, x and y in turn.
fn flat(picture: &Tensor, n: usize) -> Result<Vec<f64>> {
    let shape = picture.size();
    ensure!(shape == [n as i64, 2], "the picture is {shape:?}, expected [{n}, 2]");
    Ok(Vec::<f64>::try_from(picture.to_kind(Kind::Double).contiguous().view([-1]))?)
}
