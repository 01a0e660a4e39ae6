//! Attribution patching against exact patching.

use super::*;
use crate::induction_model::induction_model;
use thalweg::{Comparison, Estimates};

/// What can be patched with an effect in a linear model, and how finely.
fn cells() -> Vec<(Point, Vec<Axis>)> {
    use Axis::*;
    vec![
        (Point::ResidPre, vec![Pos]),
        (Point::ResidPost, vec![]),
        (Point::V, vec![Pos, KvHead]),
        (Point::Z, vec![Head]),
        (Point::Z, vec![Pos, Head]),
        (Point::AttnOut, vec![Pos]),
        (Point::HeadResult, vec![Head]),
        (Point::Ln1Normalized, vec![Pos, DModel]),
    ]
}

fn estimates(model: &Model, settings: AttributionPatching) -> Estimates {
    settings.run(model, &tokens(), &others()).unwrap()
}

#[test]
fn in_a_linear_model_every_estimate_is_the_exact_effect_in_both_directions() {
    let model = linear_model();
    for direction in [Direction::Denoise, Direction::Noise] {
        let settings = AttributionPatching::new(&metric(), direction);
        let points: Vec<Point> = cells().into_iter().map(|(point, _)| point).collect();
        let estimates = estimates(&model, settings.points(points));
        for (point, by) in cells() {
            let comparison = estimates.compare(point, &by).unwrap();
            let largest = comparison.exact.ranked()[0].value.abs();
            for (cell, estimate) in comparison.ranked() {
                let apart = (cell.value - estimate).abs() / largest;
                // eps of 1e16 leaves one part in 1e15 of the norm's bend, and loses as much.
                assert!(apart < 1e-6, "{point:?} {:?}: {estimate}, {}", cell.labels, cell.value);
            }
            assert!((comparison.pearson - 1.0).abs() < 1e-9, "{point:?} {comparison}");
        }
    }
}

#[test]
fn in_a_linear_model_swapping_the_prompts_flips_the_sign() {
    let model = linear_model();
    let grid = |direction| {
        let settings = AttributionPatching::new(&metric(), direction).points(Point::Z);
        estimates(&model, settings).grid(Point::Z, &[Axis::Pos, Axis::Head]).unwrap()
    };
    let (one, other) = (grid(Direction::Denoise), grid(Direction::Noise));
    for (index, value) in one.present() {
        near(-other.values[index.as_slice()], value, 1e-6, format!("{index:?}"));
    }
}

#[test]
fn an_estimate_in_linear_mode_is_exact_patching_of_the_frozen_model() {
    use Point::*;
    let points = [ResidPre, V, Z, AttnOut, ResidMid, MlpPreLinear, MlpPost, MlpOut, Q, K, Pattern];
    for model in models(Kind::Double) {
        let (source, receiver) = (others(), tokens());
        let settings = AttributionPatching::new(&metric(), Direction::Noise).points(points);
        let estimates = settings.freeze(Freeze::Linear).run(&model, &receiver, &source).unwrap();
        assert!(estimates.notes.iter().any(|note| note.contains("Pattern are 0")));
        let all = Plan::new().cache(Sites::everything());
        let from = model.run(&source, &all).unwrap().cache;
        let own = model.run(&receiver, &all).unwrap().cache;
        let frozen = Plan::new().freeze(Freeze::Linear, &own);
        let base = measure(&model, &receiver, &frozen, &metric());
        for point in points {
            let grid = estimates.grid(point, &[]).unwrap();
            for layer in 0..model.config().n_layers {
                let plan = frozen.clone().intervene(point.at(layer), Intervention::patch(&from));
                let effect = measure(&model, &receiver, &plan, &metric()) - &base;
                for row in 0..3 {
                    let exact = effect.double_value(&[row]);
                    let estimate = grid.at(&[row, layer as i64]).unwrap();
                    if point == Pattern {
                        assert_eq!(estimate, 0.0); // an intervention acts on what is held
                    } else {
                        near(estimate, exact, 1e-10, format!("{point:?} {layer} row {row}"));
                    }
                }
            }
        }
    }
}

