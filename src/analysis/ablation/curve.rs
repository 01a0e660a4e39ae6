//! Heads taken out one after the other, best first: how many does a behaviour rest on?
//!
//! Circuits are redundant: taking out one head of several that do the same hardly matters, taking
//! out the set does (Wang et al. 2022, <https://arxiv.org/abs/2211.00593>; McGrath et al. 2023, "The
//! Hydra Effect", <https://arxiv.org/abs/2307.15771>). Beside it belong equally many random heads,
//! and mean ablation beside zero ablation, which leaves the model's own distribution.

use anyhow::{Result, ensure};
use tch::Kind;

use crate::analysis::frame;
use crate::grid::Grid;
use crate::hook::intervention::Intervention;
use crate::hook::metric::Metric;
use crate::hook::plan::Plan;
use crate::hook::site::{Axis, Point};
use crate::model::Model;
use crate::rng::Rng;
use crate::show::progress;
use crate::text::Tokens;

/// A metric after none, the first, the first two, ... of `heads` are ablated: `[Count]`, labelled by
/// how many; the mean over prompts, with its 95 % interval where there are several.
///
/// `heads` are (layer, head); `by` acts on their `Z`: `Intervention::zero()`, or
/// `Intervention::mean(&reference)` with a cache of `Z` over reference prompts.
///
/// ```no_run
/// use thalweg::{Axis, Grid, Intervention, Metric, Model, Plan, Point};
/// use thalweg::{ablation_curve, random_heads, repeated_tokens};
/// let model = Model::load("data/models/tiny-world")?;
/// let tokens = repeated_tokens(&model, 16, 12, 0)?;
/// let mean = Intervention::mean(&model.run(&tokens, &Plan::new().cache(Point::Z))?.cache);
/// let heads = [(2, 1), (3, 0)];
/// let control = random_heads(&model, 2, &heads, 7)?;
/// let loss = Metric::loss_at(14..); // over the second copy
/// let curve = ablation_curve(&model, &tokens, &heads, &mean, &loss)?;
/// let random = ablation_curve(&model, &tokens, &control, &mean, &loss)?;
/// Grid::stack(Axis::Series, &[("chosen", &curve), ("random", &random)])?;
/// # thalweg::anyhow::Ok(())
/// ```
pub fn ablation_curve(
    model: &Model,
    tokens: &Tokens,
    heads: &[(usize, usize)],
    by: &Intervention,
    metric: &Metric,
) -> Result<Grid> {
    for (i, head) in heads.iter().enumerate() {
        ensure!(!heads[..i].contains(head), "head L{}H{} is listed twice", head.0, head.1);
    }
    let (mut values, mut runs) = (Vec::new(), Vec::new());
    for k in progress(0..=heads.len(), "ablation curve").unit("runs") {
        let plan = heads[..k].iter().fold(Plan::new(), |plan, (layer, head)| {
            plan.intervene(Point::Z.at(*layer), by.clone().head(*head))
        });
        let run = model.run(tokens, &plan)?;
        values.push(metric.of(&run.logits, tokens)?.to_kind(Kind::Double));
        runs.push(run.cache);
    }
    let counts = (0..=heads.len()).map(|k| k.to_string()).collect();
    let stacked = tch::Tensor::stack(&values, 1);
    let each = frame::batched(&runs[0], &stacked, &[(Axis::Count, counts)], metric.unit())?;
    let grid = if tokens.batch() > 1 { each.mean_interval(Axis::Batch)? } else { each };
    let names: Vec<_> = heads.iter().map(|(layer, head)| format!("L{layer}H{head}")).collect();
    Ok(grid
        .of_runs(runs.iter().filter_map(|cache| cache.origin().cloned()))
        .name(&format!("{metric:?} after ablating heads"))
        .note("heads", &names.join(", "))
        .note("ablation", &format!("{by:?}"))
        .note("model", &format!("{model:?}")))
}

/// `n` different heads drawn from `seed`, none of those in `except`, as (layer, head).
pub fn random_heads(
    model: &Model,
    n: usize,
    except: &[(usize, usize)],
    seed: u64,
) -> Result<Vec<(usize, usize)>> {
    let (layers, heads) = (model.config().n_layers, model.config().n_heads);
    let all = (0..layers).flat_map(|layer| (0..heads).map(move |head| (layer, head)));
    let pool: Vec<_> = all.filter(|head| !except.contains(head)).collect();
    ensure!(
        n <= pool.len(),
        "{n} random heads wanted, {} are left of {}",
        pool.len(),
        layers * heads
    );
    Ok(Rng::new(seed).sample(pool.len(), n).into_iter().map(|i| pool[i]).collect())
}
