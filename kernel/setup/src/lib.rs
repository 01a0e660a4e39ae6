//! What `cargo lab` and `cargo verify` stand on: finding or building libtorch, Python with Jupyter, the
//! notebook kernel and the compiled dependencies of notebooks, each kept per user under a key of all it is made from.
//!
//! Knows nothing of libtorch's types, so that it compiles in seconds; the kernel shares [`notebook`] with it.
//!
//! - [`places`]: where the clone and the user's cache lie
//! - [`store`]: directories that are absent or whole, locks, keys
//! - [`lockfile`]: which packages of Cargo.lock a package needs
//! - [`command`]: running other programs with a log, progress and one-line errors
//! - [`toolchain`], [`python`], [`libtorch`], [`kernel`], [`notebook`]: the five things set up
//! - [`settings`]: what a kernel is told of all that
//! - [`setup`]: all of them in order; [`lab`], [`verify`]: the two commands
//! - [`vllm`], [`served`]: the engine that serves models to `Remote`, for CPUs; a server of it for the tests
//! - [`install`], [`doctor`]: the kernel for every Jupyter of this user; what is there and what is missing

pub mod browser;
pub mod command;
pub mod doctor;
pub mod install;
pub mod kernel;
pub mod lab;
pub mod libtorch;
pub mod lockfile;
pub mod notebook;
pub mod places;
pub mod python;
pub mod served;
pub mod settings;
pub mod setup;
pub mod store;
pub mod toolchain;
pub mod tree;
pub mod verify;
pub mod vllm;
