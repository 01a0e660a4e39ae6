//! Which tokens matter: what each one is worth to a metric, or how much of it reaches a position.
//!
//! | question | method | sign | papers |
//! |---|---|---|---|
//! | what is lost without it? (causal) | [`occlusion`] by attention cut or by replacement | yes | Geva et al. 2023 |
//! | what would a small change do? | [`gradient_times_input`](crate::gradient_times_input), [`gradient_norm`](crate::gradient_norm) | yes, no | Simonyan et al. 2013 |
//! | what does it add on the way from a baseline? | [`integrated_gradients`](crate::integrated_gradients) | yes | Sundararajan et al. 2017 |
//! | what do heads write of it to the answer? | [`token_attribution`] | yes | Elhage et al. 2021 |
//! | how much of it is in the stream? | [`attention_rollout`], [`value_weighted_rollout`], [`alti`] | no | Abnar and Zuidema 2020, Kobayashi et al. 2021, Ferrando et al. 2022 |
//!
//! [`Mixing::at`] says what each token brings to one position by the end of each layer, `[Layer, Pos]`.
//! [`importance`] gives them side by side with their agreement with the causal one, for attention is
//! not cause and a saturated gradient is 0. The metric should be a difference of logits: probabilities
//! saturate. [`deletion_curve`] asks of any of them whether the answer rests on what it names.
//! [`by_word`] adds up the pieces of a word, [`occlusion_by_word`] occludes it whole.

mod agreement;
mod alti;
mod carried;
mod deletion;
mod methods;
mod mixing;
mod occlusion;
mod rollout;
mod side_by_side;
mod value_weighted;
mod word_occlusion;
mod words;

pub use alti::alti;
pub use carried::{attention_vectors, mixing_sites};
pub use deletion::deletion_curve;
pub use methods::ImportanceMethod;
pub use mixing::Mixing;
pub use occlusion::{Occlusion, occlusion};
pub use rollout::{attention_rollout, value_weighted_rollout};
pub use side_by_side::{Importance, importance};
pub use value_weighted::{contribution_weights, token_attribution, value_weighted_attention};
pub use word_occlusion::occlusion_by_word;
pub use words::by_word;
