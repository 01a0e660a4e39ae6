//! What goes wrong between a notebook and a server, and what a hostile one tries.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use thalweg::tch::Kind;
use thalweg::{Plan, Point, Remote, Tokens};

use super::server::{Fault, Server};
use super::{assert_equal, prompts, served, stream};
use crate::support::child::{case, child, written};
use crate::support::{message, says};

fn one() -> Tokens {
    Tokens::from_ids(&[vec![1, 2, 3, 4]]).unwrap()
}

/// A server, and a reader of it that has no patience.
fn quick(name: &str) -> (Server, Remote) {
    let (_, _, server) = served(name, Kind::Float);
    let remote = server.remote().time_out(Duration::from_millis(400)).retries(0);
    (server, remote)
}

#[test]
fn a_server_killed_mid_request_is_asked_again_and_not_for_ever() {
    let (_, model, server) = served("fault-killed", Kind::Float);
    let remote = server.remote().retries(2);
    let local = model.run(&prompts(), &stream()).unwrap().cache;
    server.faults([Fault::Killed, Fault::KilledInside, Fault::Refused(503, "starting".into())]);
    assert_equal(&remote.run(&prompts(), &stream()).unwrap(), &local, 1e-5);
    server.asked();
    server.faults(vec![Fault::Killed; 9]);
    says(remote.run(&one(), &stream()), &["prompt 0", &server.url, "cannot be reached", "3 times"]);
    assert_eq!(server.asked().len(), 3);
    server.faults([]);
    assert!(remote.run(&one(), &stream()).is_ok(), "the same connection goes on");
}

#[test]
fn a_slow_server_is_waited_for_no_longer_than_said() {
    let (server, remote) = quick("fault-slow");
    server.faults([Fault::Slow(Duration::from_millis(150))]);
    assert!(remote.run(&one(), &stream()).is_ok());
    server.faults([Fault::Late(Duration::from_millis(150))]);
    assert!(remote.run(&one(), &stream()).is_ok(), "a file may come after the answer");
    let start = Instant::now();
    server.faults([Fault::Slow(Duration::from_secs(20))]);
    says(remote.run(&one(), &stream()), &["no answer within 400ms"]);
    server.faults([Fault::NoFile]);
    let words = ["did not appear within 400ms", "the server's own shared directory?"];
    says(remote.run(&one(), &stream()), &words);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn nobody_there_and_somebody_else_are_told_apart() {
    let shared = served("fault-nobody", Kind::Float).0.join("shared");
    let connect = |url: &str| Remote::connect(url, &shared).map(|_| ());
    says(connect("http://127.0.0.1:1"), &["http://127.0.0.1:1", "cannot be reached", "4 times"]);
    says(connect("localhost:8000"), &["\"localhost:8000\"", "http://localhost:8000"]);
    says(connect("http://a b"), &["expected the address"]);
    let server = Server::new(&served("fault-else", Kind::Float).1, &shared);
    says(connect(&format!("{}/elsewhere", server.url)), &["404", "Not Found", "a vLLM server?"]);
    let slashes = Remote::connect(&format!("{}/v1/", server.url), &shared).unwrap();
    assert_eq!(slashes.url(), server.url);
    let nowhere = Remote::connect(&server.url, shared.join("nowhere"));
    says(nowhere, &["nowhere", "expected the directory in which", &server.url]);
    server.faults([Fault::NoStates]);
    says(connect(&server.url), &["answered without hidden states", "capture serve"]);
}

#[test]
fn refusals_are_told_in_one_plain_line() {
    let (server, remote) = quick("fault-refused");
    let remote = remote.time_out(Duration::from_secs(20));
    let nasty = "no\nsuch\u{1b}[31m <script>model</script>".to_owned() + &"x".repeat(5000);
    server.faults([Fault::Refused(400, nasty)]);
    let text = message(remote.run(&one(), &stream()));
    assert!(text.contains("answered 400: no such[31m <script>model"), "{text}");
    assert!(!text.contains(char::is_control) && text.len() < 500, "{text}");
    server.faults([Fault::CouldNotWrite("disk\nfull".into())]);
    says(remote.run(&one(), &stream()), &["could not write its file: disk full"]);
    server.faults([Fault::Says("not json".into())]);
    says(remote.run(&one(), &stream()), &["no JSON object"]);
    server.faults([Fault::Endless(17 << 20)]);
    says(remote.run(&one(), &stream()), &["more than 16777216 bytes"]);
    assert!(server.left().is_empty(), "{:?}", server.left());
}

#[test]
fn files_that_are_not_what_was_asked_for_are_refused() {
    let (server, remote) = quick("fault-files");
    let note = |key, text: &str| Fault::Note(key, text.to_owned());
    let cases = [
        (Fault::Truncated(400), "is damaged"),
        (Fault::Truncated(5), "shorter than 8 bytes"),
        (Fault::Truncated(1000), "is damaged"),
        (Fault::Bytes(vec![0xff; 64]), "the header claims"),
        (Fault::Bytes(b"\x10\0\0\0\0\0\0\0{\"a\": [1e999]}  ".to_vec()), "is damaged"),
        (Fault::FewerStates, "hidden_states is Float [4, 4, 12], expected Float [4, 5, 12]"),
        (Fault::Kind(Kind::Double), "hidden_states is Double"),
        (Fault::Kind(Kind::BFloat16), "hidden_states is BFloat16"),
        (Fault::FileOf(vec![1, 2, 3]), "hidden_states is Float [3, 5, 12]"),
        (Fault::FileOf(vec![1, 2, 9, 4]), "token 2 is 9, 3 was asked for"),
        (note("format", "hello"), "start the server with `capture serve`"),
        (note("layers", "0,1,2,3,5"), "another server?"),
    ];
    for (fault, words) in cases {
        server.faults([fault.clone()]);
        let text = message(remote.run(&one(), &stream()));
        assert!(text.contains(words) && !text.contains('\n'), "{fault:?}: {text}");
    }
    // What did not prove to be an answer is not removed.
    assert!(!server.left().is_empty());
}

#[test]
fn hostile_sizes_are_refused_before_anything_is_read() {
    let (server, remote) = quick("fault-sizes");
    server.faults([Fault::Inflated(1 << 40)]);
    says(remote.run(&one(), &stream()), &["1099511", "at most"]);
    let header = |text: &str| {
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text.as_bytes());
        Fault::Bytes(bytes)
    };
    let huge = r#"{"hidden_states":{"dtype":"F32","shape":[4,5,4611686018427387904],"data_offsets":[0,9]}}"#;
    for fault in [header(huge), Fault::Bytes(u64::MAX.to_le_bytes().to_vec())] {
        server.faults([fault]);
        says(remote.run(&one(), &stream()), &["is damaged"]);
    }
    let narrow = remote.largest(5000);
    server.asked();
    let words = ["bring 5760 bytes", "at most 5000", ".largest(bytes)"];
    let long = Tokens::from_ids(&[vec![1; 12], vec![2; 12]]).unwrap();
    says(
        narrow.run(&long, &Plan::new().cache(Point::ResidPost).cache(Point::ResidPre.at(0))),
        &words,
    );
    says(
        narrow.run(&Tokens::from_ids(&[vec![1; 64]]).unwrap(), &stream()),
        &["64 tokens", "takes 63"],
    );
    assert!(server.asked().is_empty(), "refused before anything is asked");
}

