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
    crate::Circuit,
    crate::CausalModel,
    crate::CausalTrace,
    crate::Cca,
    crate::Coefficient,
    crate::Comparison,
    crate::Composition,
    crate::CompositionScores,
    crate::Component,
    crate::Config,
    crate::Correlate,
    crate::CausalValues,
    crate::Das,
    crate::DasStudy,
    crate::Direction,
    crate::EdgeAttribution,
    crate::EdgePatching,
    crate::Edge,
    crate::Edges,
    crate::Estimates,
    crate::FactoredMatrix,
    crate::Faithfulness,
    crate::Fired,
    crate::Freeze,
    crate::Generated,
    crate::GridAxis,
    crate::HeadTaxonomy,
    crate::InterchangePairs,
    crate::Intervention,
    crate::Integrated,
    crate::JacobianFit,
    crate::JacobianLens,
    crate::Lens,
    crate::LensOptimizer,
    crate::KnockOut,
    crate::LensTop,
    crate::LensTopK,
    crate::LayerComparison,
    crate::Maximum,
    crate::Metric,
    crate::MinibatchCka,
    crate::Model,
    crate::Motif,
    crate::Patching,
    crate::PathRule,
    crate::Pca,
    crate::Plan,
    crate::Point,
    crate::Position,
    crate::Procrustes,
    crate::Prompt,
    crate::Prompts,
    crate::Reader,
    crate::Receiver,
    crate::Record,
    crate::Rule,
    crate::Run,
    crate::Sampling,
    crate::Selection,
    crate::Shuffle,
    crate::Sae,
    crate::SaeScores,
    crate::Similarity,
    crate::Site,
    crate::Sites,
    crate::Split,
    crate::Statistics,
    crate::Svd,
    crate::TokenCopying,
    crate::Snippet,
    crate::Splice,
    crate::Subspace,
    crate::Tokens,
    crate::TunedLens,
    crate::TunedLensFit,
    crate::TunedLensTraining,
    crate::TopKTraining,
    crate::W,
    crate::WeightDifference,
    crate::Writer,
    crate::rng::Rng,
    tch::Tensor,
);

impl From<&crate::Snippet> for crate::Example {
    /// To be drawn by [`examples`](crate::examples).
    fn from(snippet: &crate::Snippet) -> Self {
        let source = format!("prompt {}", snippet.prompt);
        crate::Example { source, tokens: snippet.tokens().to_vec(), values: snippet.values() }
    }
}

impl Show for crate::FeatureExamples {
    /// The largest activations, each token coloured by its own.
    fn content(&self) -> Content {
        let list: Vec<crate::Example> = self.top.iter().map(Into::into).collect();
        let figure = crate::examples(&list).and_then(|f| f.title(&self.name).unit("activation"));
        match figure {
            Ok(figure) => figure.content(),
            Err(_) => Content::text(format!("{self:?}")),
        }
    }
}

impl crate::FeatureExamples {
    /// Shows the largest activations in a notebook.
    pub fn evcxr_display(&self) {
        crate::show::show_value(self);
    }
}
