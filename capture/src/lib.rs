//! Activations of whole data sets, from this machine or from a vLLM server.
//!
//! ```text
//! prompts (text, JSON lines, Parquet) -> engine (Model, here or served) -> shards + index | statistics
//! ```

pub mod plan;
