//! Direct logit attribution: what each component writes towards an answer.
//!
//! Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits",
//! <https://transformer-circuits.pub/2021/framework>; as used for circuits by Wang et al. 2022,
//! <https://arxiv.org/abs/2211.00593>.
//!
//! The residual stream before the unembedding is the sum of the embedding, every head, every MLP
//! and the biases, so a logit is the sum of what each contributes, once the final norm's scale is
//! held at its recorded value. That scale is why an attribution is not the effect of removing the
//! component; and later components may cancel what earlier ones write (Janiak et al. 2023,
//! <https://arxiv.org/abs/2310.07325>).

use anyhow::{Context, Result, ensure};
use tch::{Kind, Tensor};

use crate::analysis::frame;
use crate::grid::Grid;
use crate::hook::cache::Cache;
use crate::hook::metric::{Answers, Metric};
use crate::hook::site::{Axis, Point, Site};
use crate::hook::sites::Sites;
use crate::index::Position;
use crate::model::{Model, W};

/// What [`attribution`], [`head_attribution`] and [`neuron_attribution`] need:
/// `Plan::new().cache(attribution_sites())`.
pub fn attribution_sites() -> Sites {
    let points = [Point::AttnOut, Point::MlpOut, Point::Z, Point::MlpPost];
    let mut sites: Vec<Sites> = points.map(Sites::from).to_vec();
    sites.extend([Site::Embed, Site::FinalScale].map(Sites::from));
    sites.into()
}

/// What each component contributes to a metric that is linear in the logits, `Metric::logit_diff`
/// or `Metric::logit`, at the metric's position: `[Component]`, or `[Batch, Component]` for several
/// prompts, in logits.
///
/// Components are `embed`, `L0 attn`, `L0 mlp`, ..., and `bias` where the model has biases of
/// attention's or the MLP's output. They add up to the metric, to rounding, unless the run changed
/// the residual stream itself. Needs `Embed`, `AttnOut`, `MlpOut` and `FinalScale`.
///
/// ```no_run
/// use thalweg::{Metric, Model, Plan, attribution, attribution_sites};
/// let model = Model::load("data/models/tiny-world")?;
/// let tokens = model.tokens("When Mary and John went to the store , John gave a drink to")?;
/// let run = model.run(&tokens, &Plan::new().cache(attribution_sites()))?;
/// let metric = Metric::logit_diff(model.token("Mary")?, model.token("John")?);
/// let parts = attribution(&model, &run.cache, &metric)?;
/// let whole = metric.of(&run.logits, &tokens)?.double_value(&[0]);
/// assert!((parts.values.sum() - whole).abs() < 1e-4);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn attribution(model: &Model, cache: &Cache, metric: &Metric) -> Result<Grid> {
    let reader = Reader::new(model, cache, metric)?;
    let config = model.config();
    let start = if cache.contains(Site::Embed) { Site::Embed } else { Point::ResidPre.at(0) };
    let mut labels = vec!["embed".to_owned()];
    let mut parts = vec![reader.stream(start)?];
    let mut bias = parts[0].zeros_like();
    for layer in 0..config.n_layers {
        for (name, point, of) in [("attn", Point::AttnOut, W::BO), ("mlp", Point::MlpOut, W::BOut)]
        {
            let own_bias = reader.along(&model.weight(of, layer)?.to_kind(Kind::Double));
            parts.push(reader.stream(point.at(layer))? - &own_bias);
            labels.push(format!("L{layer} {name}"));
            bias += own_bias;
        }
    }
    if config.attention_bias || config.mlp_bias {
        parts.push(bias);
        labels.push("bias".to_owned());
    }
    let axes = [(Axis::Component, labels)];
    reader.grid(&Tensor::stack(&parts, 1), &axes, "direct logit attribution by component")
}

/// What each head contributes, its output bias left out: `[Layer, Head]`, or `[Batch, Layer, Head]`,
/// in logits. A layer's heads add up to its `attn` entry of [`attribution`]. Needs `Z` and
/// `FinalScale`.
pub fn head_attribution(model: &Model, cache: &Cache, metric: &Metric) -> Result<Grid> {
    let reader = Reader::new(model, cache, metric)?;
    let config = model.config();
    let mut layers = Vec::new();
    for layer in 0..config.n_layers {
        let z = reader.at(Point::Z.at(layer))?; // [Batch, Head, DHead]
        // Each head's map onto the answer's direction is made first: [Batch, Head, DHead], never
        // what each head writes to the stream.
        let map = model.weight(W::O, layer)?.to_kind(Kind::Double);
        let onto =
            Tensor::einsum("hdm,bm->bhd", &[map, reader.direction.shallow_clone()], None::<i64>);
        layers.push((z * onto).sum_dim_intlist([-1i64].as_slice(), false, None));
    }
    let axes = [
        (Axis::Layer, frame::numbered('L', config.n_layers)),
        (Axis::Head, frame::numbered('H', config.n_heads)),
    ];
    reader.grid(&Tensor::stack(&layers, 1), &axes, "direct logit attribution by head")
}

