//! What each type of the library shows of itself, where that is its one line of text.

use crate::show::{Content, Show};

macro_rules! one_line {
    ($($kind:ty),* $(,)?) => {$(
        impl Show for $kind {
            fn content(&self) -> Content {
                Content::text(format!("{self:?}"))
            }
        }
    )*};
}

one_line!(
    crate::Ablation,
    crate::Against,
    crate::Aligned,
    crate::Answers,
    crate::AttributionPatching,
    crate::Axis,
    crate::Baseline,
    crate::Cache,
    crate::Candidate,
    crate::CausalTrace,
    crate::Coefficient,
    crate::Comparison,
    crate::Config,
    crate::Correlate,
    crate::Direction,
    crate::EdgeAttribution,
    crate::Edge,
    crate::Edges,
    crate::Estimates,
    crate::Fired,
    crate::Freeze,
    crate::Generated,
    crate::GridAxis,
    crate::Intervention,
    crate::Integrated,
    crate::JacobianFit,
    crate::JacobianLens,
    crate::Lens,
    crate::LensOptimizer,
    crate::LensTop,
    crate::LensTopK,
    crate::Maximum,
    crate::Metric,
    crate::Model,
    crate::Motif,
    crate::Patching,
    crate::PathRule,
    crate::Pca,
    crate::Plan,
    crate::Point,
    crate::Position,
    crate::Prompt,
    crate::Prompts,
    crate::Reader,
    crate::Receiver,
    crate::Record,
    crate::Rule,
    crate::Run,
    crate::Sampling,
    crate::Shuffle,
    crate::Site,
    crate::Sites,
    crate::Statistics,
    crate::Tokens,
    crate::TunedLens,
    crate::TunedLensFit,
    crate::TunedLensTraining,
    crate::W,
    crate::Writer,
    crate::rng::Rng,
    tch::Tensor,
);
