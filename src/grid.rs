//! Numbers with named axes, labels and a unit: what every analysis returns and every figure takes.

mod compute;
mod origin;
mod rank;
mod select;
mod show;

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use ndarray::{ArrayD, Dimension, IxDyn};
use tch::{Device, Kind, Tensor};

use crate::hook::site::Axis;
use crate::record::Origin;

pub use rank::Cell;
pub(crate) use show::number;

/// One axis of a [`Grid`]: what it means, and a label for each index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GridAxis {
    /// What the axis means.
    pub axis: Axis,
    /// One label an index. Labels may repeat (tokens do); an index never does.
    pub labels: Vec<String>,
}

impl GridAxis {
    /// Number of indices.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// True for an axis without indices.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

/// Labelled numbers: an array whose axes have names, whose indices have labels, and whose values
/// have a unit.
///
/// Values are `f64`. A cell marked in `missing` does not exist (a key after its query, a padded
/// position): means skip it, figures leave it blank, and its value means nothing.
///
/// ```
/// use thalweg::{Axis, Grid, ndarray::array};
/// let effect = Grid::from_array(array![[0.1, -0.8], [0.0, 0.3]], &[Axis::Layer, Axis::Head], "logits")?;
/// assert_eq!(effect.get(&["L0", "H1"])?, -0.8);
/// assert_eq!(effect.top(1).axes[0].labels, ["L0 H1"]);
/// assert_eq!(effect.mean(Axis::Head)?.values.as_slice().unwrap()[1], 0.15);
/// # anyhow::Ok(())
/// ```
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Grid {
    /// The numbers, one array axis for each entry of `axes`.
    pub values: ArrayD<f64>,
    /// Meaning and labels of each axis, outermost first.
    pub axes: Vec<GridAxis>,
    /// Unit of the values: "logits", "nats", "probability", "L2 norm".
    pub unit: String,
    /// What the values are: "logit lens of ' Mary'". Figures use it as their title.
    pub name: String,
    /// For normalised values, what 0 and what 1 stand for.
    pub zero_one: Option<(String, String)>,
    /// How many measurements each value averages; 1 if it averages none. Where cells are missing the
    /// values differ in it: then their mean, rounded.
    pub n: usize,
    /// The same, not rounded: for the mean of a mean.
    each: f64,
    /// Lower and upper bounds of the values, and how they were found.
    pub interval: Option<Interval>,
    /// True where a cell does not exist.
    pub missing: Option<ArrayD<bool>>,
    /// Where the numbers come from: model, prompts, seed, indices selected.
    pub provenance: BTreeMap<String, String>,
    /// Code that gives one cell again; `{layer}`, `{head}`, `{pos}` ... stand for its indices.
    pub code: Option<String>,
    /// The runs the numbers come from.
    origins: Vec<Origin>,
}

/// Bounds of a [`Grid`]'s values, of the same shape, with the method that found them.
#[derive(Debug, Clone, PartialEq)]
pub struct Interval {
    /// Lower bounds.
    pub low: ArrayD<f64>,
    /// Upper bounds.
    pub high: ArrayD<f64>,
    /// For example "95 % normal interval over prompts".
    pub method: String,
}

impl Grid {
    /// Labelled numbers, after a check that every axis has as many labels as indices and that no
    /// axis is named twice.
    ///
    /// ```
    /// use thalweg::{Axis, Grid, GridAxis, ndarray::ArrayD};
    /// let axis = GridAxis { axis: Axis::Pos, labels: vec!["a".into()] };
    /// let error = Grid::new(ArrayD::zeros(vec![2]), vec![axis], "nats").unwrap_err();
    /// assert_eq!(error.to_string(), "axis Pos has 1 labels for 2 indices; axes are [Pos 1], values are [2]");
    /// ```
    pub fn new(values: ArrayD<f64>, axes: Vec<GridAxis>, unit: &str) -> Result<Grid> {
        let grid = Grid {
            values,
            axes,
            unit: unit.to_string(),
            name: String::new(),
            zero_one: None,
            n: 1,
            each: 1.0,
            interval: None,
            missing: None,
            provenance: BTreeMap::new(),
            code: None,
            origins: Vec::new(),
        };
        grid.check()?;
        Ok(grid)
    }

    /// A grid of any ndarray, with the default labels: layers `L0`, heads `H0`, key/value heads
    /// `G0`, principal components `PC1` (counted from one, as the field does), all else `0`.
    pub fn from_array<D: Dimension>(
        values: ndarray::Array<f64, D>,
        axes: &[Axis],
        unit: &str,
    ) -> Result<Grid> {
        let values = values.into_dyn();
        let named = default_axes(values.shape(), axes)?;
        Grid::new(values, named, unit)
    }

