//! One batch of a sweep: rows join at their layers and begin at their columns, from the unedited
//! run's stream, keys and values.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use super::cells::{Batch, Cell, first_column, looked_at};
use super::layout::Layout;
use super::{Asked, numbers};
use crate::hook::cache::Cache;
use crate::hook::edit::{Edit, Rows};
use crate::hook::metric::Metric;
use crate::hook::plan::{Attention, Plan};
use crate::hook::program::Program;
use crate::hook::site::{Point, Site};
use crate::hook::tap::Tap;
use crate::model::Model;
use crate::model::forward::Pass;
use crate::model::line::Line;
use crate::text::Tokens;

/// The unedited run, from which every plan starts.
pub(super) struct Base<'a> {
    model: &'a Model,
    pass: Pass<'a>,
    tokens: &'a Tokens,
    metric: &'a Metric,
    attention: Attention,
    cache: Cache,
    asked: Asked,
    /// At the column asked for, `[Batch, 1, Vocab]`, or at all columns.
    logits: Tensor,
    /// The metric of each prompt.
    pub(super) values: Vec<f64>,
    /// Bytes left for a batch.
    room: u64,
}

/// Largest difference of the unedited row to the unedited run, as a share of the largest logit.
fn tolerance(kind: Kind) -> f64 {
    match kind {
        Kind::Double => 1e-10,
        Kind::Float => 1e-5,
        // Half precision. Seen: 0 in bf16 and f16 on a CPU with AVX-512 (d_model 512, 8 layers, 24 and
        // 60 positions), where products add up in f32 in an order that no batch size changes. Where
        // one does, each step may round the other way, by 2^-8 in bf16: this allows a dozen of them.
        _ => 5e-2,
    }
}

/// Bytes that one plan's rows need at the widest step, from `column` on.
fn plan_bytes(
    model: &Model,
    tokens: &Tokens,
    attention: Attention,
    column: i64,
    asked: i64,
) -> u64 {
    let c = model.config();
    let n = tokens.width() as u64;
    let p = n - column as u64;
    let (d, f, v) = (c.d_model as u64, c.d_mlp as u64, c.d_vocab as u64);
    let (q, kv) = ((c.n_heads * c.d_head) as u64, (c.n_kv_heads * c.d_head) as u64);
    let pairs = if attention == Attention::Eager { 4 * c.n_heads as u64 * p * n } else { 0 };
    let mixing = p * (3 * d + 6 * q + 3 * kv) + 4 * n * kv + pairs;
    let mlp = p * (3 * d + 5 * f);
    let ends = asked as u64 * 3 * v;
    let entries = (2 * p * d + mixing.max(mlp)).max(ends) * tokens.batch() as u64;
    // Twice: steps hold what they were made from a while longer, and freed blocks stay with the
    // allocator.
    2 * entries * model.kind().elt_size_in_bytes().max(4) as u64
}

/// Caches the stream where plans start and, where they may start at a later column than the first,
/// the keys and values from there on.
fn kept(cells: &[Cell], n_layers: usize) -> Plan {
    let mut starts: Vec<usize> = cells.iter().map(|cell| cell.layer).collect();
    starts.sort_unstable();
    starts.dedup();
    let mut plan = Plan::new();
    for &layer in &starts {
        plan = plan.cache(match layer {
            layer if layer == n_layers => Point::ResidPost.at(layer - 1),
            layer => Point::ResidPre.at(layer),
        });
    }
    let later = |cell: &Cell| cell.column > 0 || cell.edits.iter().any(looked_at);
    if cells.iter().any(later) {
        for layer in starts[0]..n_layers {
            plan = plan.cache(vec![Point::RotK.at(layer), Point::V.at(layer)]);
        }
    }
    plan
}

/// Rows that go on, with those that join them.
fn joined_to(x: Option<Tensor>, new: Tensor, axis: i64) -> Tensor {
    match x {
        Some(x) => Tensor::cat(&[x.to_device(new.device()), new], axis),
        None => new,
    }
}

