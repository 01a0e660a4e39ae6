//! Path patching: what one component says to another, apart from what it says to everything else.
//!
//! Wang et al. 2022 (IOI), <https://arxiv.org/abs/2211.00593>; Goldowsky-Dill et al. 2023,
//! <https://arxiv.org/abs/2304.05969>. Four plain runs: both runs of the pair; the receiving one with
//! the sender's other value and everything between held as it was, which shows what then reaches
//! the receiver; and the receiving one with the receiver's input so changed. What is held
//! between is where the two papers part, and results depend on it: see [`PathRule`].

use anyhow::{Result, ensure};

use crate::analysis::cells::{CHUNK, Swept};
use crate::analysis::patching::Patching;
use crate::grid::Grid;
use crate::hook::cache::Cache;
use crate::hook::intervention::Intervention;
use crate::hook::metric::Metric;
use crate::hook::plan::Plan;
use crate::hook::site::{Axis, Point, Site};
use crate::index::Index;

/// Plans of one sweep: each may hold what its receivers got.
const HELD: usize = 128;

/// What is held between sender and receiver. Heads are held in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PathRule {
    /// MLPs compute from what reaches them, so that a path may lead through them: the convention of
    /// Wang et al. (IOI).
    MlpsRecompute,
    /// MLPs are held too, so that the path is the stream alone: the convention of Goldowsky-Dill et
    /// al.
    MlpsFrozen,
}

/// The input that a path ends in.
///
/// ```
/// use thalweg::Receiver;
/// assert_eq!(Receiver::q(3, 1).to_string(), "L3 Q 1");
/// assert_eq!(Receiver::logits().to_string(), "logits");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receiver(Reads);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Reads {
    Heads(Site, Index),
    Mlp(usize),
    Logits,
}

impl Receiver {
    /// The queries of these query heads.
    pub fn q(layer: usize, heads: impl Into<Index>) -> Self {
        Receiver(Reads::Heads(Point::Q.at(layer), heads.into()))
    }

    /// The keys of these key/value heads.
    pub fn k(layer: usize, kv_heads: impl Into<Index>) -> Self {
        Receiver(Reads::Heads(Point::K.at(layer), kv_heads.into()))
    }

    /// The values of these key/value heads.
    pub fn v(layer: usize, kv_heads: impl Into<Index>) -> Self {
        Receiver(Reads::Heads(Point::V.at(layer), kv_heads.into()))
    }

    /// The MLP of a layer.
    pub fn mlp(layer: usize) -> Self {
        Receiver(Reads::Mlp(layer))
    }

    /// The final norm and the unembedding. Receives alone: it is the end of every other path too.
    pub fn logits() -> Self {
        Receiver(Reads::Logits)
    }

    /// Where what reaches the receiver is read, and put in.
    fn sites(&self) -> Vec<Site> {
        match &self.0 {
            Reads::Heads(site, _) => vec![*site],
            Reads::Mlp(layer) => vec![Point::MlpPre.at(*layer), Point::MlpPreLinear.at(*layer)],
            Reads::Logits => Vec::new(),
        }
    }

    /// The plan that also gives the receiver what it got in a recorded run.
    fn receive(&self, plan: Plan, recorded: &Cache) -> Plan {
        let patch = Intervention::patch(recorded);
        match &self.0 {
            Reads::Heads(site, heads) if site.point() == Some(Point::Q) => {
                plan.intervene(*site, patch.head(heads.clone()))
            }
            Reads::Heads(site, heads) => plan.intervene(*site, patch.kv_head(heads.clone())),
            Reads::Mlp(_) => plan.intervene(self.sites(), patch),
            Reads::Logits => plan,
        }
    }
}

impl std::fmt::Display for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Reads::Heads(Site::Block(layer, point), heads) => {
                write!(f, "L{layer} {point:?} {heads}")
            }
            Reads::Heads(site, heads) => write!(f, "{site} {heads}"),
            Reads::Mlp(layer) => write!(f, "L{layer} mlp"),
            Reads::Logits => f.write_str("logits"),
        }
    }
}