/// What each neuron of a layer contributes: `[DMlp]`, or `[Batch, DMlp]`, in logits. They add up to
/// the layer's `mlp` entry of [`attribution`]. Needs `MlpPost` and `FinalScale`.
pub fn neuron_attribution(
    model: &Model,
    cache: &Cache,
    metric: &Metric,
    layer: usize,
) -> Result<Grid> {
    let reader = Reader::new(model, cache, metric)?;
    let neurons = reader.at(Point::MlpPost.at(layer))?; // [Batch, DMlp]
    let onto = reader.direction.matmul(&model.weight(W::Out, layer)?.to_kind(Kind::Double).tr());
    let labels = (0..model.config().d_mlp).map(|neuron| neuron.to_string()).collect();
    let name = format!("direct logit attribution by neuron of layer {layer}");
    reader.grid(&(neurons * onto), &[(Axis::DMlp, labels)], &name)
}

/// How finely [`attribution_by`] splits what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// Attention and MLP of each layer: [`attribution`].
    Layers,
    /// Each head, and the MLP of each layer.
    Heads,
    /// Attention of each layer, and each neuron.
    Neurons,
    /// Each head and each neuron.
    HeadsAndNeurons,
}

/// [`attribution`] split further: `[Component]` or `[Batch, Component]`, in logits. Components are
/// `embed`, `L0H0`, ..., `L0 mlp` or `L0N0`, ..., and `bias` where the model has biases of attention's
/// or the MLP's output; they add up to the metric. `parts.top(20)` are what counts most.
///
/// ```
/// use thalweg::{Metric, Model, Plan, Split, attribution_by, attribution_sites};
/// let model = Model::load("data/models/tiny-world")?;
/// let tokens = model.tokens("When Mary and John went to the store , John gave a drink to")?;
/// let run = model.run(&tokens, &Plan::new().cache(attribution_sites()))?;
/// let metric = Metric::logit_diff(model.token("Mary")?, model.token("John")?);
/// let parts = attribution_by(&model, &run.cache, &metric, Split::HeadsAndNeurons)?;
/// let whole = metric.of(&run.logits, &tokens)?.double_value(&[0]);
/// assert!((parts.values.sum() - whole).abs() < 1e-4);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn attribution_by(model: &Model, cache: &Cache, metric: &Metric, split: Split) -> Result<Grid> {
    let whole = attribution(model, cache, metric)?;
    let component = whole.axes.len() - 1;
    let index = |name: &str| {
        whole.labels(Axis::Component).map(|all| all.iter().position(|own| own == name))
    };
    let one = |at: usize| whole.select_many(Axis::Component, &[at as i64]);
    let (heads, neurons) = match split {
        Split::Layers => return Ok(whole),
        Split::Heads => (true, false),
        Split::Neurons => (false, true),
        Split::HeadsAndNeurons => (true, true),
    };
    let by_head = if heads { Some(head_attribution(model, cache, metric)?) } else { None };
    let mut parts = vec![one(0)?];
    for layer in 0..model.config().n_layers {
        parts.push(match &by_head {
            Some(grid) => renamed(&grid.select(Axis::Layer, layer as i64)?, Axis::Head, |head| {
                format!("L{layer}{head}")
            })?,
            None => one(1 + 2 * layer)?,
        });
        parts.push(match neurons {
            true => {
                let grid = neuron_attribution(model, cache, metric, layer)?;
                renamed(&grid, Axis::DMlp, |neuron| format!("L{layer}N{neuron}"))?
            }
            false => one(2 + 2 * layer)?,
        });
    }
    if let Some(bias) = index("bias")? {
        parts.push(one(bias)?);
    }
    let views: Vec<_> = parts.iter().map(|part| part.values.view()).collect();
    let values = ndarray::concatenate(ndarray::Axis(component), &views)?;
    let labels = parts.iter().flat_map(|part| part.axes[component].labels.clone()).collect();
    let mut grid = whole.clone();
    grid.values = values;
    grid.axes[component].labels = labels;
    grid.check()?;
    Ok(grid.name("direct logit attribution").note("split", &format!("{split:?}")))
}

