//! Attribution patching: what activation patching would do, estimated by one gradient.
//!
//! Nanda 2022, "Attribution Patching", <https://www.neelnanda.io/mechanistic-interpretability/attribution-patching>;
//! Kramár et al. 2024, "AtP*", <https://arxiv.org/abs/2403.00745> (the QK fix);
//! Jafari et al. 2025, "RelP", <https://arxiv.org/abs/2508.21258>.
//!
//! The effect of patching an activation is, to first order, its change times the gradient of the
//! metric in the run that receives it: two forward passes and one backward pass for all cells at
//! once. It is exact where the rest of the model is linear, and fails where it bends: saturated
//! attention has no gradient although patching its query moves everything, and norms divide. The
//! QK fix mends the former, RelP the latter; [`compare`](crate::Estimates::compare) says how far
//! an estimate can be trusted.

use std::fmt;

use anyhow::{Result, ensure};
use tch::Tensor;

use super::qk;
use super::{check_axes, labels, looking_at, noted, sum_to, value};
use crate::analysis::direction::Direction;
use crate::analysis::effect::scale;
use crate::analysis::frame;
use crate::analysis::patching::Patching;
use crate::grid::Grid;
use crate::hook::cache::Cache;
use crate::hook::freeze::Freeze;
use crate::hook::metric::Metric;
use crate::hook::plan::{Attention, Plan, exists};
use crate::hook::site::{Axis, Point, Site};
use crate::hook::sites::Sites;
use crate::model::forward::wide;
use crate::model::{Model, Run};
use crate::show::progress;
use crate::text::Tokens;

/// What to estimate: the metric, the direction of the patch, the places.
///
/// ```
/// use thalweg::{AttributionPatching, Axis, Direction, Metric, Model, Point};
/// let model = Model::load("data/models/tiny-world")?;
/// let clean = model.tokens("When Mary and John went to the store , John gave a drink to")?;
/// let corrupt = model.tokens("When Mary and John went to the store , Mary gave a drink to")?;
/// let metric = Metric::logit_diff(model.token("Mary")?, model.token("John")?);
/// let estimates = AttributionPatching::new(&metric, Direction::Denoise)
///     .points([Point::Z, Point::ResidPre])
///     .run(&model, &clean, &corrupt)?;
/// let heads = estimates.grid(Point::Z, &[Axis::Head])?;
/// assert_eq!(heads.axes.len(), 2); // Layer, Head
/// let stream = estimates.grid(Point::ResidPre, &[Axis::Pos])?;
/// assert_eq!(stream.axes[1].axis, Axis::Pos);
/// let comparison = estimates.compare(Point::Z, &[Axis::Head])?; // a run for each head
/// assert!(comparison.pearson > 0.9, "{comparison}");
/// # thalweg::anyhow::Ok(())
/// ```
#[derive(Debug, Clone)]
pub struct AttributionPatching {
    pub(super) metric: Metric,
    direction: Direction,
    sites: Sites,
    frozen: Vec<Freeze>,
    qk_fix: bool,
    pub(super) grad_drop: bool,
    pub(super) normalised: bool,
}

impl AttributionPatching {
    /// Estimates of the change of `metric` when the receiving run is patched.
    pub fn new(metric: &Metric, direction: Direction) -> Self {
        AttributionPatching {
            metric: metric.clone(),
            direction,
            sites: Sites::default(),
            frozen: Vec::new(),
            qk_fix: false,
            grad_drop: false,
            normalised: false,
        }
    }

    /// The places to be patched: a [`Point`], a [`Site`], a list of either.
    pub fn points(mut self, sites: impl Into<Sites>) -> Self {
        self.sites = vec![self.sites, sites.into()].into();
        self
    }

    /// Takes the gradient with a part frozen at the receiving run's values: `Freeze::RelP` for
    /// RelP's estimates. The notes of the [`Estimates`] say what it is blind to.
    pub fn freeze(mut self, what: Freeze) -> Self {
        self.frozen.push(what);
        self
    }

    /// For queries and keys, computes the pattern that patching would give and multiplies its
    /// change with the gradient at the pattern, so that saturated softmax hides nothing. Each cell
    /// is a query or key patched alone; attention runs step by step.
    pub fn qk_fix(mut self) -> Self {
        self.qk_fix = true;
        self
    }

    /// AtP*'s GradDrop: one gradient for each layer, that layer's block frozen, so that effects along
    /// different paths that cancel in one gradient do not hide a cell. What is reported is the mean
    /// magnitude, without a sign; it costs a run with gradients a layer.
    pub fn grad_drop(mut self) -> Self {
        self.grad_drop = true;
        self
    }

    /// Reports the share of the difference between the two runs' metrics, each prompt's own: 0 is
    /// the receiving run, 1 the source.
    pub fn normalised(mut self) -> Self {
        self.normalised = true;
        self
    }

