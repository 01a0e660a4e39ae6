//! Rotary position embedding (Su et al., <https://arxiv.org/abs/2104.09864>), in the layout of
//! Hugging Face checkpoints: dimension `i` is paired with `i + d_head/2`.
//!
//! For f32, f16 and bf16 models the table is computed in f32 with the sequence of operations of
//! `transformers`, so that long contexts agree with it; for f64 models in f64 throughout.

use tch::{Device, Kind, Tensor};

use super::line::Line;
use crate::config::{Config, RopeScaling};
use crate::text::Tokens;

/// Cosines and sines, each `[Batch or 1, Pos, 1, DHead / 2]`.
#[derive(Debug)]
pub(crate) struct Rotation {
    cos: Tensor,
    sin: Tensor,
}

impl Rotation {
    pub(crate) fn new(config: &Config, tokens: &Tokens, kind: Kind, device: Device) -> Self {
        let wide = if kind == Kind::Double { Kind::Double } else { Kind::Float };
        let lens = tokens.lens();
        // Each row turns by its own length under `dynamic`; otherwise all rows share frequencies.
        let lens = if stretches(config, tokens) { &lens[..] } else { &lens[..1] };
        let rows: Vec<_> = lens.iter().map(|len| frequencies(config, *len, wide, device)).collect();
        let frequencies = Tensor::stack(&rows, 0).unsqueeze(1); // [Batch or 1, 1, DHead / 2]
        let positions = if tokens.is_padded() {
            tokens.positions(device).clamp_min(0)
        } else {
            Tensor::arange(tokens.width() as i64, (Kind::Int64, device)).unsqueeze(0)
        };
        let angles = positions.to_kind(wide).unsqueeze(-1) * frequencies;
        let table = |t: Tensor| t.to_kind(kind).unsqueeze(2);
        Rotation { cos: table(angles.cos()), sin: table(angles.sin()) }
    }

    /// For positions from `from` on.
    pub(crate) fn after(&self, from: i64) -> Self {
        self.map(|table| table.narrow(1, from, table.size()[1] - from))
    }

    /// For the positions of a line.
    pub(crate) fn along(&self, line: &Line) -> Self {
        self.map(|table| line.of_prompts(table))
    }

    fn map(&self, part: impl Fn(&Tensor) -> Tensor) -> Self {
        Rotation { cos: part(&self.cos), sin: part(&self.sin) }
    }

    /// Turns `x [Batch, Pos, heads, DHead]`.
    pub(crate) fn turn(&self, x: &Tensor) -> Tensor {
        let half = x.size()[3] / 2;
        let (a, b) = (x.narrow(3, 0, half), x.narrow(3, half, half));
        let [cos, sin] = [&self.cos, &self.sin].map(|table| table.to_device(x.device()));
        let turned = [&a * &cos - &b * &sin, &b * &cos + &a * &sin];
        Tensor::cat(&turned, 3)
    }
}

/// Turns `x [.., DHead]` as the rotation of position `offset` does, in the kind of `x`. Since turns add
/// up, a query at `i` and a key at `j` meet as `turned(q, i - j)` and the key as it is. Under `dynamic`
/// scaling: as in prompts within the original context.
pub(crate) fn turned(config: &Config, x: &Tensor, offset: i64) -> Tensor {
    let half = config.d_head as i64 / 2;
    let angles = frequencies(config, 0, x.kind(), x.device()) * offset as f64;
    let (cos, sin) = (angles.cos(), angles.sin());
    let (a, b) = (x.narrow(-1, 0, half), x.narrow(-1, half, half));
    Tensor::cat(&[&a * &cos - &b * &sin, &b * &cos + &a * &sin], -1)
}

/// Whether `dynamic` scaling is in force: some row is longer than the original context. Then runs
/// of different batches, and cached continuations, differ by definition.
pub(crate) fn stretches(config: &Config, tokens: &Tokens) -> bool {
    matches!(config.rope.scaling, RopeScaling::Dynamic { .. }) && tokens.width() > config.n_ctx
}

/// Radians per position of each pair, `[DHead / 2]`.
fn frequencies(config: &Config, len: usize, kind: Kind, device: Device) -> Tensor {
    let dim = config.d_head as f64;
    let mut base = config.rope.theta;
    if let RopeScaling::Dynamic { factor } = config.rope.scaling
        && len > config.n_ctx
    {
        let stretch = factor * len as f64 / config.n_ctx as f64 - (factor - 1.0);
        base *= stretch.powf(dim / (dim - 2.0));
    }
    let exponent: Tensor =
        Tensor::arange_start_step(0, config.d_head as i64, 2, (Kind::Int64, device)).to_kind(kind)
            / dim;
    let plain = Tensor::pow_scalar(base, &exponent).reciprocal();
    match config.rope.scaling {
        RopeScaling::Default | RopeScaling::Dynamic { .. } => plain,
        RopeScaling::Linear { factor } => plain / factor,
        RopeScaling::Llama3 { factor, low_freq_factor: low, high_freq_factor: high, original } => {
            let wavelength = plain.reciprocal() * (2.0 * std::f64::consts::PI);
            let (longest, shortest) = (original / low, original / high);
            let kept = wavelength.le(longest);
            let stretched = plain.where_self(&kept, &(&plain / factor));
            let smooth: Tensor = (wavelength.reciprocal() * original - low) / (high - low);
            let ramp: Tensor = smooth.ones_like() - &smooth;
            let ramp: Tensor = ramp * &stretched / factor + &smooth * &stretched;
            let between = kept.logical_and(&wavelength.ge(shortest));
            ramp.where_self(&between, &stretched)
        }
    }
}
