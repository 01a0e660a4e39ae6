//! The Rust toolchain: where it lies, what it is, and its sources, which type inference in notebooks reads.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;

/// The toolchain that cargo uses in the clone.
#[derive(Debug, Clone)]
pub struct Toolchain {
    /// Its folder: `bin/rustc`, `bin/cargo`, `lib/rustlib`.
    pub sysroot: PathBuf,
    /// All that `rustc -vV` says.
    pub version: String,
    /// The target it builds for when told nothing, such as `x86_64-unknown-linux-gnu`.
    pub host: String,
}

impl Toolchain {
    /// The toolchain that `rustc` means in `clone`, with its sources installed.
    pub fn find(clone: &Path) -> Result<Toolchain> {
        let rustc = |argument: &[&str]| {
            command::output(Command::new("rustc").args(argument).current_dir(clone))
        };
        let version = rustc(&["-vV"]).context("Rust is missing; install it with rustup")?;
        let host = version.lines().find_map(|line| line.strip_prefix("host: "));
        let toolchain = Toolchain {
            sysroot: PathBuf::from(rustc(&["--print", "sysroot"])?),
            host: host.context("rustc -vV names no host")?.to_owned(),
            version: version.clone(),
        };
        toolchain.need_compiler()?;
        toolchain.need_sources(clone)?;
        Ok(toolchain)
    }

    /// Cargo itself, not the rustup proxy, which costs a tenth of a second a call.
    pub fn cargo(&self) -> PathBuf {
        let own = self.sysroot.join("bin/cargo");
        if own.exists() { own } else { PathBuf::from("cargo") }
    }

    /// The compiler itself, not the rustup proxy.
    pub fn rustc(&self) -> PathBuf {
        self.sysroot.join("bin/rustc")
    }

    /// The sources of the standard library.
    pub fn library(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib/src/rust/library")
    }

    fn need_compiler(&self) -> Result<()> {
        let found = |name: &str| {
            Command::new(name).arg("--version").output().is_ok_and(|run| run.status.success())
        };
        if !found("c++") && !found("g++") && !found("clang++") {
            bail!("no C++ compiler; install one (Debian: apt-get install g++)");
        }
        Ok(())
    }

    fn need_sources(&self, clone: &Path) -> Result<()> {
        if self.library().join("core").exists() {
            return Ok(());
        }
        println!("fetching the sources of Rust's standard library (rust-src, 1 minute)");
        let added = command::output(
            Command::new("rustup").args(["component", "add", "rust-src"]).current_dir(clone),
        );
        added.context(
            "rust-src is missing and could not be added; run `rustup component add rust-src`",
        )?;
        Ok(())
    }
}
