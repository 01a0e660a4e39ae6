//! Loading needs little more memory than the weights themselves, and the memory of one run's records
//! serves the next: child processes report their own peak and page faults.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout)] // the child's way to answer

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value, json};
use thalweg::tch::{Device, Kind, Tensor};
use thalweg::{Config, Model, Plan, Sites, Tokens};

use crate::support::{config, model_of, scratch, shapes};

const DIRECTORY: &str = "THALWEG_TEST_MEMORY_DIRECTORY";
const KIND: &str = "THALWEG_TEST_MEMORY_KIND";
const FAULTS: &str = "THALWEG_TEST_MEMORY_FAULTS";

/// About 200 MiB in f32; q, k, v and gate, up lie in fused matrices of tens of MiB.
fn large() -> Config {
    Config {
        d_model: 1024,
        n_heads: 16,
        d_head: 64,
        d_mlp: 4096,
        d_vocab: 8000,
        tied: true,
        ..config()
    }
}

/// One safetensors file in f32 whose data are a hole: zeros that take no disk.
fn write(path: &Path, tensors: &[(String, Vec<i64>)]) {
    let (mut header, mut end) = (Map::new(), 0);
    for (name, shape) in tensors {
        let begin = end;
        end += shape.iter().product::<i64>() * 4;
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, end]});
        header.insert(name.clone(), entry);
    }
    let text = Value::Object(header).to_string();
    let mut file = File::create(path).unwrap();
    file.write_all(&(text.len() as u64).to_le_bytes()).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.set_len(8 + text.len() as u64 + end as u64).unwrap();
}

fn status(key: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// In the child: loads, and prints the bytes beyond the weights at the peak.
fn report(dir: &str, kind: &str) {
    let kind = if kind == "bf16" { Kind::BFloat16 } else { Kind::Float };
    // What libtorch itself takes when it first works is not loading's.
    let _ = Tensor::ones([1 << 16], (Kind::Float, Device::Cpu)).to_kind(Kind::BFloat16).sum(None);
    let before = status("VmRSS:");
    let model = Model::load_on(dir, Device::Cpu, kind).unwrap();
    let peak = status("VmHWM:");
    let weights = (model.config().n_params() * kind.elt_size_in_bytes()) as u64;
    let held = status("VmRSS:") - before;
    assert!(held >= weights / 10 * 9, "the weights were not in memory: {held} of {weights}");
    println!("extra {}", peak.saturating_sub(before + weights));
}

#[test]
fn loading_takes_at_most_64_mib_beyond_the_weights() {
    if let (Ok(dir), Ok(kind)) = (std::env::var(DIRECTORY), std::env::var(KIND)) {
        return report(&dir, &kind);
    }
    let list = shapes(&large());
    let text = large().to_json().to_string();
    let whole = scratch("memory-whole");
    fs::write(whole.join("config.json"), &text).unwrap();
    write(&whole.join("model.safetensors"), &list);
    let shards = scratch("memory-shards");
    fs::write(shards.join("config.json"), &text).unwrap();
    let mut map = Map::new();
    for (i, part) in list.chunks(list.len().div_ceil(3)).enumerate() {
        let file = format!("model-{}-of-3.safetensors", i + 1);
        write(&shards.join(&file), part);
        map.extend(part.iter().map(|(name, _)| (name.clone(), json!(file))));
    }
    let index = json!({ "weight_map": map }).to_string();
    fs::write(shards.join("model.safetensors.index.json"), index).unwrap();
    for (dir, kind) in [(&whole, "f32"), (&shards, "f32"), (&whole, "bf16"), (&shards, "bf16")] {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "memory::loading_takes_at_most_64_mib_beyond_the_weights"])
            .args(["--nocapture", "--test-threads=1"])
            .env(DIRECTORY, dir)
            .env(KIND, kind)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success(), "{text}{}", String::from_utf8_lossy(&child.stderr));
        let extra = text.split("extra ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let mib = extra.unwrap().parse::<f64>().unwrap() / (1 << 20) as f64;
        assert!(mib <= 64.0, "{} to {kind}: {mib:.1} MiB beyond the weights", dir.display());
        println!("{} to {kind}: {mib:.1} MiB beyond the weights", dir.display());
    }
    let _ = fs::remove_dir_all(whole);
    let _ = fs::remove_dir_all(shards);
}

/// In the child: pages that a run fetched from the system, and pages that its records fill.
fn faults() -> (u64, u64) {
    let c = Config { n_layers: 8, d_model: 256, d_head: 64, d_mlp: 512, n_ctx: 128, ..config() };
    let model = model_of(c, Kind::Float, 1);
    let tokens = Tokens::from_ids(&[(0..128).map(|i| i % 23).collect()]).unwrap();
    let plan = Plan::new().cache(Sites::everything());
    let run = || model.run(&tokens, &plan).unwrap().cache.bytes();
    let so_far = || {
        let text = fs::read_to_string("/proc/self/stat").unwrap();
        let after_name = text.rsplit(')').next().unwrap();
        after_name.split_whitespace().nth(7).unwrap().parse::<u64>().unwrap()
    };
    (0..8).for_each(|_| assert!(run() > 0));
    let before = so_far();
    let bytes = (0..8).map(|_| run()).max().unwrap();
    ((so_far() - before) / 8, bytes / 4096)
}

#[test]
#[cfg(target_env = "gnu")] // other allocators have other rules
fn the_memory_of_one_runs_records_serves_the_next() {
    if std::env::var(FAULTS).is_ok() {
        let (fetched, filled) = faults();
        return println!("fetched {fetched} of {filled}");
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "memory::the_memory_of_one_runs_records_serves_the_next"])
        .args(["--nocapture", "--test-threads=1"])
        .env(FAULTS, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{text}{}", String::from_utf8_lossy(&child.stderr));
    let line = text.lines().find_map(|line| line.split_once("fetched ")).unwrap().1;
    println!("pages {line}");
    let (fetched, filled) = line.split_once(" of ").unwrap();
    let [fetched, filled] = [fetched, filled].map(|n| n.trim().parse::<u64>().unwrap());
    // Without, each page is fetched; how many are with it depends on where blocks come to lie.
    assert!(filled > 2000 && fetched < filled / 4, "{fetched} pages fetched of {filled}");
}
