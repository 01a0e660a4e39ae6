//! Measures that look at who is near whom alone.
//!
//! Mutual nearest neighbours: Huh et al. 2024, "The Platonic Representation Hypothesis",
//! <https://arxiv.org/abs/2405.07987>. Representational similarity: Kriegeskorte et al. 2008,
//! <https://doi.org/10.3389/neuro.06.004.2008>.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use super::data::{centred, pair};
use crate::analysis::correlate::spearman;

/// Mean share of each point's `k` nearest neighbours, by cosine, that are the same in both sets,
/// 0..1; independent sets share `k / (n - 1)`.
pub fn mutual_neighbours(x: &Tensor, y: &Tensor, k: usize) -> Result<f64> {
    let [x, y] = pair("mutual neighbours", x, y, 2)?;
    let n = x.size()[0];
    ensure!(
        k > 0 && (k as i64) < n,
        "mutual neighbours: {k} neighbours of {n} points, expected 1 to {}",
        n - 1
    );
    let near = |t: &Tensor| {
        let cosines = cosines(t);
        let _ = cosines.diagonal(0, 0, 1).fill_(f64::NEG_INFINITY);
        let (_, ids) = cosines.topk(k as i64, 1, true, true);
        Tensor::zeros([n, n], (Kind::Double, t.device())).scatter_value(1, &ids, 1.0)
    };
    let both = (near(&x) * near(&y)).sum(None).double_value(&[]);
    Ok(both / (n as f64 * k as f64))
}

/// Representational similarity: Spearman's correlation of the two sets' dissimilarities, over all
/// pairs of points, -1..1. The dissimilarity of two points is 1 less the Pearson correlation of their
/// vectors.
pub fn rsa(x: &Tensor, y: &Tensor) -> Result<f64> {
    let [x, y] = pair("rsa", x, y, 3)?;
    let apart = |t: &Tensor| -> Result<Vec<f64>> {
        ensure!(t.size()[1] > 1, "rsa: vectors of one dimension have no correlation");
        let n = t.size()[0];
        let correlations = cosines(&centred("rsa", &t.tr())?.tr()); // each vector less its own mean
        let pairs = Tensor::triu_indices(n, n, 1, (Kind::Int64, t.device()));
        let flat = (-correlations + 1.0).flatten(0, 1);
        Ok(Vec::try_from(flat.index_select(0, &(pairs.get(0) * n + pairs.get(1))))?)
    };
    let found = spearman(&apart(&x)?, &apart(&y)?)?;
    ensure!(found.is_finite(), "rsa: all pairs of points of a set are equally far apart");
    Ok(found)
}

/// Cosines between all rows, `[n, n]`; 0 with a row of zeros.
fn cosines(x: &Tensor) -> Tensor {
    let length = x.norm_scalaropt_dim(2, [1i64].as_slice(), true).clamp_min(f64::MIN_POSITIVE);
    let unit = x / length;
    unit.matmul(&unit.tr())
}
