//! The cells of a grid of experiments, one place of a point each, and what a sweep over them gives.

use anyhow::{Result, bail, ensure};
use ndarray::{ArrayD, Axis as Nth, IxDyn};

use super::effect::mean_text;
use super::frame;
use crate::config::Config;
use crate::grid::{Grid, GridAxis};
use crate::hook::intervention::Intervention;
use crate::hook::metric::Metric;
use crate::hook::plan::Plan;
use crate::hook::site::{Axis, Site};
use crate::hook::sites::Sites;
use crate::index::{Index, Position};
use crate::model::{Model, SweepOptions};
use crate::show::Bar;
use crate::text::Tokens;

/// The parts of a point in some layers, or of one site outside the blocks, split by some of its axes.
#[derive(Debug, Clone)]
pub(super) struct Cells {
    sites: Vec<Site>,
    by: Vec<Axis>,
    tokens: Tokens,
    /// Outermost the sites, as `Layer`.
    axes: Vec<GridAxis>,
    /// Indices of the cells that exist, one for each of `axes`.
    list: Vec<Vec<usize>>,
}

impl Cells {
    /// Checks that the sites are of one kind and have these axes. `what` begins the error:
    /// "patching".
    pub(super) fn new(
        what: &str,
        config: &Config,
        tokens: &Tokens,
        (sites, by): (&Sites, &[Axis]),
    ) -> Result<Self> {
        let mut sites = sites.resolve(config.n_layers);
        sites.dedup();
        let [first, ..] = sites.as_slice() else { bail!("{what}: the list of sites is empty") };
        let alike = |site: &Site| site.point() == first.point() && site.point().is_some();
        ensure!(
            sites.len() == 1 || sites.iter().all(alike),
            "{what} {first} and others: expected one point, in one or several layers, or one site \
             outside the blocks; a grid each can be stacked with Grid::stack"
        );
        check_axes(what, *first, by)?;
        let label = |site: &Site| match site.layer() {
            Some(layer) => format!("L{layer}"),
            None => site.to_string(),
        };
        let mut axes =
            vec![GridAxis { axis: Axis::Layer, labels: sites.iter().map(label).collect() }];
        for axis in by {
            axes.push(GridAxis { axis: *axis, labels: labels_of(*axis, config, tokens) });
        }
        let mut cells =
            Cells { sites, by: by.to_vec(), tokens: tokens.clone(), axes, list: Vec::new() };
        let all = ndarray::indices(cells.shape()).into_iter();
        cells.list = all
            .map(|index| ndarray::Dimension::slice(&index).to_vec())
            .filter(|cell| cells.is_causal(cell))
            .collect();
        Ok(cells)
    }

    /// Only the cells in these layers.
    pub(super) fn in_layers(mut self, what: &str, layers: &Index, n_layers: usize) -> Result<Self> {
        if *layers == Index::All {
            return Ok(self);
        }
        let wanted = layers.resolve(n_layers).map_err(|error| {
            anyhow::anyhow!("{what}: layers: the model has {n_layers}: {error}")
        })?;
        let inside = |site: &Site| site.layer().is_some_and(|layer| wanted.contains(&layer));
        let kept: Vec<usize> = (0..self.sites.len()).filter(|i| inside(&self.sites[*i])).collect();
        ensure!(
            !kept.is_empty(),
            "{what} {}: it lies in none of the layers {wanted:?}",
            self.name()
        );
        self.sites = kept.iter().map(|i| self.sites[*i]).collect();
        self.axes[0].labels = kept.iter().map(|i| self.axes[0].labels[*i].clone()).collect();
        self.list.retain(|cell| cell[0] < kept.len());
        Ok(self)
    }

    /// The point, or the one site: "Z", "hook_embed".
    pub(super) fn name(&self) -> String {
        name_of(self.sites[0])
    }

    /// The site a cell is part of.
    pub(super) fn site(&self, cell: &[usize]) -> Site {
        self.sites[cell[0]]
    }

    /// Every site that cells are parts of.
    pub(super) fn sites(&self) -> Vec<Site> {
        self.sites.clone()
    }

    /// The same intervention on one cell's part of the site.
    pub(super) fn narrow(&self, cell: &[usize], what: Intervention) -> Intervention {
        let mut narrowed = what;
        for (axis, i) in self.by.iter().zip(&cell[1..]) {
            narrowed = match axis {
                Axis::Pos => narrowed.pos(self.position(*i)),
                Axis::Query => narrowed.query(self.position(*i)),
                Axis::Key => narrowed.key(self.position(*i)),
                Axis::Head => narrowed.head(*i),
                Axis::KvHead => narrowed.kv_head(*i),
                Axis::DMlp => narrowed.neuron(*i),
                _ => narrowed.dim(*i),
            };
        }
        let rows: Vec<usize> =
            (0..self.tokens.batch()).filter(|row| self.in_row(cell, *row)).collect();
        if rows.len() < self.tokens.batch() { narrowed.batch(rows) } else { narrowed }
    }

