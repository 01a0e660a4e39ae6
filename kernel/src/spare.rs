//! A kernel that is warm before anybody asks for it.
//!
//! What makes a kernel slow to start is analysis, not compiling: rust-analyzer reads every source again. So a kernel
//! that has been idle starts one more, which warms up and waits at a socket. The next start or restart under the same
//! Jupyter hands its connection file over to that one and stays only as the process that Jupyter knows: if either
//! ends, so does the other. There is one spare for a Jupyter and a clone; it ends with that Jupyter, starts only where
//! there is memory for it, and never with `THALWEG_SPARE=0`.

use std::collections::HashMap;
use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use thalweg_setup::notebook::{self, Settings};
use thalweg_setup::store::{self, Key};

use crate::wire;

/// A spare takes about a gigabyte; it does not start where less than this would be free.
const FREE_MEMORY: u64 = 3 << 30;

/// What a starting kernel hands over.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Handover {
    pub(crate) connection: PathBuf,
    pub(crate) folder: String,
    pub(crate) environment: Vec<(String, String)>,
    /// What the kernel would be made of; a spare made of anything else is of no use.
    made_of: String,
}

/// The Jupyter that this kernel belongs to: its process, and when that began.
#[derive(Debug, Clone, PartialEq)]
struct Jupyter {
    process: String,
    began: String,
}

impl Jupyter {
    fn of_this_kernel() -> Option<Jupyter> {
        Jupyter::find(&env::var("JPY_PARENT_PID").ok()?)
    }

    fn find(process: &str) -> Option<Jupyter> {
        process.parse::<u32>().ok()?;
        let status = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The name, in brackets, may hold anything; the begin is the 20th field after it.
        let began = status.rsplit(')').next()?.split_whitespace().nth(19)?.to_owned();
        Some(Jupyter { process: process.to_owned(), began })
    }

    fn lives(&self) -> bool {
        Jupyter::find(&self.process).as_ref() == Some(self)
    }

    /// Where its spare waits.
    fn place(&self, settings: &Settings) -> PathBuf {
        let clone = Key::new().with(settings.clone.as_os_str().as_encoded_bytes()).name();
        settings.store.join("spares").join(format!("{}-{}-{clone}", self.process, self.began))
    }
}

/// Gives this start to a warm spare, if there is one, and then lasts as long as it does.
pub(crate) fn hand_over(connection: &Path) -> Result<bool> {
    if off() {
        return Ok(false);
    }
    let settings = settings()?;
    let Some(jupyter) = Jupyter::of_this_kernel() else { return Ok(false) };
    let Ok(mut spare) = UnixStream::connect(socket(&jupyter.place(&settings))) else {
        return Ok(false);
    };
    let handover = Handover {
        connection: connection.to_owned(),
        folder: env::current_dir()?.to_string_lossy().into_owned(),
        environment: environment().into_iter().collect(),
        made_of: made_of(&settings)?,
    };
    let mut answer = [0];
    if wire::send(&mut spare, &handover).is_err()
        || spare.read_exact(&mut answer).is_err()
        || answer != *b"y"
    {
        return Ok(false);
    }
    let _ = spare.read(&mut answer); // returns when the spare is gone
    Ok(true)
}

/// Starts a spare, unless there is one or no room for it.
pub(crate) fn start() {
    if off() || free_memory().is_some_and(|free| free < FREE_MEMORY) {
        return;
    }
    let (Ok(settings), Some(jupyter)) = (settings(), Jupyter::of_this_kernel()) else { return };
    let place = jupyter.place(&settings);
    if !matches!(store::lock_if_free(&place), Ok(Some(_))) {
        return;
    }
    let Ok(program) = env::current_exe() else { return };
    let spare = Command::new(program)
        .arg("spare")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .process_group(0) // what a terminal sends to this kernel is not meant for it
        .spawn();
    match spare {
        // It outlives this kernel; should it end first, somebody must take note.
        Ok(mut child) => drop(std::thread::spawn(move || child.wait())),
        Err(error) => eprintln!("thalweg-kernel: no spare: {error}"),
    }
}

/// A spare that waits.
pub(crate) struct Spare {
    listener: UnixListener,
    socket: PathBuf,
    made_of: String,
    environment: HashMap<String, String>,
    lock: File,
}

impl Spare {
    /// Takes the place of the Jupyter's spare. Called before the environment changes.
    pub(crate) fn new() -> Result<Spare> {
        let settings = settings()?;
        let jupyter = Jupyter::of_this_kernel().context("JPY_PARENT_PID names no Jupyter")?;
        let place = jupyter.place(&settings);
        let Some(lock) = store::lock_if_free(&place)? else { bail!("there is a spare already") };
        forget_gone(&settings);
        let socket = socket(&place);
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket)
            .with_context(|| format!("cannot make the socket {}", socket.display()))?;
        let watched = socket.clone();
        std::thread::spawn(move || {
            while jupyter.lives() {
                std::thread::sleep(Duration::from_millis(500));
            }
            let _ = fs::remove_file(watched);
            std::process::exit(0);
        });
        Ok(Spare {
            listener,
            socket,
            made_of: made_of(&settings)?,
            environment: environment(),
            lock,
        })
    }

    /// Waits until a kernel starts that this one can be. Afterwards there is room for another spare. `gone` is called
    /// when the process that Jupyter knows has ended.
    pub(crate) fn wait(self, gone: impl FnOnce() + Send + 'static) -> Result<Handover> {
        let (mut stream, _) = self.listener.accept().context("the spare's socket broke")?;
        let _ = fs::remove_file(&self.socket);
        drop((self.listener, self.lock));
        let mut line = String::new();
        BufReader::new(stream.try_clone()?).read_line(&mut line)?;
        let mut handover: Handover = serde_json::from_str(&line).context("not a handover")?;
        if handover.made_of != self.made_of {
            bail!("the library or the kernel has changed since this spare started");
        }
        let mine = self.environment;
        handover.environment.retain(|(name, value)| mine.get(name) != Some(value));
        std::io::Write::write_all(&mut stream, b"y")?;
        std::thread::spawn(move || {
            let _ = stream.read(&mut [0]);
            gone();
        });
        Ok(handover)
    }
}

fn off() -> bool {
    env::var("THALWEG_SPARE").is_ok_and(|value| value == "0")
}

fn settings() -> Result<Settings> {
    let file = env::var_os("THALWEG_KERNEL_SETTINGS")
        .context("THALWEG_KERNEL_SETTINGS is not set; run cargo lab")?;
    Settings::read(Path::new(&file))
}

fn environment() -> HashMap<String, String> {
    let text = |(name, value): (_, std::ffi::OsString)| {
        let name: std::ffi::OsString = name;
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    env::vars_os().filter_map(text).collect()
}

fn made_of(settings: &Settings) -> Result<String> {
    let program = env::current_exe()?;
    Ok(format!("{} {}", program.display(), notebook::source_key(&settings.clone)?))
}

/// A short name, for sockets have room for a hundred bytes only.
fn socket(place: &Path) -> PathBuf {
    let name = Key::new().with(place.as_os_str().as_encoded_bytes()).name();
    env::temp_dir().join(format!("thalweg-spare-{name}.sock"))
}

fn forget_gone(settings: &Settings) {
    let Ok(listing) = fs::read_dir(settings.store.join("spares")) else { return };
    for path in listing.flatten().map(|item| item.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut parts = name.split('-');
        let (process, began) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        if Jupyter::find(process).is_none_or(|jupyter| jupyter.began != began) {
            let _ = fs::remove_file(path);
        }
    }
}

fn free_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}
