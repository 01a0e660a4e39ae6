//! What a Llama does, step by step: the page to read first.
//!
//! Shapes: `b` batch, `p` position, `m` d_model, `h` query heads, `g` key/value heads, `d` d_head,
//! `f` neurons, `v` vocabulary. `x` is the residual stream. Every site has its line
//! `x = tap.at(layer, Point, x)?`: the plan's interventions act there, then the value is recorded.
//! Grouped-query attention: query head `i` reads key/value head `i / (h/g)`.

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::line::Line;
use super::rope::Rotation;
use super::weights::{Block, Linear, Weights, product};
use crate::config::Config;
use crate::hook::plan::Attention;
use crate::hook::site::{Point::*, Site};
use crate::hook::tap::Tap;
use crate::text::Tokens;

/// One pass: the weights, and what all blocks share. It may be over the last positions only, in
/// front of which lie the keys and values of an earlier pass; and where these begin may differ from
/// row to row.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    config: &'a Config,
    weights: &'a Weights,
    rotation: Rotation,
    attention: Attention,
    /// True at tokens, false at padding, `[b, n]`, `n` keys; absent where nothing is padded.
    real: Option<Tensor>,
    /// Rotated keys, and values, of the positions before the pass in the block that is next,
    /// each `[b, n - p, g, d]`; with a line, of all positions of its prompts.
    past: Option<[Tensor; 2]>,
    /// Rows of unequal lengths: `b` is 1 and `p` all their positions but in attention, and once only
    /// those asked for are left.
    line: Option<Line>,
    /// How many positions, the last ones, matter once the last block has its keys and values.
    asked: Option<i64>,
    kind: Kind,
}

impl<'a> Pass<'a> {
    pub(crate) fn new(
        config: &'a Config,
        weights: &'a Weights,
        tokens: &Tokens,
        attention: Attention,
    ) -> Self {
        let (kind, device) = (weights.embed.kind(), weights.embed.device());
        let real = tokens.is_padded().then(|| tokens.mask(device));
        let rotation = Rotation::new(config, tokens, kind, device);
        Pass {
            config,
            weights,
            rotation,
            attention,
            real,
            past: None,
            line: None,
            asked: None,
            kind,
        }
    }

    /// The same pass over the positions after `past`, the keys and values before it in one block.
    pub(crate) fn after(&self, past: [Tensor; 2]) -> Self {
        let rotation = self.rotation.after(past[0].size()[1]);
        let real = self.real.as_ref().map(Tensor::shallow_clone);
        Pass { rotation, real, past: Some(past), line: None, ..*self }
    }

    /// The same pass over a line of the prompts' last positions, for one block: `past` holds the
    /// prompts' own keys and values there (absent: no row needs any).
    pub(crate) fn along(&self, line: Line, past: Option<[Tensor; 2]>) -> Self {
        let real = self.real.as_ref().map(|real| real.index_select(0, &line.prompts));
        Pass { rotation: self.rotation.along(&line), real, past, line: Some(line), ..*self }
    }

    /// Only the last `n` positions matter in the end.
    pub(crate) fn asking(self, n: i64) -> Self {
        Pass { asked: Some(n), ..self }
    }

    /// Token ids to logits, `[b, p, v]`; with `columns [b, n]`, at those positions: `[b, n, v]`.
    pub(crate) fn forward(
        &self,
        ids: &Tensor,
        columns: Option<&Tensor>,
        tap: &mut Tap,
    ) -> Result<Tensor> {
        let mut x = self.embed(ids, tap)?;
        for (layer, block) in self.weights.blocks.iter().enumerate() {
            x = self.block(layer, block, x, tap)?;
        }
        self.unembed(&x, columns, tap)
    }

    /// `[b, p]` ids -> `[b, p, m]`.
    pub(crate) fn embed(&self, ids: &Tensor, tap: &mut Tap) -> Result<Tensor> {
        let x = Tensor::embedding(&self.weights.embed, ids, -1, false, false);
        // Gradients of activations need a graph; weights that are not trained start none.
        let x = if tap.needs_grad() && !x.requires_grad() { x.set_requires_grad(true) } else { x };
        tap.site(Site::Embed, x)
    }

