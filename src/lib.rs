//! thalweg opens a Llama so that every activation can be seen and changed.

pub mod hook;

pub use hook::site::{Axis, Point, Site, Sites};
