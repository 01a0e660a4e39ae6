//! Activations of one run, by site.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use tch::{Device, Tensor};

use super::held::Held;
use super::offload::{Offload, Sink, room};
use super::program::Program;
use super::site::{Axis, Point, Site};
use crate::files::Files;
use crate::record::{Origin, Record};
use crate::text::Tokens;

/// Activations by site, with the tokens they belong to. Cloning shares the memory.
///
/// An activation must not be changed in place once recorded (`t += 1.0` reaches every holder of
/// the same memory); a read of one that was is an error.
#[derive(Clone)]
pub struct Cache {
    tokens: Tokens,
    n_layers: usize,
    entries: BTreeMap<Site, Entry>,
    /// The run these activations come from, where they come from one.
    origin: Option<Origin>,
    /// Where activations go while the run goes on.
    offload: Option<To>,
}

#[derive(Clone)]
enum To {
    Device(Device),
    /// What was written so far is listed in room taken beforehand: what is allocated and kept between
    /// the large tensors of a pass would keep their memory from being used again.
    File(Sink, Vec<(Site, [i64; 4])>),
}

#[derive(Clone)]
enum Entry {
    Memory {
        tensor: Held,
        version: i64,
    },
    /// `mark` tells the file from a later one of the same name.
    File {
        path: PathBuf,
        shape: Vec<i64>,
        mark: Option<String>,
    },
}

impl Cache {
    pub(crate) fn new(tokens: &Tokens, n_layers: usize) -> Self {
        let (entries, tokens) = (BTreeMap::new(), tokens.clone());
        Cache { tokens, n_layers, entries, origin: None, offload: None }
    }

    /// An empty cache for a run of `program`.
    pub(crate) fn of(program: &Program, tokens: &Tokens) -> Self {
        let offload = program.offload.as_ref().map(|offload| match offload {
            Offload::Device(device) => To::Device(*device),
            Offload::File(path) => {
                To::File(Sink::new(path), Vec::with_capacity(program.slots.len()))
            }
        });
        Cache { origin: program.origin.clone(), offload, ..Cache::new(tokens, program.n_layers) }
    }

    /// Records a tensor of the run that goes on, there where the plan wants it.
    pub(crate) fn keep(&mut self, site: Site, tensor: Tensor) -> Result<()> {
        if let Some(To::Device(device)) = &self.offload {
            self.insert(site, tensor.to_device(*device));
            return Ok(());
        }
        let Some(To::File(sink, _)) = &self.offload else {
            self.insert(site, tensor);
            return Ok(());
        };
        sink.add(self, site, &tensor)?;
        if let Some(To::File(_, list)) = &mut self.offload {
            let mut shape = [1; 4];
            shape.iter_mut().zip(tensor.size()).for_each(|(own, n)| *own = n);
            list.push((site, shape));
        }
        Ok(())
    }

    /// The cache of a run that is done: its file, if it has one, is complete.
    pub(crate) fn sealed(mut self) -> Result<Self> {
        if let Some(To::File(sink, list)) = self.offload.take() {
            sink.finish(&self)?;
            for (site, shape) in list {
                let (path, shape) = (sink.path().to_owned(), shape[..site.axes().len()].to_vec());
                let mark = Some(sink.mark().to_owned());
                self.entries.insert(site, Entry::File { path, shape, mark });
            }
        }
        Ok(self)
    }

    /// An empty cache of the same run.
    pub(crate) fn emptied(&self) -> Self {
        Cache { entries: BTreeMap::new(), ..self.clone() }
    }

    /// Notes which run these activations come from.
    pub(crate) fn set_origin(&mut self, origin: Origin) {
        self.origin = Some(origin);
    }

    /// The run these activations come from.
    pub(crate) fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// What the run was that these activations come from: model, arithmetic, prompts, plan.
    pub fn record(&self) -> Result<Record> {
        let origin = self.origin.as_ref().context("this cache does not say where it comes from")?;
        Ok(origin.record())
    }

    /// Records a tensor with the version that libtorch counts its in-place changes by.
    pub(crate) fn insert(&mut self, site: Site, tensor: Tensor) {
        let version = version(&tensor);
        self.entries.insert(site, Entry::Memory { tensor: Held(tensor), version });
    }

    /// The activation at `site`, its axes [`Site::axes`]. An owned handle on the same memory.
    pub fn get(&self, site: impl Into<Site>) -> Result<Tensor> {
        let site = site.into();
        match self.entries.get(&site) {
            Some(Entry::Memory { tensor, version: recorded }) => {
                ensure!(
                    version(&tensor.0) == *recorded,
                    "{site} was changed in place after it was recorded: copy a tensor before changing it (t.copy())"
                );
                Ok(tensor.0.shallow_clone())
            }
            Some(Entry::File { path, mark, .. }) => {
                let files = Files::open(path)?;
                ensure!(
                    files.note("mark") == mark.as_deref(),
                    "{}: {site} was written to this file, and another cache has been since: give each run a file of its own",
                    path.display()
                );
                files.tensor(&site.to_string())
            }
            None => bail!("{site} was not cached; cached: {}", self.summary()),
        }
    }

