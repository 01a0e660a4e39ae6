//! The Jupyter kernel.
fn main() {}
