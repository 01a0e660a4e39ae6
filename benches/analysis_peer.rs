//! thalweg as a child process of benches/peers/analysis.py: reads a task's data, then does the task
//! once for each line on stdin.
//!
//! ```text
//! analysis_peer pca data.npy
//! run   -> nanoseconds, and a number of the result
//! ```
#![allow(clippy::print_stdout)] // its answers are what it is for

#[path = "analysis_work.rs"]
mod work;

use std::io::{BufRead, stdin};
use std::time::Instant;

use anyhow::{Context, Result};
use tch::{Kind, Tensor};
use work::Work;

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with('-'));
    let (Some(task), Some(data)) = (words.next(), words.next()) else {
        return Ok(()); // `cargo bench` runs every bench; this one works for analysis.py alone
    };
    let threads = std::env::var("OMP_NUM_THREADS").context("OMP_NUM_THREADS is not set")?;
    tch::set_num_threads(threads.parse()?);
    let work = Work::new(&task, Tensor::read_npy(&data)?.to_kind(Kind::Double));
    for line in stdin().lock().lines() {
        let _ = line?;
        let start = Instant::now();
        let found = work.run()?;
        println!("{} {found}", start.elapsed().as_nanos());
    }
    Ok(())
}