    /// Code that gives one cell again, for the reader of a figure; absent where an index of the
    /// grid is not the index it stands for.
    pub(super) fn code(&self, receiver: &str, what: &str) -> Option<String> {
        let by_layer = self.sites.iter().enumerate().all(|(i, site)| site.layer() == Some(i));
        let first = self.sites[0];
        let site = match first.point() {
            Some(point) => format!("Point::{point:?}.at({{layer}})"),
            None => format!("Site::{first:?}"),
        };
        let plain = !self.tokens.is_padded() && (by_layer || first.layer().is_none());
        let narrow = |axis: &Axis| match axis {
            Axis::Pos => ".pos({pos})",
            Axis::Query => ".query({query})",
            Axis::Key => ".key({key})",
            Axis::Head => ".head({head})",
            Axis::KvHead => ".kv_head({kvhead})",
            Axis::DMlp => ".neuron({dmlp})",
            Axis::DHead => ".dim({dhead})",
            Axis::Vocab => ".dim({vocab})",
            _ => ".dim({dmodel})",
        };
        let narrowed: String = self.by.iter().map(narrow).collect();
        plain.then(|| {
            format!("model.run(&{receiver}, &Plan::new().intervene({site}, {what}{narrowed}))?")
        })
    }

    fn shape(&self) -> Vec<usize> {
        self.axes.iter().map(GridAxis::len).collect()
    }

    /// Whether a cell is not a key after its query.
    fn is_causal(&self, cell: &[usize]) -> bool {
        let find = |axis: Axis| self.by.iter().position(|own| *own == axis).map(|at| cell[at + 1]);
        match (find(Axis::Query), find(Axis::Key)) {
            (Some(query), Some(key)) => key <= query,
            _ => true,
        }
    }

    /// Whether a row of the batch has the columns that a cell names.
    fn in_row(&self, cell: &[usize], row: usize) -> bool {
        let mut places = self.by.iter().zip(&cell[1..]).filter(|(axis, _)| is_position(**axis));
        places.all(|(_, column)| *column >= self.tokens.padding(row))
    }

    /// A column of the batch as a place in each row; a row that lacks it gets its first token, and
    /// is left out by [`narrow`](Self::narrow).
    fn position(&self, column: usize) -> Position {
        if !self.tokens.is_padded() {
            return Position::At(column as i64);
        }
        let own = |row| column.saturating_sub(self.tokens.padding(row)) as i64;
        Position::PerRow((0..self.tokens.batch()).map(own).collect())
    }
}

/// Plans of one sweep, where they hold nothing of their own but masks: of 131072 plans, one a neuron
/// of 8192 in 16 layers, these alone would take 1 GiB at once, of so many 32 MiB.
pub(super) const CHUNK: usize = 4096;

/// A metric under one plan a cell (and draw), and in the unedited run.
#[derive(Debug)]
pub(super) struct Swept {
    /// `[Series, Batch, ..cells]`: each draw, each prompt, each cell; NaN and marked where there is
    /// no number.
    grid: Grid,
    /// The metric of the unedited run, one number a prompt.
    pub(super) base: Vec<f64>,
}

impl Swept {
    /// Runs `plan(draw, cell)` for every draw and cell, in sweeps of at most `chunk` plans: they and
    /// what they hold need not all exist at once.
    pub(super) fn new(
        (model, tokens, metric): (&Model, &Tokens, &Metric),
        (cells, draws, chunk): (&Cells, usize, usize),
        plan: impl Fn(usize, &[usize]) -> Result<Plan>,
    ) -> Result<Self> {
        let mut axes = vec![numbered(Axis::Series, draws), numbered(Axis::Batch, tokens.batch())];
        axes.extend(cells.axes.iter().cloned());
        let shape: Vec<usize> = axes.iter().map(GridAxis::len).collect();
        let mut values = ArrayD::from_elem(shape.clone(), f64::NAN);
        let mut missing = ArrayD::from_elem(shape, true);
        let (mut base, mut notes) = (Vec::new(), Vec::new());
        let all: Vec<(usize, &Vec<usize>)> =
            (0..draws).flat_map(|draw| cells.list.iter().map(move |cell| (draw, cell))).collect();
        let mut bar = Bar::new("sweep", all.len()).unit("plans");
        for part in all.chunks(chunk) {
            let plans = part.iter().map(|(draw, cell)| plan(*draw, cell));
            let (plans, options) = (plans.collect::<Result<Vec<_>>>()?, SweepOptions::new());
            let swept = model.sweep_with(tokens, &plans, metric, options.within(&mut bar))?;
            for (index, (draw, cell)) in part.iter().enumerate() {
                for row in (0..tokens.batch()).filter(|row| cells.in_row(cell, *row)) {
                    if swept.values.exists(&[index, row]) {
                        let at = IxDyn(&[&[*draw, row], cell.as_slice()].concat());
                        values[&at] = swept.values.values[[index, row].as_slice()];
                        missing[&at] = false;
                    }
                }
            }
            notes.extend(swept.notes);
            base = swept.base;
        }
        let mut grid = Grid::new(values, axes, metric.unit())?;
        grid.missing = missing.iter().any(|gone| *gone).then_some(missing);
        if !notes.is_empty() {
            grid = grid.note("sweep", &notes.join("; "));
        }
        if cells.sites[0].layer().is_none() {
            grid = drop_axis(grid, 2)?;
        }
        // A plain pass, cheap beside the sweep, for the record of what ran.
        let plain = model.run(tokens, &Plan::new().logits_at(-1))?.cache;
        let grid = grid.of_runs(plain.origin().cloned());
        let grid = grid.note("metric", &format!("{metric:?}")).note("model", &format!("{model:?}"));
        Ok(Swept { grid, base })
    }

