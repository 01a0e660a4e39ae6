//! The residual stream of a model that runs elsewhere: on a [vLLM](https://docs.vllm.ai) server, over
//! as many GPUs as the model needs.
//!
//! The server keeps each prompt's states by vLLM's method `extract_hidden_states` and leaves them, by
//! a short connector of ours, as a file in a directory that both machines see. `capture serve` starts
//! such a server (package `thalweg-capture`). Prompts go as token ids, the ids that come back must be
//! equal, and nothing that a server sends is executed: it is numbers in safetensors files, read only
//! inside that directory and held to the sizes that were asked for.

mod answer;
mod client;
mod rows;
mod steering;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::hook::cache::Cache;
use crate::hook::plan::Plan;
use crate::hook::residual::{Steering, state_of};
use crate::http::one_line;
use crate::record::{Origin, Record};
use crate::text::Tokens;
use answer::{Left, Shape};
use client::{Client, Trouble};

/// A vLLM server that shows the residual stream of its model: the embedding and the stream after
/// each block, for any prompts. Cloning shares the connection.
///
/// ```no_run
/// use std::time::Duration;
/// use thalweg::{Model, Plan, Point, Remote, logit_lens};
/// // On the node: cargo capture serve Llama-3.1-70B --shared /shared --tensor-parallel 8
/// // Here: ssh -N -L 8000:localhost:8000 node-7, for the server listens on its own machine alone.
/// let remote = Remote::connect("http://localhost:8000", "/shared")?.time_out(Duration::from_secs(60));
/// let model = remote.model("Llama-3.1-70B")?; // embedding, final norm, unembedding, tokenizer
/// let tokens = model.tokens("The capital of France is")?;
/// let run = model.run(&tokens, &Plan::new().cache(Point::ResidPost))?; // as with any model
/// let lens = logit_lens(&model, &run.cache, model.token(" Paris")?)?;
/// # thalweg::anyhow::Ok(())
/// ```
#[derive(Clone)]
pub struct Remote {
    client: Client,
    /// Canonical.
    shared: PathBuf,
    /// The server's name of the model.
    name: String,
    shape: Shape,
    /// Tokens of the longest prompt.
    longest: Option<usize>,
    in_flight: usize,
    largest: u64,
}

impl Remote {
    /// Asks the server at `url` which model it runs and what it shows of a token. `shared_dir` is the
    /// directory in which it leaves its files, as this machine sees it.
    pub fn connect(url: &str, shared_dir: impl AsRef<Path>) -> Result<Self> {
        let shared = shared_dir.as_ref();
        let client = Client::new(url, Duration::from_secs(60), 3)?;
        let shared =
            shared.canonicalize().ok().filter(|path| path.is_dir()).with_context(|| {
                format!(
                    "{}: expected the directory in which {} leaves its files",
                    shared.display(),
                    client.url
                )
            })?;
        let stop = AtomicBool::new(false);
        let models = client.patiently(&stop, || client.ask("/v1/models", None))?;
        let first = &models["data"][0];
        let name = first["id"].as_str().with_context(|| {
            format!("{}: /v1/models lists no model: is it a vLLM server?", client.url)
        })?;
        let (name, longest) =
            (name.to_owned(), first["max_model_len"].as_u64().map(|n| n as usize));
        let shape =
            Shape { n_layers: 0, d_model: 0, states: Vec::new(), kind: Kind::Float, steers: false };
        let mut remote =
            Remote { client, shared, name, shape, longest, in_flight: 16, largest: 8 << 30 };
        remote.shape = remote.client.patiently(&stop, || {
            let (left, _) = remote.asked(&[0], 1, None, &stop)?;
            left.shape(&[0]).map_err(|error| remote.client.fault(&format!("{error:#}")))
        })?;
        Ok(remote)
    }

    /// How long one prompt may take, 60 s unless said.
    pub fn time_out(mut self, time: Duration) -> Self {
        self.client.time_out = time;
        self
    }

    /// How often a request is made again where the server cannot be reached, is busy, or does not
    /// answer in time; 3 unless said.
    pub fn retries(mut self, n: u32) -> Self {
        self.client.retries = n;
        self
    }

    /// How many prompts are asked for at once, 16 unless said: vLLM computes them together.
    pub fn in_flight(mut self, n: usize) -> Self {
        self.in_flight = n.max(1);
        self
    }

    /// The most bytes of activations that one call may bring, 8 GiB unless said.
    pub fn largest(mut self, bytes: u64) -> Self {
        self.largest = bytes;
        self
    }

    /// The server's address.
    pub fn url(&self) -> &str {
        &self.client.url
    }

    /// The server's name of its model.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Blocks of its model.
    pub fn n_layers(&self) -> usize {
        self.shape.n_layers
    }

    /// Width of its residual stream.
    pub fn d_model(&self) -> usize {
        self.shape.d_model
    }