/// The grid with its last axis as `Component`, under other labels.
fn renamed(grid: &Grid, axis: Axis, label: impl Fn(&str) -> String) -> Result<Grid> {
    let labels: Vec<String> = grid.labels(axis)?.iter().map(|own| label(own)).collect();
    let mut grid = grid.clone().relabel(axis, &labels)?;
    if let Some(last) = grid.axes.last_mut() {
        last.axis = Axis::Component;
    }
    Ok(grid)
}

/// The direction of the residual stream that a metric reads in each row, and where it reads.
pub(in crate::analysis) struct Reader<'a> {
    model: &'a Model,
    cache: &'a Cache,
    metric: &'a Metric,
    position: &'a Position,
    /// Unembedding of right less wrong answers, through the final norm's weight and frozen scale:
    /// `[Batch, DModel]`, f64.
    pub(in crate::analysis) direction: Tensor,
}

impl<'a> Reader<'a> {
    pub(in crate::analysis) fn new(
        model: &'a Model,
        cache: &'a Cache,
        metric: &'a Metric,
    ) -> Result<Self> {
        let (right, wrong) = metric.sides().with_context(|| {
            format!("attribution: {metric:?} is not linear in the logits, expected Metric::logit_diff or Metric::logit")
        })?;
        let position = metric.position().unwrap_or(&Position::Last);
        let tokens = cache.tokens();
        let vocabulary = model.config().d_vocab as i64;
        let mut rows = Vec::new();
        for side in [Some(right), wrong].into_iter().flatten() {
            side.check(tokens.batch(), vocabulary)
                .map_err(|error| anyhow::anyhow!("attribution: {error}"))?;
        }
        for row in 0..tokens.batch() {
            let mean = |side: &Answers| -> Result<Tensor> {
                let each = model.logit_directions(side.row(row))?.to_kind(Kind::Double);
                Ok(each.mean_dim([0i64].as_slice(), false, None))
            };
            let right = mean(right)?;
            rows.push(match wrong {
                Some(wrong) => right - mean(wrong)?,
                None => right,
            });
        }
        let scale = frame::at_position(&final_scale(model, cache)?, tokens, position)?;
        let direction = Tensor::stack(&rows, 0) / scale.to_device(model.device());
        Ok(Reader { model, cache, metric, position, direction })
    }

    /// Each row's activation at the position, `[Batch, ..]`, f64.
    fn at(&self, site: Site) -> Result<Tensor> {
        let x = self.cache.get(site).map_err(|error| {
            anyhow::anyhow!("attribution needs Plan::new().cache(attribution_sites()): {error}")
        })?;
        let x = frame::at_position(&x, self.cache.tokens(), self.position)?;
        Ok(x.to_device(self.model.device())) // a cache may lie elsewhere
    }

    /// What a site of the stream's width contributes, `[Batch]`.
    fn stream(&self, site: Site) -> Result<Tensor> {
        Ok(self.along(&self.at(site)?))
    }

    /// `[DModel]` or `[Batch, DModel]` along the direction: `[Batch]`.
    fn along(&self, x: &Tensor) -> Tensor {
        (x * &self.direction).sum_dim_intlist([-1i64].as_slice(), false, None)
    }

    pub(in crate::analysis) fn grid(
        &self,
        values: &Tensor,
        axes: &[(Axis, Vec<String>)],
        name: &str,
    ) -> Result<Grid> {
        let grid = frame::batched(self.cache, values, axes, "logits")?.name(name);
        Ok(grid
            .note("metric", &format!("{:?}", self.metric))
            .note("final norm", "scale held at its recorded value")
            .note("model", &format!("{:?}", self.model)))
    }
}

/// The final norm's scale as recorded, or computed from the stream below it: `[Batch, Pos, 1]`.
fn final_scale(model: &Model, cache: &Cache) -> Result<Tensor> {
    if cache.contains(Site::FinalScale) {
        return cache.get(Site::FinalScale);
    }
    let last = Point::ResidPost.at(model.config().n_layers - 1);
    ensure!(
        cache.contains(last),
        "attribution needs Plan::new().cache(attribution_sites()): {} was not cached",
        Site::FinalScale
    );
    let x = cache.get(last)?.to_kind(Kind::Double);
    Ok((x.square().mean_dim([-1i64].as_slice(), true, None) + model.config().eps).sqrt())
}
