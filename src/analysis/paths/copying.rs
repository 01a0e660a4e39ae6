//! Which heads raise, and which lower, the logit of the token they attend to.
//!
//! Elhage et al. 2021, <https://transformer-circuits.pub/2021/framework> (copying); McDougall et al.
//! 2023, "Copy Suppression", <https://arxiv.org/abs/2310.04625> (the share of tokens whose own logit is
//! among those lowered most).

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use super::head_circuits::ov_circuit;
use crate::analysis::frame;
use crate::grid::Grid;
use crate::hook::site::Axis;
use crate::model::{Model, W};
use crate::show::progress;

/// Shares of tokens that heads copy and suppress.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TokenCopying {
    /// Share of tokens whose own logit is among the `k` that attending to them raises most,
    /// `[Layer, Head]`.
    pub copied: Grid,
    /// Share of tokens whose own logit is among the `k` that attending to them lowers most.
    pub suppressed: Grid,
    /// What either is for a head that has nothing to do with its tokens: `k / n`.
    pub chance: f64,
}

/// Through each head's OV circuit, `W_E W_OV W_U`: for how many of these tokens is their own logit
/// among the `k` highest (copied) or lowest (suppressed) of all of them. `ids` may be a sample of the
/// vocabulary; logits are compared within it, and equal ones share the mean of their ranks.
///
/// The embedding enters as it is, without what the first layers make of it.
///
/// ```
/// use thalweg::{Model, token_copying};
/// let model = Model::load("data/models/tiny-world")?;
/// let ids: Vec<i64> = (10..74).collect();
/// let shares = token_copying(&model, &ids, 3)?;
/// assert_eq!(shares.chance, 3.0 / 64.0);
/// assert_eq!(shares.copied.shape(), [4, 8]);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn token_copying(model: &Model, ids: &[i64], k: usize) -> Result<TokenCopying> {
    let n = ids.len();
    ensure!(k > 0 && 2 * k <= n, "{k} highest of {n} tokens: expected 1 to half of them");
    let _guard = tch::no_grad_guard();
    let unembed = model.logit_directions(ids)?.to_kind(Kind::Double).tr(); // [m, n]; checks the ids
    let places = Tensor::from_slice(ids).to_device(model.device());
    let embed = model.weight(W::E, 0)?.index_select(0, &places).to_kind(Kind::Double);
    let (config, mut shares) = (model.config(), [Vec::new(), Vec::new()]);
    for layer in progress(0..config.n_layers, "tokens copied").unit("layers") {
        for head in 0..config.n_heads {
            let logits = ov_circuit(model, layer, head)?.apply(&embed)?.matmul(&unembed); // [n, n]
            let own = logits.diag(0).unsqueeze(1);
            let sum = |x: Tensor| x.sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
            // Tokens of the same logit share their ranks, so that a head that writes nothing neither
            // copies nor suppresses.
            let shared = (sum(logits.eq_tensor(&own)) - 1.0) / 2.0;
            for (share, beyond) in
                shares.iter_mut().zip([logits.gt_tensor(&own), logits.lt_tensor(&own)])
            {
                let among = (sum(beyond) + &shared).le((k - 1) as f64);
                share.push(among.to_kind(Kind::Double).mean(None).double_value(&[]));
            }
        }
    }
    let grid = |values: &[f64], name: &str| -> Result<Grid> {
        let axes = [
            (Axis::Layer, frame::numbered('L', config.n_layers)),
            (Axis::Head, frame::numbered('H', config.n_heads)),
        ];
        let values =
            Tensor::from_slice(values).view([config.n_layers as i64, config.n_heads as i64]);
        let grid = Grid::from_tensor(&values, &axes, "share of tokens")?;
        let grid = grid.name(name).zero_one("no token", "every token").n(n);
        Ok(grid.note("among", &format!("{k} of {n}")).note("model", &format!("{model:?}")))
    };
    let [copied, suppressed] = &shares;
    Ok(TokenCopying {
        copied: grid(copied, "tokens copied")?,
        suppressed: grid(suppressed, "tokens suppressed")?,
        chance: k as f64 / n as f64,
    })
}
