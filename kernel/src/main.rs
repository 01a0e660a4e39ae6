//! The Jupyter kernel "Rust (thalweg)": evcxr with thalweg in it, behind a Jupyter front of its own.
//!
//! A notebook needs no `:dep` line, never compiles a dependency and never meets another kernel's cells. Two processes:
//!
//! - the kernel: [`server`] has Jupyter's sockets and answers at once through [`front`]; [`session`] is the one thread that has the
//!   notebook's state, through [`engine`]; [`outputs`] passes on what cells print and show;
//! - its [`child`], this same program again (`EVCXR_IS_RUNTIME`), which loads compiled cells and calls them.
//!
//! [`mod@cargo`] stands in for cargo, so that a cell costs one run of rustc; [`spare`] keeps one more kernel warm; [`stock`] is
//! evcxr's own kernel, to compare with.
//!
//! Called by hand it is a tool: [`export`] makes a program of a notebook, [`manage`] installs the kernel and looks at it.
//!
//! Set-up writes a kernelspec whose `THALWEG_KERNEL_SETTINGS` names a file of settings; [`start`] makes of it a
//! private build folder and the environment.

mod cargo;
mod child;
mod clone;
mod completeness;
mod docs;
mod engine;
mod export;
mod failure;
mod front;
mod help;
mod history;
mod interrupt;
mod manage;
mod message;
mod outputs;
mod request;
mod server;
mod session;
mod spare;
mod start;
mod stock;
mod wire;

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::server::Connection;
use crate::spare::Spare;
use crate::start::Start;

fn main() -> Result<()> {
    if let Some(role) = cargo::role() {
        cargo::run(role);
    }
    if stock::is_asked_for() {
        start::end_with_parent();
        return stock::run();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if std::env::var_os("EVCXR_IS_RUNTIME").is_some() {
        start::end_with_parent();
        return child::run();
    }
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--control_file", file] => serve(Path::new(file)),
        ["spare"] => server::run(Connection::Spare(Spare::new()?), Start::new()?),
        ["export", ..] => manage::end(export::run(&arguments[1..])),
        ["install" | "uninstall" | "doctor", ..] => manage::end(manage::run(&arguments)),
        _ => {
            println!("{}", manage::HELP);
            Ok(())
        }
    }
}

fn serve(file: &Path) -> Result<()> {
    start::end_with_parent();
    if spare::hand_over(file)? {
        return Ok(());
    }
    server::run(Connection::File(PathBuf::from(file)), Start::new()?)
}
