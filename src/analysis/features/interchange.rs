//! Interchange interventions: one prompt runs with a part of another prompt's activation.
//!
//! Geiger et al. 2023, "Finding Alignments Between Interpretable Causal Variables and Distributed
//! Neural Representations", <https://arxiv.org/abs/2303.02536>:
//! `h' = h_base + (h_source - h_base) R^T R`, rows of `R [k, d]` orthonormal.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail, ensure};
use tch::{Kind, Tensor};

use super::super::frame;
use crate::analysis::frame::width;
use crate::hook::intervention::Intervention;
use crate::hook::plan::Plan;
use crate::hook::site::{Axis, Point, Site};
use crate::index::Position;
use crate::model::{Model, W};
use crate::rng::Rng;
use crate::text::Tokens;

/// Pairs run together.
const AT_ONCE: usize = 128;
/// Singular values of a split basis below this are rounding.
const ROUNDING: f64 = 1e-8;

/// Pairs of prompts, and what the model should say to each base when a variable comes from its
/// source: [`CausalModel::interchange`](crate::CausalModel::interchange) gives the labels.
#[derive(Debug, Clone)]
pub struct InterchangePairs {
    /// Prompts that run.
    pub base: Tokens,
    /// Prompts that give their activation.
    pub source: Tokens,
    /// Id of the right answer at each base's last token.
    pub labels: Vec<i64>,
    /// Lexical items of each pair, that [`split`](Self::split) keeps apart.
    pub items: Vec<Vec<String>>,
}

