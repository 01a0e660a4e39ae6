//! Two measures of the same things against one another: exact patching beside its estimate.

use anyhow::{Result, ensure};

use super::{Figure, scatter};
use crate::grid::Grid;
use crate::hook::site::Axis;

/// A point for each cell that two grids of equal axes share: `x` from the first, `y` from the second,
/// both axes over one range, with the diagonal on which they agree. Pearson's and Spearman's
/// correlation stand under the title. Colours follow the first axis, or [`Figure::color_by`].
///
/// ```
/// use thalweg::{Axis, Grid, ndarray::array, versus};
/// let exact = Grid::from_array(array![[0.1, -0.8], [0.0, 0.3]], &[Axis::Layer, Axis::Head], "nats")?.name("patching");
/// let estimate = exact.map(|x| 1.1 * x).name("attribution");
/// assert!(versus(&exact, &estimate)?.bundle()?.svg.contains("Pearson 1.000, Spearman 1.000, n = 4"));
/// # anyhow::Ok(())
/// ```
pub fn versus(x: &Grid, y: &Grid) -> Result<Figure> {
    ensure!(
        x.axes == y.axes,
        "points need equal axes and labels; found {} and {}",
        x.axes_text(),
        y.axes_text()
    );
    ensure!(
        x.place(Axis::Pc).is_err(),
        "points of two grids cannot have an axis Pc; select from it"
    );
    let named = |grid: &Grid, other: &str| {
        let name = if grid.name.is_empty() { other.to_string() } else { grid.name.clone() };
        if grid.unit.is_empty() { name } else { format!("{name} ({})", grid.unit) }
    };
    let (first, second) = (named(x, "first"), named(y, "second"));
    ensure!(x.values.len() > 1, "one point has no correlation; axes are {}", x.axes_text());
    let parts = [(first.as_str(), x), (second.as_str(), &y.clone().unit(&x.unit))];
    let mut grid = Grid::stack(Axis::Pc, &parts)?;
    grid.name = format!("{} versus {}", short(y, "second"), short(x, "first"));
    grid.interval = None;
    let pairs: Vec<(f64, f64)> = x
        .present()
        .filter(|(index, _)| y.exists(index))
        .map(|(index, value)| (value, y.values[ndarray::IxDyn(&index)]))
        .collect();
    let remark = agreement(&pairs);
    let figure = scatter(&grid)?;
    Ok(figure.styled(|style| {
        style.diagonal = true;
        style.remarks = vec![remark.clone()];
    }))
}

fn short(grid: &Grid, other: &str) -> String {
    if grid.name.is_empty() { other.to_string() } else { grid.name.clone() }
}

/// `Pearson 0.982, Spearman 0.951, n = 32`.
fn agreement(pairs: &[(f64, f64)]) -> String {
    let (x, y): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let told = |r: f64| if r.is_finite() { format!("{r:.3}") } else { "undefined".to_string() };
    let spearman = pearson(&ranks(&x), &ranks(&y));
    format!("Pearson {}, Spearman {}, n = {}", told(pearson(&x, &y)), told(spearman), pairs.len())
}

fn pearson(x: &[f64], y: &[f64]) -> f64 {
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let (mx, my) = (mean(x), mean(y));
    let product = |a: &[f64], ma: f64, b: &[f64], mb: f64| -> f64 {
        a.iter().zip(b).map(|(a, b)| (a - ma) * (b - mb)).sum()
    };
    product(x, mx, y, my) / (product(x, mx, x, mx) * product(y, my, y, my)).sqrt()
}

/// Ranks from 1, equal values sharing the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut from = 0;
    while from < order.len() {
        let equal = |i: &&usize| values[**i] == values[order[from]];
        let count = order[from..].iter().take_while(equal).count();
        let rank = from as f64 + 0.5 * (count as f64 + 1.0);
        order[from..from + count].iter().for_each(|i| ranks[*i] = rank);
        from += count;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_their_rank() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
        // scipy.stats: pearsonr([1, 2, 3, 5], [1, 3, 2, 4]) = 0.8315, spearmanr = 0.8.
        assert_eq!(
            agreement(&[(1.0, 1.0), (2.0, 3.0), (3.0, 2.0), (5.0, 4.0)]),
            "Pearson 0.832, Spearman 0.800, n = 4"
        );
    }
}
