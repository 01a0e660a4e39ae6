//! Steering vectors: a difference of means added to the stream, at several strengths.
//!
//! Rimsky et al. 2023, "Steering Llama 2 via Contrastive Activation Addition",
//! <https://arxiv.org/abs/2312.06681>; Turner et al. 2023, <https://arxiv.org/abs/2308.10248>.
//!
//! Any push of this size changes something: beside the vector stand random directions of its length
//! and differences between prompts whose labels are shuffled.

use std::fmt;

use anyhow::{Context, Result, ensure};
use ndarray::ArrayD;
use tch::{Kind, Tensor};

use super::states::{
    central, checked, mean_interval, probability, random_like, recorded, rescaled, states,
};
use crate::grid::{Grid, GridAxis};
use crate::hook::intervention::Intervention;
use crate::hook::metric::{Answers, Metric};
use crate::hook::plan::Plan;
use crate::hook::site::{Axis, Site};
use crate::index::{Index, Position, Positions};
use crate::model::Model;
use crate::record::Origin;
use crate::rng::Rng;
use crate::text::Tokens;

/// Shuffles of labels before they are taken to make no difference.
const TRIES: usize = 1000;

/// A direction at a site, with the activations it is the difference of.
pub struct SteeringVector {
    /// Where it is added.
    pub site: Site,
    /// Mean of the positive prompts less that of the negative ones: `[D]`, f64.
    pub direction: Tensor,
    /// Its length as a share of the mean length of the activations it comes from; 1 of a direction
    /// of one's own.
    pub relative: f64,
    /// Activations `[n, D]`, the positive ones first, and how many those are.
    examples: Option<(Tensor, i64)>,
    /// The runs those come from.
    origins: Vec<Origin>,
}

impl Clone for SteeringVector {
    fn clone(&self) -> Self {
        SteeringVector {
            site: self.site,
            direction: self.direction.shallow_clone(),
            relative: self.relative,
            examples: self.examples.as_ref().map(|(x, n)| (x.shallow_clone(), *n)),
            origins: self.origins.clone(),
        }
    }
}

/// One line: site, length and what it is the difference of.
impl fmt::Debug for SteeringVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.direction.norm().double_value(&[]);
        write!(f, "steering vector at {} of length {length:.3}", self.site)?;
        match &self.examples {
            Some((x, positive)) => write!(
                f,
                " ({:.2} of the activations'): {positive} prompts less {}",
                self.relative,
                x.size()[0] - positive
            ),
            None => Ok(()),
        }
    }
}

/// The mean activation of positive prompts less that of negative ones at a position: contrastive
/// activation addition takes the answer's token.
///
/// ```
/// use thalweg::{Model, Point, prompts::Prompts, steering_vector};
/// let model = Model::load("data/models/tiny-world")?;
/// let set = Prompts::load("data/prompts/sentiment.json")?.labelled("verb")?;
/// let [loved, hated] = ["loved", "hated"].map(|verb| set.filter(|p| p.right[0] == verb));
/// let (loved, hated) = (model.batch(&loved.clean())?, model.batch(&hated.clean())?);
/// let vector = steering_vector(&model, &loved, &hated, Point::ResidPost.at(1), -1)?;
/// assert_eq!(vector.direction.size(), [128]);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn steering_vector(
    model: &Model,
    positive: &Tokens,
    negative: &Tokens,
    site: impl Into<Site>,
    at: impl Into<Position>,
) -> Result<SteeringVector> {
    let (site, at) = (site.into(), at.into());
    let mut origins = Vec::new();
    let mut of = |tokens| -> Result<Tensor> {
        let (mut found, runs) = states("steering vector", (model, tokens), &[site], &at)?;
        origins.extend(runs);
        Ok(found.remove(0))
    };
    let (positive, negative) = (of(positive)?, of(negative)?);
    ensure!(
        positive.dim() == 2,
        "steering vector at {site}: its axes are {:?}, expected [Batch, Pos, D]",
        site.axes()
    );
    let direction = mean(&positive) - mean(&negative);
    let examples = Tensor::cat(&[&positive, &negative], 0);
    let usual = examples.norm_scalaropt_dim(2, [-1i64].as_slice(), false).mean(Kind::Double);
    let length = direction.norm();
    ensure!(
        length.double_value(&[]) > 0.0,
        "steering vector at {site}: the two sets of prompts have the same mean there"
    );
    let relative = (length / usual).double_value(&[]);
    let examples = Some((examples, positive.size()[0]));
    Ok(SteeringVector { site, direction, relative, examples, origins })
}

impl SteeringVector {
    /// A direction of one's own, such as a probe's: without differences of shuffled labels.
    pub fn of(site: impl Into<Site>, direction: &Tensor) -> Result<Self> {
        let site = site.into();
        let what = format!("steering vector at {site}");
        let d = direction.numel();
        let direction = checked(&what, direction, d)?;
        Ok(SteeringVector { site, direction, relative: 1.0, examples: None, origins: Vec::new() })
    }

