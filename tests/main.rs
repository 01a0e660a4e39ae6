//! tests

mod grid;
