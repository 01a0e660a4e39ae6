//! Tokens a second and bytes a token of capturing, beside a plain forward pass of the same batches.
//!
//! `cargo bench -p thalweg-capture --bench throughput [-- ROUNDS]`: every way once a round, in an order
//! drawn anew; medians, and medians of the ratios to the plain pass of the same round. Threads are
//! those of `OMP_NUM_THREADS`.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;
use thalweg::anyhow::Result;
use thalweg::rng::Rng;
use thalweg::tch::{Device, Kind, Tensor};
use thalweg::{Config, Model, Plan, Point, Tokens};
use thalweg_capture::statistics::Asked;
use thalweg_capture::{Capture, Prompts};

const BATCH: usize = 1024;

/// What is measured, all of it on the stream after every block.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Forward,
    Cached,
    Kept(Kind),
    Counted { covariance: bool },
}

const WAYS: [(&str, Way); 6] = [
    ("plain forward", Way::Forward),
    ("forward, stream cached", Way::Cached),
    ("capture to disk, f32", Way::Kept(Kind::Float)),
    ("capture to disk, bf16", Way::Kept(Kind::BFloat16)),
    ("statistics: mean, variance", Way::Counted { covariance: false }),
    ("statistics: covariance too", Way::Counted { covariance: true }),
];

struct Setting {
    name: &'static str,
    model: Model,
    rows: Vec<Vec<i64>>,
    folder: PathBuf,
}

fn main() -> Result<()> {
    let rounds = std::env::args().filter_map(|word| word.parse().ok()).next().unwrap_or(7);
    let world = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/models/tiny-world");
    let world = Model::load_on(world, Device::Cpu, Kind::Float)?;
    measure(Setting::new("tiny-world", world, 1500, 12..64)?, rounds)?;
    measure(Setting::new("random: width 512, 8 layers", wide()?, 32, 32..257)?, rounds)
}