impl Patching {
    /// The metric when only the paths from each sender to the receivers carry the other run's value:
    /// `[Layer, ..by]`, in the metric's unit, or as [`normalised`](Self::normalised) says.
    ///
    /// Senders are the parts of `point`, one of `Z`, `AttnOut`, `MlpOut`, split by `by`, as in
    /// [`patching`](crate::patching). All receivers are given their changed input in the same run. A
    /// sender that no receiver lies after leaves the metric as it was. Both papers use
    /// [`Direction::Noise`](crate::Direction::Noise).
    ///
    /// ```
    /// use thalweg::{Axis, Direction, Metric, Model, PathRule, Patching, Point, Receiver};
    /// let model = Model::load("data/models/tiny-world")?;
    /// let clean = model.tokens("When Mary and John went to the store , John gave a drink to")?;
    /// let corrupt = model.tokens("When Mary and John went to the store , Mary gave a drink to")?;
    /// let metric = Metric::logit_diff(model.token("Mary")?, model.token("John")?);
    /// let pair = Patching::new(&model, &clean, &corrupt)?.direction(Direction::Noise);
    /// let (heads, to) = ([Axis::Head], [Receiver::logits()]);
    /// let direct = pair.paths(Point::Z, &heads, &to, PathRule::MlpsRecompute, &metric)?;
    /// assert_eq!(direct.axes[1].axis, Axis::Head);
    /// # thalweg::anyhow::Ok(())
    /// ```
    pub fn paths(
        &self,
        point: Point,
        by: &[Axis],
        receivers: &[Receiver],
        rule: PathRule,
        metric: &Metric,
    ) -> Result<Grid> {
        self.check_paths(point, receivers)?;
        let (_, tokens) = self.runs();
        let cells = self.cells("path patching from", &point.into(), by)?;
        let source = self.source(cells.sites(), metric)?;
        let own = self.own(rule)?;
        let sites: Vec<Site> = receivers.iter().flat_map(Receiver::sites).collect();
        let plan = |_, cell: &[usize]| -> Result<Plan> {
            let send = cells.narrow(cell, Intervention::patch(&source.cache));
            let sent = held(&own, cells.site(cell)).intervene(cells.site(cell), send);
            if sites.is_empty() {
                return Ok(sent);
            }
            let sent = sent.cache(sites.clone()).logits_at(-1);
            let recorded = self.model.run(tokens, &sent)?.cache;
            Ok(receivers.iter().fold(Plan::new(), |plan, to| to.receive(plan, &recorded)))
        };
        let chunk = if sites.is_empty() { CHUNK } else { HELD };
        let swept = Swept::new((&self.model, tokens, metric), (&cells, 1, chunk), plan)?;
        let grid = self.finish(swept, &source, metric)?;
        let to: Vec<String> = receivers.iter().map(Receiver::to_string).collect();
        let to = to.join(", ");
        Ok(grid
            .name(&format!("{metric:?}, paths from {point:?} to {to}: {}", self.direction))
            .note("receivers", &to)
            .note("paths", &format!("{rule:?}")))
    }

    /// What is held, as it was in the receiving run.
    fn own(&self, rule: PathRule) -> Result<Cache> {
        let points = match rule {
            PathRule::MlpsRecompute => vec![Point::Z],
            PathRule::MlpsFrozen => vec![Point::Z, Point::MlpOut],
        };
        let (_, tokens) = self.runs();
        Ok(self.model.run(tokens, &Plan::new().cache(points).logits_at(-1))?.cache)
    }

    fn check_paths(&self, point: Point, receivers: &[Receiver]) -> Result<()> {
        let senders = [Point::Z, Point::AttnOut, Point::MlpOut];
        ensure!(
            senders.contains(&point),
            "path patching from {point:?}: expected a sender, one of {senders:?}"
        );
        ensure!(!receivers.is_empty(), "path patching: no receivers, expected at least one");
        let logits = receivers.contains(&Receiver::logits());
        ensure!(
            !logits || receivers.len() == 1,
            "path patching: the logits receive alone, for every path to another receiver ends there too"
        );
        let n_layers = self.model.config().n_layers;
        for receiver in receivers {
            let beyond = receiver.sites().iter().filter_map(|site| site.layer()).max();
            ensure!(
                beyond.is_none_or(|layer| layer < n_layers),
                "path patching to {receiver}: the model has layers 0..{}",
                n_layers - 1
            );
        }
        Ok(())
    }
}

/// The plan that holds all that lies after a sender; what lies before it is as it was anyway.
fn held(own: &Cache, sender: Site) -> Plan {
    let first = sender.layer().unwrap_or(0);
    let after = |site: &Site| match site {
        Site::Block(layer, Point::MlpOut) => *layer >= first,
        site => site.layer().is_some_and(|layer| layer > first),
    };
    let sites: Vec<Site> = own.sites().filter(after).collect();
    if sites.is_empty() {
        return Plan::new();
    }
    Plan::new().intervene(sites, Intervention::patch(own))
}
