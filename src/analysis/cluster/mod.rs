//! Groups: of tokens, heads, neurons, directions, or the rows of any tensor.
//!
//! [`Items`] says what is grouped; [`kmeans`], [`linkage`] and [`hdbscan`] group it; [`silhouette`],
//! [`choose_k`] and [`stability`] say how far to believe the groups, each beside a control that has
//! none; [`adjusted_rand_score`] and [`normalized_mutual_info_score`] compare two groupings.

mod agreement;
mod choose;
mod clustering;
mod density;
mod hierarchy;
mod items;
mod kmeans;
mod seeding;
mod silhouette;
mod stability;

pub use agreement::{adjusted_rand_score, normalized_mutual_info_score};
pub use choose::{KChoice, choose_k};
pub use clustering::Clustering;
pub use density::hdbscan;
pub use hierarchy::{Dendrogram, Linkage, Merge, linkage};
pub use items::Items;
pub use kmeans::{KMeans, kmeans};
pub use silhouette::{Silhouette, silhouette};
pub use stability::{Stability, stability};
