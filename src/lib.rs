//! thalweg opens a Llama so that every activation can be seen and changed.

pub mod grid;
pub mod hook;

pub use grid::{Cell, Grid, GridAxis, Interval};
pub use hook::site::{Axis, Point, Site, Sites};
pub use {anyhow, ndarray, plotly, tch};