    /// Attention, then MLP, each added to the stream: `[b, p, m]` -> `[b, p, m]`.
    pub(crate) fn block(&self, l: usize, w: &Block, x: Tensor, tap: &mut Tap) -> Result<Tensor> {
        tap.begin(l)?; // or an interrupt ends the pass here
        let x = tap.at(l, ResidPre, x.to_device(w.ln1.device()))?; // a block may lie elsewhere
        let attention = self.attention(l, w, &x, tap)?;
        let x = tap.at(l, ResidMid, self.asked(l, &x) + attention)?;
        let mlp = self.mlp(l, w, &x, tap)?;
        tap.at(l, ResidPost, x + mlp)
    }

    /// What attention writes: `[b, p, m]` -> `[b, p, m]`.
    fn attention(&self, l: usize, w: &Block, x: &Tensor, tap: &mut Tap) -> Result<Tensor> {
        let [h, g, d] = self.head_sizes();
        let (b, p) = (x.size()[0], x.size()[1]);
        let inputs = self.head_inputs(l, w, x, tap)?;
        let u = self.norm(x, &w.ln1, Ln1Scale.at(l), Ln1Normalized.at(l), tap)?; // [b, p, m]
        let qkv = w.qkv.apply(&u).view([b, p, h + 2 * g, d]);
        let [q, k, v] = add_changes(
            [qkv.narrow(2, 0, h), qkv.narrow(2, h, g), qkv.narrow(2, h + g, g)],
            inputs,
        );
        let q = tap.at(l, Q, q)?; // [b, p, h, d]
        let k = tap.at(l, K, k)?; // [b, p, g, d]
        let v = tap.at(l, V, v)?; // [b, p, g, d]
        let q = tap.at(l, RotQ, self.rotation.turn(&q))?;
        let k = tap.at(l, RotK, self.rotation.turn(&k))?;
        let q = if self.is_end(l) { self.asked(l, &q) } else { self.side_by_side(&q) };
        let [k, v] = self.with_past(k, v); // [b, n, g, d]: keys and values, earlier ones in front
        let z = match self.attention {
            Attention::Eager => self.mix(l, &q, &k, &v, tap)?,
            Attention::Fused => self.mix_fused(&q, &k, &v, tap),
        };
        let z = match &self.line {
            Some(line) if !self.is_end(l) => line.in_line(&z),
            _ => z,
        };
        let z = tap.at(l, Z, z)?; // [b, p, h, d]
        let out = w.o.apply(&z.flatten(2, 3)); // [b, p, m]
        let out = self.head_results(l, w, &z, out, tap)?;
        tap.at(l, AttnOut, out)
    }

    /// Scores, softmax, mix of values: `z [b, p, h, d]`.
    fn mix(&self, l: usize, q: &Tensor, k: &Tensor, v: &Tensor, tap: &mut Tap) -> Result<Tensor> {
        let [h, g, d] = self.head_sizes();
        let (b, p, n) = (q.size()[0], q.size()[1], k.size()[1]);
        // The h/g query heads of a group lie one after the other: fold them into the rows.
        let by_group = |x: &Tensor| x.transpose(1, 2).reshape([b, g, -1, d]);
        let scores = by_group(q).matmul(&by_group(k).transpose(2, 3)).view([b, h, p, n]);
        let absent = tap.exists(p, q.device()).logical_not(); // [b or 1, 1, p, n]
        let scores = (scores / (d as f64).sqrt()).masked_fill(&absent, f64::NEG_INFINITY);
        let scores = tap.at(l, Scores, scores)?; // [b, h, p, n]
        let pattern = tap.at(l, Pattern, self.softmax(&scores))?; // [b, h, p, n]
        let z = pattern.reshape([b, g, h / g * p, n]).matmul(&by_group(v));
        Ok(z.view([b, h, p, d]).transpose(1, 2).contiguous())
    }

    /// Over keys, in at least f32. A padded query has no key: it gets finite scores before and a
    /// zero pattern after, for a NaN repaired afterwards leaves NaN gradients.
    fn softmax(&self, scores: &Tensor) -> Tensor {
        let wide = wide(self.kind);
        let Some(padded) = self.padded(scores.size()[2], scores.device()) else {
            return scores.softmax(-1, wide).to_kind(self.kind);
        };
        let pattern = scores.masked_fill(&padded, 0.0).softmax(-1, wide);
        pattern.masked_fill(&padded, 0.0).to_kind(self.kind)
    }