impl<'a> Base<'a> {
    pub(super) fn new(
        model: &'a Model,
        tokens: &'a Tokens,
        metric: &'a Metric,
        attention: Attention,
        cells: &[Cell],
        asked: Asked,
        cap: u64,
    ) -> Result<Self> {
        let config = model.config();
        let plan = kept(cells, config.n_layers).attention(attention).cap(cap);
        let bytes = plan.bytes(config, tokens, model.kind());
        let width = tokens.width() as i64;
        let needs = cells.iter().map(|cell| {
            let asked =
                width - if cell.whole { cell.column } else { asked.first().max(cell.column) };
            plan_bytes(model, tokens, attention, cell.column, asked)
        });
        // The unedited row goes along with it.
        let most = needs.max().unwrap_or(0) * (tokens.batch() as u64 + 1) / tokens.batch() as u64;
        ensure!(
            bytes + most <= cap,
            "sweep: one plan on {} prompts and what it starts from take about {} MiB, the cap is {} MiB: sweep fewer prompts at once, or raise it with SweepOptions::cap",
            tokens.batch(),
            (bytes + most) >> 20,
            cap >> 20
        );
        // Where there is room to spare, also what tells which plans change nothing up to some column.
        let looked = cells.iter().flat_map(|cell| &cell.edits).filter(|edit| looked_at(edit));
        let looked = BTreeSet::from_iter(looked.map(|edit| edit.site));
        let more = looked.into_iter().fold(plan.clone(), Plan::cache);
        let more_bytes = more.bytes(config, tokens, model.kind());
        let fits = 2 * more_bytes + most <= cap;
        let (plan, bytes) = if fits { (more, more_bytes) } else { (plan, bytes) };
        let run = match metric.position().filter(|_| matches!(asked, Asked::One(_))) {
            Some(position) => model.run(tokens, &plan.logits_at(position))?,
            None => model.run(tokens, &plan)?,
        };
        let logits = run.logits;
        let values = numbers(&match &asked {
            Asked::One(_) => metric.of_row(&logits.squeeze_dim(1))?,
            Asked::From(_) => metric.of(&logits, tokens)?,
        })?;
        Ok(Base {
            model,
            pass: Pass::new(config, &model.weights, tokens, attention),
            tokens,
            metric,
            attention,
            cache: run.cache,
            asked,
            logits,
            values,
            room: cap.saturating_sub(bytes),
        })
    }

    /// The cells that change something the metric sees, each from the column where it does, and the
    /// plans that do not.
    pub(super) fn changing(&self, cells: Vec<Cell>) -> Result<(Vec<Cell>, Vec<usize>)> {
        let setting = self.model.setting(self.tokens);
        let (mut changing, mut same) = (Vec::new(), Vec::new());
        for cell in cells {
            let column = first_column(&cell.edits, setting, Some(&self.cache))?;
            match column > self.asked.last(self.width()) {
                true => same.push(cell.index),
                false => changing.push(Cell { column, ..cell }),
            }
        }
        Ok((changing, same))
    }

    pub(super) fn n_layers(&self) -> usize {
        self.model.config().n_layers
    }

    pub(super) fn width(&self) -> i64 {
        self.tokens.width() as i64
    }

    /// Rows of one plan.
    pub(super) fn rows(&self) -> i64 {
        self.tokens.batch() as i64
    }

    /// How many plans from `column` on fit the memory.
    pub(super) fn fitting(&self, column: i64, asked: i64) -> usize {
        let bytes = plan_bytes(self.model, self.tokens, self.attention, column, asked);
        // one prompt's worth of room for the unedited row
        let unedited = bytes / self.rows() as u64;
        (self.room.saturating_sub(unedited) / bytes.max(1)) as usize
    }

    /// Positions whose logits are computed, of a batch from `column` on.
    pub(super) fn asked_from(&self, column: i64) -> i64 {
        self.width() - self.asked.first().max(column)
    }

