//! How layers mix tokens: a matrix a layer, and their product from the embedding upwards.

use std::fmt;

use anyhow::Result;
use ndarray::{ArrayD, Dimension, IxDyn};
use tch::{Kind, Tensor};

use crate::analysis::frame;
use crate::grid::{Grid, GridAxis};
use crate::hook::cache::Cache;
use crate::hook::site::Axis;
use crate::index::{Position, Positions};
use crate::show::{Content, Show, show_value};
use crate::text::Tokens;

/// How much of each token is at each position, by a method that gives each layer a matrix whose rows
/// sum to 1.
#[derive(Clone)]
#[non_exhaustive]
pub struct Mixing {
    /// What each layer takes from each position of the layer below: `[Layer, Query, Key]`, or with
    /// `Batch` in front, 0..1.
    pub layers: Grid,
    /// What has come from each token of the prompt by the end of each layer, the product of the
    /// matrices so far: the same axes, 0..1.
    pub rollout: Grid,
    tokens: Tokens,
}

impl Mixing {
    /// From one matrix a layer, each `[Batch, Query, Key]`, f64; a row of zeros keeps its token.
    pub(super) fn new(name: &str, cache: &Cache, layers: Vec<Tensor>) -> Result<Self> {
        let mut so_far: Option<Tensor> = None;
        let (mut each, mut products) = (Vec::new(), Vec::new());
        for matrix in layers {
            let matrix = rows_to_one(&matrix);
            let product = match &so_far {
                Some(below) => matrix.matmul(below),
                None => matrix.copy(),
            };
            so_far = Some(product.shallow_clone());
            each.push(matrix);
            products.push(product);
        }
        let tokens = cache.tokens();
        let places = frame::position_labels(tokens);
        let grid = |matrices: &[Tensor], name: String| -> Result<Grid> {
            let axes = [
                (Axis::Layer, frame::numbered('L', matrices.len())),
                (Axis::Query, places.clone()),
                (Axis::Key, places.clone()),
            ];
            let grid = frame::batched(cache, &Tensor::stack(matrices, 1), &axes, "share")?;
            let grid = grid.zero_one("nothing of the token", "nothing but the token");
            Ok(frame::hide(grid, tokens, 0)?.name(&name))
        };
        Ok(Mixing {
            layers: grid(&each, format!("{name}, each layer"))?,
            rollout: grid(&products, name.to_owned())?,
            tokens: tokens.clone(),
        })
    }

    /// The same with a note in both grids.
    pub(super) fn noted(self, key: &str, value: &str) -> Self {
        let (layers, rollout) = (self.layers.note(key, value), self.rollout.note(key, value));
        Mixing { layers, rollout, ..self }
    }

    /// What has come from each token to one position by the end of each layer: `[Layer, Pos]`, or
    /// `[Batch, Layer, Pos]`, 0..1, each row summing to 1.
    ///
    /// ```
    /// use thalweg::{Axis, Model, Plan, Point, attention_rollout};
    /// let model = Model::load("data/models/tiny-world")?;
    /// let tokens = model.tokens("The capital of France is")?;
    /// let cache = model.run(&tokens, &Plan::new().cache(Point::Pattern))?.cache;
    /// let shares = attention_rollout(&cache)?.at(-1)?;
    /// assert_eq!(shares.shape(), [model.config().n_layers, 6]);
    /// assert!((shares.select(Axis::Layer, -1)?.values.sum() - 1.0).abs() < 1e-6);
    /// # thalweg::anyhow::Ok(())
    /// ```
    pub fn at(&self, position: impl Into<Position>) -> Result<Grid> {
        let position = Positions::One(position.into());
        let grid = self.read(&self.tokens.places(position.clone())?)?;
        Ok(grid.note("position", &position.to_string()))
    }

    /// The mean over some positions of each row; tokens after the last of them are missing.
    pub(super) fn read(&self, places: &[Vec<usize>]) -> Result<Grid> {
        let whole = &self.rollout;
        let several = whole.axes[0].axis == Axis::Batch;
        let outer = usize::from(several);
        let (layers, width) = (whole.shape()[outer], self.tokens.width());
        let shape = [&whole.shape()[..outer], &[layers, width]].concat();
        let mut values = ArrayD::zeros(shape.clone());
        let mut missing = ArrayD::from_elem(shape, false);
        for (index, value) in values.indexed_iter_mut() {
            let index = index.slice();
            let (row, key) = (if several { index[0] } else { 0 }, index[outer + 1]);
            let padding = self.tokens.padding(row);
            let queries = places[row].iter().map(|at| at + padding);
            let cell = |query: usize| [&index[..=outer], &[query, key]].concat();
            let sum: f64 = queries.clone().map(|query| whole.values[IxDyn(&cell(query))]).sum();
            *value = sum / places[row].len() as f64;
            let last = queries.max().unwrap_or(0);
            missing[IxDyn(index)] = key < padding || key > last;
        }
        let mut axes: Vec<GridAxis> = whole.axes[..=outer].to_vec();
        axes.push(GridAxis { axis: Axis::Pos, labels: whole.axes[outer + 2].labels.clone() });
        let mut grid = whole.select(Axis::Query, 0)?;
        grid.provenance.remove("Query");
        (grid.values, grid.axes) = (values, axes);
        grid.missing = missing.iter().any(|gone| *gone).then_some(missing);
        grid.check()?;
        Ok(grid)
    }

    /// Shows the rollout in a notebook.
    pub fn evcxr_display(&self) {
        show_value(self);
    }
}

impl Show for Mixing {
    fn content(&self) -> Content {
        self.rollout.content()
    }
}

/// One line: that of the rollout.
impl fmt::Debug for Mixing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.rollout, f)
    }
}

/// `[.., Query, Key]` with rows divided by their sums; a row of zeros becomes the identity's.
fn rows_to_one(matrix: &Tensor) -> Tensor {
    let sums = matrix.sum_dim_intlist([-1i64].as_slice(), true, None);
    let n = matrix.size()[matrix.dim() - 1];
    let own = Tensor::eye(n, (Kind::Double, matrix.device()));
    (matrix / &sums).where_self(&sums.gt(0.0), &own)
}
