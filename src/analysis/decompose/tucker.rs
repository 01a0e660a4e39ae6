//! The residual stream of all layers and tokens as one tensor, and few axes for each of its modes.
//!
//! HOSVD: De Lathauwer, De Moor and Vandewalle 2000, "A multilinear singular value decomposition",
//! <https://doi.org/10.1137/S0895479896305696>. Tucker's decomposition starts there and improves one
//! mode at a time (HOOI, the same authors' "On the best rank-1 and rank-(R1,...,RN) approximation",
//! <https://doi.org/10.1137/S0895479898346995>), as `tensorly.decomposition.tucker` does.
//!
//! Nothing is centred: the first axis of each mode is mostly the mean. Take the mean over tokens out
//! beforehand to see what tells them apart.

use std::fmt;

use anyhow::{Context, Result, ensure};
use tch::{Kind, Tensor};

use crate::analysis::frame;
use crate::grid::{Grid, GridAxis};
use crate::hook::cache::Cache;
use crate::hook::site::{Axis, Point};

/// Most improvements of [`tucker`].
const ITERATIONS: usize = 100;
/// The share of the tensor's norm left over that one more round must gain.
const TOLERANCE: f64 = 1e-10;

/// A tensor as a small core times one matrix with orthonormal columns for each mode.
pub struct Tucker {
    /// One entry for each combination of axes, `[rank of mode 0, rank of mode 1, ..]`, f64.
    pub core: Tensor,
    /// For each mode, `[length, rank]`, f64, columns orthonormal, the largest loading of each positive.
    pub factors: Vec<Tensor>,
    /// Share of the summed squares that the decomposition holds, 0..1.
    pub explained: f64,
    /// Rounds of improvement: 0 for [`hosvd`].
    pub rounds: usize,
    /// Meaning and labels of each mode.
    pub axes: Vec<GridAxis>,
}

impl Clone for Tucker {
    fn clone(&self) -> Self {
        Tucker {
            core: self.core.shallow_clone(),
            factors: self.factors.iter().map(Tensor::shallow_clone).collect(),
            axes: self.axes.clone(),
            ..*self
        }
    }
}

/// One line: the tensor's axes, the core's, and the share explained.
impl fmt::Debug for Tucker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let axes = self.axes.iter().map(|axis| format!("{} {}", axis.axis, axis.len()));
        let (axes, core) = (axes.collect::<Vec<_>>().join(", "), self.core.size());
        let share = 100.0 * self.explained;
        write!(
            f,
            "Tucker of [{axes}]: core {core:?}, {share:.2} % of the squares, {} rounds",
            self.rounds
        )
    }
}

impl Tucker {
    /// The axes of one mode as a grid `[mode, Rank]`: how much each layer, token or dimension has
    /// of each. `lines` and `heatmap` take it.
    pub fn factor(&self, mode: Axis) -> Result<Grid> {
        let place = self.place(mode)?;
        let rank = self.factors[place].size()[1];
        let ranks = (0..rank).map(|i| format!("{mode} axis {}", i + 1)).collect();
        let axes = [(mode, self.axes[place].labels.clone()), (Axis::Rank, ranks)];
        let grid = Grid::from_tensor(&self.factors[place], &axes, "loading")?;
        Ok(grid.name(&format!("Tucker: axes of {mode}")))
    }

    /// Share of the decomposition's squares that lies along each axis of one mode: `[Rank]`.
    pub fn shares(&self, mode: Axis) -> Result<Grid> {
        let place = self.place(mode)?;
        let squares =
            unfold(&self.core, place).square().sum_dim_intlist([1i64].as_slice(), false, None);
        let shares = &squares / squares.sum(None);
        let grid = Grid::of(&shares, &[Axis::Rank], "share of squares")?;
        Ok(grid.name(&format!("Tucker: shares of the axes of {mode}")))
    }

    /// The tensor that core and factors stand for.
    pub fn reconstruct(&self) -> Tensor {
        let each = self.factors.iter().enumerate();
        each.fold(self.core.shallow_clone(), |x, (mode, factor)| product(&x, mode, factor))
    }

