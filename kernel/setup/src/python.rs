//! Python with Jupyter: a virtual environment of pinned packages in the user's cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;
use crate::places::Places;
use crate::store::{self, Key};

/// A virtual environment with JupyterLab, nbclient, nbconvert and plotly. It was renamed after it was made, so the
/// scripts in its `bin` name a folder that is gone: programs are called as `python -m`.
#[derive(Debug, Clone)]
pub struct Python {
    /// The environment's folder.
    pub dir: PathBuf,
}

impl Python {
    /// The environment for this clone's requirement lists, made if it is missing.
    pub fn ready(places: &Places) -> Result<Python> {
        let (dir, version) = environment(places)?;
        let log = places.logs().join("python.log");
        let list = places.python_files();
        store::entry(&dir, |partial| {
            println!("making a Python environment with JupyterLab (2 minutes)");
            command::logged("python", &log, Command::new("python3").args(["-m", "venv"]).arg(partial)).context(
                "python3 cannot make a virtual environment; install venv (Debian: apt-get install python3-venv)",
            )?;
            let mut pip = Python { dir: partial.to_path_buf() }.command();
            pip.args([
                "-m",
                "pip",
                "install",
                "--only-binary=:all:",
                "--no-input",
                "--disable-pip-version-check",
                "-r",
            ]);
            pip.arg(list.join("requirements.txt"));
            if version >= (3, 11) {
                pip.arg("-c").arg(list.join("constraints.txt")); // frozen there; older Pythons need older packages
            }
            command::logged("python packages", &log, &mut pip)
        })?;
        Ok(Python { dir })
    }

    /// Whether [`Python::ready`] has nothing to do.
    pub fn is_there(places: &Places) -> bool {
        Python::existing(places).is_some()
    }

    /// The environment, if it has been made.
    pub fn existing(places: &Places) -> Option<Python> {
        let (dir, _) = environment(places).ok()?;
        dir.exists().then_some(Python { dir })
    }

    /// The interpreter, isolated from what the caller's environment says of Python.
    pub fn command(&self) -> Command {
        let mut command = Command::new(self.dir.join("bin/python"));
        command.env_remove("PYTHONPATH").env_remove("PYTHONHOME").env("PYTHONNOUSERSITE", "1");
        command
    }
}

/// The entry of the environment, keyed by the lists, the interpreter and its version.
fn environment(places: &Places) -> Result<(PathBuf, (u32, u32))> {
    let (asked, version) = asked()?;
    let read = |name: &str| read_list(&places.python_files().join(name));
    let key =
        Key::new().with(&asked).with(read("requirements.txt")?).with(read("constraints.txt")?);
    Ok((places.cache.join("python").join(key.name()), version))
}

/// What the user's python3 says of itself (version and path, a key for what is made with it), and its version.
pub(crate) fn asked() -> Result<(String, (u32, u32))> {
    let asked = command::output(
        Command::new("python3").args(["-c", "import sys; print(*sys.version_info[:2], sys.executable, sep='\\n')"]),
    )
    .context("Python 3 is missing; install python3 with venv (Debian: apt-get install python3 python3-venv)")?;
    let mut lines = asked.lines();
    let mut number = || {
        lines.next().and_then(|line| line.parse().ok()).context("python3 did not tell its version")
    };
    let version = (number()?, number()?);
    Ok((asked, version))
}

fn read_list(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
