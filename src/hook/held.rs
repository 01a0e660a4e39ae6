//! A tensor that can be kept in plain data: cloning it shares the memory.

use std::fmt;

use tch::Tensor;

/// `tch::Tensor` is not `Clone`; an owner that is, and that prints a shape, not numbers.
pub(crate) struct Held(pub(crate) Tensor);

impl Clone for Held {
    fn clone(&self) -> Self {
        Held(self.0.shallow_clone())
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.0.kind(), self.0.size())
    }
}
