//! Methods of importance side by side, and how far each agrees with the causal one.
//!
//! Attention is not cause (Jain and Wallace 2019, <https://arxiv.org/abs/1902.10186>), and methods
//! disagree (Krishna et al. 2022, <https://arxiv.org/abs/2202.01602>): each stands beside an occlusion
//! of the same metric.

use std::fmt;

use anyhow::{Result, anyhow};
use ndarray::IxDyn;

use super::agreement::{agreement_of, among};
use super::methods::{ImportanceMethod, read};
use super::occlusion::Occlusion;
use super::words::by_word;
use crate::grid::Grid;
use crate::hook::metric::Metric;
use crate::hook::site::Axis;
use crate::model::Model;
use crate::show::{Content, Show, show_value};
use crate::text::Tokens;

/// How much each token matters, by several methods, the causal one first.
#[derive(Clone)]
#[non_exhaustive]
pub struct Importance {
    /// Each method's numbers as shares of their summed magnitude in the prompt, so that methods of
    /// different units can stand side by side: `[Series, Pos]`, or `[Series, Batch, Pos]`, -1..1.
    pub shares: Grid,
    /// Name and numbers of each method as measured, in a unit of its own: `[Pos]` or `[Batch, Pos]`.
    pub methods: Vec<(String, Grid)>,
    /// Spearman's correlation of magnitudes, which tokens matter at all, with its 95 % interval:
    /// `[Series, Feature]`, the causal method first in both.
    pub agreement: Grid,
    /// The same of the numbers with their signs, among the methods that have one.
    pub signed_agreement: Grid,
    /// What a reader should know: a baseline reached only roughly, a metric that saturates, a method
    /// that told no tokens apart.
    pub notes: Vec<String>,
    signed: Vec<bool>,
    tokens: Tokens,
}

/// How much each token matters to a metric by each of these methods, beside the causal one: the first
/// occlusion among them, or attention cut if there is none. Tokens after the place where the metric
/// looks cannot matter and are missing.
///
/// The metric should be a difference of logits; one that saturates is noted.
///
/// ```
/// use thalweg::{ImportanceMethod, Metric, Model, heatmap, importance};
/// let model = Model::load("data/models/tiny-world")?;
/// let tokens = model.tokens("The capital of France is")?;
/// let metric = Metric::logit_diff(model.token("Paris")?, model.token("Madrid")?);
/// let found = importance(&model, &tokens, &metric, &ImportanceMethod::all(&metric))?;
/// heatmap(&found.shares)?; // [Series, Pos]
/// let alti = found.agreement.get(&["attention cut", "ALTI"])?;
/// assert!((-1.0..=1.0).contains(&alti));
/// # thalweg::anyhow::Ok(())
/// ```
pub fn importance(
    model: &Model,
    tokens: &Tokens,
    metric: &Metric,
    methods: &[ImportanceMethod],
) -> Result<Importance> {
    let mut methods = methods.to_vec();
    match methods.iter().position(ImportanceMethod::is_causal) {
        Some(at) => methods[..=at].rotate_right(1),
        None => methods.insert(0, Occlusion::AttentionCut.into()),
    }
    let cache = read(&methods, model, tokens)?;
    let (mut found, mut signed) = (Vec::new(), Vec::new());
    for method in &methods {
        let label = method.label(model);
        let grid = method
            .measure((model, tokens, metric), cache.as_ref())
            .map_err(|error| anyhow!("importance: {label} of {metric:?}: {error:#}"))?;
        found.push((label, grid));
        signed.push(method.is_signed());
    }
    let mut notes = Vec::new();
    if matches!(metric.unit(), "probability" | "share correct" | "rank") {
        notes.push(format!(
            "{metric:?} saturates or moves in steps: a difference of logits would not"
        ));
    }
    for (label, grid) in &found {
        let error = grid.provenance.get("completeness error").and_then(|text| text.parse().ok());
        if let Some(error) = error.filter(|error: &f64| *error >= 0.01) {
            notes.push(format!("{label}: completeness error {:.1} %", 100.0 * error));
        }
    }
    Importance::new(found, signed, tokens, notes)
}

