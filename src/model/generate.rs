//! Writing on: one pass over the prompt, then one position a step, in front of it the keys and
//! values of all earlier ones.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Result, bail, ensure};
use tch::{Kind, Tensor};

use super::Model;
use super::forward::Pass;
use super::rope;
use super::run::scoped;
use super::sampling::Sampling;
use crate::hook::cache::Cache;
use crate::hook::edit::Edit;
use crate::hook::plan::{Attention, Plan};
use crate::hook::program::Program;
use crate::hook::site::{Axis, Point, Site};
use crate::hook::tap::{Fired, Tap};
use crate::interrupt::retold;
use crate::record::Record;
use crate::show::Bar;
use crate::text::Tokens;

/// What was generated.
#[non_exhaustive]
pub struct Generated {
    /// Prompt and generated tokens, one row each.
    pub tokens: Tokens,
    /// The generated tokens of each row. A row that ended early goes on as long as the others do.
    pub new: Vec<Vec<i64>>,
    /// Where each row ended, if it did: how many of its generated tokens come before the end-of-text
    /// token.
    pub ended: Vec<Option<usize>>,
    /// The generated text of each row up to its end; empty without a tokenizer.
    pub texts: Vec<String>,
    /// The logits that each token was chosen by, `[Batch, n, Vocab]`.
    pub logits: Tensor,
    /// The sites that the plan caches, over all positions that were run: prompt and generated
    /// tokens but for the last one, which was never an input.
    pub cache: Cache,
    /// Every intervention that took place, pass by pass.
    pub fired: Vec<Fired>,
    /// The arithmetic attention was computed in.
    pub attention: Attention,
    /// What the reader should know.
    pub notes: Vec<String>,
}

impl fmt::Debug for Generated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, n) = (self.new.len(), self.new.first().map_or(0, Vec::len));
        write!(f, "Generated {n} tokens in {rows} rows: ")?;
        match self.texts.is_empty() {
            true => write!(f, "{:?}", self.new)?,
            false => write!(f, "{:?}", self.texts)?,
        }
        write!(f, "; {:?}", self.cache)
    }
}

impl Clone for Generated {
    /// Shares the memory.
    fn clone(&self) -> Self {
        Generated {
            tokens: self.tokens.clone(),
            new: self.new.clone(),
            ended: self.ended.clone(),
            texts: self.texts.clone(),
            logits: self.logits.shallow_clone(),
            cache: self.cache.clone(),
            fired: self.fired.clone(),
            attention: self.attention,
            notes: self.notes.clone(),
        }
    }
}

impl Generated {
    /// What was run to generate this: model and hash of its weights, arithmetic, prompts, sampling,
    /// seed and plan.
    pub fn record(&self) -> Result<Record> {
        self.cache.record()
    }
}

impl Model {
    /// Writes on from each prompt: `usize` tokens, the most likely one each time, or as
    /// [`Sampling`] says. The plan's interventions act where their
    /// [`scope`](crate::Intervention::scope) says: in the prompt, in what is generated, or in both;
    /// one whose positions are named (they count in the prompt) acts in the prompt.
    ///
    /// Keys and values are kept from step to step; the numbers equal those of running the whole
    /// text anew for each token, to rounding.
    ///
    /// ```no_run
    /// use thalweg::{Model, Plan, Point};
    /// let model = Model::load("data/models/tiny-world")?;
    /// let tokens = model.tokens("The capital of France is")?;
    /// let written = model.generate(&tokens, 2, &Plan::new().cache(Point::ResidPost))?;
    /// assert_eq!(written.texts, ["Paris ."]);
    /// // the prompt, and the first of the generated tokens
    /// assert_eq!(written.cache.tokens().width(), tokens.width() + 1);
    /// # thalweg::anyhow::Ok(())
    /// ```
    pub fn generate(
        &self,
        tokens: &Tokens,
        sampling: impl Into<Sampling>,
        plan: &Plan,
    ) -> Result<Generated> {
        self.whole("generate")?;
        let sampling = sampling.into();
        sampling.check()?;
        scoped(false, || Writer::new(self, tokens, sampling, plan)?.write())
    }
}

/// A generation under way.
struct Writer<'a> {
    model: &'a Model,
    prompt: &'a Tokens,
    plan: &'a Plan,
    sampling: Sampling,
    /// The plan on the prompt alone: its records and its arithmetic.
    program: Program,
    tokens: Tokens,
    /// Rotated keys, and values, of each layer so far.
    past: Vec<[Tensor; 2]>,
    /// What was recorded, a tensor a pass.
    records: BTreeMap<Site, Vec<Tensor>>,
    fired: Vec<Fired>,
}

