//! Attention knockout: which layers carry what from one position to another?
//!
//! Geva et al. 2023, "Dissecting recall of factual associations", <https://arxiv.org/abs/2304.14767>.
//! Attention from a query to some keys is forbidden in a window of layers around each layer, in all
//! heads, since one layer alone is easily made up for by its neighbours.

use std::ops::Range;

use anyhow::{Result, ensure};

use crate::analysis::cells::{CHUNK, Cells, Swept};
use crate::grid::Grid;
use crate::hook::intervention::Intervention;
use crate::hook::metric::Metric;
use crate::hook::plan::Plan;
use crate::hook::site::{Point, Site};
use crate::index::Positions;
use crate::model::Model;
use crate::text::Tokens;

/// Layers of a window in the paper's models of 48 and 28 layers.
const WINDOW: usize = 9;

/// The change of a metric when `query` cannot attend to `keys` in a window of layers around each
/// layer: `[Layer]`, in the metric's unit; 0 is the unedited run. Of several prompts it is the mean,
/// with its 95 % interval.
///
/// `window` is in layers; `None`: 9, but at most half of the model's. At the first and last layers
/// the window is cut off. A query must be left one key to look at.
///
/// ```
/// use thalweg::{Metric, Model, Position, attention_knockout, lines};
/// let model = Model::load("data/models/tiny-world")?;
/// let tokens = model.tokens("When Mary and John went to the store , John gave a drink to")?;
/// let metric = Metric::log_prob(model.token("Mary")?);
/// let name = tokens.find("Mary")?;
/// let effect = attention_knockout(&model, &tokens, Position::Last, name, None, &metric)?;
/// lines(&effect)?;
/// # thalweg::anyhow::Ok(())
/// ```
pub fn attention_knockout(
    model: &Model,
    tokens: &Tokens,
    query: impl Into<Positions>,
    keys: impl Into<Positions>,
    window: Option<usize>,
    metric: &Metric,
) -> Result<Grid> {
    let (query, keys) = (query.into(), keys.into());
    let n_layers = model.config().n_layers;
    let window = window.unwrap_or(default_window(WINDOW, n_layers));
    check_window("attention_knockout", window, n_layers)?;
    let scores = Point::Scores.into();
    let cells = Cells::new("attention_knockout of", model.config(), tokens, (&scores, &[]))?;
    let knockout = Intervention::knockout(query.clone(), keys.clone());
    let plan = |_, cell: &[usize]| {
        let layers = around(cells.site(cell).layer().unwrap_or(0), window, n_layers);
        let sites: Vec<Site> = layers.map(|layer| Point::Scores.at(layer)).collect();
        Ok(Plan::new().intervene(sites, knockout.clone()))
    };
    let swept = Swept::new((model, tokens, metric), (&cells, 1, CHUNK), plan)?;
    let grid = swept.change().mean(false)?;
    Ok(grid
        .name(&format!("change of {metric:?} without attention from {query} to {keys}"))
        .note("window", &format!("{window} layers")))
}

/// `wanted` layers, but at most half of those there are, and at least one.
pub(in crate::analysis) fn default_window(wanted: usize, n_layers: usize) -> usize {
    wanted.min(n_layers / 2).max(1)
}

pub(in crate::analysis) fn check_window(what: &str, window: usize, n_layers: usize) -> Result<()> {
    ensure!(
        (1..=n_layers).contains(&window),
        "{what}: a window of {window} layers, expected 1 to {n_layers}"
    );
    Ok(())
}

/// The layers of a window around one, an even window's larger half below it.
pub(in crate::analysis) fn around(layer: usize, window: usize, n_layers: usize) -> Range<usize> {
    layer.saturating_sub(window / 2)..(layer + window.div_ceil(2)).min(n_layers)
}