    /// Adds it: `strength` in units of the mean norm at the site, as [`Intervention::add`] counts
    /// it; after `.absolute()`, in units of the vector itself.
    pub fn intervention(&self, strength: f64) -> Intervention {
        Intervention::add(&self.direction, strength)
    }

    /// Random directions of its length: `[draws, D]`.
    pub fn random(&self, draws: usize, seed: u64) -> Tensor {
        random_like(&self.direction, draws, &mut Rng::new(seed))
    }

    /// Differences of means of the same activations with their labels shuffled, rescaled to its
    /// length: `[draws, D]`. What the prompts vary in at random, labels aside. One prompt of each
    /// label is an error: shuffled, they give the vector itself or its opposite.
    pub fn shuffled(&self, draws: usize, seed: u64) -> Result<Tensor> {
        let Some((x, positive)) = &self.examples else {
            anyhow::bail!("{self:?}: it has no examples, so that no labels can be shuffled")
        };
        let mut rng = Rng::new(seed);
        let n = x.size()[0];
        ensure!(
            n > 2,
            "{self:?}: shuffled labels of 1 + 1 prompts give it or its opposite, expected 3 prompts or more"
        );
        let mut one = || {
            let order: Vec<i64> =
                rng.sample(n as usize, n as usize).iter().map(|i| *i as i64).collect();
            let mixed = x.index_select(0, &Tensor::from_slice(&order));
            mean(&mixed.narrow(0, 0, *positive)) - mean(&mixed.narrow(0, *positive, n - positive))
        };
        // Equal activations may leave no difference but rounding, which has no direction.
        let least = 1e-9 * self.direction.norm().double_value(&[]);
        let mut differs = |_| {
            let found =
                (0..TRIES).map(|_| one()).find(|found| found.norm().double_value(&[]) > least);
            found.with_context(|| {
                format!("{self:?}: no difference in {TRIES} shuffles of its labels")
            })
        };
        let drawn = (0..draws).map(&mut differs).collect::<Result<Vec<Tensor>>>()?;
        Ok(rescaled(&Tensor::stack(&drawn, 0), &self.direction.norm()))
    }

    /// Whether labels can be shuffled to say something else.
    fn shuffles(&self) -> bool {
        self.examples.as_ref().is_some_and(|(x, _)| x.size()[0] > 2)
    }
}

fn mean(rows: &Tensor) -> Tensor {
    rows.mean_dim([0i64].as_slice(), false, Kind::Double)
}

/// What a metric does as a vector is added with more and more strength, beside random directions of
/// the same length and shuffled labels.
///
/// ```
/// use thalweg::{Axis, DoseResponse, Metric, Model, Point, lines, prompts::Prompts, steering_vector};
/// let model = Model::load("data/models/tiny-world")?;
/// let set = Prompts::load("data/prompts/sentiment.json")?.labelled("verb")?;
/// let [loved, hated] = ["loved", "hated"].map(|verb| set.filter(|p| p.right[0] == verb));
/// let (loved, hated) = (model.batch(&loved.clean())?, model.batch(&hated.clean())?);
/// let vector = steering_vector(&model, &loved, &hated, Point::ResidPost.at(1), -1)?;
/// let metric = Metric::logit_diff(model.token("loved")?, model.token("hated")?);
/// let response = DoseResponse::new(&model, &hated, &vector).pos(-1).strengths(&[0.0, 1.0]).of(&metric)?;
/// assert!(response.get(&["0", "steering vector"])? < 0.0);
/// assert!(response.get(&["1", "steering vector"])? > 0.0);
/// assert!(response.get(&["1", "random directions"])? < 0.0);
/// lines(&response)?; // the controls are bands
/// # thalweg::anyhow::Ok(())
/// ```
#[derive(Debug, Clone)]
pub struct DoseResponse {
    model: Model,
    tokens: Tokens,
    vector: SteeringVector,
    strengths: Vec<f64>,
    absolute: bool,
    positions: Positions,
    draws: usize,
    seed: u64,
}

impl DoseResponse {
    /// Default: strengths -1.5 to 1.5 by 0.5 in units of the mean norm at the site, added at every
    /// position, 20 draws of each control, seed 0.
    pub fn new(model: &Model, tokens: &Tokens, vector: &SteeringVector) -> Self {
        DoseResponse {
            model: model.clone(),
            tokens: tokens.clone(),
            vector: vector.clone(),
            strengths: (-3..=3).map(|half| f64::from(half) * 0.5).collect(),
            absolute: false,
            positions: Positions::Many(Index::All),
            draws: 20,
            seed: 0,
        }
    }

    /// These strengths, in this order. Put 0 among them: it is the unedited run.
    pub fn strengths(mut self, strengths: &[f64]) -> Self {
        self.strengths = strengths.to_vec();
        self
    }

    /// Counts strength in units of the vector itself.
    pub fn absolute(mut self) -> Self {
        self.absolute = true;
        self
    }

    /// Adds it only here: `-1`, or `5..` for every later position.
    pub fn pos(mut self, positions: impl Into<Positions>) -> Self {
        self.positions = positions.into();
        self
    }

