//! Which head of one model is which of another: every head against every head, and the best pairs.
//!
//! Heads may stand in any order, so that equal names mean nothing: what is compared is what they do
//! on the same tokens. Each prompt's first token, where idle heads look, is left out.

use std::fmt;

use anyhow::{Result, ensure};
use ndarray::Array2;
use tch::{Device, Kind, Tensor};

use super::assignment::assign;
use crate::analysis::layers::Rows;
use crate::grid::{Grid, GridAxis};
use crate::hook::cache::Cache;
use crate::hook::site::{Axis, Point};
use crate::interrupt::check_interrupt;
use crate::rng::Rng;
use crate::show::progress;

/// By what two heads are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadSimilarity {
    /// Where they look: the correlation, -1..1, of their attention over all cells whose key is not
    /// the first token. Needs `Point::Pattern`.
    Pattern,
    /// What they write: linear CKA, 0..1, of their outputs `z W_O` at all tokens but the first. Needs
    /// `Point::HeadResult`. Widths of the models may differ.
    Output,
}

/// What each measure is called.
impl fmt::Display for HeadSimilarity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HeadSimilarity::Pattern => "correlation of patterns",
            HeadSimilarity::Output => "linear CKA of outputs",
        })
    }
}

/// A head of one model with the head of another that it was given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadPair {
    /// Layer and head of the first model.
    pub a: (usize, usize),
    /// Layer and head of the second.
    pub b: (usize, usize),
    /// How alike they are.
    pub score: f64,
}

/// How alike the heads of two models are, and which belong together.
#[derive(Clone)]
#[non_exhaustive]
pub struct HeadMatching {
    /// Every head of the first model against every head of the second: `[Component, Series]`, labels
    /// `L0H0`.
    pub values: Grid,
    /// The same where nothing belongs together: of patterns, the second model's keys in an order drawn
    /// for each query; of outputs, its tokens in an order drawn.
    pub shuffled: Grid,
    /// The one-to-one assignment with the largest sum, in the order of the first model's heads.
    pub pairs: Vec<HeadPair>,
    /// Mean score of the pairs.
    pub mean: f64,
    /// Mean score of the best pairs of `shuffled`: what an assignment finds where there is nothing.
    pub shuffled_mean: f64,
}

/// One line: how many pairs, and how good beside chance.
impl fmt::Debug for HeadMatching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (n, unit) = (self.pairs.len(), &self.values.unit);
        write!(f, "{n} pairs of heads: mean {unit} {:.3}, ", self.mean)?;
        write!(f, "shuffled {:.3}", self.shuffled_mean)
    }
}

/// Matches the heads of two models by what they do on the same tokens. A head whose pattern or output
/// never varies is like no other: 0.
///
/// ```
/// use thalweg::{HeadSimilarity, Model, Plan, Point, Prompts, match_heads};
/// let model = Model::load("data/models/tiny-world")?;
/// let tokens = model.batch(&Prompts::load("data/prompts/ioi.json")?.first(8).clean())?;
/// let cache = model.run(&tokens, &Plan::new().cache(Point::Pattern))?.cache;
/// let found = match_heads(&cache, &cache, HeadSimilarity::Pattern, 0)?;
/// assert!(found.pairs.iter().all(|pair| pair.a == pair.b));
/// # thalweg::anyhow::Ok(())
/// ```
pub fn match_heads(a: &Cache, b: &Cache, by: HeadSimilarity, seed: u64) -> Result<HeadMatching> {
    ensure!(
        a.tokens().ids() == b.tokens().ids(),
        "match_heads: the caches are of different tokens, expected two runs on the same"
    );
    let mut rng = Rng::new(seed);
    let [values, shuffled] = match by {
        HeadSimilarity::Pattern => by_pattern(a, b, &mut rng)?,
        HeadSimilarity::Output => by_output(a, b, &mut rng)?,
    };
    let n = Rows::new(a.tokens(), 1).len();
    let heads = |cache: &Cache, rows: usize| (cache.n_layers(), rows / cache.n_layers().max(1));
    let (of_a, of_b) = (heads(a, values.nrows()), heads(b, values.ncols()));
    let place = |i: usize, heads: (usize, usize)| (i / heads.1, i % heads.1);
    let pairs = assign(&values).into_iter().map(|(i, j)| HeadPair {
        a: place(i, of_a),
        b: place(j, of_b),
        score: values[[i, j]],
    });
    let pairs: Vec<HeadPair> = pairs.collect();
    let mean = |scores: Vec<f64>| scores.iter().sum::<f64>() / scores.len() as f64;
    let chance = assign(&shuffled).into_iter().map(|at| shuffled[at]).collect();
    let grid = |values: Array2<f64>, name: &str| -> Result<Grid> {
        let labels = |(layers, heads): (usize, usize)| {
            (0..layers * heads).map(|i| format!("L{}H{}", i / heads, i % heads)).collect()
        };
        let axes = vec![
            GridAxis { axis: Axis::Component, labels: labels(of_a) },
            GridAxis { axis: Axis::Series, labels: labels(of_b) },
        ];
        Ok(Grid::new(values.into_dyn(), axes, &by.to_string())?
            .name(name)
            .n(n)
            .of_runs(a.origin().cloned())
            .of_runs(b.origin().cloned())
            .note("left out", "each prompt's first token"))
    };
    let name = format!("heads of two models: {by}");
    Ok(HeadMatching {
        mean: mean(pairs.iter().map(|pair| pair.score).collect()),
        shuffled_mean: mean(chance),
        values: grid(values, &name)?,
        shuffled: grid(shuffled, &format!("{name}, shuffled"))?.note("seed", &seed.to_string()),
        pairs,
    })
}

