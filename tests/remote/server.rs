//! A server on this machine that answers as vLLM does with thalweg's connector: a local model runs the
//! prompt, and its stream is left as a file in the shared directory. What it does wrong is told to it.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use thalweg::anyhow::Result;
use thalweg::tch::Kind;
use thalweg::{Model, Plan, Remote, Tokens};

use super::file::{added, bytes, bytes_of};

/// What goes wrong with one prompt.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The connection is closed without an answer.
    Killed,
    /// The connection is closed within the answer.
    KilledInside,
    /// The answer comes after so long.
    Slow(Duration),
    /// The file comes so long after the answer.
    Late(Duration),
    /// No file comes.
    NoFile,
    /// Word is left that the file could not be written.
    CouldNotWrite(String),
    /// A status, and a message beside it.
    Refused(u16, String),
    /// This text instead of JSON.
    Says(String),
    /// So many bytes of an answer.
    Endless(usize),
    /// Without parameters of the connector.
    NoStates,
    /// The file has only so many bytes.
    Truncated(usize),
    /// The file claims so many bytes more, none of them on the disk.
    Inflated(u64),
    /// These bytes are the file.
    Bytes(Vec<u8>),
    /// The file is named so in the answer.
    Named(String),
    /// The file is a link to this.
    Link(PathBuf),
    /// A folder has the file's name.
    Folder,
    /// The states of these ids, under the name of the prompt's own.
    StatesOf(Vec<i64>),
    /// The file of these ids.
    FileOf(Vec<i64>),
    /// One state less than before.
    FewerStates,
    /// The states in another kind.
    Kind(Kind),
    /// What is to be added to the stream is ignored.
    Unsteered,
    /// An entry of the metadata is changed.
    Note(&'static str, String),
}

#[derive(Debug)]
pub(crate) struct State {
    model: Model,
    faults: VecDeque<Fault>,
    /// Which states are shown.
    pub(crate) states: Vec<usize>,
    /// What prompts were asked for.
    asked: Vec<Vec<i64>>,
    /// The most prompts that were under way at once.
    most: usize,
    now: usize,
    pub(crate) longest: usize,
    /// Whether vectors can be added to the stream.
    pub(crate) steers: bool,
    /// Salts of the requests that asked for that.
    pub(crate) salts: Vec<String>,
    /// Before each answer.
    pub(crate) pause: Duration,
}

/// Up until the test ends.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    state: Arc<Mutex<State>>,
    pub(crate) url: String,
    pub(crate) shared: PathBuf,
}

