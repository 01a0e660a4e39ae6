//! All integration tests in one binary: each would link libtorch again.

mod analysis;
mod bad_input;
mod figures;
mod freeze;
mod fuzz;
mod golden;
mod gradients;
mod grid;
mod induction_model;
mod interventions;
mod invariants;
mod loading;
mod memory;
mod narrowing;
mod offload;
mod plan;
mod prompts;
mod provenance;
mod run;
mod signatures;
mod support;
mod sweep;
mod tidy;
mod tiny_world;
mod tokens;
mod training;
