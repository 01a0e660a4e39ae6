//! All tests of captures in one binary: each would link libtorch again.

mod plan;
mod reader;
mod resume;
mod sources;
mod support;
