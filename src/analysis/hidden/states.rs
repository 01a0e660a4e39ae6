//! Activations at one place of each prompt, gathered in batches, and small tools on them.

use anyhow::{Result, ensure};
use tch::{Device, Kind, Tensor};

use crate::analysis::frame;
use crate::grid::Grid;
use crate::hook::metric::{Answers, Metric};
use crate::hook::plan::Plan;
use crate::hook::site::{Axis, Site};
use crate::index::Position;
use crate::model::Model;
use crate::record::Origin;
use crate::rng::Rng;
use crate::show::Bar;
use crate::text::Tokens;

/// Prompts of one pass.
const ROWS: usize = 64;

/// Each prompt's activation at a position, at every site, `[Batch, ..]` each, f64 on the CPU; and the
/// runs they come from. `what` begins the error: "probe".
pub(super) fn states(
    what: &str,
    (model, tokens): (&Model, &Tokens),
    sites: &[Site],
    position: &Position,
) -> Result<(Vec<Tensor>, Vec<Origin>)> {
    for site in sites {
        let axes = site.axes();
        ensure!(
            axes[..2] == [Axis::Batch, Axis::Pos],
            "{what} at {site}: its axes are {axes:?}, expected [Batch, Pos, ..]"
        );
    }
    let places = tokens.places(position).map_err(|error| anyhow::anyhow!("{what}: {error:#}"))?;
    let rows: Vec<usize> = (0..tokens.batch()).collect();
    let plan = Plan::new().cache(sites).logits_at(-1);
    let mut found: Vec<Vec<Tensor>> = sites.iter().map(|_| Vec::new()).collect();
    let mut origins = Vec::new();
    let mut bar = Bar::new(what, rows.len()).unit("prompts");
    for part in rows.chunks(ROWS) {
        let own = tokens.rows(part)?;
        let at = Position::PerRow(part.iter().map(|row| places[*row][0] as i64).collect());
        let cache = model.run(&own, &plan)?.cache;
        for (site, found) in sites.iter().zip(&mut found) {
            let x = frame::at_position(&cache.get(*site)?, &own, &at)?;
            found.push(x.to_device(Device::Cpu));
        }
        origins.extend(cache.origin().cloned());
        bar.add(part.len());
    }
    bar.finish();
    Ok((found.iter().map(|parts| Tensor::cat(parts, 0)).collect(), origins))
}

/// A grid of a sweep's numbers that notes what ran: a plain pass, cheap beside the sweep.
pub(super) fn recorded(grid: Grid, model: &Model, tokens: &Tokens) -> Result<Grid> {
    let plain = model.run(tokens, &Plan::new().logits_at(-1))?.cache;
    Ok(grid.of_runs(plain.origin().cloned()).note("model", &format!("{model:?}")))
}

/// The probability of each row's answers, 0..1, at its last token.
pub(super) fn probability(answers: impl Into<Answers>) -> Metric {
    let answers = answers.into();
    Metric::custom("probability of the answer", move |logits| {
        Ok(Metric::log_prob(&answers).of_row(logits)?.exp())
    })
}

/// Random directions of the length of `direction [D]`, `[n, D]`: normal numbers, rescaled.
pub(super) fn random_like(direction: &Tensor, n: usize, rng: &mut Rng) -> Tensor {
    let d = direction.size()[0];
    let drawn = rng.normal_tensor(&[n as i64, d]).to_kind(Kind::Double);
    rescaled(&drawn, &direction.to_kind(Kind::Double).norm())
}

/// Rows of another length.
pub(super) fn rescaled(rows: &Tensor, length: &Tensor) -> Tensor {
    rows / rows.norm_scalaropt_dim(2, [-1i64].as_slice(), true) * length
}

/// A direction as a vector of `d` numbers, in f64 on the CPU; anything else is an error that
/// begins with `what`.
pub(super) fn checked(what: &str, direction: &Tensor, d: usize) -> Result<Tensor> {
    ensure!(
        direction.size() == [d as i64],
        "{what}: the direction is {:?}, expected [{d}]",
        direction.size()
    );
    let direction = direction.detach().to_device(Device::Cpu).to_kind(Kind::Double);
    let length = direction.norm().double_value(&[]);
    ensure!(
        length.is_finite() && length > 0.0,
        "{what}: the direction has length {length}, expected a positive number"
    );
    Ok(direction)
}

/// The numbers at shares 0.025 and 0.975 of a sorted list (nearest rank): its central 95 %.
pub(super) fn central(values: &[f64]) -> (f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
    (at(0.025), at(0.975))
}

/// Mean with its 95 % normal interval; a single value says nothing of its spread: bounds of NaN.
pub(super) fn mean_interval(values: &[f64]) -> (f64, f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let half = 1.959_963_984_540_054 * (variance / n).sqrt();
    (mean, mean - half, mean + half)
}
