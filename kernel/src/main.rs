//! The Jupyter kernel "Rust (thalweg)": evcxr's kernel, started so that a notebook needs no `:dep` line, never compiles
//! a dependency and never meets another kernel's cells.
//!
//! Set-up writes a kernelspec whose `THALWEG_KERNEL_SETTINGS` names a file of [`Settings`]. From it this program makes
//! a private build folder, writes evcxr's start-up files, sets the environment, and hands over to `evcxr_jupyter`.
//! evcxr starts this same program again as the process that runs the cells (`EVCXR_IS_RUNTIME`).

mod child;
mod start;

use anyhow::Result;

fn main() -> Result<()> {
    start::end_with_parent();
    if std::env::var_os("EVCXR_IS_RUNTIME").is_some() {
        child::open_libtorch();
        return evcxr_jupyter::main();
    }
    if std::env::args().nth(1).as_deref() != Some("--control_file") {
        println!("thalweg-kernel is started by Jupyter; `cargo lab` opens JupyterLab with it.");
        return Ok(());
    }
    let _private = start::prepare()?;
    evcxr_jupyter::main()
}
