//! `capture compare`: a server's residuals against the local model's.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use thalweg::tch::{Device, Kind};
use thalweg::{Model, Remote};
use thalweg_capture::compare::{compare, limits, wandering};

/// Compares a server's residuals with those of the same model computed here, by layer
#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// The server, such as http://127.0.0.1:8000
    #[arg(long, value_name = "URL")]
    server: String,
    /// The directory in which the server leaves its files, as this machine sees it
    #[arg(long, value_name = "DIR")]
    shared: PathBuf,
    /// The model that the server runs
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Prompts, one a line; else token ids that wander over the vocabulary
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
}

impl Compare {
    pub(crate) fn run(&self) -> Result<()> {
        let remote = Remote::connect(&self.server, &self.shared)?;
        let model = Model::load_on(&self.model, Device::cuda_if_available(), Kind::Float)?;
        let prompts = match &self.prompts {
            None => wandering(model.config().d_vocab, model.config().longest_prompt() - 1)?,
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                let lines: Vec<&str> =
                    text.lines().filter(|line| !line.trim().is_empty()).collect();
                ensure!(!lines.is_empty(), "{}: no prompt in it", path.display());
                model.batch(&lines)?
            }
        };
        let states = compare(&remote, &model, &prompts)?;
        let kind = remote.kind();
        let (median, worst) = limits(kind);
        let mut table = format!("{:<28} {:>10} {:>10}\n", "site", "worst", "median");
        for state in &states {
            let site = state.site.to_string();
            let mark = if state.within(kind) { "" } else { "  too far" };
            writeln!(table, "{site:<28} {:>10.1e} {:>10.1e}{mark}", state.worst, state.median)?;
        }
        let tokens: usize = prompts.lens().iter().sum();
        writeln!(
            table,
            "differences over the length of the state at a token; {} prompts, {tokens} tokens; {kind:?} explains a worst of {worst:.1e}, a median of {median:.1e}",
            prompts.batch()
        )?;
        std::io::stdout().write_all(table.as_bytes())?;
        match states.iter().find(|state| !state.within(kind)) {
            Some(state) => bail!(
                "{} differs by {:.1e} of its length, in the median by {:.1e}: expected {worst:.1e} and {median:.1e} at most: is it the same model?",
                state.site,
                state.worst,
                state.median
            ),
            None => Ok(()),
        }
    }
}
