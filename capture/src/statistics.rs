//! Statistics of a whole data set, a part for each unit, merged exactly.

use serde::{Deserialize, Serialize};

/// What is counted beside mean and variance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// Tokens left out at the beginning of each prompt.
    pub first: usize,
    /// The covariance.
    pub covariance: bool,
    /// The largest values of each feature.
    pub top: usize,
}
