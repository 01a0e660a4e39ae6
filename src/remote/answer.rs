//! The file in which a server leaves the residual stream of one prompt. Nothing in it is believed
//! before it is checked: where it lies, its size, its tensors, its tokens.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tch::{Kind, Tensor};

use super::client::GLANCE;
use crate::files::Files;
use crate::http::one_line;

/// What our connector writes into `format`.
const FORMAT: &str = "thalweg residuals 1";
/// What it writes into `steering` where vectors can be added.
const STEERS: &str = "vllm-lens";
/// Bytes of a header: two tensors and four lines.
const HEADER: u64 = 1 << 16;
/// Bytes of the answer to the first question, one token: the size of the model is not known yet.
const FIRST: u64 = 1 << 30;
/// Bytes read of what a server says about a write that failed.
const SAID: usize = 600;

/// What a server shows of each token.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shape {
    pub(super) n_layers: usize,
    pub(super) d_model: usize,
    /// Which states it shows, ascending: `k` is the stream after `k` blocks.
    pub(super) states: Vec<usize>,
    pub(super) kind: Kind,
    /// Whether it can add vectors to the stream.
    pub(super) steers: bool,
}

impl Shape {
    fn bytes(&self, tokens: usize) -> u64 {
        let state = self.d_model * self.kind.elt_size_in_bytes();
        (tokens * (self.states.len() * state + 8)) as u64
    }
}

/// A file that was named in an answer, in the shared directory.
#[derive(Debug)]
pub(super) struct Left {
    path: PathBuf,
}

impl Left {
    /// A name from elsewhere: one plain file name, or a path whose folder is the shared directory.
    pub(super) fn named(shared: &Path, name: &str) -> Result<Self> {
        let shown = one_line(&name);
        let outside = || {
            anyhow!(
                "the answer names the file {shown:?}: expected one directly in {}",
                shared.display()
            )
        };
        ensure!(!name.chars().any(char::is_control), outside());
        let path = Path::new(name);
        let file = path.file_name().filter(|_| !name.ends_with('/')).with_context(outside)?;
        let plain =
            matches!(path.components().collect::<Vec<_>>().as_slice(), [Component::Normal(_)]);
        let here = || path.parent().and_then(|dir| dir.canonicalize().ok());
        ensure!(plain || path.is_absolute() && here().is_some_and(|dir| dir == shared), outside());
        Ok(Left { path: shared.join(file) })
    }

    /// Waits until the file is whole: it gets its name when it is.
    pub(super) fn wait(&self, time_out: Duration, stop: &AtomicBool) -> Result<()> {
        let until = Instant::now() + time_out;
        let mut pause = Duration::from_millis(1);
        while fs::symlink_metadata(&self.path).is_err() {
            self.failed()?;
            ensure!(!stop.load(Ordering::Relaxed), "stopped");
            ensure!(
                Instant::now() < until,
                "the server answered, but {} did not appear within {time_out:?}: is this the server's own shared directory?",
                self.path.display()
            );
            std::thread::sleep(pause);
            pause = (pause * 2).min(GLANCE);
        }
        Ok(())
    }

    /// An error if the server left word that it could not write the file.
    fn failed(&self) -> Result<()> {
        let mut name = self.path.clone().into_os_string();
        name.push(".error");
        let path = PathBuf::from(name);
        let plain = fs::symlink_metadata(&path).is_ok_and(|data| data.is_file());
        if !plain {
            return Ok(());
        }
        use std::io::Read;
        let mut text = Vec::new();
        let file = fs::File::open(&path);
        let _ = file.and_then(|file| file.take(SAID as u64).read_to_end(&mut text));
        let _ = fs::remove_file(&path);
        bail!("the server could not write its file: {}", one_line(&String::from_utf8_lossy(&text)));
    }

    /// Opens the file once its place and its size are what they must be.
    fn open(&self, most: u64) -> Result<Files> {
        let path = self.path.display();
        let data = fs::symlink_metadata(&self.path).with_context(|| format!("{path} is gone"))?;
        ensure!(data.is_file(), "{path} is no plain file");
        ensure!(
            data.len() <= most,
            "{path} has {} bytes, at most {most} were expected",
            data.len()
        );
        let files = Files::open(&self.path)?;
        ensure!(
            files.note("format") == Some(FORMAT),
            "{path} is not of thalweg's connector: its metadata lack format = {FORMAT:?}; start the server with `capture serve`"
        );
        Ok(files)
    }

