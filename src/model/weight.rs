//! Weights by name, in TransformerLens' shapes, and surgery on them.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use tch::Tensor;

use super::Model;
use super::weights::{Block, Linear};
use crate::config::Config;
use crate::rng::Rng;

/// A weight, named as in TransformerLens; shapes by axis names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum W {
    /// Embedding, `[Vocab, DModel]`; no layer.
    E,
    /// Unembedding, `[DModel, Vocab]`; no layer.
    U,
    /// Weight of the final norm, `[DModel]`; no layer.
    LnFinal,
    /// Weight of the norm before attention, `[DModel]`.
    Ln1,
    /// Weight of the norm before the MLP, `[DModel]`.
    Ln2,
    /// Queries, `[Head, DModel, DHead]`.
    Q,
    /// Keys, `[KvHead, DModel, DHead]`.
    K,
    /// Values, `[KvHead, DModel, DHead]`.
    V,
    /// Attention's output, `[Head, DHead, DModel]`.
    O,
    /// Gate, `[DModel, DMlp]`.
    Gate,
    /// The linear branch ("up"), `[DModel, DMlp]`.
    In,
    /// The MLP's output ("down"), `[DMlp, DModel]`.
    Out,
    /// Bias of the queries, `[Head, DHead]`; zeros where the model has none, as all biases.
    BQ,
    /// Bias of the keys, `[KvHead, DHead]`.
    BK,
    /// Bias of the values, `[KvHead, DHead]`.
    BV,
    /// Bias of attention's output, `[DModel]`.
    BO,
    /// Bias of the gate, `[DMlp]`.
    BGate,
    /// Bias of the linear branch, `[DMlp]`.
    BIn,
    /// Bias of the MLP's output, `[DModel]`.
    BOut,
}

