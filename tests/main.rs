//! All integration tests in one binary: each would link libtorch again.

mod grid;
mod support;
