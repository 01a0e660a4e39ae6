//! A model of the Hugging Face hub, by name: fetched once, then read from the cache that Python's
//! `huggingface_hub` shares.
//!
//! Requests, the names of the cache's files and the addresses go through the crate `hf-hub`. Three
//! things are done here because version 0.5 of it does not: it passes the token on to the host
//! that a file's size is asked of, has no timeouts, and compares no checksum.

mod choice;
mod client;
mod fetch;
mod names;
mod place;
mod settings;
mod store;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tch::{Device, Kind};

use super::{KINDS, Model};
use crate::config::Config;
use crate::interrupt::Interrupt;
use crate::show::Bar;
use choice::{Choice, shards};
use client::{Client, Unreachable};
use fetch::{Fetching, Wanted};
use place::Place;
use store::{State, Store};

/// Where models come from by name, and where they are kept: the hub's address, the cache, the token.
///
/// [`Hub::from_env`] takes them from the places that Python's `huggingface_hub` reads; every field
/// can be set by hand. The cache has the layout of `huggingface_hub`: what one fetched, the other finds.
///
/// ```no_run
/// use thalweg::Hub;
/// let hub = Hub { update: true, ..Hub::from_env()? };
/// let model = hub.model("meta-llama/Llama-3.2-1B", "main")?;
/// # thalweg::anyhow::Ok(())
/// ```
#[derive(Clone)]
pub struct Hub {
    /// The hub's address, `https://huggingface.co`.
    pub endpoint: String,
    /// The directory of the cache: in it `models--org--name` for every model.
    pub cache: PathBuf,
    /// What opens gated and private models. It is sent to the endpoint alone, never to the hosts
    /// that it redirects to.
    pub token: Option<String>,
    /// Ask no network: what is not in the cache is an error.
    pub offline: bool,
    /// Ask whether a branch or tag has moved, although the cache has what it was.
    pub update: bool,
    /// The longest silence that is waited for: of a connection being made, and between two pieces of
    /// an answer.
    pub timeout: Duration,
    /// After a silence, a dropped connection or a 5xx answer a request is made again, up to three
    /// times in a row: after this, twice this and four times this.
    pub pause: Duration,
}

impl Hub {
    /// As the environment says: `HF_ENDPOINT`; `HF_HUB_CACHE`, or `hub` in `HF_HOME`, or in
    /// `~/.cache/huggingface`; `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN`, or the file `HF_TOKEN_PATH`, or
    /// `token` in `HF_HOME`; `HF_HUB_OFFLINE`; `HF_HUB_DOWNLOAD_TIMEOUT` in seconds, 10 without it.
    /// An error without a home directory, or with a value that cannot be used.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// Loads a model: see [`Model::from_hub`].
    pub fn model<'a>(&self, repo: &str, revision: impl Into<Option<&'a str>>) -> Result<Model> {
        self.open(repo, revision.into(), Device::cuda_if_available(), None)
    }

    /// Loads a model onto `device`, converting the weights to `kind`: see [`Model::load_on`].
    pub fn model_on<'a>(
        &self,
        repo: &str,
        revision: impl Into<Option<&'a str>>,
        device: Device,
        kind: Kind,
    ) -> Result<Model> {
        ensure!(KINDS.contains(&kind), "kind {kind:?}: expected Double, Float, Half or BFloat16");
        self.open(repo, revision.into(), device, Some(kind))
    }

    /// The directory of a model's files in the cache, fetched where they are not there: what
    /// [`Model::load`] opens.
    pub fn fetch<'a>(&self, repo: &str, revision: impl Into<Option<&'a str>>) -> Result<PathBuf> {
        let place = Place::new(self, repo, revision.into())?;
        let store = Store::new(&place);
        let state = store.state();
        match state {
            State::Whole(dir) if self.offline || place.is_commit() || !self.update => Ok(dir),
            State::Usable(dir) if self.offline => Ok(dir),
            State::Lacking(what) if self.offline => bail!(
                "{place}: {what} is not in the cache {}, and the hub is not asked (offline): load it once with a network",
                self.cache.display()
            ),
            State::Usable(dir) => self.download(&place, &store).or_else(|error| {
                if error.is::<Unreachable>() && !self.update { Ok(dir) } else { Err(error) }
            }),
            State::Whole(_) | State::Lacking(_) => self.download(&place, &store),
        }
    }

    fn open(
        &self,
        repo: &str,
        revision: Option<&str>,
        device: Device,
        kind: Option<Kind>,
    ) -> Result<Model> {
        let dir = self.fetch(repo, revision)?;
        let mut model = Model::open(&dir, &[device], kind)?;
        let commit = dir.file_name().unwrap_or_default().to_string_lossy();
        model.source = format!("{repo} at {commit}");
        Ok(model)
    }

    /// Fetches what the cache lacks of a revision. The small files come first: whatever is wrong
    /// with the model is said before gigabytes are on their way.
    fn download(&self, place: &Place<'_>, store: &Store<'_>) -> Result<PathBuf> {
        let client = Client::new(place)?;
        let listing = client.listing()?;
        let choice =
            Choice::of(&listing.files).map_err(|error| anyhow::anyhow!("{place}: {error}"))?;
        let fetching = Fetching { client: &client, store, commit: &listing.commit };
        let silent = &mut Bar::new("", None);
        fetching.bring(&fetching.ask("config.json")?, silent)?;
        let dir = store.snapshot(&listing.commit);
        let config = Config::load(dir.join("config.json"))
            .map_err(|error| anyhow::anyhow!("{place} cannot be opened: {error}"))?;
        let mut files = choice.small;
        if let Some(index) = choice.index {
            fetching.bring(&fetching.ask(index)?, silent)?;
            files.extend(shards(&dir.join(index))?);
        } else {
            files.push(choice::SINGLE.to_owned());
        }
        let wanted = files.iter().map(|file| fetching.ask(file));
        let wanted = wanted.collect::<Result<Vec<_>>>()?;
        check_size(place, &config, &wanted)?;
        let left = wanted.iter().map(|file| fetching.left(file)).sum::<u64>();
        let mut bar = Bar::new(&format!("fetching {}", place.repo), left as usize).bytes();
        for file in &wanted {
            fetching.bring(file, &mut bar)?;
        }
        bar.finish();
        store.close(&listing)?;
        Ok(dir)
    }
}

