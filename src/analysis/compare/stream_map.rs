//! A map from the residual stream of one model to that of another, and what it carries over.
//!
//! An affine map fitted on the same tokens: by least squares with a penalty (Bansal et al. 2021,
//! "Revisiting Model Stitching", <https://arxiv.org/abs/2106.07682>) or by rotation alone. A flexible
//! map finds something between any two models: beside each stands one fitted on shuffled tokens.

use std::fmt;

use anyhow::{Result, ensure};
use tch::{Device, Kind, Tensor};

use super::data::{centred, pair, squares};
use super::procrustes::procrustes;
use crate::analysis::hidden::Probe;
use crate::analysis::layers::Rows;
use crate::hook::cache::Cache;
use crate::hook::intervention::Intervention;
use crate::hook::plan::Plan;
use crate::hook::site::{Axis, Site};
use crate::record::Origin;
use crate::rng::Rng;

/// How a map between streams is fitted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StreamFit {
    /// Least squares with this penalty on the squares of the matrix, as scikit-learn's `Ridge` counts
    /// it; 0 for none, where there are more tokens than dimensions.
    Ridge(f64),
    /// The best rotation or reflection, with one scale and a shift.
    Procrustes,
}

/// "ridge (1)", "Procrustes".
impl fmt::Display for StreamFit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StreamFit::Ridge(penalty) => write!(f, "ridge ({penalty})"),
            StreamFit::Procrustes => f.write_str("Procrustes"),
        }
    }
}

/// An affine map from the stream at a site of model A to that at a site of model B.
pub struct StreamMap {
    /// Where in A.
    pub from: Site,
    /// Where in B.
    pub to: Site,
    /// `[D, E]`, f64.
    pub matrix: Tensor,
    /// Added to `x matrix`: `[E]`, f64.
    pub shift: Tensor,
    /// Share of the variance of B's stream that it explains on prompts held out; 1 is all, below 0 is
    /// worse than their mean. NaN of the identity, which was not fitted.
    pub r2: f64,
    /// The same of the map fitted where A's tokens are paired with B's at random.
    pub shuffled_r2: f64,
    /// Tokens it was fitted on.
    pub n: usize,
    /// The matrix and the shift of that control.
    control: Option<(Tensor, Tensor)>,
    pub(super) origins: Vec<Origin>,
}

impl Clone for StreamMap {
    fn clone(&self) -> Self {
        StreamMap {
            matrix: self.matrix.shallow_clone(),
            shift: self.shift.shallow_clone(),
            control: self.control.as_ref().map(|(m, s)| (m.shallow_clone(), s.shallow_clone())),
            origins: self.origins.clone(),
            ..*self
        }
    }
}

/// One line: from where to where, and how well.
impl fmt::Debug for StreamMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream map {} -> {} of {} tokens: ", self.from, self.to, self.n)?;
        write!(f, "held-out R2 {:.3}, shuffled {:.3}", self.r2, self.shuffled_r2)
    }
}

