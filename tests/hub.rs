//! Models fetched by name, from a hub on this machine.

mod faults;
mod refusals;
mod server;
mod settings;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use thalweg::tch::{Device, Kind};
use thalweg::{Model, Plan};

use crate::support::{same, says, scratch};
use server::{COMMIT, Hosted, REPO, Server};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name)
}

/// A directory for a cache, which holds a model or two: removed at the end.
struct Scratch(PathBuf);

impl std::ops::Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn place(name: &str) -> Scratch {
    Scratch(scratch(name))
}

/// Hashed once: that takes a while without optimisation.
static TINY: LazyLock<Hosted> = LazyLock::new(|| Hosted::of(&data("models/tiny-world")));

fn tiny() -> Hosted {
    TINY.clone()
}

/// The same model, to the bit.
fn alike(a: &Model, b: &Model) {
    assert_eq!(a.weights_hash(), b.weights_hash());
    let tokens = thalweg::Tokens::from_ids(&[vec![1, 2, 3, 4]]).unwrap();
    let [a, b] = [a, b].map(|model| model.run(&tokens, &Plan::new()).unwrap().logits);
    assert!(same(&a, &b), "the logits differ");
}

fn snapshot(dir: &Path) -> PathBuf {
    dir.join("hub/models--river--thalweg/snapshots").join(COMMIT)
}

#[test]
fn a_model_is_fetched_once_and_is_the_one_the_hub_has() {
    let dir = place("hub-whole");
    let server = Server::new(tiny());
    let hub = server.hub(&dir);
    let model = hub.model(REPO, None).unwrap();
    alike(&model, &Model::load(data("models/tiny-world")).unwrap());
    assert!(model.tokens("the").is_ok(), "the tokenizer came too");
    assert!(format!("{model:?}").contains(&format!("{REPO} at {COMMIT}")), "{model:?}");
    let asked = server.requests();
    let named = |file: &str| asked.iter().any(|request| request.path.contains(file));
    assert!(named("config.json") && named("tokenizer.json"));
    assert!(!named("README") && !named("training_log"), "only what makes a model is fetched");
    for revision in [None, Some("main"), Some(COMMIT)] {
        alike(&model, &hub.model(REPO, revision).unwrap());
    }
    assert!(server.requests().is_empty(), "what the cache holds whole asks no network");
    let offline = thalweg::Hub { offline: true, endpoint: "http://127.0.0.1:1".into(), ..hub };
    alike(&model, &offline.model(REPO, "main").unwrap());
    let half = offline.model_on(REPO, None, Device::Cpu, Kind::BFloat16).unwrap();
    assert_eq!(half.kind(), Kind::BFloat16);
    says(offline.model_on(REPO, None, Device::Cpu, Kind::Int), &["kind Int", "Float"]);
}

#[test]
fn shards_are_fetched_by_their_index() {
    let dir = place("hub-shards");
    let server = Server::new(Hosted::of(&data("golden/mha-bf16-shards")));
    let model = server.hub(&dir).model(REPO, COMMIT).unwrap();
    alike(&model, &Model::load(data("golden/mha-bf16-shards")).unwrap());
    server.requests();
    assert!(server.hub(&dir).model(REPO, COMMIT).is_ok());
    assert!(server.requests().is_empty(), "a commit never moves");
    fs::remove_file(snapshot(&dir).join("model-00002-of-00002.safetensors")).unwrap();
    let offline = thalweg::Hub { offline: true, ..server.hub(&dir) };
    says(offline.model(REPO, COMMIT), &["model-00002-of-00002.safetensors is not in the cache"]);
}

