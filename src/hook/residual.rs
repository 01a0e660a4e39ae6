//! What a plan asks of a model whose blocks run elsewhere and show the residual stream only.

use super::plan::Plan;
use super::site::{Point, Site};

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

impl Plan {
    /// Every site that it records.
    pub(crate) fn recorded_sites(&self, n_layers: usize) -> Vec<Site> {
        self.cache.iter().flat_map(|sites| sites.resolve(n_layers)).collect()
    }

    /// What it asks beyond the residual stream, and what is computed from that after the last block;
    /// in words: "records blocks.2.attn.hook_pattern".
    pub(crate) fn asks_of_blocks(&self, n_layers: usize) -> Option<String> {
        let shown = |site: &Site| state_of(*site).is_some() || is_after_blocks(*site);
        if let Some(site) = self.recorded_sites(n_layers).iter().find(|site| !shown(site)) {
            return Some(format!("records {site}"));
        }
        let changed = self.changed_sites(n_layers);
        if let Some(site) = changed.iter().find(|site| !is_after_blocks(**site)) {
            return Some(format!("changes {site}"));
        }
        if let Some((what, _)) = self.frozen.first() {
            return Some(format!("freezes {what}"));
        }
        if self.needs_graph() {
            return Some("needs gradients".to_owned());
        }
        self.attention.map(|attention| format!("forces {attention:?} attention"))
    }

    /// The first thing that it asks beyond recording the residual stream.
    pub(crate) fn asks_beyond_the_stream(&self, n_layers: usize) -> Option<String> {
        if let Some(what) = self.asks_of_blocks(n_layers) {
            return Some(what);
        }
        let recorded = self.recorded_sites(n_layers).into_iter();
        if let Some(site) =
            recorded.chain(self.changed_sites(n_layers)).find(|s| is_after_blocks(*s))
        {
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
}
