//! All that must be there before a notebook opens, in order; what is there already costs milliseconds.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::install;
use crate::kernel;
use crate::libtorch::Libtorch;
use crate::notebook::{self, Settings};
use crate::places::Places;
use crate::python::Python;
use crate::store;
use crate::toolchain::Toolchain;

const KEPT_UNUSED: Duration = Duration::from_secs(60 * 24 * 3600);

/// What set-up found or made.
#[derive(Debug)]
pub struct Ready {
    /// Python with Jupyter.
    pub python: Python,
    /// The toolchain in use.
    pub toolchain: Toolchain,
    /// The folder to name in `JUPYTER_PATH`.
    pub jupyter: PathBuf,
    /// What a kernel is told.
    pub settings: Settings,
    /// cargo's target folder of the kernel, for its tests.
    pub kernel_target: PathBuf,
}

/// Sets up what is missing. Says beforehand what that is and how long it takes.
pub fn ready(places: &Places) -> Result<Ready> {
    let started = Instant::now();
    let toolchain = Toolchain::find(&places.clone)?;
    let kernel_recipe = kernel::Recipe::of(places, &toolchain)?;
    let anything = announce(places, &toolchain, &kernel_recipe)?;
    // The kernel needs no libtorch: while it compiles, the downloads run.
    let (binary, downloads) = std::thread::scope(|scope| {
        let downloads = scope.spawn(|| {
            let python = Python::ready(places)?;
            let libtorch = Libtorch::ready(places, &python)?;
            libtorch.tell_cargo(&places.clone)?;
            anyhow::Ok((python, libtorch))
        });
        let binary = kernel::ready(places, &kernel_recipe, &toolchain);
        (binary, downloads.join())
    });
    let (python, libtorch) =
        downloads.map_err(|_| anyhow::anyhow!("the downloads broke off"))??;
    let binary = binary?;
    let recipe = notebook::Recipe::of(&places.clone, &toolchain, &libtorch.key())?;
    let store = notebook::ready(places, &recipe, &toolchain, &libtorch.dir)?;
    let settings = Settings {
        clone: places.clone.clone(),
        store,
        cargo_home: recipe.cargo_home(places),
        libtorch: libtorch.dir,
        sysroot: toolchain.sysroot.clone(),
        host: toolchain.host.clone(),
    };
    notebook::template(&settings)?; // compiles thalweg here, where one sees it, rather than at a kernel's start
    let jupyter = kernel::install(places, &binary, &settings)?;
    tidy_up(places)?;
    if anything {
        println!("set up in {}", crate::command::minutes(started.elapsed()));
    }
    Ok(Ready { python, toolchain, jupyter, settings, kernel_target: kernel_recipe.target })
}

/// Prints what is missing; true if anything is.
fn announce(places: &Places, toolchain: &Toolchain, kernel: &kernel::Recipe) -> Result<bool> {
    let mut missing = Vec::new();
    if !Python::is_there(places) {
        missing.push("Python packages with JupyterLab: 2 min".to_owned());
    }
    let libtorch = Libtorch::find(places)?;
    if libtorch.is_none() {
        missing.push("libtorch, 0.5 GB: 1 to 5 min".to_owned());
    }
    if !kernel.is_built() {
        missing.push(format!(
            "the kernel: {}",
            if kernel.is_warm() { "1 min" } else { "13 to 18 min" }
        ));
    }
    let built = match &libtorch {
        Some(libtorch) => {
            notebook::Recipe::of(&places.clone, toolchain, &libtorch.key())?.dir(places).exists()
        }
        None => false,
    };
    if !built {
        missing.push("notebook dependencies: 7 to 11 min".to_owned());
    }
    if missing.is_empty() {
        return Ok(false);
    }
    println!("set-up, once per user (times on 2 cores), kept in {}:", places.cache.display());
    missing.iter().for_each(|line| println!("  {line}"));
    Ok(true)
}

fn tidy_up(places: &Places) -> Result<()> {
    install::keep_installed(places)?;
    for parent in ["python", "libtorch", "kernel", "vllm"] {
        store::prune(&places.cache.join(parent), KEPT_UNUSED)?;
    }
    notebook::prune(places, KEPT_UNUSED)
}
