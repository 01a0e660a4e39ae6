//! The tokens that a lens finds most likely, ranked.

use std::fmt;

use anyhow::{Result, ensure};
use ndarray::{Array2, ArrayD};
use tch::{Kind, Tensor};

use super::lens::Lens;
use crate::analysis::frame;
use crate::grid::Grid;
use crate::hook::cache::Cache;
use crate::hook::site::Axis;
use crate::show::progress;

/// What each rung of one prompt finds most likely.
#[derive(Clone)]
pub struct LensTop {
    /// Probability of the most likely token: `[Layer, Pos]`, 0..1.
    pub prob: Grid,
    /// That token, to be written into the cells.
    pub pieces: Array2<String>,
}

/// One line: that of the probabilities.
impl fmt::Debug for LensTop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.prob, f)
    }
}

/// The `k` tokens that each rung finds most likely.
#[derive(Clone)]
pub struct LensTopK {
    /// Their probabilities, the largest first: `[Layer, Pos, Rank]`, or `[Batch, Layer, Pos, Rank]`.
    pub prob: Grid,
    /// Their ids, of the same shape; padding reads what it reads.
    pub ids: ArrayD<i64>,
    /// What to show for them, of the same shape.
    pub pieces: ArrayD<String>,
}

/// One line: that of the probabilities.
impl fmt::Debug for LensTopK {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.prob, f)
    }
}

impl Lens {
    /// The most likely next token at every rung and position of one prompt, with its probability.
    pub fn top(&self, cache: &Cache) -> Result<LensTop> {
        let batch = cache.tokens().batch();
        ensure!(batch == 1, "lens_top: {batch} prompts, expected one: take it with cache.row(0)");
        let LensTopK { prob, pieces, .. } = self.top_k(cache, 1)?;
        let shape = (prob.shape()[0], prob.shape()[1]);
        Ok(LensTop {
            prob: prob.select(Axis::Rank, 0)?.name(&format!("{}: most likely token", self.word())),
            pieces: Array2::from_shape_vec(shape, pieces.into_iter().collect())?,
        })
    }

    /// The `k` most likely next tokens at every rung and position, with their probabilities.
    pub fn top_k(&self, cache: &Cache, k: usize) -> Result<LensTopK> {
        let d_vocab = self.model().config().d_vocab;
        ensure!((1..=d_vocab).contains(&k), "lens_top_k: k is {k}, expected 1 to {d_vocab}");
        let (rungs, left_out) = self.rungs(cache)?;
        let (mut labels, mut probs, mut ids) = (Vec::new(), Vec::new(), Vec::new());
        for (label, site) in progress(rungs, "lens").unit("rungs") {
            let logits = self.unembed(site, &cache.get(site)?)?;
            let (prob, id) = logits.softmax(-1, Kind::Double).topk(k as i64, -1, true, true);
            probs.push(prob); // [Batch, Pos, Rank]
            ids.push(id);
            labels.push(label);
        }
        let ranks = (1..=k).map(|rank| rank.to_string()).collect();
        let axes = [
            (Axis::Layer, labels),
            (Axis::Pos, frame::position_labels(cache.tokens())),
            (Axis::Rank, ranks),
        ];
        let grid = frame::batched(cache, &Tensor::stack(&probs, 1), &axes, "probability")?;
        let prob = self.noted(frame::hide(grid, cache.tokens(), 0)?, left_out);
        let flat = Vec::<i64>::try_from(Tensor::stack(&ids, 1).flatten(0, -1))?;
        let ids = ArrayD::from_shape_vec(prob.shape(), flat)?;
        let pieces = ids.mapv(|id| self.model().piece(id));
        let name = format!("{}: {k} most likely tokens", self.word());
        Ok(LensTopK { prob: prob.name(&name), ids, pieces })
    }
}
