//! Two models, or two checkpoints of one, on the same tokens: how alike their representations are.
//!
//! Every measure takes two sets of vectors `[n, D]` whose rows belong together, and forgives
//! something: [`cka`] and [`procrustes`] a rotation and a common scale, [`svcca`] and [`pwcca`] any
//! linear map, [`mutual_neighbours`] and [`rsa`] all but who is near whom. [`compare_layers`] takes a
//! measure to every pair of layers, beside the same with rows paired at random. [`prediction_kl`] and
//! [`lens_divergence`] compare what is said, [`weight_difference`] the weights, and [`match_heads`] finds
//! which head is which. [`StreamMap`] carries directions and probes from one model to the other, and
//! [`Stitching`] runs one from the streams of the other.

mod assignment;
mod cca;
mod cka;
mod data;
mod heads;
mod layers;
mod neighbours;
mod predictions;
mod procrustes;
mod similarity;
mod stitching;
mod stream_map;
mod weights;

pub use cca::{Cca, cca, pwcca, svcca};
pub use cka::{MinibatchCka, cka, cka_debiased};
pub use heads::{HeadMatching, HeadPair, HeadSimilarity, match_heads};
pub use layers::{LayerComparison, compare_layers};
pub use neighbours::{mutual_neighbours, rsa};
pub use predictions::{lens_divergence, prediction_kl};
pub use procrustes::{Procrustes, procrustes};
pub use similarity::Similarity;
pub use stitching::{Stitched, Stitching};
pub use stream_map::{StreamFit, StreamMap};
pub use weights::{WeightDifference, weight_difference};
