//! `capture plan`: what a capture costs, before anything is begun.

use std::io::Write;

use anyhow::{Result, bail, ensure};
use clap::{Args, ValueEnum};

use thalweg_capture::plan::{self, Keep, Machine, Question, Shape};

/// What a capture costs: bytes, seconds and disk, by route, and where each route stops
#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// 1b, 8b, 70b, 405b (Llama 3), or a directory with a config.json
    #[arg(long, default_value = "8b", value_name = "NAME|DIR")]
    model: String,
    /// Tokens in all, such as 1e8
    #[arg(long, default_value = "1e8")]
    tokens: f64,
    /// Tokens of a prompt
    #[arg(long, default_value_t = 1024.0, value_name = "TOKENS")]
    prompt: f64,
    /// What stays of each prompt
    #[arg(long, value_enum, default_value_t = Keep::Residuals)]
    keep: Keep,
    /// Where
    #[arg(long, value_enum, default_value_t = Hardware::Node)]
    hardware: Hardware,
    /// Bytes that the disk has, such as 4e12
    #[arg(long, value_name = "BYTES")]
    disk: Option<f64>,
    /// Bytes a second onto the disk, such as 2e9
    #[arg(long, value_name = "BYTES")]
    disk_rate: Option<f64>,
    /// Prints JSON: plain numbers, bytes and seconds
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Prints the page capture/PLAN.md, for the published models on all hardware
    #[arg(long)]
    markdown: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Hardware {
    /// Two cores without a GPU
    Cpu,
    /// One H200
    H200,
    /// A node of 8 H200
    Node,
}

impl Plan {
    pub(crate) fn run(&self) -> Result<()> {
        std::io::stdout().write_all(self.text()?.as_bytes())?;
        Ok(())
    }

    fn text(&self) -> Result<String> {
        if self.markdown {
            return Ok(plan::page());
        }
        let shape = Shape::named(&self.model)?;
        let question = self.question()?;
        let mut machine = match self.hardware {
            Hardware::Cpu => Machine::cpu(),
            Hardware::H200 => Machine::one(),
            Hardware::Node => Machine::node(),
        };
        machine.disk_size = positive("--disk", self.disk.unwrap_or(machine.disk_size))?;
        machine.disk_rate = positive("--disk-rate", self.disk_rate.unwrap_or(machine.disk_rate))?;
        if self.json {
            let value = plan::json(&shape, &machine, question);
            return Ok(serde_json::to_string_pretty(&value)? + "\n");
        }
        Ok(plan::table(&shape, &machine, question) + "\n")
    }

    fn question(&self) -> Result<Question> {
        let (tokens, length) =
            (positive("--tokens", self.tokens)?, positive("--prompt", self.prompt)?);
        ensure!(length >= 1.0, "--prompt {length}: expected one token at least");
        if tokens < length {
            bail!(
                "--tokens {tokens} are fewer than --prompt {length}: expected one prompt at least"
            );
        }
        Ok(Question { tokens, length, keep: self.keep })
    }
}

fn positive(name: &str, n: f64) -> Result<f64> {
    ensure!(n.is_finite() && n > 0.0, "{name} {n}: expected a number above 0, such as 1e9");
    Ok(n)
}
