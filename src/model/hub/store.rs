//! The cache: `models--org--name/` with `refs/<revision>` (a commit), `blobs/<etag>` (contents) and
//! `snapshots/<commit>/<file>` (links to them), as Python's `huggingface_hub` lays it out.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use hf_hub::{Cache, CacheRepo};

use super::choice::{INDEX, OPTIONAL, SINGLE, shards};
use super::client::Listing;
use super::names::{is_commit, is_plain};
use super::place::Place;

/// The cache of one model.
#[derive(Debug)]
pub(super) struct Store<'a> {
    place: &'a Place<'a>,
    cache: CacheRepo,
}

/// What the cache holds of a revision.
#[derive(Debug)]
pub(super) enum State {
    /// All that the hub has.
    Whole(PathBuf),
    /// Config and weights; whether the hub has a tokenizer too is not known.
    Usable(PathBuf),
    /// Not this.
    Lacking(String),
}

impl<'a> Store<'a> {
    pub(super) fn new(place: &'a Place<'a>) -> Self {
        Store { place, cache: Cache::new(place.hub.cache.clone()).repo(place.named()) }
    }

    pub(super) fn state(&self) -> State {
        let Some(commit) = self.commit() else {
            return State::Lacking("this revision".to_owned());
        };
        let dir = self.snapshot(&commit);
        let weights = match dir.join(SINGLE).is_file() {
            true => vec![SINGLE.to_owned()],
            false => match shards(&dir.join(INDEX)) {
                Ok(shards) => shards.into_iter().collect(),
                Err(_) => return State::Lacking(format!("{SINGLE} or {INDEX}")),
            },
        };
        let mut needed = weights.into_iter().chain(["config.json".to_owned()]);
        if let Some(lacking) = needed.find(|file| !dir.join(file).is_file()) {
            return State::Lacking(lacking);
        }
        let known = |file: &str| dir.join(file).is_file() || self.absent(&commit, file).is_file();
        if known("tokenizer.json") { State::Whole(dir) } else { State::Usable(dir) }
    }

    /// The commit of the revision, as it was when it was fetched.
    fn commit(&self) -> Option<String> {
        if self.place.is_commit() {
            return Some(self.place.revision.to_owned());
        }
        let text = fs::read_to_string(self.root().join("refs").join(self.place.revision)).ok()?;
        Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// The directory of a commit's files.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.cache.pointer_path(commit)
    }

    /// The contents under an etag.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.cache.blob_path(etag)
    }

    /// Contents that are not yet whole.
    pub(super) fn part(&self, etag: &str) -> PathBuf {
        self.cache.blob_path(&format!("{etag}.incomplete"))
    }

    /// The file whose lock keeps two processes from fetching the same contents.
    pub(super) fn lock(&self, etag: &str) -> PathBuf {
        let folder = self.place.named().folder_name();
        self.place.hub.cache.join(".locks").join(folder).join(format!("{etag}.lock"))
    }

    /// Gives contents their name in a commit.
    pub(super) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<()> {
        let pointer = self.snapshot(commit).join(file);
        if pointer.is_file() {
            return Ok(());
        }
        make_parent(&pointer)?;
        let _ = fs::remove_file(&pointer); // a link to what is gone
        let up = "../".repeat(2 + file.matches('/').count());
        point(&format!("{up}blobs/{etag}"), &pointer, &self.blob(etag))
            .map_err(cannot_write(&pointer))
    }

    /// Notes which commit the revision is, and which files the hub has not.
    pub(super) fn close(&self, listing: &Listing) -> Result<()> {
        for file in OPTIONAL.iter().filter(|file| !listing.files.contains(**file)) {
            let mark = self.absent(&listing.commit, file);
            make_parent(&mark)?;
            fs::write(&mark, "").map_err(cannot_write(&mark))?;
        }
        if self.place.is_commit() {
            return Ok(());
        }
        self.cache.create_ref(&listing.commit).map_err(cannot_write(&self.root().join("refs")))
    }

    fn absent(&self, commit: &str, file: &str) -> PathBuf {
        self.root().join(".no_exist").join(commit).join(file)
    }

    fn root(&self) -> PathBuf {
        self.place.hub.cache.join(self.place.named().folder_name())
    }
}

/// Makes the directory that a file is to be in.
pub(super) fn make_parent(file: &Path) -> Result<()> {
    let Some(dir) = file.parent() else { return Ok(()) };
    fs::create_dir_all(dir).map_err(cannot_write(dir))
}

/// What went wrong with a file, with the reason: a full disk is one.
pub(super) fn cannot_write(path: &Path) -> impl Fn(std::io::Error) -> anyhow::Error {
    move |error| anyhow::anyhow!("cannot write {}: {error}", path.display())
}

/// The etag of a header as a file's name: without quotes and the mark of weak ones.
pub(super) fn etag(header: &str) -> Result<String> {
    let etag = header.trim().trim_start_matches("W/").trim_matches('"');
    ensure!(is_plain(etag), "the etag {header:?} is no name of a file: expected a hash");
    Ok(etag.to_owned())
}

#[cfg(unix)]
fn point(target: &str, pointer: &Path, _blob: &Path) -> std::io::Result<()> {
    match std::os::unix::fs::symlink(target, pointer) {
        // Another process was there first.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Without links, contents lie where they are used: so does `huggingface_hub`.
#[cfg(not(unix))]
fn point(_target: &str, pointer: &Path, blob: &Path) -> std::io::Result<()> {
    fs::rename(blob, pointer)
}
