//! How alike directions are: probes of several layers or methods, steering vectors, latents.

use anyhow::{Result, ensure};
use tch::Tensor;

use super::states::checked;
use crate::grid::Grid;
use crate::hook::site::Axis;

/// The cosine of each direction `[D]` with each: `[Series, Feature]`, both labelled with their names.
/// The control is that of random directions: about `1 / sqrt(D)` either way.
///
/// ```
/// use thalweg::{direction_cosines, heatmap, tch::Tensor};
/// let [east, north, back] = [[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]].map(|x| Tensor::from_slice(&x));
/// let cosines = direction_cosines(&[("east", &east), ("north", &north), ("back", &back)])?;
/// assert_eq!((cosines.get(&["east", "north"])?, cosines.get(&["east", "back"])?), (0.0, -1.0));
/// heatmap(&cosines)?;
/// # thalweg::anyhow::Ok(())
/// ```
pub fn direction_cosines(directions: &[(&str, &Tensor)]) -> Result<Grid> {
    ensure!(!directions.is_empty(), "cosines: no directions, expected at least one");
    let d = directions[0].1.numel();
    let unit = |(name, direction): &(&str, &Tensor)| -> Result<Tensor> {
        let direction = checked(&format!("cosine of {name:?}"), direction, d)?;
        let length = direction.norm();
        Ok(direction / length)
    };
    let units = directions.iter().map(unit).collect::<Result<Vec<_>>>()?;
    let units = Tensor::stack(&units, 0);
    let names: Vec<String> = directions.iter().map(|(name, _)| (*name).to_owned()).collect();
    let axes = [(Axis::Series, names.clone()), (Axis::Feature, names)];
    let grid = Grid::from_tensor(&units.matmul(&units.tr()).clamp(-1.0, 1.0), &axes, "cosine")?;
    Ok(grid.name("cosine between directions"))
}