    /// The metric under each plan of the batch.
    pub(super) fn run(&self, batch: Batch) -> Result<Vec<(usize, Vec<f64>)>> {
        let rows = self.rows();
        let layout = Layout::new(&batch, rows, self.width());
        let Batch { cells, asked, .. } = batch;
        let device = self.model.device();
        let program = self.program(&cells, asked, &layout);
        let mut tap = Tap::new(&program, self.tokens);
        let line = Line::new(&layout.rows, self.width(), device);
        let (mut x, mut joined) = (None, 0);
        for (layer, block) in self.model.weights.blocks.iter().enumerate().skip(cells[0].layer) {
            let new = cells[joined..].iter().take_while(|cell| cell.layer == layer).count();
            let before = if joined == 0 { 0 } else { layout.position(joined) };
            joined += new;
            let here = line.begin(layout.row(joined), layout.position(joined));
            if new > 0 {
                let stream = self.cache.get(Point::ResidPre.at(layer))?;
                let new =
                    here.of_prompts(&stream).narrow(1, before, layout.position(joined) - before);
                x = Some(joined_to(x, new, 1));
                tap.set_rows(&here.prompts);
            }
            let Some(stream) = x.take() else { continue };
            let stream = if layer == 0 { tap.site(Site::Embed, stream)? } else { stream };
            let pass = self.pass.along(here, self.past(layer)?).asking(asked);
            x = Some(pass.block(layer, block, stream, &mut tap)?);
        }
        let before = if joined == 0 { 0 } else { layout.row(joined) };
        if joined < cells.len() {
            let new = line.prompts.narrow(0, before, line.prompts.size()[0] - before);
            let stream =
                self.kept(Point::ResidPost.at(self.n_layers() - 1), self.width() - asked, asked)?;
            x = Some(joined_to(x, stream.index_select(0, &new.to_device(stream.device())), 0));
            tap.set_rows(&line.prompts);
        }
        let Some(x) = x else { return Ok(Vec::new()) };
        // The unembedding may lie elsewhere; the unedited run's logits lie where the tokens do.
        let logits = self.logits(&x, &line.prompts, &program, &mut tap)?.to_device(device);
        tap.finish()?;
        self.check_unedited(&logits, layout.rows[0].1)?;
        let each = cells.iter().enumerate().map(|(place, cell)| {
            let own = logits.narrow(0, layout.row(place), rows);
            Ok((cell.index, numbers(&self.measure(&own, cell.column)?)?))
        });
        each.collect()
    }

    /// The plans' edits, each on its own rows and on the columns that are computed at its site.
    fn program(&self, cells: &[Cell], asked: i64, layout: &Layout) -> Program {
        let (width, layers) = (self.width(), self.n_layers());
        let longest = width - layout.rows[0].1;
        let narrowed = |edit: &Edit, place: usize| {
            let (late, pairs) = match edit.site {
                Site::Embed => (false, false),
                Site::Block(layer, point) => (
                    layer + 1 == layers && point > Point::RotK,
                    matches!(point, Point::Scores | Point::Pattern),
                ),
                _ => (true, false),
            };
            let side_by_side = Rows::SideBySide(layout.row(place), self.rows());
            let columns = width - cells[place].column;
            let (n, rows) = match (late, pairs) {
                (true, _) => (asked, side_by_side),
                (false, true) => (longest, side_by_side),
                _ => (columns, Rows::InLine(layout.position(place), self.rows(), columns)),
            };
            edit.narrowed(n, width, Some(rows))
        };
        let each = cells.iter().enumerate();
        let edits = each.flat_map(|(place, cell)| {
            cell.edits.iter().map(move |edit| (edit, place)).collect::<Vec<_>>()
        });
        let edits = edits.map(|(edit, place)| narrowed(edit, place)).collect();
        Program::of_edits(edits, layers, self.attention, self.model.device())
    }