impl Setting {
    fn new(
        name: &'static str,
        model: Model,
        n: usize,
        lens: std::ops::Range<usize>,
    ) -> Result<Self> {
        let mut rng = Rng::new(1);
        let vocabulary = model.config().d_vocab;
        let mut row = || -> Vec<i64> {
            let len = rng.range(lens.clone());
            (0..len).map(|_| rng.below(vocabulary) as i64).collect()
        };
        let rows: Vec<Vec<i64>> = (0..n).map(|_| row()).collect();
        let folder = std::env::temp_dir().join(format!("thalweg-bench-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let lines: Vec<String> = rows.iter().map(|row| json!({"text": row}).to_string()).collect();
        fs::write(folder.join("prompts.jsonl"), lines.join("\n"))?;
        Ok(Setting { name, model, rows, folder })
    }

    fn tokens(&self) -> usize {
        self.rows.iter().map(Vec::len).sum()
    }

    /// Rows of like length together, as a capture runs them.
    fn batches(&self) -> Result<Vec<Tokens>> {
        let mut rows = self.rows.clone();
        rows.sort_by_key(|row| std::cmp::Reverse(row.len()));
        let mut batches: Vec<Vec<Vec<i64>>> = Vec::new();
        for row in rows {
            match batches.last_mut() {
                Some(batch) if (batch.len() + 1) * batch[0].len() <= BATCH => batch.push(row),
                _ => batches.push(vec![row]),
            }
        }
        batches.iter().map(|rows| Tokens::from_ids(rows)).collect()
    }

    /// Seconds, and the bytes that were left on the disk.
    fn run(&self, way: Way) -> Result<(f64, u64)> {
        let out = self.folder.join("out");
        let _ = fs::remove_dir_all(&out);
        let start = Instant::now();
        let capture = || -> Result<Capture> {
            let prompts = Prompts::open(self.folder.join("prompts.jsonl"), "text")?;
            Ok(Capture::new(prompts, &out).sites(Point::ResidPost).batch_tokens(BATCH))
        };
        match way {
            Way::Forward | Way::Cached => {
                let mut plan = Plan::new().logits_at(-1);
                if way == Way::Cached {
                    plan = plan.cache(Point::ResidPost);
                }
                for tokens in self.batches()? {
                    self.model.run(&tokens, &plan)?;
                }
            }
            Way::Kept(kind) => {
                capture()?.kind(kind).run(&self.model)?;
            }
            Way::Counted { covariance } => {
                let asked = Asked { covariance, ..Asked::default() };
                capture()?.statistics(&self.model, &asked)?;
            }
        }
        Ok((start.elapsed().as_secs_f64(), bytes(&out)))
    }
}

fn measure(setting: Setting, rounds: usize) -> Result<()> {
    let tokens = setting.tokens() as f64;
    let config = setting.model.config();
    let data = (config.n_layers * config.d_model) as f64; // numbers a token
    for (_, way) in WAYS {
        setting.run(way)?; // warm
    }
    let (mut seconds, mut sizes) = (vec![Vec::new(); WAYS.len()], vec![0; WAYS.len()]);
    let mut rng = Rng::new(2);
    for _ in 0..rounds {
        let mut order: Vec<usize> = (0..WAYS.len()).collect();
        rng.shuffle(&mut order);
        for i in order {
            let (took, bytes) = setting.run(WAYS[i].1)?;
            seconds[i].push(took);
            sizes[i] = bytes;
        }
    }
    println!(
        "\n{}: {} prompts, {tokens} tokens, {rounds} rounds\n",
        setting.name,
        setting.rows.len()
    );
    println!(
        "| way | tokens/s | time, of a plain forward's | bytes a token | of the numbers alone |"
    );
    println!("|---|---|---|---|---|");
    for (i, (name, way)) in WAYS.iter().enumerate() {
        let ratios = seconds[i].iter().zip(&seconds[0]).map(|(own, plain)| own / plain);
        let ratio = median(ratios.collect());
        let rate = tokens / median(seconds[i].clone());
        let disk = match way {
            Way::Forward | Way::Cached => "| |".to_owned(),
            Way::Counted { .. } => format!("{:.1} | |", sizes[i] as f64 / tokens),
            Way::Kept(kind) => {
                let own = data * kind.elt_size_in_bytes() as f64;
                let each = sizes[i] as f64 / tokens;
                format!("{each:.0} | {:.3} |", each / own)
            }
        };
        println!("| {name} | {rate:.0} | {ratio:.2} | {disk}");
    }
    let _ = fs::remove_dir_all(&setting.folder);
    Ok(())
}

fn median(mut list: Vec<f64>) -> f64 {
    list.sort_by(f64::total_cmp);
    list[list.len() / 2]
}

fn bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.path().is_dir() {
        true => bytes(&entry.path()),
        false => entry.metadata().map_or(0, |metadata| metadata.len()),
    };
    entries.map(size).sum()
}

/// A Llama of random weights, wide enough that its matrices decide its pace.
fn wide() -> Result<Model> {
    let (d, mlp, vocabulary, layers) = (512, 1408, 4096, 8);
    let config = Config::from_json(&json!({
        "model_type": "llama", "hidden_act": "silu", "hidden_size": d, "intermediate_size": mlp,
        "num_hidden_layers": layers, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64,
        "vocab_size": vocabulary, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": true,
    }))?;
    let mut rng = Rng::new(3);
    let mut tensors = HashMap::new();
    let mut add = |name: String, shape: &[i64]| {
        let n: i64 = shape.iter().product();
        let scale = 1.0 / (shape[shape.len() - 1] as f64).sqrt();
        let entry = |_| ((2.0 * rng.uniform() - 1.0) * scale) as f32;
        let values: Vec<f32> = (0..n).map(entry).collect();
        tensors.insert(name, Tensor::from_slice(&values).view(shape));
    };
    add("model.embed_tokens.weight".to_owned(), &[vocabulary, d]);
    add("model.norm.weight".to_owned(), &[d]);
    for layer in 0..layers {
        for (name, shape) in [
            ("input_layernorm", vec![d]),
            ("post_attention_layernorm", vec![d]),
            ("self_attn.q_proj", vec![d, d]),
            ("self_attn.k_proj", vec![d / 2, d]),
            ("self_attn.v_proj", vec![d / 2, d]),
            ("self_attn.o_proj", vec![d, d]),
            ("mlp.gate_proj", vec![mlp, d]),
            ("mlp.up_proj", vec![mlp, d]),
            ("mlp.down_proj", vec![d, mlp]),
        ] {
            add(format!("model.layers.{layer}.{name}.weight"), &shape);
        }
    }
    Model::from_parts(config, tensors, None)
}
