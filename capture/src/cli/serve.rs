//! `capture serve`: a vLLM server that writes residuals.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;

use thalweg_capture::serve::{self, Server};
use thalweg_setup::places::Places;
use thalweg_setup::vllm;

/// Serves a model through vLLM, the residuals of every prompt written to a shared directory
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The model: config.json, safetensors, tokenizer
    model: PathBuf,
    /// Where residuals go; best in memory, such as /dev/shm/residuals
    #[arg(long, value_name = "DIR")]
    shared: PathBuf,
    /// Devices (on a CPU: processes) that share each weight matrix
    #[arg(long, default_value_t = 1, value_name = "N")]
    tensor_parallel: usize,
    /// Copies of the model, each with requests of its own
    #[arg(long, default_value_t = 1, value_name = "N")]
    data_parallel: usize,
    /// Port on 127.0.0.1
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Python that has vLLM; else $THALWEG_VLLM_PYTHON, else what `cargo vllm` installed
    #[arg(long, value_name = "FILE")]
    python: Option<PathBuf>,
    /// Lets the plugin vllm-lens steer. It also runs Python that a client sends: for trusted clients
    #[arg(long)]
    steering: bool,
    /// Prints the command and does nothing
    #[arg(long)]
    dry_run: bool,
    /// Options for vLLM itself
    #[arg(last = true, value_name = "VLLM OPTIONS")]
    options: Vec<String>,
}

impl Serve {
    pub(crate) fn run(&self) -> Result<()> {
        let places = Places::here()?;
        let python = self.python(&places)?;
        let server = Server {
            model: self.model.clone(),
            shared: self.shared.clone(),
            port: self.port,
            tensor_parallel: self.tensor_parallel,
            data_parallel: self.data_parallel,
            steering: self.steering,
            options: self.options.clone(),
        };
        if self.dry_run {
            let command = server.command(&python, &serve::connector_folder(&places.cache))?;
            println!("{}", serve::line(&command));
            return Ok(());
        }
        let mut command = server.command(&python, &serve::write_connector(&places.cache)?)?;
        needs(
            &python,
            "vllm",
            "cargo vllm installs it for CPUs; on a GPU machine pip install vllm and name its Python with --python",
        )?;
        if self.steering {
            needs(&python, "vllm_lens", "pip install vllm-lens there, or leave out --steering")?;
        }
        std::fs::create_dir_all(&self.shared)
            .with_context(|| format!("cannot create {}", self.shared.display()))?;
        eprintln!(
            "serving {} at http://127.0.0.1:{}, residuals into {} (up in a minute; end it with Ctrl-C)",
            self.model.display(),
            self.port,
            self.shared.display()
        );
        Err(command.exec()).with_context(|| format!("cannot start {}", python.display()))
    }

    fn python(&self, places: &Places) -> Result<PathBuf> {
        if let Some(python) = &self.python {
            return Ok(python.clone());
        }
        match std::env::var_os("THALWEG_VLLM_PYTHON").filter(|value| !value.is_empty()) {
            Some(python) => Ok(python.into()),
            None => vllm::existing(places).context(
                "vLLM is not installed: cargo vllm installs it for CPUs; on a GPU machine pip install vllm and name its Python with --python",
            ),
        }
    }
}

/// An error with `advice` unless `python` has the module.
fn needs(python: &Path, module: &str, advice: &str) -> Result<()> {
    let find =
        "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)";
    let mut command = Command::new(python);
    command.args(["-c", find, module]).stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.stderr(Stdio::null()).status();
    if !status.with_context(|| format!("cannot start {}", python.display()))?.success() {
        bail!("{} has no {module}: {advice}", python.display());
    }
    Ok(())
}
