//! What a metric loses with each head, neuron, position or layer taken out in turn.
//!
//! Zero and mean ablation as in Wang et al. 2022, <https://arxiv.org/abs/2211.00593>; resample
//! ablation as in Chan et al. 2022, "Causal scrubbing",
//! <https://www.alignmentforum.org/posts/JvZhhzycHu2Yd57RN>; removal of a subspace as in Ravfogel et
//! al. 2020, <https://arxiv.org/abs/2004.07667>. Zeros lie off the data's distribution: put mean or
//! resample ablation beside them. A mean belongs to the prompts it was taken over.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use super::cells::{CHUNK, Cells, Swept};
use crate::grid::Grid;
use crate::hook::cache::Cache;
use crate::hook::intervention::Intervention;
use crate::hook::metric::Metric;
use crate::hook::plan::Plan;
use crate::hook::site::Axis;
use crate::hook::sites::Sites;
use crate::model::Model;
use crate::rng::Rng;
use crate::text::Tokens;

/// What stands in for the part taken out.
#[derive(Debug, Clone)]
pub struct Ablation {
    how: How,
    label: String,
}

#[derive(Debug, Clone)]
enum How {
    /// These, one after the other.
    Fixed(Vec<Intervention>),
    Mean(Tokens),
    MeanByPos(Tokens),
    Resample {
        from: Tokens,
        draws: usize,
        seed: u64,
    },
}

impl Ablation {
    fn new(how: How, label: String) -> Self {
        Ablation { how, label }
    }

    /// Zeros.
    pub fn zero() -> Self {
        Self::new(How::Fixed(vec![Intervention::zero()]), "zero".to_owned())
    }

    /// The mean over the prompts and positions of `reference`.
    pub fn mean(reference: &Tokens) -> Self {
        let label = format!("mean over {} prompts", reference.batch());
        Self::new(How::Mean(reference.clone()), label)
    }

    /// The mean over the prompts of `reference`, position by position.
    pub fn mean_by_pos(reference: &Tokens) -> Self {
        let label = format!("mean over {} prompts at the position", reference.batch());
        Self::new(How::MeanByPos(reference.clone()), label)
    }

    /// The same part of a prompt drawn from `reference`, `draws` times: the mean of the draws. Each
    /// row is given one of the prompts that are as long as it, the same for every cell.
    pub fn resample(reference: &Tokens, draws: usize, seed: u64) -> Self {
        let from = reference.clone();
        let label = format!("{draws} resamples of {} prompts, seed {seed}", from.batch());
        Self::new(How::Resample { from, draws, seed }, label)
    }

    /// Removes the part within a subspace, `x - QᵀQ x`, `Q` an orthonormal basis of the rows of
    /// `directions`: `[D]` or `[K, D]`, `D` the site's last axis. Rows that depend on each other are
    /// an error. The control is as many random ones: `Rng::new(seed).normal_tensor(&[k, d])`.
    pub fn project_out(directions: &Tensor) -> Result<Self> {
        let rows = orthonormal(directions)?;
        let label = format!("projection off {} directions", rows.len());
        let each = rows.iter().map(Intervention::project_out).collect();
        Ok(Self::new(How::Fixed(each), label))
    }
}