#[test]
fn estimates_become_exact_as_the_patch_becomes_small_and_their_error_shrinks_with_it() {
    for model in models(Kind::Double).into_iter().take(2) {
        let points = [Point::ResidPre, Point::Q, Point::K, Point::Scores, Point::MlpPre];
        let settings = AttributionPatching::new(&metric(), Direction::Denoise).points(points);
        let estimates = estimates(&model, settings);
        let cache = |tokens| model.run(tokens, &Plan::new().cache(points)).unwrap().cache;
        let (source, own) = (cache(&tokens()), cache(&others()));
        let base = measure(&model, &others(), &Plan::new(), &metric()).double_value(&[0]);
        for point in points {
            let site = point.at(1);
            let estimate = estimates.at(site, &[]).unwrap().at(&[0]).unwrap();
            let at = |share: f64| {
                let [from, to] = [&source, &own].map(|cache| cache.get(site).unwrap());
                let near = (&to + (from - &to) * share).nan_to_num(0.0, None, None);
                let plan = Plan::new().intervene(site, Intervention::set(&near).batch(0));
                let value = measure(&model, &others(), &plan, &metric()).double_value(&[0]);
                ((value - base) / share - estimate).abs()
            };
            let (coarse, fine) = (at(1e-2), at(1e-3));
            let ratio = coarse / fine;
            assert!((8.0..12.5).contains(&ratio), "{site}: {coarse} and {fine}");
            assert!(fine < 1e-2 * estimate.abs().max(0.1), "{site}: {fine} of {estimate}");
        }
    }
}

#[test]
fn the_qk_fix_is_exact_where_the_metric_is_linear_in_the_pattern() {
    for model in models(Kind::Double) {
        let last = model.config().n_layers - 1;
        let points = [Point::Q, Point::RotQ, Point::K, Point::RotK];
        let settings = AttributionPatching::new(&metric(), Direction::Noise).points(points);
        let settings = settings.qk_fix().freeze(Freeze::Norm).freeze(Freeze::Gate);
        let estimates = settings.run(&model, &tokens(), &others()).unwrap();
        let held = [Point::Ln1Scale, Point::Ln2Scale, Point::MlpPre];
        let all = Plan::new().cache(held).cache(points).cache(Site::FinalScale);
        let from = model.run(&others(), &all).unwrap().cache;
        let own = model.run(&tokens(), &all).unwrap().cache;
        let frozen = Plan::new().freeze(Freeze::Norm, &own).freeze(Freeze::Gate, &own);
        let base = measure(&model, &tokens(), &frozen, &metric());
        for point in points {
            let query = matches!(point, Point::Q | Point::RotQ);
            let head = if query { Axis::Head } else { Axis::KvHead };
            let heads = [model.config().n_kv_heads, model.config().n_heads][usize::from(query)];
            let grid = estimates.grid(point, &[Axis::Pos, head]).unwrap();
            for (row, column, head) in (0..3)
                .flat_map(|row| (3..6).flat_map(move |at| (0..heads).map(move |h| (row, at, h))))
            {
                let patch = Intervention::patch(&from).batch(row);
                let patch = patch.pos(column - 6); // from the end, in each row
                let patch = if query { patch.head(head) } else { patch.kv_head(head) };
                let plan = frozen.clone().intervene(point.at(last), patch);
                let effect = measure(&model, &tokens(), &plan, &metric()) - &base;
                let estimate = grid.at(&[row, last as i64, column, head as i64]).unwrap();
                let what = format!("{point:?} row {row} column {column} head {head}");
                near(estimate, effect.double_value(&[row]), 1e-9, what);
            }
        }
    }
}

#[test]
fn saturated_attention_hides_a_query_from_the_gradient_and_the_qk_fix_finds_it() {
    let model = induction_model((60.0, 400.0));
    let clean = crate::induction_model::prompt(&model);
    let mut ids = clean.ids()[0].clone();
    let (last, n) = (ids.len() - 1, ids.len() / 2);
    // At the end the answer is the successor of the last token; the other prompt ends otherwise.
    let (end, other) = (ids[4], ids[7]);
    ids[last] = end;
    let clean = Tokens::from_ids(&[ids.clone()]).unwrap();
    let (right, wrong) = (ids[5], ids[8]);
    ids[last] = other;
    let corrupt = Tokens::from_ids(&[ids]).unwrap();
    assert!(n > 8);
    let metric = Metric::logit_diff(right, wrong);
    let settings = AttributionPatching::new(&metric, Direction::Noise).points([Point::Q, Point::K]);
    let plain = settings.run(&model, &clean, &corrupt).unwrap();
    let exact = plain.compare(Point::Q, &[Axis::Pos]).unwrap();
    let exact = exact.exact.at(&[1, -1]).unwrap();
    near(exact, -3.495, 1e-3, "exact");
    let estimate = plain.grid(Point::Q, &[Axis::Pos]).unwrap().at(&[1, -1]).unwrap();
    assert!(estimate.abs() < 1e-3 * exact.abs(), "plain {estimate}");
    let fixed = settings.qk_fix().run(&model, &clean, &corrupt).unwrap();
    let estimate = fixed.grid(Point::Q, &[Axis::Pos]).unwrap().at(&[1, -1]).unwrap();
    near(estimate, exact, 0.1, "fixed");
}

