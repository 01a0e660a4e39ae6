//! All tests of captures in one binary: each would link libtorch again.

mod analyses;
mod faults;
mod memory;
mod plan;
mod reader;
mod recipes;
mod resume;
mod serve;
mod served;
mod sources;
mod statistics;
mod support;
mod through_server;
mod widen;