impl<'a> Writer<'a> {
    fn new(
        model: &'a Model,
        prompt: &'a Tokens,
        sampling: Sampling,
        plan: &'a Plan,
    ) -> Result<Self> {
        let config = model.config();
        let (width, longest) = (prompt.width() + sampling.n - 1, config.longest_prompt());
        ensure!(
            width <= longest,
            "generate: a prompt of {} tokens and {} new ones pass the model's context of {longest}: at most {} new ones fit",
            prompt.width(),
            sampling.n,
            (longest + 1).saturating_sub(prompt.width())
        );
        let program = plan.check_for_generation(model.setting(prompt))?;
        // The cache will grow to the whole text.
        let whole = prompt.extended(&vec![vec![0; sampling.n - 1]; prompt.batch()])?;
        plan.check_memory(model.setting(&whole))?;
        let mut sampling = sampling;
        sampling.recompute |= rope::stretches(config, &whole);
        Ok(Writer {
            model,
            prompt,
            plan,
            sampling,
            program,
            tokens: prompt.clone(),
            past: Vec::new(),
            records: BTreeMap::new(),
            fired: Vec::new(),
        })
    }

    fn write(mut self) -> Result<Generated> {
        let rows = self.prompt.batch();
        let stop = self.sampling.stop.clone().unwrap_or_else(|| self.model.config().eos.clone());
        let mut generators = self.sampling.generators(rows);
        let mut new = vec![Vec::new(); rows];
        let mut ended = vec![None; rows];
        let mut each = Vec::new();
        let n = self.sampling.n;
        let mut bar = Bar::new("generate", n).unit("tokens");
        for step in 0..n {
            let at = || format!("generate: interrupted after {step} of {n} tokens");
            let logits = self.step().map_err(|error| retold(error, at))?; // [Batch, Vocab]
            bar.add(1);
            let mut next = Vec::new();
            for (row, rng) in generators.iter_mut().enumerate() {
                let id = self.sampling.choose(&logits.get(row as i64), rng)?;
                if stop.contains(&id) && ended[row].is_none() {
                    ended[row] = Some(step);
                }
                new[row].push(id);
                next.push(vec![id]);
            }
            each.push(logits);
            let last = step + 1 == n || ended.iter().all(Option::is_some);
            let longer = self.extended(&next)?;
            if last {
                bar.finish(); // also where every row ended early
                return self.finish(longer, new, ended, &each);
            }
            self.tokens = longer;
        }
        bail!("generate: no token was asked for")
    }

    /// The tokens so far and one more in each row, with its piece.
    fn extended(&self, next: &[Vec<i64>]) -> Result<Tokens> {
        let longer = self.tokens.extended(next)?;
        Ok(match &self.model.vocabulary {
            Some(vocabulary) => longer.with_pieces(vocabulary),
            None => longer,
        })
    }

    /// One pass over what is new; the logits of the last position, `[Batch, Vocab]`.
    fn step(&mut self) -> Result<Tensor> {
        let first = self.past.is_empty();
        let width = self.tokens.width() as i64;
        let n = if first || self.sampling.recompute { width } else { 1 };
        let program = self.program_for(n)?;
        let (model, weights) = (self.model, &self.model.weights);
        let pass = Pass::new(model.config(), weights, &self.tokens, self.program.attention);
        let mut tap = Tap::new(&program, &self.tokens);
        let ids = self.tokens.tensor(model.device()).narrow(1, width - n, n);
        let mut x = pass.embed(&ids, &mut tap)?;
        for (layer, block) in weights.blocks.iter().enumerate() {
            x = match self.past.get(layer).filter(|_| n < width) {
                Some([k, v]) => {
                    let past = [k.shallow_clone(), v.shallow_clone()];
                    pass.after(past).block(layer, block, x, &mut tap)?
                }
                None => pass.block(layer, block, x, &mut tap)?,
            };
        }
        let whole = program.at(Site::Logits).is_used();
        let last = Tensor::full([self.tokens.batch() as i64, 1], n - 1, (Kind::Int64, x.device()));
        let logits = pass.unembed(&x, (!whole).then_some(&last), &mut tap)?;
        let (cache, fired) = tap.finish()?;
        self.keep(cache, n == width)?;
        self.fired.extend(fired);
        Ok(logits.select(1, -1).to_device(model.device()))
    }

