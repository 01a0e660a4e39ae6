//! A capture that ends at any moment goes on and gives the same bytes.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use thalweg::rng::Rng;

use crate::support::{Folder, command, ok, run, run_of, same, text};

const WORDS: [&str; 4] = ["--prompts-per-shard", "12", "--batch-tokens", "64"];

#[test]
fn killed_at_any_write_and_run_again_it_gives_the_same_bytes() {
    let folder = Folder::new("abort");
    let prompts = folder.write("prompts.txt", &text(50));
    let (whole, cut) = (folder.path("whole"), folder.path("cut"));
    ok(&mut run(&prompts, &whole, &WORDS));
    let mut ends = 0;
    for writes in [0, 1, 5, 30, 62, 63, 64, 65, 100, 150] {
        // Each time it goes on from where the time before has ended.
        let mut killed = run(&prompts, &cut, &WORDS);
        killed.env("CAPTURE_TEST_ABORT_AFTER", writes.to_string());
        killed.stderr(Stdio::null()).stdout(Stdio::null());
        ends += usize::from(!killed.status().unwrap().success());
    }
    assert!(ends >= 5, "only {ends} of the ends came before the capture's own");
    ok(&mut run(&prompts, &cut, &WORDS));
    same(&whole, &cut);
}

#[test]
fn killed_at_random_times_it_goes_on_too() {
    let folder = Folder::new("kill");
    let prompts = folder.write("prompts.txt", &text(400));
    let (whole, cut) = (folder.path("whole"), folder.path("cut"));
    let start = Instant::now();
    ok(&mut run(&prompts, &whole, &WORDS));
    let took = start.elapsed();
    let mut rng = Rng::new(7);
    let mut kills = 0;
    for _ in 0..8 {
        let mut child = quiet(run(&prompts, &cut, &WORDS));
        std::thread::sleep(took.mul_f64(0.2 + 0.6 * rng.uniform()));
        child.kill().unwrap(); // SIGKILL
        kills += usize::from(!child.wait().unwrap().success());
    }
    ok(&mut run(&prompts, &cut, &WORDS));
    same(&whole, &cut);
    assert!(kills > 0, "every call was done before it was killed");
}

#[test]
fn statistics_killed_at_random_times_go_on_too() {
    let folder = Folder::new("kill-statistics");
    let prompts = folder.write("prompts.txt", &text(200));
    let call = |out: &str| {
        let mut call = run_of("statistics", &prompts, &folder.path(out), &WORDS);
        call.args(["--covariance", "--top", "2", "--sites", "hook_resid_post"]);
        call
    };
    let start = Instant::now();
    ok(&mut call("whole"));
    let took = start.elapsed();
    let mut rng = Rng::new(8);
    for _ in 0..6 {
        let mut child = quiet(call("cut"));
        std::thread::sleep(took.mul_f64(0.2 + 0.6 * rng.uniform()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    ok(&mut call("cut"));
    same(&folder.path("whole"), &folder.path("cut"));
}

fn quiet(mut command: std::process::Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn workers_side_by_side_lose_and_duplicate_nothing() {
    let folder = Folder::new("workers");
    let prompts = folder.write("prompts.txt", &text(200));
    let whole = folder.path("whole");
    ok(&mut run(&prompts, &whole, &WORDS));
    for n in [2, 3] {
        let together = folder.path(&format!("together-{n}"));
        let workers: Vec<Child> = (0..n).map(|_| quiet(run(&prompts, &together, &WORDS))).collect();
        for mut worker in workers {
            assert!(worker.wait().unwrap().success());
        }
        same(&whole, &together);
    }
    // Shares given beforehand, one after the other.
    let shares = folder.path("shares");
    for share in ["0/3", "1/3", "2/3"] {
        ok(run(&prompts, &shares, &WORDS).args(["--worker", share]));
    }
    same(&whole, &shares);
}

#[test]
fn a_worker_that_is_killed_leaves_its_part_to_the_others() {
    let folder = Folder::new("widow");
    let prompts = folder.write("prompts.txt", &text(300));
    let (whole, shared) = (folder.path("whole"), folder.path("shared"));
    ok(&mut run(&prompts, &whole, &WORDS));
    let mut first = quiet(run(&prompts, &shared, &WORDS));
    let deadline = Instant::now() + Duration::from_secs(20);
    while !shared.join("claims").exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut second = quiet(run(&prompts, &shared, &WORDS));
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(second.wait().unwrap().success());
    ok(&mut run(&prompts, &shared, &WORDS));
    same(&whole, &shared);
}

#[test]
fn ctrl_c_leaves_whole_shards_and_says_how_to_go_on() {
    let folder = Folder::new("interrupt");
    let prompts = folder.write("prompts.txt", &text(2000));
    let out = folder.path("out");
    let child = run(&prompts, &out, &WORDS).stderr(Stdio::piped()).stdout(Stdio::null()).spawn();
    let child = child.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !out.join("shard-00000.safetensors").exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("the same command goes on with the rest"), "{said}");
    let partial = std::fs::read_dir(&out).unwrap().flatten();
    let partial = partial.filter(|entry| entry.path().to_string_lossy().ends_with(".partial"));
    assert_eq!(partial.count(), 0);
}

#[test]
fn a_wrong_call_ends_with_code_2() {
    assert_eq!(command(&["run"]).output().unwrap().status.code(), Some(2));
    assert_eq!(command(&["walk"]).output().unwrap().status.code(), Some(2));
}
