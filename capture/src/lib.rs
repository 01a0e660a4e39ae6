//! Activations of whole data sets, from this machine or from a vLLM server.
//!
//! ```text
//! prompts (text, JSON lines, Parquet) -> engine (Model, here or served) -> shards + index | statistics
//! ```
//!
//! | place | what it does |
//! |---|---|
//! | [`prompts`] | rows of a prompt file, one at a time |
//! | [`manifest`] | `capture.json`: all that decides what is captured |
//! | [`capture`], `units`, `batches` | the work: who makes which shard, and what is run at once |
//! | `shard`, `index`, `disk` | files that are whole or not there |
//! | [`captured`], `caches` | reading them again |
//! | [`statistics`] | statistics instead, in parts that merge |
//! | `check` | whether a directory is whole |
//! | [`plan`] | what a capture will take, on paper |
//! | [`serve`], [`widen`], [`compare`] | a vLLM server that writes residuals; models with heads that its kernels take; whether it writes the right ones |

mod batches;
mod caches;
pub mod capture;
pub mod captured;
mod check;
pub mod compare;
mod disk;
mod index;
pub mod manifest;
pub mod plan;
pub mod prompts;
pub mod serve;
mod shard;
mod sites;
pub mod statistics;
mod units;
pub mod widen;

pub use caches::Caches;
pub use capture::{Capture, Done};
pub use captured::{Captured, Place};
pub use check::{There, check, there};
pub use manifest::{Manifest, Totals, Which, parse_kind};
pub use prompts::{Prompt, Prompts};
pub use sites::parse_sites;
pub use units::{Stop, Worker};

/// The code in README.md, which is compiled and run with the examples of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