    /// A grid of a tensor of any kind and device, with a label for each index. The numbers are
    /// copied: the grid shares no memory with the tensor and has no graph.
    pub fn from_tensor(tensor: &Tensor, axes: &[(Axis, Vec<String>)], unit: &str) -> Result<Grid> {
        let named =
            axes.iter().map(|(axis, labels)| GridAxis { axis: *axis, labels: labels.clone() });
        Grid::new(copy_out(tensor)?, named.collect(), unit)
    }

    /// A grid of a tensor with the default labels of [`Grid::from_array`].
    ///
    /// ```
    /// use thalweg::{Axis, Grid, tch::Tensor};
    /// let norms = Grid::of(&Tensor::from_slice2(&[[1.0f32, 2.0], [3.0, 4.0]]), &[Axis::Layer, Axis::Pos], "L2 norm")?;
    /// assert_eq!(norms.labels(Axis::Layer)?, ["L0", "L1"]);
    /// assert_eq!(norms.select(Axis::Pos, -1)?.values.as_slice().unwrap(), [2.0, 4.0]);
    /// # anyhow::Ok(())
    /// ```
    pub fn of(tensor: &Tensor, axes: &[Axis], unit: &str) -> Result<Grid> {
        Grid::from_array(copy_out(tensor)?, axes, unit)
    }

    /// What the values are; figures use it as their title.
    pub fn name(mut self, name: &str) -> Grid {
        self.name = name.to_string();
        self
    }

    /// Another unit for the same numbers.
    pub fn unit(mut self, unit: &str) -> Grid {
        self.unit = unit.to_string();
        self
    }

    /// For normalised values, what 0 and what 1 stand for: `("corrupted run", "clean run")`.
    pub fn zero_one(mut self, zero: &str, one: &str) -> Grid {
        self.zero_one = Some((zero.to_string(), one.to_string()));
        self
    }

    /// How many measurements each value averages.
    pub fn n(mut self, n: usize) -> Grid {
        self.n = n;
        self
    }

    /// A fact on where the numbers come from: `("seed", "7")`.
    pub fn note(mut self, key: &str, value: &str) -> Grid {
        self.provenance.insert(key.to_string(), value.to_string());
        self
    }

    /// Code that gives one cell again, shown when a reader points at it. Axis names in braces and
    /// in lower case stand for the cell's index: `"cache.get(Point::Z.at({layer}))?"`.
    pub fn code(mut self, template: &str) -> Grid {
        self.code = Some(template.to_string());
        self
    }

    /// Bounds of the values, of the same shape, and how they were found.
    pub fn interval(mut self, low: ArrayD<f64>, high: ArrayD<f64>, method: &str) -> Result<Grid> {
        self.interval = Some(Interval { low, high, method: method.to_string() });
        self.check()?;
        Ok(self)
    }

    /// Marks the cells that do not exist, `true` where one does not.
    pub fn missing(mut self, missing: ArrayD<bool>) -> Result<Grid> {
        self.missing = Some(missing);
        self.check()?;
        Ok(self)
    }

    /// Marks as missing, beside those that already are, every cell whose value answers the question.
    ///
    /// ```
    /// use thalweg::{Axis, Grid, ndarray::array};
    /// let scores = Grid::from_array(array![1.0, f64::NEG_INFINITY], &[Axis::Key], "logits")?;
    /// assert_eq!(scores.missing_where(|x| x.is_infinite()).present().count(), 1);
    /// # anyhow::Ok(())
    /// ```
    pub fn missing_where(mut self, question: impl Fn(f64) -> bool) -> Grid {
        let mut missing = self.missing_or_none();
        missing.zip_mut_with(&self.values, |gone, value| *gone |= question(*value));
        self.missing = Some(missing);
        self
    }

    /// Marks keys that come after their query as missing; needs axes `Query` and `Key`.
    pub fn causal(mut self) -> Result<Grid> {
        let (query, key) = (self.place(Axis::Query)?, self.place(Axis::Key)?);
        let mut missing = self.missing_or_none();
        for (index, gone) in missing.indexed_iter_mut() {
            *gone |= index[key] > index[query];
        }
        self.missing = Some(missing);
        Ok(self)
    }

    /// Other labels for one axis, for instance the tokens of a prompt.
    pub fn relabel(mut self, axis: Axis, labels: &[impl AsRef<str>]) -> Result<Grid> {
        let place = self.place(axis)?;
        self.axes[place].labels = labels.iter().map(|label| label.as_ref().to_string()).collect();
        self.check()?;
        Ok(self)
    }

    /// Number of indices along each axis, outermost first.
    pub fn shape(&self) -> &[usize] {
        self.values.shape()
    }

    /// True if the cell at this index exists.
    pub fn exists(&self, index: &[usize]) -> bool {
        self.missing.as_ref().is_none_or(|missing| missing.get(IxDyn(index)) == Some(&false))
    }

