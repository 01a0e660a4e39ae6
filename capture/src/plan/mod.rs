//! What a capture costs, on paper: bytes, seconds and disk, by route, and where each route stops.
//!
//! ```text
//! Shape (of a model) + Machine + Question -> estimate -> Estimate (bytes, seconds, disk, stops)
//! Estimate -> Line -> simulate: the closed form's seconds, found a second time by discrete events
//! ```
//! Every figure that is not a dimension of a model stands in [`assumptions`], with its source.

pub mod assumptions;
mod estimate;
mod instead;
mod line;
mod machine;
mod page;
mod shape;
mod simulate;
mod table;
mod units;

pub use estimate::{Estimate, Question, Stop, estimate, estimates};
pub use instead::instead;
pub use line::{Line, Stage};
pub use machine::{Device, Machine};
pub use page::page;
pub use shape::Shape;
pub use simulate::{Jitter, Simulated, simulate};
pub use table::{json, table};
pub use units::{bytes, count, seconds};

use clap::ValueEnum;

/// Where activations come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// `Model::load`: all layers on one device, in this process.
    Local,
    /// `Model::load_spread`: layers in pieces over all devices, in this process; one works at a time.
    Spread,
    /// vLLM, every layer split over all devices of the node.
    Tensor,
    /// vLLM, as many replicas as the devices hold, each split over as few devices as hold it.
    Data,
}

impl Route {
    /// All of them.
    pub const ALL: [Route; 4] = [Route::Local, Route::Spread, Route::Tensor, Route::Data];

    /// As tables name it.
    pub fn name(self) -> &'static str {
        match self {
            Route::Local => "local, one device",
            Route::Spread => "local, layers spread",
            Route::Tensor => "vLLM, tensor parallel",
            Route::Data => "vLLM, replicas",
        }
    }

    /// Whether a server computes, so that all states of all positions pass a shared directory.
    pub fn served(self) -> bool {
        matches!(self, Route::Tensor | Route::Data)
    }
}

/// What stays of each prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Keep {
    /// The residual stream at every position, before the first and after every block.
    Residuals,
    /// The residual stream at every position, after one block.
    Layer,
    /// The residual stream at each prompt's last position, before the first and after every block.
    Last,
    /// Mean, variance and covariance before the first and after every block.
    Statistics,
    /// Mean, variance and covariance after one block.
    LayerStatistics,
}

impl Keep {
    /// All of them.
    pub const ALL: [Keep; 5] =
        [Keep::Residuals, Keep::Layer, Keep::Last, Keep::Statistics, Keep::LayerStatistics];

    /// As tables name it.
    pub fn name(self) -> &'static str {
        match self {
            Keep::Residuals => "residuals of all layers",
            Keep::Layer => "residuals of one layer",
            Keep::Last => "all layers at the last position",
            Keep::Statistics => "statistics of all layers",
            Keep::LayerStatistics => "statistics of one layer",
        }
    }

    /// Whether only sums stay, whose size does not grow with the tokens.
    pub fn sums(self) -> bool {
        matches!(self, Keep::Statistics | Keep::LayerStatistics)
    }
}
