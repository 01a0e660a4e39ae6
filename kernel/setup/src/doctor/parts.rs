//! What set-up makes, and what it is made with.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Line;
use crate::browser;
use crate::command;
use crate::install::{Options, Spec};
use crate::kernel::{self, NAME};
use crate::libtorch::{self, Libtorch};
use crate::places::Places;
use crate::python::Python;

/// The first line that a program answers.
fn answer(program: &str, arguments: &[&str]) -> Option<String> {
    let text = command::output(Command::new(program).args(arguments)).ok()?;
    text.lines().next().map(str::to_owned)
}

/// The oldest Rust that will do.
const NEEDED: &str = env!("CARGO_PKG_RUST_VERSION");

/// Whether `rustc 1.90.0 (..)` is older than [`NEEDED`].
fn is_old(version: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        text.split(['.', '-']).take(2).filter_map(|number| number.parse().ok()).collect()
    };
    numbers(version.split(' ').nth(1).unwrap_or_default()) < numbers(NEEDED)
}

/// Toolchain, its sources, compiler and linker.
pub(super) fn rust(places: &Places) -> Vec<Line> {
    let rustc = |arguments: &[&str]| {
        command::output(Command::new("rustc").args(arguments).current_dir(&places.clone)).ok()
    };
    let (version, sysroot) = (rustc(&["--version"]), rustc(&["--print", "sysroot"]));
    let mut lines = Vec::new();
    match version.zip(sysroot.map(PathBuf::from)) {
        Some((version, sysroot)) => {
            lines.push(match is_old(&version) {
                true => Line::missing(
                    "toolchain",
                    format!("{version} is older than {NEEDED}; run `rustup update`"),
                ),
                false => Line::ok("toolchain", format!("{version}, {}", sysroot.display())),
            });
            let sources = sysroot.join("lib/rustlib/src/rust/library");
            lines.push(match sources.join("core").exists() {
                true => Line::ok("rust-src", sources.display().to_string()),
                false => Line::missing("rust-src", "run `rustup component add rust-src`"),
            });
        }
        None => {
            lines.push(Line::missing("toolchain", "install Rust with rustup (https://rustup.rs)"))
        }
    }
    let compiler = ["c++", "g++", "clang++"]
        .iter()
        .find_map(|name| Some((name, answer(name, &["--version"])?)));
    lines.push(match compiler {
        Some((name, version)) => Line::ok("C++ compiler", format!("{name}: {version}")),
        None => Line::missing("C++ compiler", "install one (Debian: apt-get install g++)"),
    });
    lines.push(match answer("cc", &["--version"]) {
        Some(version) => Line::ok("linker", format!("cc: {version}")),
        None => Line::missing(
            "linker",
            "rustc links with cc; install one (Debian: apt-get install gcc)",
        ),
    });
    lines
}

/// libtorch and what it can compute on.
pub(super) fn libtorch(places: &Places) -> Vec<Line> {
    let gpus = gpus();
    let visible = if gpus.is_empty() { "none visible".to_owned() } else { gpus.join(", ") };
    let gpu = Line::note("GPU", visible.clone());
    let found = match Libtorch::find(places) {
        Ok(Some(found)) => found,
        Ok(None) => {
            let how =
                format!("`cargo lab` fetches {} (0.5 GB); or set LIBTORCH", libtorch::VERSION);
            return vec![Line::missing("libtorch", how), gpu];
        }
        Err(error) => return vec![Line::missing("libtorch", format!("{error:#}")), gpu],
    };
    let cuda = found.dir.join("lib/libtorch_cuda.so").exists();
    let kind = if cuda { "with CUDA libraries" } else { "CPU libraries only" };
    let text = format!("{}, {kind}, {}", found.version(), found.dir.display());
    let gpu = match (gpus.is_empty(), cuda) {
        (false, true) => Line::ok("GPU", visible),
        (false, false) => Line::note(
            "GPU",
            format!("{visible}, not used: point LIBTORCH at a libtorch with CUDA"),
        ),
        (true, _) => gpu,
    };
    vec![Line::ok("libtorch", text), gpu]
}

