//! Paths: what each component says to the answer and to each other component.
//!
//! | question | here |
//! |---|---|
//! | What does a component, or a token through a head, write towards an answer? | [`attribution`], [`token_attribution`](crate::token_attribution) |
//! | What does one component say to another? | `Patching::paths` |
//! | Which edges carry the behaviour, and do they suffice? | [`Circuit`], [`EdgePatching`], [`Faithfulness`] |
//! | What do a head's weights read, write and feed? | [`FactoredMatrix`], [`ov_circuit`], [`qk_circuit`], [`composition_scores`] |
//! | What kind of head is it? | [`head_scores`], [`head_entropy`], [`head_taxonomy`] |
//!
//! Scores of edges, EAP and EAP-IG, are [`EdgeAttribution`](crate::EdgeAttribution)'s.

mod acdc;
mod attribution;
mod circuit;
mod composition;
mod copying;
mod edge_patching;
mod factored;
mod faithfulness;
mod graph;
mod head_circuits;
mod heads;
mod path_patching;
mod taxonomy;

pub(super) use attribution::Reader;
pub use attribution::{Split, attribution_by};
pub use attribution::{attribution, attribution_sites, head_attribution, neuron_attribution};
pub use circuit::{Circuit, Selection};
pub use composition::{Composition, CompositionScores, composition_effects, composition_scores};
pub use copying::{TokenCopying, token_copying};
pub use edge_patching::EdgePatching;
pub use factored::{FactoredMatrix, Svd};
pub use faithfulness::{Faithfulness, MIB_SHARES};
pub use head_circuits::{copying_scores, matching_scores, matching_scores_through};
pub use head_circuits::{ov_circuit, qk_circuit};
pub use heads::{Motif, head_entropy, head_scores, repeated_tokens, repeated_tokens_of, top_heads};
pub use path_patching::{PathRule, Receiver};
pub use taxonomy::{HeadTaxonomy, head_taxonomy};
