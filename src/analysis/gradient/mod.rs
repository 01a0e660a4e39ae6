//! Methods that ask the gradient instead of running every change: what they share.

mod atp;
mod compare;
mod edges;
mod integrated;
mod nodes;
mod qk;

use anyhow::{Result, ensure};
use tch::Tensor;

use super::frame;
use crate::grid::Grid;
use crate::hook::metric::Metric;
use crate::hook::plan::Plan;
use crate::hook::site::{Axis, Site};
use crate::model::{Model, Run};
use crate::text::Tokens;

pub use atp::{AttributionPatching, Estimates};
pub use compare::Comparison;
pub use edges::{Edge, EdgeAttribution, Edges, Rule};
pub use integrated::{
    Baseline, Integrated, gradient_norm, gradient_times_input, integrated_gradients,
};
pub use nodes::{Reader, Writer, edge_count};
pub(super) use nodes::{exists, readers};

/// Logits only where the metric looks, unless they are asked for.
pub(super) fn looking_at(plan: Plan, metric: &Metric, sites: &[Site]) -> Plan {
    match metric.position() {
        Some(position) if !sites.contains(&Site::Logits) => plan.logits_at(position),
        _ => plan,
    }
}

/// The metric of a run whose plan went through [`looking_at`], `[Batch]`, f64.
pub(super) fn value(metric: &Metric, run: &Run, tokens: &Tokens) -> Result<Tensor> {
    let one = metric.position().is_some() && run.logits.size()[1] == 1;
    let value = match one {
        true => metric.of_row(&run.logits.squeeze_dim(1))?,
        false => metric.of(&run.logits, tokens)?,
    };
    Ok(value.to_kind(tch::Kind::Double))
}

/// Labels of an axis of a site; `places` are those of positions.
fn labels(axis: Axis, len: i64, places: &[String]) -> Vec<String> {
    let len = len as usize;
    match axis {
        Axis::Pos | Axis::Query | Axis::Key => places.to_vec(),
        Axis::Layer => frame::numbered('L', len),
        Axis::Head => frame::numbered('H', len),
        Axis::KvHead => frame::numbered('G', len),
        _ => (0..len).map(|i| i.to_string()).collect(),
    }
}

/// Sums `x`, whose axes are `have` after `Batch`, over all that are not in `by`, in f64; what is
/// left stands in the order of `by`: `[Batch, ..by]`.
fn sum_to(x: &Tensor, have: &[Axis], by: &[Axis]) -> Tensor {
    let place = |axis: &Axis| have.iter().position(|own| own == axis).map(|at| at as i64 + 1);
    let gone: Vec<i64> =
        (0..have.len()).filter(|i| !by.contains(&have[*i])).map(|i| i as i64 + 1).collect();
    let order: Vec<i64> =
        std::iter::once(0).chain(by.iter().filter_map(place)).chain(gone.iter().copied()).collect();
    let x = x.permute(&order[..]).to_kind(tch::Kind::Double);
    match gone.len() {
        0 => x,
        n => x.flatten(-(n as i64), -1).sum_dim_intlist([-1i64].as_slice(), false, None),
    }
}

/// The axes of `by` must be the site's, each once; `Batch` and `Layer` are understood.
fn check_axes(by: &[Axis], site: Site, have: &[Axis]) -> Result<()> {
    for (i, axis) in by.iter().enumerate() {
        ensure!(
            have.contains(axis),
            "by: {site} has no axis {axis} to tell apart here; it has {have:?}"
        );
        ensure!(!by[..i].contains(axis), "by: {axis} is named twice");
    }
    Ok(())
}

/// Marks in a grid what all gradient methods note.
pub(super) fn noted(grid: Grid, model: &Model, metric: &Metric) -> Grid {
    grid.note("metric", &format!("{metric:?}")).note("model", &format!("{model:?}"))
}
