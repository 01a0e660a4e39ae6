//! Layer by layer: what each place of the residual stream would say, how long it is, and how far
//! each block turns it.
//!
//! Three lenses read the stream as a prediction: the logit lens as it stands ([`logit_lens`], and
//! all else of [`Lens`]), the tuned lens through a map that was trained for it ([`TunedLens`]), the
//! Jacobian lens through the mean derivative of the final stream ([`JacobianLens`]). The second half
//! measures the stream itself and what heads and MLPs write to it.

mod components;
mod jacobian;
mod jacobian_fit;
mod lens;
mod logit;
mod maps;
mod resolution;
mod rows;
mod stream;
mod top;
mod tuned;
mod tuned_steps;
mod tuned_training;
mod turning;

pub use components::{Against, component_cosines, component_norms, head_cosines, head_norms};
pub use jacobian::JacobianLens;
pub use jacobian_fit::JacobianFit;
pub use lens::Lens;
pub use logit::{
    lens, lens_at, lens_entropy, lens_kl, lens_rank, lens_top, lens_top_k, logit_lens,
};
pub use resolution::{lens_resolution, lens_settled};
pub(super) use rows::Rows;
pub use stream::{resid_cosines, resid_norms, resid_updates, with_first};
pub use top::{LensTop, LensTopK};
pub use tuned::TunedLens;
pub use tuned_training::{LensOptimizer, TunedLensFit, TunedLensTraining};
pub use turning::{anisotropy, resid_angles, resid_angles_across, resid_cosines_centred};