/// The change of a metric when each part of a point is ablated in turn: `[Layer, ..by]`, in the
/// metric's unit; 0 is the unedited run. Of several prompts or draws it is the mean, with its 95 %
/// interval over prompts, or over draws of one prompt.
///
/// `by` names the parts: `[Axis::Head]` of `Point::Z`, `[Axis::DMlp]` of `Point::MlpPost` for
/// neurons, `[Axis::Pos]` of any stream, both, or nothing for the whole of `Point::MlpOut`.
///
/// ```
/// use thalweg::{Ablation, Axis, Metric, Model, Point, ablation, repeated_tokens};
/// let model = Model::load("data/models/tiny-world")?;
/// let tokens = repeated_tokens(&model, 16, 12, 0)?;
/// let others = repeated_tokens(&model, 16, 12, 1)?;
/// let loss = Metric::loss_at(14..); // over the second copy
/// let heads = [Axis::Head];
/// let zero = ablation(&model, &tokens, Point::Z, &heads, &Ablation::zero(), &loss)?;
/// let drawn = Ablation::resample(&others, 4, 7);
/// let resampled = ablation(&model, &tokens, Point::Z, &heads, &drawn, &loss)?;
/// assert_eq!(zero.axes, resampled.axes);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn ablation(
    model: &Model,
    tokens: &Tokens,
    sites: impl Into<Sites>,
    by: &[Axis],
    how: &Ablation,
    metric: &Metric,
) -> Result<Grid> {
    let cells = Cells::new("ablation of", model.config(), tokens, (&sites.into(), by))?;
    let (name, last) = (cells.name(), cells.site(&[0]).axes().last());
    ensure!(
        !how.label.starts_with("projection") || !by.iter().any(|axis| Some(axis) == last),
        "ablation of {name} by {by:?}: a projection takes the last axis whole; leave it out"
    );
    let mut origin = None;
    let mut reference = |from: &Tokens| -> Result<Cache> {
        let cache = model.run(from, &Plan::new().cache(cells.sites()))?.cache;
        origin = cache.origin().cloned();
        Ok(cache)
    };
    // One list of interventions a draw.
    let draws: Vec<Vec<Intervention>> = match &how.how {
        How::Fixed(each) => vec![each.clone()],
        How::Mean(from) => vec![vec![Intervention::mean(&reference(from)?)]],
        How::MeanByPos(from) => vec![vec![Intervention::mean_by_pos(&reference(from)?)]],
        How::Resample { from, draws, seed } => {
            let (cache, chosen) = (reference(from)?, choose(tokens, from, *draws, *seed)?);
            chosen.iter().map(|rows| vec![Intervention::resample(&cache, rows)]).collect()
        }
    };
    let plan = |draw: usize, cell: &[usize]| {
        Ok(draws[draw].iter().fold(Plan::new(), |plan, intervention| {
            plan.intervene(cells.site(cell), cells.narrow(cell, intervention.clone()))
        }))
    };
    let swept = Swept::new((model, tokens, metric), (&cells, draws.len(), CHUNK), plan)?;
    let grid = swept.change().mean(false)?;
    let by: String = by.iter().map(|axis| format!(" by {axis}")).collect();
    Ok(grid
        .of_runs(origin)
        .name(&format!("change of {metric:?}, {name} ablated{by} ({})", how.label))
        .note("ablation", &how.label))
}

/// For each draw, the row of `from` that each row of `tokens` is given.
fn choose(tokens: &Tokens, from: &Tokens, draws: usize, seed: u64) -> Result<Vec<Vec<usize>>> {
    ensure!(draws > 0, "ablation: 0 resamples asked for, expected at least 1");
    let lens = from.lens();
    let mut pools = Vec::new();
    for (row, len) in tokens.lens().into_iter().enumerate() {
        let pool: Vec<usize> = (0..lens.len()).filter(|other| lens[*other] == len).collect();
        ensure!(
            !pool.is_empty(),
            "ablation: row {row} has {len} tokens, the reference's rows have {lens:?}: resampling needs one as long"
        );
        pools.push(pool);
    }
    let mut rng = Rng::new(seed);
    Ok((0..draws).map(|_| pools.iter().map(|pool| pool[rng.below(pool.len())]).collect()).collect())
}

/// An orthonormal basis of the rows' span, one vector a row.
fn orthonormal(directions: &Tensor) -> Result<Vec<Tensor>> {
    let size = directions.size();
    ensure!(
        matches!(size.len(), 1 | 2) && directions.numel() > 0,
        "project_out: the directions are {size:?}, expected [D] or [K, D]"
    );
    let rows = directions.to_kind(Kind::Double).reshape([-1, size[size.len() - 1]]);
    ensure!(
        bool::try_from(rows.isfinite().all())?,
        "project_out: the directions hold a number that is not finite"
    );
    let (q, r) = Tensor::linalg_qr(&rows.tr(), "reduced");
    // The least that is new in a row, against the longest row.
    let new = r.diagonal(0, 0, 1).abs();
    let longest = rows.norm_scalaropt_dim(2, [1i64].as_slice(), false).max().double_value(&[]);
    let independent =
        size.len() == 1 || size[0] <= size[1] && new.min().double_value(&[]) > 1e-9 * longest;
    ensure!(
        independent && longest > 0.0,
        "project_out: the {} directions of {} entries depend on each other (or are zero)",
        rows.size()[0],
        rows.size()[1]
    );
    Ok((0..q.size()[1]).map(|i| q.select(1, i).to_kind(directions.kind())).collect())
}
