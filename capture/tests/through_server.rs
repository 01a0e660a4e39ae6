//! A capture through a server: the one that stands in for vLLM in the library's own tests.

#[path = "../../tests/remote/file.rs"]
mod file;
#[allow(dead_code, reason = "the library's tests use more of it")]
#[path = "../../tests/remote/server.rs"]
mod server;

use std::fs;

use thalweg::Point;
use thalweg_capture::{Capture, Captured, Prompts, check};

use crate::support::{Folder, command, content, distance, model, ok, refused, run_of, text, world};
use server::{Fault, Server};

const SITES: &str = "hook_embed,blocks.*.hook_resid_post";

fn serve(folder: &Folder) -> Server {
    let shared = folder.path("shared");
    fs::create_dir_all(&shared).unwrap();
    Server::new(&model(), &shared)
}

fn call(folder: &Folder, server: &Server, word: &str, out: &str) -> std::process::Command {
    let mut call = run_of(word, &folder.path("prompts.txt"), &folder.path(out), &[]);
    call.args(["--compute", "f32", "--sites", SITES, "--prompts-per-shard", "6"]);
    call.args(["--server", &server.url, "--shared"]).arg(&server.shared);
    call
}

#[test]
fn what_comes_through_a_server_is_what_the_local_model_gives() {
    let folder = Folder::new("through");
    let prompts = folder.write("prompts.txt", &text(20));
    let server = serve(&folder);
    ok(&mut call(&folder, &server, "run", "far"));
    assert_eq!(server.left(), [] as [String; 0], "no file is left in the shared directory");
    let mut near = run_of("run", &prompts, &folder.path("near"), &["--max-tokens", "63"]);
    ok(near.args(["--sites", SITES, "--prompts-per-shard", "6"]));
    let [far, near] = ["far", "near"].map(|out| Captured::open(folder.path(out)).unwrap());
    let all = 0..near.len();
    assert_eq!(far.places(all.clone()).unwrap(), near.places(all.clone()).unwrap());
    for site in near.sites().unwrap() {
        let [a, b] = [&far, &near].map(|one| one.rows(site, all.clone()).unwrap());
        assert!(distance(&a, &b) < 1e-5 * b.abs().max().double_value(&[]), "{site}");
    }
    assert!(check(folder.path("far")).unwrap().is_empty());
    let counted = ok(&mut call(&folder, &server, "statistics", "counted"));
    assert!(counted.contains("4 parts, 18 prompts"), "{counted}");
}

#[test]
fn a_server_that_fails_ends_the_call_in_one_line_and_the_capture_goes_on_later() {
    let folder = Folder::new("fails");
    folder.write("prompts.txt", &text(20));
    let server = serve(&folder);
    // The prompt of the connection's own trial, and those of the first shard, come; then nothing.
    let refused_later = std::iter::repeat_n(Fault::Slow(std::time::Duration::ZERO), 9)
        .chain(std::iter::repeat_n(Fault::Refused(400, "no room".to_owned()), 50));
    server.faults(refused_later);
    let said = refused(&mut call(&folder, &server, "run", "out"));
    assert!(said.contains("no room") && said.contains("the same command goes on"), "{said}");
    let there = content(&folder.path("out"));
    assert!(there.iter().all(|(name, _)| !name.ends_with(".partial")));
    server.faults([]);
    ok(&mut call(&folder, &server, "run", "out"));
    assert!(ok(command(&["check"]).arg(folder.path("out"))).contains("whole"));
}

#[test]
fn what_a_server_cannot_give_is_refused_before_any_work() {
    let folder = Folder::new("cannot");
    let prompts = Prompts::open(folder.write("prompts.txt", &text(20)), "text").unwrap();
    let server = serve(&folder);
    let model = server.remote().model(world()).unwrap();
    let capture = Capture::new(prompts, folder.path("out")).sites(Point::Z.at(1));
    let error = capture.max_tokens(20).run(&model).unwrap_err().to_string();
    assert!(error.contains("attn.hook_z") && !error.contains('\n'), "{error}");
    assert!(!folder.path("out").join("capture.json").exists(), "{error}");
}
