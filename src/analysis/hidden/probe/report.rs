//! Probes layer by layer, with their controls.

use std::fmt;

use anyhow::{Result, ensure};
use ndarray::ArrayD;
use tch::Tensor;

use super::folds::{ByGroup, Fitting, control, folds, held_out};
use super::{Probe, ProbeMethod, numbered};
use crate::analysis::hidden::states::states;
use crate::grid::Grid;
use crate::hook::site::{Axis, Point, Site};
use crate::index::Position;
use crate::model::Model;
use crate::record::Origin;
use crate::rng::Rng;
use crate::show::progress;
use crate::text::Tokens;

/// Names, and vectors `[n, D]`.
type Layers = Vec<(String, Tensor)>;

/// What is probed, at every layer, and how.
///
/// ```
/// use thalweg::{Axis, Model, ProbeMethod, Probing, prompts::Prompts};
/// let model = Model::load("data/models/tiny-world")?;
/// let set = Prompts::load("data/prompts/sentiment.json")?.labelled("verb")?.first(32);
/// let tokens = set.aligned(&model)?.clean;
/// let word = |i: usize| set.prompts[i].clean.split(' ').nth(3).unwrap(); // the adjective
/// let (labels, groups): (Vec<_>, Vec<_>) =
///     (0..set.len()).map(|i| (set.prompts[i].right[0].clone(), word(i))).unzip();
/// let report = Probing::new(&tokens, &labels, &groups)?
///     .method(ProbeMethod::MeanDifference)
///     .folds(4)
///     .run(&model)?;
/// assert_eq!(report.accuracy.labels(Axis::Series)?[..2], ["probe", "control labels"]);
/// assert!(report.accuracy.get(&["L2", "probe"])? > report.accuracy.get(&["embed", "probe"])?);
/// # thalweg::anyhow::Ok(())
/// ```
#[derive(Clone)]
pub struct Probing {
    tokens: Tokens,
    classes: Vec<String>,
    y: Vec<usize>,
    groups: Vec<usize>,
    units: Vec<usize>,
    /// Whether the units are the groups.
    by_group: bool,
    point: Point,
    position: Position,
    methods: Vec<ProbeMethod>,
    standardised: bool,
    folds: usize,
    draws: usize,
    seed: u64,
}

/// One line: what is probed, where, by what.
impl fmt::Debug for Probing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (method, classes) = (self.named(), self.classes.join(", "));
        write!(f, "{method} probe of {classes} at {:?} {:?}, ", self.point, self.position)?;
        write!(f, "{} prompts in {} folds", self.y.len(), self.folds)
    }
}

impl Probing {
    /// One label and one group for each prompt. A group (a subject, a template) is never split
    /// between fitting and testing. Default: `ResidPost` of every layer at the last token, logistic
    /// with l2 1, 5 folds, 10 draws of control labels by group, seed 0.
    pub fn new(
        tokens: &Tokens,
        labels: &[impl AsRef<str>],
        groups: &[impl AsRef<str>],
    ) -> Result<Self> {
        let n = tokens.batch();
        ensure!(
            labels.len() == n && groups.len() == n,
            "probe: {} labels and {} groups for {n} prompts, expected one each",
            labels.len(),
            groups.len()
        );
        let (classes, y) = numbered(labels);
        ensure!(classes.len() > 1, "probe: every prompt is of class {:?}", classes[0]);
        let groups = numbered(groups).1;
        Ok(Probing {
            tokens: tokens.clone(),
            classes,
            y,
            units: groups.clone(),
            groups,
            by_group: true,
            point: Point::ResidPost,
            position: Position::Last,
            methods: vec![ProbeMethod::Logistic { l2: 1.0 }],
            standardised: false,
            folds: 5,
            draws: 10,
            seed: 0,
        })
    }

    /// Another place in the blocks; its axes after `[Batch, Pos]` are joined. The first row of the
    /// result is the embedding in any case.
    pub fn point(mut self, point: Point) -> Self {
        self.point = point;
        self
    }

