//! What makes a neuron or a latent fire: the prompts of a data set at which it is largest.
//!
//! As in Bricken et al. 2023, "Towards Monosemanticity",
//! <https://transformer-circuits.pub/2023/monosemantic-features>. The largest activations alone can
//! mislead (Bolukbasi et al. 2021, "An Interpretability Illusion for BERT",
//! <https://arxiv.org/abs/2104.07143>): beside them stand prompts drawn at random.

use std::fmt;

use anyhow::{Result, ensure};
use tch::{Device, Kind, Tensor};

use super::sae::Sae;
use crate::analysis::frame::width;
use crate::grid::Grid;
use crate::hook::plan::Plan;
use crate::hook::site::{Axis, Site};
use crate::model::Model;
use crate::rng::Rng;
use crate::show::progress;
use crate::text::Tokens;

/// Tokens kept on either side of the largest one.
const WINDOW: usize = 24;

/// What is looked at: the entries of a site (neurons of `MlpPost`), or an SAE's latents.
#[derive(Debug, Clone)]
pub enum Features {
    /// Entries of one vector of a site, a head's axes joined into one.
    Site(Site),
    /// Latents.
    Sae(Box<Sae>),
}

impl From<Site> for Features {
    fn from(site: Site) -> Self {
        Features::Site(site)
    }
}

impl From<&Sae> for Features {
    fn from(sae: &Sae) -> Self {
        Features::Sae(Box::new(sae.clone()))
    }
}

impl Features {
    fn site(&self) -> Site {
        match self {
            Features::Site(site) => *site,
            Features::Sae(sae) => sae.site,
        }
    }

    fn count(&self, model: &Model) -> Result<usize> {
        let site = self.site();
        let axes = site.axes();
        let layers = model.config().n_layers;
        let exists = site.layer().is_none_or(|layer| layer < layers);
        ensure!(exists, "{site}: the model has layers 0..{}", layers - 1);
        ensure!(
            axes.get(1) == Some(&Axis::Pos),
            "{site}: its axes are {axes:?}, expected [Batch, Pos, ..]"
        );
        match self {
            Features::Site(site) => Ok(width(*site, model.config())),
            Features::Sae(sae) => sae.fits(model).map(|()| sae.d_sae()),
        }
    }

    fn name(&self, feature: usize) -> String {
        match self {
            Features::Site(site) => format!("{site} {feature}"),
            Features::Sae(sae) => format!("latent {feature} of {}", sae.site),
        }
    }

    /// `[Batch, Pos, feature]`, f64, on the CPU.
    fn values(&self, x: &Tensor, chosen: &Tensor) -> Result<Tensor> {
        let all = match self {
            Features::Site(_) => x.flatten(2, -1),
            Features::Sae(sae) => sae.encode(x)?,
        };
        Ok(all
            .index_select(-1, &chosen.to_device(all.device()))
            .to_device(Device::Cpu)
            .to_kind(Kind::Double))
    }
}

/// A piece of a prompt, and how large a feature is at each of its tokens.
#[derive(Clone)]
pub struct Snippet {
    /// Number of the prompt, in the order in which prompts came.
    pub prompt: usize,
    /// Where the feature is largest, counted in the prompt's own tokens.
    pub pos: usize,
    /// How large it is there.
    pub value: f64,
    /// At each token, labelled with the tokens: `[Pos]`. The prompt's first token is marked missing.
    pub activations: Grid,
}

impl Snippet {
    /// The tokens.
    pub fn tokens(&self) -> &[String] {
        &self.activations.axes[0].labels
    }

    /// The feature at each token; NaN at the prompt's first, which does not count.
    pub fn values(&self) -> Vec<f64> {
        let cells = self.activations.values.iter().enumerate();
        let own = |(i, value)| if self.activations.exists(&[i]) { value } else { f64::NAN };
        cells.map(|(i, value)| own((i, *value))).collect()
    }
}

