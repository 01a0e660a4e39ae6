//! Features of activations: dictionaries of latents, what makes them fire, learned subspaces.
//!
//! A sparse autoencoder or transcoder ([`Sae`]) is opened from SAELens' format, or trained
//! ([`TopKTraining`]), scored ([`SaeScores`]) and spliced into a run with its error term
//! ([`Splice`]); [`max_activating`] shows what a neuron or a latent stands for. [`Das`] learns the
//! subspace in which a model keeps a variable of a [`CausalModel`].

mod causal_model;
mod das;
mod interchange;
mod max_activating;
mod normalization;
mod sae;
mod sae_file;
mod sae_save;
mod sae_scores;
mod splice;
mod topk;

pub use causal_model::{CausalModel, CausalValues};
pub use das::{Das, DasStudy};
pub use interchange::{InterchangePairs, Subspace};
pub use max_activating::{FeatureExamples, Features, Snippet, max_activating};
pub use normalization::Normalization;
pub use sae::{Sae, SaeKind};
pub use sae_scores::SaeScores;
pub use splice::Splice;
pub use topk::TopKTraining;