impl Model {
    /// A weight as stored, a copy of its own: `model.weight(W::Q, 2)?` is `[Head, DModel, DHead]`.
    /// `layer` is ignored by `E`, `U` and `LnFinal`, which belong to none: give 0.
    pub fn weight(&self, which: W, layer: usize) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let outside = matches!(which, W::E | W::U | W::LnFinal);
        ensure!(!outside || layer == 0, "{which:?} belongs to no layer: give 0, not {layer}");
        if !outside {
            self.whole(&format!("weight {which:?}"))?;
        }
        let last = self.config.n_layers - 1;
        let found = self.view(which, self.weights.blocks.get(layer)).with_context(|| {
            format!("{which:?}: no layer {layer}, the model has layers 0..{last}")
        })?;
        Ok(found.detach().to_device(self.device()).copy())
    }

    /// The same with the norm before it folded in: rows of `Q`, `K`, `V`, `Gate`, `In` and `U`
    /// multiplied by the norm's weight, so that they read `x / scale`. Other weights are unchanged.
    pub fn weight_folded(&self, which: W, layer: usize) -> Result<Tensor> {
        let weight = self.weight(which, layer)?;
        let norm = match which {
            W::Q | W::K | W::V => self.weight(W::Ln1, layer)?.unsqueeze(1),
            W::Gate | W::In => self.weight(W::Ln2, layer)?.unsqueeze(1),
            W::U => self.weight(W::LnFinal, 0)?.unsqueeze(1),
            _ => return Ok(weight),
        };
        Ok(weight * norm)
    }

    /// What each token's logit reads in the stream once it is divided by the final norm's scale:
    /// the token's unembedding times the norm's weight, `[n, DModel]`.
    pub fn logit_directions(&self, ids: &[i64]) -> Result<Tensor> {
        let d_vocab = self.config.d_vocab as i64;
        for id in ids {
            ensure!(
                (0..d_vocab).contains(id),
                "token id {id} is outside the vocabulary of {d_vocab}"
            );
        }
        let _guard = tch::no_grad_guard();
        let ids = Tensor::from_slice(ids).to_device(self.weights.unembed.device());
        let directions = self.weights.unembed.index_select(0, &ids) * &self.weights.ln_final;
        Ok(directions.to_device(self.device()))
    }

    /// Absent: it belongs to a block, and there is none.
    fn view(&self, which: W, block: Option<&Block>) -> Option<Tensor> {
        match which {
            W::E => Some(self.weights.embed.shallow_clone()),
            W::U => Some(self.weights.unembed.tr()),
            W::LnFinal => Some(self.weights.ln_final.shallow_clone()),
            _ => self.view_of_block(which, block?),
        }
    }

    fn view_of_block(&self, which: W, block: &Block) -> Option<Tensor> {
        let c = &self.config;
        let (h, g, d) = (c.n_heads as i64, c.n_kv_heads as i64, c.d_head as i64);
        let (m, f) = (c.d_model as i64, c.d_mlp as i64);
        let heads = |first: i64, n: i64| {
            block.qkv.w.narrow(0, first * d, n * d).view([n, d, m]).transpose(1, 2)
        };
        let bias = |linear: &Linear, first: i64, n: i64| match &linear.b {
            Some(b) => b.narrow(0, first, n),
            None => Tensor::zeros([n], (linear.w.kind(), linear.w.device())),
        };
        Some(match which {
            W::E | W::U | W::LnFinal => return None,
            W::Ln1 => block.ln1.shallow_clone(),
            W::Ln2 => block.ln2.shallow_clone(),
            W::Q => heads(0, h),
            W::K => heads(h, g),
            W::V => heads(h + g, g),
            W::O => block.o.w.view([m, h, d]).permute([1, 2, 0]),
            W::Gate => block.gate_up.w.narrow(0, 0, f).tr(),
            W::In => block.gate_up.w.narrow(0, f, f).tr(),
            W::Out => block.down.w.tr(),
            W::BQ => bias(&block.qkv, 0, h * d).view([h, d]),
            W::BK => bias(&block.qkv, h * d, g * d).view([g, d]),
            W::BV => bias(&block.qkv, (h + g) * d, g * d).view([g, d]),
            W::BO => bias(&block.o, 0, m),
            W::BGate => bias(&block.gate_up, 0, f),
            W::BIn => bias(&block.gate_up, f, f),
            W::BOut => bias(&block.down, 0, m),
        })
    }

    /// Every tensor by its name in a Hugging Face file, copies of their own.
    pub fn named_weights(&self) -> HashMap<String, Tensor> {
        let _guard = tch::no_grad_guard();
        let named = self.weights.named(&self.config);
        named.into_iter().map(|(name, w)| (name, w.detach().copy())).collect()
    }

    /// A new model whose weights are `edit(name, weight)`, names and shapes as in a Hugging Face
    /// file; return `weight.shallow_clone()` to keep one. This model is unchanged. With tied
    /// embeddings, `model.embed_tokens.weight` is the unembedding too.
    pub fn with_weights(
        &self,
        mut edit: impl FnMut(&str, &Tensor) -> Result<Tensor>,
    ) -> Result<Model> {
        self.whole("weights edited")?;
        let mut tensors = self.named_weights();
        let mut names: Vec<_> = tensors.keys().cloned().collect();
        names.sort();
        for name in names {
            let edited = edit(&name, &tensors[&name])?;
            tensors.insert(name, edited);
        }
        let weights = super::weights::Weights::from_tensors(
            &self.config,
            &tensors,
            &self.weights.devices,
            self.kind(),
        )?;
        Ok(Model { weights, source: format!("{} edited", self.source), ..self.clone() })
    }

    /// The same model with an unembedding of its own, equal to the embedding, where the two were
    /// tied: either can then be changed alone.
    pub fn untied(&self) -> Result<Model> {
        self.whole("untied")?;
        let mut tensors = self.named_weights();
        let embed = tensors.get("model.embed_tokens.weight").map(Tensor::copy);
        let embed = embed.context("no tensor model.embed_tokens.weight")?;
        tensors.entry("lm_head.weight".to_owned()).or_insert(embed);
        let config = Config { tied: false, ..self.config.clone() };
        let weights = super::weights::Weights::from_tensors(
            &config,
            &tensors,
            &self.weights.devices,
            self.kind(),
        )?;
        Ok(Model { config, weights, source: format!("{} untied", self.source), ..self.clone() })
    }

    /// A model of the same shape before any training: matrices normal with variance 1 / inputs,
    /// embeddings normal with variance 1, norms 1, biases 0, drawn from `seed`. A control, and what
    /// [`trainable`](Self::trainable) starts from.
    pub fn untrained(&self, seed: u64) -> Result<Model> {
        let mut rng = Rng::new(seed);
        let fresh = self.with_weights(|name, weight| {
            let shape = weight.size();
            Ok(match shape[..] {
                [_] if name.ends_with(".bias") => weight.zeros_like(),
                [_, _] if name == "model.embed_tokens.weight" => rng.normal_tensor(&shape),
                [_, inputs] => rng.normal_tensor(&shape) / (inputs as f64).sqrt(),
                _ => weight.ones_like(),
            })
        })?;
        Ok(Model { source: format!("{} untrained with seed {seed}", self.source), ..fresh })
    }

    /// A control: the same model with its heads in another order, head `i` of each layer being what
    /// head `order[i]` was, keys and values with them. It computes the same, and a comparison of heads
    /// by their numbers is lost. Heads that share keys and values must stay together.
    ///
    /// ```
    /// use thalweg::Model;
    /// let model = Model::load("data/models/tiny-world")?;
    /// let other = model.with_heads_in_order(&[6, 7, 4, 5, 1, 0, 3, 2])?;
    /// let tokens = model.tokens("Mary and John went to the")?;
    /// let apart = (model.logits(&tokens)? - other.logits(&tokens)?).abs().max();
    /// assert!(apart.double_value(&[]) < 1e-3);
    /// assert!(model.with_heads_in_order(&[1, 2, 3, 4, 5, 6, 7, 0]).is_err());
    /// # thalweg::anyhow::Ok(())
    /// ```
    pub fn with_heads_in_order(&self, order: &[usize]) -> Result<Model> {
        let (heads, each) = (self.config.n_heads, self.config.group());
        let groups: Vec<usize> = order.iter().step_by(each).map(|head| head / each).collect();
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        let together = order.iter().enumerate().all(|(i, head)| head / each == groups[i / each]);
        ensure!(
            sorted.iter().copied().eq(0..heads) && together,
            "heads in the order {order:?}: expected each of 0..{heads} once, the {each} of a key/value group side by side"
        );
        let pick = |w: &Tensor, axis: i64, order: &[usize]| {
            let order: Vec<i64> = order.iter().map(|head| *head as i64).collect();
            let (n, d) = (order.len() as i64, self.config.d_head as i64);
            let split = if axis == 0 { [n, d, -1] } else { [-1, n, d] };
            let order = Tensor::from_slice(&order).to_device(w.device());
            w.reshape(split).index_select(axis, &order).reshape(w.size())
        };
        let reordered = self.with_weights(|name, w| {
            Ok(match name {
                _ if name.contains("q_proj") => pick(w, 0, order),
                _ if name.contains("k_proj") || name.contains("v_proj") => pick(w, 0, &groups),
                _ if name.contains("o_proj.weight") => pick(w, 1, order),
                _ => w.shallow_clone(),
            })
        })?;
        Ok(Model { source: format!("{} with heads {order:?}", self.source), ..reordered })
    }

    /// A control: the same numbers in every weight tensor, in an order drawn from `seed`.
    pub fn shuffled(&self, seed: u64) -> Result<Model> {
        let mut rng = Rng::new(seed);
        let shuffled = self.with_weights(|_, weight| {
            let mut order: Vec<i64> = (0..weight.numel() as i64).collect();
            rng.shuffle(&mut order);
            let order = Tensor::from_slice(&order).to_device(weight.device());
            Ok(weight.flatten(0, -1).index_select(0, &order).view(&weight.size()[..]))
        })?;
        Ok(Model { source: format!("{} shuffled with seed {seed}", self.source), ..shuffled })
    }
}
