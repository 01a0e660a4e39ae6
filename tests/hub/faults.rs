//! What breaks on the way: connections, contents, patience.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::server::{Hosted, REPO, Server};
use super::{alike, data, place, tiny};
use crate::support::child::{case, child, written};
use crate::support::says;
use thalweg::{Hub, Model};

const WEIGHTS: &str = "model.safetensors";

/// The half-fetched contents in a cache.
fn part(dir: &Path, hosted: &Hosted) -> PathBuf {
    let blobs = dir.join("hub/models--river--thalweg/blobs");
    blobs.join(format!("{}.incomplete", hosted.etag(WEIGHTS)))
}

fn ranges(server: &Server) -> Vec<String> {
    let asked = server.requests().into_iter();
    let weights = asked.filter(|request| request.path.contains("/far/model.safetensors"));
    weights.filter_map(|request| request.range).filter(|range| range != "bytes=0-0").collect()
}

#[test]
fn a_dropped_connection_is_taken_up_where_it_broke() {
    let dir = place("hub-dropped");
    let dropped = Some((WEIGHTS.to_owned(), 100_000, 2));
    let server = Server::new(Hosted { dropped, ..tiny() });
    let model = server.hub(&dir).model(REPO, None).unwrap();
    alike(&model, &Model::load(data("models/tiny-world")).unwrap());
    assert_eq!(ranges(&server), ["bytes=100000-", "bytes=200000-"]);
}

#[test]
fn what_a_failed_fetch_left_is_gone_on_with_later() {
    let dir = place("hub-resumed");
    let hosted = tiny();
    let dropped = Some((WEIGHTS.to_owned(), 0, usize::MAX));
    let server = Server::new(Hosted { dropped, ..hosted.clone() });
    let kept = part(&dir, &hosted);
    fs::create_dir_all(kept.parent().unwrap()).unwrap();
    fs::write(&kept, &hosted.files[WEIGHTS][..70_000]).unwrap();
    says(server.hub(&dir).model(REPO, None), &[REPO, WEIGHTS, "stopped", "4 times"]);
    assert_eq!(fs::metadata(&kept).unwrap().len(), 70_000);
    server.change(|hosted| hosted.dropped = None);
    ranges(&server);
    server.hub(&dir).model(REPO, None).unwrap();
    assert_eq!(ranges(&server), ["bytes=70000-"]);
    assert!(!kept.exists());
    // A host without ranges sends all of it again.
    let dir = place("hub-rangeless");
    let kept = part(&dir, &hosted);
    fs::create_dir_all(kept.parent().unwrap()).unwrap();
    fs::write(&kept, &hosted.files[WEIGHTS][..70_000]).unwrap();
    server.change(|hosted| hosted.rangeless = true);
    let model = server.hub(&dir).model(REPO, None).unwrap();
    alike(&model, &Model::load(data("models/tiny-world")).unwrap());
}

#[test]
fn damaged_contents_are_an_error_and_are_not_kept() {
    let dir = place("hub-damaged");
    let server = Server::new(Hosted { damaged: Some(WEIGHTS.into()), ..tiny() });
    let hub = server.hub(&dir);
    says(hub.model(REPO, None), &[REPO, WEIGHTS, "SHA-256", "expected"]);
    assert!(!part(&dir, &tiny()).exists());
    says(Hub { offline: true, ..hub.clone() }.model(REPO, None), &["not in the cache"]);
    server.change(|hosted| hosted.damaged = None);
    hub.model(REPO, None).unwrap();
    // A part that belongs to other contents.
    let dir = place("hub-damaged-part");
    let kept = part(&dir, &tiny());
    fs::create_dir_all(kept.parent().unwrap()).unwrap();
    fs::write(&kept, [7; 1000]).unwrap();
    says(server.hub(&dir).model(REPO, None), &["SHA-256"]);
    assert!(server.hub(&dir).model(REPO, None).is_ok());
}

#[test]
fn a_hub_that_is_busy_is_asked_again_and_not_for_ever() {
    let dir = place("hub-busy");
    let server = Server::new(Hosted { busy: 3, ..tiny() });
    assert!(server.hub(&dir).model(REPO, None).is_ok());
    server.change(|hosted| hosted.busy = 100);
    server.requests();
    let dir = place("hub-busier");
    says(server.hub(&dir).model(REPO, None), &[REPO, "answered 503", "4 times"]);
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn a_silent_host_is_waited_for_no_longer_than_said() {
    let dir = place("hub-silent");
    let server = Server::new(Hosted { stalled: Some(WEIGHTS.into()), ..tiny() });
    let hub = Hub { timeout: Duration::from_millis(500), ..server.hub(&dir) };
    let start = Instant::now();
    says(hub.model(REPO, None), &[REPO, WEIGHTS, "stopped", "4 times"]);
    assert!(start.elapsed() < Duration::from_secs(40), "{:?}", start.elapsed());
    let nobody = Hub { endpoint: "http://127.0.0.1:1".into(), ..hub };
    says(nobody.model(REPO, "v1"), &["river/thalweg at v1", "cannot reach http://127.0.0.1:1"]);
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    for (file, words) in [
        ("config.json", "config.json claims 1000000000000 bytes"),
        (WEIGHTS, "the weights claim 1000000000000 bytes, a Llama of its config.json has at most"),
    ] {
        let dir = place("hub-claims");
        let server =
            Server::new(Hosted { claimed: Some((file.into(), 1_000_000_000_000)), ..tiny() });
        says(server.hub(&dir).model(REPO, None), &[REPO, words]);
    }
    // More than there is, and less.
    let all = tiny().files[WEIGHTS].len() as u64;
    for (size, words) in [(all + 9, "4 times"), (all - 9, "expected")] {
        let dir = place("hub-lies");
        let server = Server::new(Hosted { claimed: Some((WEIGHTS.into(), size)), ..tiny() });
        says(server.hub(&dir).model(REPO, None), &[WEIGHTS, words]);
    }
}

#[test]
fn an_interrupt_stops_a_fetch_and_keeps_what_came() {
    const NAME: &str = "hub::faults::an_interrupt_stops_a_fetch_and_keeps_what_came";
    let dir = place("hub-interrupted");
    if case().is_none() {
        let path = dir.join("interrupt");
        let (out, err) = written(child(NAME, "interrupted", &[("THALWEG_INTERRUPT", &path)]));
        assert!(out.contains("1 passed"), "{out}{err}");
        return;
    }
    let interrupt = PathBuf::from(std::env::var("THALWEG_INTERRUPT").unwrap());
    let hosted = tiny();
    let server = Server::new(Hosted { interrupt: Some(interrupt.clone()), ..hosted.clone() });
    says(server.hub(&dir).model(REPO, None), &["interrupted at", WEIGHTS, "kept"]);
    let kept = fs::metadata(part(&dir, &hosted)).unwrap().len();
    assert!(kept < hosted.files[WEIGHTS].len() as u64);
    server.change(|hosted| hosted.interrupt = None);
    fs::remove_file(interrupt).unwrap();
    ranges(&server);
    assert!(server.hub(&dir).model(REPO, None).is_ok());
    let expected = if kept > 0 { vec![format!("bytes={kept}-")] } else { vec![] };
    assert_eq!(ranges(&server), expected);
}
