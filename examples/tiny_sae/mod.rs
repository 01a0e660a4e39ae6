//! The shipped autoencoder of tiny-world: its data, what its latents tell apart, its card.

// The example and a test each use a part of what stands here.
#![allow(dead_code, unreachable_pub)]

pub mod card;
pub mod contrast;
pub mod data;

use thalweg::{Point, Site, TopKTraining};

/// How the autoencoder is made.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// What it reconstructs.
    pub site: Site,
    /// Its training.
    pub training: TopKTraining,
    /// Rows of 64 tokens that it learns from.
    pub rows: usize,
    /// Rows that it is scored on.
    pub test_rows: usize,
    /// Decides rows, weights and controls.
    pub seed: u64,
}

impl Recipe {
    /// The shipped one: the stream after the third of four layers, where sentences have been read
    /// and the answer is not yet written in the unembedding's own directions.
    pub fn tiny_world() -> Self {
        let training = TopKTraining { steps: 2000, rate: 3e-3, ..TopKTraining::new(512, 8, 1) };
        Recipe { site: Point::ResidPost.at(2), training, rows: 2000, test_rows: 256, seed: 1 }
    }
}
