//! Everything a cell prints and shows, passed on to Jupyter as it comes.
//!
//! The library's own messages (`THALWEG_DISPLAY`) are `{"data": {MIME: content}, "metadata": {}, "display_id": id,
//! "update": true}` or `{"clear": true, "wait": true}`; see `src/show` of the library.

use std::io::{BufRead, BufReader};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use jupyter_protocol::JupyterMessage;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;

use crate::failure::Panic;
use crate::message;
use crate::wire::{self, Bundle, Event, Order};

/// How long one waits for a child to answer; it answers in a millisecond unless it is gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// What runs now, and where its outputs go.
#[derive(Clone)]
pub(crate) struct Outputs {
    iopub: UnboundedSender<JupyterMessage>,
    shared: Arc<(Mutex<Shared>, Condvar)>,
}

#[derive(Default)]
struct Shared {
    parent: Option<JupyterMessage>,
    count: u32,
    silent: bool,
    seen: Seen,
    running: bool,
    child: Option<UnixStream>,
    asked: u64,
    answered: u64,
}

/// What a cell's process told about how the cell went.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Panics on the cell's own thread, in order.
    pub(crate) panics: Vec<Panic>,
    /// Errors that left through `?`: the type's name and the message.
    pub(crate) returned: Vec<(String, String)>,
    /// Whether the cell ended by a panic.
    pub(crate) panicked: bool,
    /// Whether the cell ended by an error.
    pub(crate) left: bool,
}

impl Outputs {
    pub(crate) fn new(iopub: UnboundedSender<JupyterMessage>) -> Outputs {
        Outputs { iopub, shared: Arc::default() }
    }

    /// Waits at `path` for the process that runs the cells, and for those that follow it.
    pub(crate) fn listen(&self, path: &Path) -> Result<()> {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path)
            .with_context(|| format!("cannot make the socket {}", path.display()))?;
        let outputs = self.clone();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                outputs.read(stream);
            }
        });
        Ok(())
    }

    /// From now on what comes belongs to this request.
    pub(crate) fn begin(&self, parent: &JupyterMessage, count: u32, silent: bool) {
        let mut shared = self.lock();
        shared.parent = Some(parent.clone());
        (shared.count, shared.silent, shared.seen) = (count, silent, Seen::default());
    }

    /// What was told about the cell, once everything that it wrote has been passed on.
    pub(crate) fn finish(&self) -> Seen {
        self.sync();
        let mut shared = self.lock();
        shared.running = false;
        let mut seen = std::mem::take(&mut shared.seen);
        // What did not end the cell was caught, or never reached the reader: it is not lost.
        let caught = seen.panics.len() - usize::from(seen.panicked).min(seen.panics.len());
        let warnings: Vec<String> = seen.panics.drain(..caught).map(|panic| panic.line()).collect();
        let passed = seen.returned.len() - usize::from(seen.left).min(seen.returned.len());
        let passed: Vec<String> =
            seen.returned.drain(..passed).map(|(_, text)| format!("{text}\n")).collect();
        for text in warnings.into_iter().chain(passed) {
            self.publish(&shared, "stream", json!({ "name": "stderr", "text": text }));
        }
        seen
    }

    /// Whether the process is inside a cell's code, and not waiting for a compilation.
    pub(crate) fn running(&self) -> bool {
        self.lock().running
    }

    /// Says again that the cell runs.
    pub(crate) fn still_busy(&self) {
        let _ = self.iopub.send(message::status(self.lock().parent.as_ref(), "busy"));
    }

    /// Shows text on the notebook's standard error.
    pub(crate) fn note(&self, text: &str) {
        self.publish(&self.lock(), "stream", json!({ "name": "stderr", "text": text }));
    }

    /// Shows the value of a cell.
    pub(crate) fn result(&self, data: &Bundle) {
        let shared = self.lock();
        let content = json!({ "execution_count": shared.count, "data": data, "metadata": {} });
        self.publish(&shared, "execute_result", content);
    }

    /// Tells the process that runs the cells; without one there is nobody to tell.
    pub(crate) fn order(&self, order: &Order) {
        if let Some(child) = &mut self.lock().child {
            let _ = wire::send(child, order);
        }
    }

    fn sync(&self) {
        let mut shared = self.lock();
        shared.asked += 1;
        let number = shared.asked;
        let Some(child) = &mut shared.child else { return };
        if wire::send(child, &Order::Sync(number)).is_err() {
            return;
        }
        let waiting = |shared: &mut Shared| shared.child.is_some() && shared.answered < number;
        let _ = self.shared.1.wait_timeout_while(shared, PATIENCE, waiting);
    }

    fn read(&self, stream: UnixStream) {
        self.lock().child = stream.try_clone().ok();
        let outputs = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines() {
                let Ok(line) = line else { break };
                match serde_json::from_str(&line) {
                    Ok(event) => outputs.handle(event),
                    Err(error) => eprintln!("thalweg-kernel: not an event ({error}): {line}"),
                }
            }
            let mut shared = outputs.lock();
            (shared.child, shared.running) = (None, false);
            outputs.shared.1.notify_all();
        });
    }

    fn handle(&self, event: Event) {
        let mut shared = self.lock();
        match event {
            Event::Began => shared.running = true,
            Event::Text { stream, text } => {
                self.publish(&shared, "stream", json!({ "name": stream.name(), "text": text }));
            }
            Event::Shown(shown) => self.shown(&shared, shown),
            Event::Bundle(data) => {
                self.publish(&shared, "display_data", json!({ "data": data, "metadata": {} }));
            }
            Event::Result(data) => {
                let content =
                    json!({ "execution_count": shared.count, "data": data, "metadata": {} });
                self.publish(&shared, "execute_result", content);
            }
            Event::Panicked { thread: None, message, place } => {
                shared.seen.panics.push(Panic { message, place });
            }
            Event::Panicked { thread: Some(thread), message, place } => {
                let text = format!("thread {thread} panicked at {place}:\n{message}\n");
                self.publish(&shared, "stream", json!({ "name": "stderr", "text": text }));
            }
            Event::Returned { kind, message } => shared.seen.returned.push((kind, message)),
            Event::Ended { panicked, returned } => {
                (shared.seen.panicked, shared.seen.left) = (panicked, returned);
                shared.running = false;
            }
            Event::Synced(number) => {
                shared.answered = number;
                self.shared.1.notify_all();
            }
        }
    }

    fn shown(&self, shared: &Shared, mut shown: Value) {
        if shown["clear"] == true {
            let wait = shown["wait"] == true;
            return self.publish(shared, "clear_output", json!({ "wait": wait }));
        }
        let kind = if shown["update"] == true { "update_display_data" } else { "display_data" };
        let transient = match shown["display_id"].take() {
            Value::Null => json!({}),
            id => json!({ "display_id": id }),
        };
        let metadata = Some(shown["metadata"].take()).filter(Value::is_object).unwrap_or(json!({}));
        let data = Some(shown["data"].take()).filter(Value::is_object).unwrap_or(json!({}));
        self.publish(
            shared,
            kind,
            json!({ "data": data, "metadata": metadata, "transient": transient }),
        );
    }

    fn publish(&self, shared: &Shared, kind: &str, content: Value) {
        if !shared.silent {
            let _ = self.iopub.send(message::public(shared.parent.as_ref(), kind, content));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
