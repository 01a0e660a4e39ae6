//! How much memory a plan's records take, and whether that is too much.

use anyhow::{Result, ensure};
use tch::{Device, Kind, Tensor};

use super::edit::Setting;
use super::offload::Offload;
use super::plan::{Attention, Plan};
use super::site::{Axis, Point, Site};
use crate::config::Config;
use crate::text::Tokens;

/// Bytes of a pass itself that a cap overlooks.
const PASS: u64 = 64 << 20;

/// The largest block that glibc takes as a sign of what a program needs: 32 MiB with its header.
const LARGEST_SIGN: u64 = (32 << 20) - (64 << 10);

impl Plan {
    /// Bytes the cache will take in memory: all that is recorded and, where gradients are asked for,
    /// as much again; nothing where it goes to a file.
    pub fn bytes(&self, config: &Config, tokens: &Tokens, kind: Kind) -> u64 {
        if matches!(self.offload, Some(Offload::File(_))) {
            return 0;
        }
        let setting = Setting { config, tokens, kind, device: Device::Cpu };
        let mut sites: Vec<_> =
            self.cache.iter().flat_map(|s| s.resolve(config.n_layers)).collect();
        sites.sort();
        sites.dedup();
        let times = if self.gradients.is_some() { 2 } else { 1 };
        times * sites.iter().map(|site| self.bytes_at(*site, setting)).sum::<u64>()
    }

    /// Bytes that a pass works with beside what it records, at most: the widest step of a block, the
    /// attention scores where they are computed, and the logits.
    pub(crate) fn pass_bytes(&self, config: &Config, tokens: &Tokens, kind: Kind) -> u64 {
        let (size, wide) =
            (kind.elt_size_in_bytes() as u64, if kind == Kind::Double { 8 } else { 4 });
        let [d, f, v] = [config.d_model, config.d_mlp, config.d_vocab].map(|n| n as u64);
        let heads = (config.n_heads + 2 * config.n_kv_heads) as u64 * config.d_head as u64;
        let (rows, width) = (tokens.batch() as u64, tokens.width() as u64);
        let block = ((5 * f).max(4 * heads) + 4 * d) * size + 4 * d * wide;
        let scores = match self.is_eager(config.n_layers) {
            true => config.n_heads as u64 * width * (3 * size + wide),
            false => 0,
        };
        // Each head's copy of the stream, and the product it enters.
        let heads_of = |point: Point| match point {
            Point::QInput | Point::HeadResult => config.n_heads as u64,
            Point::KInput | Point::VInput => config.n_kv_heads as u64,
            _ => 0,
        };
        let copies = self.named_sites(config.n_layers).into_iter().filter_map(Site::point);
        let block = block + 3 * d * size * copies.map(heads_of).max().unwrap_or(0);
        let places = match &self.logits_at {
            Some(at) => tokens.places(at.clone()).map_or(0, |rows| rows[0].len()) as u64,
            None => width,
        };
        rows * (width * (block + scores) + places * v * (size + wide))
    }

    /// Whether attention is computed step by step.
    fn is_eager(&self, n_layers: usize) -> bool {
        let inside = |site: &Site| matches!(site.point(), Some(Point::Scores | Point::Pattern));
        self.attention == Some(Attention::Eager) || self.named_sites(n_layers).iter().any(inside)
    }

    /// Every site that is recorded or changed.
    fn named_sites(&self, n_layers: usize) -> Vec<Site> {
        let mut sites = self.changed_sites(n_layers);
        sites.extend(self.cache.iter().flat_map(|sites| sites.resolve(n_layers)));
        sites
    }

    fn bytes_at(&self, site: Site, setting: Setting) -> u64 {
        let wide = if setting.kind == Kind::Double { Kind::Double } else { Kind::Float };
        let in_wide = match site {
            Site::FinalScale | Site::FinalNormalized | Site::Logits => true,
            Site::Block(_, point) => matches!(
                point,
                Point::Ln1Scale | Point::Ln1Normalized | Point::Ln2Scale | Point::Ln2Normalized
            ),
            Site::Embed => false,
        };
        let mut entries: u64 = setting.shape(site).iter().map(|n| *n as u64).product();
        if let (Site::Logits, Some(at)) = (site, &self.logits_at) {
            let places = setting.tokens.places(at.clone()).unwrap_or_default();
            let each = places.first().map_or(0, Vec::len) as u64;
            entries = entries / setting.len(Axis::Pos).max(1) as u64 * each;
        }
        entries * (if in_wide { wide } else { setting.kind }).elt_size_in_bytes() as u64
    }

    /// Asks for a block as large as the records, as far as that tells the allocator anything, and
    /// lets go of it untouched. glibc hands freed memory back to the system beyond twice the largest
    /// block that it saw freed: without this a run's activations go back when it is dropped, and
    /// the next run meets a page fault every 4 KiB, 7 % of a small pass in all.
    pub(crate) fn announce_records(&self, setting: Setting) {
        let bytes = self.bytes(setting.config, setting.tokens, setting.kind).min(LARGEST_SIGN);
        if bytes > 0 && self.record_device(setting) == Device::Cpu {
            drop(Tensor::f_empty([bytes as i64], (Kind::Uint8, Device::Cpu))); // or not: a hint
        }
    }

    /// Where what is recorded lies, unless it goes to a file.
    fn record_device(&self, setting: Setting) -> Device {
        match &self.offload {
            Some(Offload::Device(device)) => *device,
            Some(Offload::File(_)) | None => setting.device,
        }
    }

    pub(crate) fn check_memory(&self, setting: Setting) -> Result<()> {
        if self.cache.is_empty() {
            return Ok(());
        }
        let device = self.record_device(setting);
        let Setting { config, tokens, kind, .. } = setting;
        let pass = self.pass_bytes(config, tokens, kind);
        let need = self.bytes(config, tokens, kind) + pass.saturating_sub(PASS);
        let beside = if pass > PASS { " and the pass itself" } else { "" };
        let mib =
            |bytes: u64| format!("{bytes} bytes ({:.1} MiB)", bytes as f64 / (1 << 20) as f64);
        let (cap, what) = match self.cap {
            Some(cap) => (cap, "the plan's cap"),
            // tch cannot ask CUDA for its free memory.
            None if device != Device::Cpu => return Ok(()),
            None => match free_memory() {
                Some(free) => (free / 2, "half of the free memory"),
                None => return Ok(()),
            },
        };
        ensure!(
            need <= cap,
            "the cache{beside} would take {}, {what} is {}: cache fewer sites, shorten the batch, or raise it with Plan::cap",
            mib(need),
            mib(cap)
        );
        Ok(())
    }
}

/// Bytes that can be had without swapping, where the system tells.
pub(crate) fn free_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
