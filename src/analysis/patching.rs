//! Activation patching: one run with a part of another run's activations, part by part.
//!
//! Vig et al. 2020, <https://arxiv.org/abs/2004.12265>; Zhang & Nanda 2024, "Towards best practices
//! of activation patching", <https://arxiv.org/abs/2309.16042>; Heimersheim & Nanda 2024,
//! <https://arxiv.org/abs/2404.15255>. The pair should differ in few tokens and be equally long, and
//! the metric be a logit difference; patch in both directions. What is found holds the patched
//! part's interactions with all that comes after it.

use anyhow::{Result, bail, ensure};
use tch::Kind;

use super::cells::{CHUNK, Cells, Swept};
use super::direction::Direction;
use super::effect::{mean_text, scale};
use super::frame;
use crate::grid::Grid;
use crate::hook::cache::Cache;
use crate::hook::intervention::Intervention;
use crate::hook::metric::Metric;
use crate::hook::plan::Plan;
use crate::hook::site::{Axis, Point};
use crate::hook::sites::Sites;
use crate::index::Index;
use crate::model::Model;
use crate::text::Tokens;

/// The metric of the corrupt run when it receives clean activations of a point, one part at a time:
/// `[Layer, ..by]` in the metric's unit, `by` any of the point's axes but `Batch` (none: the whole
/// site). Of several prompts it is the mean, with its 95 % interval. A key after its query is
/// missing. [`Patching`] has the other direction, the normalised effect, and each prompt apart.
///
/// `sites` is a [`Point`], the same point in some layers, or one [`Site`](crate::Site) outside the
/// blocks, which has no `Layer` axis.
///
/// ```
/// use thalweg::{Axis, Metric, Model, Point, heatmap, patching};
/// let model = Model::load("data/models/tiny-world")?;
/// let clean = model.tokens("When Mary and John went to the store , John gave a drink to")?;
/// let corrupt = model.tokens("When Mary and John went to the store , Mary gave a drink to")?;
/// let metric = Metric::logit_diff(model.token("Mary")?, model.token("John")?);
/// let effect = patching(&model, &clean, &corrupt, Point::ResidPre, &[Axis::Pos], &metric)?;
/// assert_eq!(effect.shape(), [model.config().n_layers, clean.width()]);
/// heatmap(&effect)?;
/// # thalweg::anyhow::Ok(())
/// ```
pub fn patching(
    model: &Model,
    clean: &Tokens,
    corrupt: &Tokens,
    sites: impl Into<Sites>,
    by: &[Axis],
    metric: &Metric,
) -> Result<Grid> {
    Patching::new(model, clean, corrupt)?.grid(sites, by, metric)
}

/// A pair of prompts (or of batches, row by row) to patch between, and how to report the effect.
///
/// `TransformerLens`' `patching` module, function by function, where `by` begins the grid's axes
/// after `Layer`:
///
/// | there, `get_act_patch_` ... | point here | by |
/// |---|---|---|
/// | `resid_pre`, `resid_mid`, `attn_out`, `mlp_out` | `ResidPre`, `ResidMid`, `AttnOut`, `MlpOut` | `[Pos]` |
/// | `attn_head_out_all_pos`, `attn_head_q_all_pos` | `Z`, `Q` | `[Head]` |
/// | `attn_head_k_all_pos`, `attn_head_v_all_pos` | `K`, `V` | `[KvHead]` |
/// | `attn_head_out_by_pos`, `attn_head_q_by_pos` | `Z`, `Q` | `[Pos, Head]` |
/// | `attn_head_k_by_pos`, `attn_head_v_by_pos` | `K`, `V` | `[Pos, KvHead]` |
/// | `attn_head_pattern_all_pos` | `Pattern` | `[Head]` |
/// | `attn_head_pattern_by_pos` | `Pattern` | `[Head, Query]` |
/// | `attn_head_pattern_dest_src_pos` | `Pattern` | `[Head, Query, Key]` |
/// | `block_every`, `attn_head_all_pos_every`, `attn_head_by_pos_every` | the methods `block_every`, `head_all_pos_every`, `head_by_pos_every` | |
///
/// ```
/// use thalweg::{Axis, Direction, Metric, Model, Patching, Point};
/// let model = Model::load("data/models/tiny-world")?;
/// let clean = model.tokens("When Mary and John went to the store , John gave a drink to")?;
/// let corrupt = model.tokens("When Mary and John went to the store , Mary gave a drink to")?;
/// let metric = Metric::logit_diff(model.token("Mary")?, model.token("John")?);
/// let pair = Patching::new(&model, &clean, &corrupt)?;
/// assert_eq!(pair.differences(), [[10]]);
/// let needed = pair.direction(Direction::Noise).normalised();
/// let heads = needed.grid(Point::Z, &[Axis::Head], &metric)?;
/// assert_eq!(heads.zero_one.unwrap().0, "the clean run");
/// # thalweg::anyhow::Ok(())
/// ```
#[derive(Debug, Clone)]
pub struct Patching {
    pub(super) model: Model,
    clean: Tokens,
    corrupt: Tokens,
    pub(super) direction: Direction,
    normalised: bool,
    each_prompt: bool,
    layers: Index,
}

