//! Activations of a file of prompts, kept on disk and analysed from there.
//!
//! `cargo run -p thalweg-capture --example capture`

use thalweg::anyhow::Result;
use thalweg::{Model, Point, Statistics, pca};
use thalweg_capture::{Capture, Captured, Prompts};

fn main() -> Result<()> {
    let model = Model::load("data/models/tiny-world")?;
    let folder = std::env::temp_dir().join("thalweg-example-capture");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(
        folder.join("prompts.txt"),
        "When Mary and John went to the store , John gave a drink to\n\
         When John and Mary went to the store , Mary gave a drink to\n\
         Mary and John went to the store\n",
    )?;

    // Prompts in, shards out. Run it again and it finds that all is there.
    let prompts = Prompts::open(folder.join("prompts.txt"), "text")?;
    let site = Point::ResidPost.at(2);
    let done = Capture::new(prompts, folder.join("captured")).sites(site).run(&model)?;
    println!("{} of {} shards made now", done.made, done.shards);

    // Rows of a site, whose tokens the places name.
    let captured = Captured::open(folder.join("captured"))?.labelled(&model);
    let rows = captured.rows(site, 0..captured.len())?;
    let first = captured.places(0..1)?[0];
    println!("{rows:?}, the first of {:?} in prompt {}", model.piece(first.token), first.prompt);

    // A prompt as the cache that a run would give, and a pass over all of them.
    println!("{:?}", pca(&captured.prompt(0, site)?, site, 2)?);
    let mut statistics = Statistics::at(site).covariance();
    for cache in captured.caches(site, 64)? {
        statistics.add(&cache?)?;
    }
    println!("{:?}", statistics.pca(3)?);
    Ok(())
}