/// One line: the value, and the tokens with the largest in brackets.
impl fmt::Debug for Snippet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels = self.tokens();
        let own = self.activations.provenance.get("largest").and_then(|i| i.parse().ok());
        let each = labels.iter().enumerate().map(|(i, piece)| match own == Some(i) {
            true => format!("[{}]", piece.escape_debug()),
            false => piece.escape_debug().to_string(),
        });
        write!(f, "{:.3}: {}", self.value, each.collect::<Vec<_>>().join("|"))
    }
}

/// The prompts at which one feature is largest, and some drawn at random.
#[derive(Clone)]
pub struct FeatureExamples {
    /// Index of the feature.
    pub feature: usize,
    /// "latent 7 of blocks.2.hook_resid_post"
    pub name: String,
    /// Prompts of the largest activations, one snippet a prompt, the largest first; of equal ones
    /// the earlier first.
    pub top: Vec<Snippet>,
    /// Prompts drawn at random, in the order in which they came: what the feature is otherwise.
    pub random: Vec<Snippet>,
    /// Share of all tokens at which it is above 0.
    pub density: f64,
    /// Prompts seen.
    pub prompts: usize,
}

/// One line: how often it is on, and the largest.
impl fmt::Debug for FeatureExamples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (share, n) = (100.0 * self.density, self.prompts);
        write!(f, "{}: above 0 at {share:.1} % of tokens of {n} prompts", self.name)?;
        self.top.first().map_or(Ok(()), |first| write!(f, "; {first:?}"))
    }
}

/// For each of `features`, the `k` prompts at which it is largest and `k` prompts drawn at random
/// (the same for every feature). Prompts stream by: only what is returned is kept, 24 tokens on
/// either side. Padding and each prompt's first token do not count.
///
/// ```
/// use thalweg::{Model, Point, Sae, max_activating};
/// let model = Model::load("data/models/tiny-world")?;
/// let texts = ["Mary and John went to the store", "The key is old", "John has a ball"];
/// let prompts = || texts.iter().map(|text| model.tokens(text));
/// let neuron = &max_activating(&model, prompts(), Point::MlpPost.at(2), &[7], 2, 1)?[0];
/// assert_eq!((neuron.top.len(), neuron.random.len()), (2, 2));
/// assert!(neuron.top[0].value >= neuron.top[1].value);
/// let sae = Sae::load("data/models/tiny-world-sae")?;
/// let latents = max_activating(&model, prompts(), &sae, &[0, 1, 2], 2, 1)?;
/// assert_eq!(latents.len(), 3);
/// // Coloured by token; a cell that ends in `latents[0].clone()` shows the same.
/// let list: Vec<thalweg::Example> = latents[0].top.iter().map(Into::into).collect();
/// thalweg::examples(&list)?.title(&latents[0].name);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn max_activating(
    model: &Model,
    batches: impl IntoIterator<Item = Result<Tokens>>,
    of: impl Into<Features>,
    features: &[usize],
    k: usize,
    seed: u64,
) -> Result<Vec<FeatureExamples>> {
    let of = of.into();
    let (site, count) = (of.site(), of.count(model)?);
    ensure!(
        k > 0 && !features.is_empty(),
        "max_activating: {k} prompts of {} features",
        features.len()
    );
    if let Some(bad) = features.iter().find(|feature| **feature >= count) {
        anyhow::bail!(
            "max_activating: there is no feature {bad} at {site}, there are 0..{}",
            count - 1
        );
    }
    let chosen: Vec<i64> = features.iter().map(|feature| *feature as i64).collect();
    let chosen = Tensor::from_slice(&chosen);
    let mut found = Collector::new(&of, features, k, seed);
    let plan = Plan::new().cache(site);
    let plan = if site == Site::Logits { plan } else { plan.logits_at(-1) };
    for (i, tokens) in progress(batches, "max_activating").unit("batches").enumerate() {
        let tokens = tokens.map_err(|error| anyhow::anyhow!("batch {i}: {error:#}"))?;
        let x = model.run(&tokens, &plan)?.cache.get(site)?;
        found.add(&tokens, &of.values(&x, &chosen)?)?;
    }
    ensure!(found.tokens > 0, "max_activating: no prompt has more than one token");
    Ok(found.finish())
}

