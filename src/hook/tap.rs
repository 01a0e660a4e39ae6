//! All that the forward page sees of a plan: hand over an activation, get it back, changed and
//! recorded as the plan says.

use anyhow::{Result, ensure};
use tch::Tensor;

use super::cache::Cache;
use super::freeze::Hold;
use super::plan::exists;
use super::program::Program;
use super::site::{Point, Site};
use crate::interrupt::Interrupt;
use crate::text::Tokens;

/// Applies a program during one pass: interventions first, then the record.
#[derive(Debug)]
pub(crate) struct Tap<'a> {
    program: &'a Program,
    cache: Cache,
    fired: Vec<u32>,
    /// Which attention pairs exist; made when the pass first asks.
    exists: Option<Tensor>,
    /// Which row of the tokens each row of the pass is; absent: they are the same.
    rows: Option<Tensor>,
    interrupt: Interrupt,
}

impl<'a> Tap<'a> {
    pub(crate) fn new(program: &'a Program, tokens: &Tokens) -> Self {
        let fired = vec![0; program.edits.len()];
        let cache = Cache::of(program, tokens);
        Tap { program, cache, fired, exists: None, rows: None, interrupt: Interrupt::new() }
    }

    /// A block begins, unless the notebook's user wants the pass to stop.
    pub(crate) fn begin(&self, layer: usize) -> Result<()> {
        let n_layers = self.program.n_layers;
        self.interrupt.check(|| format!("interrupted at block {layer} of {n_layers}"))
    }

    /// Whether the plan names this point, so that it must be computed.
    pub(crate) fn wants(&self, layer: usize, point: Point) -> bool {
        self.program.at(point.at(layer)).is_used()
    }

    /// Whether a point beside the pass must be joined to it: it is changed, or gradients are to
    /// find their way to it.
    pub(crate) fn enters(&self, layer: usize, point: Point) -> bool {
        self.needs_grad() || !self.program.at(point.at(layer)).edits.is_empty()
    }

    /// Whether the pass must keep its graph.
    pub(crate) fn needs_grad(&self) -> bool {
        self.program.needs_grad()
    }

    /// The activation at a point of a block, after the plan's interventions; recorded if asked.
    pub(crate) fn at(&mut self, layer: usize, point: Point, x: Tensor) -> Result<Tensor> {
        self.site(point.at(layer), x)
    }

    /// The same for any site.
    pub(crate) fn site(&mut self, site: Site, x: Tensor) -> Result<Tensor> {
        let program = self.program;
        let slot = program.at(site);
        if !slot.is_used() {
            return Ok(x);
        }
        // What the plan holds, and what it records, lies where the tokens are.
        let place = x.device();
        let mut x = self.frozen(site, x.to_device(program.home.unwrap_or(place)));
        if slot.edits.iter().any(|edit| program.edits[*edit].rows.is_some()) {
            x = x.copy(); // each plan of a sweep writes its rows into it
        }
        for &edit in &slot.edits {
            x = program.edits[edit].apply(&x)?;
            self.fired[edit] += 1;
        }
        if !slot.edits.is_empty() {
            x = self.keep_attention_whole(site, x)?;
        }
        if slot.record {
            // A view would keep the memory of all it was cut from, and is not what was counted.
            x = x.contiguous();
            // A value that was put in whole hangs on nothing; its own gradient begins here.
            if self.program.gradients.is_some() && !x.requires_grad() {
                x = x.detach().set_requires_grad(true);
            }
            self.cache.keep(site, x.shallow_clone())?;
        }
        let x = x.to_device(place);
        Ok(if slot.hold.is_some() { x.detach() } else { x })
    }

    /// The value a site has where it is frozen, else `x`; `x` may have more axes before the last.
    pub(crate) fn frozen(&self, site: Site, x: Tensor) -> Tensor {
        match &self.program.at(site).hold {
            None => x,
            Some(Hold::Own) => x.detach(),
            Some(Hold::At(value)) => {
                let mut value = value.to_device(x.device()).to_kind(x.kind());
                while value.dim() < x.dim() {
                    value = value.unsqueeze(-2);
                }
                value.expand_as(&x)
            }
        }
    }

    /// SiLU of the gate and the linear branch, as they are; under RelP's rule their gradients are
    /// halved, and that of SiLU takes its sigmoid as constant.
    pub(crate) fn gated(&self, silu: Tensor, gate: &Tensor, up: Tensor) -> [Tensor; 2] {
        if !self.program.relp {
            return [silu, up];
        }
        // Zero but for its gradient: no value changes by a bit.
        let linear = gate.detach().sigmoid() * (gate - gate.detach());
        [silu.detach() + linear, up].map(|x| &x * 0.5 + x.detach() * 0.5)
    }

    /// Which (query, key) pairs exist for the last `queries` positions,
    /// `[Batch or 1, 1, Query, Key]`.
    pub(crate) fn exists(&mut self, queries: i64, device: tch::Device) -> Tensor {
        let tokens = self.cache.tokens();
        let all = self.exists.get_or_insert_with(|| exists(tokens, device));
        let all = all.to_device(device);
        let last = all.narrow(2, all.size()[2] - queries, queries);
        match &self.rows {
            Some(rows) if last.size()[0] > 1 => last.index_select(0, &rows.to_device(device)),
            _ => last,
        }
    }

    /// From now on the rows of the pass are these rows of the tokens.
    pub(crate) fn set_rows(&mut self, rows: &Tensor) {
        self.rows = Some(rows.shallow_clone());
    }

    /// A change to scores or pattern cannot make pairs exist that do not (a key after its query,
    /// padding), and must leave every query a key.
    fn keep_attention_whole(&mut self, site: Site, x: Tensor) -> Result<Tensor> {
        let absent = match site.point() {
            Some(Point::Scores) => f64::NEG_INFINITY,
            Some(Point::Pattern) => 0.0,
            _ => return Ok(x),
        };
        let exists = self.exists(x.size()[2], x.device());
        let x = x.masked_fill(&exists.logical_not(), absent);
        if site.point() == Some(Point::Scores) {
            let row_exists = exists.any_dim(-1, false);
            let best = x.detach().amax([-1i64].as_slice(), false);
            let usable = best.isfinite().logical_or(&row_exists.logical_not());
            ensure!(
                bool::try_from(usable.all())?,
                "{site}: after the plan's interventions a query has no finite score left to attend by"
            );
        }
        Ok(x)
    }

    /// What was recorded, once every declared intervention has fired.
    pub(crate) fn finish(self) -> Result<(Cache, Vec<Fired>)> {
        let mut list = Vec::new();
        for (edit, times) in self.program.edits.iter().zip(&self.fired) {
            ensure!(
                *times == 1,
                "intervention at {}: {} fired {times} times, expected once: a fault of this crate",
                edit.site,
                edit.label
            );
            list.push(Fired { site: edit.site, intervention: edit.label.clone() });
        }
        Ok((self.cache, list))
    }
}

/// Proof that an intervention took place in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fired {
    /// Where.
    pub site: Site,
    /// What, as `Debug` prints it.
    pub intervention: String,
}