impl StreamMap {
    /// Fits A's stream to B's, both cached on the same prompts: four fifths of the prompts, drawn from
    /// `seed`, are fitted and the others held out. Padding and each prompt's first token are left out.
    ///
    /// ```
    /// use thalweg::{Model, Plan, Point, Prompts, StreamFit, StreamMap};
    /// let model = Model::load("data/models/tiny-world")?;
    /// let tokens = model.batch(&Prompts::load("data/prompts/fact.json")?.first(40).clean())?;
    /// let cache = model.run(&tokens, &Plan::new().cache(Point::ResidPost))?.cache;
    /// let (from, to) = (Point::ResidPost.at(1), Point::ResidPost.at(2));
    /// let map = StreamMap::fit((&cache, from), (&cache, to), StreamFit::Ridge(1.0), 0)?;
    /// assert!(map.r2 > 0.5 && map.shuffled_r2 < 0.2);
    /// # thalweg::anyhow::Ok(())
    /// ```
    pub fn fit(
        (a, from): (&Cache, impl Into<Site>),
        (b, to): (&Cache, impl Into<Site>),
        fit: StreamFit,
        seed: u64,
    ) -> Result<Self> {
        let (from, to) = (from.into(), to.into());
        ensure!(
            a.tokens().ids() == b.tokens().ids(),
            "stream map: the caches are of different tokens, expected two runs on the same"
        );
        for site in [from, to] {
            ensure!(
                site.axes() == [Axis::Batch, Axis::Pos, Axis::DModel],
                "stream map at {site}: its axes are {:?}, expected [Batch, Pos, DModel]",
                site.axes()
            );
        }
        let rows = Rows::new(a.tokens(), 1);
        let own = |cache: &Cache, site| -> Result<Tensor> {
            Ok(rows.of(&cache.get(site)?).to_device(Device::Cpu))
        };
        let [x, y] = pair("stream map", &own(a, from)?, &own(b, to)?, 4)?;
        let mut rng = Rng::new(seed);
        let [train, test] = parts(&rows.counts, &mut rng)?;
        let at = |x: &Tensor, rows: &[i64]| x.index_select(0, &Tensor::from_slice(rows));
        let mut order = train.clone();
        rng.shuffle(&mut order);
        let (matrix, shift) = solve(&at(&x, &train), &at(&y, &train), fit)?;
        let control = solve(&at(&x, &order), &at(&y, &train), fit)?;
        let (x, y) = (at(&x, &test), at(&y, &test));
        let total = squares(&centred("stream map", &y)?);
        let r2 = |(m, s): (&Tensor, &Tensor)| 1.0 - squares(&(x.matmul(m) + s - &y)) / total;
        Ok(StreamMap {
            r2: r2((&matrix, &shift)),
            shuffled_r2: r2((&control.0, &control.1)),
            from,
            to,
            matrix,
            shift,
            n: train.len(),
            control: Some(control),
            origins: a.origin().into_iter().chain(b.origin()).cloned().collect(),
        })
    }

    /// The map that changes nothing, of streams of `d` dimensions.
    pub fn identity(from: impl Into<Site>, to: impl Into<Site>, d: usize) -> Self {
        let double = (Kind::Double, Device::Cpu);
        StreamMap {
            from: from.into(),
            to: to.into(),
            matrix: Tensor::eye(d as i64, double),
            shift: Tensor::zeros([d as i64], double),
            r2: f64::NAN,
            shuffled_r2: f64::NAN,
            n: 0,
            control: None,
            origins: Vec::new(),
        }
    }

    /// The control: the map fitted where tokens were paired at random. The identity has none.
    pub fn shuffled(&self) -> Result<Self> {
        let Some((matrix, shift)) = &self.control else {
            anyhow::bail!("stream map: the identity was not fitted, so it has no shuffled control");
        };
        let [matrix, shift] = [matrix, shift].map(Tensor::shallow_clone);
        Ok(StreamMap { matrix, shift, r2: self.shuffled_r2, control: None, ..self.clone() })
    }

