//! Jupyter's five sockets. Each request is answered as soon as what it asks for is known: facts about the kernel at
//! once, cells and questions about code by the one thread that has the notebook's state, in the order they came.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jupyter_protocol::{ConnectionInfo, JupyterMessage, JupyterMessageContent as Content};
use jupyter_zmq_client as zmq;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use zeromq::{SocketRecv, SocketSend};

use crate::front::Front;
use crate::history::History;
use crate::interrupt::Interrupt;
use crate::message;
use crate::outputs::Outputs;
use crate::request;
use crate::session::{Input, Question, Session, Task};
use crate::spare::Spare;
use crate::start::Start;

/// Everything that may still be on its way to a front end has left after this long.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// How long a port may stay in use.
const PORT_PATIENCE: Duration = Duration::from_secs(10);

/// Where a kernel learns which sockets are its own.
pub(crate) enum Connection {
    /// In the file that Jupyter names at the start.
    File(PathBuf),
    /// From another kernel's start, later.
    Spare(Spare),
}

/// Warms up, and serves the front ends until one of them asks for the end.
pub(crate) fn run(connection: Connection, start: Start) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let kernel = Arc::new(start);
    let (iopub, published) = unbounded_channel();
    let (replies, answers) = unbounded_channel();
    let (questions, asked) = unbounded_channel();
    let (tasks, task_receiver) = channel();
    let outputs = Outputs::new(iopub.clone());
    let interrupt = Interrupt::new(kernel.interrupt.clone());
    let front = Front { iopub, replies, interrupt, outputs, history: History::default() };
    let session = Session::new(Arc::clone(&kernel), front.clone(), Input::new(questions));
    let _ = front.iopub.send(message::status(None, "starting"));
    std::thread::spawn(move || session.work(&task_receiver));
    let file = match connection {
        Connection::File(file) => file,
        Connection::Spare(spare) => {
            let kernel = Arc::clone(&kernel);
            let handover = spare.wait(move || kernel.end())?;
            let _ = tasks.send(Task::Enter(handover.folder, handover.environment));
            handover.connection
        }
    };
    let connection = read(&file)?;
    runtime.block_on(serve(&connection, &kernel, front, tasks, published, answers, asked))
}

fn read(connection: &Path) -> Result<ConnectionInfo> {
    let text = fs::read_to_string(connection)
        .with_context(|| format!("cannot read {}", connection.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is no connection file", connection.display()))
}

async fn serve(
    connection: &ConnectionInfo,
    kernel: &Start,
    front: Front,
    tasks: Sender<Task>,
    published: UnboundedReceiver<JupyterMessage>,
    answers: UnboundedReceiver<JupyterMessage>,
    asked: UnboundedReceiver<Question>,
) -> Result<()> {
    let session = &kernel.session_id;
    let iopub = bound(|| zmq::create_kernel_iopub_connection(connection, session)).await?;
    let shell = bound(|| zmq::create_kernel_shell_connection(connection, session)).await?;
    let control = bound(|| zmq::create_kernel_control_connection(connection, session)).await?;
    let stdin = bound(|| zmq::create_kernel_stdin_connection(connection, session)).await?;
    let heartbeat = bound(|| zmq::create_kernel_heartbeat_connection(connection)).await?;
    let (shell_writer, mut shell_reader) = shell.split();
    let (control_writer, mut control_reader) = control.split();
    tokio::spawn(write(iopub, published));
    tokio::spawn(write(shell_writer, answers));
    tokio::spawn(ask(stdin, asked));
    tokio::spawn(beat(heartbeat));

    let shell_front = front.clone();
    tokio::spawn(async move {
        loop {
            let Some(request) = next(request::read(&mut shell_reader).await).await else {
                continue;
            };
            match request.content {
                Content::ExecuteRequest(_)
                | Content::CompleteRequest(_)
                | Content::InspectRequest(_) => {
                    let _ = tasks.send(Task::Request(request));
                }
                _ => shell_front.answer(&request),
            }
        }
    });

    let (replies, receiver) = unbounded_channel();
    tokio::spawn(write(control_writer, receiver));
    let control_front = Front { replies, ..front };
    loop {
        let Some(request) = next(request::read(&mut control_reader).await).await else { continue };
        control_front.answer(&request);
        if matches!(request.content, Content::ShutdownRequest(_)) {
            tokio::time::sleep(LAST_WORDS).await;
            kernel.end();
        }
    }
}

/// Binds a socket. After a restart the kernel before may hold the port for a moment longer.
async fn bound<T, F: Future<Output = zmq::Result<T>>>(bind: impl Fn() -> F) -> Result<T> {
    let began = Instant::now();
    loop {
        match bind().await {
            Ok(socket) => return Ok(socket),
            Err(error) if began.elapsed() > PORT_PATIENCE => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// The request, unless it could not be read: it is named in the log, and the kernel goes on.
async fn next(read: zmq::Result<JupyterMessage>) -> Option<JupyterMessage> {
    match read {
        Ok(message) => Some(message),
        Err(error) => {
            eprintln!("thalweg-kernel: a message that cannot be read: {error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
            None
        }
    }
}

/// Sends what the channel brings, in order.
async fn write<S: SocketSend>(
    mut socket: zmq::Connection<S>,
    mut messages: UnboundedReceiver<JupyterMessage>,
) {
    while let Some(message) = messages.recv().await {
        let kind = message.message_type().to_owned();
        if let Err(error) = socket.send(message).await {
            eprintln!(
                "thalweg-kernel: nobody took the {kind}, its notebook is closed or gone: {error}"
            );
        }
    }
}

/// Asks the front end for input and hands the answer back. A question that nobody answers does not stand in the way of
/// the next.
async fn ask<S: SocketSend + SocketRecv>(
    mut socket: zmq::Connection<S>,
    mut questions: UnboundedReceiver<Question>,
) {
    let mut open: Option<Sender<String>> = None;
    loop {
        tokio::select! {
            question = questions.recv() => {
                let Some((question, answer)) = question else { return };
                open = socket.send(question).await.is_ok().then_some(answer);
            }
            reply = socket.read() => {
                if let Ok(message) = reply
                    && let Content::InputReply(reply) = message.content
                    && let Some(answer) = open.take()
                {
                    let _ = answer.send(reply.value);
                }
            }
        }
    }
}

async fn beat(mut heartbeat: zmq::KernelHeartbeatConnection) {
    while let Ok(beat) = heartbeat.socket.recv().await {
        if heartbeat.socket.send(beat).await.is_err() {
            break;
        }
    }
}