    /// The plan for a pass over the last `n` positions; keys and values are always recorded.
    fn program_for(&self, n: i64) -> Result<Program> {
        let (before, now) = (self.model.setting(self.prompt), self.model.setting(&self.tokens));
        let new = self.tokens.width() - self.prompt.width();
        let mut edits = Vec::new();
        for (site, intervention) in self.plan.each_intervention(before)? {
            let scope = intervention.scope_in_generation();
            let here = if n as usize > new { scope.in_prompt() } else { false };
            if !here && (new == 0 || !scope.in_generated()) {
                continue;
            }
            let edit = Edit::grown(&intervention, site, before, now)?;
            edits.push(edit.narrowed(n, self.tokens.width() as i64, None));
        }
        let layers = self.model.config().n_layers;
        let mut program =
            Program::of_edits(edits, layers, self.program.attention, self.model.device());
        program.record_like(&self.program);
        if !self.sampling.recompute {
            for layer in 0..layers {
                program.record(Point::RotK.at(layer));
                program.record(Point::V.at(layer));
            }
        }
        Ok(program)
    }

    /// Takes up what a pass recorded.
    fn keep(&mut self, cache: Cache, whole: bool) -> Result<()> {
        if !self.sampling.recompute {
            for layer in 0..self.model.config().n_layers {
                let own = [cache.get(Point::RotK.at(layer))?, cache.get(Point::V.at(layer))?];
                match self.past.get_mut(layer) {
                    Some(past) => {
                        let joined =
                            past.iter().zip(&own).map(|(past, own)| Tensor::cat(&[past, own], 1));
                        let joined: Vec<Tensor> = joined.collect();
                        *past = <[Tensor; 2]>::try_from(joined)
                            .map_err(|_| anyhow::anyhow!("keys and values come in pairs"))?;
                    }
                    None => self.past.push(own),
                }
            }
        }
        for site in cache.sites().filter(|site| self.program.at(*site).record) {
            let list = self.records.entry(site).or_default();
            if whole {
                list.clear(); // the pass ran everything anew
            }
            list.push(cache.get(site)?);
        }
        Ok(())
    }

    fn finish(
        self,
        tokens: Tokens,
        new: Vec<Vec<i64>>,
        ended: Vec<Option<usize>>,
        logits: &[Tensor],
    ) -> Result<Generated> {
        let width = self.tokens.width() as i64;
        let mut cache = Cache::new(&self.tokens, self.model.config().n_layers);
        cache.set_origin(self.model.origin(
            self.prompt,
            format!("generate with {:?}: {:?}", self.sampling, self.plan),
            self.program.attention,
            self.program.notes.clone(),
            self.sampling.drawn_from(),
        ));
        for (site, parts) in self.records {
            cache.insert(site, joined(site, &parts, width));
        }
        let mut notes = self.program.notes.clone();
        if self.sampling.recompute {
            notes.push("each token was computed from the whole text anew".to_owned());
        }
        let mut texts = Vec::new();
        if let Some(tokenizer) = self.model.tokenizer() {
            for (ids, end) in new.iter().zip(&ended) {
                let ids: Vec<u32> =
                    ids[..end.unwrap_or(ids.len())].iter().map(|id| *id as u32).collect();
                let text = tokenizer.decode(&ids, true);
                texts.push(text.map_err(|error| anyhow::anyhow!("generate: {error}"))?);
            }
        }
        Ok(Generated {
            tokens,
            new,
            ended,
            texts,
            logits: Tensor::stack(logits, 1),
            cache,
            fired: self.fired,
            attention: self.program.attention,
            notes,
        })
    }
}

/// The records of all passes as one: along positions, or along queries, where the keys that earlier
/// queries could not see are filled up with what absent pairs hold.
fn joined(site: Site, parts: &[Tensor], width: i64) -> Tensor {
    let attention = site.axes().contains(&Axis::Query);
    let absent = if site.point() == Some(Point::Scores) { f64::NEG_INFINITY } else { 0.0 };
    let filled = parts.iter().map(|part| {
        let missing = width - part.size()[part.dim() - 1];
        match attention && missing > 0 {
            true => {
                let mut shape = part.size();
                shape[3] = missing;
                let fill = Tensor::full(&shape, absent, (part.kind(), part.device()));
                Tensor::cat(&[part, &fill], 3)
            }
            false => part.shallow_clone(),
        }
    });
    let filled: Vec<Tensor> = filled.collect();
    Tensor::cat(&filled, if attention { 2 } else { 1 })
}
