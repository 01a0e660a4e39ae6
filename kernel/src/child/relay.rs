//! Takes over standard output and standard error of the process that runs the cells, and tells the kernel what comes.

use std::env;
use std::fs::File;
use std::io::{self, BufRead, BufReader, PipeReader, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::scan::{Blocks, PANIC, Piece, RETURNED, Scanner};
use crate::wire::{self, Event, Order, Stream};

/// Text that comes in quick succession is put together, while there is no longer pause than this and at most for so
/// many pieces: Jupyter takes a thousand messages a second, and standard error comes word by word.
const PAUSE: i32 = 2; // milliseconds
const PIECES: usize = 16;

/// How long one waits for the last output of a cell: another process that it started may hold the pipe.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a cell ended.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct End {
    pub(super) panicked: bool,
    pub(super) returned: bool,
}

/// The way to the kernel and to evcxr.
#[derive(Clone)]
pub(super) struct Relay {
    kernel: Arc<Mutex<UnixStream>>,
    evcxr: Arc<Mutex<File>>,
    ends: Arc<Mutex<Receiver<End>>>,
    end_line: Arc<str>,
}

impl Relay {
    /// Redirects the two streams into pipes and starts reading them.
    pub(super) fn start() -> Result<Relay> {
        let path = env::var("THALWEG_OUTPUT").context("THALWEG_OUTPUT is not set")?;
        let mark = env::var("THALWEG_DISPLAY").context("THALWEG_DISPLAY is not set")?;
        let kernel = UnixStream::connect(&path).with_context(|| format!("no kernel at {path}"))?;
        let orders = kernel.try_clone()?;
        // SAFETY: a copy of this process's standard output, owned by nobody else.
        let evcxr = unsafe { File::from_raw_fd(checked(libc::dup(1))?) };
        // Programs that cells start must not keep evcxr's pipe open.
        // SAFETY: sets a flag of a descriptor that is open.
        checked(unsafe { libc::fcntl(evcxr.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) })?;
        let (sender, receiver) = channel();
        let relay = Relay {
            kernel: Arc::new(Mutex::new(kernel)),
            evcxr: Arc::new(Mutex::new(evcxr)),
            ends: Arc::new(Mutex::new(receiver)),
            end_line: format!("{mark}{}\n", json!({ "end": true })).into(),
        };
        for (stream, number) in [(Stream::Stdout, 1), (Stream::Stderr, 2)] {
            let pipe = redirect(number)?;
            let reader = Reader {
                relay: relay.clone(),
                stream,
                scanner: Scanner::new(&mark),
                blocks: Blocks::default(),
                end: End::default(),
                ends: sender.clone(),
            };
            std::thread::spawn(move || reader.read(pipe));
        }
        let listening = relay.clone();
        std::thread::spawn(move || listening.obey(orders));
        Ok(relay)
    }

    /// Tells the kernel. If it is gone there is nobody to tell, and this process ends with it.
    pub(super) fn tell(&self, event: &Event) {
        let _ = wire::send(&mut *lock(&self.kernel), event);
    }

    /// Writes a line that evcxr reads.
    pub(super) fn to_evcxr(&self, line: &str) -> Result<()> {
        writeln!(lock(&self.evcxr), "{line}").context("evcxr no longer listens")
    }

    /// Waits until all that was written so far has been read.
    pub(super) fn drain(&self) -> Result<End> {
        let mut all = End::default();
        for number in [1, 2] {
            // SAFETY: writes bytes to an open descriptor; short enough for a pipe to take at once.
            checked(unsafe {
                libc::write(number, self.end_line.as_ptr().cast(), self.end_line.len()) as i32
            })?;
            if let Ok(end) = lock(&self.ends).recv_timeout(PATIENCE) {
                all.panicked |= end.panicked;
                all.returned |= end.returned;
            }
        }
        Ok(all)
    }

    fn obey(&self, orders: UnixStream) {
        for line in BufReader::new(orders).lines() {
            match line.ok().and_then(|line| serde_json::from_str(&line).ok()) {
                Some(Order::Sync(number)) => self.tell(&Event::Synced(number)),
                Some(Order::Enter { folder, environment }) => {
                    let _ = env::set_current_dir(&folder);
                    for (name, value) in environment {
                        // SAFETY: given before the first cell of a notebook runs, when nothing reads variables.
                        unsafe { env::set_var(name, value) }
                    }
                }
                None => break,
            }
        }
        // The kernel is gone. A cell may be in the middle of libtorch: nothing is torn down under it.
        // SAFETY: ends the process.
        unsafe { libc::_exit(0) }
    }
}

/// Makes the descriptor the writing end of a new pipe.
fn redirect(number: i32) -> Result<PipeReader> {
    let (reader, writer) = io::pipe()?;
    // SAFETY: both descriptors are open; the copy takes the place of the stream.
    checked(unsafe { libc::dup2(writer.as_raw_fd(), number) })?;
    Ok(reader)
}

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether there is something to read, now or within so many milliseconds.
fn more_within(pipe: &PipeReader, milliseconds: i32) -> bool {
    let mut wanted = libc::pollfd { fd: pipe.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one descriptor, which is open, in a structure of this frame.
    unsafe { libc::poll(&mut wanted, 1, milliseconds) > 0 }
}

/// Reads one of the two streams.
struct Reader {
    relay: Relay,
    stream: Stream,
    scanner: Scanner,
    blocks: Blocks,
    end: End,
    ends: Sender<End>,
}

impl Reader {
    fn read(mut self, mut pipe: PipeReader) {
        let mut buffer = vec![0; 1 << 16];
        let mut bytes = Vec::new();
        while let Ok(length) = pipe.read(&mut buffer)
            && length > 0
        {
            bytes.extend_from_slice(&buffer[..length]);
            for _ in 0..PIECES {
                if bytes.ends_with(self.relay.end_line.as_bytes()) || !more_within(&pipe, PAUSE) {
                    break;
                }
                match pipe.read(&mut buffer) {
                    Ok(length) if length > 0 => bytes.extend_from_slice(&buffer[..length]),
                    _ => break,
                }
            }
            for piece in self.scanner.feed(&bytes) {
                self.pass(piece);
            }
            bytes.clear();
        }
    }

    fn pass(&mut self, piece: Piece) {
        match piece {
            Piece::Text(text) => {
                self.show_open();
                self.relay.tell(&Event::Text { stream: self.stream, text });
            }
            Piece::Block(mime, content) => {
                if let Some(before) = self.blocks.add(mime, content) {
                    self.relay.tell(&Event::Bundle(before));
                }
            }
            Piece::Marked(value) => self.marked(value),
            Piece::Marker(line) => {
                self.end.panicked |= line == PANIC;
                self.end.returned |= line == RETURNED;
                let _ = self.relay.to_evcxr(&line);
            }
        }
    }

    fn marked(&mut self, value: Value) {
        if value["end"] == true {
            if let Some(result) = self.blocks.take() {
                self.relay.tell(&Event::Result(result));
            }
            let _ = self.ends.send(std::mem::take(&mut self.end));
        } else if value["returned"].is_object() {
            let word = |name: &str| value["returned"][name].as_str().unwrap_or_default().to_owned();
            self.relay.tell(&Event::Returned { kind: word("kind"), message: word("message") });
        } else {
            self.show_open();
            self.relay.tell(&Event::Shown(value));
        }
    }

    fn show_open(&mut self) {
        if let Some(bundle) = self.blocks.take() {
            self.relay.tell(&Event::Bundle(bundle));
        }
    }
}
