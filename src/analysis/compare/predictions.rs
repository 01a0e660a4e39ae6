//! Where two models say different things: at which tokens, and from which layer on.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use crate::analysis::frame;
use crate::grid::Grid;
use crate::hook::cache::Cache;
use crate::hook::site::Axis;
use crate::model::{Model, Run};
use crate::show::progress;
use crate::text::Tokens;

/// `KL(a || b)` in nats of what two runs on the same tokens predict at every position: `[Pos]`, or
/// `[Batch, Pos]` for several prompts. The runs must have the logits of all positions.
///
/// ```no_run
/// use thalweg::{Model, Plan, prediction_kl};
/// let a = Model::load("data/models/tiny-world")?;
/// let b = a.shuffled(1)?;
/// let tokens = a.tokens("The capital of France is")?;
/// let kl = prediction_kl(&a.run(&tokens, &Plan::new())?, &b.run(&tokens, &Plan::new())?)?;
/// assert!(kl.at(&[-1])? > 1.0);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn prediction_kl(a: &Run, b: &Run) -> Result<Grid> {
    let tokens = same_tokens("prediction_kl", &a.cache, &b.cache)?;
    let all = [tokens.batch() as i64, tokens.width() as i64];
    for run in [a, b] {
        ensure!(
            run.logits.size()[..2] == all,
            "prediction_kl: a run's logits are {:?}, expected those of all positions, {all:?}: leave logits_at out",
            run.logits.size()
        );
    }
    let grid =
        frame::by_position(&a.cache, vec![String::new()], &[kl(&a.logits, &b.logits)?], "nats")?;
    let mut grid = grid.select(Axis::Layer, 0)?;
    grid.provenance.remove(&Axis::Layer.to_string()); // there was but one
    Ok(grid.of_runs(b.cache.origin().cloned()).name("KL of the predictions of two models"))
}

/// `KL(a || b)` in nats of what the logit lenses of two models read at each rung and position:
/// `[Layer, Pos]`, or `[Batch, Layer, Pos]`. Both caches must hold the same rungs of the same tokens,
/// of models of as many layers; widths may differ.
pub fn lens_divergence(
    (model_a, a): (&Model, &Cache),
    (model_b, b): (&Model, &Cache),
) -> Result<Grid> {
    same_tokens("lens_divergence", a, b)?;
    let (rungs, others) = (frame::rungs(a)?, frame::rungs(b)?);
    ensure!(
        rungs == others,
        "lens_divergence: the caches hold other places of the stream: {:?} and {:?}",
        rungs.iter().map(|(label, _)| label).collect::<Vec<_>>(),
        others.iter().map(|(label, _)| label).collect::<Vec<_>>()
    );
    let (mut labels, mut values) = (Vec::new(), Vec::new());
    for (label, site) in progress(rungs, "lens").unit("rungs") {
        let said = [model_a.unembed(&a.get(site)?)?, model_b.unembed(&b.get(site)?)?];
        values.push(kl(&said[0], &said[1])?);
        labels.push(label);
    }
    let grid = frame::by_position(a, labels, &values, "nats")?;
    Ok(grid.of_runs(b.origin().cloned()).name("KL of the lenses of two models"))
}

/// `[.., Vocab]` twice -> `[..]`, f64.
fn kl(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let sizes = [a, b].map(|logits| logits.size().last().copied().unwrap_or(0));
    ensure!(
        sizes[0] == sizes[1],
        "the models have vocabularies of {} and {} ids, expected the same",
        sizes[0],
        sizes[1]
    );
    let [a, b] = [a, b].map(|logits| logits.detach().log_softmax(-1, Kind::Double));
    let difference = &a - b.to_device(a.device());
    Ok((a.exp() * difference).sum_dim_intlist([-1i64].as_slice(), false, None))
}

fn same_tokens<'a>(what: &str, a: &'a Cache, b: &Cache) -> Result<&'a Tokens> {
    ensure!(
        a.tokens().ids() == b.tokens().ids(),
        "{what}: the runs are of different tokens, expected two runs on the same"
    );
    Ok(a.tokens())
}
