//! thalweg opens a Llama so that every activation can be seen, changed and shown.
//!
//! ```text
//! text -> Tokens -> Model::run(tokens, plan) -> Run { logits, cache } -> analysis -> Grid -> Figure
//! ```
//!
//! # Code map
//!
//! | place | what it does |
//! |---|---|
//! | [`config`], [`text`], [`prompts`] | `config.json`, prompts and prompt sets: what goes in |
//! | [`hook`] | what may be seen and changed: sites, interventions, plans, caches, metrics |
//! | [`remote`] | the residual stream of a model that a vLLM server runs |
//! | [`model`] | tokens -> logits; `model/forward.rs` is the page that says what a Llama does; sweeps, generation, training |
//! | [`grid`] | numbers with named axes, labels and a unit: what every analysis returns |
//! | [`analysis`] | from a cache, or from sweeps of a model, to a grid: one method a file |
//! | [`figure`] | from a grid to a figure, for notebooks, papers and pages |
//! | [`show`], `interrupt` | showing things and progress in a notebook; stopping a long call |
//! | [`index`], [`rng`] | places along an axis; a seeded generator |
//! | [`record`] | where numbers come from: what every result carries |
//!
//! # What holds throughout
//!
//! - `forward.rs` knows `Tap`, not `Plan`; `hook` knows dimensions, not weights; `analysis` never
//!   plots; figures know neither tensors nor the model. There is no global state.
//! - A plan is checked whole before any work. An intervention acts first, then the site is recorded,
//!   and every intervention declared has taken place when a run returns.
//! - A plan that changes nothing gives bitwise the logits of the empty plan, in the same attention
//!   arithmetic and batch shape. Across arithmetics and batch shapes equality is to rounding.
//! - Padding never counts: positions are counted in each row's own tokens, -1 is a row's last.
//!   Statistics leave padding out, and those of the residual stream the first token too.
//! - Query heads and key/value heads are two axes, `Head` and `KvHead`.
//! - Whatever draws takes a seed, and a seed means the same numbers on every device.
//! - Everything a notebook keeps is owned, cloneable, and prints in one line.
#![forbid(unsafe_code)]

pub mod analysis;
mod base64;
pub mod config;
pub mod figure;
mod files;
pub mod grid;
pub mod hook;
mod http;
pub mod index;
mod interrupt;
pub mod model;
pub mod prelude;
pub mod prompts;
pub mod record;
pub mod remote;
pub mod rng;
pub mod show;
mod shown;
pub mod text;

pub use analysis::*;
pub use config::{Config, Rope, RopeScaling};
pub use figure::{
    Bundle, CellText, Example, Figure, GraphLink, GraphNode, Origin, Prediction, attention,
    attention_viewer, bars, circuit, clustermap, compare, examples, graph, heatmap, histogram,
    increments, lines, predictions, scatter, silhouettes, spectrum, tokens, versus,
};
pub use grid::{Cell, Grid, GridAxis, Interval};
pub use hook::cache::Cache;
pub use hook::freeze::Freeze;
pub use hook::intervention::{Intervention, Scope};
pub use hook::metric::{Answers, Metric};
pub use hook::plan::{Attention, Plan};
pub use hook::site::{Axis, Point, Site};
pub use hook::sites::Sites;
pub use hook::tap::Fired;
pub use index::{Index, Position, Positions};
pub use interrupt::check_interrupt;
pub use model::{
    Candidate, Chat, Generated, Hub, Model, Progress, Run, Sampling, Sweep, SweepOptions, Top, W,
};
pub use prompts::{Aligned, Prompt, Prompts};
pub use record::Record;
pub use remote::Remote;
pub use show::{Bar, Content, Html, Markdown, Show, Shown, clear_output, display, progress};
pub use text::Tokens;
pub use {anyhow, ndarray, plotly, tch};

/// The book's pages, whose code is compiled and run with the examples of the documentation.
#[cfg(doctest)]
mod book {
    #[doc = include_str!("../book/src/welcome.md")]
    struct Welcome;
    #[doc = include_str!("../book/src/recipes.md")]
    struct Recipes;
    #[doc = include_str!("../book/src/beyond.md")]
    struct Beyond;
    #[doc = include_str!("../book/src/concepts/stream.md")]
    struct Stream;
    #[doc = include_str!("../book/src/concepts/plans.md")]
    struct Plans;
    #[doc = include_str!("../book/src/concepts/numbers.md")]
    struct Numbers;
    #[doc = include_str!("../book/src/concepts/trust.md")]
    struct Trust;
}
