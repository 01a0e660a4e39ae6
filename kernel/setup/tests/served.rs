//! The server that `cargo verify` starts: nothing of it outlives the tests, and what it died of is told.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use thalweg_setup::served::Served;

/// Stands in for `capture`: `sh` with a script for each of its two words.
fn capture(serve: &str) -> impl Fn() -> Command {
    let script = format!("case $0 in widen) mkdir \"$2\";; serve) {serve};; esac");
    move || {
        let mut command = Command::new("sh");
        command.args(["-c", &script]);
        command
    }
}

fn start(serve: &str) -> anyhow::Result<Served> {
    Served::start(capture(serve), Path::new("model"), Path::new("python"))
}

fn lives(process: &str) -> bool {
    // A process that ended and was not yet waited for is a zombie.
    let status = std::fs::read_to_string(PathBuf::from("/proc").join(process).join("status"));
    status.is_ok_and(|text| !text.contains("State:\tZ"))
}

#[test]
fn a_server_ends_with_all_its_processes_and_its_directories() {
    let answer = "import http.server, subprocess, sys, os
child = subprocess.Popen(['sleep', '300'])
arguments = sys.argv[1:]
shared, port = (arguments[arguments.index(word) + 1] for word in ('--shared', '--port'))
open(os.path.join(shared, 'worker'), 'w').write(str(child.pid))
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == '/v1/models' else 404)
        self.end_headers()
http.server.HTTPServer(('127.0.0.1', int(port)), Answer).serve_forever()";
    let server = start(&format!("exec python3 -c \"{answer}\" \"$@\"")).unwrap();
    assert!(server.url.starts_with("http://127.0.0.1:"));
    let worker = std::fs::read_to_string(server.shared.join("worker")).unwrap();
    assert!(lives(&worker));
    let folder = server.shared.parent().unwrap().to_owned();
    drop(server);
    let began = Instant::now();
    while lives(&worker) {
        assert!(began.elapsed() < Duration::from_secs(10), "process {worker} outlived its server");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!folder.exists());

    // What a server died of, in the same test: both use the folder of this process.
    let dying = "echo INFO all is well; echo ValueError: no room for 4 GiB; echo bye; exit 3";
    let error = start(dying).unwrap_err().to_string();
    assert_eq!(error, "the server ended with exit status: 3: ValueError: no room for 4 GiB");
    assert!(!folder.exists());
}
