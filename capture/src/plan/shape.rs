//! A model's dimensions, and what follows from them alone.

use std::path::Path;

use anyhow::Result;
use thalweg::Config;

/// What of a Llama's `config.json` decides bytes and seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// As tables name it.
    pub name: String,
    /// Blocks.
    pub n_layers: f64,
    /// Width of the residual stream.
    pub d_model: f64,
    /// Width of all query heads together.
    pub d_query: f64,
    /// Width of all key heads together, which is that of all value heads.
    pub d_key: f64,
    /// Neurons of an MLP.
    pub d_mlp: f64,
    /// Token ids.
    pub d_vocab: f64,
    /// Weights of embedding and unembedding: one matrix where they are tied, else two.
    pub embeddings: f64,
}

/// `[n_layers, d_model, n_heads, d_head, d_mlp, tied]` of the models as published, from their
/// `config.json`; all have 8 key/value heads and 128,256 token ids.
const PUBLISHED: [(&str, &str, [u32; 6]); 4] = [
    ("1b", "Llama-3.2-1B", [16, 2048, 32, 64, 8192, 1]),
    ("8b", "Llama-3.1-8B", [32, 4096, 32, 128, 14336, 0]),
    ("70b", "Llama-3.1-70B", [80, 8192, 64, 128, 28672, 0]),
    ("405b", "Llama-3.1-405B", [126, 16384, 128, 128, 53248, 0]),
];
const KV_HEADS: u32 = 8;
const VOCABULARY: u32 = 128_256;

impl Shape {
    /// The models whose plans are in `PLAN.md`.
    pub fn published() -> Vec<Shape> {
        PUBLISHED.iter().map(|(_, name, d)| Shape::of_published(name, *d)).collect()
    }

    /// `1b`, `8b`, `70b`, `405b`, or a directory with a `config.json`.
    ///
    /// ```
    /// use thalweg_capture::plan::Shape;
    /// let shape = Shape::named("8b")?;
    /// assert_eq!((shape.name.as_str(), shape.parameters()), ("Llama-3.1-8B", 8_030_261_248.0));
    /// # anyhow::Ok(())
    /// ```
    pub fn named(name: &str) -> Result<Shape> {
        let short = name.to_lowercase();
        if let Some((_, full, d)) = PUBLISHED.iter().find(|(own, ..)| *own == short) {
            return Ok(Shape::of_published(full, *d));
        }
        let dir = Path::new(name);
        anyhow::ensure!(
            dir.is_dir(),
            "no model {name:?}: expected 1b, 8b, 70b, 405b or a directory with a config.json"
        );
        let config = Config::load(dir.join("config.json"))?;
        let last = dir.file_name().map(|last| last.to_string_lossy().into_owned());
        Ok(Shape::of(last.as_deref().unwrap_or(name), &config))
    }

    /// Of a `config.json` that was read.
    pub fn of(name: &str, config: &Config) -> Shape {
        let wide = |n: usize| n as f64;
        Shape {
            name: name.to_owned(),
            n_layers: wide(config.n_layers),
            d_model: wide(config.d_model),
            d_query: wide(config.n_heads) * wide(config.d_head),
            d_key: wide(config.n_kv_heads) * wide(config.d_head),
            d_mlp: wide(config.d_mlp),
            d_vocab: wide(config.d_vocab),
            embeddings: wide(config.d_vocab)
                * wide(config.d_model)
                * if config.tied { 1.0 } else { 2.0 },
        }
    }

    fn of_published(name: &str, dimensions: [u32; 6]) -> Shape {
        let [n_layers, d_model, n_heads, d_head, d_mlp, tied] = dimensions.map(f64::from);
        let d_vocab = f64::from(VOCABULARY);
        Shape {
            name: name.to_owned(),
            n_layers,
            d_model,
            d_query: n_heads * d_head,
            d_key: f64::from(KV_HEADS) * d_head,
            d_mlp,
            d_vocab,
            embeddings: d_vocab * d_model * (2.0 - tied),
        }
    }

    /// Weights of the matrices of all blocks, which each token meets once.
    pub fn block_matrices(&self) -> f64 {
        let attention = self.d_model * (2.0 * self.d_query + 2.0 * self.d_key);
        self.n_layers * (attention + 3.0 * self.d_model * self.d_mlp)
    }

    /// Weights in all, norms included and biases not.
    pub fn parameters(&self) -> f64 {
        let norms = (2.0 * self.n_layers + 1.0) * self.d_model;
        self.block_matrices() + self.embeddings + norms
    }

    /// States of the residual stream: before the first block, and after each.
    pub fn states(&self) -> f64 {
        self.n_layers + 1.0
    }

    /// FLOP a token of a prompt of `length` tokens: blocks, causal attention (half of all pairs),
    /// and the unembedding of the last position only.
    pub fn flops(&self, length: f64) -> f64 {
        let attention = 4.0 * self.d_query * length / 2.0 * self.n_layers;
        2.0 * self.block_matrices() + attention + self.unembedding() / length
    }

    /// FLOP of one position's logits.
    pub fn unembedding(&self) -> f64 {
        2.0 * self.d_vocab * self.d_model
    }
}
