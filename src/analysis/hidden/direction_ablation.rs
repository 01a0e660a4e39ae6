//! A direction taken out of everything that is written to the stream.
//!
//! Arditi et al. 2024, "Refusal in Language Models Is Mediated by a Single Direction",
//! <https://arxiv.org/abs/2406.11717>. Projecting each write off the direction while the model runs,
//! and orthogonalising the weights that write, are the same model.

use anyhow::{Result, ensure};
use ndarray::ArrayD;
use tch::{Kind, Tensor};

use super::states::{central, checked, mean_interval, random_like, recorded};
use crate::grid::{Grid, GridAxis};
use crate::hook::intervention::Intervention;
use crate::hook::metric::Metric;
use crate::hook::plan::Plan;
use crate::hook::site::{Axis, Point, Site};
use crate::model::Model;
use crate::rng::Rng;
use crate::text::Tokens;

/// A plan that projects the embedding and the output of every attention and MLP off `direction
/// [DModel]`, at all positions: no state of the stream has a component along it.
///
/// ```
/// use thalweg::{Model, Plan, Point, direction_ablation, tch::Tensor};
/// let model = Model::load("data/models/tiny-world")?;
/// let tokens = model.tokens("The song was awful . I")?;
/// let direction = thalweg::rng::Rng::new(0).normal_tensor(&[128]);
/// let run = model.run(&tokens, &direction_ablation(&direction).cache(Point::ResidPost))?;
/// let left = run.cache.get(Point::ResidPost.at(3))?.matmul(&direction);
/// assert!(left.abs().max().double_value(&[]) < 1e-3);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn direction_ablation(direction: &Tensor) -> Plan {
    let off = || Intervention::project_out(direction);
    Plan::new()
        .intervene(Site::Embed, off())
        .intervene(Point::AttnOut, off())
        .intervene(Point::MlpOut, off())
}

/// A model that cannot write along `direction [DModel]`: the rows of the embedding, and what every
/// attention and MLP writes, biases included, are projected off it. Its logits are those of
/// [`direction_ablation`]. Where the embedding is tied to the unembedding they are untied first, for
/// the unembedding reads the stream and must stay as it is.
pub fn orthogonalised(model: &Model, direction: &Tensor) -> Result<Model> {
    let direction = checked("orthogonalised", direction, model.config().d_model)?;
    let unit = &direction / direction.norm();
    // In f64: projecting in the weights' own kind would leave a rest of its rounding.
    let rows = |w: &Tensor| {
        let unit = unit.to_device(w.device());
        let wide = w.to_kind(Kind::Double);
        let off = &wide - wide.matmul(&unit).unsqueeze(-1) * &unit;
        off.to_kind(w.kind())
    };
    // The file's matrices are [out, in]: their columns are what is written.
    let columns = |w: &Tensor| rows(&w.tr()).tr().contiguous();
    let untied = if model.config().tied { model.untied()? } else { model.clone() };
    untied.with_weights(|name, w| {
        let writes = ["self_attn.o_proj", "mlp.down_proj"].iter().any(|part| name.contains(part));
        Ok(match name {
            "model.embed_tokens.weight" => rows(w),
            _ if writes && name.ends_with(".bias") => rows(&w.unsqueeze(0)).squeeze_dim(0),
            _ if writes => columns(w),
            _ => w.shallow_clone(),
        })
    })
}

/// Does the model use a direction? The metric with it taken out everywhere, and pushed along it
/// both ways, beside random directions: the causal test of a probe's direction.
///
/// ```
/// use thalweg::{DirectionEffect, Metric, Model, Point, prompts::Prompts, steering_vector};
/// let model = Model::load("data/models/tiny-world")?;
/// let set = Prompts::load("data/prompts/sentiment.json")?.labelled("verb")?;
/// let [loved, hated] = ["loved", "hated"].map(|verb| set.filter(|p| p.right[0] == verb));
/// let (loved, hated) = (model.batch(&loved.clean())?, model.batch(&hated.clean())?);
/// let vector = steering_vector(&model, &loved, &hated, Point::ResidPost.at(1), -1)?;
/// let metric = Metric::logit_diff(model.token("loved")?, model.token("hated")?);
/// let effect = DirectionEffect::new(&model, &loved, &vector.direction)?
///     .steered(Point::ResidPost.at(1), 1.0)
///     .of(&metric)?;
/// assert!(effect.get(&["unedited"])? > 0.0 && effect.get(&["subtracted"])? < 0.0);
/// # thalweg::anyhow::Ok(())
/// ```
#[derive(Debug)]
pub struct DirectionEffect {
    model: Model,
    tokens: Tokens,
    direction: Tensor,
    site: Option<(Site, f64)>,
    draws: usize,
    seed: u64,
}

