//! Decomposition and embedding: few axes, or a plane, in place of many dimensions.
//!
//! | what | exact in | keeps |
//! |---|---|---|
//! | [`pca`] and its kin, [`pca_randomized`] for many dimensions | variance | directions, one linear map |
//! | [`pca_layers`], [`Pca::aligned`] | | axes from layer to layer |
//! | [`tucker`], [`hosvd`] | the whole tensor, at full rank | one set of axes for each of layer, token, dimension |
//! | [`tsne`] | nothing | who is near whom; [`trustworthiness`] says how well |

mod align;
mod covariance;
mod neighbors;
mod pca;
mod randomized;
mod tsne;
mod tucker;

pub use align::{Alignment, pca_layers};
pub(super) use neighbors::points;
pub use neighbors::trustworthiness;
pub(super) use pca::pca_of_covariance;
pub use pca::{Pca, pca, pca_from, pca_of};
pub use randomized::pca_randomized;
pub use tsne::{Affinities, Tsne, TsneOptions, tsne};
pub use tucker::{Tucker, hosvd, resid_tensor, tucker, tucker_of};