#[test]
fn only_plain_files_inside_the_shared_directory_are_opened() {
    let (server, remote) = quick("fault-paths");
    let outside = server.shared.parent().unwrap().join("secret.safetensors");
    fs::write(&outside, "secret").unwrap();
    let absolute = outside.display().to_string();
    let names = [
        "../secret.safetensors",
        &absolute,
        "",
        ".",
        "..",
        "a/../../secret.safetensors",
        "/etc/passwd",
        "sub/x.safetensors",
        "x\u{0}y",
        "x\ny",
        "x/",
    ];
    for name in names {
        server.faults([Fault::Named(name.to_owned())]);
        says(remote.run(&one(), &stream()), &["names the file", "directly in"]);
    }
    server.faults([Fault::Link(outside.clone())]);
    says(remote.run(&one(), &stream()), &["is no plain file"]);
    server.faults([Fault::Folder]);
    says(remote.run(&one(), &stream()), &["is no plain file"]);
    server.faults([Fault::Link(PathBuf::from("/dev/zero"))]);
    says(remote.run(&one(), &stream()), &["is no plain file"]);
    assert_eq!(fs::read_to_string(&outside).unwrap(), "secret");
    // A whole path is taken where it leads into the shared directory.
    let mine = server.shared.join("of-somebody.safetensors");
    fs::write(&mine, "mine").unwrap();
    server.faults([Fault::Named(mine.display().to_string())]);
    says(remote.run(&one(), &stream()), &["is damaged"]);
    assert_eq!(fs::read_to_string(&mine).unwrap(), "mine", "not ours to remove");
}

#[test]
fn states_of_another_prompt_do_not_pass_for_these() {
    let (dir, _, server) = served("fault-mixed", Kind::Float);
    let model = server.remote().model(&dir).unwrap();
    server.faults([Fault::StatesOf(vec![1, 2, 9, 4])]);
    let words = ["prompt 0", "does not begin with this model's embeddings", "position 2"];
    says(model.run(&one(), &stream()), &words);
    assert!(model.run(&one(), &stream()).is_ok());
}

#[test]
fn the_first_prompt_that_fails_ends_the_call() {
    let (server, remote) = quick("fault-first");
    let rows: Vec<Vec<i64>> = (0..50).map(|i| vec![i % 20, 1, 2]).collect();
    server.faults(vec![Fault::Refused(400, "no".into()); 50]);
    says(
        remote.in_flight(2).run(&Tokens::from_ids(&rows).unwrap(), &stream()),
        &["answered 400: no"],
    );
    std::thread::sleep(Duration::from_millis(100));
    let asked = server.asked().len();
    assert!(asked < 10, "{asked} prompts were still asked for");
}

#[test]
fn an_interrupt_ends_a_wait_for_the_server() {
    const NAME: &str = "remote::faults::an_interrupt_ends_a_wait_for_the_server";
    if case().is_none() {
        let path = crate::support::scratch("fault-interrupt").join("interrupt");
        let (out, err) = written(child(NAME, "interrupted", &[("THALWEG_INTERRUPT", &path)]));
        assert!(out.contains("1 passed"), "{out}{err}");
        return;
    }
    let interrupt = PathBuf::from(std::env::var("THALWEG_INTERRUPT").unwrap());
    let (_, _, server) = served("fault-interrupted", Kind::Float);
    let remote = server.remote();
    server.faults([Fault::Slow(Duration::from_secs(30))]);
    let start = Instant::now();
    let later = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        fs::write(interrupt, "").unwrap();
    });
    says(remote.run(&one(), &stream()), &["interrupted at prompt 0 of 1", "variables are kept"]);
    later.join().unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}
