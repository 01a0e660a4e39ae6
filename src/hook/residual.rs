//! What a plan asks of a model whose blocks run elsewhere, shows the residual stream only, and perhaps
//! adds vectors to it.

use anyhow::{Result, ensure};
use tch::{Device, Kind, Tensor};

use super::intervention::{By, Intervention, Op};
use super::plan::Plan;
use super::site::{Axis, Point, Site};
use crate::index::Index;
use crate::text::Tokens;

/// The residual stream between blocks: the embedding, and the stream before and after a block.
pub(crate) fn state_of(site: Site) -> Option<usize> {
    match site {
        Site::Embed => Some(0),
        Site::Block(layer, Point::ResidPre) => Some(layer),
        Site::Block(layer, Point::ResidPost) => Some(layer + 1),
        _ => None,
    }
}

/// Whether a site lies after the last block.
fn is_after_blocks(site: Site) -> bool {
    matches!(site, Site::FinalScale | Site::FinalNormalized | Site::Logits)
}

/// A vector that is added to the stream after a block.
#[derive(Debug)]
pub(crate) struct Steering {
    pub(crate) site: Site,
    pub(crate) label: String,
    pub(crate) layer: usize,
    /// f32, on the CPU, its strength in it.
    pub(crate) vector: Tensor,
    /// Of each row: nowhere, everywhere (`None` within), or at these of its own positions.
    pub(crate) places: Vec<Option<Option<Vec<usize>>>>,
}

/// Whether it adds a vector after a block: `ResidPost`, `add(..).absolute()`, all or some rows and
/// positions.
fn is_steering(site: Site, intervention: &Intervention) -> bool {
    let whole = |by: &By| matches!(by, By::Axis(Axis::Batch | Axis::Pos));
    matches!(site, Site::Block(_, Point::ResidPost))
        && matches!(intervention.op, Op::Add { absolute: true, .. })
        && intervention.region.iter().all(|(by, _)| whole(by))
        && intervention.scope.is_none()
}

impl Plan {
    /// Every site that it records.
    pub(crate) fn recorded_sites(&self, n_layers: usize) -> Vec<Site> {
        self.cache.iter().flat_map(|sites| sites.resolve(n_layers)).collect()
    }

    /// What it asks beyond the residual stream (with `steers`, steered), and what is computed from
    /// that after the last block; in words: "records blocks.2.attn.hook_pattern".
    pub(crate) fn asks_of_blocks(&self, n_layers: usize, steers: bool) -> Option<String> {
        let shown = |site: &Site| state_of(*site).is_some() || is_after_blocks(*site);
        if let Some(site) = self.recorded_sites(n_layers).iter().find(|site| !shown(site)) {
            return Some(format!("records {site}"));
        }
        for (sites, intervention) in &self.interventions {
            for site in sites.resolve(n_layers).into_iter().filter(|site| !is_after_blocks(*site)) {
                match (is_steering(site, intervention), steers) {
                    (true, true) => {}
                    (true, false) => {
                        return Some(format!(
                            "adds to {site} (a server that steers: `capture serve --steering`)"
                        ));
                    }
                    (false, true) => {
                        return Some(format!(
                            "changes {site} by {intervention:?} (this server adds vectors: hook_resid_post, add(..).absolute(), .batch and .pos)"
                        ));
                    }
                    (false, false) => return Some(format!("changes {site}")),
                }
            }
        }
        if let Some((what, _)) = self.frozen.first() {
            return Some(format!("freezes {what}"));
        }
        if self.needs_graph() {
            return Some("needs gradients".to_owned());
        }
        self.attention.map(|attention| format!("forces {attention:?} attention"))
    }

    /// The first thing that it asks beyond recording the residual stream (with `steers`, steered).
    pub(crate) fn asks_beyond_the_stream(&self, n_layers: usize, steers: bool) -> Option<String> {
        if let Some(what) = self.asks_of_blocks(n_layers, steers) {
            return Some(what);
        }
        let recorded = self.recorded_sites(n_layers).into_iter();
        let mut named = recorded.chain(self.changed_sites(n_layers));
        if let Some(site) = named.find(|site| is_after_blocks(*site)) {
            return Some(format!("names {site}"));
        }
        if self.logits_at.is_some() {
            return Some("asks for logits".to_owned());
        }
        if self.offload.is_some() {
            return Some("moves activations elsewhere".to_owned());
        }
        self.cap.map(|bytes| format!("caps memory at {bytes} bytes (use Remote::largest)"))
    }

    /// The same plan without what it adds to the stream.
    pub(crate) fn without_steering(&self, n_layers: usize) -> Plan {
        let mut plan = self.clone();
        plan.interventions.retain(|(sites, intervention)| {
            !sites.resolve(n_layers).iter().all(|site| is_steering(*site, intervention))
        });
        plan
    }

    /// What it adds to the stream of width `d_model`, in order.
    pub(crate) fn steering(
        &self,
        tokens: &Tokens,
        n_layers: usize,
        d_model: usize,
    ) -> Result<Vec<Steering>> {
        let mut list = Vec::new();
        for (sites, intervention) in &self.interventions {
            for site in sites.resolve(n_layers) {
                let Op::Add { direction, strength, .. } = &intervention.op else { continue };
                let Some(layer) = site.layer().filter(|_| is_steering(site, intervention)) else {
                    continue;
                };
                let label = format!("{intervention:?}");
                let wrap = |error: anyhow::Error| {
                    anyhow::anyhow!("intervention at {site}: {label}: {error:#}")
                };
                ensure!(layer < n_layers, "{site}: the model has layers 0..{}", n_layers - 1);
                let size = direction.0.size();
                ensure!(
                    size == [d_model as i64],
                    "intervention at {site}: {label}: the direction is {size:?}, expected [DModel] = [{d_model}]"
                );
                let places = places(intervention, tokens).map_err(wrap)?;
                let vector = direction.0.to_device(Device::Cpu).to_kind(Kind::Float) * *strength;
                list.push(Steering { site, label: label.clone(), layer, vector, places });
            }
        }
        Ok(list)
    }
}

/// Where it acts in each row.
fn places(intervention: &Intervention, tokens: &Tokens) -> Result<Vec<Option<Option<Vec<usize>>>>> {
    let along = |axis| intervention.region.iter().find(|(by, _)| *by == By::Axis(axis));
    let rows: Vec<usize> = match along(Axis::Batch) {
        Some((_, crate::index::Positions::Many(rows))) => rows.resolve(tokens.batch())?,
        _ => Index::All.resolve(tokens.batch())?,
    };
    let columns = match along(Axis::Pos) {
        Some((_, at)) => tokens.places_in(&rows, at)?.into_iter().map(Some).collect(),
        None => vec![None; tokens.batch()],
    };
    let own = |(row, at): (usize, Option<Vec<usize>>)| rows.contains(&row).then_some(at);
    Ok(columns.into_iter().enumerate().map(own).collect())
}
