//! An SAE or transcoder in place of what it reconstructs, with or without its error, latents edited.
//!
//! Marks et al. 2024, "Sparse Feature Circuits", <https://arxiv.org/abs/2403.19647>: what the SAE does
//! not explain stays in the run as an error term, so that an edit of a latent changes that latent's
//! part alone. Without edits a splice with its error changes nothing, to the bit.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;

use anyhow::{Context, Result, ensure};
use tch::Tensor;

use super::sae::Sae;
use crate::hook::intervention::Intervention;
use crate::hook::plan::Plan;
use crate::hook::site::Axis;
use crate::index::Positions;

/// How an SAE is spliced into a run: [`Sae::splice`]. A by-value builder.
///
/// ```
/// use thalweg::{Model, Plan, Sae};
/// let model = Model::load("data/models/tiny-world")?;
/// let sae = Sae::load("data/models/tiny-world-sae")?;
/// let tokens = model.tokens("Mary and John went to the store")?;
/// let without = sae.splice().zero(7).pos(1..).plan(Plan::new())?;
/// let doubled = sae.splice().scale(7, 2.0).plan(Plan::new())?;
/// let blind = sae.splice().without_error().plan(Plan::new())?;
/// for plan in [without, doubled, blind] {
///     model.run(&tokens, &plan)?;
/// }
/// # thalweg::anyhow::Ok(())
/// ```
#[derive(Clone)]
pub struct Splice {
    sae: Sae,
    edits: Vec<(usize, Edit)>,
    error: bool,
    places: Option<Positions>,
}

/// What happens to one latent.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Edit {
    Set(f64),
    Scale(f64),
    Add(f64),
}

impl Sae {
    /// This SAE in a run, its error term carried.
    pub fn splice(&self) -> Splice {
        Splice { sae: self.clone(), edits: Vec::new(), error: true, places: None }
    }
}

impl Splice {
    /// Turns a latent off.
    pub fn zero(self, latent: usize) -> Self {
        self.set(latent, 0.0)
    }

    /// Gives a latent this activation, at every position covered.
    pub fn set(self, latent: usize, value: f64) -> Self {
        self.edit(latent, Edit::Set(value))
    }

    /// Multiplies a latent's activation.
    pub fn scale(self, latent: usize, factor: f64) -> Self {
        self.edit(latent, Edit::Scale(factor))
    }

    /// Adds to a latent's activation, also where it is off.
    pub fn add(self, latent: usize, amount: f64) -> Self {
        self.edit(latent, Edit::Add(amount))
    }

    /// Leaves out what the SAE does not explain: the run goes on with the reconstruction alone.
    pub fn without_error(mut self) -> Self {
        self.error = false;
        self
    }

    /// Only at these positions, counted in each row's own tokens.
    pub fn pos(mut self, places: impl Into<Positions>) -> Self {
        self.places = Some(places.into());
        self
    }

    /// The plan with the SAE spliced in. A transcoder acts at two sites: it reads at the first and
    /// changes the second.
    pub fn plan(&self, plan: Plan) -> Result<Plan> {
        self.sae.check()?;
        for (latent, edit) in &self.edits {
            self.sae.check_latent(*latent)?;
            let (Edit::Set(x) | Edit::Scale(x) | Edit::Add(x)) = edit;
            ensure!(x.is_finite(), "{self:?}: expected finite numbers");
        }
        for site in [self.sae.site, self.sae.site_out] {
            let axes = site.axes();
            ensure!(axes.get(1) == Some(&Axis::Pos), "{self:?}: the axes of {site} are {axes:?}");
        }
        if self.sae.is_transcoder() {
            return Ok(self.both_ends(plan));
        }
        let held = Mutex::new(self.clone());
        let act = move |x: &Tensor| lock(&held).apply(x, x);
        Ok(plan.intervene(self.sae.site, self.narrowed(Intervention::custom(&self.label(), act))))
    }

    /// What the run goes on with in place of `y`, given what the SAE read.
    fn apply(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        let latents = self.sae.encode(x)?;
        let edited = self.edited(&latents);
        let new = self.sae.decode_like(&edited, x)?;
        let out = match self.error {
            // The error y - old is added to the new: written so, no edit means no change to the bit.
            true => {
                let old = self.sae.decode_like(&latents, x)?;
                let change = (new - old).to_kind(y.kind());
                y + self.shaped(change, y)?
            }
            false => self.shaped(new.to_kind(y.kind()), y)?,
        };
        Ok(out)
    }

    fn edited(&self, latents: &Tensor) -> Tensor {
        if self.edits.is_empty() {
            return latents.shallow_clone();
        }
        let mut columns: HashMap<usize, Tensor> = HashMap::new();
        for (latent, edit) in &self.edits {
            let column =
                columns.remove(latent).unwrap_or_else(|| latents.narrow(-1, *latent as i64, 1));
            columns.insert(
                *latent,
                match edit {
                    Edit::Set(value) => column.full_like(*value),
                    Edit::Scale(factor) => column * *factor,
                    Edit::Add(amount) => column + *amount,
                },
            );
        }
        columns.into_iter().fold(latents.shallow_clone(), |latents, (latent, column)| {
            let at = Tensor::from_slice(&[latent as i64]).to_device(latents.device());
            latents.index_copy(-1, &at, &column)
        })
    }

    fn shaped(&self, change: Tensor, y: &Tensor) -> Result<Tensor> {
        ensure!(
            change.numel() == y.numel(),
            "{self:?} writes {:?}, the activation is {:?}",
            change.size(),
            y.size()
        );
        Ok(change.view_as(y))
    }

    /// A transcoder: what is read is kept until the same run comes to where it is written.
    fn both_ends(&self, plan: Plan) -> Plan {
        type Kept = Arc<Mutex<HashMap<ThreadId, Tensor>>>;
        let read = Kept::default();
        let kept = read.clone();
        let keep = move |x: &Tensor| {
            lock(&kept).insert(std::thread::current().id(), x.shallow_clone());
            Ok(x.shallow_clone())
        };
        let held = Mutex::new(self.clone());
        let act = move |y: &Tensor| {
            let x = lock(&read).remove(&std::thread::current().id());
            let x = x.context("what the transcoder reads is of another run")?;
            lock(&held).apply(&x, y)
        };
        plan.intervene(self.sae.site, Intervention::custom("read", keep))
            .intervene(self.sae.site_out, self.narrowed(Intervention::custom(&self.label(), act)))
    }

    fn narrowed(&self, intervention: Intervention) -> Intervention {
        match &self.places {
            Some(places) => intervention.pos(places.clone()),
            None => intervention,
        }
    }

    fn edit(mut self, latent: usize, edit: Edit) -> Self {
        self.edits.push((latent, edit));
        self
    }

    /// `splice with error, 7: Set(0.0)`
    fn label(&self) -> String {
        let mut label = format!("splice {} its error", if self.error { "with" } else { "without" });
        for (latent, edit) in &self.edits {
            label += &format!(", {latent}: {edit:?}");
        }
        label
    }
}

/// One line: the SAE, and what is done to it.
impl fmt::Debug for Splice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.sae, self.label())?;
        match &self.places {
            Some(places) => write!(f, " at positions {places}"),
            None => Ok(()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