    /// Streams of A as streams of B: `[.., D]` -> `[.., E]`, f64 on the CPU.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.carry(x)? + &self.shift)
    }

    /// Directions of A as directions of B, by the matrix alone: `[.., D]` -> `[.., E]`, f64 on the CPU.
    /// To steer B with.
    pub fn carry(&self, direction: &Tensor) -> Result<Tensor> {
        let d = self.matrix.size()[0];
        ensure!(
            direction.size().last() == Some(&d),
            "stream map: the vectors are {:?}, expected [.., {d}]",
            direction.size()
        );
        Ok(direction.detach().to_device(Device::Cpu).to_kind(Kind::Double).matmul(&self.matrix))
    }

    /// A probe of B's stream as one that reads A's: its scores are those of the probe on
    /// [`apply`](Self::apply). A probe of model X is read in model Y through the map from Y to X.
    pub fn probe(&self, probe: &Probe) -> Result<Probe> {
        let e = self.matrix.size()[1];
        ensure!(
            probe.weights.size().last() == Some(&e),
            "stream map: the probe has {:?} dimensions, expected {e}, those the map leads to",
            probe.weights.size().last()
        );
        Ok(Probe {
            weights: probe.weights.matmul(&self.matrix.tr()),
            bias: &probe.bias + probe.weights.matmul(&self.shift),
            ..probe.clone()
        })
    }

    /// A plan for model B, on the tokens of both caches: its stream at `to` is the map of A's stream
    /// at `from`. Each prompt's first token keeps B's own stream, as the fit left it out. `a` must hold
    /// `from`, `b` (a run of B) `to`.
    pub fn stitched(&self, a: &Cache, b: &Cache) -> Result<Plan> {
        ensure!(
            a.tokens().ids() == b.tokens().ids(),
            "stream map: the caches are of different tokens, expected two runs on the same"
        );
        let own = b.get(self.to)?;
        let mapped = self.apply(&a.get(self.from)?)?.to_kind(own.kind()).to_device(own.device());
        ensure!(
            mapped.size() == own.size(),
            "stream map into {}: it makes {:?}, the model holds {:?} there",
            self.to,
            mapped.size(),
            own.size()
        );
        let counts = Rows::new(b.tokens(), 1).mask(b.tokens(), own.device()).to_kind(Kind::Bool);
        let value = mapped.where_self(&counts, &own);
        Ok(Plan::new().intervene(self.to, Intervention::set(&value)))
    }
}

/// Rows of the prompts to fit and of those held out.
fn parts(counts: &[i64], rng: &mut Rng) -> Result<[Vec<i64>; 2]> {
    let mut starts = vec![0];
    counts.iter().for_each(|n| starts.push(starts[starts.len() - 1] + n));
    let mut prompts: Vec<usize> = (0..counts.len()).filter(|row| counts[*row] > 0).collect();
    ensure!(
        prompts.len() > 1,
        "stream map: {} prompts of two tokens or more, expected two at least, of which one is held out",
        prompts.len()
    );
    rng.shuffle(&mut prompts);
    let held = (prompts.len() / 5).max(1);
    let rows = |prompts: &[usize]| {
        let mut prompts = prompts.to_vec();
        prompts.sort_unstable();
        prompts.into_iter().flat_map(|row| starts[row]..starts[row + 1]).collect()
    };
    Ok([rows(&prompts[held..]), rows(&prompts[..held])])
}

/// Matrix and shift that bring `x` nearest to `y`.
fn solve(x: &Tensor, y: &Tensor, fit: StreamFit) -> Result<(Tensor, Tensor)> {
    let [mean_x, mean_y] = [x, y].map(|t| t.mean_dim([0i64].as_slice(), false, None));
    let matrix = match fit {
        StreamFit::Procrustes => {
            let found = procrustes(x, y)?;
            found.rotation * found.scale
        }
        StreamFit::Ridge(penalty) => {
            ensure!(
                penalty.is_finite() && penalty >= 0.0,
                "stream map: a ridge penalty of {penalty}, expected 0 or more"
            );
            let (x, y) = (x - &mean_x, y - &mean_y);
            let d = x.size()[1];
            let ridge = Tensor::eye(d, (Kind::Double, Device::Cpu)) * penalty;
            let normal = x.tr().matmul(&x) + ridge;
            let found = Tensor::f_linalg_solve(&normal, &x.tr().matmul(&y), true);
            found.map_err(|_| {
                anyhow::anyhow!(
                    "stream map: {} tokens do not settle {d} dimensions: more tokens, or StreamFit::Ridge above 0",
                    x.size()[0]
                )
            })?
        }
    };
    let shift = mean_y - mean_x.matmul(&matrix);
    Ok((matrix, shift))
}
