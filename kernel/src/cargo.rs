//! A stand-in for cargo, so that a small cell costs one run of rustc and no more.
//!
//! evcxr compiles a cell with `cargo build`, of which a third is cargo finding out that nothing but the cell changed,
//! and a third is the linker bringing the libraries into the cell. Before the real tools in the kernel's PATH stands
//! a folder where this program lies under other names:
//!
//! - `rustup` tells evcxr where cargo is: there;
//! - `cargo` repeats the rustc command of the last build where only the cell's source changed ([`replay`]); on any
//!   doubt it is the real cargo, which is watched ([`record`]) by
//! - `watched-rustc`, which cargo calls in place of rustc;
//! - `cell-linker` makes one shared library of all that cells link, and links cells to that ([`linker`]).
//!
//! The cells that every kernel starts with are compiled by the first kernel of a clone alone ([`starts`]).
//!
//! To rust-analyzer `cargo metadata` names only the crates that matter to cells ([`analysis`]); every other call of
//! cargo reaches cargo itself.

mod analysis;
mod linker;
mod record;
mod replay;
mod starts;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use thalweg_setup::notebook::{self, Settings};

/// What cargo exits with when a build failed.
const FAILED: i32 = 101;

/// The names that this program stands in for others under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// rustup, for `rustup which`.
    Rustup,
    /// cargo, for builds of cells.
    Cargo,
    /// The compiler, called by cargo.
    Rustc,
    /// The linker, called by the compiler.
    Linker,
}

const ROLES: [(&str, Role); 4] = [
    ("rustup", Role::Rustup),
    ("cargo", Role::Cargo),
    ("watched-rustc", Role::Rustc),
    ("cell-linker", Role::Linker),
];

/// The role that this process was called in, by its name.
pub(crate) fn role() -> Option<Role> {
    let called = PathBuf::from(env::args_os().next()?);
    let name = called.file_name()?;
    ROLES.iter().find(|(role, _)| name == *role).map(|(_, role)| *role)
}

/// Plays the role and ends the process.
pub(crate) fn run(role: Role) -> ! {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let ran = Tools::here().and_then(|tools| match role {
        Role::Rustup => rustup(&tools, &arguments),
        Role::Cargo => cargo(&tools, &arguments),
        Role::Rustc => record::watch(&tools, &arguments),
        Role::Linker => linker::link(&tools, &arguments),
    });
    std::process::exit(ran.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        FAILED
    }))
}

/// Puts this program under its other names into the kernel's private folder.
pub(crate) fn install(private: &Path) -> Result<()> {
    let own = env::current_exe().context("this program has no path")?;
    let tools = Tools { private: private.to_path_buf(), sysroot: PathBuf::new() };
    for dir in [tools.bin(), tools.kept()] {
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    for (name, _) in ROLES {
        symlink(&own, tools.bin().join(name)).with_context(|| format!("cannot link {name}"))?;
    }
    let starting = starts::marker(private);
    fs::write(&starting, "").with_context(|| format!("cannot write {}", starting.display()))
}

/// The kernel has started: what is compiled from now on is the reader's.
pub(crate) fn started(private: &Path) {
    let _ = fs::remove_file(starts::marker(private));
}

/// The variables by which evcxr, rust-analyzer and the stand-ins themselves find the tools.
pub(crate) fn environment(settings: &Settings, private: &Path) -> Vec<(&'static str, OsString)> {
    let tools = Tools { private: private.to_path_buf(), sysroot: settings.sysroot.clone() };
    let old = notebook::path_for(&settings.sysroot);
    let path = env::join_paths(std::iter::once(tools.bin()).chain(env::split_paths(&old)));
    vec![
        ("PATH", path.unwrap_or(old)),
        ("THALWEG_BUILDS", tools.private.into()),
        ("THALWEG_SYSROOT", tools.sysroot.into()),
        ("THALWEG_STARTS", notebook::starts_dir(settings).into()),
    ]
}

/// Where the stand-ins find each other and the real tools.
struct Tools {
    private: PathBuf,
    sysroot: PathBuf,
}

impl Tools {
    fn here() -> Result<Tools> {
        let folder = |name: &str| {
            let value = env::var_os(name)
                .with_context(|| format!("{name} is not set; only thalweg's kernel starts this"));
            value.map(PathBuf::from)
        };
        Ok(Tools { private: folder("THALWEG_BUILDS")?, sysroot: folder("THALWEG_SYSROOT")? })
    }

    /// Where this program lies under its other names.
    fn bin(&self) -> PathBuf {
        self.private.join("bin")
    }

    /// What is kept from build to build.
    fn kept(&self) -> PathBuf {
        self.private.join("kept")
    }

    /// Where evcxr writes and builds the cells' crate.
    fn work(&self) -> PathBuf {
        self.private.join("work")
    }

    fn cargo(&self) -> PathBuf {
        self.sysroot.join("bin/cargo")
    }
}

fn cargo(tools: &Tools, arguments: &[OsString]) -> Result<i32> {
    if analysis::asks(tools, arguments) {
        return analysis::answer(tools, arguments);
    }
    if !is_cell_build(tools, arguments) {
        return become_program(Command::new(tools.cargo()).args(arguments));
    }
    if replay::interrupted() {
        return Ok(replay::say_interrupted());
    }
    let starting = starts::starting(tools);
    if starting && let Some(status) = starts::answer(tools, arguments)? {
        return Ok(status);
    }
    let replayed = match record::standing(tools, arguments) {
        Some(record) => replay::run(tools, &record)?,
        None => None,
    };
    let status = match replayed {
        Some(status) => status,
        None => record::build(tools, arguments)?,
    };
    if starting && status == 0 {
        starts::keep(tools, arguments);
    }
    Ok(status)
}

/// Whether this is evcxr's call for a cell, with no wrapper of the reader's own around rustc.
fn is_cell_build(tools: &Tools, arguments: &[OsString]) -> bool {
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    let words = words.strip_prefix(&["--offline"]).unwrap_or(&words);
    let builds = matches!(words, ["build", "--target", _, "--message-format=json"]);
    let wrapped = ["RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_RUSTC_WRAPPER"]
        .iter()
        .any(|name| env::var_os(name).is_some_and(|value| !value.is_empty()));
    builds && !wrapped && env::current_dir().is_ok_and(|dir| same(&dir, &tools.work()))
}

fn same(one: &Path, other: &Path) -> bool {
    one == other || matches!((one.canonicalize(), other.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn rustup(tools: &Tools, arguments: &[OsString]) -> Result<i32> {
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    let tool = match words.as_slice() {
        ["which", "cargo"] => tools.bin().join("cargo"),
        ["which", "rustc"] => tools.sysroot.join("bin/rustc"),
        _ => return real_rustup(tools, arguments),
    };
    #[allow(clippy::print_stdout)]
    {
        println!("{}", tool.display());
    }
    Ok(0)
}

fn real_rustup(tools: &Tools, arguments: &[OsString]) -> Result<i32> {
    let path = env::var_os("PATH").unwrap_or_default();
    let others: Vec<PathBuf> =
        env::split_paths(&path).filter(|folder| *folder != tools.bin()).collect();
    let Some(real) = others.iter().map(|folder| folder.join("rustup")).find(|file| file.exists())
    else {
        bail!("rustup is not installed");
    };
    become_program(Command::new(real).args(arguments).env("PATH", env::join_paths(others)?))
}

/// Goes on as another program; returns only if that cannot be started.
fn become_program(command: &mut Command) -> Result<i32> {
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", command.get_program().display()))
}
