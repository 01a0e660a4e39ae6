//! Statistics in a file: parts found on several machines, or on several days, can be merged.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::histogram::Histogram;
use super::maxima::Maxima;
use super::{Moments, Statistics};
use crate::files::{Files, Writer};
use crate::record::{Origin, Record};

/// All but the tensors.
#[derive(Serialize, Deserialize)]
struct Facts {
    site: String,
    first: usize,
    covariance: bool,
    top: usize,
    #[serde(default)]
    bins: usize,
    n: i64,
    prompts: i64,
    shape: Vec<i64>,
    records: Vec<Record>,
}

impl Statistics {
    /// Writes a safetensors file with all that is needed to go on, or to merge: equal statistics
    /// give equal bytes.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let mut tensors = Vec::new();
        let mut add = |name: &str, t: &Tensor| tensors.push((name.to_owned(), t.contiguous()));
        if let Some(Moments { mean, squares, products }) = &self.moments {
            add("mean", mean);
            add("squares", squares);
            products.iter().for_each(|products| add("products", products));
        }
        if let Some(Maxima { values, prompts, positions, .. }) = &self.maxima {
            add("maxima.values", values);
            add("maxima.prompts", prompts);
            add("maxima.positions", positions);
        }
        if let Some(Histogram { low, high, counts, .. }) = &self.histogram {
            add("histogram.range", &Tensor::from_slice(&[*low, *high])); // exact, as text might not be
            counts.iter().for_each(|counts| add("histogram.counts", counts));
        }
        let facts = Facts {
            site: self.site.to_string(),
            first: self.first,
            covariance: self.wants_covariance,
            top: self.top,
            bins: self.histogram.as_ref().map_or(0, |histogram| histogram.bins),
            n: self.n,
            prompts: self.prompts,
            shape: self.shape.clone(),
            records: self.records(),
        };
        let metadata = HashMap::from([
            ("format".to_owned(), "thalweg statistics 1".to_owned()),
            ("facts".to_owned(), serde_json::to_string(&facts)?),
        ]);
        // The same statistics are the same bytes, which a map's order by chance would not give.
        let room = serde_json::to_string(&metadata)?.len() + 256 * (tensors.len() + 1);
        let mut writer = Writer::create(path.as_ref(), room)?;
        tensors.iter().try_for_each(|(name, tensor)| writer.add(name, tensor))?;
        writer.finish(&metadata)
    }

    /// Reads what [`save`](Self::save) wrote.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let files = Files::open(path)?;
        read(&files)
            .map_err(|error| anyhow::anyhow!("{}: not saved statistics: {error:#}", path.display()))
    }
}

fn read(files: &Files) -> Result<Statistics> {
    let facts = files.note("facts").context("its metadata lack facts")?;
    let facts: Facts = serde_json::from_str(facts).context("facts")?;
    let d: i64 = facts.shape.iter().product();
    let tensor = |name: &str, shape: &[i64]| -> Result<Tensor> {
        let found = files.shape(name).with_context(|| format!("{name} is missing"))?;
        ensure!(found == shape, "{name} is {found:?}, expected {shape:?}");
        files.tensor(name)
    };
    let mut read = Statistics::at(facts.site.parse::<crate::hook::site::Site>()?);
    (read.first, read.top) = (facts.first, facts.top);
    (read.wants_covariance, read.shape) = (facts.covariance, facts.shape);
    (read.n, read.prompts) = (facts.n, facts.prompts);
    read.origins = facts.records.into_iter().map(Origin::known).collect();
    if facts.bins > 0 {
        let [low, high]: [f64; 2] = Vec::try_from(tensor("histogram.range", &[2])?)?
            .try_into()
            .map_err(|_| anyhow::anyhow!("histogram.range does not hold two numbers"))?;
        read.histogram = Some(Histogram { low, high, bins: facts.bins, counts: None });
    }
    if read.n > 0 {
        let shape = [d, facts.bins as i64 + 2];
        if let Some(histogram) = &mut read.histogram {
            histogram.check()?;
            histogram.counts = Some(tensor("histogram.counts", &shape)?);
        }
        let products = facts.covariance.then(|| tensor("products", &[d, d])).transpose()?;
        let (mean, squares) = (tensor("mean", &[d])?, tensor("squares", &[d])?);
        read.moments = Some(Moments { mean, squares, products });
        if read.top > 0 {
            let shape = [d, read.n.min(read.top as i64)];
            read.maxima = Some(Maxima {
                k: read.top as i64,
                values: tensor("maxima.values", &shape)?,
                prompts: tensor("maxima.prompts", &shape)?,
                positions: tensor("maxima.positions", &shape)?,
            });
        }
    }
    Ok(read)
}