    /// The prompts' own keys and values, where some plan begins after the first column.
    fn past(&self, layer: usize) -> Result<Option<[Tensor; 2]>> {
        let [k, v] = [Point::RotK.at(layer), Point::V.at(layer)];
        if !self.cache.contains(k) {
            return Ok(None);
        }
        Ok(Some([self.cache.get(k)?, self.cache.get(v)?]))
    }

    fn kept(&self, site: Site, from: i64, n: i64) -> Result<Tensor> {
        Ok(self.cache.get(site)?.narrow(1, from, n))
    }

    /// Logits `[rows, n, Vocab]`: at the column asked for, or at all computed.
    fn logits(
        &self,
        x: &Tensor,
        prompts: &Tensor,
        program: &Program,
        tap: &mut Tap,
    ) -> Result<Tensor> {
        let Asked::One(columns) = &self.asked else { return self.pass.unembed(x, None, tap) };
        let first = self.width() - x.size()[1];
        // A prompt whose column lies before what is computed is not changed by any of the plans.
        let places: Vec<i64> = columns.iter().map(|at| (at - first).max(0)).collect();
        let places = Tensor::from_slice(&places).to_device(prompts.device());
        let places = places.index_select(0, prompts);
        let places = places.unsqueeze(1);
        let edited = !program.at(Site::Logits).edits.is_empty();
        if !edited {
            return self.pass.unembed(x, Some(&places), tap);
        }
        let all = self.pass.unembed(x, None, tap)?;
        let index = places.to_device(all.device()).unsqueeze(-1);
        let index = index.expand([-1, 1, all.size()[2]], false);
        Ok(all.gather(1, &index, false))
    }

    /// The metric from one plan's logits.
    fn measure(&self, logits: &Tensor, column: i64) -> Result<Tensor> {
        match &self.asked {
            Asked::One(columns) => {
                let logits = logits.squeeze_dim(1);
                if columns.iter().all(|at| *at >= column) {
                    return self.metric.of_row(&logits);
                }
                let before: Vec<bool> = columns.iter().map(|at| *at < column).collect();
                let before = Tensor::from_slice(&before).to_device(logits.device()).unsqueeze(1);
                self.metric.of_row(&self.logits.squeeze_dim(1).where_self(&before, &logits))
            }
            Asked::From(_) => {
                let n = logits.size()[1].min(self.width() - column);
                let (known, logits) = (self.width() - n, logits.narrow(1, logits.size()[1] - n, n));
                let whole = Tensor::cat(&[self.logits.narrow(1, 0, known), logits], 1);
                self.metric.of(&whole, self.tokens)
            }
        }
    }

    /// The first row of the batch, which no plan edits, is the first prompt's run.
    fn check_unedited(&self, logits: &Tensor, column: i64) -> Result<()> {
        let own = logits.get(0);
        let known = match &self.asked {
            Asked::One(columns) if columns[0] < column => return Ok(()),
            Asked::One(_) => self.logits.get(0),
            Asked::From(_) => {
                let n = own.size()[0];
                self.logits.get(0).narrow(0, self.width() - n, n)
            }
        };
        // Padding in front of the row has no logits that mean anything.
        let padding = match &self.asked {
            Asked::One(_) => 0,
            Asked::From(_) => {
                let first = self.width() - own.size()[0];
                (self.tokens.padding(0) as i64 - first).max(0)
            }
        };
        let n = own.size()[0] - padding;
        let (own, known) = (own.narrow(0, padding, n), known.narrow(0, padding, n));
        let strays = f64::try_from((&own - &known).abs().max())?;
        let largest = f64::try_from(known.abs().max())?;
        let allowed = tolerance(self.model.kind());
        ensure!(
            strays <= allowed * largest,
            "sweep: the unedited row of a batch strays from its own run by {:.1e} of the largest logit, expected at most {allowed:.0e}: run the plans one by one",
            strays / largest
        );
        Ok(())
    }
}