/// The devices that the driver shows.
fn gpus() -> Vec<String> {
    let named = command::output(Command::new("nvidia-smi").arg("-L")).unwrap_or_default();
    let named: Vec<String> =
        named.lines().map(|line| line.split(" (UUID").next().unwrap_or(line).to_owned()).collect();
    if !named.is_empty() {
        return named;
    }
    let device = |number: usize| format!("/dev/nvidia{number}");
    (0..16).map(device).filter(|path| Path::new(path).exists()).collect()
}

/// Python, Jupyter and what draws figures in JupyterLab.
pub(super) fn python(places: &Places) -> Vec<Line> {
    let install = "(Debian: apt-get install python3 python3-venv)";
    let existing = Python::existing(places);
    let venv = || answer("python3", &["-c", "import venv, ensurepip; print(1)"]).is_some();
    let mut lines = vec![match answer("python3", &["--version"]) {
        Some(version) if existing.is_some() || venv() => Line::ok("Python", version),
        Some(version) => {
            Line::missing("Python", format!("{version} without venv; install it {install}"))
        }
        None => Line::missing("Python", format!("install python3 with venv {install}")),
    }];
    let Some(python) = existing else {
        lines.push(Line::missing("Jupyter", "`cargo lab` makes an environment with it"));
        return lines;
    };
    let program = "import importlib.metadata as m
for name in ['jupyterlab', 'jupyter_client', 'nbclient', 'plotly']: print(name, m.version(name))";
    lines.push(match command::output(python.command().args(["-c", program])) {
        Ok(versions) => {
            let versions: Vec<&str> = versions.lines().collect();
            Line::ok("Jupyter", format!("{}, {}", versions.join(", "), python.dir.display()))
        }
        Err(error) => Line::missing(
            "Jupyter",
            format!("{error:#}; remove {} and run `cargo lab`", python.dir.display()),
        ),
    });
    let extension = python.dir.join("share/jupyter/labextensions/jupyterlab-plotly");
    lines.push(match extension.exists() {
        true => Line::ok("plotly", extension.display().to_string()),
        false => Line::note(
            "plotly",
            "its JupyterLab extension is not there; figures are drawn from their HTML",
        ),
    });
    lines
}

pub(super) fn chromium() -> Line {
    match browser::chromium() {
        Some(path) => Line::ok("Chromium", path.display().to_string()),
        None => Line::note(
            "Chromium",
            "none; `cargo verify` looks at figures with it (Debian: apt-get install chromium)",
        ),
    }
}

/// The kernel that set-up made, and the kernelspec for every Jupyter.
pub(super) fn kernel(places: &Places) -> Vec<Line> {
    let prepared = kernel::prepared(places).join("kernels").join(NAME);
    let own = match Spec::read(&prepared) {
        Ok(Some(spec)) if spec.whole().is_some() => {
            Line::ok("kernel", spec.binary.display().to_string())
        }
        Ok(Some(_)) => Line::missing("kernel", "a part of it was removed; run `cargo lab`"),
        Ok(None) => Line::missing("kernel", "`cargo lab` builds it"),
        Err(error) => Line::missing("kernel", format!("{error:#}")),
    };
    let dir = match Options::default().dir() {
        Ok(dir) => dir,
        Err(error) => return vec![own, Line::note("kernelspec", format!("{error:#}"))],
    };
    let shown = dir.display();
    let installed = match Spec::read(&dir) {
        Ok(Some(spec)) => match spec.whole() {
            Some(settings) => {
                Line::ok("kernelspec", format!("{shown}, for {}", settings.clone.display()))
            }
            None => Line::missing(
                "kernelspec",
                format!("{shown} names what is gone; `cargo kernel install` renews it"),
            ),
        },
        Ok(None) => Line::note(
            "kernelspec",
            "only in `cargo lab`; `cargo kernel install` adds it to every Jupyter",
        ),
        Err(error) => Line::note("kernelspec", format!("{error:#}")),
    };
    vec![own, installed]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_rust_is_told_from_a_new_one() {
        for old in ["rustc 1.9.0 (x)", "rustc 1.94.1", "rustc 0.95.0"] {
            assert!(is_old(old), "{old}");
        }
        for new in [&format!("rustc {NEEDED}.0 (x)"), "rustc 1.101.0-nightly (x)", "rustc 2.0.0"] {
            assert!(!is_old(new), "{new}");
        }
    }
}
