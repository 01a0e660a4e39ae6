//! What hidden states hold, and whether the model uses it.
//!
//! A probe says that something can be read off a state, not that the model reads it: beside each
//! stand control labels, the embedding and a model of shuffled weights, and its direction can be
//! ablated or steered with. Steering, direction ablation, function vectors and Patchscopes change
//! the state and look at what follows; each has its random or shuffled control beside it.

mod cosines;
mod direction_ablation;
mod few_shot;
mod function_vector;
mod patchscope;
mod probe;
mod states;
mod steering;

pub use cosines::direction_cosines;
pub use direction_ablation::{DirectionEffect, direction_ablation, orthogonalised};
pub use few_shot::{FewShot, FewShotPrompts};
pub use function_vector::{FunctionVectorEffect, FunctionVectors, function_vectors};
pub use patchscope::{Patchscope, PatchscopeTop};
pub use probe::{Probe, ProbeMethod, ProbeReport, Probing};
pub use steering::{DoseResponse, SteeringVector, steering_vector};
