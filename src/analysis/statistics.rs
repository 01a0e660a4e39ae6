//! Statistics of an activation over any number of prompts, in memory that does not grow with them.
//!
//! Means and covariances are merged by the formulas of Chan, Golub and LeVeque 1979, "Updating
//! formulae and a pairwise algorithm for computing sample variances", in f64: the statistics of
//! parts, merged, are those of the whole. The set of statistics is that of baukit's `runningstats`,
//! without its quantiles.

mod feed;
mod file;
mod histogram;
mod maxima;

use std::fmt;

use anyhow::{Context, Result, ensure};
use tch::{Kind, Tensor};

use super::decompose::{Pca, pca_of_covariance};
use crate::hook::cache::Cache;
use crate::hook::site::{Axis, Site};
use crate::record::{Origin, Record};
use crate::text::Tokens;
use histogram::Histogram;
use maxima::Maxima;

pub use feed::statistics;
pub use maxima::Maximum;

/// Bytes of f64 that are worked on at a time.
const PIECE: i64 = 8 << 20;

/// Running statistics of one site whose axes are `[Batch, Pos, ..]`: one vector for each token, a
/// head's axes joined into one. Padding and each prompt's first token, the attention sink, are left
/// out; [`first`](Self::first) changes how many.
///
/// ```no_run
/// use thalweg::{Intervention, Model, Plan, Point, Statistics, statistics};
/// let model = Model::load("data/models/tiny-world")?;
/// let site = Point::Z.at(2);
/// let mut all = [Statistics::at(site), Statistics::at(Point::ResidPost.at(2)).covariance()];
/// let prompts = ["Mary and John went to the store", "John gave Mary a book"];
/// statistics(&model, prompts.iter().map(|text| model.tokens(text)), &Plan::new(), &mut all)?;
/// // A mean over any number of prompts, for a mean ablation.
/// let mean = Intervention::set(&all[0].mean()?).head(1);
/// let ablated = model.run(&model.tokens(prompts[0])?, &Plan::new().intervene(site, mean))?;
/// let directions = all[1].pca(3)?.components; // [3, DModel]
/// // Parts found elsewhere, or on another day, are merged.
/// all[1].save("part.safetensors")?;
/// let mut part = Statistics::open("part.safetensors")?;
/// part.merge(&all[1])?;
/// # let _ = (ablated, directions);
/// # thalweg::anyhow::Ok(())
/// ```
pub struct Statistics {
    site: Site,
    first: usize,
    wants_covariance: bool,
    top: usize,
    /// Vectors seen.
    n: i64,
    /// Prompts seen.
    prompts: i64,
    /// Axes of the site after `[Batch, Pos]`.
    shape: Vec<i64>,
    moments: Option<Moments>,
    maxima: Option<Maxima>,
    histogram: Option<Histogram>,
    origins: Vec<Origin>,
}

/// Of vectors of `D` entries, f64.
struct Moments {
    /// `[D]`
    mean: Tensor,
    /// Summed squares of the distances to the mean, `[D]`.
    squares: Tensor,
    /// Summed outer products of them, `[D, D]`.
    products: Option<Tensor>,
}

impl Statistics {
    /// Count, mean and variance of an activation.
    pub fn at(site: impl Into<Site>) -> Self {
        Statistics {
            site: site.into(),
            first: 1,
            wants_covariance: false,
            top: 0,
            n: 0,
            prompts: 0,
            shape: Vec::new(),
            moments: None,
            maxima: None,
            histogram: None,
            origins: Vec::new(),
        }
    }

    /// The covariance too: `8 D²` bytes.
    pub fn covariance(mut self) -> Self {
        self.wants_covariance = true;
        self
    }

    /// The `k` largest values of each feature too, with the prompts and positions they stand at.
    pub fn top(mut self, k: usize) -> Self {
        self.top = k;
        self
    }

    /// Leaves out the first `first` tokens of each prompt; the default is 1.
    pub fn first(mut self, first: usize) -> Self {
        self.first = first;
        self
    }

    /// Where these statistics are taken.
    pub fn site(&self) -> Site {
        self.site
    }

    /// Number of vectors seen: tokens, less those left out.
    pub fn count(&self) -> usize {
        self.n as usize
    }

    /// Number of prompts seen.
    pub fn prompts(&self) -> usize {
        self.prompts as usize
    }

    /// Means, f64, of the site's shape without batch and position: `[DModel]`, `[Head, DHead]`.
    pub fn mean(&self) -> Result<Tensor> {
        Ok(self.moments()?.mean.view(&self.shape[..]).copy())
    }

    /// Unbiased variances, f64, of the same shape as the means.
    pub fn variance(&self) -> Result<Tensor> {
        let squares = &self.moments()?.squares;
        ensure!(self.n > 1, "{self:?}: a variance needs two vectors at least");
        Ok((squares / (self.n - 1) as f64).view(&self.shape[..]))
    }

