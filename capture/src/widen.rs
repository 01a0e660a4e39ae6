//! The same Llama with wider heads, for engines whose kernels want certain head sizes (vLLM's on CPUs: multiples of 32).
//!
//! Pair `i` of `d` rotates by `theta^(-2i/d)`. In a head `r` times as wide pair `r*i` rotates by the same angle, so
//! queries and keys move there and the other pairs are zero. Values are padded with zeros, the output projection with
//! zero columns. Scores are divided by the root of the head size, so queries grow by the root of `r`.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use thalweg::tch::{Kind, Tensor};
use thalweg::{Config, Model, RopeScaling};

/// A model whose residual stream and logits are `model`'s up to rounding, with heads of `d_head`.
///
/// An error unless `d_head` is a multiple of the model's head size and the frequencies of RoPE depend on nothing else.
pub fn widen(model: &Model, d_head: usize) -> Result<Model> {
    let config = model.config();
    let own = config.d_head;
    ensure!(
        d_head > own && d_head.is_multiple_of(own),
        "head size {d_head}: expected a multiple of the model's {own}, such as {}",
        2 * own
    );
    ensure!(
        !matches!(config.rope.scaling, RopeScaling::Dynamic { .. }),
        "rope_type dynamic: its frequencies depend on the head size, so wider heads cannot have the same"
    );
    let wider = Config { d_head, kind: Some(model.kind()), ..config.clone() };
    let ratio = d_head / own;
    let tensors = model.named_weights().into_iter().map(|(name, w)| {
        let rotated = |w: &Tensor| spread(w, own, |i| paired(i, own, d_head), d_head);
        let padded = |w: &Tensor| spread(w, own, |i| i, d_head);
        let wide = match name.split('.').rev().nth(1) {
            Some("q_proj") => rotated(&w) * (ratio as f64).sqrt(),
            Some("k_proj") => rotated(&w),
            Some("v_proj") => padded(&w),
            Some("o_proj") if name.ends_with("weight") => padded(&w.tr()).tr().contiguous(),
            _ => w,
        };
        (name, wide.to_kind(model.kind()))
    });
    Model::from_parts(wider, tensors.collect(), model.tokenizer().cloned())
}

/// Widens the model in `dir` and writes it to `out`, with its tokenizer's files.
pub fn widen_dir(dir: &Path, out: &Path, d_head: usize) -> Result<()> {
    ensure!(dir != out, "{}: the widened model needs a directory of its own", out.display());
    let model = Model::load_on(dir, thalweg::tch::Device::Cpu, stored(dir)?)?;
    widen(&model, d_head).with_context(|| dir.display().to_string())?.save(out)?;
    for name in TEXTS {
        let (from, to) = (dir.join(name), out.join(name));
        if from.is_file() {
            std::fs::copy(&from, &to).with_context(|| format!("cannot write {}", to.display()))?;
        }
    }
    Ok(())
}

/// Files beside the weights that a server reads.
const TEXTS: [&str; 4] =
    ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"];

/// The kind that `config.json` names; f32 where it names none.
fn stored(dir: &Path) -> Result<Kind> {
    Ok(Config::load(dir.join("config.json"))?.kind.unwrap_or(Kind::Float))
}

/// Where place `i` of a head of `own` goes in one of `wide`: the halves of a pair lie half a head apart.
fn paired(i: usize, own: usize, wide: usize) -> usize {
    let half = own / 2;
    (i % half) * (wide / own) + (i / half) * (wide / 2)
}

/// `[Head * own, ..]` -> `[Head * wide, ..]`: place `i` of a head at `place(i)`, zeros elsewhere.
fn spread(w: &Tensor, own: usize, place: impl Fn(usize) -> usize, wide: usize) -> Tensor {
    let rows = w.size()[0] / own as i64;
    let heads = w.reshape([rows, own as i64, -1]);
    let places: Vec<i64> = (0..own).map(|i| place(i) as i64).collect();
    let size = [rows, wide as i64, heads.size()[2]];
    let spread = Tensor::zeros(size, (w.kind(), w.device())).index_copy(
        1,
        &Tensor::from_slice(&places).to_device(w.device()),
        &heads,
    );
    let mut shape = w.size();
    shape[0] = rows * wide as i64;
    spread.reshape(shape)
}
