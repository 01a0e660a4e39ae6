//! One shard: a safetensors file with one tensor `[token, ..]` for each site, padding left out, and
//! `prompt`, `position` and `token` `[token]` beside them.

mod read;
mod write;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use thalweg::tch::Kind;
use thalweg::{Axis, Config, Site};

use crate::batches::Row;
use crate::manifest::{Manifest, Which};

pub(crate) use read::Shard;
pub(crate) use write::{Batch, Writer};

/// The columns that say which token a row is of.
pub(crate) const COLUMNS: [&str; 3] = ["prompt", "position", "token"];

/// The file of shard `k`.
pub(crate) fn path(dir: &Path, k: usize) -> PathBuf {
    dir.join(format!("shard-{k:05}.safetensors"))
}

/// Sizes of a site's axes after `[Batch, Pos]`; an error for one that has other axes.
pub(crate) fn inner(site: Site, config: &Config) -> Result<Vec<i64>> {
    let axes = site.axes();
    ensure!(
        axes.len() > 2 && axes[..2] == [Axis::Batch, Axis::Pos],
        "{site} has axes {axes:?}: expected a site of [Batch, Pos, ..], one vector for each token"
    );
    let size = |axis: &Axis| -> Result<i64> {
        let n = match axis {
            Axis::DModel => config.d_model,
            Axis::Head => config.n_heads,
            Axis::KvHead => config.n_kv_heads,
            Axis::DHead => config.d_head,
            Axis::DMlp => config.d_mlp,
            Axis::Vocab => config.d_vocab,
            Axis::Scale => 1,
            other => {
                anyhow::bail!("{site} has an axis {other}, whose size is not known beforehand")
            }
        };
        Ok(n as i64)
    };
    axes[2..].iter().map(size).collect()
}

/// A tensor of a shard: its name, kind, shape without the rows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) inner: Vec<i64>,
}

impl Column {
    pub(crate) fn row_bytes(&self) -> u64 {
        self.inner.iter().product::<i64>() as u64 * self.kind.elt_size_in_bytes() as u64
    }
}

/// The tensors of a shard, in their order in the file.
pub(crate) fn columns(manifest: &Manifest) -> Result<Vec<Column>> {
    let (config, kind) = (manifest.config()?, manifest.kind()?);
    let which = COLUMNS
        .iter()
        .map(|name| Ok(Column { name: (*name).to_owned(), kind: Kind::Int64, inner: Vec::new() }));
    let sites = manifest.sites()?.into_iter().map(|site| {
        let inner = inner(site, &config).context("a site of the manifest")?;
        Ok(Column { name: site.to_string(), kind, inner })
    });
    which.chain(sites).collect()
}

/// Which token each row of a shard is of: prompt, position, id.
pub(crate) fn places(rows: &[Row], which: Which) -> [Vec<i64>; 3] {
    let mut places = [const { Vec::new() }; 3];
    for row in rows {
        let kept = first_kept(row.ids.len(), which);
        for (position, id) in row.ids.iter().enumerate().skip(kept) {
            places[0].push(row.number as i64);
            places[1].push(position as i64);
            places[2].push(*id);
        }
    }
    places
}

/// The first position of a prompt that is kept.
pub(crate) fn first_kept(len: usize, which: Which) -> usize {
    match which {
        Which::All => 0,
        Which::Last => len - 1,
    }
}