#[cfg(unix)]
#[test]
fn the_cache_has_the_layout_that_python_writes_and_reads() {
    let dir = place("hub-layout");
    let hosted = tiny();
    let server = Server::new(hosted.clone());
    server.hub(&dir).fetch(REPO, "refs/pr/1").unwrap();
    let root = dir.join("hub/models--river--thalweg");
    assert_eq!(fs::read_to_string(root.join("refs/refs/pr/1")).unwrap(), COMMIT);
    for file in ["config.json", "model.safetensors"] {
        let target = fs::read_link(snapshot(&dir).join(file)).unwrap();
        assert_eq!(target, Path::new("../../blobs").join(hosted.etag(file)));
        assert_eq!(fs::read(snapshot(&dir).join(file)).unwrap(), hosted.files[file]);
    }
    assert!(root.join(".no_exist").join(COMMIT).join("chat_template.jinja").is_file());
    // Another program's copy: config and weights, and nobody asked for a tokenizer.
    let base = place("hub-other");
    let other = base.join("hub/models--river--thalweg");
    for dir in ["blobs", "refs", &format!("snapshots/{COMMIT}")] {
        fs::create_dir_all(other.join(dir)).unwrap();
    }
    fs::write(other.join("refs/main"), COMMIT).unwrap();
    for file in ["config.json", "model.safetensors"] {
        let blob = other.join("blobs").join(hosted.etag(file));
        fs::write(&blob, &hosted.files[file]).unwrap();
        let link = other.join("snapshots").join(COMMIT).join(file);
        std::os::unix::fs::symlink(Path::new("../../blobs").join(hosted.etag(file)), link).unwrap();
    }
    let offline = thalweg::Hub { offline: true, ..server.hub(&base) };
    says(offline.model(REPO, None).unwrap().tokens("the"), &["no tokenizer.json"]);
    let gone = thalweg::Hub { endpoint: "http://127.0.0.1:1".into(), ..server.hub(&base) };
    assert!(gone.model(REPO, None).is_ok(), "without a network what there is must do");
    server.requests();
    assert!(server.hub(&base).model(REPO, None).unwrap().tokens("the").is_ok());
    let asked = server.requests();
    let weights = asked.iter().filter(|request| request.path.contains("/far/model.safetensors"));
    assert!(weights.count() <= 1, "the weights were there: at most their size is asked");
}

#[test]
fn a_branch_is_asked_again_when_told_to() {
    let dir = place("hub-update");
    let server = Server::new(tiny());
    let hub = server.hub(&dir);
    let old = hub.fetch(REPO, None).unwrap();
    let next = COMMIT.chars().rev().collect::<String>();
    server.change(|hosted| hosted.commit = next.clone());
    assert_eq!(hub.fetch(REPO, None).unwrap(), old);
    server.requests();
    let update = thalweg::Hub { update: true, ..hub.clone() };
    assert!(update.fetch(REPO, None).unwrap().ends_with(&next));
    let weights = |request: &server::Request| {
        request.path.contains("/far/model.safetensors")
            && request.range.as_deref() != Some("bytes=0-0")
    };
    assert!(!server.requests().iter().any(weights), "the same contents are not fetched twice");
    assert!(hub.fetch(REPO, None).unwrap().ends_with(&next));
    assert!(old.join("config.json").is_file(), "the old commit is kept");
}

#[test]
fn the_token_goes_to_the_hub_and_to_nobody_else() {
    let dir = place("hub-token");
    let server = Server::new(Hosted { token: Some("hf_river".into()), ..tiny() });
    let hub = thalweg::Hub { token: Some("hf_river".into()), ..server.hub(&dir) };
    hub.model(REPO, None).unwrap();
    let asked = server.requests();
    let (there, here): (Vec<_>, Vec<_>) = asked.iter().partition(|request| request.elsewhere);
    assert!(there.len() > 1 && there.iter().all(|request| request.token.is_none()), "{there:?}");
    assert!(here.iter().all(|request| request.token.as_deref() == Some("Bearer hf_river")));
    assert!(!format!("{hub:?}").contains("hf_river"), "{hub:?}");
    let without = server.hub(&place("hub-token-none"));
    let said = says(without.model(REPO, None), &[REPO, "401", "HF_TOKEN"]);
    assert!(!said.contains("hf_river"), "{said}");
}