    fn place(&self, mode: Axis) -> Result<usize> {
        let names =
            || self.axes.iter().map(|axis| axis.axis.to_string()).collect::<Vec<_>>().join(", ");
        let found = self.axes.iter().position(|axis| axis.axis == mode);
        found.with_context(|| format!("no mode {mode}; modes are [{}]", names()))
    }
}

/// A place of every block as one tensor `[Layer, Token, D]`, f64, with the axes' labels: `Pos` holds the
/// tokens of one prompt, `Series` those of several. Padding and each prompt's first token are left
/// out; a head's axes are joined into one.
pub fn resid_tensor(cache: &Cache, point: Point) -> Result<(Tensor, Vec<GridAxis>)> {
    let held: Vec<usize> =
        (0..cache.n_layers()).filter(|layer| cache.contains(point.at(*layer))).collect();
    ensure!(!held.is_empty(), "the cache holds no {point:?}: plan.cache(Point::{point:?})");
    let (mut layers, mut labels) = (Vec::new(), Vec::new());
    for layer in &held {
        let (x, tokens) = frame::token_vectors(cache, point.at(*layer), 1)?;
        layers.push(x.to_kind(Kind::Double));
        labels = tokens;
    }
    let x = Tensor::stack(&layers, 0);
    let tokens = if cache.tokens().batch() == 1 { Axis::Pos } else { Axis::Series };
    let last = point.axes().last().copied().unwrap_or(Axis::Feature);
    let feature = if point.axes().len() == 3 { last } else { Axis::Feature };
    let dims = (0..x.size()[2]).map(|i| i.to_string()).collect();
    let axes = [
        (Axis::Layer, held.iter().map(|layer| format!("L{layer}")).collect()),
        (tokens, labels),
        (feature, dims),
    ];
    Ok((x, axes.into_iter().map(|(axis, labels)| GridAxis { axis, labels }).collect()))
}

/// Tucker's decomposition of a place of every block, `[Layer, Token, D]`, with these many axes of
/// each: which layers go together, which tokens, and along which directions.
///
/// ```no_run
/// use thalweg::{Axis, Model, Plan, Point, lines, tucker};
/// let model = Model::load("data/models/tiny-world")?;
/// let run = model.run(&model.tokens("Mary and John went to the store")?, &Plan::new().cache(Point::ResidPost))?;
/// let parts = tucker(&run.cache, Point::ResidPost, [2, 3, 3])?;
/// let over_layers = lines(&parts.factor(Axis::Layer)?)?;
/// # thalweg::anyhow::Ok(())
/// ```
pub fn tucker(cache: &Cache, point: Point, ranks: [usize; 3]) -> Result<Tucker> {
    let (x, axes) = resid_tensor(cache, point)?;
    let found = tucker_of(&x, &ranks)?;
    Ok(Tucker { axes, ..found })
}

/// Tucker's decomposition of any tensor, with `ranks[i]` axes for mode `i`, improved until a round
/// gains nothing. Modes are named `Layer`, `Series`, `Feature` where there are three, as
/// [`tucker`]'s are; else `Component`, `Layer`, `Series`, `Feature` from the last.
///
/// ```
/// use thalweg::{rng::Rng, tucker_of};
/// let x = Rng::new(0).normal_tensor(&[4, 5, 6]);
/// assert!(tucker_of(&x, &[4, 5, 6])?.explained > 1.0 - 1e-9);
/// assert!(tucker_of(&x, &[2, 2, 2])?.explained < 0.9);
/// # thalweg::anyhow::Ok(())
/// ```
pub fn tucker_of(x: &Tensor, ranks: &[usize]) -> Result<Tucker> {
    let mut best = hosvd(x, ranks)
        .map_err(|error| anyhow::anyhow!("{}", error.to_string().replace("hosvd", "tucker")))?;
    let x = x.detach().to_kind(Kind::Double);
    for round in 1..=ITERATIONS {
        let mut factors: Vec<Tensor> = best.factors.iter().map(Tensor::shallow_clone).collect();
        for mode in 0..ranks.len() {
            let rest = project(&x, &factors, Some(mode));
            factors[mode] = leading(&unfold(&rest, mode), ranks[mode] as i64)?;
        }
        let next = assemble(&x, factors, best.axes.clone(), round);
        let gained = next.explained - best.explained;
        best = Tucker { rounds: round, ..next };
        if gained < TOLERANCE {
            break;
        }
    }
    Ok(best)
}