    /// Two forward passes, one of them with its backward pass. Clean and corrupt prompts must agree
    /// in length, row by row.
    pub fn run(&self, model: &Model, clean: &Tokens, corrupt: &Tokens) -> Result<Estimates> {
        let pair = Patching::new(model, clean, corrupt)?.direction(self.direction);
        ensure!(
            !self.sites.is_empty(),
            "attribution patching: no place named: expected .points(Point::Z) or others"
        );
        let mut sites = self.sites.resolve(model.config().n_layers);
        let blind = |what: &Freeze| !matches!(what, Freeze::Norm | Freeze::Gate | Freeze::Block(_));
        if self.qk_fix {
            ensure!(
                !self.frozen.iter().any(blind),
                "qk_fix: not with a frozen pattern, whose gradient is 0"
            );
            sites.extend(qk::needed(&sites));
        }
        sites.sort();
        sites.dedup();
        let (source, receiver) = pair.runs();
        let plan = looking_at(Plan::new().cache(sites.clone()), &self.metric, &sites);
        let watched = |site: &Site| matches!(site.point(), Some(Point::Scores | Point::Pattern));
        let plan = match sites.iter().any(watched) || self.frozen.iter().any(blind) {
            true => plan.attention(Attention::Eager),
            false => plan,
        };
        let from = model.run(source, &plan)?;
        let plan = self.frozen.iter().fold(plan, |plan, what| plan.freeze_own(*what));
        let plan = plan.gradients(self.metric.clone());
        let (to, gradients) = self.backward(model, receiver, &plan)?;
        let values = [(&from, source), (&to, receiver)];
        let [before, after] = values.map(|(run, tokens)| value(&self.metric, run, tokens));
        Ok(Estimates {
            settings: self.clone(),
            source_metric: Vec::try_from(before?)?,
            receiver_metric: Vec::try_from(after?)?,
            pair: pair.clone(),
            source: from.cache,
            receiver: to.cache,
            gradients,
            notes: to.notes,
        })
    }

    /// The receiving run, and its gradients: one set, or one for each block dropped.
    fn backward(&self, model: &Model, tokens: &Tokens, plan: &Plan) -> Result<(Run, Vec<Cache>)> {
        let mut run = model.run(tokens, plan)?;
        if !self.grad_drop {
            let gradients = run.gradients.take().into_iter().collect();
            return Ok((run, gradients));
        }
        let n_layers = model.config().n_layers;
        ensure!(n_layers > 1, "grad_drop: the model has 1 layer, nothing is left without it");
        let mut each = Vec::new();
        for layer in progress(0..n_layers, "GradDrop").unit("layers") {
            let plan = plan.clone().freeze_own(Freeze::Block(layer));
            each.extend(model.run(tokens, &plan)?.gradients);
        }
        Ok((run, each))
    }
}

/// What [`AttributionPatching`] found: the source's and the receiver's activations and the
/// receiver's gradients, to be summed to any cells.
#[derive(Clone)]
pub struct Estimates {
    pub(super) pair: Patching,
    pub(super) settings: AttributionPatching,
    pub(super) source: Cache,
    pub(super) receiver: Cache,
    /// One set, or one for each block that GradDrop drops.
    pub(super) gradients: Vec<Cache>,
    /// The metric of the run that patches come from, one number a prompt.
    pub source_metric: Vec<f64>,
    /// The metric of the run that receives them.
    pub receiver_metric: Vec<f64>,
    /// What the reader of the numbers should know: what frozen parts are blind to.
    pub notes: Vec<String>,
}

impl Estimates {
    /// The estimated change of the metric for each layer and each entry of the axes in `by`, summed
    /// over the others: `[Layer, ..by]`, or `[Batch, Layer, ..by]` for several prompts. `Layer` may
    /// be named in `by` and always comes first.
    ///
    /// Cells of padding and of keys after their query are missing.
    pub fn grid(&self, point: Point, by: &[Axis]) -> Result<Grid> {
        let by: Vec<Axis> = by.iter().copied().filter(|axis| *axis != Axis::Layer).collect();
        let n_layers = self.receiver.n_layers();
        let layers = (0..n_layers).map(|layer| self.cells(point.at(layer), &by));
        let values = Tensor::stack(&layers.collect::<Result<Vec<_>>>()?, 1);
        self.labelled(point.at(0), point.name(), &values, &[&[Axis::Layer], &by[..]].concat())
    }

    /// The same at one site, without the axis `Layer`.
    pub fn at(&self, site: Site, by: &[Axis]) -> Result<Grid> {
        self.labelled(site, &site.to_string(), &self.cells(site, by)?, by)
    }

    /// `[Batch, ..by]`, f64.
    fn cells(&self, site: Site, by: &[Axis]) -> Result<Tensor> {
        let each = self.gradients.iter().map(|gradients| self.cells_by(gradients, site, by));
        let each = each.collect::<Result<Vec<_>>>()?;
        if !self.settings.grad_drop {
            return Ok(Tensor::stack(&each, 0).sum_dim_intlist([0i64].as_slice(), false, None));
        }
        // A cell inside a block has no gradient where its own block is dropped.
        let own_block = site.point().is_some_and(is_inside);
        let n = each.len() - usize::from(own_block);
        let sum = Tensor::stack(&each, 0).abs().sum_dim_intlist([0i64].as_slice(), false, None);
        Ok(sum / n as f64)
    }