impl Patching {
    /// Checks that the two are aligned: as many rows, and each row as long as its partner. Default:
    /// [`Direction::Denoise`], in the metric's unit, every layer, the mean over prompts.
    pub fn new(model: &Model, clean: &Tokens, corrupt: &Tokens) -> Result<Self> {
        check_pair(clean, corrupt)?;
        Ok(Patching {
            model: model.clone(),
            clean: clean.clone(),
            corrupt: corrupt.clone(),
            direction: Direction::Denoise,
            normalised: false,
            each_prompt: false,
            layers: Index::All,
        })
    }

    /// Which run receives the patch.
    pub fn direction(mut self, direction: Direction) -> Self {
        self.direction = direction;
        self
    }

    /// Reports `(m - m_0) / (m_1 - m_0)`: 0 is the run that receives the patch, unpatched, and 1
    /// the run that it comes from. Of several prompts, `m_1 - m_0` is their mean difference, so that
    /// a prompt whose runs hardly differ does not outweigh the others, and the interval takes it as
    /// given; of each prompt its own. Equal baselines are an error.
    pub fn normalised(mut self) -> Self {
        self.normalised = true;
        self
    }

    /// Keeps the `Batch` axis, outermost, instead of the mean over several prompts.
    pub fn each_prompt(mut self) -> Self {
        self.each_prompt = true;
        self
    }

    /// Only these layers.
    pub fn layers(mut self, layers: impl Into<Index>) -> Self {
        self.layers = layers.into();
        self
    }

    /// The positions at which clean and corrupt tokens differ, in each row, counted in its own
    /// tokens. Before the first of them the two runs are the same.
    pub fn differences(&self) -> Vec<Vec<usize>> {
        let rows = self.clean.ids().iter().zip(self.corrupt.ids());
        rows.map(|(a, b)| (0..a.len()).filter(|i| a[*i] != b[*i]).collect()).collect()
    }

    /// The metric with each part of the sites patched in turn: `[Layer, ..by]`, or
    /// `[Batch, Layer, ..by]` of [`each_prompt`](Self::each_prompt); see [`patching`]. Positions of
    /// prompts that differ in length are counted from the end. An axis that the sites lack is an
    /// error that lists theirs.
    pub fn grid(&self, sites: impl Into<Sites>, by: &[Axis], metric: &Metric) -> Result<Grid> {
        self.grid_of(&sites.into(), by, metric)
    }

