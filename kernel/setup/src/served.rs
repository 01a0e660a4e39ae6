//! A vLLM server on CPUs for the tests: tiny-world's sibling with wider heads, tensor parallel over two processes.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command;

/// How long a server may take to answer; on two idle cores it is a minute.
const START: Duration = Duration::from_secs(240);
/// How long it may take to end when asked.
const END: Duration = Duration::from_secs(20);

/// A running server and its directories; dropped, it ends with all its processes, and the directories go.
#[derive(Debug)]
pub struct Served {
    server: Child,
    /// Ends the server if this process does not live to do it.
    guard: Option<Child>,
    folder: PathBuf,
    /// Its address.
    pub url: String,
    /// Where it leaves residuals.
    pub shared: PathBuf,
}

impl Served {
    /// Widens `model` and serves it. `capture` makes a command of the program `capture`, `python` has vLLM.
    pub fn start(capture: impl Fn() -> Command, model: &Path, python: &Path) -> Result<Served> {
        let folder = std::env::temp_dir().join(format!("thalweg-served-{}", std::process::id()));
        let (wide, shared) = (folder.join("model"), folder.join("shared"));
        let _ = fs::remove_dir_all(&folder); // of an earlier process of the same number
        fs::create_dir_all(&shared)
            .with_context(|| format!("cannot create {}", shared.display()))?;
        command::shown("capture widen", capture().arg("widen").args([model, &wide]))?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = folder.join("log");
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut serve = capture();
        serve.arg("serve").arg(&wide).arg("--shared").arg(&shared).arg("--python").arg(python);
        serve.args(["--tensor-parallel", "2", "--port", &port.to_string()]);
        serve.args(["--", "--block-size", "32"]); // short, so that tiny-world's prompts share blocks
        if std::env::var_os("VLLM_CPU_KVCACHE_SPACE").is_none() {
            serve.env("VLLM_CPU_KVCACHE_SPACE", "1"); // GiB a process, enough for the tests
        }
        // The threads of the test runner are not those of the server.
        serve.env_remove("OMP_NUM_THREADS").env_remove("OMP_WAIT_POLICY").process_group(0);
        serve.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let server = serve.spawn().context("cannot start capture serve")?;
        let url = format!("http://127.0.0.1:{port}");
        let guard = guard(&server).ok();
        let mut served = Served { server, guard, folder, url, shared };
        served.wait(port, &log)?;
        Ok(served)
    }

    fn wait(&mut self, port: u16, log: &Path) -> Result<()> {
        let began = Instant::now();
        loop {
            let told = || {
                let text = fs::read(log).unwrap_or_default();
                let text = String::from_utf8_lossy(&text).into_owned();
                died_of(&text).or(text.lines().next_back()).unwrap_or("it said nothing").to_owned()
            };
            if let Some(status) = self.server.try_wait()? {
                bail!("the server ended with {status}: {}", told());
            }
            if answers(port) {
                println!("a server answers after {}", command::minutes(began.elapsed()));
                return Ok(());
            }
            if began.elapsed() > START {
                bail!("the server does not answer after {}: {}", command::minutes(START), told());
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Sends a signal to the server and all its processes.
    fn signal(&self, name: &str) {
        let group = format!("kill -{name} -{}", self.server.id());
        let _ = Command::new("sh").args(["-c", &group]).stderr(Stdio::null()).status();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.signal("TERM");
        let began = Instant::now();
        while began.elapsed() < END && matches!(self.server.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(100));
        }
        self.signal("KILL"); // also workers that outlived the server
        let _ = self.server.wait();
        if let Some(guard) = &mut self.guard {
            let _ = guard.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The first error in vLLM's log, which a few hundred lines of its consequences follow. Some warnings name errors too.
fn died_of(log: &str) -> Option<&str> {
    log.lines().find_map(|line| {
        let message = line.split_once("] ").map_or(line, |(_, message)| message);
        let (kind, _) = message.split_once(": ")?;
        (kind == "error" || kind.ends_with("Error") && !kind.contains(' ')).then_some(message)
    })
}

/// A process that ends the server's group once nobody holds the other end of its standard input.
fn guard(server: &Child) -> std::io::Result<Child> {
    let group = format!("cat; kill -TERM -{}", server.id());
    let mut guard = Command::new("sh");
    guard.args(["-c", &group]).process_group(server.id() as i32);
    guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

/// Whether a server lists its models at this port.
fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /v1/models HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = [0; 32];
        let n = stream.read(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..n]).into_owned())
    };
    ask().is_ok_and(|answer| answer.split(' ').nth(1) == Some("200"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_told_by_its_first_error() {
        let log = "(APIServer pid=1) WARNING 11-23 [system_utils.py:255] This can cause errors like `OSError: [Errno 24]`.
(Worker pid=2) ERROR 11-23 [multiproc_executor.py:1063]     raise ValueError(\"no room\")
(Worker pid=2) ERROR 11-23 [multiproc_executor.py:1063] ValueError: no room
RuntimeError: Engine core initialization failed.";
        assert_eq!(died_of(log), Some("ValueError: no room"));
        assert_eq!(died_of("error: no such model"), Some("error: no such model"));
        assert_eq!(died_of("all is well"), None);
    }
}