    /// The same by libtorch's fused kernel.
    fn mix_fused(&self, q: &Tensor, k: &Tensor, v: &Tensor, tap: &mut Tap) -> Tensor {
        let [h, g, _] = self.head_sizes();
        let (p, n) = (q.size()[1], k.size()[1]);
        let [q, k, v] = [q, k, v].map(|x| x.transpose(1, 2)); // [b, heads, p or n, d]
        let (padded, device) = (self.padded(p, q.device()), q.device());
        // A padded query may look anywhere, to stay finite; its z is set to zero below.
        let mask = match &padded {
            Some(padded) => Some(tap.exists(p, device).logical_or(padded)),
            // The kernel's own causal mask takes query and key 0 to be the same position.
            None => (p != n && p != 1).then(|| tap.exists(p, device)),
        };
        let z = Tensor::scaled_dot_product_attention(
            &q,
            &k,
            &v,
            mask.as_ref(),
            0.0,
            mask.is_none() && p == n,
            None::<f64>,
            h != g,
        );
        let z = match &padded {
            Some(padded) => z.masked_fill(padded, 0.0),
            None => z,
        };
        z.transpose(1, 2).contiguous()
    }

    /// Which of the last `p` positions are padding, `[b, 1, p, 1]`; absent where none is.
    fn padded(&self, p: i64, device: Device) -> Option<Tensor> {
        let last = |real: &Tensor| real.narrow(1, real.size()[1] - p, p);
        Some(last(&self.real.as_ref()?.to_device(device)).logical_not().unsqueeze(1).unsqueeze(3))
    }

    /// Keys and values with those of earlier positions in front.
    fn with_past(&self, k: Tensor, v: Tensor) -> [Tensor; 2] {
        let Some([keys, values]) = &self.past else {
            return [self.side_by_side(&k), self.side_by_side(&v)];
        };
        let join = |old: &Tensor, new: &Tensor| match &self.line {
            Some(line) => line.after(old, new),
            None => Tensor::cat(&[&old.to_device(new.device()), new], 1),
        };
        [join(keys, &k), join(values, &v)]
    }

    /// `x [b, p, ..]` with rows of unequal lengths side by side.
    fn side_by_side(&self, x: &Tensor) -> Tensor {
        match &self.line {
            Some(line) => line.side_by_side(x),
            None => x.shallow_clone(),
        }
    }

    /// `x [b, p, ..]` at the positions that still matter in block `l`, there side by side.
    fn asked(&self, l: usize, x: &Tensor) -> Tensor {
        match self.asked.filter(|_| self.is_end(l)) {
            Some(n) => {
                let x = self.side_by_side(x);
                x.narrow(1, x.size()[1] - n, n)
            }
            None => x.shallow_clone(),
        }
    }

    /// Whether after the keys and values of block `l` only some positions matter.
    fn is_end(&self, l: usize) -> bool {
        self.asked.is_some() && l + 1 == self.config.n_layers
    }

    /// What the MLP writes: `[b, p, m]` -> `[b, p, m]`.
    fn mlp(&self, l: usize, w: &Block, x: &Tensor, tap: &mut Tap) -> Result<Tensor> {
        let f = self.config.d_mlp as i64;
        let x = tap.at(l, MlpIn, x.alias())?; // of its own for gradients: the stream goes on past it
        let u = self.norm(&x, &w.ln2, Ln2Scale.at(l), Ln2Normalized.at(l), tap)?; // [b, p, m]
        let gate_up = w.gate_up.apply(&u);
        // Contiguous, for silu rounds by layout: recording or an identity would change the last bit.
        let gate = tap.at(l, MlpPre, gate_up.narrow(-1, 0, f).contiguous())?; // [b, p, f]
        let up = tap.at(l, MlpPreLinear, gate_up.narrow(-1, f, f))?; // [b, p, f]
        let [silu, up] = tap.gated(gate.silu(), &gate, up); // the same, but for RelP's gradients
        let neurons = tap.at(l, MlpPost, silu * up)?; // [b, p, f]
        tap.at(l, MlpOut, w.down.apply(&neurons))
    }

    /// RMSNorm: divide by `sqrt(mean(x²) + eps)`, in at least f32, then multiply by the weight.
    fn norm(
        &self,
        x: &Tensor,
        weight: &Tensor,
        scale: Site,
        normalized: Site,
        tap: &mut Tap,
    ) -> Result<Tensor> {
        let x = x.to_kind(wide(self.kind));
        let s = tap.site(scale, self.rms(&x))?; // [b, p, 1]
        let n = tap.site(normalized, x / s)?; // [b, p, m]
        Ok(n.to_kind(self.kind) * weight)
    }

    fn rms(&self, x: &Tensor) -> Tensor {
        (x.square().mean_dim([-1i64].as_slice(), true, None) + self.config.eps).sqrt()
    }

