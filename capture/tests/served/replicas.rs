//! The recipe for replicas with vLLM itself, where `THALWEG_REPLICAS` asks for it.

use std::io::Write as _;
use std::net::TcpListener;

use thalweg_capture::Captured;

use crate::recipes::{bash, recipe};
use crate::support::{Folder, command, lines, ok, run, world};

/// Two replicas on two cores: two minutes, most of them vLLM's start.
#[test]
fn two_replicas_give_what_the_local_model_gives() {
    let Some(replicas) = std::env::var("THALWEG_REPLICAS").ok().filter(|n| !n.is_empty()) else {
        let line = "skipped: no replicas of vLLM: cargo vllm, then THALWEG_REPLICAS=2\n";
        std::io::stdout().write_all(line.as_bytes()).unwrap();
        return;
    };
    let folder = Folder::new("replicas-vllm");
    let prompts = folder.write("prompts.txt", &lines(120).join("\n"));
    let [wide, here, served] = ["wide", "here", "served"].map(|name| folder.path(name));
    ok(command(&["widen"]).arg(world()).arg(&wide).args(["--head-size", "32"]));
    let cut = ["--prompts-per-shard", "20"];
    ok(&mut run(&prompts, &here, &cut));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut recipe = bash(&recipe("data_parallel.sh"));
    recipe.env("CAPTURE", env!("CARGO_BIN_EXE_capture")).env("PORT", port.to_string());
    recipe.env("PROMPTS", &prompts).env("MODEL", &wide).env("OUT", &served);
    recipe.env("REPLICAS", replicas).env("WORKERS", "2").args(cut);
    let said = ok(&mut recipe);
    assert!(said.contains("served: whole"), "{said}");
    let [here, served] = [here, served].map(|dir| Captured::open(dir).unwrap());
    assert_eq!(here.places(0..here.len()).unwrap(), served.places(0..served.len()).unwrap());
    for site in here.sites().unwrap() {
        let [a, b] = [&here, &served].map(|of| of.rows(site, 0..of.len()).unwrap());
        let apart = (&a - &b).norm().double_value(&[]) / a.norm().double_value(&[]);
        assert!(apart < 1e-5, "{site}: {apart:e}");
    }
}
