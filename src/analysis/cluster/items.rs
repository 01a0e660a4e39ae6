//! What is grouped, or laid out in a plane: one row of numbers for each thing, and its name.

use std::fmt;

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use crate::analysis::decompose::{pca_of, points};
use crate::analysis::frame;
use crate::hook::cache::Cache;
use crate::hook::site::{Point, Site};
use crate::model::{Model, W};
use crate::record::Origin;
use crate::rng::Rng;

/// Things with features: `x [Item, Feature]`, f64, and a label for each item. A tensor `[n, D]` is items
/// without names: `kmeans(&tensor, 3, 0)`.
pub struct Items {
    /// One row an item.
    pub x: Tensor,
    /// One label an item; labels may repeat, as tokens do.
    pub labels: Vec<String>,
    /// What the items are: "tokens at blocks.2.hook_resid_post".
    pub name: String,
    pub(in crate::analysis) origins: Vec<Origin>,
}

impl Clone for Items {
    fn clone(&self) -> Self {
        Items {
            x: self.x.shallow_clone(),
            labels: self.labels.clone(),
            name: self.name.clone(),
            origins: self.origins.clone(),
        }
    }
}

impl fmt::Debug for Items {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: items and features {:?}", self.name, self.x.size())
    }
}

impl From<&Items> for Items {
    fn from(items: &Items) -> Self {
        items.clone()
    }
}

impl From<&Tensor> for Items {
    fn from(x: &Tensor) -> Self {
        let n = x.size().first().copied().unwrap_or(0);
        let labels = (0..n).map(|i| i.to_string()).collect();
        let x = x.detach().to_kind(Kind::Double);
        Items { x, labels, name: "rows".to_owned(), origins: Vec::new() }
    }
}

impl Items {
    /// Rows of any tensor `[n, D]` with a label for each: directions, steering vectors, decoder rows.
    pub fn new(x: &Tensor, labels: &[impl AsRef<str>]) -> Result<Self> {
        let labels: Vec<String> = labels.iter().map(|label| label.as_ref().to_owned()).collect();
        let items = Items { labels, ..Items::from(x) };
        let _ = items.checked("items")?;
        Ok(items)
    }

    /// Tokens by an activation `[Batch, Pos, ..]`: one item for each token of each prompt, a head's axes
    /// joined into one. Padding and each prompt's first token are left out.
    ///
    /// ```
    /// use thalweg::{Items, Model, Plan, Point, kmeans};
    /// let model = Model::load("data/models/tiny-world")?;
    /// let tokens = model.tokens("Mary and John went to the store")?;
    /// let run = model.run(&tokens, &Plan::new().cache(Point::ResidPost))?;
    /// let items = Items::tokens(&run.cache, Point::ResidPost.at(1))?;
    /// assert_eq!(items.len(), tokens.width() - 1);
    /// let groups = kmeans(items.unit()?, 2, 0)?;
    /// # thalweg::anyhow::Ok(())
    /// ```
    pub fn tokens(cache: &Cache, site: impl Into<Site>) -> Result<Self> {
        let site = site.into();
        let (x, labels) = frame::token_vectors(cache, site, 1)
            .map_err(|error| anyhow::anyhow!("items at {error}"))?;
        Ok(Items { labels, name: format!("tokens at {site}"), ..Items::from(&x) }.of_run(cache))
    }

    /// Query heads by what they look at: one item for each head of each layer, its attention in every
    /// cell that exists, over all prompts. Needs `Point::Pattern`.
    pub fn patterns(cache: &Cache) -> Result<Self> {
        let tokens = cache.tokens();
        let (mut rows, mut labels) = (Vec::new(), Vec::new());
        for layer in 0..cache.n_layers() {
            let patterns = cache.get(Point::Pattern.at(layer))?.to_kind(Kind::Double);
            let heads = patterns.size()[1];
            let cells = tokens.ids().iter().enumerate().map(|(row, ids)| {
                let (first, n) = (tokens.padding(row) as i64, ids.len() as i64);
                let own = patterns.get(row as i64).narrow(1, first, n).narrow(2, first, n);
                let below = Tensor::tril_indices(n, n, 0, (Kind::Int64, own.device()));
                let flat = below.get(0) * n + below.get(1);
                own.reshape([heads, -1]).index_select(1, &flat)
            });
            rows.push(Tensor::cat(&cells.collect::<Vec<_>>(), 1));
            labels.extend((0..heads).map(|head| format!("L{layer}H{head}")));
        }
        let items = Items {
            labels,
            name: "heads by pattern".to_owned(),
            ..Items::from(&Tensor::cat(&rows, 0))
        };
        Ok(items.of_run(cache))
    }