    fn grid_of(&self, sites: &Sites, by: &[Axis], metric: &Metric) -> Result<Grid> {
        let cells = self.cells("patching", sites, by)?;
        let (source, (_, receiver)) = (self.source(cells.sites(), metric)?, self.runs());
        let swept = Swept::new((&self.model, receiver, metric), (&cells, 1, CHUNK), |_, cell| {
            let patch = Intervention::patch(&source.cache);
            Ok(Plan::new().intervene(cells.site(cell), cells.narrow(cell, patch)))
        })?;
        let mut grid = self.finish(swept, &source, metric)?;
        let (from, to) = self.direction.order("clean", "corrupt");
        grid.code = cells.code(to, &format!("Intervention::patch(&{from})"));
        let by: String = by.iter().map(|axis| format!(" by {axis}")).collect();
        Ok(grid.name(&format!("{metric:?}, {} patched{by}: {}", cells.name(), self.direction)))
    }

    /// `ResidPre`, `AttnOut` and `MlpOut` by position: `[Series, Layer, Pos]`.
    pub fn block_every(&self, metric: &Metric) -> Result<Grid> {
        let points = [Point::ResidPre, Point::AttnOut, Point::MlpOut];
        let each = points.map(|point| Ok((point, self.grid(point, &[Axis::Pos], metric)?)));
        self.stack(each.into_iter().collect::<Result<Vec<_>>>()?, metric)
    }

    /// `Z`, `Q`, `K`, `V` and `Pattern` by head: `[Series, Layer, Head]`. Under grouped-query
    /// attention a head's `K` and `V` are those of its group, shared with the group's other heads:
    /// patching them reaches all of those.
    pub fn head_all_pos_every(&self, metric: &Metric) -> Result<Grid> {
        self.heads_every(&[], metric)
    }

    /// The same at each position (for `Pattern`, that of the query): `[Series, Layer, Pos, Head]`.
    pub fn head_by_pos_every(&self, metric: &Metric) -> Result<Grid> {
        self.heads_every(&[Axis::Pos], metric)
    }

    fn heads_every(&self, first: &[Axis], metric: &Metric) -> Result<Grid> {
        let mut each = Vec::new();
        for point in [Point::Z, Point::Q, Point::K, Point::V] {
            let heads = if point.axes().contains(&Axis::Head) { Axis::Head } else { Axis::KvHead };
            let grid = self.grid(point, &[first, &[heads]].concat(), metric)?;
            each.push((point, self.by_query_head(grid)?));
        }
        let pattern =
            if first.is_empty() { vec![Axis::Head] } else { vec![Axis::Head, Axis::Query] };
        let mut grid = self.grid(Point::Pattern, &pattern, metric)?;
        if !first.is_empty() {
            grid = grid.move_axis(Axis::Query, grid.axes.len() - 2)?;
            let at = grid.axes.len() - 2;
            grid.axes[at].axis = Axis::Pos;
        }
        each.push((Point::Pattern, grid));
        self.stack(each, metric)
    }

    /// A grid by key/value head as one by query head, each with its group's number.
    fn by_query_head(&self, grid: Grid) -> Result<Grid> {
        if grid.labels(Axis::KvHead).is_err() {
            return Ok(grid);
        }
        let config = self.model.config();
        let group = |head: usize| (head / config.group()) as i64;
        let indices: Vec<i64> = (0..config.n_heads).map(group).collect();
        let mut grid = grid.select_many(Axis::KvHead, &indices)?;
        let last = grid.axes.len() - 1;
        grid.axes[last].axis = Axis::Head;
        grid.axes[last].labels = frame::numbered('H', config.n_heads);
        Ok(grid)
    }

    fn stack(&self, grids: Vec<(Point, Grid)>, metric: &Metric) -> Result<Grid> {
        let names: Vec<String> = grids.iter().map(|(point, _)| format!("{point:?}")).collect();
        let pairs = names.iter().map(String::as_str).zip(grids.iter().map(|(_, grid)| grid));
        let mut stacked = Grid::stack(Axis::Series, &pairs.collect::<Vec<_>>())?;
        stacked.code = None;
        Ok(stacked.name(&format!("{metric:?}, {} patched: {}", names.join(", "), self.direction)))
    }

    /// The cells to patch, in the layers chosen.
    pub(super) fn cells(&self, what: &str, sites: &Sites, by: &[Axis]) -> Result<Cells> {
        let (config, (_, receiver)) = (self.model.config(), self.runs());
        Cells::new(what, config, receiver, (sites, by))?.in_layers(
            what,
            &self.layers,
            config.n_layers,
        )
    }

