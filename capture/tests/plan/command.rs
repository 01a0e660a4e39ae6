//! `capture plan`, as a person calls it.

use std::process::{Command, Output};

use serde_json::Value;
use thalweg_capture::plan::{Keep, Machine, Question, Route, Shape, assumptions, estimate, page};

use crate::support::{Folder, content, lines, ok, run, world};

fn capture(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_capture")).arg("plan").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_table_names_every_route_and_what_to_do_where_one_stops() {
    let output = capture(&["--model", "70b", "--tokens", "1e8"]);
    assert!(output.status.success());
    let table = text(&output.stdout);
    for words in
        ["local, one device", "local, layers spread", "vLLM, tensor parallel", "vLLM, replicas"]
    {
        assert!(table.contains(words), "{words} in\n{table}");
    }
    assert!(table.contains("71 G parameters, 141 GB of weights"), "{table}");
    assert!(table.contains("a device needs 148 GB, has 127 GB"), "{table}");
    assert!(table.contains("instead"), "{table}");
    assert!(table.lines().all(|line| line.chars().count() < 180), "{table}");
}

#[test]
fn a_directory_of_ones_own_and_json() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/models/tiny-world");
    let output = capture(&["--model", dir, "--tokens", "1e6", "--hardware", "cpu", "--json"]);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["model"], "tiny-world");
    assert_eq!(value["routes"].as_array().unwrap().len(), 4);
    assert_eq!(value["routes"][0]["stops"], Value::Array(Vec::new()));
    assert_eq!(value["routes"][0]["disk_bytes"], 1e6 * (5.0 * 128.0 * 4.0 + assumptions::INDEX));
}

#[test]
fn a_capture_takes_the_bytes_that_the_plan_says() {
    let folder = Folder::new("planned");
    let prompts = folder.write("prompts.txt", &lines(600).join("\n"));
    let sites = ["--sites", "hook_embed,hook_resid_post", "--positions"];
    let shape = Shape::named(world().to_str().unwrap()).unwrap();
    for (positions, keep) in [("all", Keep::Residuals), ("last", Keep::Last)] {
        let out = folder.path(positions);
        ok(run(&prompts, &out, &sites).arg(positions));
        let manifest = std::fs::read_to_string(out.join("capture.json")).unwrap();
        let totals = &serde_json::from_str::<Value>(&manifest).unwrap()["totals"];
        let [n, tokens] = ["prompts", "tokens"].map(|key| totals[key].as_f64().unwrap());
        let question = Question { tokens, length: tokens / n, keep };
        let planned = estimate(&shape, &Machine::cpu(), Route::Local, question).disk;
        let found: usize = content(&out).iter().map(|(_, bytes)| bytes.len()).sum();
        let share = found as f64 / planned;
        assert!((0.99..1.02).contains(&share), "{positions}: {found} bytes, planned {planned}");
    }
}

#[test]
fn a_smaller_disk_stops_earlier() {
    let disk = |size: &str| text(&capture(&["--tokens", "1e7", "--disk", size]).stdout);
    assert!(!disk("1e13").contains("of disk, have"));
    assert!(disk("1e12").contains("2.7 TB of disk, have 1.0 TB"), "{}", disk("1e12"));
}

#[test]
fn what_makes_no_sense_is_one_line_that_names_it() {
    let says = |arguments: &[&str], code: i32, words: &[&str]| {
        let output = capture(arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{error}");
        for word in words {
            assert!(error.contains(word), "{word} in {error}");
        }
        assert!(code == 2 || error.lines().count() == 1, "{error}");
    };
    says(&["--model", "9b"], 1, &["no model \"9b\"", "405b", "config.json"]);
    says(&["--tokens", "0"], 1, &["--tokens 0", "above 0"]);
    says(&["--tokens", "nan"], 1, &["--tokens NaN"]);
    says(&["--tokens", "10"], 1, &["fewer than --prompt 1024"]);
    says(&["--disk", "-1"], 2, &[]);
    says(&["--keep", "everything"], 2, &["residuals", "statistics"]);
    says(&["--json", "--markdown"], 2, &["cannot be used with"]);
}

#[test]
fn the_page_in_the_repository_is_what_the_code_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/PLAN.md");
    let kept = std::fs::read_to_string(path).unwrap();
    assert!(kept == page(), "PLAN.md is old: cargo capture plan --markdown > capture/PLAN.md");
    assert_eq!(text(&capture(&["--markdown"]).stdout), kept);
}