    fn cells_by(&self, gradients: &Cache, site: Site, by: &[Axis]) -> Result<Tensor> {
        let fixed = match site.point() {
            Some(Point::Q | Point::RotQ) => Some((qk::queries as qk::Fix, Axis::Head)),
            Some(Point::K | Point::RotK) => Some((qk::keys as qk::Fix, Axis::KvHead)),
            _ => None,
        };
        let _guard = tch::no_grad_guard();
        if let (true, Some((fix, head))) = (self.settings.qk_fix, fixed) {
            let have = [Axis::Pos, head];
            check_axes(by, site, &have)?;
            let layer = site.layer().unwrap_or(0);
            return Ok(sum_to(&fix(self, gradients, layer)?, &have, by));
        }
        let have = &site.axes()[1..];
        check_axes(by, site, have)?;
        let [to, gradient] = [&self.receiver, gradients].map(|cache| cache.get(site));
        let difference = self.source.get(site)? - to?;
        let difference = match site.point() {
            Some(Point::Scores) => {
                // -inf less -inf: pairs that do not exist do not change.
                let absent = exists(self.receiver.tokens(), difference.device()).logical_not();
                difference.masked_fill(&absent, 0.0)
            }
            _ => difference,
        };
        let gradient = gradient?;
        Ok(sum_to(&(difference * gradient.to_kind(wide(gradient.kind()))), have, by))
    }

    fn labelled(&self, site: Site, name: &str, values: &Tensor, axes: &[Axis]) -> Result<Grid> {
        let tokens = self.receiver.tokens();
        let values = &self.scaled(values)?;
        let (size, places) = (values.size(), self.pair.position_labels());
        let named = axes.iter().zip(&size[1..]);
        let named = named.map(|(axis, len)| (*axis, labels(*axis, *len, &places)));
        let unit = self.settings.metric.unit();
        let grid = frame::batched(&self.receiver, values, &named.collect::<Vec<_>>(), unit)?;
        let grid = frame::hide(grid, tokens, 0)?;
        let method = self.settings.method(site);
        let grid = grid
            .name(&format!("{method} of {name}"))
            .note("direction", &self.settings.direction.to_string())
            .note("method", &method)
            .of_runs(self.source.origin().cloned());
        let grid = match self.notes.is_empty() {
            true => grid,
            false => grid.note("note", &self.notes.join("; ")),
        };
        let grid = match self.settings.normalised {
            true => {
                let (from, to) = self.settings.direction.order("clean", "corrupt");
                let unit = format!("share of {:?} moved", self.settings.metric);
                grid.zero_one(&format!("the {to} run"), &format!("the {from} run")).unit(&unit)
            }
            false => grid,
        };
        Ok(noted(grid, &self.pair.model, &self.settings.metric))
    }

    /// As shares of each prompt's difference, if asked: `values [Batch, ..]`.
    fn scaled(&self, values: &Tensor) -> Result<Tensor> {
        if !self.settings.normalised {
            return Ok(values.shallow_clone());
        }
        let setting = (&self.pair.model, &self.settings.metric);
        let ends = (&self.receiver_metric[..], &self.source_metric[..]);
        let apart = scale("attribution patching", setting, ends, true)?;
        let mut shape = vec![1; values.dim()];
        shape[0] = -1;
        Ok(values / Tensor::from_slice(&apart).to_device(values.device()).view(&shape[..]))
    }
}

/// Whether a point lies inside its block, not on the stream.
fn is_inside(point: Point) -> bool {
    !matches!(point, Point::ResidPre | Point::ResidMid | Point::ResidPost)
}

impl fmt::Debug for Estimates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Estimates { settings, source_metric: from, receiver_metric: to, .. } = self;
        let (places, metric) = (&settings.sites, &settings.metric);
        write!(f, "Estimates of patching {places}, {}: {metric:?} ", settings.direction)?;
        write!(f, "{from:?} at the source, {to:?} in the receiving run")
    }
}

impl AttributionPatching {
    /// In words, as titles and provenance say it.
    fn method(&self, site: Site) -> String {
        let in_qk = |point| matches!(point, Point::Q | Point::RotQ | Point::K | Point::RotK);
        let fix = self.qk_fix && site.point().is_some_and(in_qk);
        let frozen: Vec<String> = self.frozen.iter().map(Freeze::to_string).collect();
        let drop = if self.grad_drop { " with GradDrop" } else { "" };
        match (fix, frozen.is_empty()) {
            (true, _) => {
                format!("attribution patching with QK fix{}", drop.replace(" with", " and"))
            }
            (false, true) => format!("attribution patching{drop}"),
            (false, false) if self.frozen == [Freeze::RelP] => "RelP".to_owned(),
            _ => format!("attribution patching, frozen {}", frozen.join(", ")),
        }
    }
}