impl Importance {
    fn new(
        methods: Vec<(String, Grid)>,
        signed: Vec<bool>,
        tokens: &Tokens,
        mut notes: Vec<String>,
    ) -> Result<Self> {
        let parts: Vec<Grid> = methods.iter().map(|(_, grid)| shares(grid)).collect();
        let named: Vec<(&str, &Grid)> =
            methods.iter().zip(&parts).map(|((name, _), part)| (name.as_str(), part)).collect();
        let (agreement, silent) = agreement_of(&among(&named, &vec![true; named.len()], true))?;
        for name in silent {
            notes.push(format!("{name}: no agreement to tell, too few cells or all alike"));
        }
        let (signed_agreement, _) = agreement_of(&among(&named, &signed, false))?;
        let mut stacked = Grid::stack(Axis::Series, &named)?.name("importance of each token");
        stacked.zero_one = None;
        Ok(Importance {
            shares: stacked,
            agreement: agreement.name("agreement on which tokens matter"),
            signed_agreement: signed_agreement.name("agreement on which tokens speak for it"),
            methods,
            notes,
            signed,
            tokens: tokens.clone(),
        })
    }

    /// The numbers of one method as measured, by its name.
    pub fn method(&self, name: &str) -> Result<&Grid> {
        let names = || self.methods.iter().map(|(own, _)| own.as_str());
        let at = names().position(|own| own == name);
        let at = at.ok_or_else(|| {
            anyhow!("no method {name:?}; there are {}", names().collect::<Vec<_>>().join(", "))
        })?;
        Ok(&self.methods[at].1)
    }

    /// The same by word: the pieces of a word are added up, and shares and agreement are those of
    /// words.
    pub fn by_word(&self) -> Result<Importance> {
        let methods = self
            .methods
            .iter()
            .map(|(name, grid)| Ok((name.clone(), by_word(grid, &self.tokens)?)));
        let methods = methods.collect::<Result<Vec<_>>>()?;
        Importance::new(methods, self.signed.clone(), &self.tokens, self.notes.clone())
    }

    /// Shows the shares in a notebook, a row a method.
    pub fn evcxr_display(&self) {
        show_value(self);
    }
}

impl Show for Importance {
    fn content(&self) -> Content {
        self.shares.content()
    }
}

/// One line: each method's agreement with the causal one.
impl fmt::Debug for Importance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (causal, width) = (&self.methods[0].0, self.tokens.width());
        write!(f, "importance of {width} tokens by {} methods", self.methods.len())?;
        write!(f, ", Spearman with {causal}:")?;
        let labels = &self.agreement.axes[0].labels;
        let has_causal = labels.first() == Some(causal);
        for (at, label) in labels.iter().enumerate().skip(1).filter(|_| has_causal) {
            let cell = IxDyn(&[0, at]);
            write!(f, " {label} {:.2}", self.agreement.values[&cell])?;
            if let Some(bounds) = &self.agreement.interval {
                write!(f, " [{:.2}, {:.2}]", bounds.low[&cell], bounds.high[&cell])?;
            }
            f.write_str(",")?;
        }
        write!(f, " n = {}", self.agreement.n)?;
        self.notes.iter().try_for_each(|note| write!(f, "; {note}"))
    }
}

/// Values over the sum of their magnitudes, prompt by prompt.
fn shares(grid: &Grid) -> Grid {
    let mut shared = grid.map(|value| value).unit("share");
    (shared.code, shared.zero_one) = (None, None);
    let rows = if grid.axes.len() > 1 { grid.shape()[0] } else { 1 };
    let width = grid.values.len() / rows.max(1);
    let mut sums = vec![0.0; rows];
    for (index, value) in grid.present() {
        sums[if index.len() > 1 { index[0] } else { 0 }] += value.abs();
    }
    for (at, value) in shared.values.iter_mut().enumerate() {
        let sum = sums[at / width];
        *value = if sum > 0.0 { *value / sum } else { 0.0 };
    }
    shared
}