    /// Another position than each prompt's last token.
    pub fn at(mut self, position: impl Into<Position>) -> Self {
        self.position = position.into();
        self
    }

    /// How probes are fitted.
    pub fn method(mut self, method: ProbeMethod) -> Self {
        self.methods = vec![method];
        self
    }

    /// Chooses among these (penalties, mostly) by cross-validation over the groups fitted on: those
    /// tested on have no say. Control labels have the same choice.
    pub fn methods(mut self, methods: &[ProbeMethod]) -> Self {
        self.methods = methods.to_vec();
        self
    }

    /// Divides each dimension by its standard deviation among the examples fitted on.
    pub fn standardised(mut self) -> Self {
        self.standardised = true;
        self
    }

    /// How many parts the groups are dealt to: each is tested on by a probe fitted on the others.
    pub fn folds(mut self, folds: usize) -> Self {
        self.folds = folds;
        self
    }

    /// What the control labels are drawn for: one thing for each prompt, the variable that varies
    /// (its subject, its adjective). Things that recur in several groups can be learnt by heart from
    /// the groups fitted on, and the control's accuracy says how well; default: the groups, where
    /// nothing can, and the control says whether the split leaks.
    pub fn control_by(mut self, units: &[impl AsRef<str>]) -> Result<Self> {
        let n = self.tokens.batch();
        ensure!(units.len() == n, "probe: {} control units for {n} prompts", units.len());
        self.units = numbered(units).1;
        self.by_group = false;
        Ok(self)
    }

    /// How many times control labels are drawn.
    pub fn draws(mut self, draws: usize) -> Self {
        self.draws = draws;
        self
    }

    /// The seed of folds, control labels, intervals and the shuffled model.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Runs the model, and the same model with its weights shuffled, and probes every layer of both. A
    /// model whose blocks run on a server cannot be shuffled: that control is left out, and the grid says so.
    pub fn run(&self, model: &Model) -> Result<ProbeReport> {
        ensure!(self.draws > 0, "probe: 0 draws of control labels, expected at least 1");
        ensure!(!self.methods.is_empty(), "probe: no methods to choose from");
        let rng = Rng::new(self.seed);
        let how = Fitting {
            methods: &self.methods,
            standardised: self.standardised,
            folds: self.folds,
            seed: self.seed,
        };
        let fold = folds(&self.groups, &self.y, self.folds, &mut rng.fork(0))?;
        let mut draw = rng.fork(1);
        let controls: Vec<Vec<usize>> = (0..self.draws)
            .map(|_| control(&self.units, &self.y, &mut draw))
            .collect::<Result<_>>()?;
        let (own, runs) = self.layers(model)?;
        let shuffled = match model.is_served() {
            true => None,
            false => Some(self.layers(&model.shuffled(self.seed)?)?),
        };
        let others = shuffled.iter().flat_map(|(_, runs)| runs);
        let mut found = Vec::new();
        for (i, (_, x)) in progress(own.iter().enumerate(), "probe").unit("layers") {
            let by = |y: &[usize], x: &Tensor| held_out(x, y, (&self.groups, &fold), how);
            let x = self.compact(x)?;
            let drawn = controls.iter().map(|y| by(y, &x)).collect::<Result<Vec<_>>>()?;
            let mut each = vec![vec![by(&self.y, &x)?], drawn];
            if let Some((layers, _)) = &shuffled {
                each.push(vec![by(&self.y, &self.compact(&layers[i].1)?)?]);
            }
            let each = each.iter().map(|draws| ByGroup::new(&self.groups, draws));
            found.push(each.collect::<Vec<_>>());
        }
        let rungs: Vec<String> = own.iter().map(|(name, _)| name.clone()).collect();
        let labels: Vec<&String> = self.y.iter().map(|class| &self.classes[*class]).collect();
        let fitted = own.iter().map(|(_, x)| {
            let method = how.choose(x, &self.y, &self.groups)?;
            Probe::fit_with(x, &labels, method, self.standardised)
        });
        let probes = fitted.collect::<Result<Vec<_>>>()?;
        Ok(ProbeReport {
            accuracy: self
                .accuracy(&rungs, &found)?
                .of_runs(runs.iter().chain(others).cloned())
                .note("model", &format!("{model:?}")),
            selectivity: self
                .selectivity(&rungs, &found)?
                .of_runs(runs)
                .note("model", &format!("{model:?}")),
            classes: self.counts(),
            width: own[0].1.size()[1] as usize,
            groups: found[0][0].count.len(),
            control_units: self.units.iter().max().map_or(0, |most| most + 1),
            layers: rungs,
            probes,
        })
    }

