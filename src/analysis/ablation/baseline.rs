//! What stands in for the part taken out.

use anyhow::{Result, bail, ensure};
use tch::{Kind, Tensor};

use super::optimal::Optimal;
use crate::hook::cache::Cache;
use crate::hook::intervention::Intervention;
use crate::hook::metric::Metric;
use crate::hook::plan::Plan;
use crate::hook::site::{Axis, Site};
use crate::model::Model;
use crate::record::Origin;
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
    Optimal(Optimal),
}

impl Ablation {
    fn new(how: How, label: String) -> Self {
        Ablation { how, label }
    }

    /// Zeros.
    pub fn zero() -> Self {
        Self::new(How::Fixed(vec![Intervention::zero()]), "zero".to_owned())
    }

    /// The mean over the prompts and positions of `reference`, without the first token of each row
    /// that has others: much attention rests there, and its values lie far off all others.
    pub fn mean(reference: &Tokens) -> Self {
        let several = reference.lens().iter().any(|len| *len > 1);
        let firsts = if several { ", first tokens left out" } else { "" };
        let label = format!("mean over {} prompts{firsts}", reference.batch());
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

    /// Optimal ablation (Li and Janson 2024, <https://arxiv.org/abs/2409.09951>): for each component the one
    /// constant, the same at every position of every prompt, under which `objective` is least in the mean
    /// over `reference`, found by `steps` steps of gradient descent from the better of zero and the
    /// mean of [`mean`](Self::mean). What is still lost then is what the component told apart, not the shock of an odd value.
    ///
    /// `objective` is a loss: the lower, the better ([`Metric::loss_at`], [`Metric::kl`] to the unedited run).
    /// For [`ablation_study`](crate::ablation_study); constants are found for each component alone.
    pub fn optimal(reference: &Tokens, objective: &Metric, steps: usize) -> Self {
        let (from, objective) = (reference.clone(), objective.clone());
        let label = format!("optimal constant over {} prompts", from.batch());
        Self::new(How::Optimal(Optimal { from, objective, steps }), label)
    }

    /// What stands in, in words.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    pub(super) fn is_zero(&self) -> bool {
        self.label == "zero"
    }

    pub(super) fn is_projection(&self) -> bool {
        self.label.starts_with("projection")
    }

    /// How its constants are found, where each component has its own.
    pub(super) fn each_its_own(&self) -> Option<&Optimal> {
        match &self.how {
            How::Optimal(optimal) => Some(optimal),
            _ => None,
        }
    }

    /// One list of interventions a draw, to be narrowed to the part taken out, and the run that they
    /// hold values of.
    pub(super) fn draws(
        &self,
        model: &Model,
        tokens: &Tokens,
        sites: &[Site],
    ) -> Result<(Vec<Vec<Intervention>>, Option<Origin>)> {
        let reference = |from: &Tokens| -> Result<Cache> {
            Ok(model.run(from, &Plan::new().cache(sites.to_vec()))?.cache)
        };
        Ok(match &self.how {
            How::Fixed(each) => (vec![each.clone()], None),
            How::Mean(from) => {
                let cache = without_firsts(&reference(from)?)?;
                (vec![vec![Intervention::mean(&cache)]], cache.origin().cloned())
            }
            How::MeanByPos(from) => {
                let cache = reference(from)?;
                (vec![vec![Intervention::mean_by_pos(&cache)]], cache.origin().cloned())
            }
            How::Resample { from, draws, seed } => {
                let (cache, chosen) = (reference(from)?, choose(tokens, from, *draws, *seed)?);
                let each = chosen.iter().map(|rows| vec![Intervention::resample(&cache, rows)]);
                (each.collect(), cache.origin().cloned())
            }
            How::Optimal(_) => bail!(
                "ablation: an optimal constant belongs to a component: expected ablation_study, or zero, mean or resample"
            ),
        })
    }
}

/// The cache without the first token of each row that has others.
pub(super) fn without_firsts(cache: &Cache) -> Result<Cache> {
    let tokens = cache.tokens();
    let width = tokens.width() as i64;
    if width < 2 {
        return Ok(cache.clone());
    }
    let rest = |ids: &Vec<i64>| ids[usize::from(ids.len() > 1)..].to_vec();
    let rest: Vec<Vec<i64>> = tokens.ids().iter().map(rest).collect();
    let mut kept = Cache::new(&Tokens::from_ids(&rest)?, cache.n_layers());
    for site in cache.sites() {
        let x = cache.get(site)?;
        // Rows stand at the right: one column less, and each has lost its first token.
        let along = site.axes().get(1) == Some(&Axis::Pos);
        kept.insert(site, if along { x.narrow(1, 1, width - 1) } else { x });
    }
    cache.origin().cloned().into_iter().for_each(|origin| kept.set_origin(origin));
    Ok(kept)
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
    // What is new in a row, against its length: less than its own rounding is nothing.
    let new = r.diagonal(0, 0, 1).abs();
    let lengths = rows.norm_scalaropt_dim(2, [1i64].as_slice(), false);
    let least = match directions.kind() {
        Kind::Half | Kind::BFloat16 => 1e-2,
        Kind::Float => 1e-5,
        _ => 1e-9,
    };
    let independent = rows.size()[0] <= rows.size()[1]
        && bool::try_from(new.gt_tensor(&(lengths * least)).all())?;
    ensure!(
        independent,
        "project_out: the {} directions of {} entries depend on each other (or are zero)",
        rows.size()[0],
        rows.size()[1]
    );
    Ok((0..q.size()[1]).map(|i| q.select(1, i).to_kind(directions.kind())).collect())
}
