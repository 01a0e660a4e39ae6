//! The command line of a vLLM server that writes residuals where `thalweg::Remote` reads them.
//!
//! vLLM's speculative method `extract_hidden_states` keeps the residual stream of every prompt token in its paged
//! cache; a short connector of ours, written out beside the server, turns the pages of a finished request into a file.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The connector's source, which vLLM imports.
const CONNECTOR: &str = include_str!("../vllm/thalweg_connector.py");
/// GiB of residuals, keys and values that a CPU server holds, unless VLLM_CPU_KVCACHE_SPACE says otherwise.
const CPU_CACHE: &str = "4";

/// What to serve, and how.
#[derive(Debug, Clone)]
pub struct Server {
    /// A Hugging Face model directory.
    pub model: PathBuf,
    /// Where the server leaves residuals and the client takes them: best in memory, such as /dev/shm/residuals.
    pub shared: PathBuf,
    /// Port on this machine's loopback address.
    pub port: u16,
    /// Pieces that each weight matrix is cut into, one a device.
    pub tensor_parallel: usize,
    /// Copies of the model, each with requests of its own.
    pub data_parallel: usize,
    /// Whether the plugin vllm-lens may steer. It also runs Python that a client sends: for trusted clients only.
    pub steering: bool,
    /// Options for vLLM, which come last and so win.
    pub options: Vec<String>,
}

impl Server {
    /// The server's command. `python` has vLLM; the connector lies in the folder `connector`.
    pub fn command(&self, python: &Path, connector: &Path) -> Result<Command> {
        ensure!(self.tensor_parallel > 0, "tensor parallel 0: expected 1 or more");
        ensure!(self.data_parallel > 0, "data parallel 0: expected 1 or more");
        let config = Facts::read(&self.model)?;
        let shared = std::path::absolute(&self.shared)?;
        let states: Vec<usize> = (0..=config.n_layers).collect();
        let method = json!({
            "method": "extract_hidden_states", "num_speculative_tokens": 1,
            "draft_model_config": {"hf_config": {"eagle_aux_hidden_state_layer_ids": states}},
        });
        let transfer = json!({
            "kv_connector": "ThalwegConnector", "kv_connector_module_path": "thalweg_connector",
            "kv_role": "kv_producer", "kv_connector_extra_config": {"shared": text(&shared)?},
        });
        let mut command = Command::new(python);
        command.args(["-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1"]);
        command.args(["--port", &self.port.to_string(), "--model"]).arg(&self.model);
        command.args(["--served-model-name", &name(&self.model), "--dtype", config.dtype]);
        command.args(["--tensor-parallel-size", &self.tensor_parallel.to_string()]);
        if self.data_parallel > 1 {
            command.args(["--data-parallel-size", &self.data_parallel.to_string()]);
        }
        command.args(["--enforce-eager", "--disable-uvicorn-access-log"]);
        command.args(["--speculative-config", &method.to_string()]);
        command.args(["--kv-transfer-config", &transfer.to_string()]);
        if self.steering {
            command.arg("--no-enable-prefix-caching"); // pages of a steered prompt are not the plain one's
        }
        command.args(&self.options);
        self.environment(&mut command, connector);
        Ok(command)
    }

    fn environment(&self, command: &mut Command, connector: &Path) {
        let mut path = OsString::from(connector);
        if let Some(own) = std::env::var_os("PYTHONPATH").filter(|own| !own.is_empty()) {
            path.push(":");
            path.push(own);
        }
        command.env("PYTHONPATH", path);
        for (name, value) in [("HF_HUB_OFFLINE", "1"), ("VLLM_NO_USAGE_STATS", "1")] {
            command.env(name, value);
        }
        if !self.steering {
            command.env("VLLM_LENS_DISABLE", "1");
        }
        if let Some(own) = std::env::var_os("LD_LIBRARY_PATH") {
            // The libtorch that this program runs on is not the one of that Python.
            let others =
                std::env::split_paths(&own).filter(|dir| !dir.join("libtorch.so").exists());
            if let Ok(others) = std::env::join_paths(others) {
                command.env("LD_LIBRARY_PATH", others);
            }
        }
        let ranks = self.tensor_parallel * self.data_parallel;
        let defaults = [
            ("VLLM_CPU_KVCACHE_SPACE", Some(CPU_CACHE.to_owned())),
            ("VLLM_CPU_OMP_THREADS_BIND", binding(&allowed(), ranks)),
        ];
        for (name, value) in defaults {
            if let (None, Some(value)) = (std::env::var_os(name), value) {
                command.env(name, value);
            }
        }
    }
}

