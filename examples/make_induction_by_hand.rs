//! Writes the induction model that is built by hand, `data/models/induction-by-hand`.
//!
//!     cargo run --example make_induction_by_hand -- --out data/models/induction-by-hand

mod induction_by_hand;

use std::path::Path;

use thalweg::anyhow::{Result, bail};

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--out", dir] => induction_by_hand::write(Path::new(dir)),
        _ => bail!("expected --out DIR, found {words:?}"),
    }
}