/// Correlations of patterns, and those with the keys of each of `b`'s queries in another order.
fn by_pattern(a: &Cache, b: &Cache, rng: &mut Rng) -> Result<[Array2<f64>; 2]> {
    let mut queries = Vec::new();
    for ids in a.tokens().ids() {
        queries.extend(1..ids.len() as i64); // as many keys as its place, the first left out
    }
    let mut order = Vec::new();
    for keys in queries {
        let mut own: Vec<i64> = (0..keys).map(|key| order.len() as i64 + key).collect();
        rng.shuffle(&mut own);
        order.extend(own);
    }
    ensure!(!order.is_empty(), "match_heads: no prompt has a second token");
    let (x, y) = (unit(cells(a)?), unit(cells(b)?));
    let moved = y.index_select(1, &Tensor::from_slice(&order));
    Ok([array(&x.matmul(&y.tr()))?, array(&x.matmul(&moved.tr()))?])
}

/// Each head's attention in all cells that exist and whose key is not the first: `[heads, cells]`.
fn cells(cache: &Cache) -> Result<Tensor> {
    let tokens = cache.tokens();
    let mut heads = Vec::new();
    for layer in 0..cache.n_layers() {
        let patterns = cache.get(Point::Pattern.at(layer))?.to_device(Device::Cpu);
        let mut parts = Vec::new();
        for (row, ids) in tokens.ids().iter().enumerate() {
            let (first, n) = (tokens.padding(row) as i64 + 1, ids.len() as i64 - 1);
            let own = patterns.get(row as i64).narrow(1, first, n).narrow(2, first, n);
            let below = Tensor::tril_indices(n, n, 0, (Kind::Int64, Device::Cpu));
            let flat = below.get(0) * n + below.get(1);
            parts.push(own.reshape([own.size()[0], n * n]).index_select(1, &flat));
        }
        heads.push(Tensor::cat(&parts, 1).to_kind(Kind::Double));
    }
    Ok(Tensor::cat(&heads, 0))
}

/// Rows less their means, of length 1; those that do not vary become 0.
fn unit(x: Tensor) -> Tensor {
    let mean = x.mean_dim([-1i64].as_slice(), true, None);
    let centred = &x - mean;
    let length = centred.norm_scalaropt_dim(2, [-1i64].as_slice(), true);
    let still = length.le_tensor(&(x.norm_scalaropt_dim(2, [-1i64].as_slice(), true) * 1e-12));
    (centred / length).masked_fill(&still, 0.0)
}

/// Linear CKA of outputs, and that with `b`'s tokens in another order.
fn by_output(a: &Cache, b: &Cache, rng: &mut Rng) -> Result<[Array2<f64>; 2]> {
    let rows = Rows::new(a.tokens(), 1);
    ensure!(rows.len() > 1, "match_heads: {} tokens after the first, expected two", rows.len());
    let (x, y) = (outputs(a, &rows)?, outputs(b, &rows)?);
    let mut order: Vec<i64> = (0..rows.len() as i64).collect();
    rng.shuffle(&mut order);
    let order = Tensor::from_slice(&order);
    let moved: Vec<Tensor> = y.iter().map(|y| y.index_select(0, &order)).collect();
    let mut found = [&y, &moved].map(|_| Array2::zeros((x.len(), y.len())));
    for (i, own) in progress(x.iter().enumerate(), "comparing heads").unit("heads") {
        check_interrupt()?;
        for (values, others) in found.iter_mut().zip([&y, &moved]) {
            let products = own.tr().matmul(&Tensor::cat(others, 1)); // [D, heads * E]
            let by_head = products.view([products.size()[0], y.len() as i64, -1]).square();
            let sums = by_head.sum_dim_intlist([0i64, 2].as_slice(), false, None);
            let sums = Vec::<f64>::try_from(sums)?;
            values.row_mut(i).iter_mut().zip(sums).for_each(|(cell, sum)| *cell = sum);
        }
    }
    Ok(found)
}

/// Each head's outputs `[n, DModel]`, centred and scaled so that the squares of a product of two are
/// their CKA; 0 for a head that writes the same everywhere.
fn outputs(cache: &Cache, rows: &Rows) -> Result<Vec<Tensor>> {
    let mut heads = Vec::new();
    for layer in 0..cache.n_layers() {
        let written = cache.get(Point::HeadResult.at(layer))?.to_device(Device::Cpu);
        for head in 0..written.size()[2] {
            let x = rows.of(&written.select(2, head)).to_kind(Kind::Double);
            let centred = &x - x.mean_dim([0i64].as_slice(), true, None);
            let still = centred.norm().double_value(&[]) <= 1e-12 * x.norm().double_value(&[]);
            let size = centred.tr().matmul(&centred).norm().sqrt();
            heads.push(if still { x.zeros_like() } else { centred / size });
        }
    }
    Ok(heads)
}

fn array(x: &Tensor) -> Result<Array2<f64>> {
    let (rows, columns) = x.size2()?;
    let flat = Vec::<f64>::try_from(x.flatten(0, -1))?;
    Ok(Array2::from_shape_vec((rows as usize, columns as usize), flat)?)
}
