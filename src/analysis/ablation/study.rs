//! An ablation study: every component of a set under every baseline, side by side.
//!
//! What a component does is not one number: zeros lie off the model's distribution, a mean keeps what all
//! prompts share, a resample keeps the distribution and mixes up the prompt, and the optimal constant keeps
//! no more than it must (Li and Janson 2024, <https://arxiv.org/abs/2409.09951>). Where the baselines do
//! not agree on a ranking ([`AblationStudy::agreement`]), it is the baseline that was measured.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use ndarray::ArrayD;

use super::baseline::Ablation;
use super::component::Component;
use crate::analysis::agreement;
use crate::analysis::effect::mean_text;
use crate::grid::{Grid, GridAxis};
use crate::hook::intervention::Intervention;
use crate::hook::metric::Metric;
use crate::hook::plan::Plan;
use crate::hook::site::{Axis, Site};
use crate::model::{Model, SweepOptions};
use crate::show::{Bar, Content, Show, show_value};
use crate::text::Tokens;

/// What stands in for one component in one draw.
pub(super) type Parts = Vec<(Site, Intervention)>;

/// The change of a metric without each component of a set, under several baselines.
#[derive(Clone)]
#[non_exhaustive]
pub struct AblationStudy {
    /// Change of the metric, in its unit, 0 the unedited run: `[Series, Component]`, a series a
    /// baseline; the mean over prompts with its 95 % interval, where there are several.
    pub effects: Grid,
    /// The same of each prompt: `[Series, Batch, Component]`.
    pub each: Grid,
    /// The components, in the order of the grids' axis.
    pub components: Vec<Component>,
    /// The metric of the unedited run, one number a prompt.
    pub base: Vec<f64>,
    /// By baseline, draw and component.
    pub(super) parts: Vec<Vec<Vec<Parts>>>,
    pub(super) tokens: Tokens,
    pub(super) metric: Metric,
}

/// Takes out every component in turn, under every baseline, on the same prompts. Baselines whose
/// labels are equal are numbered in the order given. A projection takes no neurons.
///
/// ```
/// use thalweg::{Ablation, AblationStudy, Component, Metric, Model, ablation_study, repeated_tokens};
/// let model = Model::load("data/models/tiny-world")?;
/// let (tokens, others) = (repeated_tokens(&model, 8, 8, 0)?, repeated_tokens(&model, 8, 8, 1)?);
/// let loss = Metric::loss_at(10..); // over the second copy
/// let components = [Component::attentions(model.config()), Component::mlps(model.config())].concat();
/// let baselines = [Ablation::zero(), Ablation::mean(&others), Ablation::resample(&others, 2, 7)];
/// let study: AblationStudy = ablation_study(&model, &tokens, &components, &baselines, &loss)?;
/// assert_eq!(study.effects.shape(), [3, 8]);
/// let ranking = study.ranking(1)?; // under the mean, the largest effect first
/// assert!(ranking[0].1.abs() > 5.0 * ranking[7].1.abs());
/// let curve = study.knock_out(&model, 1, 4, 7)?; // by rank, beside four random orders
/// assert_eq!(curve.grid()?.shape(), [2, 9]);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn ablation_study(
    model: &Model,
    tokens: &Tokens,
    components: &[Component],
    baselines: &[Ablation],
    metric: &Metric,
) -> Result<AblationStudy> {
    ensure!(!components.is_empty(), "ablation_study: no components, expected at least one");
    ensure!(!baselines.is_empty(), "ablation_study: no baselines, expected at least one");
    for (i, component) in components.iter().enumerate() {
        component.check(model.config())?;
        ensure!(
            !components[..i].contains(component),
            "ablation_study: {component} is listed twice"
        );
    }
    let labels = labels(components, baselines)?;
    let (mut parts, mut rows, mut origins, mut base) = (vec![], vec![], vec![], vec![]);
    for baseline in baselines {
        let (draws, origin) = prepared(model, tokens, components, baseline)?;
        origins.extend(origin);
        let plans: Vec<Plan> =
            draws.iter().flat_map(|draw| draw.iter().map(|part| plan([part]))).collect();
        let (values, own) = swept(model, tokens, &plans, metric)?;
        let (n, count) = (tokens.batch(), components.len());
        // the mean over draws, prompt by prompt
        for prompt in 0..n {
            for component in 0..count {
                let draw = |draw: usize| values[draw * count + component][prompt] - own[prompt];
                rows.push((0..draws.len()).map(draw).sum::<f64>() / draws.len() as f64);
            }
        }
        parts.push(draws);
        base = own;
    }
    let axis = |axis, labels| GridAxis { axis, labels };
    let axes = vec![
        axis(Axis::Series, labels),
        axis(Axis::Batch, (0..tokens.batch()).map(|row| row.to_string()).collect()),
        axis(Axis::Component, components.iter().map(ToString::to_string).collect()),
    ];
    let shape: Vec<usize> = axes.iter().map(GridAxis::len).collect();
    let plain = model.run(tokens, &Plan::new().logits_at(-1))?.cache;
    let each = Grid::new(ArrayD::from_shape_vec(shape, rows)?, axes, metric.unit())?
        .name(&format!("change of {metric:?} without each component"))
        .note("metric", &format!("{metric:?}"))
        .note("model", &format!("{model:?}"))
        .note("unedited run", &mean_text(&base))
        .of_runs(plain.origin().cloned())
        .of_runs(origins);
    let mut effects = match tokens.batch() {
        1 => each.select(Axis::Batch, 0)?,
        _ => each.mean_interval(Axis::Batch)?,
    };
    effects.provenance.remove(&Axis::Batch.to_string());
    if let Some(interval) = &mut effects.interval {
        interval.method = "95 % normal interval over prompts".to_owned();
    }
    let (components, tokens, metric) = (components.to_vec(), tokens.clone(), metric.clone());
    Ok(AblationStudy { effects, each, components, base, parts, tokens, metric })
}

