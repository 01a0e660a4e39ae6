//! Where a cache keeps what a run records: in memory, on another device, or in a file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use tch::{Device, Tensor};

use super::cache::Cache;
use super::plan::Plan;
use super::program::n_slots;
use super::site::Site;
use crate::files::Writer;

/// Where recorded tensors go.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Offload {
    Device(Device),
    File(PathBuf),
}

impl Plan {
    /// Moves each activation to `device` as soon as it is recorded: `offload(Device::Cpu)` keeps the
    /// memory of a GPU free. Not together with gradients, whose graph holds everything anyway.
    pub fn offload(mut self, device: Device) -> Self {
        self.offload = Some(Offload::Device(device));
        self
    }

    /// Writes each activation to a safetensors file as soon as it is recorded; the run's cache reads
    /// one back when it is asked for. In memory it takes no more than one activation at a time, and
    /// the file is there for [`Cache::open`] later on. An older file of that name is replaced when
    /// the run is done. Not together with gradients.
    ///
    /// ```no_run
    /// use thalweg::{Model, Plan, Point};
    /// let model = Model::load("data/models/tiny-world")?;
    /// let tokens = model.tokens("Mary and John went to the store")?;
    /// let plan = Plan::new().cache(Point::ResidPost).offload_to("run.safetensors");
    /// let cache = model.run(&tokens, &plan)?.cache;
    /// assert_eq!(cache.bytes(), 0); // nothing in memory
    /// assert_eq!(cache.get(Point::ResidPost.at(0))?.size(), [1, 8, 128]);
    /// # thalweg::anyhow::Ok(())
    /// ```
    pub fn offload_to(mut self, path: impl AsRef<Path>) -> Self {
        self.offload = Some(Offload::File(path.as_ref().to_owned()));
        self
    }

    pub(super) fn check_offload(&self) -> Result<()> {
        let Some(offload) = &self.offload else { return Ok(()) };
        ensure!(
            !self.needs_graph(),
            "offload: not together with gradients or differentiable(): their graph holds every activation where it is"
        );
        ensure!(!self.records_nothing(), "offload: no site is cached, so nothing would be moved");
        if let Offload::File(path) = offload {
            ensure!(!path.is_dir(), "offload_to: {} is a directory", path.display());
        }
        Ok(())
    }
}

/// A file that is being written while a run goes on.
#[derive(Debug, Clone)]
pub(crate) struct Sink {
    path: PathBuf,
    mark: String,
    writer: Arc<Mutex<Option<Writer>>>,
}

impl Sink {
    pub(super) fn new(path: &Path) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mark = format!("{}-{}", std::process::id(), now.as_nanos());
        Sink { path: path.to_owned(), mark, writer: Arc::new(Mutex::new(None)) }
    }

    /// Tells this file from others of the same name.
    pub(super) fn mark(&self) -> &str {
        &self.mark
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends an activation; the first one creates the file.
    pub(super) fn add(&self, cache: &Cache, site: Site, tensor: &Tensor) -> Result<()> {
        self.with_writer(cache, |writer| writer.add(&site.to_string(), tensor))
    }

    /// Completes the file.
    pub(super) fn finish(&self, cache: &Cache) -> Result<()> {
        let mut metadata = cache.metadata()?;
        metadata.insert("mark".to_owned(), self.mark.clone());
        self.with_writer(cache, |writer| writer.finish(&metadata))
    }

    fn with_writer(
        &self,
        cache: &Cache,
        work: impl FnOnce(&mut Writer) -> Result<()>,
    ) -> Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = writer.as_mut() {
            return work(writer);
        }
        let new = Writer::create(&self.path, cache.header_room()?)?;
        work(writer.insert(new))
    }
}

/// Bytes of a header for every site there is, beside metadata of `text` bytes.
pub(super) fn room(n_layers: usize, text: usize) -> usize {
    // A name, a kind, up to four lengths and two offsets take under 200 bytes.
    n_slots(n_layers) * 200 + text + 1024
}
