//! Gradient descent with momentum and a gain for each coordinate, as scikit-learn does it.

use anyhow::Result;

use super::affinity::{Affinities, gradient};
use crate::interrupt::check_interrupt;
use crate::show::Bar;

/// Steps with attraction exaggerated.
const EARLY: usize = 250;
/// How much it is exaggerated.
const EXAGGERATION: f64 = 12.0;
/// Momentum while it is, and after.
const MOMENTUM: [f64; 2] = [0.5, 0.8];
/// Steps between two looks at the divergence.
const LOOK: usize = 50;
/// Steps without a lower divergence after which the descent ends.
const PATIENCE: usize = 300;
/// A gradient of this norm is none.
const FLAT: f64 = 1e-7;

/// Where a descent ended.
pub(super) struct Descent {
    /// Coordinates, x and y in turn.
    pub(super) points: Vec<f64>,
    /// Step and divergence, without exaggeration, every 50 steps.
    pub(super) history: Vec<(usize, f64)>,
}

pub(super) fn descend(
    affinities: &Affinities,
    start: Vec<f64>,
    theta: f64,
    steps: usize,
    rate: f64,
) -> Result<Descent> {
    let mut bar = Bar::new("t-SNE", steps).unit("steps");
    let mut found = Descent { points: start, history: Vec::new() };
    let mut forces = Vec::new();
    let (mut moved, mut gains): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
    let mut best = (f64::INFINITY, 0);
    for step in 0..steps {
        let early = step < EARLY;
        if step == 0 || step == EARLY {
            moved = vec![0.0; found.points.len()];
            gains = vec![1.0; found.points.len()];
        }
        let exaggeration = if early { EXAGGERATION } else { 1.0 };
        let z = affinities.forces(&found.points, theta, exaggeration, &mut forces);
        if step % LOOK == 0 {
            check_interrupt()?;
            let kl = affinities.kl_given(&found.points, z);
            found.history.push((step, kl));
            if kl < best.0 || early {
                best = (kl, step);
            } else if step - best.1 > PATIENCE {
                break;
            }
        }
        let momentum = MOMENTUM[usize::from(!early)];
        let mut norm = 0.0;
        for (i, force) in forces.chunks_exact(5).enumerate() {
            for (axis, slope) in gradient(force, z).into_iter().enumerate() {
                let at = 2 * i + axis;
                norm += slope * slope;
                let gain = &mut gains[at];
                *gain = if moved[at] * slope < 0.0 { *gain + 0.2 } else { *gain * 0.8 };
                *gain = gain.max(0.01);
                moved[at] = momentum * moved[at] - rate * *gain * slope;
                found.points[at] += moved[at];
            }
        }
        bar.add(1);
        if norm.sqrt() <= FLAT && !early {
            break;
        }
    }
    let z = affinities.forces(&found.points, theta, 1.0, &mut forces);
    found.history.push((steps, affinities.kl_given(&found.points, z)));
    bar.finish();
    Ok(found)
}
