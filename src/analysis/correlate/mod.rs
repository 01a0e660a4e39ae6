//! Correlation: which numbers go together, how surely, and beyond what chance makes of so many.
//!
//! Tokens of one prompt are not independent of each other: intervals are bootstrapped over whole
//! prompts, and shuffles move whole prompts.

mod agreement;
mod coefficient;
mod correlations;
mod grids;
mod joint;
mod samples;
mod shuffle;
mod significance;
mod tokens;

pub use agreement::{agreement, agreement_with};
pub(super) use coefficient::coefficient;
pub use coefficient::{Coefficient, distance_correlation, partial_correlation, pearson, spearman};
pub use correlations::Correlations;
pub use grids::{Correlate, correlate};
pub use shuffle::Shuffle;
pub use significance::{benjamini_hochberg, benjamini_yekutieli, correlation_p};
pub use tokens::{attention_entropies, attention_to, token_losses, token_outputs};
