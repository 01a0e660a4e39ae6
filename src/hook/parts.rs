//! A cache of activations that come from elsewhere.

use anyhow::{Result, ensure};
use tch::Tensor;

use super::cache::Cache;
use super::site::{Axis, Site};
use crate::text::Tokens;

impl Cache {
    /// Activations of these tokens that were found elsewhere: each of its site's axes
    /// ([`Site::axes`]), rows and positions those of the tokens, padded on the left. The memory is
    /// shared.
    ///
    /// ```
    /// use thalweg::tch::{Device, Kind, Tensor};
    /// use thalweg::{Cache, Point, Tokens};
    /// let tokens = Tokens::from_ids(&[vec![5, 6, 7], vec![8]])?;
    /// let x = Tensor::ones([2, 3, 16], (Kind::Float, Device::Cpu)); // [Batch, Pos, DModel]
    /// let cache = Cache::from_parts(&tokens, 4, vec![(Point::ResidPost.at(3), x)])?;
    /// assert_eq!(cache.get(Point::ResidPost.at(3))?.size(), [2, 3, 16]);
    /// # thalweg::anyhow::Ok(())
    /// ```
    pub fn from_parts(
        tokens: &Tokens,
        n_layers: usize,
        parts: Vec<(Site, Tensor)>,
    ) -> Result<Self> {
        let mut cache = Cache::new(tokens, n_layers);
        for (site, tensor) in parts {
            let (axes, size) = (site.axes(), tensor.size());
            ensure!(
                site.layer().is_none_or(|layer| layer < n_layers),
                "{site}: there are {n_layers} layers"
            );
            let fits = |(axis, n): (&Axis, &i64)| match axis {
                Axis::Batch => *n == tokens.batch() as i64,
                Axis::Pos | Axis::Query | Axis::Key => *n == tokens.width() as i64,
                _ => true,
            };
            ensure!(
                size.len() == axes.len() && axes.iter().zip(&size).all(fits),
                "{site} is {size:?}, expected {axes:?} of {} rows and {} positions",
                tokens.batch(),
                tokens.width()
            );
            cache.insert(site, tensor);
        }
        Ok(cache)
    }
}
