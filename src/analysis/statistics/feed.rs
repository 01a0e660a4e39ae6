//! Runs prompts and adds their activations, a few at a time.

use anyhow::{Result, ensure};

use super::{PIECE, Statistics};
use crate::analysis::frame::width;
use crate::config::Config;
use crate::hook::plan::Plan;
use crate::hook::site::{Axis, Site};
use crate::model::Model;
use crate::show::progress;
use crate::text::Tokens;

/// Runs every batch under `plan` and adds the activations to each of `list`; nothing else is kept.
/// What the plan changes is changed in what is counted. Under [`Plan::cap`] a batch is run in parts,
/// so that the statistics, the activations recorded and the pass itself stay within so many bytes
/// beyond the model.
///
/// Batches come as `Result<Tokens>`, as `model.tokens(text)` and `model.batch(&texts)` give them.
pub fn statistics(
    model: &Model,
    batches: impl IntoIterator<Item = Result<Tokens>>,
    plan: &Plan,
    list: &mut [Statistics],
) -> Result<()> {
    let plan = prepared(model, plan, list)?;
    let batches = progress(batches, "statistics").unit("batches");
    for (i, tokens) in batches.enumerate() {
        tokens
            .and_then(|tokens| feed(model, &tokens, &plan, list))
            .map_err(|error| anyhow::anyhow!("batch {i}: {error:#}"))?;
    }
    Ok(())
}

/// One batch, in parts where the plan's cap asks for it.
fn feed(model: &Model, tokens: &Tokens, plan: &Plan, list: &mut [Statistics]) -> Result<()> {
    let at_once = rows_at_once(model, tokens, plan, list)?;
    let rows: Vec<usize> = (0..tokens.batch()).collect();
    for part in rows.chunks(at_once) {
        let cache = model.run(&tokens.rows(part)?, plan)?.cache;
        list.iter_mut().try_for_each(|statistics| statistics.add(&cache))?;
    }
    Ok(())
}

/// The plan that records the sites, and computes no logits that nobody reads.
fn prepared(model: &Model, plan: &Plan, list: &[Statistics]) -> Result<Plan> {
    ensure!(!list.is_empty(), "statistics: none asked for: expected at least one");
    ensure!(
        plan.records_nothing(),
        "statistics: the plan caches sites, which would be thrown away: leave cache(..) out"
    );
    let sites: Vec<Site> = list.iter().map(|statistics| statistics.site).collect();
    for (site, statistics) in sites.iter().zip(list) {
        let axes = site.axes();
        ensure!(
            axes.len() > 2 && axes[..2] == [Axis::Batch, Axis::Pos],
            "statistics at {site}: its axes are {axes:?}, expected [Batch, Pos, ..]"
        );
        if let (Some(cap), true) = (plan.cap_bytes(), statistics.wants_covariance) {
            let state = state_bytes(model.config(), statistics);
            ensure!(
                state <= cap,
                "statistics at {site}: the covariance takes {state} bytes, the plan's cap is {cap}"
            );
        }
    }
    let changed = plan.changed_sites(model.config().n_layers);
    let whole = sites.contains(&Site::Logits) || changed.contains(&Site::Logits);
    let plan = plan.clone().cache(sites);
    Ok(if whole { plan } else { plan.logits_at(-1) })
}

/// Rows of a batch that can be run together within the plan's cap.
fn rows_at_once(model: &Model, tokens: &Tokens, plan: &Plan, list: &[Statistics]) -> Result<usize> {
    let Some(cap) = plan.cap_bytes() else { return Ok(tokens.batch()) };
    let config = model.config();
    let state: u64 = list.iter().map(|statistics| state_bytes(config, statistics)).sum();
    let longest = (0..tokens.batch()).max_by_key(|row| tokens.ids()[*row].len()).unwrap_or(0);
    let one = tokens.row(longest)?;
    let row = plan.bytes(config, &one, model.kind()) + plan.pass_bytes(config, &one, model.kind());
    let left = cap.saturating_sub(state + 4 * PIECE as u64);
    ensure!(
        row <= left,
        "statistics: row {longest} of {} tokens takes {row} bytes beside {state} of statistics, the plan's cap is {cap}",
        one.width()
    );
    Ok((left / row.max(1)) as usize)
}

/// Bytes the statistics themselves take.
fn state_bytes(config: &Config, statistics: &Statistics) -> u64 {
    let d = width(statistics.site, config) as u64;
    let products = if statistics.wants_covariance { d * d } else { 0 };
    let bins = statistics.histogram.as_ref().map_or(0, |histogram| histogram.bins as u64 + 2);
    8 * (products + 2 * d + 3 * d * statistics.top as u64 + d * bins)
}