impl InterchangePairs {
    /// Pairs with as many bases, sources, labels and lists of items.
    pub fn new(
        base: Tokens,
        source: Tokens,
        labels: Vec<i64>,
        items: Vec<Vec<String>>,
    ) -> Result<Self> {
        let n = [base.batch(), source.batch(), labels.len(), items.len()];
        ensure!(
            n.iter().all(|other| *other == n[0]),
            "{} bases, {} sources, {} labels and {} lists of items",
            n[0],
            n[1],
            n[2],
            n[3]
        );
        if let Some(label) = labels.iter().find(|label| **label < 0) {
            bail!("interchange: label {label}, expected the id of a token");
        }
        Ok(InterchangePairs { base, source, labels, items })
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Fails unless each label is an id of the model's.
    pub(super) fn check(&self, model: &Model) -> Result<()> {
        let n = model.config().d_vocab;
        let wrong = |label: &&i64| !(0..n as i64).contains(*label);
        match self.labels.iter().find(wrong) {
            Some(label) => bail!("interchange: label {label}, expected an id of 0..{}", n - 1),
            None => Ok(()),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Some of the pairs.
    pub fn rows(&self, rows: &[usize]) -> Result<Self> {
        let (base, source) = (self.base.rows(rows)?, self.source.rows(rows)?);
        let labels = rows.iter().map(|row| self.labels[*row]).collect();
        let items = rows.iter().map(|row| self.items[*row].clone()).collect();
        Ok(InterchangePairs { base, source, labels, items })
    }

    /// Two sets without a common lexical item: about `share` of the items fall to the first, drawn
    /// from `seed`; pairs with items of both are left out.
    pub fn split(&self, share: f64, seed: u64) -> Result<(Self, Self)> {
        let mut items: Vec<&String> = self.items.iter().flatten().collect();
        items.sort();
        items.dedup();
        let n = items.len();
        let first = (share * n as f64).round() as usize;
        ensure!(0 < first && first < n, "split: {first} of {n} items on one side");
        Rng::new(seed).shuffle(&mut items);
        let (known, other) = items.split_at(first);
        let side = |side: &[&String]| {
            let own = |row: &usize| self.items[*row].iter().all(|item| side.contains(&item));
            let rows: Vec<usize> = (0..self.len()).filter(own).collect();
            ensure!(!rows.is_empty(), "split: no pair has all its items on one side: more pairs");
            self.rows(&rows)
        };
        Ok((side(known)?, side(other)?))
    }

    /// A control: the labels in another order.
    pub fn shuffled(&self, seed: u64) -> Self {
        let mut pairs = self.clone();
        Rng::new(seed).shuffle(&mut pairs.labels);
        pairs
    }
}

/// A subspace of the vectors at one site and position.
pub struct Subspace {
    /// Where it lies.
    pub site: Site,
    /// At which token.
    pub position: Position,
    /// Orthonormal rows, `[k, D]`, f64; a head's axes joined into one.
    pub rows: Tensor,
}

impl Subspace {
    /// The subspace spanned by the rows of a matrix `[k, D]`, which are made orthonormal; they must be
    /// linearly independent. `k = 0` is the empty one.
    pub fn new(
        site: impl Into<Site>,
        position: impl Into<Position>,
        rows: &Tensor,
    ) -> Result<Self> {
        let (site, position) = (site.into(), position.into());
        let &[k, d] = rows.size().as_slice() else {
            bail!("a subspace at {site}: the rows are {:?}, expected [k, D]", rows.size())
        };
        ensure!(k <= d, "a subspace at {site}: {k} rows of {d} entries");
        ensure!(
            !matches!(position, Position::PerRow(_)),
            "a subspace at {site}: a place for each row does not follow the pairs: name it, tokens.with_role(..)"
        );
        let rows = rows.detach().to_kind(Kind::Double);
        ensure!(bool::try_from(rows.isfinite().all())?, "a subspace at {site}: non-finite rows");
        if k == 0 {
            return Ok(Subspace { site, position, rows });
        }
        let (_, sizes, _) = rows.svd(true, false);
        let [least, most] = [sizes.min(), sizes.max()].map(|x| x.double_value(&[]));
        ensure!(least > 1e-10 * most, "a subspace at {site}: the {k} rows depend on each other");
        let rows = orthonormal(&rows);
        Ok(Subspace { site, position, rows })
    }

    /// A subspace of `k` of `d` dimensions drawn from `seed`.
    pub fn random(
        site: impl Into<Site>,
        position: impl Into<Position>,
        (k, d): (usize, usize),
        seed: u64,
    ) -> Result<Self> {
        let rows = Rng::new(seed).normal_tensor(&[k as i64, d as i64]);
        Self::new(site, position, &rows)
    }

    /// Its dimensions.
    pub fn k(&self) -> usize {
        self.rows.size()[0] as usize
    }

    /// Puts the source's part into the base: `source` holds the source prompts' vectors at the
    /// position, `[Batch, D]`, as [`vectors`](Self::vectors) gives them.
    pub fn intervention(&self, source: &Tensor) -> Intervention {
        interchange(&self.rows, source, &self.position)
    }

    /// Vectors at the site and position, f64, `[Batch, D]`.
    pub fn vectors(&self, model: &Model, tokens: &Tokens) -> Result<Tensor> {
        vectors(model, tokens, self.site, &self.position)
    }

    /// Logits at each base's last token with the source's part in place: `[pair, Vocab]`.
    pub fn logits(&self, model: &Model, pairs: &InterchangePairs) -> Result<Tensor> {
        fits(model, self.site, self.rows.size()[1])?;
        let rows: Vec<usize> = (0..pairs.len()).collect();
        let mut parts = Vec::new();
        for part in rows.chunks(AT_ONCE) {
            let pairs = pairs.rows(part)?;
            let change = self.intervention(&self.vectors(model, &pairs.source)?);
            let plan = Plan::new().intervene(self.site, change).logits_at(-1);
            parts.push(model.run(&pairs.base, &plan)?.logits.squeeze_dim(1));
        }
        ensure!(!parts.is_empty(), "interchange at {}: no pairs", self.site);
        Ok(Tensor::cat(&parts, 0))
    }

    /// Interchange intervention accuracy: the share of pairs at which the most likely token is the
    /// label, 0..1.
    pub fn iia(&self, model: &Model, pairs: &InterchangePairs) -> Result<f64> {
        pairs.check(model)?;
        let said = Vec::<i64>::try_from(self.logits(model, pairs)?.argmax(-1, false))?;
        let right = said.iter().zip(&pairs.labels).filter(|(a, b)| a == b).count();
        Ok(right as f64 / pairs.len() as f64)
    }

    /// The part that the layer's own output map reads, the part that it cannot read, and the share of
    /// the subspace in the latter, 0..1 (Makelov et al. 2023, <https://arxiv.org/abs/2311.17030>: what
    /// works only through such a dormant part is an illusion). Defined where one map reads the
    /// site: `MlpPost`, and `Z` where `W_O` has a null space; elsewhere an error.
    pub fn split(&self, model: &Model) -> Result<(Subspace, Subspace, f64)> {
        let d = self.rows.size()[1];
        fits(model, self.site, d)?;
        let (map, name) = match self.site {
            Site::Block(layer, Point::MlpPost) => (model.weight(W::Out, layer)?, "W_down"),
            Site::Block(layer, Point::Z) => (model.weight(W::O, layer)?.flatten(0, 1), "W_O"),
            site => bail!(
                "split at {site}: several maps read it; one does at MlpPost (W_down) and Z (W_O)"
            ),
        };
        let (u, s, _) = map.to_kind(Kind::Double).to_device(self.rows.device()).svd(false, true);
        let largest = s.max().double_value(&[]);
        let rank = s.gt(1e-10 * largest).sum(Kind::Int64).int64_value(&[]);
        ensure!(
            rank < d,
            "split at {}: {name} has rank {rank} of {d}, so every direction is read",
            self.site
        );
        let part = |from: i64, n: i64| -> Result<Subspace> {
            let basis = u.narrow(1, from, n); // [D, n]
            let projected = self.rows.matmul(&basis).matmul(&basis.tr());
            let (_, s, v) = projected.svd(true, true);
            let kept = s.gt(ROUNDING).sum(Kind::Int64).int64_value(&[]);
            Subspace::new(self.site, self.position.clone(), &v.tr().narrow(0, 0, kept))
        };
        let null = u.narrow(1, rank, d - rank);
        let dormant = self.rows.matmul(&null).square().sum(None).double_value(&[]);
        Ok((part(0, rank)?, part(rank, d - rank)?, dormant / (self.k().max(1)) as f64))
    }
}

impl Clone for Subspace {
    /// Shares the memory.
    fn clone(&self) -> Self {
        let rows = self.rows.shallow_clone();
        Subspace { site: self.site, position: self.position.clone(), rows }
    }
}

impl fmt::Debug for Subspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (k, d) = (self.k(), self.rows.size()[1]);
        write!(f, "Subspace of {k} of {d} dimensions at {}, {:?}", self.site, self.position)
    }
}

/// `x + (source - x) R^T R` at the position, in f64; the graph of `rows` is kept.
pub(super) fn interchange(rows: &Tensor, source: &Tensor, position: &Position) -> Intervention {
    let held = Mutex::new((rows.shallow_clone(), source.shallow_clone()));
    let act = move |x: &Tensor| {
        let held = held.lock().unwrap_or_else(PoisonError::into_inner);
        let wide = |t: &Tensor| t.to_device(x.device()).to_kind(Kind::Double);
        let (rows, source) = (wide(&held.0), wide(&held.1));
        let flat = wide(&x.flatten(2, -1)); // [Batch, Pos, D]
        let expected = [flat.size()[0], flat.size()[2]];
        ensure!(
            source.size() == expected && rows.size()[1] == expected[1],
            "the source vectors are {:?} and the rows {:?}, expected [Batch, D] = {expected:?}",
            source.size(),
            rows.size()
        );
        let change = (source.unsqueeze(1) - &flat).matmul(&rows.tr()).matmul(&rows);
        Ok((flat + change).view_as(x).to_kind(x.kind()))
    };
    Intervention::custom("interchange", act).pos(position.clone())
}

/// Vectors at a site and position, f64, `[Batch, D]`.
pub(super) fn vectors(
    model: &Model,
    tokens: &Tokens,
    site: Site,
    position: &Position,
) -> Result<Tensor> {
    let some = |tokens: &Tokens| -> Result<Tensor> {
        let run = model.run(tokens, &Plan::new().cache(site).logits_at(-1))?;
        Ok(frame::at_position(&run.cache.get(site)?, tokens, position)?.flatten(1, -1))
    };
    if tokens.batch() <= AT_ONCE {
        return some(tokens);
    }
    let rows: Vec<usize> = (0..tokens.batch()).collect();
    let parts: Result<Vec<Tensor>> =
        rows.chunks(AT_ONCE).map(|rows| some(&tokens.rows(rows)?)).collect();
    Ok(Tensor::cat(&parts?, 0))
}

/// Fails unless vectors at the site have `d` entries.
pub(super) fn fits(model: &Model, site: Site, d: i64) -> Result<usize> {
    let (axes, layers) = (site.axes(), model.config().n_layers);
    ensure!(
        site.layer().is_none_or(|layer| layer < layers),
        "{site}: the model has layers 0..{}",
        layers - 1
    );
    ensure!(
        axes.get(1) == Some(&Axis::Pos) && site != Site::Logits,
        "interchange at {site}: its axes are {axes:?}, expected [Batch, Pos, ..] within the model"
    );
    let own = width(site, model.config());
    ensure!(d < 0 || own as i64 == d, "{site} has {own} entries, the subspace lies in {d}");
    Ok(own)
}

/// Rows of the same span, orthonormal: by QR, twice, so that they are so to rounding.
pub(super) fn orthonormal(rows: &Tensor) -> Tensor {
    let once = Tensor::linalg_qr(&rows.tr(), "reduced").0;
    Tensor::linalg_qr(&once, "reduced").0.tr()
}