    /// Final norm and unembedding: `[b, p, m]` -> `[b, p, v]`, or `[b, n, v]` at `columns`.
    pub(crate) fn unembed(
        &self,
        x: &Tensor,
        columns: Option<&Tensor>,
        tap: &mut Tap,
    ) -> Result<Tensor> {
        let weight = &self.weights.ln_final;
        let x = x.to_device(weight.device());
        let mut u = self.norm(&x, weight, Site::FinalScale, Site::FinalNormalized, tap)?;
        if let Some(columns) = columns {
            let index =
                columns.to_device(u.device()).unsqueeze(-1).expand([-1, -1, u.size()[2]], false);
            u = u.gather(1, &index, false);
        }
        let logits = product(&u, &self.weights.unembed, None).to_kind(wide(self.kind));
        tap.site(Site::Logits, logits)
    }

    fn head_sizes(&self) -> [i64; 3] {
        let c = self.config;
        [c.n_heads as i64, c.n_kv_heads as i64, c.d_head as i64]
    }

    // The steps below are computed only when a plan names their points. Each enters the pass as a
    // difference to the step it stands beside, so that naming a point changes no bit.

    /// `QInput`, `KInput`, `VInput`: a copy of the stream for each head. Returns what the plan's
    /// changes to them add to q, k and v.
    fn head_inputs(
        &self,
        l: usize,
        w: &Block,
        x: &Tensor,
        tap: &mut Tap,
    ) -> Result<[Option<Tensor>; 3]> {
        let [h, g, d] = self.head_sizes();
        let m = self.config.d_model as i64;
        let mut added = [None, None, None];
        for (i, (point, first, heads)) in
            [(QInput, 0, h), (KInput, h, g), (VInput, h + g, g)].into_iter().enumerate()
        {
            if !tap.wants(l, point) {
                continue;
            }
            let copies = x.unsqueeze(2).expand([-1, -1, heads, -1], false).contiguous();
            let changed = tap.at(l, point, copies.alias())?; // [b, p, heads, m]
            if !tap.enters(l, point) {
                continue;
            }
            let weight = w.qkv.w.narrow(0, first * d, heads * d).view([heads, d, m]);
            let read = |x: &Tensor| {
                let x = x.to_kind(wide(self.kind));
                let s = tap.frozen(Ln1Scale.at(l), self.rms(&x));
                let u = (&x / s).to_kind(self.kind) * &w.ln1; // [b, p, heads, m]
                per_head(&u, &weight.transpose(1, 2)) // [b, p, heads, d]
            };
            added[i] = Some(read(&changed) - read(&copies));
        }
        Ok(added)
    }

    /// `HeadResult`: what each head writes, `[b, p, h, m]`.
    fn head_results(
        &self,
        l: usize,
        w: &Block,
        z: &Tensor,
        out: Tensor,
        tap: &mut Tap,
    ) -> Result<Tensor> {
        if !tap.wants(l, HeadResult) {
            return Ok(out);
        }
        let results = head_results(z, &w.o);
        let changed = tap.at(l, HeadResult, results.alias())?;
        if !tap.enters(l, HeadResult) {
            return Ok(out);
        }
        Ok(out + (changed - results).sum_dim_intlist([2i64].as_slice(), false, None))
    }
}

/// `z [b, p, h, d]` through each head's part of W_O: `[b, p, h, m]`, without the bias.
pub(crate) fn head_results(z: &Tensor, o: &Linear) -> Tensor {
    let [h, d] = [z.size()[2], z.size()[3]];
    let weight = o.w.view([-1, h, d]).permute([1, 2, 0]); // [h, d, m]
    per_head(z, &weight)
}

/// Each head's own product: `x [b, p, heads, in]`, `w [heads, in, out]` -> `[b, p, heads, out]`.
fn per_head(x: &Tensor, w: &Tensor) -> Tensor {
    let size = x.size();
    let rows = x.reshape([-1, size[2], size[3]]).transpose(0, 1); // [heads, b p, in]
    rows.bmm(w).transpose(0, 1).reshape([size[0], size[1], size[2], -1])
}

fn add_changes(parts: [Tensor; 3], changes: [Option<Tensor>; 3]) -> [Tensor; 3] {
    let mut changes = changes.into_iter();
    parts.map(|part| match changes.next().flatten() {
        Some(change) => part + change,
        None => part,
    })
}

/// Norms, softmax and logits are computed in f32 at least.
pub(crate) fn wide(kind: Kind) -> Kind {
    if kind == Kind::Double { Kind::Double } else { Kind::Float }
}