    /// Kind in which the server computes the stream.
    pub fn kind(&self) -> Kind {
        self.shape.kind
    }

    /// Whether the server can add vectors to the stream (`capture serve --steering`): then
    /// `Intervention::add(&direction, factor).absolute()` at `ResidPost` works in plans.
    pub fn steers(&self) -> bool {
        self.shape.steers
    }

    /// Which states the server shows, ascending: `k` is the stream after `k` blocks, 0 the embedding.
    pub fn states(&self) -> &[usize] {
        &self.shape.states
    }

    /// The residual stream of these prompts at the sites that the plan records (`Embed`, `ResidPre`,
    /// `ResidPost`), each `[Batch, Pos, DModel]` on the CPU, in the server's kind. A server that
    /// [steers](Self::steers) takes `Intervention::add(..).absolute()` at `ResidPost`. What a server
    /// cannot give (patterns, gradients, other interventions) is an error.
    pub fn run(&self, tokens: &Tokens, plan: &Plan) -> Result<Cache> {
        let n_layers = self.n_layers();
        if let Some(what) = plan.asks_beyond_the_stream(n_layers, self.shape.steers) {
            return Err(self.lacks(&what));
        }
        let sites = plan.recorded_sites(n_layers);
        ensure!(
            !sites.is_empty(),
            "{}: the plan records nothing: .cache(Point::ResidPost)",
            self.url()
        );
        let wanted: Vec<usize> = sites.iter().filter_map(|site| state_of(*site)).collect();
        let added = plan.steering(tokens, n_layers, self.d_model())?;
        let states = self.read(tokens, &wanted, &added)?;
        let parts = sites.into_iter().zip(states.iter().map(Tensor::shallow_clone)).collect();
        let mut cache = Cache::from_parts(tokens, n_layers, parts)?;
        cache.set_origin(Origin::known(self.record(tokens, plan)));
        Ok(cache)
    }

    /// What cannot be had from a server, and where it can.
    pub(crate) fn lacks(&self, what: &str) -> anyhow::Error {
        anyhow!(
            "{}: the plan {what}, and a server shows the residual stream only (hook_embed, hook_resid_pre, hook_resid_post): load the model here, Model::load(dir), or over several devices, Model::load_spread(dir, &devices, kind)",
            self.url()
        )
    }

    /// These states of every prompt, `[Batch, Pos, DModel]` each, zeros at padding, with these vectors
    /// added to the stream; several prompts are asked for at once.
    pub(crate) fn read(
        &self,
        tokens: &Tokens,
        wanted: &[usize],
        added: &[Steering],
    ) -> Result<Vec<Tensor>> {
        self.check(tokens, wanted)?;
        let (batch, width, d) = (tokens.batch(), tokens.width() as i64, self.d_model() as i64);
        let options = (self.kind(), Device::Cpu);
        let all = wanted.iter().map(|_| Tensor::zeros([batch as i64, width, d], options));
        let all: Vec<Tensor> = all.collect();
        let (states, said) = (wanted.to_vec(), extras(added, batch));
        let one = move |remote: &Remote, row: usize, ids: &[i64], stop: &AtomicBool| {
            remote.client.patiently(stop, || {
                let (left, _) = remote.asked(ids, 1, said[row].as_ref(), stop)?;
                left.states(&remote.shape, ids, &states)
                    .map_err(|error| remote.client.fault(&format!("{error:#}")))
            })
        };
        rows::each(self, tokens, one, |row, states| {
            let start = tokens.padding(row) as i64;
            for (whole, state) in all.iter().zip(states) {
                let own = whole.get(row as i64).narrow(0, start, state.size()[0]);
                own.shallow_clone().copy_(&state);
            }
        })?;
        Ok(all)
    }

