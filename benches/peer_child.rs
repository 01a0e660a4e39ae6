//! thalweg as a child process of benches/peers/peers.py: loads the model of a directory, then
//! answers lines on stdin with lines on stdout.
//!
//! ```text
//! logits        -> the logits of the last position, blank-separated
//! forward 3     -> nanoseconds of three forward passes
//! eager 3       -> the same with attention step by step, as caching a pattern needs it
//! residuals 3   -> the same with the residual stream cached in every layer
//! cached 3      -> the same with everything cached that is not computed only when named
//! ```
#![allow(clippy::print_stdout)] // its answers are what it is for

use std::io::{BufRead, stdin};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use tch::{Device, Kind};
use thalweg::{Attention, Model, Plan, Point, Sites, Tokens};

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
    let (mode, count) = line.split_once(' ').unwrap_or((line, "0"));
    let plan = match mode {
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
    for _ in 0..count.parse()? {
        let start = Instant::now();
        let run = model.run(tokens, &plan)?;
        times.push(start.elapsed().as_nanos());
        drop(run); // as in Python, where the result dies after the clock is read
    }
    Ok(joined(times))
}

fn joined<T: ToString>(values: Vec<T>) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join(" ")
}
