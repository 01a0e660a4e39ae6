//! Statistics in a file: parts found on several machines, or on several days, can be merged.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::maxima::Maxima;
use super::{Moments, Statistics};
use crate::files::Files;
use crate::record::{Origin, Record};

/// All but the tensors.
#[derive(Serialize, Deserialize)]
struct Facts {
    site: String,
    first: usize,
    covariance: bool,
    top: usize,
    n: i64,
    prompts: i64,
    shape: Vec<i64>,
    records: Vec<Record>,
}

impl Statistics {
    /// Writes a safetensors file with all that is needed to go on, or to merge.
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
        let facts = Facts {
            site: self.site.to_string(),
            first: self.first,
            covariance: self.wants_covariance,
            top: self.top,
            n: self.n,
            prompts: self.prompts,
            shape: self.shape.clone(),
            records: self.records(),
        };
        let metadata = HashMap::from([
            ("format".to_owned(), "thalweg statistics 1".to_owned()),
            ("facts".to_owned(), serde_json::to_string(&facts)?),
        ]);
        crate::files::write(path.as_ref(), &tensors, metadata)
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
    if read.n > 0 {
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
