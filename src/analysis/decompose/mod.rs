//! Decomposition and embedding: few axes, or a plane, in place of many dimensions.
//!
//! | what | exact in | keeps |
//! |---|---|---|
//! | [`pca`] and its kin, [`pca_randomized`] for many dimensions | variance | directions, one linear map |
//! | [`pca_layers`], [`Pca::aligned`] | | axes from layer to layer |
//! | [`tucker`], [`hosvd`] | the whole tensor, at full rank | one set of axes for each of layer, token, dimension |
//! | [`fourier`] and its kin | the whole, over numbers in a circle | waves, by their frequency |
//! | [`tsne`] | nothing | who is near whom; [`trustworthiness`] says how well |

mod align;
mod covariance;
mod fourier;
mod neighbors;
mod pca;
mod randomized;
mod tsne;
mod tucker;

pub use align::{Alignment, pca_layers};
pub use fourier::{SumProfile, fourier, fourier_power, key_frequencies, sum_profile, sum_waves};
pub(super) use neighbors::points;
pub use neighbors::trustworthiness;
pub(super) use pca::pca_of_covariance;
pub use pca::{Pca, pca, pca_from, pca_of};
pub use randomized::pca_randomized;
pub use tsne::{Affinities, Tsne, TsneOptions, tsne};
pub use tucker::{Tucker, hosvd, resid_tensor, tucker, tucker_of};
