//! A plan made ready for one run.

use tch::{Device, Tensor};

use super::edit::Edit;
use super::freeze::Hold;
use super::metric::Metric;
use super::offload::Offload;
use super::plan::Attention;
use super::site::{Point, Site};
use crate::record::Origin;

/// A plan made ready for one run: what happens at each site, dense by place.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) slots: Vec<Slot>,
    pub(crate) edits: Vec<Edit>,
    pub(crate) n_layers: usize,
    pub(crate) attention: Attention,
    /// Columns of the logits wanted, `[Batch, n]`.
    pub(crate) logits_at: Option<Tensor>,
    pub(crate) gradients: Option<Metric>,
    pub(crate) differentiable: bool,
    /// RelP's rule for the gradients of gate x up.
    pub(crate) relp: bool,
    /// What the reader of the run should know.
    pub(crate) notes: Vec<String>,
    /// Where the plan's tensors lie, and what is recorded; absent: where each site lies.
    pub(crate) home: Option<Device>,
    /// Where what is recorded goes; absent: it stays where it is.
    pub(crate) offload: Option<Offload>,
    /// What the run is, for its record.
    pub(crate) origin: Option<Origin>,
}

/// What happens at one site.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) record: bool,
    pub(crate) edits: Vec<usize>,
    /// The site is frozen.
    pub(crate) hold: Option<Hold>,
}

impl Slot {
    pub(crate) fn is_used(&self) -> bool {
        self.record || !self.edits.is_empty() || self.hold.is_some()
    }
}

impl Program {
    /// Edits that each act on rows of their own, as one program.
    pub(crate) fn of_edits(
        edits: Vec<Edit>,
        n_layers: usize,
        attention: Attention,
        home: Device,
    ) -> Self {
        let mut slots = Vec::new();
        slots.resize_with(n_slots(n_layers), Slot::default);
        for (at, edit) in edits.iter().enumerate() {
            slots[slot(edit.site, n_layers)].edits.push(at);
        }
        Program {
            slots,
            edits,
            n_layers,
            attention,
            logits_at: None,
            gradients: None,
            differentiable: false,
            relp: false,
            notes: Vec::new(),
            home: Some(home),
            offload: None,
            origin: None,
        }
    }

    /// Records a site.
    pub(crate) fn record(&mut self, site: Site) {
        self.slots[slot(site, self.n_layers)].record = true;
    }

    /// Records what another program records.
    pub(crate) fn record_like(&mut self, other: &Program) {
        for (own, other) in self.slots.iter_mut().zip(&other.slots) {
            own.record |= other.record;
        }
    }

    /// Whether a site is held at the value of another run.
    pub(crate) fn holds_values(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot.hold, Some(Hold::At(_))))
    }

    /// Whether anything is recorded.
    pub(crate) fn records(&self) -> bool {
        self.slots.iter().any(|slot| slot.record)
    }

    pub(crate) fn at(&self, site: Site) -> &Slot {
        &self.slots[slot(site, self.n_layers)]
    }

    /// Whether the run must keep its graph.
    pub(crate) fn needs_grad(&self) -> bool {
        self.gradients.is_some() || self.differentiable
    }
}

/// Embed, the blocks' points, then the three sites after the blocks.
pub(crate) fn n_slots(n_layers: usize) -> usize {
    1 + n_layers * Point::ALL.len() + 3
}

pub(crate) fn slot(site: Site, n_layers: usize) -> usize {
    let after = 1 + n_layers * Point::ALL.len();
    match site {
        Site::Embed => 0,
        Site::Block(layer, point) => 1 + layer * Point::ALL.len() + point as usize,
        Site::FinalScale => after,
        Site::FinalNormalized => after + 1,
        Site::Logits => after + 2,
    }
}