    /// The `n` most likely next tokens, one after the other, of each prompt, past an end-of-text token
    /// too. What the plan adds to the stream (`ResidPost`, `add(..).absolute()`) acts in prompt and
    /// generated text alike, or at the positions named; it may record nothing.
    ///
    /// ```no_run
    /// # use thalweg::{Intervention, Plan, Point, Remote};
    /// # let remote = Remote::connect("http://localhost:8000", "/shared")?;
    /// let model = remote.model("Llama-3.1-70B")?;
    /// let direction = model.logit_directions(&[model.token(" Paris")?])?.squeeze_dim(0);
    /// let plan = Plan::new().intervene(Point::ResidPost.at(40), Intervention::add(&direction, 8.0).absolute());
    /// let ids = remote.generate(&model.tokens("I think that")?, 20, &plan)?;
    /// # thalweg::anyhow::Ok(())
    /// ```
    pub fn generate(&self, tokens: &Tokens, n: usize, plan: &Plan) -> Result<Vec<Vec<i64>>> {
        ensure!(n > 0, "generate: no tokens asked for, expected one at least");
        ensure!(
            plan.records_nothing(),
            "{}: generate records nothing here: Remote::run does",
            self.url()
        );
        if let Some(what) = plan.asks_beyond_the_stream(self.n_layers(), self.shape.steers) {
            return Err(self.lacks(&what));
        }
        self.check_lengths(tokens, n)?;
        let added = plan.steering(tokens, self.n_layers(), self.d_model())?;
        let said = extras(&added, tokens.batch());
        let one = move |remote: &Remote, row: usize, ids: &[i64], stop: &AtomicBool| {
            remote.client.patiently(stop, || {
                let (left, answer) = remote.asked(ids, n, said[row].as_ref(), stop)?;
                let checked = left.states(&remote.shape, ids, &[]);
                checked.map_err(|error| remote.client.fault(&format!("{error:#}")))?;
                let found = serde_json::from_value(answer["choices"][0]["token_ids"].clone());
                let found: Option<Vec<i64>> = found.ok().filter(|ids: &Vec<i64>| ids.len() == n);
                found.ok_or_else(|| {
                    remote
                        .client
                        .fault(&format!("it answered without the ids of {n} generated tokens"))
                })
            })
        };
        let mut all = vec![Vec::new(); tokens.batch()];
        rows::each(self, tokens, one, |row, ids| all[row] = ids)?;
        Ok(all)
    }

    /// Asks for one prompt and `n` tokens after it; the file that the server left, and its answer.
    fn asked(
        &self,
        ids: &[i64],
        n: usize,
        said: Option<&Value>,
        stop: &AtomicBool,
    ) -> Result<(Left, Value), Trouble> {
        let mut body = json!({
            "model": self.name, "prompt": ids, "max_tokens": n, "temperature": 0.0,
        });
        let more = json!({"return_token_ids": true, "ignore_eos": true});
        let more = Some(&more).filter(|_| n > 1 || said.is_some()).into_iter().chain(said);
        for (key, value) in more.filter_map(Value::as_object).flatten() {
            body[key] = value.clone();
        }
        let answer = self.client.ask("/v1/completions", Some(&body))?;
        let left = &answer["kv_transfer_params"]["hidden_states_path"];
        let name = left.as_str().ok_or_else(|| {
            self.client
                .fault("it answered without hidden states: start the server with `capture serve`")
        })?;
        let wait = |left: &Left| left.wait(self.client.time_out, stop);
        let left = Left::named(&self.shared, name).and_then(|left| wait(&left).map(|()| left));
        let left = left.map_err(|error| self.client.fault(&format!("{error:#}")))?;
        Ok((left, answer))
    }

    fn check(&self, tokens: &Tokens, wanted: &[usize]) -> Result<()> {
        let (url, states) = (self.url(), self.states());
        for state in wanted {
            ensure!(
                states.contains(state),
                "{url}: it does not show the stream after {state} blocks; it shows {states:?} of 0..={}",
                self.n_layers()
            );
        }
        self.check_lengths(tokens, 1)?;
        let cells = (tokens.batch() * tokens.width()) as u64;
        let size = (self.d_model() * self.kind().elt_size_in_bytes()) as u64;
        let bytes = cells * size * wanted.len() as u64;
        let file = *tokens.lens().iter().max().unwrap_or(&0) as u64 * size * states.len() as u64;
        ensure!(
            bytes.max(file) <= self.largest,
            "{url}: {} prompts at {} sites bring {} bytes, at most {} are taken: fewer prompts a call, fewer sites, or .largest(bytes)",
            tokens.batch(),
            wanted.len(),
            bytes.max(file),
            self.largest
        );
        Ok(())
    }

    /// The server computes `n` tokens after each prompt.
    fn check_lengths(&self, tokens: &Tokens, n: usize) -> Result<()> {
        let Some(most) = self.longest.map(|longest| longest.saturating_sub(n)) else {
            return Ok(());
        };
        for (row, len) in tokens.lens().into_iter().enumerate() {
            ensure!(len <= most, "prompt {row} has {len} tokens, {} takes {most}", self.url());
        }
        Ok(())
    }

    fn record(&self, tokens: &Tokens, plan: &Plan) -> Record {
        Record::served(&self.to_string(), self.kind(), (tokens, format!("{plan:?}")))
    }
}

/// `Llama-3.1-70B at http://localhost:8000`
impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", one_line(&self.name), self.url())
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { n_layers, d_model, states, kind, steers } = &self.shape;
        write!(f, "Remote {self}: {n_layers} layers, width {d_model}, {kind:?}")?;
        if states.len() <= *n_layers {
            write!(f, ", shows {states:?}")?;
        }
        f.write_str(if *steers { ", steers" } else { "" })
    }
}

/// What each row's request says beside its prompt.
fn extras(added: &[Steering], rows: usize) -> Vec<Option<Value>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let salt = format!("{} {now}", std::process::id());
    (0..rows).map(|row| steering::of_row(added, row, &salt)).collect()
}