    /// Unbiased covariance, f64, `[D, D]`: of the site's vectors with a head's axes joined into one.
    pub fn covariance_matrix(&self) -> Result<Tensor> {
        let products = self.moments()?.products.as_ref().with_context(|| {
            format!("{self:?}: the covariance was not asked for: Statistics::at(site).covariance()")
        })?;
        ensure!(self.n > 1, "{self:?}: a covariance needs two vectors at least");
        // Only one triangle would do; rounding must not make the two differ.
        Ok((products + products.tr()) / (2 * (self.n - 1)) as f64)
    }

    /// The first `k` principal components, as [`pca`](crate::pca) finds them from the activations
    /// themselves. The scores have no rows: `Pca::transform` gives those of any vector.
    pub fn pca(&self, k: usize) -> Result<Pca> {
        let covariance = self.covariance_matrix()?;
        let mean = self.moments()?.mean.copy();
        let mut pca = pca_of_covariance(&mean, &covariance, self.n, k)
            .map_err(|error| anyhow::anyhow!("pca at {}: {error}", self.site))?;
        pca.scores = pca
            .scores
            .name(&format!("PCA of {}", self.site))
            .note("left out", &format!("first {} tokens of each prompt", self.first))
            .note("prompts", &self.prompts.to_string())
            .note("site", &self.site.to_string())
            .of_runs(self.origins.iter().cloned());
        Ok(pca)
    }

    /// The largest values of one feature (its index among the `D` joined entries), largest first.
    pub fn maxima(&self, feature: usize) -> Result<Vec<Maximum>> {
        let maxima = self.maxima.as_ref().with_context(|| match self.top {
            0 => format!("{self:?}: no maxima were asked for: Statistics::at(site).top(k)"),
            _ => format!("{self:?}: nothing was added yet"),
        })?;
        maxima.of(feature)
    }

    /// Records of the runs, each kind of run once and without its prompts, of which there may be
    /// any number.
    pub fn records(&self) -> Vec<Record> {
        self.origins.iter().map(Origin::record).collect()
    }

    /// Adds the activations of one run.
    pub fn add(&mut self, cache: &Cache) -> Result<()> {
        let x = cache.get(self.site)?;
        let axes = self.site.axes();
        ensure!(
            axes.len() > 2 && axes[..2] == [Axis::Batch, Axis::Pos],
            "statistics at {}: its axes are {axes:?}, expected [Batch, Pos, ..]",
            self.site
        );
        let tokens = cache.tokens();
        ensure!(
            x.size()[1] == tokens.width() as i64,
            "statistics at {}: the cache holds {} positions of {}",
            self.site,
            x.size()[1],
            tokens.width()
        );
        let shape = x.size()[2..].to_vec();
        ensure!(
            self.shape.is_empty() || self.shape == shape,
            "statistics at {}: the vectors are {shape:?}, those before were {:?}",
            self.site,
            self.shape
        );
        self.histogram.as_ref().map_or(Ok(()), Histogram::check)?;
        let _guard = tch::no_grad_guard();
        let places = places(tokens, self.first);
        let x = x.detach().flatten(0, 1).flatten(1, -1); // [Batch Pos, D]
        let d = x.size()[1];
        self.shape = shape;
        for piece in places.chunks((PIECE / 8 / d).max(1) as usize) {
            self.add_rows(&x, piece);
        }
        self.prompts += tokens.batch() as i64;
        if let Some(origin) = cache.origin().map(Origin::without_prompts)
            && !self.origins.contains(&origin)
        {
            self.origins.push(origin);
        }
        Ok(())
    }

    /// Adds some rows of `x [Batch Pos, D]`.
    fn add_rows(&mut self, x: &Tensor, places: &[Place]) {
        let columns: Vec<i64> = places.iter().map(|place| place.row).collect();
        let index = Tensor::from_slice(&columns).to_device(x.device());
        let rows = x.index_select(0, &index).to_kind(Kind::Double); // [n, D]
        if self.top > 0 {
            let new = Maxima::of_rows(&rows, places, self.prompts, self.top);
            self.maxima = Some(match self.maxima.take() {
                Some(old) => old.merged(&new, 0),
                None => new,
            });
        }
        if let Some(histogram) = &mut self.histogram {
            histogram.add_rows(&rows);
        }
        let n = places.len() as i64;
        let mean = rows.mean_dim([0i64].as_slice(), false, None);
        let centred = rows - &mean;
        let squares = centred.square().sum_dim_intlist([0i64].as_slice(), false, None);
        match &mut self.moments {
            Some(moments) => {
                if let Some(products) = &mut moments.products {
                    let _ = products.addmm_(&centred.tr(), &centred);
                }
                moments.shift(self.n, &mean, &squares, n);
            }
            None => {
                let products = self.wants_covariance.then(|| centred.tr().matmul(&centred));
                self.moments = Some(Moments { mean, squares, products });
            }
        }
        self.n += n;
    }

