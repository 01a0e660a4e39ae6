//! What a cap of memory allows is all that is taken: a child process runs up to the cap and reports
//! how far its peak rose after a first, small run. At most 5 % and 64 MiB more is allowed.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout)] // the child's way to answer

use std::process::Command;

use thalweg::tch::Kind;
use thalweg::{
    Config, Intervention, Metric, Model, Plan, Point, Run, Site, Sites, Statistics, SweepOptions,
    Tokens, statistics,
};

use crate::support::{config, model_of, says, scratch};

const CASE: &str = "THALWEG_TEST_CAP_CASE";
const BYTES: &str = "THALWEG_TEST_CAP_BYTES";
/// Caps to try, in GiB, for instance `0.5,1,2`; the tests by themselves try the first.
const GIB: &str = "THALWEG_TEST_CAP_GIB";
/// The cap of a cache that goes to a file.
const FILE: u64 = 32 << 20;
const TEST: &str = "memory_cap::a_cap_is_kept_by_caches_statistics_and_sweeps";

fn wide() -> Model {
    let c = Config { n_layers: 6, d_model: 256, n_heads: 4, n_kv_heads: 2, d_head: 64, ..config() };
    model_of(Config { d_mlp: 256, n_ctx: 256, ..c }, Kind::Float, 1)
}

fn prompts(rows: usize) -> Tokens {
    Tokens::from_ids(&vec![(0..128).map(|i| i % 23).collect(); rows]).unwrap()
}

fn peak() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// The run of the most rows that the cap allows; refusals cost nothing.
fn fullest(model: &Model, plan: &Plan, cap: u64) -> Run {
    let one = plan.bytes(model.config(), &prompts(1), Kind::Float).max(1 << 20);
    let mut rows = (1..=(cap / one) as usize).rev();
    rows.find_map(|rows| model.run(&prompts(rows), plan).ok()).unwrap()
}

/// In the child: how far the peak rises.
fn growth(case: &str, cap: u64) -> u64 {
    let model = wide();
    let everything = Plan::new().cache(Sites::everything());
    let capped = everything.clone().cap(cap);
    match case {
        "cache" => {
            model.run(&prompts(1), &capped).unwrap();
            let before = peak();
            let run = fullest(&model, &capped, cap);
            assert!(run.cache.bytes() > cap / 100 * 75, "the cap was not used");
            peak() - before
        }
        "file" => {
            let dir = scratch("cap");
            let path = dir.join("cache.safetensors");
            let plan = everything.clone().cap(FILE).offload_to(&path);
            model.run(&prompts(1), &plan).unwrap();
            let before = peak();
            let run = fullest(&model, &plan, cap);
            let size = std::fs::metadata(path).unwrap().len();
            std::fs::remove_dir_all(dir).unwrap();
            assert!(size > 2 * FILE && run.cache.bytes() == 0, "{size} bytes went to the file");
            peak() - before
        }
        "sweep" => {
            let run = |rows| {
                let zero = |at: i64| {
                    Plan::new().intervene(
                        Point::ResidPre.at(at as usize % 3),
                        Intervention::zero().pos(at),
                    )
                };
                let plans: Vec<Plan> = (0..4).map(zero).collect();
                let options = SweepOptions::new().cap(cap);
                model.sweep_with(&prompts(rows), &plans, &Metric::logit(1), options)
            };
            run(1).unwrap();
            let before = peak();
            let found = (1..=(cap >> 20) as usize).rev().step_by(8).find_map(|rows| run(rows).ok());
            assert!(found.unwrap().base.len() > (cap >> 23) as usize, "the cap was not used");
            peak() - before
        }
        _ => {
            let sites = Point::ALL.iter().filter(|point| point.axes()[1] == Point::Z.axes()[1]);
            let sites = sites.flat_map(|point| (0..6).map(|layer| point.at(layer)));
            let mut list: Vec<_> = sites.map(Statistics::at).collect();
            let big = Statistics::at(Point::QInput.at(0)).covariance();
            list.extend([big, Statistics::at(Site::Embed).top(9)]);
            let plan = Plan::new().cap(cap);
            let mut run = |rows| {
                statistics(&model, [Ok(prompts(rows))], &plan, &mut list).unwrap();
            };
            run(1);
            let before = peak();
            run((cap >> 22) as usize);
            peak() - before
        }
    }
}

#[test]
fn a_cap_is_kept_by_caches_statistics_and_sweeps() {
    if let (Ok(case), Ok(cap)) = (std::env::var(CASE), std::env::var(BYTES)) {
        return println!("growth {}", growth(&case, cap.parse().unwrap()));
    }
    let caps = std::env::var(GIB).unwrap_or("0.5".to_owned());
    for gib in caps.split(',').map(|gib| gib.parse::<f64>().unwrap()) {
        let cap = (gib * (1u64 << 30) as f64) as u64;
        for case in ["cache", "file", "statistics", "sweep"] {
            let child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", TEST, "--nocapture", "--test-threads=1"])
                .env(CASE, case)
                .env(BYTES, cap.to_string())
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&child.stdout);
            assert!(child.status.success(), "{text}{}", String::from_utf8_lossy(&child.stderr));
            let growth = text.split("growth ").nth(1).and_then(|s| s.split_whitespace().next());
            let growth = growth.unwrap().parse::<f64>().unwrap();
            let kept = if case == "file" { FILE } else { cap };
            let most = kept as f64 * 1.05 + (64 << 20) as f64;
            let mib = |bytes: f64| bytes / (1 << 20) as f64;
            println!("{case}: cap {:.0} MiB, growth {:.0} MiB", mib(kept as f64), mib(growth));
            assert!(growth <= most, "{case}: {:.0} MiB over {:.0}", mib(growth), mib(most));
        }
    }
}

#[test]
fn a_cap_counts_what_the_pass_itself_works_with_where_that_is_much() {
    let plan = Plan::new().cache(Point::Ln1Scale.at(0)).cap(32 << 20);
    let model = wide();
    assert!(model.run(&prompts(2), &plan).is_ok());
    says(model.run(&prompts(600), &plan), &["the cache and the pass itself would take"]);
}
