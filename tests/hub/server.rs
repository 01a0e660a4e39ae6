//! A hub on this machine: the endpoints that a model is fetched through, and a second host that it
//! sends to for large files. What it does wrong is told to it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};
use thalweg::Hub;

pub(crate) const REPO: &str = "river/thalweg";
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the hub has, and what goes wrong with it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hosted {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) hashes: BTreeMap<String, String>,
    /// The commit that `main` is.
    pub(crate) commit: String,
    /// Without this token everything is refused.
    pub(crate) token: Option<String>,
    /// Files and listings ("api") refused with a status and an error code.
    pub(crate) refused: BTreeMap<String, (u16, &'static str)>,
    /// So many next answers about anything are 503.
    pub(crate) busy: usize,
    /// The connection is dropped after so many bytes of a file, the next so many times.
    pub(crate) dropped: Option<(String, usize, usize)>,
    /// This file is sent with its last byte changed.
    pub(crate) damaged: Option<String>,
    /// This file is said to have so many bytes.
    pub(crate) claimed: Option<(String, u64)>,
    /// This file has this etag.
    pub(crate) etag: Option<(String, String)>,
    /// Nothing comes after the headers of this file.
    pub(crate) stalled: Option<String>,
    /// The second host sends whole files whatever is asked.
    pub(crate) rangeless: bool,
    /// Writes a file here once half of the weights are sent: an interrupt.
    pub(crate) interrupt: Option<PathBuf>,
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) token: Option<String>,
    pub(crate) range: Option<String>,
    /// Whether the second host was asked.
    pub(crate) elsewhere: bool,
}

/// The two hosts, up until dropped.
#[derive(Debug)]
pub(crate) struct Server {
    hosted: Arc<Mutex<Hosted>>,
    requests: Arc<Mutex<Vec<Request>>>,
    addresses: [String; 2],
}

impl Hosted {
    /// Every file of a model's directory.
    pub(crate) fn of(dir: &Path) -> Self {
        let entries = std::fs::read_dir(dir).unwrap().flatten();
        let mut hosted = Hosted { commit: COMMIT.to_owned(), ..Hosted::default() };
        for path in entries.map(|entry| entry.path()).filter(|path| path.is_file()) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            hosted.put(&name, std::fs::read(&path).unwrap());
        }
        hosted
    }

    pub(crate) fn etag(&self, file: &str) -> String {
        let other = self.etag.as_ref().filter(|(name, _)| name == file);
        other.map(|(_, etag)| etag).unwrap_or(&self.hashes[file]).clone()
    }

    /// Has a file, or another one under its name.
    pub(crate) fn put(&mut self, file: &str, bytes: Vec<u8>) {
        self.hashes.insert(file.to_owned(), hash(file, &bytes));
        self.files.insert(file.to_owned(), bytes);
    }
}

/// SHA-256 of large files, another hash of the small ones.
fn hash(file: &str, bytes: &[u8]) -> String {
    let hash: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if is_large(file) { hash } else { hash[..40].to_owned() }
}

fn is_large(file: &str) -> bool {
    file.ends_with(".safetensors") || file == "tokenizer.json"
}

impl Server {
    pub(crate) fn new(hosted: Hosted) -> Self {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let addresses = [0, 1].map(|i| format!("http://{}", listeners[i].local_addr().unwrap()));
        let (hosted, requests) = (Arc::new(Mutex::new(hosted)), Arc::default());
        for (elsewhere, listener) in [false, true].into_iter().zip(listeners) {
            let host = Host {
                hosted: Arc::clone(&hosted),
                requests: Arc::clone(&requests),
                second: addresses[1].clone(),
                elsewhere,
            };
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let host = host.clone();
                    std::thread::spawn(move || host.answer(stream));
                }
            });
        }
        Server { hosted, requests, addresses }
    }

    /// What asks this server, with a cache in `dir`.
    pub(crate) fn hub(&self, dir: &Path) -> Hub {
        Hub {
            endpoint: self.addresses[0].clone(),
            cache: dir.join("hub"),
            token: None,
            offline: false,
            update: false,
            timeout: Duration::from_secs(30),
            pause: Duration::from_millis(5),
        }
    }

    /// Changes what the hub has or does.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Hosted)) {
        change(&mut self.hosted.lock().unwrap());
    }

    /// What was asked since this was called last.
    pub(crate) fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }
}

#[derive(Debug, Clone)]
struct Host {
    hosted: Arc<Mutex<Hosted>>,
    requests: Arc<Mutex<Vec<Request>>>,
    second: String,
    elsewhere: bool,
}

impl Host {
    fn answer(&self, stream: TcpStream) {
        let Some(request) = self.read(&stream) else { return };
        self.requests.lock().unwrap().push(request.clone());
        let hosted = {
            let mut hosted = self.hosted.lock().unwrap();
            let now = hosted.clone();
            hosted.busy = hosted.busy.saturating_sub(1);
            now
        };
        let told = hosted.token.as_ref().map(|token| format!("Bearer {token}"));
        if hosted.busy > 0 {
            respond(&stream, 503, &[], b"");
        } else if !self.elsewhere && hosted.token.is_some() && request.token != told {
            respond(&stream, 401, &[("X-Error-Code", "RepoNotFound".into())], b"");
        } else {
            self.serve(&stream, &request, &hosted);
        }
    }

    fn read(&self, stream: &TcpStream) -> Option<Request> {
        let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
        let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
        let mut request = Request { path, token: None, range: None, elsewhere: self.elsewhere };
        for line in lines {
            let line = line.ok()?;
            let Some((name, value)) = line.split_once(": ") else { break };
            match name.to_lowercase().as_str() {
                "authorization" => request.token = Some(value.to_owned()),
                "range" => request.range = Some(value.to_owned()),
                _ => {}
            }
        }
        Some(request)
    }

