//! The graph of a Llama's components: where each writer and reader stands among all, and which
//! readers feed which writer. A key/value head feeds every query head of its group.

use anyhow::{Result, bail};

use crate::analysis::gradient::{Edges, Reader, Writer, exists};
use crate::config::Config;

/// How many layers, query heads and key/value heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Graph {
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
}

impl Graph {
    pub(super) fn new(config: &Config) -> Self {
        Graph { layers: config.n_layers, heads: config.n_heads, kv_heads: config.n_kv_heads }
    }

    /// The graph that these scores are of.
    pub(super) fn of_scores(edges: &Edges) -> Self {
        let layers = edges.writers.iter().filter(|w| matches!(w, Writer::Mlp(_))).count();
        let heads = edges.writers.iter().filter(|w| matches!(w, Writer::Head(0, _))).count();
        let kv_heads = edges.readers.iter().filter(|r| matches!(r, Reader::Key(0, _))).count();
        Graph { layers, heads, kv_heads }
    }

    pub(super) fn writers(self) -> usize {
        1 + self.layers * (self.heads + 1)
    }

    pub(super) fn readers(self) -> usize {
        self.layers * self.readers_of_layer() + 1
    }

    fn readers_of_layer(self) -> usize {
        self.heads + 2 * self.kv_heads + 1
    }

    /// Place of a writer among all, in the order of the pass.
    pub(super) fn writer(self, writer: Writer) -> usize {
        match writer {
            Writer::Embed => 0,
            Writer::Head(layer, head) => 1 + layer * (self.heads + 1) + head,
            Writer::Mlp(layer) => 1 + layer * (self.heads + 1) + self.heads,
        }
    }

    /// Place of a reader among all, in the order of the pass.
    pub(super) fn reader(self, reader: Reader) -> usize {
        let first = |layer: usize| layer * self.readers_of_layer();
        match reader {
            Reader::Query(layer, head) => first(layer) + head,
            Reader::Key(layer, head) => first(layer) + self.heads + head,
            Reader::Value(layer, head) => first(layer) + self.heads + self.kv_heads + head,
            Reader::Mlp(layer) => first(layer) + self.heads + 2 * self.kv_heads,
            Reader::Logits => self.layers * self.readers_of_layer(),
        }
    }

    /// Every writer, in the order of the pass.
    pub(super) fn all_writers(self) -> Vec<Writer> {
        let heads = self.heads;
        let layer = |l: usize| (0..heads).map(move |h| Writer::Head(l, h)).chain([Writer::Mlp(l)]);
        std::iter::once(Writer::Embed).chain((0..self.layers).flat_map(layer)).collect()
    }

    /// What a writer computes from: its queries, keys and values, or its MLP's input.
    pub(super) fn inputs(self, writer: Writer) -> Vec<Reader> {
        match writer {
            Writer::Embed => Vec::new(),
            Writer::Mlp(layer) => vec![Reader::Mlp(layer)],
            Writer::Head(layer, head) => {
                let group = head * self.kv_heads / self.heads.max(1);
                vec![
                    Reader::Query(layer, head),
                    Reader::Key(layer, group),
                    Reader::Value(layer, group),
                ]
            }
        }
    }

    /// Fails, saying what there is, unless the model has this edge.
    pub(super) fn check(self, from: Writer, to: Reader) -> Result<()> {
        let layer = match from {
            Writer::Embed => 0,
            Writer::Head(layer, head) if head < self.heads => layer,
            Writer::Mlp(layer) => layer,
            Writer::Head(..) => {
                bail!("edge {from} -> {to}: a layer has heads 0..{}", self.heads - 1)
            }
        };
        let reads = match to {
            Reader::Query(layer, head) if head < self.heads => layer,
            Reader::Key(layer, head) | Reader::Value(layer, head) if head < self.kv_heads => layer,
            Reader::Mlp(layer) => layer,
            Reader::Logits => 0,
            Reader::Query(..) => {
                bail!("edge {from} -> {to}: a layer has heads 0..{}", self.heads - 1)
            }
            _ => bail!("edge {from} -> {to}: a layer has key/value heads 0..{}", self.kv_heads - 1),
        };
        if layer.max(reads) >= self.layers {
            bail!("edge {from} -> {to}: the model has layers 0..{}", self.layers - 1);
        }
        if !exists(from, to) {
            bail!("edge {from} -> {to}: the reader comes before the writer");
        }
        Ok(())
    }
}
