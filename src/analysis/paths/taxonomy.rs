//! What kinds of head a model has, all in one table, beside those of its weights shuffled.
//!
//! Elhage et al. 2021, <https://transformer-circuits.pub/2021/framework>; Olsson et al. 2022,
//! <https://arxiv.org/abs/2209.11895>. Scores are those of [`head_scores`], [`head_entropy`] and
//! [`copying_scores`]; keys and values are those of each query head's group.

use std::fmt;

use anyhow::{Context, Result};

use super::head_circuits::copying_scores;
use super::heads::{Motif, head_entropy, head_scores};
use crate::grid::Grid;
use crate::hook::plan::Plan;
use crate::hook::site::{Axis, Point};
use crate::model::Model;
use crate::text::Tokens;

/// Every head's scores as each kind of head.
#[derive(Clone)]
#[non_exhaustive]
pub struct HeadTaxonomy {
    /// `[Series, Layer, Head]`: "previous token", "duplicate", "induction", "sink" (attention, 0..1),
    /// "entropy" (as a share of even attention's, 0..1) and "copying" (share of positive eigenvalues of
    /// the OV circuit, -1..1).
    pub scores: Grid,
    /// The same of the model with its weights shuffled: what says nothing.
    pub shuffled: Grid,
}

impl HeadTaxonomy {
    /// The heads whose score in this series is above every head's of the shuffled model and above
    /// `least`, best first, as (layer, head).
    pub fn heads(&self, series: &str, least: f64) -> Result<Vec<(usize, usize)>> {
        let of = |grid: &Grid| -> Result<Grid> {
            let names = grid.labels(Axis::Series)?;
            let place = names.iter().position(|name| *name == series).with_context(|| {
                format!("no series {series:?}: the taxonomy has {}", names.join(", "))
            })?;
            grid.select(Axis::Series, place as i64)
        };
        let control = of(&self.shuffled)?.values.iter().copied().fold(least, f64::max);
        let mut cells: Vec<_> = of(&self.scores)?.present().filter(|(_, x)| *x > control).collect();
        cells.sort_by(|a, b| b.1.total_cmp(&a.1));
        Ok(cells.iter().map(|(at, _)| (at[0], at[1])).collect())
    }
}

/// One line: the best head of each kind.
impl fmt::Debug for HeadTaxonomy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names =
            self.scores.labels(Axis::Series).map(|names| names.to_vec()).unwrap_or_default();
        let best = names.iter().enumerate().filter_map(|(at, name)| {
            let best = self.scores.select(Axis::Series, at as i64).ok()?.highest(1);
            Some(format!("{name} {} {:.2}", best.axes[0].labels[0], best.values.sum()))
        });
        write!(f, "HeadTaxonomy {{ {} }}", best.collect::<Vec<_>>().join(", "))
    }
}

/// Scores every head of a model on prompts from [`repeated_tokens`](crate::repeated_tokens), beside the
/// same model with its weights shuffled by `seed`.
///
/// ```
/// use thalweg::{Model, head_taxonomy, repeated_tokens};
/// let model = Model::load("data/models/tiny-world")?;
/// let kinds = head_taxonomy(&model, &repeated_tokens(&model, 8, 16, 0)?, 0)?;
/// assert_eq!(kinds.scores.shape(), [6, 4, 8]);
/// assert_eq!(kinds.heads("previous token", 0.5)?[0].0, 0); // in layer 0
/// # thalweg::anyhow::Ok(())
/// ```
pub fn head_taxonomy(model: &Model, tokens: &Tokens, seed: u64) -> Result<HeadTaxonomy> {
    let control = scores(&model.shuffled(seed)?, tokens)?.name("heads of shuffled weights");
    Ok(HeadTaxonomy {
        scores: scores(model, tokens)?,
        shuffled: control.note("seed", &seed.to_string()),
    })
}

fn scores(model: &Model, tokens: &Tokens) -> Result<Grid> {
    let cache = model.run(tokens, &Plan::new().cache(Point::Pattern).logits_at(-1))?.cache;
    let motifs = [
        ("previous token", Motif::PreviousToken),
        ("duplicate", Motif::Duplicate),
        ("induction", Motif::Induction),
        ("sink", Motif::FirstToken),
    ];
    let mut parts = Vec::new();
    for (name, motif) in motifs {
        parts.push((name, head_scores(&cache, motif)?.unit("score")));
    }
    let entropy = head_entropy(&cache)?;
    let most: f64 = entropy.provenance["of even attention"].parse()?;
    parts.push(("entropy", entropy.map(|nats| nats / most).unit("score")));
    parts.push(("copying", copying_scores(model)?.unit("score")));
    let parts: Vec<(&str, &Grid)> = parts.iter().map(|(name, grid)| (*name, grid)).collect();
    let mut grid = Grid::stack(Axis::Series, &parts)?;
    grid.zero_one = None;
    Ok(grid.name("heads").note("prompts", &tokens.batch().to_string()))
}
