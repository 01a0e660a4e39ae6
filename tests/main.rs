//! All integration tests in one binary: each would link libtorch again.

mod grid;
mod signatures;
mod support;
mod tidy;
