//! The largest values of each feature, and where they stand.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use super::Place;

/// One of the largest values of a feature.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Maximum {
    /// The activation.
    pub value: f64,
    /// Number of the prompt, in the order in which prompts were added.
    pub prompt: usize,
    /// Position in the prompt's own tokens.
    pub pos: usize,
}

/// Each feature's largest values, largest first; of equal ones the earlier first. `[D, up to k]`.
#[derive(Debug)]
pub(super) struct Maxima {
    pub(super) k: i64,
    pub(super) values: Tensor,
    pub(super) prompts: Tensor,
    pub(super) positions: Tensor,
}

impl Maxima {
    /// Of `rows [n, D]`, which stand at `places`; their prompts are counted from `first`.
    pub(super) fn of_rows(rows: &Tensor, places: &[Place], first: i64, k: usize) -> Self {
        let device = rows.device();
        let at = |value: fn(&Place) -> i64| {
            let list: Vec<i64> = places.iter().map(value).collect();
            Tensor::from_slice(&list).to_device(device).unsqueeze(0)
        };
        let values = rows.tr(); // [D, n]
        let prompts = (at(|place| place.prompt) + first).expand_as(&values);
        let positions = at(|place| place.pos).expand_as(&values);
        Maxima { k: k as i64, values, prompts, positions }.largest()
    }

    /// These and others, whose prompts are counted from `first`.
    pub(super) fn merged(self, other: &Maxima, first: i64) -> Self {
        let device = self.values.device();
        let join = |a: &Tensor, b: &Tensor| Tensor::cat(&[a, &b.to_device(device)], 1);
        Maxima {
            k: self.k,
            values: join(&self.values, &other.values),
            prompts: join(&self.prompts, &(&other.prompts + first)),
            positions: join(&self.positions, &other.positions),
        }
        .largest()
    }

    /// The same after `n` prompts more.
    pub(super) fn after(mut self, n: i64) -> Self {
        self.prompts = &self.prompts + n;
        self
    }

    /// The first `k` of each feature, by a sort that keeps the order of equal values.
    fn largest(self) -> Self {
        let n = self.values.size()[1].min(self.k);
        let (values, order) = self.values.sort_stable(true, 1, true);
        let order = order.narrow(1, 0, n);
        Maxima {
            k: self.k,
            values: values.narrow(1, 0, n).contiguous(),
            prompts: self.prompts.gather(1, &order, false),
            positions: self.positions.gather(1, &order, false),
        }
    }

    pub(super) fn of(&self, feature: usize) -> Result<Vec<Maximum>> {
        let d = self.values.size()[0] as usize;
        ensure!(feature < d, "maxima: there is no feature {feature}, there are 0..{}", d - 1);
        let row = |x: &Tensor| x.get(feature as i64);
        let values = Vec::<f64>::try_from(row(&self.values).to_kind(Kind::Double))?;
        let prompts = Vec::<i64>::try_from(row(&self.prompts))?;
        let positions = Vec::<i64>::try_from(row(&self.positions))?;
        let each = values.into_iter().zip(prompts).zip(positions);
        Ok(each
            .map(|((value, prompt), pos)| Maximum {
                value,
                prompt: prompt as usize,
                pos: pos as usize,
            })
            .collect())
    }
}

impl Clone for Maxima {
    fn clone(&self) -> Self {
        Maxima {
            k: self.k,
            values: self.values.copy(),
            prompts: self.prompts.copy(),
            positions: self.positions.copy(),
        }
    }
}