    /// Reads the answer to the first question: what the server shows.
    pub(super) fn shape(&self, ids: &[i64]) -> Result<Shape> {
        let path = self.path.display();
        let files = self.open(FIRST)?;
        let size = files.shape("hidden_states").unwrap_or_default().to_vec();
        let note = |key: &str| files.note(key).with_context(|| format!("{path} lacks {key}"));
        let number = |text: &str, key: &str| {
            text.trim()
                .parse::<usize>()
                .map_err(|_| anyhow!("{path}: {key} = {:?}: expected a number", one_line(&text)))
        };
        let n_layers = number(note("n_layers")?, "n_layers")?;
        let listed = note("layers")?.split(',').map(|text| number(text, "layers"));
        let states = listed.collect::<Result<Vec<_>>>()?;
        ensure!(
            states.is_sorted_by(|a, b| a < b)
                && states.last().is_some_and(|last| *last <= n_layers),
            "{path}: layers = {states:?}: expected some of 0..={n_layers}, ascending"
        );
        ensure!(
            size.len() == 3 && size[1] == states.len() as i64 && size[2] > 0,
            "{path}: hidden_states is {size:?}, expected [Pos, {}, DModel]",
            states.len()
        );
        let kind = files.kind("hidden_states").unwrap_or(Kind::Int64);
        ensure!(kind != Kind::Int64, "{path}: hidden_states holds whole numbers");
        let steers = files.note("steering") == Some(STEERS);
        let shape = Shape { n_layers, d_model: size[2] as usize, states, kind, steers };
        self.check(&files, &shape, ids)?;
        self.remove();
        Ok(shape)
    }

    /// Reads these states of the prompt, `[Pos, DModel]` each, and removes the file.
    pub(super) fn states(
        &self,
        shape: &Shape,
        ids: &[i64],
        wanted: &[usize],
    ) -> Result<Vec<Tensor>> {
        let files = self.open(shape.bytes(ids.len()) + HEADER)?;
        self.check(&files, shape, ids)?;
        let all = files.tensor("hidden_states")?; // [Pos, state, DModel]
        let state = |k: &usize| {
            let at = shape.states.iter().position(|state| state == k);
            let at = at.with_context(|| format!("no state {k} among {:?}", shape.states))?;
            Ok(all.select(1, at as i64).contiguous())
        };
        let states = wanted.iter().map(state).collect::<Result<_>>()?;
        self.remove();
        Ok(states)
    }

    /// The tensors are those of these tokens.
    fn check(&self, files: &Files, shape: &Shape, ids: &[i64]) -> Result<()> {
        let path = self.path.display();
        let n = ids.len() as i64;
        let expected = [n, shape.states.len() as i64, shape.d_model as i64];
        let layers = shape.states.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        for (name, size, kind) in
            [("hidden_states", &expected[..], shape.kind), ("token_ids", &[n][..], Kind::Int64)]
        {
            let found = files.shape(name).zip(files.kind(name));
            let shown =
                found.map_or("missing".to_owned(), |(size, kind)| format!("{kind:?} {size:?}"));
            ensure!(
                found == Some((size, kind)),
                "{path}: {name} is {shown}, expected {kind:?} {size:?}"
            );
        }
        ensure!(
            (files.note("steering") == Some(STEERS)) == shape.steers,
            "{path}: steering is {:?}, before it was another: another server?",
            files.note("steering").map(|text| one_line(&text))
        );
        ensure!(
            files.note("layers") == Some(layers.as_str()),
            "{path}: layers are {:?}, before they were {layers}: another server?",
            files.note("layers").map(|text| one_line(&text))
        );
        let found = Vec::<i64>::try_from(files.tensor("token_ids")?)?;
        if let Some(at) = (0..ids.len()).find(|at| found[*at] != ids[*at]) {
            bail!("{path}: token {at} is {}, {} was asked for", found[at], ids[at]);
        }
        Ok(())
    }

    /// Only a file that proved to be an answer is removed.
    fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }
}