impl Server {
    /// Serves a model, leaving its files in `shared`.
    pub(crate) fn new(model: &Model, shared: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = State {
            model: model.clone(),
            faults: VecDeque::new(),
            states: (0..=model.config().n_layers).collect(),
            asked: Vec::new(),
            most: 0,
            now: 0,
            longest: 64,
            steers: false,
            salts: Vec::new(),
            pause: Duration::ZERO,
        };
        let server = Server { state: Arc::new(Mutex::new(state)), url, shared: shared.to_owned() };
        let own = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let own = own.clone();
                std::thread::spawn(move || own.answer(stream));
            }
        });
        server
    }

    /// Connected before anything goes wrong.
    pub(crate) fn remote(&self) -> Remote {
        Remote::connect(&self.url, &self.shared).unwrap()
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    /// What goes wrong with the next prompts, one after the other.
    pub(crate) fn faults(&self, faults: impl IntoIterator<Item = Fault>) {
        self.change(|state| state.faults = faults.into_iter().collect());
    }

    /// Prompts asked for since this was called last.
    pub(crate) fn asked(&self) -> Vec<Vec<i64>> {
        self.change(|state| std::mem::take(&mut state.asked))
    }

    /// The most prompts that were under way at once.
    pub(crate) fn most(&self) -> usize {
        self.change(|state| state.most)
    }

    /// Names of what lies in the shared directory.
    pub(crate) fn left(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(&self.shared)
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn answer(&self, stream: TcpStream) {
        let Some((path, body)) = read(&stream) else { return };
        match path.as_str() {
            "/v1/models" => {
                let longest = self.change(|state| state.longest);
                let model = json!({"id": "tiny", "max_model_len": longest});
                respond(&stream, 200, json!({"data": [model]}).to_string().as_bytes());
            }
            "/v1/completions" => {
                self.change(|state| {
                    state.now += 1;
                    state.most = state.most.max(state.now);
                });
                let _ = self.complete(&stream, &body);
                self.change(|state| state.now -= 1);
            }
            _ => respond(&stream, 404, br#"{"error": {"message": "Not Found"}}"#),
        }
    }

    fn complete(&self, stream: &TcpStream, body: &Value) -> Result<()> {
        assert_eq!(body["model"], "tiny");
        let ids: Vec<i64> = serde_json::from_value(body["prompt"].clone())?;
        let n = body["max_tokens"].as_u64().unwrap() as usize;
        let (fault, model, states, number, pause) = self.change(|state| {
            state.asked.push(ids.clone());
            let fault = state.faults.pop_front();
            (fault, state.model.clone(), state.states.clone(), state.asked.len(), state.pause)
        });
        std::thread::sleep(pause);
        let name = format!("{}-{number}-{}.safetensors", ids.len(), stream.peer_addr()?.port());
        let path = self.shared.join(&name);
        let mut file = File { name, path, delay: Duration::ZERO };
        let steers = self.change(|state| state.steers);
        let plan = match body["vllm_xargs"]["apply_steering_vectors"].as_str() {
            Some(text) if steers => {
                self.change(|state| state.salts.push(body["cache_salt"].to_string()));
                added(text)?
            }
            _ => Plan::new(),
        };
        let plan = if matches!(fault, Some(Fault::Unsteered)) { Plan::new() } else { plan };
        let note = if steers { "vllm-lens" } else { "none" };
        let note = match fault {
            Some(Fault::Unsteered) => "none",
            _ => note,
        };
        let own = [("steering", note.to_owned())];
        let plain = |ids: &[i64]| bytes((&model, &plan), ids, ids, &states, None, &own);
        let bytes = match &fault {
            Some(Fault::Killed) => return Ok(stream.shutdown(std::net::Shutdown::Both)?),
            Some(Fault::KilledInside) => return half(stream),
            Some(Fault::Refused(status, message)) => {
                let text = json!({"error": {"message": message}}).to_string();
                respond(stream, *status, text.as_bytes());
                return Ok(());
            }
            Some(Fault::Says(text)) => {
                respond(stream, 200, text.as_bytes());
                return Ok(());
            }
            Some(Fault::Endless(n)) => {
                respond(stream, 200, &vec![b' '; *n]);
                return Ok(());
            }
            Some(Fault::NoStates) => {
                respond(stream, 200, br#"{"choices": []}"#);
                return Ok(());
            }
            Some(Fault::Slow(time)) => {
                std::thread::sleep(*time);
                plain(&ids)?
            }
            Some(Fault::Truncated(n)) => plain(&ids)?[..*n].to_vec(),
            Some(Fault::Bytes(bytes)) => bytes.clone(),
            Some(Fault::StatesOf(other)) => bytes_of(&model, other, &ids, &states)?,
            Some(Fault::FileOf(other)) => plain(other)?,
            Some(Fault::FewerStates) => bytes_of(&model, &ids, &ids, &states[..states.len() - 1])?,
            Some(Fault::Kind(kind)) => {
                bytes((&model, &plan), &ids, &ids, &states, Some(*kind), &[])?
            }
            Some(Fault::Note(key, text)) => {
                bytes((&model, &plan), &ids, &ids, &states, None, &[(*key, text.clone())])?
            }
            _ => plain(&ids)?,
        };
        file.delay = match &fault {
            Some(Fault::Late(time)) => *time,
            _ => Duration::ZERO,
        };
        let written = match n {
            1 => Vec::new(),
            _ => model.generate(&Tokens::from_ids(&[ids])?, n, &plan)?.new.remove(0),
        };
        file.leave(stream, &bytes, fault.as_ref(), &written)
    }
}

/// What is left for one prompt.
struct File {
    name: String,
    path: PathBuf,
    delay: Duration,
}

impl File {
    fn leave(
        &self,
        stream: &TcpStream,
        bytes: &[u8],
        fault: Option<&Fault>,
        written: &[i64],
    ) -> Result<()> {
        let mut name = self.name.clone();
        match fault {
            Some(Fault::NoFile) => {}
            Some(Fault::CouldNotWrite(text)) => {
                fs::write(self.path.with_extension("safetensors.error"), text)?;
            }
            Some(Fault::Link(to)) => std::os::unix::fs::symlink(to, &self.path)?,
            Some(Fault::Folder) => fs::create_dir(&self.path)?,
            Some(Fault::Named(other)) => name = other.clone(),
            Some(Fault::Inflated(n)) => {
                fs::write(&self.path, bytes)?;
                let file = fs::OpenOptions::new().write(true).open(&self.path)?;
                file.set_len(bytes.len() as u64 + n)?; // a hole
            }
            _ if self.delay.is_zero() => put(&self.path, bytes)?,
            _ => {}
        }
        let answer = json!({"choices": [{"token_ids": written}], "kv_transfer_params": {"hidden_states_path": name}});
        respond(stream, 200, answer.to_string().as_bytes());
        if !self.delay.is_zero() {
            std::thread::sleep(self.delay);
            put(&self.path, bytes)?;
        }
        Ok(())
    }
}

/// Under another name until it is whole.
fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = path.with_extension("partial");
    fs::write(&partial, bytes)?;
    Ok(fs::rename(partial, path)?)
}

fn read(stream: &TcpStream) -> Option<(String, Value)> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((path, serde_json::from_slice(&body).unwrap_or_default()))
}

fn respond(mut stream: &TcpStream, status: u16, body: &[u8]) {
    let head = format!(
        "HTTP/1.1 {status} Status\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(body);
}

fn half(mut stream: &TcpStream) -> Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"choices\"")?;
    Ok(stream.shutdown(std::net::Shutdown::Both)?)
}
