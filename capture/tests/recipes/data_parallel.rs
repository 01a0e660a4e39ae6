//! `data_parallel.sh` with a stand-in for the server and its workers; `served::replicas` runs it with vLLM itself.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::{bash, program, recipe};
use crate::support::{Folder, ok};

/// A `capture` that notes its words. Its server is a sleep, whose number goes to a file.
const STAND_IN: &str = r#"
    echo "$@" >> "$LOG"
    case $1 in
      serve) echo $$ > "$LOG.pid"; exec sleep 60 ;;
      run) [[ $* == *--worker\ ${FAIL:-none}/* ]] && exit 1; sleep 0.2 ;;
      check) echo "whole" ;;
    esac"#;

/// Answers `/health` with 503 once, then with 200. Returns its port and how often it was asked.
fn health() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, asked) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 512]);
            let up = count.fetch_add(1, Ordering::SeqCst) > 0;
            let status = if up { "200 OK" } else { "503 Service Unavailable" };
            let _ = write!(stream, "HTTP/1.1 {status}\r\n\r\n");
        }
    });
    (port, asked)
}

fn miniature(folder: &Folder, port: u16) -> Command {
    program(&folder.path("capture"), STAND_IN);
    let mut command = bash(&recipe("data_parallel.sh"));
    command.env("CAPTURE", folder.path("capture")).env("PORT", port.to_string());
    command.env("PROMPTS", "prompts.txt").env("MODEL", "a model").env("OUT", folder.path("out"));
    command.env("SHARED", folder.path("")).env("LOG", folder.path("log"));
    command.env("REPLICAS", "2").env("TENSOR", "4").env("WORKERS", "3");
    command
}

fn log(folder: &Folder) -> Vec<String> {
    let text = std::fs::read_to_string(folder.path("log")).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// The server has ended, and its directory is gone.
#[track_caller]
fn nothing_is_left(folder: &Folder) {
    let pid = std::fs::read_to_string(folder.path("log.pid")).unwrap();
    assert!(!PathBuf::from(format!("/proc/{}", pid.trim())).exists());
    let entries = std::fs::read_dir(folder.path("")).unwrap().flatten();
    let left = entries.filter(|e| e.file_name().to_string_lossy().starts_with("residuals."));
    assert_eq!(left.count(), 0);
}

#[test]
fn workers_ask_a_server_that_is_up_and_the_end_is_checked() {
    let folder = Folder::new("replicas");
    let (port, asked) = health();
    let mut command = miniature(&folder, port);
    let start = Instant::now();
    let said = ok(command.env("VLLM_OPTIONS", "--max-model-len 64").args(["--kind", "bf16"]));
    assert!(start.elapsed().as_secs() < 50, "it waited for the server to end by itself");
    assert!(said.ends_with("whole\n"), "{said}");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    let log = log(&folder);
    let serve = &log[0];
    assert!(serve.starts_with("serve a model --shared "), "{serve}");
    let words = "--tensor-parallel 4 --data-parallel 2 -- --max-model-len 64";
    assert!(serve.ends_with(&format!("--port {port} {words}")), "{serve}");
    let mut shares: Vec<_> = log[1..4].iter().map(|run| run.split("--worker ").nth(1)).collect();
    shares.sort();
    assert_eq!(shares, ["0/3 --kind bf16", "1/3 --kind bf16", "2/3 --kind bf16"].map(Some));
    let server = format!("--server http://127.0.0.1:{port} --shared ");
    assert!(log[1..4].iter().all(|run| run.contains(&server)), "{log:?}");
    assert!(log[4].starts_with("check "), "{log:?}");
    nothing_is_left(&folder);
}

#[test]
fn a_worker_that_fails_is_told_and_the_server_ends_all_the_same() {
    let folder = Folder::new("replicas-fail");
    let (port, _) = health();
    let output = miniature(&folder, port).env("FAIL", "1").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("1 of 3 workers failed"), "{error}");
    assert!(!log(&folder).iter().any(|line| line.starts_with("check")));
    nothing_is_left(&folder);
}

#[test]
fn a_server_that_does_not_come_up_ends_the_script() {
    let folder = Folder::new("replicas-dead");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = miniature(&folder, port);
    program(&folder.path("capture"), "exit 3");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("the server ended before it was up"), "{error}");
}
