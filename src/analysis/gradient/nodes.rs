//! The components of a Llama that write to the stream and read from it: the ends of an edge.

use std::fmt;

use crate::config::Config;

/// A component that writes to the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Writer {
    /// The embedding.
    Embed,
    /// A query head: layer, head.
    Head(usize, usize),
    /// The MLP of a layer.
    Mlp(usize),
}

/// A place at which a component reads the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reader {
    /// Queries of a head: layer, head.
    Query(usize, usize),
    /// Keys of a key/value head: layer, head.
    Key(usize, usize),
    /// Values of a key/value head: layer, head.
    Value(usize, usize),
    /// The MLP of a layer.
    Mlp(usize),
    /// The final norm and the unembedding.
    Logits,
}

/// In the order of the pass.
pub(in crate::analysis) fn writers(config: &Config) -> Vec<Writer> {
    let layer =
        |l: usize| (0..config.n_heads).map(move |h| Writer::Head(l, h)).chain([Writer::Mlp(l)]);
    std::iter::once(Writer::Embed).chain((0..config.n_layers).flat_map(layer)).collect()
}

/// In the order of the pass.
pub(in crate::analysis) fn readers(config: &Config) -> Vec<Reader> {
    let layer = |l: usize| {
        let queries = (0..config.n_heads).map(move |h| Reader::Query(l, h));
        let keys = (0..config.n_kv_heads).map(move |g| Reader::Key(l, g));
        let values = (0..config.n_kv_heads).map(move |g| Reader::Value(l, g));
        queries.chain(keys).chain(values).chain([Reader::Mlp(l)])
    };
    (0..config.n_layers).flat_map(layer).chain([Reader::Logits]).collect()
}

/// Whether what `from` writes reaches `to`.
pub(in crate::analysis) fn exists(from: Writer, to: Reader) -> bool {
    use Reader::*;
    match (from, to) {
        (Writer::Embed, _) | (_, Logits) => true,
        (Writer::Head(layer, _), Mlp(at)) => layer <= at,
        (Writer::Mlp(layer), Mlp(at)) => layer < at,
        (Writer::Head(layer, _) | Writer::Mlp(layer), Query(at, _) | Key(at, _) | Value(at, _)) => {
            layer < at
        }
    }
}

/// How many edges a Llama of this config has between embedding, heads, MLPs and logits.
///
/// ```
/// let config = thalweg::Config::from_json(&serde_json::json!({
///     "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32,
///     "num_key_value_heads": 8, "intermediate_size": 8192, "vocab_size": 128256,
///     "max_position_embeddings": 2048,
/// }))?;
/// assert_eq!(thalweg::edge_count(&config), 195_865);
/// # anyhow::Ok(())
/// ```
pub fn edge_count(config: &Config) -> usize {
    let to = readers(config);
    writers(config).into_iter().map(|from| to.iter().filter(|to| exists(from, **to)).count()).sum()
}

impl fmt::Display for Writer {
    /// `embed`, `L0H3`, `L0 mlp`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Writer::Embed => f.write_str("embed"),
            Writer::Head(layer, head) => write!(f, "L{layer}H{head}"),
            Writer::Mlp(layer) => write!(f, "L{layer} mlp"),
        }
    }
}

impl fmt::Display for Reader {
    /// `L1H3 q`, `L1G0 k`, `L1G0 v`, `L1 mlp`, `logits`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reader::Query(layer, head) => write!(f, "L{layer}H{head} q"),
            Reader::Key(layer, head) => write!(f, "L{layer}G{head} k"),
            Reader::Value(layer, head) => write!(f, "L{layer}G{head} v"),
            Reader::Mlp(layer) => write!(f, "L{layer} mlp"),
            Reader::Logits => f.write_str("logits"),
        }
    }
}