    /// All layers of one point: `[Layer, ..point.axes()]`, memory of its own.
    pub fn stack(&self, point: Point) -> Result<Tensor> {
        let layers = (0..self.n_layers).map(|layer| self.get(point.at(layer)));
        Ok(Tensor::stack(&layers.collect::<Result<Vec<_>>>()?, 0))
    }

    /// Sites in this cache, in execution order within a block.
    pub fn sites(&self) -> impl Iterator<Item = Site> + '_ {
        self.entries.keys().copied()
    }

    /// Whether a site is in this cache.
    pub fn contains(&self, site: Site) -> bool {
        self.entries.contains_key(&site)
    }

    /// The tokens these activations belong to.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Blocks of the model these activations come from.
    pub fn n_layers(&self) -> usize {
        self.n_layers
    }

    /// Shape of what is kept at a site.
    pub fn shape(&self, site: Site) -> Option<Vec<i64>> {
        self.entries.get(&site).map(|entry| match entry {
            Entry::Memory { tensor, .. } => tensor.0.size(),
            Entry::File { shape, .. } => shape.clone(),
        })
    }

    /// Bytes of the activations in memory.
    pub fn bytes(&self) -> u64 {
        let bytes = |entry: &Entry| match entry {
            Entry::Memory { tensor, .. } => tensor.0.numel() * tensor.0.kind().elt_size_in_bytes(),
            Entry::File { .. } => 0,
        };
        self.entries.values().map(|entry| bytes(entry) as u64).sum()
    }

    /// One prompt of the batch: its activations without padding, memory of their own.
    pub fn row(&self, row: usize) -> Result<Self> {
        let tokens = self.tokens.row(row)?;
        let (width, len) = (self.tokens.width() as i64, tokens.width() as i64);
        let mut one = Cache { tokens, ..self.emptied() };
        for site in self.sites() {
            let mut x = self.get(site)?.narrow(0, row as i64, 1);
            for (at, axis) in site.axes().iter().enumerate() {
                let along = matches!(axis, Axis::Pos | Axis::Query | Axis::Key);
                if along && x.size()[at] == width {
                    x = x.narrow(at as i64, width - len, len);
                }
            }
            one.insert(site, x.copy());
        }
        Ok(one)
    }

    /// The same activations on another device.
    pub fn to_device(&self, device: Device) -> Result<Self> {
        let mut moved = self.emptied();
        for site in self.sites() {
            moved.insert(site, self.get(site)?.to_device(device));
        }
        Ok(moved)
    }

    /// The same activations without their graph.
    pub(crate) fn detached(&self) -> Result<Self> {
        let mut cache = self.emptied();
        for site in self.sites() {
            cache.insert(site, self.get(site)?.detach());
        }
        Ok(cache)
    }

    /// Writes a safetensors file, site by site, with the token ids and the record of the run beside
    /// the activations.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let sink = Sink::new(path.as_ref());
        for site in self.sites() {
            sink.add(self, site, &self.get(site)?)?;
        }
        sink.finish(self)
    }

    /// Bytes of the header of a file of this cache, at most.
    pub(super) fn header_room(&self) -> Result<usize> {
        Ok(room(self.n_layers, serde_json::to_string(&self.metadata()?)?.len()))
    }

    /// What a file says beside the activations.
    pub(super) fn metadata(&self) -> Result<HashMap<String, String>> {
        let mut metadata = HashMap::from([
            ("format".to_owned(), "thalweg cache 1".to_owned()),
            ("n_layers".to_owned(), self.n_layers.to_string()),
            ("ids".to_owned(), serde_json::to_string(self.tokens.ids())?),
            ("pieces".to_owned(), serde_json::to_string(self.tokens.pieces())?),
            ("roles".to_owned(), serde_json::to_string(self.tokens.roles())?),
        ]);
        if let Some(origin) = &self.origin {
            metadata.insert("record".to_owned(), serde_json::to_string(&origin.record())?);
        }
        Ok(metadata)
    }

    /// Opens a file that [`save`](Self::save) wrote; an activation is read when it is asked for.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let files = Files::open(path)?;
        Self::read(path, &files)
            .map_err(|error| anyhow::anyhow!("{}: not a saved cache: {error:#}", path.display()))
    }

    fn read(path: &Path, files: &Files) -> Result<Self> {
        let note = |key: &str| files.note(key).with_context(|| format!("its metadata lack {key}"));
        let ids: Vec<Vec<i64>> = serde_json::from_str(note("ids")?).context("ids")?;
        let pieces: Vec<Vec<String>> = serde_json::from_str(note("pieces")?).context("pieces")?;
        let mut tokens = Tokens::from_ids(&ids)?.labelled(pieces)?;
        let roles: BTreeMap<String, Vec<i64>> =
            serde_json::from_str(note("roles")?).context("roles")?;
        for (name, places) in roles {
            tokens = tokens.with_role(&name, places)?;
        }
        let n_layers = note("n_layers")?.parse().context("n_layers")?;
        let mut cache = Cache::new(&tokens, n_layers);
        if let Some(record) = files.note("record") {
            cache.origin = Some(Origin::known(serde_json::from_str(record).context("record")?));
        }
        for name in files.names() {
            let site: Site = name.parse()?;
            let shape = files.shape(name).unwrap_or_default().to_vec();
            ensure!(
                site.layer().is_none_or(|layer| layer < n_layers),
                "{name}: it says {n_layers} layers"
            );
            ensure!(
                shape.len() == site.axes().len() && shape[0] == tokens.batch() as i64,
                "{name} is {shape:?}, expected axes {:?} of {} rows",
                site.axes(),
                tokens.batch()
            );
            let (path, mark) = (path.to_owned(), files.note("mark").map(str::to_owned));
            let entry = Entry::File { path, shape, mark };
            cache.entries.insert(site, entry);
        }
        Ok(cache)
    }

    /// The sites in few words: `blocks.{0..3}.attn.hook_z, hook_embed`.
    fn summary(&self) -> String {
        let mut layers: BTreeMap<Option<Point>, Vec<usize>> = BTreeMap::new();
        let mut words = Vec::new();
        for site in self.sites() {
            match site {
                Site::Block(layer, point) => layers.entry(Some(point)).or_default().push(layer),
                other => words.push(other.to_string()),
            }
        }
        for (point, layers) in &layers {
            let name = point.map_or("", Point::name);
            let (first, last) = (layers[0], layers[layers.len() - 1]);
            words.push(match layers.as_slice() {
                [one] => format!("blocks.{one}.{name}"),
                all if last - first + 1 == all.len() => {
                    format!("blocks.{{{first}..{last}}}.{name}")
                }
                some => format!("blocks.{some:?}.{name}"),
            });
        }
        if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
    }

    /// Means over batch and unpadded positions, `[1, 1, ..]`, of a site with a `Pos` axis.
    pub(crate) fn mean(&self, site: Site) -> Result<Tensor> {
        let x = self.get(site)?;
        ensure!(
            site.axes().get(1) == Some(&Axis::Pos),
            "{site} has axes {:?}: mean needs a Pos axis; use mean_by_pos",
            site.axes()
        );
        // In f64, so that the mean of many equals the mean of few to the last bit of f32.
        let rest: Vec<i64> = vec![1; x.dim() - 2];
        let mut shape = vec![self.tokens.batch() as i64, self.tokens.width() as i64];
        shape.extend(&rest);
        let weight = self.tokens.mask(x.device()).to_kind(tch::Kind::Double).view(&shape[..]);
        let total = (x.to_kind(tch::Kind::Double) * &weight).sum_dim_intlist(
            [0i64, 1].as_slice(),
            true,
            None,
        );
        Ok((total / weight.sum(None)).to_kind(x.kind()))
    }

    /// Means over the batch at each position, counted in the rows' own tokens: `[len, ..]`, `len`
    /// the longest row's length; attention sites give `[Head, Query, Key]`.
    pub(crate) fn mean_by_pos(&self, site: Site) -> Result<Tensor> {
        let x = self.get(site)?;
        if site.axes().contains(&Axis::Query) {
            ensure!(
                !self.tokens.is_padded(),
                "mean_by_pos at {site}: the reference rows differ in length"
            );
            return Ok(x.mean_dim([0i64].as_slice(), false, None));
        }
        let (batch, width) = (self.tokens.batch(), self.tokens.width());
        let total = Tensor::zeros_like(&x.get(0)).to_kind(tch::Kind::Double);
        let mut counts = vec![0.0; width];
        for row in 0..batch {
            let len = width - self.tokens.padding(row);
            let own = x.get(row as i64).narrow(0, (width - len) as i64, len as i64);
            let _ = total.narrow(0, 0, len as i64).g_add_(&own.to_kind(tch::Kind::Double));
            counts[..len].iter_mut().for_each(|n| *n += 1.0);
        }
        let mut shape = vec![1; total.dim()];
        shape[0] = width as i64;
        let counts = Tensor::from_slice(&counts).to_device(x.device()).view(&shape[..]);
        Ok((total / counts).to_kind(x.kind()))
    }
}

/// How often libtorch saw the tensor's memory change in place.
pub(crate) fn version(tensor: &Tensor) -> i64 {
    tensor.f_internal_version().unwrap_or(0)
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.bytes() as f64 / (1 << 20) as f64;
        write!(f, "Cache of {} sites, {mib:.1} MiB: {}", self.entries.len(), self.summary())
    }
}
