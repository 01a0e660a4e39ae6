//! The gradient methods in f32 and bf16: the same numbers to the kind's rounding.

use super::*;
use thalweg::Comparison;

/// Correlation that a kind's rounding leaves.
const KINDS: [(Kind, f64); 2] = [(Kind::Float, 1.0 - 1e-8), (Kind::BFloat16, 0.99)];

#[test]
fn every_method_gives_in_other_kinds_what_it_gives_in_f64() {
    let biased = Config { attention_bias: true, mlp_bias: true, ..config() };
    let model = model_of(biased.clone(), Kind::Double, 8);
    let points = [Point::Z, Point::Q, Point::K, Point::MlpPost, Point::ResidMid];
    let settings = AttributionPatching::new(&metric(), Direction::Denoise).points(points).qk_fix();
    let edges = EdgeAttribution::new(&metric(), Direction::Noise).integrated(4);
    let grids = |model: &Model| {
        let estimates = settings.run(model, &tokens(), &others()).unwrap();
        let mut grids: Vec<Grid> =
            points.iter().map(|point| estimates.grid(*point, &[Axis::Pos]).unwrap()).collect();
        grids.push(edges.run(model, &tokens(), &others()).unwrap().scores);
        grids.push(integrated_gradients(model, &tokens(), &metric(), &others()).unwrap().tokens);
        let relp = Some(Freeze::RelP);
        grids.push(gradient_times_input(model, &tokens(), &metric(), relp).unwrap());
        grids
    };
    let exact = grids(&model);
    for (kind, least) in KINDS {
        for (grid, exact) in grids(&model_of(biased.clone(), kind, 8)).iter().zip(&exact) {
            let comparison = Comparison::of(grid, exact).unwrap();
            assert!(comparison.pearson > least, "{} in {kind:?}: {comparison}", grid.name);
        }
    }
}