/// What was found so far.
struct Collector {
    k: usize,
    rng: Rng,
    prompts: usize,
    /// Prompts of more than one token.
    eligible: usize,
    tokens: usize,
    list: Vec<FeatureExamples>,
}

impl Collector {
    fn new(of: &Features, features: &[usize], k: usize, seed: u64) -> Self {
        let one = |feature: &usize| FeatureExamples {
            feature: *feature,
            name: of.name(*feature),
            top: Vec::new(),
            random: Vec::new(),
            density: 0.0,
            prompts: 0,
        };
        let list = features.iter().map(one).collect();
        Collector { k, rng: Rng::new(seed), prompts: 0, eligible: 0, tokens: 0, list }
    }

    /// Takes in `values [Batch, Pos, feature]`.
    fn add(&mut self, tokens: &Tokens, values: &Tensor) -> Result<()> {
        for row in 0..tokens.batch() {
            let (padding, len) = (tokens.padding(row), tokens.ids()[row].len());
            let prompt = self.prompts;
            self.prompts += 1;
            if len < 2 {
                continue;
            }
            self.tokens += len - 1;
            // A reservoir: each eligible prompt so far is kept with the same probability.
            let seen = self.eligible;
            self.eligible += 1;
            let place = if seen < self.k { seen } else { self.rng.below(seen + 1) };
            let own =
                values.get(row as i64).narrow(0, padding as i64, len as i64).tr().contiguous();
            for (i, found) in self.list.iter_mut().enumerate() {
                let each = Vec::<f64>::try_from(own.get(i as i64))?;
                found.density += each[1..].iter().filter(|value| **value > 0.0).count() as f64;
                let later = |best: usize, at: usize| if each[at] > each[best] { at } else { best };
                let pos = (1..len).fold(1, later);
                let last = found.top.last().filter(|_| found.top.len() == self.k);
                let enters = last.is_none_or(|last| each[pos] > last.value);
                if !enters && place >= self.k {
                    continue;
                }
                let snippet = snippet(&tokens.pieces()[row], &each, prompt, pos, &found.name)?;
                if enters {
                    let at = found.top.partition_point(|other| other.value >= snippet.value);
                    found.top.insert(at, snippet.clone());
                    found.top.truncate(self.k);
                }
                if place < self.k {
                    match found.random.len() <= place {
                        true => found.random.push(snippet),
                        false => found.random[place] = snippet,
                    }
                }
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Vec<FeatureExamples> {
        for found in &mut self.list {
            found.density /= self.tokens as f64;
            found.prompts = self.prompts;
            found.random.sort_by_key(|snippet| snippet.prompt);
        }
        self.list
    }
}

fn snippet(
    pieces: &[String],
    each: &[f64],
    prompt: usize,
    pos: usize,
    name: &str,
) -> Result<Snippet> {
    let (from, to) = (pos.saturating_sub(WINDOW), (pos + WINDOW + 1).min(each.len()));
    let values = ndarray::Array1::from(each[from..to].to_vec());
    let mut grid = Grid::from_array(values, &[Axis::Pos], "activation")?
        .relabel(Axis::Pos, &pieces[from..to])?
        .name(name)
        .note("prompt", &prompt.to_string())
        .note("first token", &from.to_string())
        .note("largest", &(pos - from).to_string());
    if from == 0 {
        let first = ndarray::Array1::from_shape_fn(to, |i| i == 0).into_dyn();
        grid = grid.missing(first)?;
    }
    Ok(Snippet { prompt, pos, value: each[pos], activations: grid })
}