impl Model {
    /// Loads a model of the Hugging Face hub: `"org/name"`, and a branch, a tag or a commit (`None`
    /// is `main`). On the first GPU if there is one, in the kind the weights are stored in.
    ///
    /// What the cache holds whole is loaded without a network; a branch is then what it was when it
    /// was fetched ([`Hub::update`] asks again). Otherwise `config.json`, the tokenizer's files
    /// and the safetensors weights are fetched, never a pickle: `config.json` is judged before any
    /// weights come, a bar tells how far they are, an interrupted fetch goes on where it stopped,
    /// and every file is held to the hub's SHA-256, or to its size where the hub gives no such hash.
    ///
    /// The token of a gated or private model, the cache and the hub's address come from the usual
    /// places: see [`Hub::from_env`].
    ///
    /// ```no_run
    /// use thalweg::prelude::*;
    /// let model = Model::from_hub("meta-llama/Llama-3.2-1B", None)?;
    /// # thalweg::anyhow::Ok(())
    /// ```
    pub fn from_hub<'a>(repo: &str, revision: impl Into<Option<&'a str>>) -> Result<Self> {
        Hub::from_env()?.model(repo, revision)
    }

    /// Loads a model of the hub onto `device`, converting the weights to `kind` (f64, f32, f16 or
    /// bf16): see [`from_hub`](Self::from_hub).
    pub fn from_hub_on<'a>(
        repo: &str,
        revision: impl Into<Option<&'a str>>,
        device: Device,
        kind: Kind,
    ) -> Result<Self> {
        Hub::from_env()?.model_on(repo, revision, device, kind)
    }
}

impl fmt::Debug for Hub {
    /// Never the token itself.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = if self.token.is_some() { "with" } else { "without" };
        let offline = if self.offline { ", offline" } else { "" };
        write!(f, "Hub {} {token} a token{offline}, cache {}", self.endpoint, self.cache.display())
    }
}

/// The weights can be no larger than the config's numbers in eight bytes each, an unembedding that
/// a tied model repeats, and headers.
fn check_size(place: &Place<'_>, config: &Config, wanted: &[Wanted]) -> Result<()> {
    let numbers = config.n_params().saturating_add(config.d_vocab * config.d_model);
    let most = (numbers as u64).saturating_mul(8).saturating_add(1 << 27);
    let weights = wanted.iter().filter(|file| file.is_weights());
    let claimed = weights.map(|file| file.size).fold(0, u64::saturating_add);
    ensure!(
        claimed <= most,
        "{place}: the weights claim {claimed} bytes, a Llama of its config.json has at most {most}"
    );
    Interrupt::new().check(|| "interrupted".to_owned())
}