/// The folder below `cache` that this version of the connector lies in.
pub fn connector_folder(cache: &Path) -> PathBuf {
    let digest = Sha256::digest(CONNECTOR);
    let key = digest.iter().take(8).fold(String::new(), |mut key, byte| {
        let _ = write!(key, "{byte:02x}");
        key
    });
    cache.join("connector").join(key)
}

/// Writes the connector into its folder and returns the folder.
pub fn write_connector(cache: &Path) -> Result<PathBuf> {
    let folder = connector_folder(cache);
    let path = folder.join("thalweg_connector.py");
    if std::fs::read_to_string(&path).is_ok_and(|own| own == CONNECTOR) {
        return Ok(folder);
    }
    let written = || -> std::io::Result<()> {
        std::fs::create_dir_all(&folder)?;
        let partial = folder.join(format!("partial-{}", std::process::id()));
        std::fs::write(&partial, CONNECTOR)?;
        std::fs::rename(&partial, &path)
    };
    written().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(folder)
}

/// The command as a line for a shell, with the variables that it sets.
pub fn line(command: &Command) -> String {
    let set = command.get_envs().filter_map(|(name, value)| {
        Some(format!("{}={}", name.to_string_lossy(), quoted(&value?.to_string_lossy())))
    });
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words = words.map(|word| quoted(&word.to_string_lossy()));
    set.chain(words).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// What the server must be told of a model.
struct Facts {
    n_layers: usize,
    dtype: &'static str,
}

impl Facts {
    fn read(dir: &Path) -> Result<Facts> {
        let path = dir.join("config.json");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}: a model directory has it", path.display()))?;
        let config: Value =
            serde_json::from_str(&text).with_context(|| format!("{}: not JSON", path.display()))?;
        let layers = config.get("num_hidden_layers").and_then(Value::as_u64);
        let layers = layers.with_context(|| format!("{}: no num_hidden_layers", path.display()))?;
        let stored = config.get("dtype").or_else(|| config.get("torch_dtype"));
        let dtype = match stored.and_then(Value::as_str) {
            Some("float32" | "float64") => "float32", // left to itself vLLM takes a 16-bit kind
            Some("float16") => "float16",
            Some("bfloat16") => "bfloat16",
            _ => "auto",
        };
        Ok(Facts { n_layers: layers as usize, dtype })
    }
}

fn name(model: &Path) -> String {
    let whole = std::path::absolute(model).unwrap_or_else(|_| model.to_owned());
    whole.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{}: not Unicode", path.display()))
}

/// The CPUs of each rank, as vLLM reads them: `0,1|2,3`. None where there are fewer CPUs than ranks.
fn binding(cpus: &[usize], ranks: usize) -> Option<String> {
    let each = cpus.len() / ranks;
    if each == 0 {
        return None;
    }
    let list = |part: &[usize]| part.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    Some(cpus.chunks_exact(each).take(ranks).map(list).collect::<Vec<_>>().join("|"))
}

/// The CPUs that this process may use.
fn allowed() -> Vec<usize> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    match list.and_then(parsed) {
        Some(cpus) => cpus,
        None => (0..std::thread::available_parallelism().map_or(1, usize::from)).collect(),
    }
}

/// `0-2,5` -> 0, 1, 2, 5.
fn parsed(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rank_gets_cpus_of_its_own() {
        assert_eq!(parsed(" 0-2,5\n"), Some(vec![0, 1, 2, 5]));
        assert_eq!(binding(&[0, 1, 2, 5, 6], 2).as_deref(), Some("0,1|2,5"));
        assert_eq!(binding(&[3], 1).as_deref(), Some("3"));
        assert_eq!(binding(&[3], 2), None);
    }

    #[test]
    fn a_shell_takes_the_line_apart_into_the_same_words() {
        assert_eq!(quoted("a-b/c=1"), "a-b/c=1");
        assert_eq!(quoted(r#"{"it's": 1}"#), r#"'{"it'\''s": 1}'"#);
        assert_eq!(quoted(""), "''");
    }
}