    /// The tokens the patch comes from, and those of the run that receives it.
    pub(super) fn runs(&self) -> (&Tokens, &Tokens) {
        self.direction.order(&self.clean, &self.corrupt)
    }

    /// Runs the source of the patch.
    pub(super) fn source(&self, sites: impl Into<Sites>, metric: &Metric) -> Result<Source> {
        let (source, _) = self.runs();
        let run = self.model.run(source, &Plan::new().cache(sites))?;
        let metric = metric.of(&run.logits, source)?.to_kind(Kind::Double);
        Ok(Source { cache: run.cache, metric: Vec::try_from(metric)? })
    }

    /// Normalised if asked, the mean over prompts unless each is wanted, with labels and notes.
    pub(super) fn finish(&self, swept: Swept, source: &Source, metric: &Metric) -> Result<Grid> {
        let base = swept.base.clone();
        let scale = match self.normalised {
            true => Some(scale(
                "patching",
                (&self.model, metric),
                (&base, &source.metric),
                self.each_prompt,
            )?),
            false => None,
        };
        let swept = match &scale {
            Some(scale) => swept.map(|value, _, row| (value - base[row]) / scale[row]),
            None => swept,
        };
        let mut grid = swept.mean(self.each_prompt)?;
        let labels = self.position_labels();
        for axis in [Axis::Pos, Axis::Query, Axis::Key] {
            if grid.labels(axis).is_ok() {
                grid = grid.relabel(axis, &labels)?;
            }
        }
        let (from, to) = self.direction.order("clean", "corrupt");
        if scale.is_some() {
            let (zero, one) = (format!("the {to} run"), format!("the {from} run"));
            grid = grid.zero_one(&zero, &one).unit(&format!("share of {metric:?} moved"));
        }
        grid = grid.of_runs(source.cache.origin().cloned());
        let differ = self.differences().into_iter().map(|places| format!("{places:?}"));
        Ok(grid
            .note("direction", &self.direction.to_string())
            .note(&format!("{from} run"), &mean_text(&source.metric))
            .note(&format!("{to} run"), &mean_text(&base))
            .note("tokens differ at", &differ.collect::<Vec<_>>().join(", ")))
    }

    /// The clean tokens, with the corrupt one beside it where they differ: `John/Mary`.
    pub(super) fn position_labels(&self) -> Vec<String> {
        let clean = frame::position_labels(&self.clean);
        let corrupt = frame::position_labels_by(&self.corrupt, &self.clean);
        let both = clean.into_iter().zip(corrupt);
        both.map(|(a, b)| if a == b { a } else { format!("{a}/{}", b.trim_start()) }).collect()
    }
}

/// The run that a patch comes from.
pub(super) struct Source {
    pub(super) cache: Cache,
    /// Its metric, one number a prompt.
    pub(super) metric: Vec<f64>,
}

pub(super) fn check_pair(clean: &Tokens, corrupt: &Tokens) -> Result<()> {
    ensure!(
        clean.batch() == corrupt.batch(),
        "patching: {} clean prompts and {} corrupt ones: expected one corrupt prompt for each clean one",
        clean.batch(),
        corrupt.batch()
    );
    let unequal = clean.lens().into_iter().zip(corrupt.lens()).enumerate();
    let unequal: Vec<_> = unequal.filter(|(_, (a, b))| a != b).collect();
    let Some((row, (a, b))) = unequal.first() else { return Ok(()) };
    let (clean, corrupt) = (&clean.ids()[*row], &corrupt.ids()[*row]);
    let part = clean.iter().zip(corrupt).position(|(a, b)| a != b).unwrap_or(*a.min(b));
    let rows: Vec<_> = unequal.iter().map(|(row, _)| *row).collect();
    bail!(
        "patching: the pair is not aligned: rows {rows:?} differ in length; row {row} has {a} clean \
         tokens and {b} corrupt ones, which part at position {part}: replace words by words of as many tokens"
    )
}
