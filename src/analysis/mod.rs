//! From a cache to a [`Grid`](crate::Grid): one method a file, its paper cited at the top.
//!
//! Of one prompt a grid has no `Batch` axis and its positions are labelled with their tokens; of
//! several, `Batch` is the outermost axis and padding is marked as missing. [`Cache::row`](crate::Cache::row)
//! takes one prompt out of a batch.
//!
//! | area | question |
//! |---|---|
//! | `layers/` | what each layer's stream would say (logit, tuned and Jacobian lens), how long it is, how far a block turns it |
//! | `importance/` | which tokens matter, by causal, gradient and mixing methods side by side |
//! | `gradient/` | gradients: gradient x input, integrated gradients, attribution patching, scores of edges |
//! | `paths/` | which component, path or circuit says it: direct attribution, path patching, circuits, OV, QK and composition, kinds of heads |
//! | `patching`, `causal_trace` | which activation carries what differs between two runs |
//! | `ablation/` | what is lost without a component, and what else falls with it |
//! | `hidden/` | what a state holds and does: probes, Patchscopes, function vectors, steering, direction ablation |
//! | `features/` | sparse autoencoders and transcoders, examples of a feature, subspaces found by interchange (DAS) |
//! | `compare/` | how like two models are, layer by layer, head by head, in what they predict and in their weights |
//! | `decompose/` | PCA, t-SNE, Tucker, Fourier transforms over numbers |
//! | `cluster/` | k-means, trees, HDBSCAN, silhouette, agreement, stability |
//! | `correlate/` | correlations with intervals and p values that respect prompts |
//! | `statistics`, `over_prompts` | numbers of many prompts: moments in constant memory, any grid with its interval |

mod ablation;
mod attention;
mod causal_trace;
mod cells;
mod cluster;
mod compare;
mod correlate;
mod decompose;
mod direction;
mod effect;
mod features;
mod frame;
mod gradient;
mod hidden;
mod importance;
mod layers;
mod over_prompts;
mod patching;
mod paths;
mod statistics;

pub use ablation::{Ablation, AblationStudy, Component, KnockOut, ablation, ablation_study};
pub use ablation::{ablation_curve, attention_knockout, random_heads};
pub use attention::{attention_pattern, attention_patterns};
pub use causal_trace::CausalTrace;
pub use cluster::{
    Clustering, Dendrogram, Items, KChoice, KMeans, Linkage, Merge, Silhouette, Stability,
    adjusted_rand_score, choose_k, hdbscan, kmeans, linkage, normalized_mutual_info_score,
    silhouette, stability,
};
pub use compare::{Cca, cca, pwcca, svcca};
pub use compare::{HeadMatching, HeadPair, HeadSimilarity, match_heads};
pub use compare::{LayerComparison, Similarity, compare_layers};
pub use compare::{MinibatchCka, cka, cka_debiased};
pub use compare::{Procrustes, mutual_neighbours, procrustes, rsa};
pub use compare::{Stitched, Stitching, StreamFit, StreamMap};
pub use compare::{WeightDifference, lens_divergence, prediction_kl, weight_difference};
pub use correlate::{Coefficient, Correlate, Correlations, Shuffle, correlate};
pub use correlate::{agreement, agreement_with};
pub use correlate::{attention_entropies, attention_to, token_losses, token_outputs};
pub use correlate::{benjamini_hochberg, benjamini_yekutieli, correlation_p};
pub use correlate::{distance_correlation, partial_correlation, pearson, spearman};
pub use decompose::{
    Affinities, Alignment, Pca, Tsne, TsneOptions, Tucker, hosvd, pca, pca_from, pca_layers,
    pca_of, pca_randomized, resid_tensor, trustworthiness, tsne, tucker, tucker_of,
};
pub use decompose::{SumProfile, fourier, fourier_power, key_frequencies, sum_profile, sum_waves};
pub use direction::Direction;
pub use features::{CausalModel, CausalValues, Das, DasStudy, InterchangePairs, Subspace};
pub use features::{FeatureExamples, Features, Snippet, max_activating};
pub use features::{Normalization, Sae, SaeKind, SaeScores, Splice, TopKTraining};
pub use gradient::{AttributionPatching, Baseline, Comparison, Estimates, Integrated};
pub use gradient::{Edge, EdgeAttribution, Edges, Reader, Rule, Writer, edge_count};
pub use gradient::{gradient_norm, gradient_times_input, integrated_gradients};
pub use hidden::{DirectionEffect, direction_ablation, direction_cosines, orthogonalised};
pub use hidden::{DoseResponse, SteeringVector, steering_vector};
pub use hidden::{
    FewShot, FewShotPrompts, FunctionVectorEffect, FunctionVectors, function_vectors,
};
pub use hidden::{Patchscope, PatchscopeTop};
pub use hidden::{Probe, ProbeMethod, ProbeReport, Probing};
pub use importance::{
    Importance, ImportanceMethod, Mixing, Occlusion, alti, attention_rollout, attention_vectors,
    by_word, contribution_weights, deletion_curve, importance, mixing_sites, occlusion,
    occlusion_by_word, token_attribution, value_weighted_attention, value_weighted_rollout,
};
pub use layers::{Against, component_cosines, component_norms, head_cosines, head_norms};
pub use layers::{JacobianFit, JacobianLens, Lens, LensTop, LensTopK, TunedLens};
pub use layers::{LensOptimizer, TunedLensFit, TunedLensTraining};
pub use layers::{anisotropy, resid_angles, resid_angles_across, resid_cosines_centred};
pub use layers::{lens, lens_at, lens_entropy, lens_kl, lens_rank, lens_resolution, lens_settled};
pub use layers::{lens_top, lens_top_k, logit_lens};
pub use layers::{resid_cosines, resid_norms, resid_updates, with_first};
pub use over_prompts::{bootstrap_mean, each_prompt, over_prompts};
pub use patching::{Patching, patching};
pub use paths::{Circuit, EdgePatching, Faithfulness, MIB_SHARES, Selection};
pub use paths::{Composition, CompositionScores, composition_effects, composition_scores};
pub use paths::{FactoredMatrix, Svd, copying_scores, ov_circuit, qk_circuit};
pub use paths::{HeadTaxonomy, TokenCopying, head_taxonomy, token_copying};
pub use paths::{Motif, head_entropy, head_scores, top_heads};
pub use paths::{PathRule, Receiver, repeated_tokens, repeated_tokens_of};
pub use paths::{Split, attribution, attribution_by, attribution_sites, head_attribution};
pub use paths::{matching_scores, matching_scores_through, neuron_attribution};
pub use statistics::{Maximum, Statistics, statistics};
