//! Reading the residual stream as a prediction, as it stands or through a map for each layer.

use std::fmt;

use anyhow::{Result, bail, ensure};
use tch::{Kind, Tensor};

use super::jacobian::JacobianLens;
use super::maps::Maps;
use super::tuned::TunedLens;
use crate::analysis::frame;
use crate::grid::Grid;
use crate::hook::cache::Cache;
use crate::hook::metric::{Answers, Metric};
use crate::hook::site::{Axis, Point, Site};
use crate::model::{Model, W};
use crate::show::progress;

/// A way to read the residual stream as a prediction: final norm and unembedding of each rung as it
/// stands, or of what a tuned or a Jacobian lens makes of it. The norm's scale is computed afresh
/// from what is read, as TransformerLens does for its lens.
///
/// Rows of all grids are the rungs that the cache holds, from `embed` over `L0 mid`, `L0`, ...;
/// lenses with a map for each layer have none for `mid` and leave it out, as their grids note.
///
/// ```no_run
/// use thalweg::{Lens, Model, Plan, Point};
/// let model = Model::load("data/models/tiny-world")?;
/// let tokens = model.batch(&["The capital of France is", "The capital of Italy is"])?;
/// let run = model.run(&tokens, &Plan::new().cache([Point::ResidMid, Point::ResidPost]))?;
/// let lens = Lens::logit(&model);
/// let answers = vec![model.token("Paris")?, model.token("Rome")?];
/// let rank = lens.rank(&run.cache, &answers)?; // [Batch, Layer, Pos]
/// assert_eq!(rank.at(&[0, -1, -1])?, 0.0);
/// let top = lens.top_k(&run.cache, 3)?; // [Batch, Layer, Pos, Rank]
/// assert!(top.pieces.iter().any(|piece| piece.trim() == "Rome"));
/// # thalweg::anyhow::Ok(())
/// ```
#[derive(Clone)]
pub struct Lens {
    model: Model,
    maps: Option<Maps>,
    ending: Ending,
}

/// What stands between the stream and the unembedding.
#[derive(Clone, Copy, PartialEq)]
enum Ending {
    Norm,
    WeightAlone,
    Nothing,
}

impl fmt::Debug for Lens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {:?}", self.title(), self.model)
    }
}

impl Lens {
    /// The logit lens: each rung as it stands.
    pub fn logit(model: &Model) -> Self {
        Lens { model: model.clone(), maps: None, ending: Ending::Norm }
    }

    /// Each rung through its translator. An error unless the lens was trained on this very model.
    pub fn tuned(model: &Model, tuned: &TunedLens) -> Result<Self> {
        tuned.maps.check(model)?;
        Ok(Lens { maps: Some(tuned.maps.clone()), ..Self::logit(model) })
    }

    /// Each rung through the mean derivative of the final stream. An error unless it is of this very
    /// model.
    pub fn jacobian(model: &Model, jacobian: &JacobianLens) -> Result<Self> {
        let maps = jacobian.maps();
        maps.check(model)?;
        Ok(Lens { maps: Some(maps), ..Self::logit(model) })
    }

    /// The same lens without the division by the final norm's scale: the norm's weight and the
    /// unembedding alone. All logits of a cell change by one positive factor, so no rank does; how
    /// sure the lens seems does. For comparison: the model itself always divides.
    ///
    /// ```no_run
    /// # use thalweg::{Lens, Model, Plan, Point};
    /// # let model = Model::load("data/models/tiny-world")?;
    /// # let run = model.run(&model.tokens("The capital of France is")?, &Plan::new().cache(Point::ResidPost))?;
    /// let (whole, bare) = (Lens::logit(&model), Lens::logit(&model).without_scale());
    /// let paris = model.token("Paris")?;
    /// assert_eq!(whole.rank(&run.cache, paris)?.values, bare.rank(&run.cache, paris)?.values);
    /// assert_ne!(whole.entropy(&run.cache)?.values, bare.entropy(&run.cache)?.values);
    /// # thalweg::anyhow::Ok(())
    /// ```
    pub fn without_scale(self) -> Self {
        Lens { ending: Ending::WeightAlone, ..self }
    }

    /// The same lens without any final norm, scale or weight: the unembedding alone, which reads
    /// other directions than the model does.
    pub fn without_norm(self) -> Self {
        Lens { ending: Ending::Nothing, ..self }
    }