    /// Index and value of every cell that exists, in row-major order.
    pub fn present(&self) -> impl Iterator<Item = (Vec<usize>, f64)> + '_ {
        self.values
            .indexed_iter()
            .map(|(index, value)| (index.slice().to_vec(), *value))
            .filter(|(index, _)| self.exists(index))
    }

    /// Value of every cell that exists, in row-major order.
    pub(crate) fn existing(&self) -> impl Iterator<Item = f64> + '_ {
        let gone = self.missing.iter().flatten().copied().chain(std::iter::repeat(false));
        self.values.iter().copied().zip(gone).filter(|(_, gone)| !gone).map(|(value, _)| value)
    }

    /// Fails, naming what does not fit, unless axes, labels, bounds and marks fit the values.
    /// Constructors and figures call it; call it after changing a field by hand.
    pub fn check(&self) -> Result<()> {
        let shape = self.values.shape();
        ensure!(
            self.axes.len() == shape.len(),
            "{} axes named for values of shape {shape:?}; axes are {}",
            self.axes.len(),
            self.axes_text()
        );
        for (i, (axis, len)) in self.axes.iter().zip(shape).enumerate() {
            ensure!(
                axis.len() == *len,
                "axis {} has {} labels for {len} indices; axes are {}, values are {shape:?}",
                axis.axis,
                axis.len(),
                self.axes_text()
            );
            ensure!(
                self.axes[..i].iter().all(|other| other.axis != axis.axis),
                "axis {} is named twice; axes are {}",
                axis.axis,
                self.axes_text()
            );
        }
        if let Some(interval) = &self.interval {
            for (which, bound) in [("low", &interval.low), ("high", &interval.high)] {
                let found = bound.shape();
                ensure!(found == shape, "{which} bounds have shape {found:?}, values {shape:?}");
            }
        }
        if let Some(missing) = &self.missing {
            let found = missing.shape();
            ensure!(
                found == shape,
                "the marks of missing cells have shape {found:?}, values {shape:?}"
            );
        }
        Ok(())
    }

    /// Where an axis stands, or an error that lists the axes there are.
    pub(crate) fn place(&self, axis: Axis) -> Result<usize> {
        let found = self.axes.iter().position(|named| named.axis == axis);
        found.with_context(|| format!("no axis {axis}; axes are {}", self.axes_text()))
    }

    /// `[Layer 4, Pos 15]`.
    pub(crate) fn axes_text(&self) -> String {
        let each = self.axes.iter().map(|axis| format!("{} {}", axis.axis, axis.len()));
        format!("[{}]", each.collect::<Vec<_>>().join(", "))
    }

    /// The marks of missing cells, all `false` if there are none.
    fn missing_or_none(&self) -> ArrayD<bool> {
        let none = || ArrayD::from_elem(self.values.raw_dim(), false);
        self.missing.clone().unwrap_or_else(none)
    }
}

/// One line: name, axes, unit, smallest and largest value with their places.
impl fmt::Debug for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary())
    }
}

/// A copy of a tensor's numbers, on the CPU and in f64.
fn copy_out(tensor: &Tensor) -> Result<ArrayD<f64>> {
    ensure!(tensor.defined(), "the tensor is undefined: nothing reached it");
    if matches!(tensor.f_kind()?, Kind::ComplexFloat | Kind::ComplexDouble | Kind::ComplexHalf) {
        bail!("a grid holds real numbers, the tensor is {:?}", tensor.kind());
    }
    let flat =
        tensor.detach().f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?.f_reshape([-1])?;
    let shape: Vec<usize> = tensor.size().iter().map(|len| *len as usize).collect();
    Ok(ArrayD::from_shape_vec(shape, Vec::<f64>::try_from(&flat)?)?)
}

fn default_axes(shape: &[usize], axes: &[Axis]) -> Result<Vec<GridAxis>> {
    ensure!(
        shape.len() == axes.len(),
        "{} axes named ({axes:?}) for values of shape {shape:?}",
        axes.len()
    );
    let each = axes.iter().zip(shape);
    Ok(each
        .map(|(axis, len)| GridAxis { axis: *axis, labels: default_labels(*axis, *len) })
        .collect())
}

/// Labels of an axis whose indices have no better name.
fn default_labels(axis: Axis, len: usize) -> Vec<String> {
    (0..len).map(|i| default_label(axis, i)).collect()
}

fn default_label(axis: Axis, i: usize) -> String {
    match axis {
        Axis::Layer | Axis::OtherLayer => format!("L{i}"),
        Axis::Head => format!("H{i}"),
        Axis::KvHead => format!("G{i}"),
        Axis::Pc => format!("PC{}", i + 1),
        _ => i.to_string(),
    }
}