    /// The same vectors in fewer dimensions, where they are fewer than theirs: turned, which changes
    /// nothing that these methods find, and without the dimensions in which all are alike.
    fn compact(&self, x: &Tensor) -> Result<Tensor> {
        let turns = |method: &ProbeMethod| !matches!(method, ProbeMethod::Lda { .. });
        let turned = !self.standardised && self.methods.iter().all(turns);
        if !turned || x.size()[1] <= x.size()[0] {
            return Ok(x.shallow_clone());
        }
        let (u, s, _) = (x - x.mean_dim([0i64].as_slice(), false, None)).f_svd(true, true)?;
        Ok(u * s)
    }

    /// Name and vectors `[n, D]` of the embedding and of every layer, and the runs they come from.
    fn layers(&self, model: &Model) -> Result<(Layers, Vec<Origin>)> {
        let n_layers = model.config().n_layers;
        let sites: Vec<Site> = std::iter::once(Site::Embed)
            .chain((0..n_layers).map(|layer| self.point.at(layer)))
            .collect();
        let (found, runs) = states("probe", (model, &self.tokens), &sites, &self.position)?;
        let names =
            std::iter::once("embed".to_owned()).chain((0..n_layers).map(|l| format!("L{l}")));
        Ok((names.zip(found).map(|(name, x)| (name, x.flatten(1, -1))).collect(), runs))
    }

    /// The method, or those to choose from.
    fn named(&self) -> String {
        let names: Vec<String> = self.methods.iter().map(ProbeMethod::to_string).collect();
        names.join(" or ")
    }

    fn counts(&self) -> Vec<(String, usize)> {
        let count = |class: usize| self.y.iter().filter(|own| **own == class).count();
        self.classes.iter().enumerate().map(|(c, name)| (name.clone(), count(c))).collect()
    }

    /// `[Layer, Series]`.
    fn accuracy(&self, rungs: &[String], found: &[Vec<ByGroup>]) -> Result<Grid> {
        let most = self.counts().iter().map(|(_, n)| *n).max().unwrap_or(0);
        let largest = most as f64 / self.y.len() as f64;
        let mut rng = Rng::new(self.seed).fork(2);
        let cells: Vec<(f64, f64, f64)> = found
            .iter()
            .flat_map(|each| {
                let mut row: Vec<_> = each.iter().map(|one| one.interval(None, &mut rng)).collect();
                row.push((largest, largest, largest));
                row
            })
            .collect();
        let mut series = vec!["probe", "control labels", "shuffled weights", "largest class"];
        let whole = found.iter().all(|each| each.len() == 3);
        if !whole {
            series.remove(2);
        }
        let series = series.into_iter().map(str::to_owned).collect();
        let axes = [(Axis::Layer, rungs.to_vec()), (Axis::Series, series)];
        let mut grid = with_bounds(&cells, &axes, "share right")?;
        if !whole {
            grid = grid.note("no control of shuffled weights", "the blocks run on a server");
        }
        Ok(self.noted(grid).name(&format!("{} probe: accuracy on groups held out", self.named())))
    }

    /// `[Layer]`.
    fn selectivity(&self, rungs: &[String], found: &[Vec<ByGroup>]) -> Result<Grid> {
        let mut rng = Rng::new(self.seed).fork(3);
        let cells: Vec<_> =
            found.iter().map(|each| each[0].interval(Some(&each[1]), &mut rng)).collect();
        let grid = with_bounds(&cells, &[(Axis::Layer, rungs.to_vec())], "share right")?;
        let name = "selectivity: accuracy less that on control labels";
        Ok(self.noted(grid).name(name))
    }