impl AblationStudy {
    /// Every component with its effect under one baseline (counted from 0, as given), the largest
    /// magnitude first.
    pub fn ranking(&self, baseline: usize) -> Result<Vec<(Component, f64)>> {
        self.label(baseline)?;
        let own = self.effects.select(Axis::Series, baseline as i64)?;
        let ranked = own.ranked().into_iter();
        Ok(ranked.map(|cell| (self.components[cell.index[0]], cell.value)).collect())
    }

    /// How alike the baselines rank the components: see [`agreement`](crate::agreement). Prompt by
    /// prompt, where there are several.
    pub fn agreement(&self) -> Result<Grid> {
        let count = self.parts.len();
        let own: Vec<Grid> =
            (0..count).map(|i| self.each.select(Axis::Series, i as i64)).collect::<Result<_>>()?;
        let labels = self.each.labels(Axis::Series)?.iter().map(String::as_str);
        agreement(&labels.zip(&own).collect::<Vec<_>>())
    }

    /// A baseline's name.
    pub(super) fn label(&self, baseline: usize) -> Result<&str> {
        let labels = self.effects.labels(Axis::Series)?;
        let label = labels.get(baseline).map(String::as_str);
        label.with_context(|| {
            format!("no baseline {baseline}: there are {labels:?}, counted from 0")
        })
    }

    /// Shows the table of effects in a notebook.
    pub fn evcxr_display(&self) {
        show_value(self);
    }
}

impl Show for AblationStudy {
    fn content(&self) -> Content {
        Content::text(format!("{self:?}")).with("text/html", self.effects.to_html())
    }
}

/// One line: how many components under which baselines, and the first of each ranking.
impl fmt::Debug for AblationStudy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, prompts) = (self.components.len(), self.base.len());
        write!(
            f,
            "Ablation of {count} components on {prompts} prompts, change of {:?}",
            self.metric
        )?;
        for baseline in 0..self.parts.len() {
            let (Ok(label), Ok(ranking)) = (self.label(baseline), self.ranking(baseline)) else {
                continue;
            };
            if let Some((first, effect)) = ranking.first() {
                write!(f, "; {label}: {first} {effect:+.3}")?;
            }
        }
        Ok(())
    }
}

/// The baselines' names, equal ones numbered; fails where a baseline is of no use.
fn labels(components: &[Component], baselines: &[Ablation]) -> Result<Vec<String>> {
    let neuron = components.iter().find(|component| matches!(component, Component::Neuron(..)));
    let mut labels = Vec::new();
    for (i, baseline) in baselines.iter().enumerate() {
        let label = baseline.label();
        if let (true, Some(neuron)) = (baseline.is_projection(), neuron) {
            bail!(
                "ablation_study: {neuron} under {label:?}: a projection takes the last axis whole; leave \
                 neurons out"
            );
        }
        // A label holds counts: others of the same label may be of other prompts or directions.
        let before = baselines[..i].iter().filter(|other| other.label() == label).count();
        ensure!(
            before == 0 || !baseline.is_zero(),
            "ablation_study: the baseline {label:?} is listed twice"
        );
        labels.push(match before {
            0 => label.to_owned(),
            _ => format!("{label} ({})", before + 1),
        });
    }
    Ok(labels)
}

/// What stands in for each component, draw by draw.
fn prepared(
    model: &Model,
    tokens: &Tokens,
    components: &[Component],
    baseline: &Ablation,
) -> Result<(Vec<Vec<Parts>>, Option<crate::record::Origin>)> {
    if let Some(optimal) = baseline.each_its_own() {
        let mut bar = Bar::new("optimal constants", components.len()).unit("components");
        let mut one = |component: &Component| {
            let parts = optimal.constants(model, *component);
            bar.add(1);
            parts
        };
        let parts = components.iter().map(&mut one).collect::<Result<Vec<_>>>()?;
        return Ok((vec![parts], None));
    }
    let mut sites: Vec<Site> = components.iter().flat_map(|component| component.sites()).collect();
    sites.sort();
    sites.dedup();
    let (draws, origin) = baseline.draws(model, tokens, &sites)?;
    let part = |component: &Component, draw: &Vec<Intervention>| -> Parts {
        let each = |site: Site| draw.iter().map(move |what| (site, component.narrow(what.clone())));
        component.sites().into_iter().flat_map(each).collect()
    };
    let of_draw = |draw| components.iter().map(|component| part(component, draw)).collect();
    Ok((draws.iter().map(of_draw).collect(), origin))
}

/// The plan that takes all of these out.
pub(super) fn plan<'a>(parts: impl IntoIterator<Item = &'a Parts>) -> Plan {
    parts
        .into_iter()
        .flatten()
        .fold(Plan::new(), |plan, (site, what)| plan.intervene(*site, what.clone()))
}

/// The metric of each prompt under each plan, and in the unedited run.
pub(super) fn swept(
    model: &Model,
    tokens: &Tokens,
    plans: &[Plan],
    metric: &Metric,
) -> Result<(Vec<Vec<f64>>, Vec<f64>)> {
    let mut bar = Bar::new("ablation", plans.len()).unit("plans");
    let (mut values, mut base) = (Vec::new(), Vec::new());
    for part in plans.chunks(crate::analysis::cells::CHUNK) {
        let swept = model.sweep_with(tokens, part, metric, SweepOptions::new().within(&mut bar))?;
        values.extend(swept.values.values.outer_iter().map(|row| row.iter().copied().collect()));
        base = swept.base;
    }
    Ok((values, base))
}
