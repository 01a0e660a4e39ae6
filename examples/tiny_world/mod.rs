//! tiny-world: a small made-up language whose nine tasks each need a different piece of circuitry,
//! and the training of a 4-layer Llama on it.
//!
//! `words` holds the vocabulary, `sentence` a sentence with its answers, `lists`, `facts` and
//! `stories` the tasks, `rows` packs sentences into rows of 64 tokens, `prompt_sets` writes
//! `data/prompts`, `recipe` and `trainer` train, `report` measures.

// An example and a test each use a part of what stands here.
#![allow(dead_code, unreachable_pub)]

pub mod baselines;
pub mod blindfold;
pub mod card;
pub mod circuits;
pub mod facts;
pub mod lists;
pub mod prompt_sets;
pub mod recipe;
pub mod report;
pub mod rows;
pub mod sentence;
pub mod stories;
pub mod trainer;
pub mod words;