#[test]
fn the_closed_form_for_keys_survives_attention_that_is_saturated_the_other_way() {
    // Each token of the other prompt is another, so that the key of the answer moves away.
    let model = induction_model((60.0, 400.0));
    let clean = crate::induction_model::prompt(&model);
    let ids = &clean.ids()[0];
    let turned: Vec<i64> = (0..ids.len()).map(|i| if i == 0 { 0 } else { 13 - ids[i] }).collect();
    let corrupt = Tokens::from_ids(&[turned]).unwrap();
    let metric = Metric::logit_diff(ids[8], ids[3]).at(19);
    let settings = AttributionPatching::new(&metric, Direction::Noise).points(Point::K).qk_fix();
    let fixed = settings.freeze(Freeze::Norm).run(&model, &clean, &corrupt).unwrap();
    let grid = fixed.grid(Point::K, &[Axis::Pos]).unwrap();
    assert!(grid.present().all(|(_, value)| value.is_finite()), "{grid:?}");
    assert!(grid.at(&[1, 8]).unwrap() < -1.0, "{grid:?}");
}

#[test]
fn estimates_of_a_padded_batch_are_those_of_each_prompt_alone() {
    let model = &models(Kind::Double)[1];
    let points = [Point::Z, Point::K, Point::Pattern, Point::Scores, Point::MlpPost];
    let settings = AttributionPatching::new(&metric(), Direction::Denoise).points(points).qk_fix();
    let all = settings.run(model, &tokens(), &others()).unwrap();
    for (point, by) in [
        (Point::Z, vec![Axis::Pos, Axis::Head]),
        (Point::K, vec![Axis::KvHead, Axis::Pos]),
        (Point::Pattern, vec![Axis::Head, Axis::Query, Axis::Key]),
        (Point::Scores, vec![Axis::Query]),
        (Point::MlpPost, vec![Axis::DMlp]),
    ] {
        let grid = all.grid(point, &by).unwrap();
        for row in 0..3 {
            let [clean, corrupt] = [tokens(), others()].map(|tokens| tokens.row(row).unwrap());
            let alone = settings.run(model, &clean, &corrupt).unwrap().grid(point, &by).unwrap();
            let here = grid.select(Axis::Batch, row as i64).unwrap();
            let here: Vec<f64> = here.present().map(|(_, value)| value).collect();
            let alone: Vec<f64> = alone.present().map(|(_, value)| value).collect();
            assert_eq!(here.len(), alone.len(), "{point:?}");
            for (a, b) in here.iter().zip(&alone) {
                assert!((a - b).abs() < 1e-10, "{point:?} row {row}: {a}, {b}");
            }
        }
    }
    let ends = [(&all.source_metric, tokens()), (&all.receiver_metric, others())];
    for (values, tokens) in ends {
        let own = Vec::<f64>::try_from(measure(model, &tokens, &Plan::new(), &metric())).unwrap();
        values.iter().zip(own).for_each(|(a, b)| near(*a, b, 1e-12, "metric"));
    }
}

#[test]
fn grad_drop_is_the_mean_magnitude_over_gradients_past_each_block() {
    let model = &models(Kind::Double)[1];
    let new = || AttributionPatching::new(&metric(), Direction::Noise);
    let points = [Point::Z, Point::ResidMid, Point::Q];
    let by = [Axis::Pos];
    for (point, n) in [(Point::Z, 2.0), (Point::ResidMid, 3.0), (Point::Q, 2.0)] {
        let settings = new().points(points).qk_fix();
        let found = estimates(model, settings.clone().grad_drop()).grid(point, &by).unwrap();
        let each = (0..3).map(|layer| {
            let dropped = settings.clone().freeze(Freeze::Block(layer));
            let grid = estimates(model, dropped).grid(point, &by).unwrap();
            if point != Point::ResidMid {
                let own = grid.select(Axis::Layer, layer as i64).unwrap();
                assert!(own.present().all(|(_, value)| value == 0.0), "{point:?} of {layer}");
            }
            grid
        });
        let each: Vec<Grid> = each.collect();
        for (index, value) in found.present() {
            let sum: f64 = each.iter().map(|grid| grid.values[index.as_slice()].abs()).sum();
            assert!((sum / n - value).abs() < 1e-12, "{point:?} {index:?}: {value}");
        }
    }
    let one = model_of(Config { n_layers: 1, ..config() }, Kind::Double, 3);
    let settings = new().points(Point::Z).grad_drop();
    says(settings.run(&one, &tokens(), &others()), &["grad_drop", "1 layer"]);
    let plan = Plan::new().freeze_own(Freeze::Block(1));
    says(one.run(&tokens(), &plan), &["Block(1)", "layers 0..0"]);
}

