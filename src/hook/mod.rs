//! What may be seen and changed: sites, interventions, plans, and the tap that applies them.

pub(crate) mod action;
pub mod cache;
pub(crate) mod edit;
pub mod freeze;
pub(crate) mod held;
pub mod intervention;
pub(crate) mod memory;
pub mod metric;
pub(crate) mod offload;
pub(crate) mod part;
mod parts;
pub mod plan;
pub(crate) mod program;
pub(crate) mod residual;
pub mod site;
pub mod sites;
pub mod tap;
