//! The names a notebook types: `use thalweg::prelude::*;`. `Result` is not among them, so that the
//! standard one keeps its meaning.

pub use crate::analysis::{
    Ablation, AblationStudy, AttributionPatching, Baseline, CausalTrace, Circuit, Coefficient,
    Component, Composition, Das, Direction, DoseResponse, EdgeAttribution, EdgePatching,
    ImportanceMethod, Motif, Occlusion, Patching, Patchscope, PathRule, ProbeMethod, Probing,
    Receiver, Sae, Selection, Statistics, ablation, ablation_curve, ablation_study, alti,
    attention_knockout, attention_pattern, attention_patterns, attention_rollout, attribution,
    attribution_sites, by_word, composition_scores, correlate, direction_ablation,
    gradient_times_input, head_attribution, head_scores, head_taxonomy, importance,
    integrated_gradients, lens, lens_top, logit_lens, max_activating, mixing_sites, occlusion,
    ov_circuit, over_prompts, patching, pca, qk_circuit, random_heads, repeated_tokens,
    repeated_tokens_of, resid_cosines, resid_norms, statistics, steering_vector, top_heads,
};
pub use crate::figure::{
    Figure, attention, attention_viewer, bars, compare, heatmap, lines, scatter, tokens, versus,
};
pub use crate::grid::Grid;
pub use crate::hook::cache::Cache;
pub use crate::hook::freeze::Freeze;
pub use crate::hook::intervention::{Intervention, Scope};
pub use crate::hook::metric::{Answers, Metric};
pub use crate::hook::plan::{Attention, Plan};
pub use crate::hook::site::{Axis, Point, Site};
pub use crate::hook::sites::Sites;
pub use crate::index::Position;
pub use crate::interrupt::check_interrupt;
pub use crate::model::{Chat, Generated, Model, Run, Sampling, Sweep, SweepOptions, W};
pub use crate::prompts::Prompts;
pub use crate::record::Record;
pub use crate::remote::Remote;
pub use crate::show::{Bar, Html, Markdown, Shown, clear_output, display, progress};
pub use crate::text::Tokens;
pub use tch::{Device, Kind, Tensor};