    /// Changes every number by what belongs to its draw and prompt: `change(value, draw, row)`.
    pub(super) fn map(mut self, change: impl Fn(f64, usize, usize) -> f64) -> Self {
        for (index, value) in self.grid.values.indexed_iter_mut() {
            *value = change(*value, index[0], index[1]);
        }
        self
    }

    /// The less the unedited run's.
    pub(super) fn change(self) -> Self {
        let base = self.base.clone();
        let noted = mean_text(&base);
        let mut changed = self.map(|value, _, row| value - base[row]);
        changed.grid = changed.grid.note("unedited run", &noted);
        changed
    }

    /// The mean over draws and, unless `each` prompt is wanted, over prompts: with the 95 % interval
    /// over prompts where there are several, else over draws where there are several.
    pub(super) fn mean(self, each: bool) -> Result<Grid> {
        let (draws, rows) = (self.grid.shape()[0], self.grid.shape()[1]);
        if rows > 1 {
            let by_prompt = self.grid.mean(Axis::Series)?.n(draws);
            return match each {
                true => Ok(by_prompt.note("draws", &draws.to_string())),
                false => averaged(&by_prompt, Axis::Batch, "prompts"),
            };
        }
        let own = drop_axis(self.grid, 1)?;
        match draws {
            1 => drop_axis(own, 0),
            _ => averaged(&own, Axis::Series, "draws"),
        }
    }
}

/// The mean over an axis with its interval, where every cell averages two numbers at least.
fn averaged(grid: &Grid, axis: Axis, over: &str) -> Result<Grid> {
    let mut mean = match grid.mean_interval(axis) {
        Ok(mean) => mean,
        Err(_) => grid
            .mean(axis)?
            .note("interval", "none: a cell averages one number alone (rows differ in length)"),
    };
    if let Some(interval) = &mut mean.interval {
        interval.method = format!("95 % normal interval over {over}");
    }
    mean.provenance.remove(&axis.to_string());
    Ok(mean)
}

/// The same numbers without an axis of one entry.
fn drop_axis(mut grid: Grid, place: usize) -> Result<Grid> {
    ensure!(grid.shape()[place] == 1, "axis {} has several entries", grid.axes[place].axis);
    grid.axes.remove(place);
    grid.values = grid.values.index_axis(Nth(place), 0).to_owned();
    grid.missing = grid.missing.map(|missing| missing.index_axis(Nth(place), 0).to_owned());
    grid.check()?;
    Ok(grid)
}

fn numbered(axis: Axis, n: usize) -> GridAxis {
    GridAxis { axis, labels: (0..n).map(|i| i.to_string()).collect() }
}

fn is_position(axis: Axis) -> bool {
    matches!(axis, Axis::Pos | Axis::Query | Axis::Key)
}

fn labels_of(axis: Axis, config: &Config, tokens: &Tokens) -> Vec<String> {
    let numbers = |n: usize| (0..n).map(|i| i.to_string()).collect();
    match axis {
        Axis::Head => frame::numbered('H', config.n_heads),
        Axis::KvHead => frame::numbered('G', config.n_kv_heads),
        Axis::DMlp => numbers(config.d_mlp),
        Axis::DHead => numbers(config.d_head),
        Axis::DModel => numbers(config.d_model),
        Axis::Vocab => numbers(config.d_vocab),
        _ => frame::position_labels(tokens),
    }
}

fn name_of(site: Site) -> String {
    site.point().map_or(site.to_string(), |point| format!("{point:?}"))
}

/// Which axes of a site cells may be split by: all but the batch and a scale's single entry.
fn check_axes(what: &str, site: Site, by: &[Axis]) -> Result<()> {
    let splits = |axis: &Axis| !matches!(axis, Axis::Batch | Axis::Scale);
    let known: Vec<Axis> = site.axes().iter().copied().filter(splits).collect();
    let name = name_of(site);
    for (i, axis) in by.iter().enumerate() {
        let nearest = match axis {
            Axis::Head if known.contains(&Axis::KvHead) => {
                "; its heads are key/value heads, KvHead"
            }
            Axis::KvHead if known.contains(&Axis::Head) => "; its heads are query heads, Head",
            Axis::Pos if known.contains(&Axis::Query) => "; a position that attends is Query",
            _ => "",
        };
        ensure!(
            known.contains(axis),
            "{what} {name} by {axis}: its axes are {:?}, expected some of {known:?}{nearest}",
            site.axes()
        );
        ensure!(!by[..i].contains(axis), "{what} {name} by {by:?}: {axis} is named twice");
    }
    Ok(())
}