/// The higher-order SVD of any tensor, cut to `ranks[i]` axes of mode `i`: the singular vectors of
/// each unfolding. Within a factor `sqrt(modes)` of the best such decomposition; exact at full
/// rank.
pub fn hosvd(x: &Tensor, ranks: &[usize]) -> Result<Tucker> {
    let shape = x.size();
    ensure!(
        (2..=4).contains(&shape.len()) && ranks.len() == shape.len(),
        "hosvd: {} ranks for a tensor {shape:?}, expected one for each of 2 to 4 modes",
        ranks.len()
    );
    for (mode, (rank, len)) in ranks.iter().zip(&shape).enumerate() {
        let others = shape.iter().product::<i64>() / (*len).max(1);
        let most = (*len).min(others);
        ensure!(
            *rank > 0 && *rank as i64 <= most,
            "hosvd: {rank} axes of mode {mode} of a tensor {shape:?}, expected 1 to {most}"
        );
    }
    let x = x.detach().to_kind(Kind::Double);
    ensure!(bool::try_from(x.isfinite().all())?, "hosvd: the tensor holds a non-finite number");
    let each = ranks.iter().enumerate();
    let factors = each.map(|(mode, rank)| leading(&unfold(&x, mode), *rank as i64));
    let factors = factors.collect::<Result<Vec<_>>>()?;
    let names = [Axis::Component, Axis::Layer, Axis::Series, Axis::Feature];
    let axes = names[4 - shape.len()..].iter().zip(&shape).map(|(axis, len)| GridAxis {
        axis: *axis,
        labels: (0..*len).map(|i| i.to_string()).collect(),
    });
    let axes = axes.collect();
    Ok(assemble(&x, factors, axes, 0))
}

fn assemble(x: &Tensor, factors: Vec<Tensor>, axes: Vec<GridAxis>, rounds: usize) -> Tucker {
    let core = project(x, &factors, None);
    // Orthonormal factors: what is held and what is left over are at right angles.
    let all = x.square().sum(None).double_value(&[]);
    let held = core.square().sum(None).double_value(&[]);
    let explained = if all > 0.0 { held / all } else { 1.0 };
    Tucker { core, factors, explained, rounds, axes }
}

/// `x` along the axes of every mode but one.
fn project(x: &Tensor, factors: &[Tensor], but: Option<usize>) -> Tensor {
    let others = factors.iter().enumerate().filter(|(mode, _)| Some(*mode) != but);
    others.fold(x.shallow_clone(), |x, (mode, factor)| product(&x, mode, &factor.tr()))
}

/// `matrix` times `x` along one mode.
fn product(x: &Tensor, mode: usize, matrix: &Tensor) -> Tensor {
    let mode = mode as i64;
    x.transpose(mode, -1).matmul(&matrix.tr()).transpose(mode, -1)
}

/// `x` as a matrix with one mode as its rows.
fn unfold(x: &Tensor, mode: usize) -> Tensor {
    x.transpose(0, mode as i64).reshape([x.size()[mode], -1])
}

/// The first `k` left singular vectors, as columns, the largest loading of each positive.
fn leading(x: &Tensor, k: i64) -> Result<Tensor> {
    let vectors = if x.size()[0] <= x.size()[1] {
        x.matmul(&x.tr()).f_linalg_eigh("L")?.1.flip([1i64])
    } else {
        x.f_svd(true, true)?.0
    };
    let vectors = vectors.narrow(1, 0, k);
    let largest = vectors.abs().argmax(0, true);
    Ok((&vectors * vectors.gather(0, &largest, false).sign()).contiguous())
}
