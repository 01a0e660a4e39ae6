//! Tokens -> logits: a Llama with every activation open.

mod chat;
mod devices;
mod encode;
mod facts;
pub(crate) mod forward;
mod generate;
mod hub;
mod line;
mod reading;
pub(crate) mod rope;
mod run;
mod sampling;
mod save;
mod served;
mod sweep;
mod tools;
mod train;
mod weight;
pub(crate) mod weights;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tch::{Device, Kind, Tensor};
use tokenizers::Tokenizer;

use crate::config::Config;
use crate::files::Files;
use crate::hook::edit::Setting;
use crate::remote::Remote;
use crate::text::{Tokens, Vocabulary};
use chat::Templates;
use devices::Devices;
use weights::Weights;

pub use chat::Chat;
pub use generate::Generated;
pub use hub::Hub;
pub use run::Run;
pub(crate) use run::scoped;
pub use sampling::Sampling;
pub use sweep::{Progress, Sweep, SweepOptions};
pub use tools::{Candidate, Top};
pub use train::AdamW;
pub use weight::W;

/// Kinds a model can have.
const KINDS: [Kind; 4] = [Kind::Double, Kind::Float, Kind::Half, Kind::BFloat16];

/// A Llama with every activation open to be seen and changed. Cloning shares the weights.
#[derive(Clone)]
pub struct Model {
    config: Config,
    weights: Weights,
    vocabulary: Option<Vocabulary>,
    templates: Templates,
    source: String,
    /// Where its blocks run, if not here.
    served: Option<Remote>,
}

impl Model {
    /// Loads a Hugging Face directory: `config.json`, `model.safetensors` or
    /// `model.safetensors.index.json` with its shards, and `tokenizer.json` and chat templates where there are any.
    /// On the first GPU if there is one, in the kind the weights are stored in.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self> {
        Self::open(dir.as_ref(), &[Device::cuda_if_available()], None)
    }

    /// Loads onto `device`, converting the weights to `kind` (f64, f32, f16 or bf16).
    pub fn load_on(dir: impl AsRef<Path>, device: Device, kind: Kind) -> Result<Self> {
        ensure!(KINDS.contains(&kind), "kind {kind:?}: expected Double, Float, Half or BFloat16");
        Self::open(dir.as_ref(), &[device], Some(kind))
    }

    fn open(dir: &Path, devices: &[Device], kind: Option<Kind>) -> Result<Self> {
        Self::read(dir, |config, files| {
            let devices = Devices::new(devices, config.n_layers)?;
            Weights::load((config, config.n_layers), files, &devices, kind)
        })
    }

    /// All of a directory, its weights as `load` reads them.
    fn read(dir: &Path, load: impl FnOnce(&Config, &Files) -> Result<Weights>) -> Result<Self> {
        ensure!(
            dir.is_dir(),
            "{} is not a directory: expected a Hugging Face model directory (a model of the hub is loaded by name with from_hub)",
            dir.display()
        );
        let config = Config::load(dir.join("config.json"))?;
        let files = Files::open_dir(dir)?;
        let _guard = tch::no_grad_guard();
        let weights = load(&config, &files)
            .map_err(|error| anyhow::anyhow!("{}: {error:#}", dir.display()))?;
        let tokenizer = dir.join("tokenizer.json");
        let vocabulary =
            tokenizer.is_file().then(|| Vocabulary::load(&tokenizer, config.bos)).transpose()?;
        let (templates, source) = (Templates::load(dir)?, dir.display().to_string());
        Ok(Model { config, weights, vocabulary, templates, source, served: None })
    }

    /// Builds a model from tensors by their names in a Hugging Face file, copying them. The
    /// embedding decides device and kind; a tokenizer is needed for the methods that take text.
    pub fn from_parts(
        config: Config,
        tensors: HashMap<String, Tensor>,
        tokenizer: Option<Tokenizer>,
    ) -> Result<Self> {
        config.check()?;
        let embed = tensors
            .get("model.embed_tokens.weight")
            .context("no tensor model.embed_tokens.weight")?;
        ensure!(
            KINDS.contains(&embed.kind()),
            "model.embed_tokens.weight is {:?}: expected Double, Float, Half or BFloat16",
            embed.kind()
        );
        let weights =
            Weights::from_tensors(&config, &tensors, &Devices::one(embed.device()), embed.kind())?;
        let vocabulary = tokenizer.map(|tokenizer| Vocabulary::new(tokenizer, config.bos));
        let (templates, source) = (Templates::default(), "parts".to_owned());
        Ok(Model { config, weights, vocabulary, templates, source, served: None })
    }

    /// The dimensions and switches of `config.json`.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where tokens go and results come from: the device of the weights, or the first of several.
    pub fn device(&self) -> Device {
        self.weights.embed.device()
    }

    /// Kind of the weights, in which the residual stream is computed.
    pub fn kind(&self) -> Kind {
        self.weights.embed.kind()
    }

    /// One prompt, with the beginning-of-text token as the tokenizer adds it, never twice.
    pub fn tokens(&self, text: &str) -> Result<Tokens> {
        self.batch(&[text])
    }

    /// Several prompts, padded on the left where they differ in length; each row's activations
    /// equal those of its prompt run alone, to rounding.
    pub fn batch<S: AsRef<str>>(&self, texts: &[S]) -> Result<Tokens> {
        let vocabulary = self.vocabulary()?;
        let rows = texts.iter().enumerate().map(|(row, text)| {
            vocabulary.encode(text.as_ref()).with_context(|| format!("prompt {row}"))
        });
        let rows =
            rows.collect::<Result<Vec<_>>>().map_err(|error| anyhow::anyhow!("{error:#}"))?;
        Ok(Tokens::from_ids(&rows)?.with_pieces(vocabulary))
    }

    /// The id of a text that is exactly one token; mind the leading space of many vocabularies.
    pub fn token(&self, text: &str) -> Result<i64> {
        self.vocabulary()?.single(text)
    }

    /// Ids of a text that may be several tokens, without a beginning-of-text token. A word that the
    /// vocabulary lacks is an error.
    pub fn token_ids(&self, text: &str) -> Result<Vec<i64>> {
        self.vocabulary()?.known(text)
    }

    /// What to show for an id, leading space included; the id itself without a tokenizer.
    pub fn piece(&self, id: i64) -> String {
        match &self.vocabulary {
            Some(vocabulary) => vocabulary.pieces(&[id]).remove(0),
            None => id.to_string(),
        }
    }

    /// The tokenizer, where the directory held one.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.vocabulary.as_ref().map(Vocabulary::tokenizer)
    }

    /// What the shapes of a run on these tokens follow from.
    fn setting<'a>(&'a self, tokens: &'a Tokens) -> Setting<'a> {
        Setting { config: &self.config, tokens, kind: self.kind(), device: self.device() }
    }

    fn vocabulary(&self) -> Result<&Vocabulary> {
        self.vocabulary.as_ref().with_context(|| {
            format!(
                "{}: there is no tokenizer.json, so text cannot be read: use Tokens::from_ids",
                self.source
            )
        })
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Model {}: {}, {:?} on {}",
            self.source,
            self.config,
            self.kind(),
            self.weights.devices
        )
    }
}
