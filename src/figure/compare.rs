//! Two models, checkpoints or conditions: A, B, and B less A.

use anyhow::Result;

use super::{Content, Figure, Kind, panels, stack};
use crate::grid::Grid;
use crate::hook::site::Axis;

/// Width of the three matrices together.
const ROOM: f64 = 236.0;

/// Two grids of equal axes and unit, and their difference: as matrices in one row, `A` and `B` in one
/// range of colours, the difference in its own about a white zero, zooming together; grids of one axis
/// as two lines with the difference under them.
///
/// ```
/// use thalweg::{Axis, Grid, compare, ndarray::array};
/// let a = Grid::from_array(array![[0.1, 0.8], [0.0, 0.3]], &[Axis::Layer, Axis::Head], "score")?.name("base");
/// let b = a.map(|x| 1.0 - x).name("tuned");
/// assert!(compare(&a, &b)?.bundle()?.svg.contains("tuned − base"));
/// # anyhow::Ok(())
/// ```
pub fn compare(a: &Grid, b: &Grid) -> Result<Figure> {
    let difference = b.minus(a)?;
    let (first, second, title) = match a.name == b.name || a.name.is_empty() || b.name.is_empty() {
        true => ("A".to_string(), "B".to_string(), a.name.clone()),
        false => (a.name.clone(), b.name.clone(), String::new()),
    };
    let free = [Axis::Series, Axis::Plan, Axis::Step].into_iter();
    let beside = free.into_iter().find(|axis| a.place(*axis).is_err()).unwrap_or(Axis::Series);
    let both = Grid::stack(beside, &[(&first, a), (&second, b)])?;
    let difference_name = format!("{second} − {first}");
    if difference.squeeze().axes.len() <= 1 {
        let title = if title.is_empty() { format!("{first} and {second}") } else { title };
        return stack::difference(&both.name(&title), &difference_name);
    }
    let matrix = |grid: &Grid, name: &str| {
        Figure::chart(Kind::Heatmap, panels::prepared(&grid.clone().name(name), "a comparison", 2)?)
    };
    let scale = panels::range(&both, &Default::default(), false);
    let linked = |figure: Figure| {
        figure.styled(|style| {
            style.linked = true;
            style.room = Some(ROOM);
        })
    };
    let pair = [matrix(a, &first)?, matrix(b, &second)?]
        .map(|figure| linked(figure.styled(|style| style.scale = Some(scale.clone()))));
    let [one, two] = pair;
    let one = one.styled(|style| style.no_bar = true);
    let three = linked(matrix(&difference, &difference_name)?);
    let [two, three] = [two, three].map(|figure| figure.styled(|style| style.unnamed_rows = true));
    Ok(Figure { content: Content::Row(vec![one, two, three], title), forced: false })
}
