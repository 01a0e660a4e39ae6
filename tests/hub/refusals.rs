//! What a hub refuses, and what is refused of it: one line each, before any weights come.

use std::collections::BTreeMap;

use super::server::{COMMIT, Hosted, REPO, Server};
use super::{data, place, tiny};
use crate::support::says;
use thalweg::Hub;

#[test]
fn each_refusal_of_the_hub_says_what_to_do() {
    let dir = place("hub-refused");
    let server = Server::new(tiny());
    let hub = server.hub(&dir);
    let with = Hub { token: Some("hf_x".into()), ..hub.clone() };
    let refuse = |what: &str, status, code| {
        server.change(|hosted| hosted.refused = BTreeMap::from([(what.into(), (status, code))]));
    };
    refuse("api", 401, "RepoNotFound");
    says(hub.model(REPO, None), &[REPO, "without a token (401)", "check the name", "HF_TOKEN"]);
    says(with.model(REPO, None), &[REPO, "does not take the token", "(401)"]);
    refuse("api", 404, "RepoNotFound");
    says(hub.model(REPO, None), &["there is no model river/thalweg at", "check the name"]);
    refuse("api", 404, "");
    says(hub.model(REPO, "v2"), &["no model river/thalweg", "no revision \"v2\""]);
    refuse("config.json", 401, "GatedRepo");
    says(hub.model(REPO, None), &[REPO, "is gated (401)", "accept its terms at", "HF_TOKEN"]);
    refuse("config.json", 403, "GatedRepo");
    says(with.model(REPO, None), &[REPO, "is gated (403)", "whose token this is"]);
    refuse("model.safetensors", 404, "EntryNotFound");
    says(hub.model(REPO, None), &["river/thalweg at main has no model.safetensors"]);
    refuse("config.json", 418, "");
    says(hub.model(REPO, None), &[REPO, "answered 418, expected 200"]);
    server.change(|hosted| hosted.refused.clear());
    says(
        hub.model(REPO, "v9"),
        &["river/thalweg has no revision \"v9\"", "a branch, a tag or a commit"],
    );
    says(hub.model("river/thalwg", None), &["there is no model river/thalwg"]);
    let offline = Hub { offline: true, ..hub };
    says(offline.model(REPO, None), &["river/thalweg at main", "not in the cache", "offline"]);
}

#[test]
fn a_model_that_cannot_be_opened_is_refused_before_its_weights_come() {
    let mut hosted = tiny();
    let config = String::from_utf8(hosted.files["config.json"].clone()).unwrap();
    let other = config.replace("\"llama\"", "\"qwen2\"").replace("LlamaFor", "Qwen2For");
    hosted.put("config.json", other.into_bytes());
    let server = Server::new(hosted);
    says(server.hub(&place("hub-qwen")).model(REPO, None), &[REPO, "model_type", "qwen2", "llama"]);
    let weights = |request: &super::server::Request| request.path.contains("safetensors");
    assert!(!server.requests().iter().any(weights));
}

#[test]
fn pickles_are_never_fetched() {
    let mut hosted = tiny();
    let weights = hosted.files.remove("model.safetensors").unwrap();
    let server = Server::new(hosted.clone());
    let dir = place("hub-pickle");
    let hub = server.hub(&dir);
    says(hub.model(REPO, None), &["there are no weights", "model.safetensors"]);
    for (file, words) in [
        ("pytorch_model.bin", "the weights are in pytorch_model.bin: expected model.safetensors"),
        ("adapter_model.safetensors", "the weights are in adapter_model.safetensors"),
    ] {
        server.change(|now| {
            now.files = hosted.files.clone();
            now.put(file, weights.clone());
        });
        says(hub.model(REPO, None), &[REPO, words, "safetensors"]);
    }
    let asked = server.requests();
    assert!(!asked.iter().any(|request| request.path.contains(".bin")), "{asked:?}");
    server.change(|now| drop(now.files.remove("config.json")));
    says(hub.model(REPO, None), &["no config.json"]);
}

#[test]
fn no_name_leads_out_of_the_cache() {
    let dir = place("hub-traversal");
    let hosted = Hosted::of(&data("golden/mha-bf16-shards"));
    let server = Server::new(hosted.clone());
    let hub = server.hub(&dir);
    for repo in ["", "..", "../x", "a/b/c", "a//b", "/etc", "a/..", "a/.b", "a\\b", "a b", "a--b/c"]
    {
        says(hub.model(repo, None), &["is no name of a model", "org/name"]);
    }
    for revision in ["", "..", "../x", "a/../b", "/etc", "a//b", "a\nb", "a\\b", ".git"] {
        says(hub.model(REPO, revision), &["is no revision"]);
    }
    assert!(server.requests().is_empty());
    let index = "model.safetensors.index.json";
    let text = String::from_utf8(hosted.files[index].clone()).unwrap();
    for shard in ["../../x.safetensors", "/x.safetensors", "a/b.safetensors", "x.bin", ""] {
        let other = text.replace("model-00002-of-00002.safetensors", shard).into_bytes();
        server.change(|now| {
            now.put(index, other);
            now.commit = COMMIT.to_owned();
        });
        says(
            server.hub(&place("hub-shard")).model(REPO, None),
            &["weight_map", "expected the name"],
        );
    }
    server.change(|now| {
        now.files = hosted.files.clone();
        now.etag = Some(("config.json".into(), "../../../../x".into()));
    });
    says(hub.model(REPO, None), &["config.json", "etag", "is no name of a file"]);
    server.change(|now| {
        now.etag = None;
        now.commit = "../../../../../../../../../../../../x/y/z/".to_owned();
    });
    says(hub.model(REPO, None), &["answered no listing"]);
    let outside: Vec<_> = std::fs::read_dir(&*dir).unwrap().flatten().collect();
    assert!(outside.iter().all(|entry| entry.file_name() == "hub"), "{outside:?}");
}
