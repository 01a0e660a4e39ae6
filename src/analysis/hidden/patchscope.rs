//! Patchscopes: a state of one prompt read out by another prompt.
//!
//! Ghandeharioun et al. 2024, "Patchscopes: A Unifying Framework for Inspecting Hidden
//! Representations", <https://arxiv.org/abs/2401.06102>. The state at a layer and position of a source
//! prompt, changed by a map, replaces that at a layer and position of a target prompt. Replacing the
//! last state at the last position is the logit lens, whatever the target prompt says.

use std::fmt;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use ndarray::{Array2, ArrayD};
use tch::{Kind, Tensor};

use super::states::{mean_interval, recorded, states};
use crate::grid::{Grid, GridAxis};
use crate::hook::intervention::Intervention;
use crate::hook::metric::Metric;
use crate::hook::plan::Plan;
use crate::hook::site::{Axis, Point, Site};
use crate::index::Position;
use crate::model::Model;
use crate::record::Origin;
use crate::show::progress;
use crate::text::Tokens;

/// A map of states `[Batch, DModel]`, given the source's and the target's rung.
type Map = Arc<dyn Fn(usize, usize, &Tensor) -> Result<Tensor> + Send + Sync>;

/// Which state goes where. The stream's rungs are counted from the embedding, rung 0; rung `l + 1`
/// is `ResidPost` of layer `l`.
///
/// ```
/// use thalweg::{Axis, Metric, Model, Patchscope};
/// let model = Model::load("data/models/tiny-world")?;
/// let source = model.tokens("The capital of Japan is")?;
/// let target = model.tokens("Italy : Italy ; Kenya : Kenya ; Peru :")?;
/// let scope = Patchscope::new(&model, (&source, source.find("Japan")?), (&target, target.find("Peru")?))?;
/// let grid = scope.grid(&Metric::log_prob(model.token("Japan")?))?;
/// assert_eq!(grid.shape(), [5, 5]); // source rung, target rung
/// # thalweg::anyhow::Ok(())
/// ```
#[derive(Clone)]
pub struct Patchscope {
    model: Model,
    source: Tokens,
    from: Position,
    /// As many rows as the source has.
    target: Tokens,
    to: Position,
    map: Option<(String, Map)>,
}

impl fmt::Debug for Patchscope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Patchscope {:?} at {:?} into ", self.source, self.from)?;
        write!(f, "{:?} at {:?}", self.target, self.to)?;
        match &self.map {
            Some((label, _)) => write!(f, " through {label:?}"),
            None => Ok(()),
        }
    }
}

impl Patchscope {
    /// Source prompts and target prompts, each with a position. One target serves every source.
    pub fn new(
        model: &Model,
        (source, from): (&Tokens, impl Into<Position>),
        (target, to): (&Tokens, impl Into<Position>),
    ) -> Result<Self> {
        let (from, mut to) = (from.into(), to.into());
        let n = source.batch();
        ensure!(
            target.batch() == n || target.batch() == 1,
            "patchscope: {n} source prompts and {} target prompts, expected as many or one",
            target.batch()
        );
        source.places(&from).map_err(|error| anyhow::anyhow!("patchscope: source: {error}"))?;
        let places =
            target.places(&to).map_err(|error| anyhow::anyhow!("patchscope: target: {error}"))?;
        let mut target = target.clone();
        if target.batch() < n {
            to = Position::PerRow(vec![places[0][0] as i64; n]);
            target = target.rows(&vec![0; n])?;
        }
        let (model, source) = (model.clone(), source.clone());
        Ok(Patchscope { model, source, from, target, to, map: None })
    }

    /// Changes the state on its way: `map(source rung, target rung, [Batch, DModel])`, of the same
    /// shape. The label is what results are noted with.
    pub fn map(
        mut self,
        label: &str,
        map: impl Fn(usize, usize, &Tensor) -> Result<Tensor> + Send + Sync + 'static,
    ) -> Self {
        self.map = Some((label.to_owned(), Arc::new(map)));
        self
    }

    /// A metric of the target prompt, for every rung of source and target: `[Layer, Series]`, the
    /// source's rungs as `Layer`, the target's as `Series`. Of several prompts the mean, with its
    /// 95 % interval.
    pub fn grid(&self, metric: &Metric) -> Result<Grid> {
        let ((states, runs), n) = (self.states()?, self.rungs().len());
        let plans = (0..n * n).map(|cell| self.placed(&states, cell / n, cell % n));
        let plans = plans.collect::<Result<Vec<_>>>()?;
        let swept = self.model.sweep(&self.target, &plans, metric)?;
        let rows = self.target.batch();
        let cells = (0..n * n).map(|plan| {
            let own: Vec<f64> =
                (0..rows).map(|row| swept.values.values[[plan, row].as_slice()]).collect();
            mean_interval(&own)
        });
        let cells: Vec<_> = cells.collect();
        let part = |of: fn(&(f64, f64, f64)) -> f64| {
            ArrayD::from_shape_vec(vec![n, n], cells.iter().map(of).collect())
        };
        let grid = self.labelled(part(|cell| cell.0)?, metric.unit())?;
        let grid = match rows {
            1 => grid,
            _ => grid.interval(
                part(|cell| cell.1)?,
                part(|cell| cell.2)?,
                "95 % normal interval over prompts",
            )?,
        };
        Ok(grid.n(rows).of_runs(runs).name(&format!("patchscope: {metric:?}")))
    }