    /// Query heads by their OV matrices `W_V W_O`, norms folded in: one item for each head of each
    /// layer. Features are coordinates in which distances and products between heads are exactly those of their matrices (as many as
    /// heads, in place of `DModel²`).
    pub fn ov(model: &Model) -> Result<Self> {
        let config = model.config();
        let (mut values, mut outputs, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        for layer in 0..config.n_layers {
            let value = model.weight_folded(W::V, layer)?.to_kind(Kind::Double); // [KvHead, DModel, DHead]
            let output = model.weight(W::O, layer)?.to_kind(Kind::Double); // [Head, DHead, DModel]
            for head in 0..config.n_heads {
                let shared = head / (config.n_heads / config.n_kv_heads);
                values.push(value.get(shared as i64));
                outputs.push(output.get(head as i64));
                labels.push(format!("L{layer}H{head}"));
            }
        }
        let n = values.len();
        let mut gram = vec![0.0; n * n];
        for a in 0..n {
            for b in a..n {
                // tr((V_a O_a)ᵀ V_b O_b) from DHead x DHead products.
                let inner = values[a].tr().matmul(&values[b]) * outputs[a].matmul(&outputs[b].tr());
                let product = inner.sum(None).double_value(&[]);
                gram[a * n + b] = product;
                gram[b * n + a] = product;
            }
        }
        let gram = Tensor::from_slice(&gram).view([n as i64, n as i64]);
        let (squares, vectors) = gram.f_linalg_eigh("L")?;
        let x = vectors * squares.clamp_min(0.0).sqrt();
        Ok(Items { labels, name: "heads by OV matrix".to_owned(), ..Items::from(&x) })
    }

    /// Neurons of a layer by what they write to the stream: one item for each, `DModel` features.
    pub fn neurons(model: &Model, layer: usize) -> Result<Self> {
        let x = model.weight(W::Out, layer)?;
        let labels = (0..x.size()[0]).map(|neuron| format!("L{layer}N{neuron}")).collect();
        let name = format!("neurons of layer {layer} by output weight");
        Ok(Items { labels, name, ..Items::from(&x) })
    }

    /// Neurons of a layer by when they are active: one item for each, a feature for each token. Needs
    /// `Point::MlpPost`; tokens are left out as in [`tokens`](Self::tokens).
    pub fn activations(cache: &Cache, layer: usize) -> Result<Self> {
        let (x, _) = frame::token_vectors(cache, Point::MlpPost.at(layer), 1)
            .map_err(|error| anyhow::anyhow!("items at {error}"))?;
        let labels = (0..x.size()[1]).map(|neuron| format!("L{layer}N{neuron}")).collect();
        let name = format!("neurons of layer {layer} by activation");
        Ok(Items { labels, name, ..Items::from(&x.tr()) }.of_run(cache))
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// True of no items.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Every item scaled to length 1, so that Euclidean distance follows the cosine: the usual thing
    /// before k-means on the residual stream, where length would count for most. An item of zeros is an
    /// error.
    pub fn unit(mut self) -> Result<Self> {
        let x = self.checked("unit")?;
        let norms = x.norm_scalaropt_dim(2, [1i64].as_slice(), true);
        let zero = Vec::<f64>::try_from(norms.view([-1]))?.iter().position(|norm| *norm == 0.0);
        if let Some(item) = zero {
            anyhow::bail!(
                "unit: item {item} ({:?}) is all zeros and has no direction",
                self.labels[item]
            );
        }
        self.x = x / norms;
        self.name += ", unit length";
        Ok(self)
    }

    /// The scores of the first `k` principal components in place of the features.
    pub fn reduced(mut self, k: usize) -> Result<Self> {
        let pca = pca_of(&self.checked("reduced")?, k)?;
        self.x = pca.transform(&self.x)?;
        self.name += &format!(", {k} components");
        Ok(self)
    }

    /// The items at these places, in this order.
    pub fn select(&self, places: &[usize]) -> Result<Self> {
        let n = self.len();
        for place in places {
            ensure!(*place < n, "select: no item {place}, there are {n}");
        }
        let index: Vec<i64> = places.iter().map(|place| *place as i64).collect();
        let x = self.x.index_select(0, &Tensor::from_slice(&index).to_device(self.x.device()));
        let labels = places.iter().map(|place| self.labels[*place].clone()).collect();
        Ok(Items { x, labels, name: self.name.clone(), origins: self.origins.clone() })
    }

    /// The same features, each in an order of its own over the items: what groups there were are gone, and each feature
    /// is distributed as before. The control of [`choose_k`](crate::choose_k) and [`stability`](crate::stability).
    pub fn shuffled(&self, seed: u64) -> Result<Self> {
        let x = self.checked("shuffled")?;
        let (n, d, rng) = (x.size()[0], x.size()[1], Rng::new(seed));
        let mut order = Vec::with_capacity((n * d) as usize);
        for feature in 0..d {
            order.extend(
                rng.fork(feature as u64)
                    .sample(n as usize, n as usize)
                    .into_iter()
                    .map(|i| i as i64),
            );
        }
        let order = Tensor::from_slice(&order).view([d, n]).tr().to_device(x.device());
        let x = x.gather(0, &order, false);
        let name = format!("{}, every feature shuffled", self.name);
        Ok(Items { x, name, labels: self.labels.clone(), origins: self.origins.clone() })
    }

    /// The features, after a check that there are items, as many as labels, of finite numbers.
    pub(in crate::analysis) fn checked(&self, of: &str) -> Result<Tensor> {
        let x = points(&self.x, of)?;
        let (rows, labels) = (x.size()[0], self.len());
        ensure!(rows == labels as i64, "{of}: {labels} labels for {rows} items");
        Ok(x)
    }

    fn of_run(mut self, cache: &Cache) -> Self {
        self.origins = cache.origin().cloned().into_iter().collect();
        self
    }
}