    /// Log-probability of an answer in nats at every rung and position: `[Layer, Pos]`, or
    /// `[Batch, Layer, Pos]` for several prompts, each with its own answer or set of answers.
    pub fn log_prob(&self, cache: &Cache, answer: impl Into<Answers>) -> Result<Grid> {
        let answer = answer.into();
        let name = format!("{} of {}", self.title(), self.naming(&answer));
        let grid = self.read(cache, &Metric::log_prob(answer))?.name(&name);
        Ok(grid.unit("nats (log-probability)"))
    }

    /// Probability of an answer, 0..1: axes as those of [`log_prob`](Self::log_prob).
    pub fn prob(&self, cache: &Cache, answer: impl Into<Answers>) -> Result<Grid> {
        Ok(self.log_prob(cache, answer)?.map(f64::exp).unit("probability"))
    }

    /// How many ids are more likely than the answer, 0 for the most likely; of a set, its best
    /// member's. Axes as those of [`log_prob`](Self::log_prob).
    pub fn rank(&self, cache: &Cache, answer: impl Into<Answers>) -> Result<Grid> {
        let answer = answer.into();
        let name = format!("{}: rank of {}", self.title(), self.naming(&answer));
        Ok(self.read(cache, &Metric::rank(answer))?.name(&name))
    }

    /// Any metric of one position's logits at every rung and position. The metric's own position
    /// does not count: [`read_at`](Self::read_at) looks there alone.
    pub fn read(&self, cache: &Cache, metric: &Metric) -> Result<Grid> {
        ensure!(
            metric.position().is_some(),
            "lens: {metric:?} looks at all positions together, expected a metric of one position's logits"
        );
        let grid = self.each(cache, metric.unit(), |logits| {
            let columns = (0..logits.size()[1]).map(|c| metric.of_row(&logits.select(1, c)));
            Ok(Tensor::stack(&columns.collect::<Result<Vec<_>>>()?, 1))
        })?;
        Ok(grid.name(&format!("{}: {metric:?}", self.word())))
    }

    /// A metric at every rung, at the metric's own position: `[Layer]`, or `[Batch, Layer]`.
    pub fn read_at(&self, cache: &Cache, metric: &Metric) -> Result<Grid> {
        let Some(position) = metric.position() else {
            bail!("lens_at: {metric:?} looks at many positions, expected a metric of one");
        };
        let tokens = cache.tokens();
        let (rungs, left_out) = self.rungs(cache)?;
        let (mut labels, mut values) = (Vec::new(), Vec::new());
        for (label, site) in progress(rungs, "lens").unit("rungs") {
            let x = frame::at_position(&cache.get(site)?, tokens, position)?; // [Batch, DModel]
            values.push(metric.of_row(&self.unembed(site, &x)?)?);
            labels.push(label);
        }
        let values = Tensor::stack(&values, 1);
        let grid = frame::batched(cache, &values, &[(Axis::Layer, labels)], metric.unit())?;
        Ok(self.noted(grid, left_out).name(&format!("{}: {metric:?}", self.word())))
    }

    /// Entropy in nats of what each rung predicts: `[Layer, Pos]`, or `[Batch, Layer, Pos]`.
    pub fn entropy(&self, cache: &Cache) -> Result<Grid> {
        let grid = self.each(cache, "nats", |logits| {
            let log_probs = logits.log_softmax(-1, Kind::Double);
            Ok(-sum_vocab(log_probs.exp() * log_probs))
        })?;
        Ok(grid.name(&format!("{}: entropy of the prediction", self.word())))
    }

    /// `KL(final || rung)` in nats: `[Layer, Pos]`, or `[Batch, Layer, Pos]`. Needs `ResidPost` of
    /// the last layer, or `Logits`.
    pub fn kl(&self, cache: &Cache) -> Result<Grid> {
        let target = self.said(cache)?.log_softmax(-1, Kind::Double);
        let grid = self.each(cache, "nats", |logits| {
            let log_probs = logits.log_softmax(-1, Kind::Double);
            Ok(sum_vocab(target.exp() * (&target - log_probs)))
        })?;
        Ok(grid.name(&format!("{}: KL from the model's prediction", self.word())))
    }