    /// Adds what other statistics of the same site saw, as if its prompts came after those here.
    pub fn merge(&mut self, other: &Statistics) -> Result<()> {
        ensure!(
            self.asks() == other.asks(),
            "these statistics differ and cannot be merged: {self:?} and {other:?}"
        );
        let Some(theirs) = &other.moments else {
            self.skip(other.prompts());
            return Ok(());
        };
        let Some(own) = &mut self.moments else {
            let before = self.prompts;
            *self = other.clone();
            self.maxima = self.maxima.take().map(|maxima| maxima.after(before));
            self.prompts += before;
            return Ok(());
        };
        ensure!(
            self.shape == other.shape,
            "statistics at {}: the vectors are {:?} and {:?}",
            self.site,
            self.shape,
            other.shape
        );
        let device = own.mean.device();
        if let (Some(own), Some(theirs)) = (&mut own.products, &theirs.products) {
            let _ = own.g_add_(&theirs.to_device(device));
        }
        let [mean, squares] = [&theirs.mean, &theirs.squares].map(|x| x.to_device(device));
        own.shift(self.n, &mean, &squares, other.n);
        if let (Some(own), Some(theirs)) = (self.maxima.take(), &other.maxima) {
            self.maxima = Some(own.merged(theirs, self.prompts));
        }
        if let (Some(own), Some(theirs)) = (&mut self.histogram, &other.histogram) {
            theirs.counts.iter().for_each(|counts| own.add(counts));
        }
        self.n += other.n;
        self.prompts += other.prompts;
        for origin in &other.origins {
            if !self.origins.contains(origin) {
                self.origins.push(origin.clone());
            }
        }
        Ok(())
    }

    /// Counts `n` prompts that hold no vectors, so that those after them keep their numbers.
    pub fn skip(&mut self, n: usize) {
        self.prompts += n as i64;
    }

    /// What was asked for: site, tokens left out, covariance, number of maxima, histogram.
    fn asks(&self) -> impl PartialEq {
        let histogram = self.histogram.as_ref().map(Histogram::asks);
        (self.site, self.first, self.wants_covariance, self.top, histogram)
    }

    fn moments(&self) -> Result<&Moments> {
        self.moments.as_ref().with_context(|| format!("{self:?}: nothing was added yet"))
    }
}

impl Moments {
    /// Takes in `n` more vectors, of which mean and summed squares are given, after the `before`
    /// seen so far; the products lack only what the shift of the mean brings.
    fn shift(&mut self, before: i64, mean: &Tensor, squares: &Tensor, n: i64) {
        let (a, b) = (before as f64, n as f64);
        let delta = mean - &self.mean;
        let weight = a * b / (a + b);
        // In place: memory that is taken anew between passes keeps theirs from being used again.
        let _ = self.squares.g_add_(&(squares + delta.square() * weight));
        if let Some(products) = &mut self.products {
            let _ = products.addr_(&(&delta * weight), &delta);
        }
        let _ = self.mean.g_add_(&(delta * (b / (a + b))));
    }
}

/// A token that counts: its row in `[Batch Pos]`, its prompt and its position in the prompt.
#[derive(Debug, Clone, Copy)]
struct Place {
    row: i64,
    prompt: i64,
    pos: i64,
}

fn places(tokens: &Tokens, first: usize) -> Vec<Place> {
    let width = tokens.width();
    let own = |prompt: usize| {
        let padding = tokens.padding(prompt);
        (first..tokens.ids()[prompt].len()).map(move |pos| Place {
            row: (prompt * width + padding + pos) as i64,
            prompt: prompt as i64,
            pos: pos as i64,
        })
    };
    (0..tokens.batch()).flat_map(own).collect()
}

impl Clone for Statistics {
    /// Copies the state: adding to one leaves the other as it is.
    fn clone(&self) -> Self {
        let moments = self.moments.as_ref().map(|m| Moments {
            mean: m.mean.copy(),
            squares: m.squares.copy(),
            products: m.products.as_ref().map(Tensor::copy),
        });
        Statistics {
            moments,
            shape: self.shape.clone(),
            maxima: self.maxima.clone(),
            histogram: self.histogram.clone(),
            origins: self.origins.clone(),
            ..*self
        }
    }
}

impl fmt::Debug for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (site, n, prompts) = (self.site, self.n, self.prompts);
        write!(f, "Statistics at {site}: {n} vectors of {prompts} prompts; mean, variance")?;
        if self.wants_covariance {
            f.write_str(", covariance")?;
        }
        if self.top > 0 {
            write!(f, ", top {}", self.top)?;
        }
        if let Some((low, high, bins)) = self.histogram.as_ref().map(Histogram::asks) {
            write!(f, ", histogram of {bins} bins from {low} to {high}")?;
        }
        if self.first != 1 {
            write!(f, "; without the first {} tokens", self.first)?;
        }
        Ok(())
    }
}