    fn serve(&self, stream: &TcpStream, request: &Request, hosted: &Hosted) {
        let path = request.path.as_str();
        let listing = format!("/api/models/{REPO}/revision/");
        let resolved = format!("/{REPO}/resolve/{}/", hosted.commit);
        if let Some(revision) = path.strip_prefix(&listing) {
            self.list(stream, revision, hosted);
        } else if let Some(file) = path.strip_prefix(&resolved) {
            self.resolve(stream, file, request, hosted);
        } else if let Some(file) = path.strip_prefix("/near/").or(path.strip_prefix("/far/")) {
            self.send(stream, file, request, hosted);
        } else {
            respond(stream, 404, &[("X-Error-Code", "RepoNotFound".into())], b"");
        }
    }

    fn list(&self, stream: &TcpStream, revision: &str, hosted: &Hosted) {
        if let Some((status, code)) = hosted.refused.get("api") {
            return respond(stream, *status, &[("X-Error-Code", (*code).into())], b"");
        }
        if ![&hosted.commit, "main", "refs%2Fpr%2F1"].contains(&revision) {
            return respond(stream, 404, &[("X-Error-Code", "RevisionNotFound".into())], b"");
        }
        let siblings = hosted.files.keys().map(|file| json!({"rfilename": file}));
        let siblings = siblings.collect::<Vec<_>>();
        let text = json!({"id": REPO, "sha": hosted.commit, "siblings": siblings}).to_string();
        respond(stream, 200, &[], text.as_bytes());
    }

    /// Large files are on the second host; the others on this one, at another path.
    fn resolve(&self, stream: &TcpStream, file: &str, request: &Request, hosted: &Hosted) {
        if let Some((status, code)) = hosted.refused.get(file) {
            return respond(stream, *status, &[("X-Error-Code", (*code).into())], b"");
        }
        let Some(bytes) = hosted.files.get(file) else {
            return respond(stream, 404, &[("X-Error-Code", "EntryNotFound".into())], b"");
        };
        let commit = ("X-Repo-Commit", hosted.commit.clone());
        let claimed = hosted.claimed.as_ref().filter(|(name, _)| name == file);
        let size = claimed.map_or(bytes.len() as u64, |(_, size)| *size);
        match is_large(file) {
            true => {
                let headers = [
                    commit,
                    ("X-Linked-Etag", format!("\"{}\"", hosted.etag(file))),
                    ("X-Linked-Size", size.to_string()),
                    ("Location", format!("{}/far/{file}?signed=1", self.second)),
                ];
                respond(stream, 302, &headers, b"");
            }
            false if file == "config.json" => {
                respond(stream, 307, &[commit, ("Location", format!("/near/{file}"))], b"");
            }
            false => self.send(stream, file, request, hosted),
        }
    }

    fn send(&self, mut stream: &TcpStream, file: &str, request: &Request, hosted: &Hosted) {
        let file = file.trim_end_matches("?signed=1");
        let mut bytes = hosted.files[file].clone();
        if hosted.damaged.as_deref() == Some(file) {
            *bytes.last_mut().unwrap() ^= 1;
        }
        let claimed = hosted.claimed.as_ref().filter(|(name, _)| name == file);
        let size = claimed.map_or(bytes.len() as u64, |(_, size)| *size);
        let range = request.range.as_ref().filter(|_| !hosted.rangeless || !self.elsewhere);
        let (from, to) = range.map_or((0, bytes.len()), |range| {
            let (from, to) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
            let end = to.parse().map_or(bytes.len(), |to: usize| (to + 1).min(bytes.len()));
            (from.parse().unwrap(), end)
        });
        let part = &bytes[from..to];
        let mut headers = vec![("ETag", format!("W/\"{}\"", hosted.etag(file)))];
        if range.is_some() {
            headers.push(("Content-Range", format!("bytes {from}-{}/{size}", to - 1)));
        }
        let status = if range.is_some() { 206 } else { 200 };
        if part.len() < 2 {
            return respond(stream, status, &headers, part);
        }
        let whole = part.len();
        if hosted.stalled.as_deref() == Some(file) {
            head(stream, status, &headers, whole);
            return std::thread::sleep(Duration::from_secs(120));
        }
        let (now, dropped) = self.dropping(file, part);
        head(stream, status, &headers, whole);
        let half = now.len() / 2;
        let _ = stream.write_all(&now[..half]);
        if let Some(path) = hosted.interrupt.as_ref().filter(|_| file.ends_with(".safetensors")) {
            std::fs::write(path, "").unwrap();
        }
        let _ = stream.write_all(&now[half..]);
        if dropped {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// What is sent before the connection is dropped, if it is.
    fn dropping<'a>(&self, file: &str, part: &'a [u8]) -> (&'a [u8], bool) {
        match &mut self.hosted.lock().unwrap().dropped {
            Some((name, bytes, times)) if name == file && *times > 0 => {
                *times -= 1;
                (&part[..part.len().min(*bytes)], true)
            }
            _ => (part, false),
        }
    }
}

fn respond(mut stream: &TcpStream, status: u16, headers: &[(&str, String)], body: &[u8]) {
    head(stream, status, headers, body.len());
    let _ = stream.write_all(body);
}

fn head(mut stream: &TcpStream, status: u16, headers: &[(&str, String)], length: usize) {
    let mut text = format!("HTTP/1.1 {status} Status\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += &format!("Content-Length: {length}\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(text.as_bytes());
}
