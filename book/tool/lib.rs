//! Builds the book: pages of book/src, notebooks as chapters with their figures live, the cards of the models. Then
//! checks what was built: links, anchors, paths into the repository, names of the library.
//!
//! | file | what it does |
//! |---|---|
//! | `sources` | gathers all chapters as markdown in one folder, and the list of them |
//! | `notebook` | a notebook as markdown; its figures are kept aside |
//! | `markdown` | what of a page is code and what is text; links between repository and book |
//! | `figures` | puts the figures into the rendered pages, with one plotly.js for all |
//! | `html`, `links` | reads the rendered pages; every link and anchor leads somewhere |
//! | `uses` | which notebooks use what the API map names |
//! | `names` | every name of the library that a page mentions exists |

mod figures;
mod html;
mod links;
mod markdown;
mod names;
mod notebook;
mod sources;
mod uses;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use mdbook_driver::MDBook;
use mdbook_driver::config::Config;

/// What a build made, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Report {
    /// Where the book begins.
    pub index: String,
    /// HTML pages.
    pub pages: usize,
    /// Figures that plotly.js draws.
    pub figures: usize,
    /// Links within the book.
    pub inside: usize,
    /// Addresses outside of it.
    pub outside: BTreeSet<String>,
    /// Names of the library that pages mention.
    pub names: usize,
    /// What is wrong, a line each: page, link, nearest right target.
    pub faults: Vec<String>,
}

impl Report {
    /// Writes the report for a person.
    #[allow(clippy::print_stdout)]
    pub fn tell(&self) {
        for address in &self.outside {
            println!("outside, not looked up: {address}");
        }
        for fault in &self.faults {
            println!("fault: {fault}");
        }
        println!(
            "{}: {} pages, {} live figures, {} links and {} names checked, {} addresses outside, {} faults",
            self.index,
            self.pages,
            self.figures,
            self.inside,
            self.names,
            self.outside.len(),
            self.faults.len()
        );
    }
}

/// Builds the book of the repository at `root` into `out` and checks it.
pub fn build(root: &Path, out: &Path) -> Result<Report> {
    let root = root.canonicalize().context("no repository")?;
    let work = out.with_extension("work");
    let _ = fs::remove_dir_all(&work);
    let _ = fs::remove_dir_all(out);
    let gathered = sources::gather(&root, &work)?;
    let mut config = Config::from_disk(root.join("book/book.toml"))?;
    config.build.build_dir = std::path::absolute(out)?;
    MDBook::load_with_config(&work, config)?.build().context("mdBook")?;
    let mut report = Report { faults: gathered.faults, ..Report::default() };
    report.figures = figures::place(out, &gathered.figures)?;
    report.index = out.join("index.html").display().to_string();
    links::check(out, &mut report)?;
    names::check(&root, &mut report)?;
    Ok(report)
}