    fn noted(&self, grid: Grid) -> Grid {
        let counts = self.counts().into_iter().map(|(name, n)| format!("{name} {n}"));
        let n = |numbers: &[usize]| numbers.iter().max().map_or(0, |most| most + 1);
        let unit = if self.by_group { "group" } else { "control unit" };
        grid.n(self.y.len())
            .note("classes", &counts.collect::<Vec<_>>().join(", "))
            .note("groups", &n(&self.groups).to_string())
            .note("folds", &self.folds.to_string())
            .note(
                "control labels",
                &format!("{} draws, one label for each {unit} of {}", self.draws, n(&self.units)),
            )
            .note("seed", &self.seed.to_string())
            .note("at", &format!("{:?}", self.position))
    }
}

/// A grid of `(value, low, high)`, with the interval over groups.
fn with_bounds(
    cells: &[(f64, f64, f64)],
    axes: &[(Axis, Vec<String>)],
    unit: &str,
) -> Result<Grid> {
    let shape: Vec<usize> = axes.iter().map(|(_, labels)| labels.len()).collect();
    let part = |of: fn(&(f64, f64, f64)) -> f64| {
        ArrayD::from_shape_vec(shape.clone(), cells.iter().map(of).collect())
    };
    let named = axes
        .iter()
        .map(|(axis, labels)| crate::grid::GridAxis { axis: *axis, labels: labels.clone() });
    let grid = Grid::new(part(|cell| cell.0)?, named.collect(), unit)?;
    grid.interval(part(|cell| cell.1)?, part(|cell| cell.2)?, "95 % bootstrap interval over groups")
}

/// Probes of every layer, on groups they were not fitted on, beside their controls.
#[derive(Clone)]
pub struct ProbeReport {
    /// Share right, 0..1: `[Layer, Series]`, the embedding first among the layers, so that what the
    /// token at the position gives away is seen. Series: the probe; control labels (the mean of
    /// their draws); the model with shuffled weights, where they are here; always the largest class.
    /// With the 95 % bootstrap interval over groups.
    pub accuracy: Grid,
    /// The probe's accuracy less that on control labels: `[Layer]`.
    pub selectivity: Grid,
    /// Prompts of each class.
    pub classes: Vec<(String, usize)>,
    /// Dimensions of the vectors at the embedding.
    pub width: usize,
    /// How many groups there are.
    pub groups: usize,
    /// How many things control labels were drawn for.
    pub control_units: usize,
    /// Names of the layers, `embed` first.
    pub layers: Vec<String>,
    /// A probe for each of them, fitted on all prompts: their directions are for causal tests.
    pub probes: Vec<Probe>,
}

impl ProbeReport {
    /// The probe of a layer, fitted on all prompts: `"L2"`, `"embed"`.
    pub fn probe(&self, layer: &str) -> Result<&Probe> {
        let found = self.layers.iter().position(|own| own == layer);
        match found {
            Some(i) => Ok(&self.probes[i]),
            None => anyhow::bail!("probe: no layer {layer:?}; it has {}", self.layers.join(", ")),
        }
    }
}

/// One line: the best layer, its accuracy and control, and what they rest on.
impl fmt::Debug for ProbeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |layer: usize, series: usize| self.accuracy.values[[layer, series].as_slice()];
        let best = (0..self.layers.len()).max_by(|a, b| at(*a, 0).total_cmp(&at(*b, 0)));
        let best = best.unwrap_or(0);
        let counts: Vec<_> = self.classes.iter().map(|(name, n)| format!("{name} {n}")).collect();
        write!(
            f,
            "probe of {} dimensions, {}, {} groups: best at {}, {:.3} right, control labels {:.3}, ",
            self.width,
            counts.join(", "),
            self.groups,
            self.layers[best],
            at(best, 0),
            at(best, 1)
        )?;
        if self.accuracy.values.shape()[1] > 3 {
            write!(f, "shuffled weights {:.3}, ", at(best, 2))?;
        }
        write!(f, "embedding {:.3}", at(0, 0))
    }
}