    /// The most likely next token after the last of the target prompt, for every rung of source and
    /// target; for one source prompt.
    pub fn top(&self) -> Result<PatchscopeTop> {
        let rows = self.source.batch();
        ensure!(rows == 1, "patchscope: {rows} source prompts, expected one for its top tokens");
        let ((states, runs), n) = (self.states()?, self.rungs().len());
        let (mut prob, mut pieces) = (Vec::new(), Vec::new());
        for cell in progress(0..n * n, "patchscope").unit("runs") {
            let plan = self.placed(&states, cell / n, cell % n)?.logits_at(-1);
            let logits = self.model.run(&self.target, &plan)?.logits.flatten(0, 1);
            let (best, id) = logits.softmax(-1, Kind::Double).max_dim(-1, false);
            prob.push(best.double_value(&[0]));
            pieces.push(self.model.piece(id.int64_value(&[0])));
        }
        let prob = self.labelled(ArrayD::from_shape_vec(vec![n, n], prob)?, "probability")?;
        let prob = prob.of_runs(runs).name("patchscope: most likely token");
        Ok(PatchscopeTop { prob, pieces: Array2::from_shape_vec((n, n), pieces)? })
    }

    /// The plan that puts one rung of the source in one rung of the target, to run or to generate
    /// with on the target prompt.
    pub fn plan(&self, source: usize, target: usize) -> Result<Plan> {
        let last = self.rungs().len() - 1;
        ensure!(
            source <= last && target <= last,
            "patchscope: rungs {source} and {target}, expected 0 (the embedding) to {last}"
        );
        self.placed(&self.states()?.0, source, target)
    }

    fn rungs(&self) -> Vec<(String, Site)> {
        let blocks = (0..self.model.config().n_layers)
            .map(|layer| (format!("L{layer}"), Point::ResidPost.at(layer)));
        std::iter::once(("embed".to_owned(), Site::Embed)).chain(blocks).collect()
    }

    fn states(&self) -> Result<(Vec<Tensor>, Vec<Origin>)> {
        let sites: Vec<Site> = self.rungs().into_iter().map(|(_, site)| site).collect();
        states("patchscope", (&self.model, &self.source), &sites, &self.from)
    }

    fn placed(&self, states: &[Tensor], source: usize, target: usize) -> Result<Plan> {
        let own = &states[source];
        let state = match &self.map {
            Some((label, map)) => {
                let mapped = map(source, target, own)
                    .with_context(|| format!("patchscope: the map {label:?} failed"))?;
                ensure!(
                    mapped.size() == own.size(),
                    "patchscope: the map {label:?} made {:?} of {:?}, expected the same shape",
                    mapped.size(),
                    own.size()
                );
                mapped
            }
            None => own.shallow_clone(),
        };
        let state = state.to_kind(self.model.kind()).to_device(self.model.device()).unsqueeze(1);
        let site = self.rungs()[target].1;
        Ok(Plan::new().intervene(site, Intervention::set(&state).pos(&self.to)))
    }

    fn labelled(&self, values: ArrayD<f64>, unit: &str) -> Result<Grid> {
        let labels: Vec<String> = self.rungs().into_iter().map(|(label, _)| label).collect();
        let into = labels.iter().map(|label| format!("into {label}")).collect();
        let axes = vec![
            GridAxis { axis: Axis::Layer, labels },
            GridAxis { axis: Axis::Series, labels: into },
        ];
        let map = self.map.as_ref().map_or("none", |(label, _)| label.as_str());
        Ok(recorded(Grid::new(values, axes, unit)?, &self.model, &self.target)?
            .note("source", &format!("{:?} at {:?}", self.source, self.from))
            .note("target", &format!("{:?} at {:?}", self.target, self.to))
            .note("map", map))
    }
}

/// What the target prompt says at every rung of source and target.
#[derive(Clone)]
pub struct PatchscopeTop {
    /// Probability of the most likely token, 0..1: `[Layer, Series]`.
    pub prob: Grid,
    /// That token, in the same order: the text of a heatmap's cells.
    pub pieces: Array2<String>,
}

impl fmt::Debug for PatchscopeTop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.prob, f)
    }
}
