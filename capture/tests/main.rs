//! All tests of captures in one binary: each would link libtorch again.

mod plan;
mod reader;
mod resume;
mod serve;
mod served;
mod sources;
mod support;
mod widen;
