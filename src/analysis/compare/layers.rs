//! Every layer of one model against every layer of another.
//!
//! As in Kornblith et al. 2019, <https://arxiv.org/abs/1905.00414>, figure 2. Padding and each
//! prompt's first token are left out: an attention sink alone would make all layers alike.

use std::fmt;

use anyhow::{Result, ensure};
use ndarray::Array2;
use tch::Tensor;

use super::similarity::Similarity;
use crate::analysis::frame;
use crate::analysis::layers::Rows;
use crate::grid::{Grid, GridAxis};
use crate::hook::cache::Cache;
use crate::hook::site::Axis;
use crate::interrupt::check_interrupt;
use crate::rng::Rng;
use crate::show::progress;

/// First tokens of each prompt left out.
const FIRST: usize = 1;

/// How alike the layers of two models are.
#[derive(Clone)]
#[non_exhaustive]
pub struct LayerComparison {
    /// The measure of each pair of places of the stream: `[Layer, OtherLayer]`.
    pub values: Grid,
    /// The same with the second model's tokens in an order drawn at random: what the measure finds
    /// where there is nothing to find.
    pub shuffled: Grid,
}

/// One line: that of the values.
impl fmt::Debug for LayerComparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.values, f)
    }
}

/// A measure of every place of the residual stream that `a` holds with every one that `b` holds. Both
/// caches must be of the same tokens; the widths of the models may differ.
///
/// ```no_run
/// use thalweg::{Model, Plan, Point, Prompts, Similarity, compare_layers};
/// let model = Model::load("data/models/tiny-world")?;
/// let tokens = model.batch(&Prompts::load("data/prompts/fact.json")?.first(64).clean())?;
/// let plan = Plan::new().cache(Point::ResidPost);
/// let other = model.shuffled(1)?;
/// let [a, b] = [model.run(&tokens, &plan)?.cache, other.run(&tokens, &plan)?.cache];
/// let itself = compare_layers(&a, &a, Similarity::DebiasedCka, 0)?;
/// assert!((itself.values.get(&["L2", "L2"])? - 1.0).abs() < 1e-9);
/// let other = compare_layers(&a, &b, Similarity::DebiasedCka, 0)?;
/// assert!(other.values.get(&["L3", "L3"])? < 0.9);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn compare_layers(
    a: &Cache,
    b: &Cache,
    measure: Similarity,
    seed: u64,
) -> Result<LayerComparison> {
    ensure!(
        a.tokens().ids() == b.tokens().ids(),
        "compare_layers: the caches are of different tokens, expected two runs on the same"
    );
    let rows = Rows::new(a.tokens(), FIRST);
    let (labels_a, streams_a) = streams(a, &rows)?;
    let (labels_b, streams_b) = streams(b, &rows)?;
    let mut order: Vec<i64> = (0..rows.len() as i64).collect();
    Rng::new(seed).shuffle(&mut order);
    let order = Tensor::from_slice(&order);
    let mut values = Vec::new();
    let mut shuffled = Vec::new();
    for x in progress(&streams_a, "comparing layers").unit("layers") {
        for y in &streams_b {
            check_interrupt()?;
            values.push(measure.of(x, y)?);
            let y = y.index_select(0, &order.to_device(y.device()));
            shuffled.push(measure.of(x, &y)?);
        }
    }
    let grid = |values: Vec<f64>, name: &str| -> Result<Grid> {
        let values = Array2::from_shape_vec((labels_a.len(), labels_b.len()), values)?;
        let axis = |axis, labels: &[String]| GridAxis { axis, labels: labels.to_vec() };
        let axes = vec![axis(Axis::Layer, &labels_a), axis(Axis::OtherLayer, &labels_b)];
        let grid = Grid::new(values.into_dyn(), axes, &measure.to_string())?;
        Ok(grid
            .name(name)
            .n(rows.len())
            .of_runs(a.origin().cloned())
            .of_runs(b.origin().cloned())
            .note("left out", "each prompt's first token")
            .note("points", &format!("{} tokens", rows.len())))
    };
    let name = format!("{measure} of the residual streams");
    Ok(LayerComparison {
        values: grid(values, &name)?,
        shuffled: grid(shuffled, &format!("{name}, tokens shuffled"))?
            .note("seed", &seed.to_string()),
    })
}

/// Labels and vectors `[n, DModel]` of every place of the stream that a cache holds.
fn streams(cache: &Cache, rows: &Rows) -> Result<(Vec<String>, Vec<Tensor>)> {
    let rungs = frame::rungs(cache)?;
    let each = rungs.iter().map(|(_, site)| Ok(rows.of(&cache.get(*site)?)));
    let vectors = each.collect::<Result<_>>()?;
    Ok((rungs.into_iter().map(|(label, _)| label).collect(), vectors))
}
