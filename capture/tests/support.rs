//! What the tests share: folders of their own, prompts, the command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use thalweg::Model;
use thalweg::tch::Tensor;

/// A new folder, removed when it is dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("thalweg-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn world() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/models/tiny-world")
}

pub(crate) fn model() -> Model {
    Model::load_on(world(), thalweg::tch::Device::Cpu, thalweg::tch::Kind::Float).unwrap()
}

/// Prompts of differing lengths that tiny-world knows the words of; every tenth line is empty.
pub(crate) fn lines(n: usize) -> Vec<String> {
    let names = ["Mary", "John", "Anna", "Tom", "Paul"];
    let line = |i: usize| {
        let (a, b) = (names[i % 5], names[(i / 5 + i + 1) % 5]);
        match i % 10 {
            3 => String::new(),
            i if i % 3 == 0 => format!("{a} and {b} went to the store"),
            i if i % 3 == 1 => format!("When {a} and {b} went to the store , {b} gave a drink to"),
            _ => format!("{a} gave {b} a book"),
        }
    };
    (0..n).map(line).collect()
}

pub(crate) fn text(n: usize) -> String {
    lines(n).join("\n") + "\n"
}

/// `capture` with these words, on the CPU and one thread.
pub(crate) fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_capture"));
    command.args(words).env("OMP_NUM_THREADS", "1");
    command
}

/// `capture run PROMPTS OUT` on tiny-world, and more words.
pub(crate) fn run(prompts: &Path, out: &Path, more: &[&str]) -> Command {
    run_of("run", prompts, out, more)
}

/// The same with another subcommand.
pub(crate) fn run_of(word: &str, prompts: &Path, out: &Path, more: &[&str]) -> Command {
    let mut run = command(&[word]);
    run.args([prompts, out]).arg("--model").arg(world()).args(["--device", "cpu"]);
    run.args(more);
    run
}

pub(crate) fn ok(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    said(&output)
}

/// The one line that a refused call says in the end; where it took long, its progress came before.
pub(crate) fn refused(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let (before, line) = text.split_once("error: ").unwrap_or(("", &text));
    assert_eq!(line.trim_end().lines().count(), 1, "{text}");
    let progress = |line: &str| {
        line.split_once(": ")
            .is_some_and(|(_, rest)| rest.contains(" of ") || rest.contains(" in "))
    };
    assert!(before.lines().all(progress), "{text}");
    format!("error: {line}")
}

fn said(output: &Output) -> String {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8(text).unwrap()
}

/// Every file below a folder with its bytes. A manifest that a killed process had begun does not count.
pub(crate) fn content(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let (mut found, mut open) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => open.push(path),
                false => {
                    let name = path.strip_prefix(dir).unwrap().display().to_string();
                    found.push((name, fs::read(path).unwrap()));
                }
            }
        }
    }
    found.retain(|(name, _)| !name.starts_with(".capture.json."));
    found.sort();
    found
}

pub(crate) fn same(a: &Path, b: &Path) {
    let [a, b] = [a, b].map(content);
    let names =
        |list: &[(String, Vec<u8>)]| list.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&a), names(&b));
    for ((name, x), (_, y)) in a.iter().zip(&b) {
        assert!(x == y, "{name} differs");
    }
}

/// The largest difference of two tensors' entries.
pub(crate) fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}
