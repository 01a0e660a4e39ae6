//! What training changed in the weights: how much, and in how many directions.
//!
//! Fine-tuning changes tend to be of low rank (Aghajanyan et al. 2020,
//! <https://arxiv.org/abs/2012.13255>; Hu et al. 2021, <https://arxiv.org/abs/2106.09685>).

use std::fmt;

use anyhow::{Result, ensure};
use ndarray::{Array2, Array3};
use tch::{Kind, Tensor};

use crate::grid::{Grid, GridAxis};
use crate::hook::site::Axis;
use crate::interrupt::check_interrupt;
use crate::model::{Model, W};
use crate::show::progress;

/// The matrices of a block.
const MATRICES: [(W, &str); 7] = [
    (W::Q, "Q"),
    (W::K, "K"),
    (W::V, "V"),
    (W::O, "O"),
    (W::Gate, "Gate"),
    (W::In, "In"),
    (W::Out, "Out"),
];

/// How the matrices of two models' blocks differ.
#[derive(Clone)]
#[non_exhaustive]
pub struct WeightDifference {
    /// `|B - A| / |A|` of each matrix (Frobenius norms; heads joined): `[Layer, Component]`.
    pub relative: Grid,
    /// Directions the difference is spread over, `(sum of squares)² / sum of fourth powers` of its
    /// singular values: `[Layer, Component]`; missing where the matrices are equal.
    pub rank: Grid,
    /// Largest singular values of the difference: `[Layer, Component, Rank]`.
    pub spectrum: Grid,
}

/// One line: that of the relative differences.
impl fmt::Debug for WeightDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.relative, f)
    }
}

/// The difference `b - a` of every matrix in the blocks of two models of one shape, with the `k`
/// largest singular values of each. Embeddings, norms and biases are not looked at.
///
/// ```no_run
/// use thalweg::{Model, weight_difference};
/// let a = Model::load("data/models/tiny-world")?;
/// let b = a.with_weights(|name, w| Ok(if name.contains("layers.2.mlp.up_proj") { w * 1.1 } else { w.shallow_clone() }))?;
/// let found = weight_difference(&a, &b, 8)?;
/// assert_eq!(found.relative.top(1).axes[0].labels, ["L2 In"]);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn weight_difference(a: &Model, b: &Model, k: usize) -> Result<WeightDifference> {
    ensure!(k > 0, "weight_difference: expected at least one singular value");
    let n = a.config().n_layers;
    let others = b.config().n_layers;
    ensure!(n == others, "weight_difference: the models have {n} and {others} layers");
    let mut relative = Array2::zeros((n, MATRICES.len()));
    let mut rank = Array2::from_elem((n, MATRICES.len()), f64::NAN);
    let mut spectrum = Array3::from_elem((n, MATRICES.len(), k), f64::NAN);
    for layer in progress(0..n, "difference of weights").unit("layers") {
        for (column, (which, name)) in MATRICES.iter().enumerate() {
            check_interrupt()?;
            let [a, b] = [matrix(a, *which, layer)?, matrix(b, *which, layer)?];
            ensure!(
                a.size() == b.size(),
                "weight_difference: {name} of layer {layer} is {:?} and {:?}",
                a.size(),
                b.size()
            );
            let difference = b.to_device(a.device()) - &a;
            let singular = Vec::<f64>::try_from(difference.f_svd(true, false)?.1)?;
            let power = |p: i32| singular.iter().map(|s| s.powi(p)).sum::<f64>();
            relative[[layer, column]] =
                power(2).sqrt() / a.norm().double_value(&[]).max(f64::MIN_POSITIVE);
            if singular[0] > 0.0 {
                rank[[layer, column]] = power(2).powi(2) / power(4);
            }
            for (at, value) in singular.iter().take(k).enumerate() {
                spectrum[[layer, column, at]] = *value;
            }
        }
    }
    let labels = MATRICES.iter().map(|(_, name)| (*name).to_owned()).collect();
    let layers = GridAxis { axis: Axis::Layer, labels: (0..n).map(|l| format!("L{l}")).collect() };
    let parts = GridAxis { axis: Axis::Component, labels };
    let ranks = GridAxis { axis: Axis::Rank, labels: (1..=k).map(|i| i.to_string()).collect() };
    let two = || vec![layers.clone(), parts.clone()];
    let noted = |grid: Grid| grid.note("a", &format!("{a:?}")).note("b", &format!("{b:?}"));
    Ok(WeightDifference {
        relative: noted(Grid::new(relative.into_dyn(), two(), "|B - A| / |A|")?)
            .name("relative difference of weights"),
        rank: noted(Grid::new(rank.into_dyn(), two(), "directions")?)
            .missing_where(f64::is_nan)
            .name("effective rank of the difference of weights"),
        spectrum: noted(Grid::new(
            spectrum.into_dyn(),
            [two(), vec![ranks]].concat(),
            "singular value",
        )?)
        .missing_where(f64::is_nan)
        .name("spectrum of the difference of weights"),
    })
}

/// A weight as one matrix, heads side by side, f64.
fn matrix(model: &Model, which: W, layer: usize) -> Result<Tensor> {
    let w = model.weight(which, layer)?.to_kind(Kind::Double);
    Ok(match which {
        W::Q | W::K | W::V => w.transpose(0, 1).flatten(1, 2), // [DModel, Head DHead]
        W::O => w.flatten(0, 1),                               // [Head DHead, DModel]
        _ => w,
    })
}
