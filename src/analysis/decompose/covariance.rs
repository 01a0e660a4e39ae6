//! Products of a matrix with itself, of which half the entries suffice.

use tch::Tensor;

/// Columns of the result that are computed together.
const BLOCK: i64 = 256;

/// `xᵀ x` for `x [n, D]`: `[D, D]`, exactly symmetric. Only blocks on and above the diagonal are
/// computed, which for many dimensions is little more than half the work.
pub(super) fn second_moments(x: &Tensor) -> Tensor {
    let d = x.size()[1];
    if d <= 2 * BLOCK {
        let all = x.tr().matmul(x);
        return (&all + all.tr()) / 2;
    }
    let out = Tensor::zeros([d, d], (x.kind(), x.device()));
    for start in (0..d).step_by(BLOCK as usize) {
        let len = BLOCK.min(d - start);
        let own = x.narrow(1, start, len).tr().matmul(&x.narrow(1, start, d - start));
        out.narrow(0, start, len).narrow(1, start, d - start).copy_(&own);
    }
    let upper = out.triu(1);
    out.triu(0) + upper.tr()
}
