//! Histograms with fixed edges: their counts are integers, so that parts add up exactly.

use anyhow::{Context, Result, ensure};
use tch::{Kind, Tensor};

use super::Statistics;

/// What a histogram is to be, and its counts once there are any.
#[derive(Debug)]
pub(super) struct Histogram {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) bins: usize,
    /// `[D, bins + 2]`, i64.
    pub(super) counts: Option<Tensor>,
}

impl Statistics {
    /// A histogram of each feature too: `bins` bins of one width from `low` up to `high`, beside
    /// them how many values were below, and how many at `high` or above (NaN among those).
    ///
    /// ```
    /// use thalweg::tch::Tensor;
    /// use thalweg::{Cache, Site, Statistics, Tokens};
    /// let tokens = Tokens::from_ids(&[vec![5, 6, 7, 8]])?;
    /// let x = Tensor::from_slice(&[-3.0, 0.0, 0.5, 1.0]).view([1, 4, 1]); // [Batch, Pos, DModel]
    /// let mut statistics = Statistics::at(Site::Embed).first(0).histogram(0.0, 1.0, 2);
    /// statistics.add(&Cache::from_parts(&tokens, 1, vec![(Site::Embed, x)])?)?;
    /// // Below 0; 0 to 0.5; 0.5 to 1; 1 and above.
    /// assert_eq!(Vec::<i64>::try_from(statistics.counts()?.get(0))?, [1, 1, 1, 1]);
    /// # thalweg::anyhow::Ok(())
    /// ```
    pub fn histogram(mut self, low: f64, high: f64, bins: usize) -> Self {
        self.histogram = Some(Histogram { low, high, bins, counts: None });
        self
    }

    /// Counts of the histogram, i64, `[D, bins + 2]`: a head's axes are joined into one. The first
    /// counts what is below all bins, the last what is above.
    pub fn counts(&self) -> Result<Tensor> {
        let counts = &self.asked_histogram()?.counts;
        let counts = counts.as_ref().with_context(|| format!("{self:?}: nothing was added yet"))?;
        Ok(counts.copy())
    }

    /// Edges of the histogram's bins, f64, `[bins + 1]`.
    pub fn edges(&self) -> Result<Tensor> {
        Ok(self.asked_histogram()?.edges())
    }

    fn asked_histogram(&self) -> Result<&Histogram> {
        self.histogram.as_ref().with_context(|| {
            format!("{self:?}: no histogram was asked for: Statistics::at(site).histogram(low, high, bins)")
        })
    }
}

impl Histogram {
    pub(super) fn check(&self) -> Result<()> {
        let Histogram { low, high, bins, .. } = *self;
        ensure!(
            low < high && (high - low).is_finite() && bins > 0,
            "histogram of {bins} bins from {low} to {high}: expected low < high and at least one bin"
        );
        Ok(())
    }

    /// What must agree between parts.
    pub(super) fn asks(&self) -> (f64, f64, usize) {
        (self.low, self.high, self.bins)
    }

    fn edges(&self) -> Tensor {
        let width = self.high - self.low;
        let edge = |i: usize| self.low + width * (i as f64 / self.bins as f64);
        Tensor::from_slice(&(0..=self.bins).map(edge).collect::<Vec<_>>())
    }

    /// Counts `rows [n, D]`, f64.
    pub(super) fn add_rows(&mut self, rows: &Tensor) {
        let (d, bins) = (rows.size()[1], self.bins as i64 + 2);
        // Of edges e, place i is e[i-1] <= x < e[i].
        let place = rows.bucketize(&self.edges().to_device(rows.device()), false, true);
        let own = Tensor::arange(d, (Kind::Int64, rows.device())) * bins;
        let flat = (place + own).view([-1]);
        self.add(&flat.bincount(None::<&Tensor>, d * bins).view([d, bins]));
    }

    /// Counts of other rows.
    pub(super) fn add(&mut self, counts: &Tensor) {
        match &mut self.counts {
            Some(own) => {
                let _ = own.g_add_(&counts.to_device(own.device()));
            }
            None => self.counts = Some(counts.copy()),
        }
    }
}

impl Clone for Histogram {
    fn clone(&self) -> Self {
        Histogram { counts: self.counts.as_ref().map(Tensor::copy), ..*self }
    }
}