impl Clone for DirectionEffect {
    fn clone(&self) -> Self {
        DirectionEffect {
            model: self.model.clone(),
            tokens: self.tokens.clone(),
            direction: self.direction.shallow_clone(),
            ..*self
        }
    }
}

impl DirectionEffect {
    /// Default: ablation alone, 20 random directions, seed 0.
    pub fn new(model: &Model, tokens: &Tokens, direction: &Tensor) -> Result<Self> {
        let direction = checked("direction effect", direction, model.config().d_model)?;
        Ok(DirectionEffect {
            model: model.clone(),
            tokens: tokens.clone(),
            direction,
            site: None,
            draws: 20,
            seed: 0,
        })
    }

    /// Adds and subtracts it too, at each row's last token of this site of the stream; `strength`
    /// in units of the mean norm there.
    pub fn steered(mut self, site: impl Into<Site>, strength: f64) -> Self {
        self.site = Some((site.into(), strength));
        self
    }

    /// How many random directions.
    pub fn draws(mut self, draws: usize) -> Self {
        self.draws = draws;
        self
    }

    /// The seed of the random directions.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The metric: `[Series]`, "unedited", "ablated" and "random ablated", then "added",
    /// "subtracted", "random added". Intervals are over prompts; of random directions, the central
    /// 95 % of their draws.
    pub fn of(&self, metric: &Metric) -> Result<Grid> {
        ensure!(self.draws > 1, "direction effect: {} draws, expected 2 or more", self.draws);
        let random = random_like(&self.direction, self.draws, &mut Rng::new(self.seed));
        let each = |plan: &dyn Fn(&Tensor) -> Plan| -> Vec<Plan> {
            (0..self.draws).map(|i| plan(&random.get(i as i64))).collect()
        };
        let mut series = vec![
            ("unedited", vec![Plan::new()]),
            ("ablated", vec![direction_ablation(&self.direction)]),
            ("random ablated", each(&direction_ablation)),
        ];
        if let Some((site, strength)) = self.site {
            let add = |direction: &Tensor, strength: f64| {
                Plan::new().intervene(site, Intervention::add(direction, strength).pos(-1))
            };
            series.push(("added", vec![add(&self.direction, strength)]));
            series.push(("subtracted", vec![add(&self.direction, -strength)]));
            series.push(("random added", each(&|direction| add(direction, strength))));
        }
        let plans: Vec<Plan> = series.iter().flat_map(|(_, plans)| plans.clone()).collect();
        let swept = self.model.sweep(&self.tokens, &plans, metric)?;
        let rows = self.tokens.batch();
        let (mut cells, mut first) = (Vec::new(), 0);
        for (_, plans) in &series {
            let own = |plan: usize| -> Vec<f64> {
                (0..rows).map(|row| swept.values.values[[plan, row].as_slice()]).collect()
            };
            cells.push(match plans.len() {
                1 => mean_interval(&own(first)),
                n => {
                    let means: Vec<f64> =
                        (first..first + n).map(|plan| mean_interval(&own(plan)).0).collect();
                    let (low, high) = central(&means);
                    (mean_interval(&means).0, low, high)
                }
            });
            first += plans.len();
        }
        let names = series.iter().map(|(name, _)| (*name).to_owned()).collect();
        let part = |of: fn(&(f64, f64, f64)) -> f64| {
            ArrayD::from_shape_vec(vec![cells.len()], cells.iter().map(of).collect())
        };
        let axes = vec![GridAxis { axis: Axis::Series, labels: names }];
        let method = "95 % normal interval over prompts; of random directions, the central 95 % of the draws";
        let grid = Grid::new(part(|cell| cell.0)?, axes, metric.unit())?
            .interval(part(|cell| cell.1)?, part(|cell| cell.2)?, method)?
            .n(rows)
            .name(&format!("{metric:?} with a direction changed"))
            .note("draws", &self.draws.to_string())
            .note("seed", &self.seed.to_string());
        let grid = recorded(grid, &self.model, &self.tokens)?;
        Ok(match self.site {
            Some((site, strength)) => {
                grid.note("steered", &format!("{strength} of the mean norm at {site}, last token"))
            }
            None => grid,
        })
    }
}
