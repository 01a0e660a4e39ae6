//! What `run` and `statistics` are both asked.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use thalweg::tch::{Cuda, Device, Kind};
use thalweg::{Model, Remote};
use thalweg_capture::{Capture, Done, Prompts, Stop, Worker, parse_kind, parse_sites};

/// Prompts, model and how the work is cut.
#[derive(Debug, Args)]
pub(crate) struct Ask {
    /// File of prompts: .txt (one a line), .jsonl or .parquet
    prompts: PathBuf,
    /// Directory to make, or to go on with
    out: PathBuf,
    /// Hugging Face directory of the model
    #[arg(long)]
    model: PathBuf,
    /// Sites, by TransformerLens' names: hook_resid_post (every layer), blocks.{4..7}.attn.hook_z, hook_embed, ..
    #[arg(long, value_delimiter = ',', default_value = "hook_resid_post")]
    sites: Vec<String>,
    /// Column of the prompts: text, or lists of token ids
    #[arg(long, default_value = "text")]
    column: String,
    /// Cuts longer prompts to so many tokens [default: the longest the model takes]
    #[arg(long)]
    max_tokens: Option<usize>,
    /// Tokens that are run at once, padding included
    #[arg(long, default_value_t = 4096)]
    batch_tokens: usize,
    /// Prompts that go into one shard [default: about 1 GiB of them, at most 4 million tokens]
    #[arg(long)]
    prompts_per_shard: Option<u64>,
    /// Address of a server that `capture serve` started: the model's blocks run there
    #[arg(long, requires = "shared", value_name = "URL")]
    server: Option<String>,
    /// The directory in which the server leaves its files, as this machine sees it
    #[arg(long, requires = "server", value_name = "DIR")]
    shared: Option<PathBuf>,
    /// This worker's share, such as 0/4; without it each worker takes what nobody has begun
    #[arg(long)]
    worker: Option<Worker>,
    /// cpu, cuda, cuda:1 .. [default: the first GPU, if there is one]
    #[arg(long)]
    device: Option<String>,
    /// Computes in this kind: f32, bf16, f16, f64 [default: as the weights are stored]
    #[arg(long)]
    compute: Option<String>,
}

impl Ask {
    /// The capture and its model; Ctrl-C and SIGTERM ask it to stop, a second Ctrl-C ends it.
    pub(crate) fn prepare(&self) -> Result<(Capture, Model)> {
        let prompts = Prompts::open(&self.prompts, &self.column)?;
        let mut capture = Capture::new(prompts, &self.out)
            .sites(parse_sites(&self.sites.join(","))?)
            .batch_tokens(self.batch_tokens)
            .stop(&stop_on_signals()?);
        if let Some(n) = self.prompts_per_shard {
            capture = capture.prompts_per_shard(n);
        }
        if let Some(worker) = self.worker {
            capture = capture.worker(worker);
        }
        let model = self.load()?;
        // A server appends a token to every prompt: it needs one place.
        let served = self.server.is_some().then(|| model.config().longest_prompt().max(2) - 1);
        if let Some(n) = self.max_tokens.or(served) {
            capture = capture.max_tokens(n);
        }
        Ok((capture, model))
    }

    fn load(&self) -> Result<Model> {
        let device = self.device.as_deref().map(parse_device).transpose()?;
        let device = device.unwrap_or_else(Device::cuda_if_available);
        let kind: Option<Kind> = self.compute.as_deref().map(parse_kind).transpose()?;
        if let (Some(url), Some(shared)) = (&self.server, &self.shared) {
            let remote = Remote::connect(url, shared)?;
            return match kind {
                Some(kind) => remote.model_on(&self.model, device, kind),
                None if self.device.is_some() => {
                    bail!("--device {device:?} of a served model's logits: add --compute")
                }
                None => remote.model(&self.model),
            };
        }
        let stored = thalweg::Config::load(self.model.join("config.json"))?.kind;
        match kind.or(stored) {
            Some(kind) => Model::load_on(&self.model, device, kind),
            None if self.device.is_some() => bail!(
                "{}: its config.json does not say the kind of its weights: add --compute",
                self.model.display()
            ),
            None => Model::load(&self.model),
        }
    }

    /// Says what was done.
    pub(crate) fn report(&self, done: &Done, what: &str) -> Result<()> {
        let Done { made, shards, missing, totals, .. } = done;
        let out = self.out.display();
        if let Some(totals) = totals {
            let mut line = format!(
                "{out}: {shards} {what}, {} prompts, {} tokens",
                totals.prompts, totals.tokens
            );
            if totals.cut > 0 {
                line += &format!("; {} prompts cut", totals.cut);
            }
            if totals.empty > 0 {
                line += &format!("; {} empty rows skipped", totals.empty);
            }
            println!("{line}");
            return Ok(());
        }
        let there = shards - missing;
        ensure!(
            !done.stopped,
            "stopped: {there} of {shards} {what} are there, whole; the same command goes on with the rest"
        );
        println!(
            "{out}: made {made}, {there} of {shards} {what} are there; the rest are other workers'"
        );
        Ok(())
    }
}

fn parse_device(name: &str) -> Result<Device> {
    let number = match name {
        "cpu" => return Ok(Device::Cpu),
        "cuda" => 0,
        other => {
            let number = other.strip_prefix("cuda:").and_then(|n| n.parse::<usize>().ok());
            number.with_context(|| format!("device {name:?}: expected cpu, cuda or cuda:1"))?
        }
    };
    let n = Cuda::device_count();
    if number as i64 >= n {
        bail!("device {name:?}: there are {n} GPUs here");
    }
    Ok(Device::Cuda(number))
}

fn stop_on_signals() -> Result<Stop> {
    let stop = Stop::default();
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // Registered first: it ends the process if the wish was there already.
        signal_hook::flag::register_conditional_shutdown(signal, 130, stop.flag())?;
        signal_hook::flag::register(signal, stop.flag())?;
    }
    Ok(stop)
}
