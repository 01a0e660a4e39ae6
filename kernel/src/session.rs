//! The thread that has the notebook's state: it runs cells and answers questions about code, one after the other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use jupyter_protocol::{ExecuteRequest, JupyterMessage, JupyterMessageContent as Content};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;

use crate::engine::Engine;
use crate::failure::Failure;
use crate::front::Front;
use crate::help;
use crate::interrupt::Interrupt;
use crate::message;
use crate::spare;
use crate::start::Start;

/// How long a kernel waits for the next cell before it starts a spare.
const IDLE: Duration = Duration::from_secs(3);

/// What needs the notebook's state.
pub(crate) enum Task {
    /// Go to this folder, with these variables in the environment.
    Enter(String, Vec<(String, String)>),
    /// Answer a front end.
    Request(JupyterMessage),
}

/// A question to the reader, and where the answer goes.
pub(crate) type Question = (JupyterMessage, Sender<String>);

/// The way to ask the reader for a line.
pub(crate) struct Input(UnboundedSender<Question>);

impl Input {
    pub(crate) fn new(sender: UnboundedSender<Question>) -> Input {
        Input(sender)
    }

    /// Asks; the answer is empty where the front end does not allow it, and after an interrupt.
    fn ask(
        &self,
        cell: &JupyterMessage,
        allowed: bool,
        interrupt: &Interrupt,
        prompt: &str,
        password: bool,
    ) -> String {
        if !allowed {
            return String::new();
        }
        let content = json!({ "prompt": prompt, "password": password });
        let (sender, receiver) = channel();
        let _ = self.0.send((message::of(Some(cell), "input_request", content), sender));
        loop {
            match receiver.recv_timeout(Duration::from_millis(200)) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Timeout) if !interrupt.requested() => {}
                Err(_) => return String::new(),
            }
        }
    }
}

/// The notebook's thread.
pub(crate) struct Session {
    start: Arc<Start>,
    front: Front,
    input: Input,
    count: u32,
    waiting: VecDeque<JupyterMessage>,
    /// Whether a front end has ever asked: a spare starts no spare.
    asked: bool,
}

impl Session {
    pub(crate) fn new(start: Arc<Start>, front: Front, input: Input) -> Session {
        Session { start, front, input, count: 0, waiting: VecDeque::new(), asked: false }
    }

    /// Warms up, then serves requests until there are no more.
    pub(crate) fn work(mut self, tasks: &Receiver<Task>) {
        let mut engine =
            self.start.engine(self.front.outputs.clone(), self.front.interrupt.clone());
        if let Err(error) = &engine {
            eprintln!("thalweg-kernel: {error:#}");
        }
        let _ = self.front.iopub.send(message::status(None, "idle"));
        while let Some(request) = self.next(&engine, tasks) {
            let _ = self.front.iopub.send(message::status(Some(&request), "busy"));
            let (kind, content) = match &request.content {
                Content::ExecuteRequest(cell) => {
                    ("execute_reply", self.execute(&mut engine, &request, cell, tasks))
                }
                Content::CompleteRequest(asked) => {
                    let (code, at) = (&asked.code, asked.cursor_pos);
                    ("complete_reply", help::complete(engine.as_mut().ok(), code, at))
                }
                Content::InspectRequest(asked) => {
                    let (code, at) = (&asked.code, asked.cursor_pos);
                    ("inspect_reply", help::inspect(engine.as_mut().ok(), code, at))
                }
                _ => continue,
            };
            let _ = self.front.replies.send(message::of(Some(&request), kind, content));
            let _ = self.front.iopub.send(message::status(Some(&request), "idle"));
        }
    }

    fn next(
        &mut self,
        engine: &anyhow::Result<Engine>,
        tasks: &Receiver<Task>,
    ) -> Option<JupyterMessage> {
        loop {
            if let Some(request) = self.waiting.pop_front() {
                return Some(request);
            }
            let task = match tasks.recv_timeout(IDLE) {
                Err(RecvTimeoutError::Timeout) if self.asked => {
                    spare::start();
                    tasks.recv().ok()?
                }
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return None,
                Ok(task) => task,
            };
            match (task, engine) {
                (Task::Request(request), _) => {
                    self.asked = true;
                    return Some(request);
                }
                (Task::Enter(folder, environment), Ok(engine)) => {
                    if let Err(error) = engine.enter(&folder, environment) {
                        self.front.outputs.note(&format!("{error:#}\n"));
                    }
                }
                (Task::Enter(..), Err(_)) => {} // every cell will say why
            }
        }
    }

    fn execute(
        &mut self,
        engine: &mut anyhow::Result<Engine>,
        request: &JupyterMessage,
        cell: &ExecuteRequest,
        tasks: &Receiver<Task>,
    ) -> Value {
        let counts = cell.store_history && !cell.silent;
        self.count += u32::from(counts);
        let count = self.count;
        if counts {
            self.front.history.add(count, &cell.code);
        }
        if !cell.silent {
            let content = json!({ "code": cell.code, "execution_count": count });
            let _ = self.front.iopub.send(message::public(Some(request), "execute_input", content));
        }
        self.front.outputs.begin(request, count, cell.silent);
        let ask = |prompt: &str, password| {
            self.input.ask(request, cell.allow_stdin, &self.front.interrupt, prompt, password)
        };
        let ran = match engine {
            Ok(engine) => engine.run(&cell.code, count, &ask),
            Err(error) => {
                Err(Failure::new("NotStarted", format!("the kernel did not start: {error:#}")))
            }
        };
        match ran {
            Ok(shown) => {
                if !shown.is_empty() {
                    self.front.outputs.result(&shown);
                }
                // Expressions of a front end's own are not evaluated: a Rust expression may take a minute to compile.
                json!({ "status": "ok", "execution_count": count, "payload": [], "user_expressions": {} })
            }
            Err(failure) => {
                if !cell.silent {
                    let _ = self.front.iopub.send(message::error(request, &failure));
                }
                if cell.stop_on_error {
                    self.abort(tasks);
                }
                let Failure { name, value, traceback } = failure;
                json!({ "status": "error", "execution_count": count, "ename": name, "evalue": value,
                        "traceback": traceback, "payload": [], "user_expressions": {} })
            }
        }
    }

    /// Answers the cells that wait with `aborted`: what they build on did not happen.
    fn abort(&mut self, tasks: &Receiver<Task>) {
        self.waiting.extend(tasks.try_iter().filter_map(|task| match task {
            Task::Request(request) => Some(request),
            Task::Enter(..) => None, // comes before every cell
        }));
        for request in std::mem::take(&mut self.waiting) {
            if !matches!(request.content, Content::ExecuteRequest(_)) {
                self.waiting.push_back(request);
                continue;
            }
            let content = json!({ "status": "aborted", "execution_count": self.count });
            let _ = self.front.iopub.send(message::status(Some(&request), "busy"));
            let _ = self.front.replies.send(message::of(Some(&request), "execute_reply", content));
            let _ = self.front.iopub.send(message::status(Some(&request), "idle"));
        }
    }
}
