//! A model of the shape of Llama-3.2-1B with random weights, in bf16: how much memory loading takes,
//! and how long a pass over 128 tokens takes beside the products with its own weights alone.
//!
//! ```text
//! cargo run --example one_billion [-- DIRECTORY]
//! ```
//!
//! Writes 2.5 GB into a new directory below DIRECTORY (default: the system's for temporary files) and
//! removes it again. The pass, the products and a product of two 2048 x 2048 matrices are timed in
//! turn, so that a machine that is busy at times is busy for all of them; medians are compared.

#![allow(clippy::print_stdout)] // its way to answer

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Map, Value, json};
use thalweg::anyhow::{Context, Result, ensure};
use thalweg::rng::Rng;
use thalweg::tch::{Device, Kind, Tensor};
use thalweg::{Model, Plan, Tokens};

const ROUNDS: usize = 9;
const LENGTH: i64 = 128;

fn main() -> Result<()> {
    let below = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = below.join(format!("thalweg-one-billion-{}", std::process::id()));
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let result = write(&dir).and_then(|()| measure(&dir));
    fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    result
}

/// `config.json` and one safetensors file of random weights.
fn write(dir: &Path) -> Result<()> {
    let config = json!({
        "model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
        "intermediate_size": 8192, "vocab_size": 128_256, "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-5, "rope_theta": 500_000.0, "tie_word_embeddings": true,
        "torch_dtype": "bfloat16",
    });
    fs::write(dir.join("config.json"), config.to_string())?;
    let (mut header, mut end) = (Map::new(), 0);
    let mut add = |name: String, shape: &[usize]| {
        let begin = end;
        end += 2 * shape.iter().product::<usize>();
        let entry = json!({"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]});
        header.insert(name, entry);
    };
    add("model.embed_tokens.weight".to_owned(), &[128_256, 2048]);
    for layer in 0..16 {
        for (part, shape) in [
            ("input_layernorm", &[2048][..]),
            ("self_attn.q_proj", &[2048, 2048]),
            ("self_attn.k_proj", &[512, 2048]),
            ("self_attn.v_proj", &[512, 2048]),
            ("self_attn.o_proj", &[2048, 2048]),
            ("post_attention_layernorm", &[2048]),
            ("mlp.gate_proj", &[8192, 2048]),
            ("mlp.up_proj", &[8192, 2048]),
            ("mlp.down_proj", &[2048, 8192]),
        ] {
            add(format!("model.layers.{layer}.{part}.weight"), shape);
        }
    }
    add("model.norm.weight".to_owned(), &[2048]);
    let text = Value::Object(header).to_string();
    let mut file = BufWriter::new(File::create(dir.join("model.safetensors"))?);
    file.write_all(&(text.len() as u64).to_le_bytes())?;
    file.write_all(text.as_bytes())?;
    // One block of draws, over and over: the time does not depend on the numbers.
    let draws = Rng::new(1).normal_tensor(&[1 << 19]) * 0.02;
    let mut block = vec![0; 1 << 20];
    draws.to_kind(Kind::BFloat16).copy_data_u8(&mut block, 1 << 19);
    while end > 0 {
        let n = end.min(block.len());
        file.write_all(&block[..n])?;
        end -= n;
    }
    Ok(file.flush()?)
}

fn measure(dir: &Path) -> Result<()> {
    let _guard = thalweg::tch::no_grad_guard();
    // What libtorch itself takes when it first works is not loading's.
    let _ = Tensor::ones([1 << 16], (Kind::Float, Device::Cpu)).to_kind(Kind::BFloat16).sum(None);
    let before = status("VmRSS:")?;
    let start = Instant::now();
    let model = Model::load_on(dir, Device::Cpu, Kind::BFloat16)?;
    let (seconds, peak) = (start.elapsed().as_secs_f64(), status("VmHWM:")? - before);
    let weights = (2 * model.config().n_params()) as u64;
    println!("{model:?}, {} threads", thalweg::tch::get_num_threads());
    println!(
        "loading: {seconds:.1} s, at its peak {:.3} times the weights of {:.2} GB",
        peak as f64 / weights as f64,
        weights as f64 / 1e9
    );
    let tokens = Tokens::from_ids(&[(0..LENGTH).map(|i| i * 997 % 128_256).collect()])?;
    let matrices: Vec<Tensor> = model.parameters().into_iter().filter(|w| w.dim() == 2).collect();
    let inputs: Vec<Tensor> = matrices.iter().map(|w| random(LENGTH, w.size()[1], 3)).collect();
    // The embedding, first of all, is the unembedding too: one product, as in the pass.
    let products = || {
        for (x, w) in inputs.iter().zip(&matrices) {
            drop(x.linear(w, None::<&Tensor>));
        }
        Ok(())
    };
    let (a, b) = (random(2048, 2048, 5), random(2048, 2048, 7));
    let cubed = || {
        drop(a.matmul(&b));
        Ok(())
    };
    let last = Plan::new().logits_at(-1);
    let mut times = [const { Vec::new() }; 4];
    for round in 0..=ROUNDS {
        let taken = [
            seconds_of(|| model.logits(&tokens).map(drop))?,
            seconds_of(products)?,
            seconds_of(|| model.run(&tokens, &last).map(drop))?,
            seconds_of(cubed)?,
        ];
        if round > 0 {
            times.iter_mut().zip(taken).for_each(|(list, one)| list.push(one)); // after a warm-up
        }
    }
    let [pass, products, last, cube] = times.map(median);
    let flops: i64 = matrices.iter().map(|w| 2 * LENGTH * w.numel() as i64).sum();
    let rate = |flops: f64, seconds: f64| flops / seconds / 1e9;
    let cube_rate = rate(2.0 * 2048f64.powi(3), cube);
    println!("{LENGTH} tokens: {:.0} ms; its products alone: {:.0} ms", 1e3 * pass, 1e3 * products);
    println!("with logits at the last position only: {:.0} ms", 1e3 * last);
    println!("ratio of the pass to its products: {:.3} (aim: 1.25)", pass / products);
    println!(
        "GFLOP/s: pass {:.0}, products {:.0}, 2048-cube {cube_rate:.0}; ratio of the pass to the cube's rate: {:.2}",
        rate(flops as f64, pass),
        rate(flops as f64, products),
        cube_rate / rate(flops as f64, pass)
    );
    Ok(())
}

fn random(rows: i64, columns: i64, seed: u64) -> Tensor {
    Rng::new(seed).normal_tensor(&[rows, columns]).to_kind(Kind::BFloat16)
}

fn seconds_of(work: impl Fn() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64())
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Bytes, from what Linux says of this process.
fn status(key: &str) -> Result<u64> {
    let text = fs::read_to_string("/proc/self/status").context("this needs Linux")?;
    let line = text.lines().find(|line| line.starts_with(key));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    ensure!(kib.is_some(), "/proc/self/status does not tell {key}");
    Ok(kib.unwrap_or(0) * 1024)
}
