//! Which of two runs receives the patch.
//!
//! Heimersheim & Nanda 2024, "How to use and interpret activation patching",
//! <https://arxiv.org/abs/2404.15255>.

use std::fmt;

/// Which run receives the activations of which. Exact patching and its estimate by gradients share
/// it: the gradient belongs to the run that receives the patch.
///
/// The two answer different questions, and disagree wherever components interact: under redundancy
/// (either of two heads would do) noising one finds nothing and denoising one finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The corrupt run receives clean activations: is this enough to bring the behaviour back?
    Denoise,
    /// The clean run receives corrupt activations: is this needed for the behaviour?
    Noise,
}

impl Direction {
    /// The source of the patch and the run that receives it, `(source, receiver)`.
    ///
    /// ```
    /// use thalweg::Direction;
    /// assert_eq!(Direction::Denoise.order("clean", "corrupt"), ("clean", "corrupt"));
    /// assert_eq!(Direction::Noise.order("clean", "corrupt"), ("corrupt", "clean"));
    /// ```
    pub fn order<T>(self, clean: T, corrupt: T) -> (T, T) {
        match self {
            Direction::Denoise => (clean, corrupt),
            Direction::Noise => (corrupt, clean),
        }
    }
}

impl fmt::Display for Direction {
    /// In words: "clean activations into the corrupt run".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Denoise => "clean activations into the corrupt run",
            Direction::Noise => "corrupt activations into the clean run",
        })
    }
}
