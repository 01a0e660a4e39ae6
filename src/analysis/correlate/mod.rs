//! Correlation: which numbers go together, how surely, and beyond what chance makes of so many.
//!
//! Tokens of one prompt are not independent of each other: intervals are bootstrapped over whole
//! prompts, and shuffles move whole prompts.

mod agreement;
mod coefficient;

pub use agreement::{agreement, agreement_with};
pub(super) use coefficient::coefficient;
pub use coefficient::{Coefficient, distance_correlation, partial_correlation, pearson, spearman};