    /// How many random directions, and how many shufflings of the labels.
    pub fn draws(mut self, draws: usize) -> Self {
        self.draws = draws;
        self
    }

    /// The seed of both.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The metric at each strength, the mean over prompts: `[Step, Series]`. The vector's interval is
    /// over prompts; that of a control is the central 95 % of its draws. A vector of 1 + 1 prompts has
    /// no control of shuffled labels, and a note says so.
    pub fn of(&self, metric: &Metric) -> Result<Grid> {
        ensure!(!self.strengths.is_empty(), "dose response: no strengths");
        ensure!(self.draws > 1, "dose response: {} draws, expected 2 or more", self.draws);
        let d = *self.vector.site.axes().last().unwrap_or(&Axis::DModel);
        ensure!(
            d != Axis::Scale,
            "dose response at {}: a scale has no directions",
            self.vector.site
        );
        let mut controls = vec![("random directions", self.vector.random(self.draws, self.seed))];
        if self.vector.shuffles() {
            let shuffled = self.vector.shuffled(self.draws, self.seed)?;
            controls.push(("shuffled labels", shuffled));
        }
        let mut directions = vec![self.vector.direction.unsqueeze(0)];
        directions.extend(controls.iter().map(|(_, drawn)| drawn.shallow_clone()));
        let directions = Tensor::cat(&directions, 0);
        let per_strength = directions.size()[0] as usize;
        let mut plans = Vec::new();
        for strength in &self.strengths {
            plans
                .extend((0..per_strength).map(|i| self.plan(&directions.get(i as i64), *strength)));
        }
        let swept = self.model.sweep(&self.tokens, &plans, metric)?;
        let value = |plan: usize| -> Vec<f64> {
            (0..self.tokens.batch())
                .map(|row| swept.values.values[[plan, row].as_slice()])
                .collect()
        };
        let mut cells = Vec::new();
        for first in (0..plans.len()).step_by(per_strength) {
            cells.push(mean_interval(&value(first)));
            for control in 0..controls.len() {
                let start = first + 1 + control * self.draws;
                let means: Vec<f64> =
                    (start..start + self.draws).map(|plan| mean_interval(&value(plan)).0).collect();
                let (low, high) = central(&means);
                cells.push((mean_interval(&means).0, low, high));
            }
        }
        let names = controls.iter().map(|(name, _)| *name);
        let series = std::iter::once("steering vector").chain(names).collect::<Vec<_>>();
        self.grid(&cells, &series, metric)
    }

    /// The probability of each row's answer at each strength: `[Step, Series]`.
    pub fn probability(&self, answers: impl Into<Answers>) -> Result<Grid> {
        Ok(self.of(&probability(answers))?.unit("probability"))
    }

    /// `KL(unsteered || steered)` of the last token's prediction at each strength: `[Step, Series]`.
    /// How much else changes.
    pub fn kl(&self) -> Result<Grid> {
        let base = self.model.run(&self.tokens, &Plan::new().logits_at(-1))?.logits;
        self.of(&Metric::kl(&base.squeeze_dim(1)))
    }

    fn plan(&self, direction: &Tensor, strength: f64) -> Plan {
        let add = Intervention::add(direction, strength).pos(self.positions.clone());
        let add = if self.absolute { add.absolute() } else { add };
        Plan::new().intervene(self.vector.site, add)
    }

    fn grid(&self, cells: &[(f64, f64, f64)], series: &[&str], metric: &Metric) -> Result<Grid> {
        let labels = |names: Vec<String>, axis| GridAxis { axis, labels: names };
        let axes = vec![
            labels(self.strengths.iter().map(f64::to_string).collect(), Axis::Step),
            labels(series.iter().map(|name| (*name).to_owned()).collect(), Axis::Series),
        ];
        let part = |of: fn(&(f64, f64, f64)) -> f64| {
            let shape = vec![self.strengths.len(), series.len()];
            ArrayD::from_shape_vec(shape, cells.iter().map(of).collect())
        };
        let unit = if self.absolute { "the vector itself" } else { "the mean norm at the site" };
        let method =
            "95 % normal interval over prompts; of controls, the central 95 % of the draws";
        let mut grid = Grid::new(part(|cell| cell.0)?, axes, metric.unit())?;
        if self.vector.examples.is_some() && !self.vector.shuffles() {
            grid = grid
                .note("shuffled labels", "left out: of 1 + 1 prompts, the vector or its opposite");
        }
        Ok(recorded(grid, &self.model, &self.tokens)?
            .of_runs(self.vector.origins.iter().cloned())
            .interval(part(|cell| cell.1)?, part(|cell| cell.2)?, method)?
            .n(self.tokens.batch())
            .name(&format!("{metric:?} under steering at {}", self.vector.site))
            .note("strength in units of", unit)
            .note("added at positions", &self.positions.to_string())
            .note("draws of each control", &self.draws.to_string())
            .note("seed", &self.seed.to_string())
            .note("vector", &format!("{:?}", self.vector)))
    }
}
