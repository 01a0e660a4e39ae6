//! thalweg opens a Llama so that every activation can be seen and changed.
#![forbid(unsafe_code)]

pub mod config;
mod files;
pub mod grid;
pub mod hook;
pub mod index;
pub mod model;
pub mod rng;
pub mod text;

pub use config::{Config, Rope, RopeScaling};
pub use grid::{Cell, Grid, GridAxis, Interval};
pub use hook::cache::Cache;
pub use hook::intervention::Intervention;
pub use hook::metric::{Answers, Metric};
pub use hook::plan::{Attention, Plan};
pub use hook::site::{Axis, Point, Site};
pub use hook::sites::Sites;
pub use hook::tap::Fired;
pub use index::{Index, Position, Positions};
pub use model::{Candidate, Model, Run, Top, W};
pub use text::Tokens;
pub use {anyhow, ndarray, plotly, tch};
