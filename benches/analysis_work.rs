//! What benches/analysis.rs and benches/analysis_peer.rs time.
#![allow(dead_code)] // each of them uses its own share

use anyhow::{Result, bail};
use tch::{Kind, Tensor};
use thalweg::rng::Rng;
use thalweg::{Clustering, TsneOptions, cka, kmeans, pca_of, pca_randomized, silhouette};

/// Names of what is timed.
pub(crate) const TASKS: [&str; 6] =
    ["pca", "pca_randomized", "cka", "tsne", "silhouette", "kmeans"];

/// One thing to be timed, with its data.
pub(crate) struct Work {
    task: String,
    x: Tensor,
    other: Tensor,
}

impl Work {
    /// Items and features of a task's data.
    pub(crate) fn shape(task: &str) -> Result<[i64; 2]> {
        Ok(match task {
            "pca" | "pca_randomized" => [20_000, 2048],
            "cka" => [20_000, 512],
            "tsne" => [5_000, 50],
            "silhouette" => [10_000, 64],
            "kmeans" => [20_000, 128],
            other => bail!("no task {other:?}, there are {TASKS:?}"),
        })
    }

    /// Data given, `[items, features]`, f64. CKA compares them with themselves turned by one feature.
    pub(crate) fn new(task: &str, x: Tensor) -> Self {
        let other = x.roll([1i64].as_slice(), [1i64].as_slice()) * x.sin();
        Work { task: task.to_owned(), x, other }
    }

    /// Data drawn here: twenty blobs.
    pub(crate) fn drawn(task: &str) -> Result<Self> {
        let [n, d] = Self::shape(task)?;
        let mut rng = Rng::new(0);
        let centers = rng.normal_tensor(&[20, d]).to_kind(Kind::Double) * 3.0;
        let noise = rng.normal_tensor(&[n, d]).to_kind(Kind::Double);
        Ok(Self::new(task, centers.repeat([n / 20, 1]) + noise))
    }

    /// Does it once; a number of the result, by which both sides can be compared.
    pub(crate) fn run(&self) -> Result<f64> {
        Ok(match self.task.as_str() {
            "pca" => pca_of(&self.x, 10)?.explained.values.sum(),
            "pca_randomized" => pca_randomized(&self.x, 10, 0)?.explained.values.sum(),
            "cka" => cka(&self.x, &self.other)?,
            "tsne" => TsneOptions::new(30.0).run(&self.x)?.kl,
            "silhouette" => {
                let groups: Vec<i64> = (0..self.x.size()[0]).map(|i| i % 20).collect();
                silhouette(&self.x, &Clustering::new(&self.x, &groups)?)?.mean
            }
            "kmeans" => kmeans(&self.x, 20, 0)?.inertia,
            other => bail!("no task {other:?}, there are {TASKS:?}"),
        })
    }
}
