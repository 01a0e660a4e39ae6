//! Tokens per second of a plain forward and of a capture of every layer, here and through vLLM.
//!
//! `cargo bench --package thalweg-capture --bench served [ROUNDS]` makes a Llama of drawn weights, serves it twice (once
//! plain, once with states) and runs the same prompts through all routes, in turn, on the same cores.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use thalweg::tch::{self, Device, Kind, Tensor};
use thalweg::{Config, Model, Plan, Point, Remote, Site, Tokens};
use thalweg_capture::serve::{Server, write_connector};
use thalweg_setup::places::Places;
use thalweg_setup::vllm;

const PROMPTS: usize = 32;
const LENGTH: usize = 256;
const TOKENS: f64 = (PROMPTS * LENGTH) as f64;
const IN_FLIGHT: usize = 16;
const VOCABULARY: usize = 366; // tiny-world's, for its tokenizer

fn main() -> Result<()> {
    let rounds = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(3);
    let places = Places::here()?;
    let told = std::env::var_os("THALWEG_VLLM_PYTHON").map(PathBuf::from);
    let python = told.or_else(|| vllm::existing(&places)).context("no vLLM: cargo vllm")?;
    let folder = std::env::temp_dir().join(format!("thalweg-bench-{}", std::process::id()));
    let (dir, shared) = (folder.join("model"), folder.join("shared"));
    fs::create_dir_all(&shared)?;
    tch::manual_seed(0);
    drawn()?.save(&dir)?;
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let from = places.clone.join("data/models/tiny-world").join(name); // vLLM does not start without
        fs::copy(&from, dir.join(name)).with_context(|| format!("no {}", from.display()))?;
    }
    let model = Model::load_on(&dir, Device::Cpu, Kind::Float)?;
    let connector = write_connector(&places.cache)?;
    let plain = Running::start(&folder, &dir, &python, &connector, false)?;
    let states = Running::start(&folder, &dir, &python, &connector, true)?;
    let remote = Remote::connect(&format!("http://127.0.0.1:{}", states.port), &shared)?;
    let remote = remote.in_flight(IN_FLIGHT);

    let all = Plan::new().cache(Site::Embed).cache(Point::ResidPost);
    let names =
        ["vLLM, plain", "vLLM, every layer to the client", "here, plain", "here, every layer"];
    let mut rates = vec![Vec::new(); names.len()];
    for round in 0..=rounds {
        let prompts = prompts(round)?;
        let work: [&dyn Fn() -> Result<()>; 4] = [
            &|| plain.prefill(&prompts),
            &|| remote.run(&prompts, &all).map(drop),
            &|| here(&model, &prompts, &Plan::new().logits_at(-1)),
            &|| here(&model, &prompts, &all.clone().logits_at(-1)),
        ];
        for turn in 0..names.len() {
            let which = (turn + round) % names.len();
            let began = Instant::now();
            work[which]()?;
            let rate = TOKENS / began.elapsed().as_secs_f64();
            if round > 0 {
                rates[which].push(rate); // the first round warms up
            }
        }
    }
    report(&model, &names, rates);
    drop((plain, states));
    fs::remove_dir_all(&folder)?;
    Ok(())
}

fn report(model: &Model, names: &[&str], mut rates: Vec<Vec<f64>>) {
    let config = model.config();
    println!("| route | tokens/s (slowest to fastest) | of the plain one |\n|---|---|---|");
    let mut plain = f64::NAN;
    for (name, rates) in names.iter().zip(&mut rates) {
        rates.sort_by(f64::total_cmp);
        let median = rates[rates.len() / 2];
        if name.ends_with("plain") {
            plain = median;
        }
        let (low, high) = (rates[0], rates[rates.len() - 1]);
        println!("| {name} | {median:.0} ({low:.0} to {high:.0}) | {:.2} |", median / plain);
    }
    let bytes = (config.n_layers + 1) * config.d_model * 4;
    println!(
        "{} layers of width {}, f32, {:.0} M weights; {PROMPTS} prompts of {LENGTH} tokens, {IN_FLIGHT} at once; {bytes} bytes a token",
        config.n_layers,
        config.d_model,
        config.n_params() as f64 / 1e6
    );
}

fn here(model: &Model, prompts: &Tokens, plan: &Plan) -> Result<()> {
    for start in (0..PROMPTS).step_by(IN_FLIGHT) {
        let rows: Vec<usize> = (start..start + IN_FLIGHT).collect();
        model.run(&prompts.rows(&rows)?, plan)?;
    }
    Ok(())
}