    /// Logits `[.., Vocab]` that the lens reads in vectors `[.., DModel]` of a place of the stream.
    pub fn unembed(&self, site: impl Into<Site>, x: &Tensor) -> Result<Tensor> {
        let (site, x) = (site.into(), x.to_device(self.model.device())); // a cache may lie elsewhere
        let x = match &self.maps {
            None => x,
            Some(maps) => maps.apply(site, &x)?,
        };
        match self.ending {
            Ending::Norm => self.model.unembed(&x),
            Ending::WeightAlone => self.project(&(x * self.model.weight(W::LnFinal, 0)?)),
            Ending::Nothing => self.project(&x),
        }
    }

    /// The unembedding alone, `[.., DModel]` -> `[.., Vocab]`.
    fn project(&self, x: &Tensor) -> Result<Tensor> {
        let d_model = self.model.config().d_model as i64;
        ensure!(
            x.size().last() == Some(&d_model),
            "{}: the vectors are {:?}, expected [.., DModel] = [.., {d_model}]",
            self.title(),
            x.size()
        );
        let _guard = tch::no_grad_guard();
        Ok(x.to_kind(self.model.kind()).matmul(&self.model.weight(W::U, 0)?))
    }

    /// The model's own logits, `[Batch, Pos, Vocab]`.
    pub(super) fn said(&self, cache: &Cache) -> Result<Tensor> {
        let last = Point::ResidPost.at(cache.n_layers().saturating_sub(1));
        if cache.contains(Site::Logits) && !cache.contains(last) {
            return Ok(cache.get(Site::Logits)?.to_device(self.model.device()));
        }
        self.model.unembed(&cache.get(last)?.to_device(self.model.device()))
    }

    /// Reads each rung, one after the other, and reduces its logits `[Batch, Pos, Vocab]` to
    /// `[Batch, Pos]`.
    pub(super) fn each(
        &self,
        cache: &Cache,
        unit: &str,
        mut reduce: impl FnMut(&Tensor) -> Result<Tensor>,
    ) -> Result<Grid> {
        let (rungs, left_out) = self.rungs(cache)?;
        let (mut labels, mut values) = (Vec::new(), Vec::new());
        for (label, site) in progress(rungs, "lens").unit("rungs") {
            values.push(reduce(&self.unembed(site, &cache.get(site)?)?)?);
            labels.push(label);
        }
        let grid = frame::by_position(cache, labels, &values, unit)?;
        Ok(self.noted(grid, left_out))
    }

    /// The rungs that this lens can read, and how many of the cache it cannot.
    pub(super) fn rungs(&self, cache: &Cache) -> Result<(Vec<(String, Site)>, usize)> {
        let all = frame::rungs(cache)?;
        let Some(maps) = &self.maps else { return Ok((all, 0)) };
        let n = all.len();
        let own: Vec<_> = all.into_iter().filter(|(_, site)| maps.reads(*site)).collect();
        ensure!(
            !own.is_empty(),
            "{}: the cache holds the stream between attention and MLP alone, expected ResidPre or ResidPost",
            self.title()
        );
        let left_out = n - own.len();
        Ok((own, left_out))
    }

    pub(super) fn noted(&self, grid: Grid, left_out: usize) -> Grid {
        let grid = grid.note("model", &format!("{:?}", self.model)).note("lens", self.title());
        let grid = match self.ending {
            Ending::Norm => grid,
            Ending::WeightAlone => grid.note("final norm", "its weight, without its scale"),
            Ending::Nothing => grid.note("final norm", "none"),
        };
        match left_out {
            0 => grid,
            n => grid.note("left out", &format!("{n} mid places, for which the lens has no map")),
        }
    }

    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    /// "logit lens", "tuned lens", "Jacobian lens".
    pub(super) fn title(&self) -> &'static str {
        self.maps.as_ref().map_or("logit lens", Maps::title)
    }

    /// What names of grids begin with.
    pub(super) fn word(&self) -> &'static str {
        self.maps.as_ref().map_or("lens", Maps::title)
    }

    /// The answer in words.
    pub(super) fn naming(&self, answer: &Answers) -> String {
        let of = answer.row(0).iter().map(|id| format!("{:?}", self.model.piece(*id)));
        match answer.is_shared() {
            true => of.collect::<Vec<_>>().join(" or "),
            false => "each row's answer".to_owned(),
        }
    }
}

pub(super) fn sum_vocab(x: Tensor) -> Tensor {
    x.sum_dim_intlist([-1i64].as_slice(), false, None)
}
