//! Ablation: what is lost without a component, against what stands in for it, and how many a behaviour
//! rests on.
//!
//! [`ablation`] sweeps the parts of one point, [`ablation_study`] any set of components under several
//! baselines side by side, with its knock-out curves; [`attention_knockout`] cuts attention between
//! positions.

mod baseline;
mod component;
mod curve;
mod grid;
mod knock_out;
mod knockout;
mod optimal;
mod study;

pub use baseline::Ablation;
pub use component::Component;
pub use curve::{ablation_curve, random_heads};
pub use grid::ablation;
pub use knock_out::KnockOut;
pub use knockout::attention_knockout;
pub(super) use knockout::{around, check_window, default_window};
pub use study::{AblationStudy, ablation_study};
