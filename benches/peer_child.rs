//! thalweg as a child process of benches/peers/peers.py: loads the model of a directory, then
//! answers lines on stdin with lines on stdout.
//!
//! ```text
//! logits        -> the logits of the last position, blank-separated
//! forward 3     -> nanoseconds of three forward passes
//! eager 3       -> the same with attention step by step, as caching a pattern needs it
//! residuals 3   -> the same with the residual stream cached in every layer
//! cached 3      -> the same with everything cached that is not computed only when named
//! patching 3 24 -> nanoseconds of three sweeps that patch the stream into every layer and each of
//!                  the first 24 positions of a prompt of 24 tokens
//! patching 3 24 0 -> the same, of prompts that differ at token 0 in place of token 8
//! naive 3 24    -> the same as the first, each cell by a run of its own
//! effects 24    -> what such a sweep finds, layer by layer
//! ```
#![allow(clippy::print_stdout)] // its answers are what it is for

use std::io::{BufRead, stdin};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use tch::{Device, Kind};
use thalweg::{Attention, Intervention, Metric, Model, Plan, Point, Sites, Tokens};

fn main() -> Result<()> {
    let Some(folder) = std::env::args().nth(1).filter(|word| !word.starts_with('-')) else {
        return Ok(()); // `cargo bench` runs every bench; this one works for peers.py alone
    };
    let folder = Path::new(&folder);
    let threads = std::env::var("OMP_NUM_THREADS").context("OMP_NUM_THREADS is not set")?;
    tch::set_num_threads(threads.parse()?);
    let model = Model::load_on(folder, Device::Cpu, Kind::Float)?;
    let text = std::fs::read_to_string(folder.join("ids.txt"))?;
    let ids = text.split_whitespace().map(str::parse).collect::<Result<Vec<i64>, _>>()?;
    let tokens = Tokens::from_ids(&[ids])?;
    for line in stdin().lock().lines() {
        println!("{}", answer(&model, &tokens, &line?)?);
    }
    Ok(())
}

fn answer(model: &Model, tokens: &Tokens, line: &str) -> Result<String> {
    let mut words = line.split(' ');
    let mode = words.next().unwrap_or_default();
    let numbers = words.map(str::parse).collect::<Result<Vec<usize>, _>>()?;
    let count = numbers.first().copied().unwrap_or(0);
    let plan = match mode {
        "patching" | "naive" => return patching(model, tokens, mode, &numbers),
        "effects" => {
            let cells = Cells::new(model, tokens, count, count / 3)?;
            return Ok(joined(cells.sweep(model)?));
        }
        "logits" => {
            let last = model.run(tokens, &Plan::new())?.logits.get(0).get(-1);
            return Ok(joined(Vec::<f64>::try_from(&last)?));
        }
        "forward" => Plan::new(),
        "eager" => Plan::new().attention(Attention::Eager),
        "residuals" => Plan::new().cache([Point::ResidPre, Point::ResidMid, Point::ResidPost]),
        "cached" => Plan::new().cache(Sites::everything()),
        other => bail!("no mode {other:?}"),
    };
    let mut times = Vec::new();
    for _ in 0..count {
        let start = Instant::now();
        let run = model.run(tokens, &plan)?;
        times.push(start.elapsed().as_nanos());
        drop(run); // as in Python, where the result dies after the clock is read
    }
    Ok(joined(times))
}

/// What an activation patching needs: the corrupt prompt, and a plan for each layer and position.
struct Cells {
    corrupt: Tokens,
    plans: Vec<Plan>,
    metric: Metric,
}

impl Cells {
    /// The prompt's first `length` tokens; the corrupt one has another token at one place.
    fn new(model: &Model, tokens: &Tokens, length: usize, place: usize) -> Result<Self> {
        let clean = tokens.ids()[0][..length].to_vec();
        let mut corrupt = clean.clone();
        corrupt[place] += 1;
        let (clean, corrupt) = (Tokens::from_ids(&[clean])?, Tokens::from_ids(&[corrupt])?);
        let cache = model.run(&clean, &Plan::new().cache(Point::ResidPre))?.cache;
        let mut plans = Vec::new();
        for layer in 0..model.config().n_layers {
            for at in 0..length {
                let patch = Intervention::patch(&cache).pos(at);
                plans.push(Plan::new().intervene(Point::ResidPre.at(layer), patch));
            }
        }
        Ok(Cells { corrupt, plans, metric: Metric::logit_diff(10, 20) })
    }

    fn sweep(&self, model: &Model) -> Result<Vec<f64>> {
        let sweep = model.sweep(&self.corrupt, &self.plans, &self.metric)?;
        Ok(sweep.values.values.iter().copied().collect())
    }

    fn naive(&self, model: &Model) -> Result<Vec<f64>> {
        let value = |plan: &Plan| {
            let logits = model.run(&self.corrupt, &plan.clone().logits_at(-1))?.logits;
            Ok(f64::try_from(self.metric.of_row(&logits.squeeze_dim(1))?)?)
        };
        self.plans.iter().map(value).collect()
    }
}

/// Nanoseconds of whole patchings, the clean run and the making of the plans included. `numbers`: how
/// many, of how many positions, and which token differs if not that at a third of the way.
fn patching(model: &Model, tokens: &Tokens, mode: &str, numbers: &[usize]) -> Result<String> {
    let (count, length) = (numbers[0], numbers[1]);
    let place = numbers.get(2).copied().unwrap_or(length / 3);
    let mut times = Vec::new();
    for _ in 0..count {
        let start = Instant::now();
        let cells = Cells::new(model, tokens, length, place)?;
        let found = if mode == "naive" { cells.naive(model)? } else { cells.sweep(model)? };
        times.push(start.elapsed().as_nanos());
        drop(found);
    }
    Ok(joined(times))
}

fn joined<T: ToString>(values: Vec<T>) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join(" ")
}
