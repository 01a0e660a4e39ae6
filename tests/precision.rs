//! bf16 on a CPU runs on the fastest kernels there are for it: a child process runs a model with
//! oneDNN's log switched on, and every product with a weight must be in it, in bf16, by a kernel of
//! the processor's own instructions for that kind (AMX, or AVX-512 BF16 where there is no AMX).
#![cfg(target_os = "linux")]

use std::io::Write;
use std::process::Command;

use thalweg::tch::Kind;
use thalweg::{Config, Intervention, Metric, Model, Plan, Point, Tokens};

use crate::support::{config, model_of};

const CASE: &str = "THALWEG_TEST_PRECISION_CASE";
const TEST: &str = "precision::products_in_bf16_run_on_the_processors_own_instructions";
const PROMPT: i64 = 48;

/// Lengths that tell every product from every other.
fn sizes() -> Config {
    Config {
        d_model: 64,
        n_heads: 4,
        n_kv_heads: 2,
        d_head: 32,
        d_mlp: 160,
        d_vocab: 288,
        n_ctx: 64,
        ..config()
    }
}

/// `[out, in]` of each product of a block, then of the unembedding.
const BLOCK: [[i64; 2]; 4] = [[256, 64], [64, 128], [320, 64], [64, 160]];
const UNEMBED: [i64; 2] = [288, 64];

/// In the child: one kind of work, logged by oneDNN on the standard output.
fn work(case: &str) {
    let model = model_of(sizes(), Kind::BFloat16, 1);
    let tokens = Tokens::from_ids(&[(0..PROMPT).collect()]).unwrap();
    match case {
        "full" => drop(model.logits(&tokens).unwrap()),
        "last" => drop(model.run(&tokens, &Plan::new().logits_at(-1)).unwrap()),
        "decode" => drop(model.generate(&tokens, 3, &Plan::new()).unwrap()),
        _ => suffix(&model, &tokens),
    }
}

/// A sweep over the last positions of the last layer.
fn suffix(model: &Model, tokens: &Tokens) {
    let plan = |pos| Plan::new().intervene(Point::ResidPre.at(1), Intervention::zero().pos(pos));
    let plans: Vec<Plan> = (40..48).map(|pos: i64| plan(pos)).collect();
    model.sweep(tokens, &plans, &Metric::log_prob(3)).unwrap();
}

/// The kernels' common mark, where the processor has instructions for bf16.
fn instructions() -> Option<&'static str> {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = text.lines().find(|line| line.starts_with("flags"))?;
    let has = |flag: &str| flags.split_whitespace().any(|own| own == flag);
    match () {
        _ if has("amx_bf16") => Some("amx"),
        _ if has("avx512_bf16") => Some("avx512_core_bf16"),
        _ => None,
    }
}

/// A product in oneDNN's log: rows, columns out, columns in; the kernel's name and the whole line.
type Product<'a> = ([i64; 3], &'a str, &'a str);

/// `onednn_verbose,v1,primitive,exec,cpu,matmul,brg_matmul:avx512_core_bf16,...,48x64:64x256,0.01`
fn products(log: &str) -> Vec<Product<'_>> {
    let numbers = |text: &str| -> Option<Vec<i64>> {
        text.split('x').map(|n| n.parse::<i64>().ok()).collect()
    };
    let product = |line| -> Option<Product<'_>> {
        let words: Vec<&str> = str::split(line, ',').collect();
        let at = words.iter().position(|word| *word == "matmul")?;
        let (a, b) = words.iter().rev().find_map(|word| {
            word.split_once(':').filter(|(a, b)| {
                numbers(a).is_some() && b.split(':').all(|part| numbers(part).is_some())
            })
        })?;
        let (a, b) = (numbers(a)?, numbers(b.split(':').next()?)?);
        match (a.as_slice(), b.as_slice()) {
            ([rows, input], [same, out]) if input == same => {
                Some(([*rows, *out, *input], words[at + 1], line))
            }
            _ => None,
        }
    };
    let ours =
        log.lines().filter(|line| line.starts_with("onednn_verbose") && line.contains("exec"));
    ours.filter_map(product).collect()
}

/// Every product with `[out, in]` in the log, as rows; all in bf16 by the right kernel.
fn rows(log: &str, [out, input]: [i64; 2], mark: &str) -> Vec<i64> {
    let own = products(log).into_iter().filter(|(size, ..)| size[1..] == [out, input]);
    own.map(|(size, kernel, line)| {
        assert!(line.contains("src:bf16") && line.contains("wei:bf16"), "not in bf16: {line}");
        assert!(kernel.contains(mark), "expected a kernel of {mark}: {line}");
        size[0]
    })
    .collect()
}

#[test]
fn products_in_bf16_run_on_the_processors_own_instructions() {
    if let Ok(case) = std::env::var(CASE) {
        return work(&case);
    }
    let Some(mark) = instructions() else {
        // Past the test runner's capture, so that it is seen and counted.
        let line = "skipped: bf16 kernels: this processor has neither amx_bf16 nor avx512_bf16\n";
        return std::io::stdout().write_all(line.as_bytes()).unwrap();
    };
    let log = |case: &str| {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", TEST, "--nocapture", "--test-threads=1"])
            .env(CASE, case)
            .env("ONEDNN_VERBOSE", "1")
            .output()
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
        String::from_utf8_lossy(&child.stdout).into_owned()
    };
    let full = log("full");
    for size in BLOCK {
        assert_eq!(rows(&full, size, mark), [PROMPT; 2], "{size:?}, once a layer: {full}");
    }
    assert_eq!(rows(&full, UNEMBED, mark), [PROMPT]);
    let last = log("last");
    for size in BLOCK {
        assert_eq!(rows(&last, size, mark), [PROMPT; 2], "{size:?}, once a layer: {last}");
    }
    assert_eq!(rows(&last, UNEMBED, mark), [1], "the last position alone: {last}");
    let decode = log("decode");
    for size in BLOCK {
        let steps = [PROMPT, PROMPT, 1, 1, 1, 1];
        assert_eq!(rows(&decode, size, mark), steps, "{size:?}, a step a token: {decode}");
    }
    assert_eq!(rows(&decode, UNEMBED, mark), [1; 3], "{decode}");
    let sweep = log("sweep");
    for size in BLOCK {
        let rows = rows(&sweep, size, mark);
        assert!(rows.len() > 2, "{size:?}: the unedited run and the sweep's batches: {sweep}");
    }
    assert!(rows(&sweep, UNEMBED, mark).iter().any(|rows| *rows < PROMPT), "{sweep}");
}