#[test]
fn normalised_estimates_share_their_scale_with_normalised_patching() {
    let model = &models(Kind::Double)[0];
    for direction in [Direction::Denoise, Direction::Noise] {
        let settings = AttributionPatching::new(&metric(), direction).points(Point::ResidPost);
        let plain = settings.run(model, &tokens(), &others()).unwrap();
        let shares = settings.normalised().run(model, &tokens(), &others()).unwrap();
        let comparison = shares.compare(Point::ResidPost, &[]).unwrap();
        // The whole stream patched is the other run.
        assert!(comparison.exact.present().all(|(_, value)| (value - 1.0).abs() < 1e-9));
        let plain = plain.grid(Point::ResidPost, &[]).unwrap();
        for (index, value) in comparison.estimate.present() {
            let row = index[0];
            let apart = shares.source_metric[row] - shares.receiver_metric[row];
            near(value * apart, plain.values[index.as_slice()], 1e-9, format!("{index:?}"));
        }
        assert_eq!(comparison.estimate.zero_one, comparison.exact.zero_one);
        assert_eq!(comparison.estimate.unit, comparison.exact.unit);
    }
}

#[test]
fn ranks_share_their_mean_where_values_tie() {
    let grid = |values: [f64; 5]| {
        Grid::from_array(thalweg::ndarray::arr1(&values), &[Axis::Pos], "nats").unwrap()
    };
    let comparison =
        Comparison::of(&grid([1.0, 1.0, 2.0, 0.0, 5.0]), &grid([2.0, 1.0, 3.0, 0.0, 4.0]));
    let comparison = comparison.unwrap();
    // Ranks 1.5 1.5 3 0 4 against 2 1 3 0 4: covariance 9.5, variances 9.5 and 10.
    assert!((comparison.spearman - 9.5 / 95f64.sqrt()).abs() < 1e-12, "{comparison}");
    assert_eq!(comparison.ranked()[0].1, 5.0);
    assert_eq!(comparison.grid().unwrap().shape(), [2, 5]);
    let noise =
        Comparison::of(&grid([0.0, 0.0, 0.0, 0.0, 1.0]), &grid([1e-9, -1e-8, 3e-8, 0.0, 1.0]));
    assert!((noise.unwrap().spearman - 1.0).abs() < 1e-12);
    let shorter = Grid::from_array(thalweg::ndarray::arr1(&[1.0]), &[Axis::Pos], "nats").unwrap();
    says(Comparison::of(&grid([0.0; 5]), &shorter), &["[Pos 5]", "[Pos 1]", "equal"]);
}

#[test]
fn what_cannot_be_estimated_says_why() {
    let model = &models(Kind::Double)[0];
    let new = || AttributionPatching::new(&metric(), Direction::Denoise);
    says(new().run(model, &tokens(), &others()), &["no place", ".points"]);
    let shorter = Tokens::from_ids(&[vec![3, 1], vec![2, 6, 5], vec![20, 0, 7, 7]]).unwrap();
    let z = new().points(Point::Z);
    says(z.run(model, &tokens(), &shorter), &["not aligned", "row 0 has 6"]);
    says(z.clone().qk_fix().freeze(Freeze::RelP).run(model, &tokens(), &others()), &["qk_fix"]);
    let estimates = z.run(model, &tokens(), &others()).unwrap();
    says(estimates.grid(Point::Z, &[Axis::KvHead]), &["no axis KvHead", "Head"]);
    says(estimates.grid(Point::Z, &[Axis::Pos, Axis::Pos]), &["Pos is named twice"]);
    says(estimates.grid(Point::V, &[]), &["hook_v was not cached"]);
}