/// Other prompts in every round, so that no cache of prefixes answers.
fn prompts(round: usize) -> Result<Tokens> {
    let id =
        |row: usize, at: usize| ((round * 104_729 + row * 7919 + at * at * 31) % VOCABULARY) as i64;
    let row = |row| (0..LENGTH).map(|at| id(row, at)).collect();
    Tokens::from_ids(&(0..PROMPTS).map(row).collect::<Vec<Vec<i64>>>())
}

/// A Llama whose weights keep the stream's size.
fn drawn() -> Result<Model> {
    let config = Config::from_json(&json!({
        "model_type": "llama", "hidden_act": "silu", "hidden_size": 1024, "intermediate_size": 2816,
        "num_hidden_layers": 8, "num_attention_heads": 16, "num_key_value_heads": 8,
        "head_dim": 64, "vocab_size": VOCABULARY, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": true, "rope_theta": 10000.0, "dtype": "float32",
    }))?;
    let (d, kv, f) = (1024i64, 512i64, 2816i64);
    let normal = |out: i64, into: i64| {
        Tensor::randn([out, into], (Kind::Float, Device::Cpu)) / (into as f64).sqrt()
    };
    let ones = || Tensor::ones([d], (Kind::Float, Device::Cpu));
    let mut tensors = std::collections::HashMap::from([
        ("model.embed_tokens.weight".to_owned(), normal(VOCABULARY as i64, d)),
        ("model.norm.weight".to_owned(), ones()),
    ]);
    for layer in 0..config.n_layers {
        let mut add = |name: &str, weight: Tensor| {
            tensors.insert(format!("model.layers.{layer}.{name}.weight"), weight);
        };
        add("input_layernorm", ones());
        add("post_attention_layernorm", ones());
        for (name, out, into) in [
            ("self_attn.q_proj", d, d),
            ("self_attn.k_proj", kv, d),
            ("self_attn.v_proj", kv, d),
            ("self_attn.o_proj", d, d),
            ("mlp.gate_proj", f, d),
            ("mlp.up_proj", f, d),
            ("mlp.down_proj", d, f),
        ] {
            add(name, normal(out, into));
        }
    }
    Model::from_parts(config, tensors, None)
}

/// A server that ends with this value.
struct Running {
    server: Child,
    port: u16,
}

impl Running {
    fn start(
        folder: &Path,
        model: &Path,
        python: &Path,
        connector: &Path,
        states: bool,
    ) -> Result<Running> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let server = Server {
            model: model.to_owned(),
            shared: folder.join("shared"),
            port,
            tensor_parallel: 1,
            data_parallel: 1,
            steering: false,
            options: Vec::new(),
        };
        let whole = server.command(python, connector)?;
        let mut command = Command::new(python);
        let mut words = whole.get_args();
        while let Some(word) = words.next() {
            let of_states = word == "--speculative-config" || word == "--kv-transfer-config";
            if of_states && !states {
                words.next();
            } else {
                command.arg(word);
            }
        }
        for (name, value) in whole.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        let log = folder.join(if states { "states.log" } else { "plain.log" });
        let file = File::create(&log)?;
        command.process_group(0).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let mut running = Running { server: command.spawn()?, port };
        let began = Instant::now();
        while ask(port, "GET", "/v1/models", "").is_err() {
            ensure!(running.server.try_wait()?.is_none(), "the server ended: {}", log.display());
            ensure!(began.elapsed() < Duration::from_secs(300), "no answer: {}", log.display());
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(running)
    }

    /// The prompts, as many at once as the client of states has.
    fn prefill(&self, prompts: &Tokens) -> Result<()> {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let work = || -> Result<()> {
                while let Some(ids) = prompts.ids().get(next.fetch_add(1, Ordering::Relaxed)) {
                    let body = json!({"model": "model", "prompt": ids, "max_tokens": 1, "temperature": 0.0});
                    ask(self.port, "POST", "/v1/completions", &body.to_string())?;
                }
                Ok(())
            };
            let threads: Vec<_> = (0..IN_FLIGHT).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| match thread.join() {
                Ok(outcome) => outcome,
                Err(_) => bail!("a client panicked"),
            })
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let group = format!("kill -TERM -{}", self.server.id());
        let _ = Command::new("sh").args(["-c", &group]).status();
        let _ = self.server.wait();
    }
}

fn ask(port: u16, method: &str, path: &str, body: &str) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.split(' ').nth(1) == Some("200"), "{path}: {answer}");
    Ok(())
}
