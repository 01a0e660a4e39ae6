use thalweg::anyhow::Result;
use thalweg::ndarray::{ArrayD, IxDyn};
use thalweg::rng::Rng;
use thalweg::{
    Axis, Coefficient, Correlate, Correlations, Grid, Shuffle, correlate, correlation_p,
    distance_correlation, partial_correlation, pearson, spearman,
};

use super::coefficients::{golden, list};
use super::significance::beyond_uniform;
use super::{near, normal};
use crate::support::says;

fn drawn(rng: &mut Rng, axes: &[(Axis, usize)]) -> Grid {
    let shape: Vec<usize> = axes.iter().map(|(_, n)| *n).collect();
    let values = normal(rng, shape.iter().product());
    let axes: Vec<Axis> = axes.iter().map(|(axis, _)| *axis).collect();
    Grid::from_array(ArrayD::from_shape_vec(shape, values).unwrap(), &axes, "nats").unwrap()
}

fn prompts(values: &[f64]) -> Grid {
    let values = ArrayD::from_shape_vec(vec![values.len()], values.to_vec()).unwrap();
    Grid::from_array(values, &[Axis::Batch], "nats").unwrap()
}

fn quick(how: Coefficient) -> Correlate {
    Correlate::new(how, 1).shuffles(49).resamples(20)
}

fn at(grid: &Grid, index: &[usize]) -> f64 {
    grid.values[IxDyn(index)]
}

#[test]
fn every_cell_is_the_coefficient_of_its_own_samples() -> Result<()> {
    let mut rng = Rng::new(1);
    let sizes = [(Axis::Batch, 6), (Axis::Layer, 2), (Axis::Head, 3), (Axis::Pos, 5)];
    let mut a = drawn(&mut rng, &sizes);
    let mut b = drawn(&mut rng, &[(Axis::Batch, 6), (Axis::Layer, 2), (Axis::Pos, 5)]);
    // A token that a single cell lacks counts nowhere; neither do the others' holes.
    a.values[IxDyn(&[2, 1, 0, 3])] = f64::NAN;
    b.values[IxDyn(&[4, 0, 1])] = f64::NAN;
    let (a, b) = (a.missing_where(f64::is_nan), b.missing_where(f64::is_nan));
    let kept: Vec<(usize, usize)> = (0..6)
        .flat_map(|row| (0..5).map(move |pos| (row, pos)))
        .filter(|key| ![(2, 3), (4, 1)].contains(key))
        .collect();
    let given = drawn(&mut rng, &[(Axis::Batch, 6), (Axis::Pos, 5)]);
    let free = quick(Coefficient::Pearson).shuffle(Shuffle::Samples);
    for (found, of) in [
        (quick(Coefficient::Pearson).shuffle(Shuffle::Samples).of(&a, &b)?, "pearson"),
        (quick(Coefficient::Spearman).shuffle(Shuffle::Samples).of(&a, &b)?, "spearman"),
        (quick(Coefficient::Distance).shuffle(Shuffle::Samples).of(&a, &b)?, "distance"),
        (free.given(&given).of(&a, &b)?, "partial"),
    ] {
        assert_eq!((found.n, found.clusters, found.r.n), (28, 6, 28));
        let axes: Vec<Axis> = found.r.axes.iter().map(|axis| axis.axis).collect();
        assert_eq!(
            axes,
            [Axis::Layer, Axis::Head, Axis::Series],
            "layers of both: one has to move"
        );
        assert_eq!(found.r.labels(Axis::Series)?, ["L0", "L1"]);
        for (index, r) in found.r.present() {
            let x: Vec<f64> =
                kept.iter().map(|(row, pos)| at(&a, &[*row, index[0], index[1], *pos])).collect();
            let y: Vec<f64> =
                kept.iter().map(|(row, pos)| at(&b, &[*row, index[2], *pos])).collect();
            let z: Vec<f64> = kept.iter().map(|(row, pos)| at(&given, &[*row, *pos])).collect();
            let expected = match of {
                "pearson" => pearson(&x, &y)?,
                "spearman" => spearman(&x, &y)?,
                "distance" => distance_correlation(&x, &y)?,
                _ => partial_correlation(&x, &y, &[&z])?,
            };
            near(r, expected, 1e-12);
            if let Some(student) = &found.p_student {
                let held = usize::from(of == "partial");
                near(at(student, &index), correlation_p(expected, 28, held)?, 1e-10);
            }
        }
        assert_eq!(found.p_student.is_none(), of == "distance");
        assert!(found.r.provenance["samples"].contains("2 left out"), "{:?}", found.r.provenance);
    }
    Ok(())
}

#[test]
fn all_orders_of_few_samples_give_the_exact_p_value() -> Result<()> {
    let cases = golden();
    let case = cases["cases"].as_array().unwrap().iter().find(|case| case["name"] == "six");
    let case = case.unwrap();
    let (x, y) = (prompts(&list(&case["x"])), prompts(&list(&case["y"])));
    let found = correlate(&x, &y, Coefficient::Pearson, 0)?;
    near(at(&found.p, &[]), case["permutation"].as_f64().unwrap(), 1e-12);
    assert_eq!(found.p.provenance["shuffles"], "all 720 orders of whole prompts");
    near(at(&found.shuffled, &[]), 0.0, 1e-12);
    let random = Correlate::new(Coefficient::Pearson, 3).shuffles(500).of(&x, &y)?;
    near(at(&random.p, &[]), case["permutation"].as_f64().unwrap(), 0.04);
    Ok(())
}

/// Tokens that share their prompt's level, on both sides, which have nothing to do with each other.
fn levels(rng: &mut Rng) -> (Grid, Grid) {
    let mut one = || {
        let mut grid = drawn(rng, &[(Axis::Batch, 12), (Axis::Pos, 6)]);
        let level: Vec<f64> = (0..12).map(|_| 1.5 * rng.normal()).collect();
        grid.values.indexed_iter_mut().for_each(|(index, value)| *value += level[index[0]]);
        grid
    };
    (one(), one())
}

#[test]
fn tokens_of_a_prompt_are_not_taken_as_independent() -> Result<()> {
    let mut rng = Rng::new(4);
    let runs = 120;
    let (mut whole, mut within, mut student, mut covered) = (vec![], vec![], vec![], 0);
    for seed in 0..runs {
        let (a, b) = levels(&mut rng);
        let how = Correlate::new(Coefficient::Pearson, seed).shuffles(99).resamples(60);
        let found = how.of(&a, &b)?;
        whole.push(at(&found.p, &[]));
        student.push(at(found.p_student.as_ref().unwrap(), &[]));
        let bounds = found.r.interval.as_ref().unwrap();
        assert_eq!(bounds.method, "95 % bootstrap interval over prompts");
        covered += i32::from(bounds.low[IxDyn(&[])] <= 0.0 && bounds.high[IxDyn(&[])] >= 0.0);
        // Within a prompt its level is the same for all tokens: nothing is left of it.
        if seed < 40 {
            let how = how.shuffle(Shuffle::Within).resamples(1);
            let off = |grid: &Grid| -> Result<Grid> {
                let mut off = grid.clone();
                let mean = grid.mean(Axis::Pos)?.values;
                off.values
                    .indexed_iter_mut()
                    .for_each(|(at, value)| *value -= mean[[at[0]].as_slice()]);
                Ok(off)
            };
            within.push(at(&how.of(&off(&a)?, &off(&b)?)?.p, &[]));
        }
    }
    assert!(beyond_uniform(whole) < 1.0);
    assert!(beyond_uniform(within) < 1.0);
    assert!(beyond_uniform(student.clone()) > 2.0);
    let wrong = student.iter().filter(|p| **p < 0.05).count();
    assert!(wrong > 20, "Student finds {wrong} of {runs} that are not there");
    // Percentile intervals of twelve prompts cover a little less than they say.
    assert!(covered > 102, "{covered} of {runs} intervals hold the truth");
    Ok(())
}

#[test]
fn the_largest_of_many_cells_is_judged_by_the_largest_of_many_shuffles() -> Result<()> {
    let mut rng = Rng::new(5);
    let (mut any, mut plain) = (0, 0);
    let runs = 100;
    for seed in 0..runs {
        // Eight cells, each like the one before it.
        let mut cells = drawn(&mut rng, &[(Axis::Layer, 8), (Axis::Batch, 20)]);
        for layer in 1..8 {
            for prompt in 0..20 {
                let before = at(&cells, &[layer - 1, prompt]);
                cells.values[IxDyn(&[layer, prompt])] += 0.6 * before;
            }
        }
        let other = drawn(&mut rng, &[(Axis::Batch, 20)]);
        let found = Correlate::new(Coefficient::Spearman, seed).shuffles(99).resamples(1);
        let found = found.of(&cells, &other)?;
        for (index, p) in found.p.present() {
            assert!(at(&found.p_max_t, &index) >= p);
        }
        let below = |grid: &Grid| i32::from(grid.present().any(|(_, p)| p <= 0.05));
        any += below(&found.p_max_t);
        plain += below(&found.p);
    }
    // 5 % of 100 are 5, with a standard deviation of 2.2.
    assert!(any <= 12, "{any} of {runs} find something that is not there");
    assert!(plain > 12, "without the adjustment it would be many more: {plain}");
    Ok(())
}

#[test]
fn a_planted_cell_is_found_and_no_other() -> Result<()> {
    let mut rng = Rng::new(6);
    let cells =
        drawn(&mut rng, &[(Axis::Batch, 16), (Axis::Layer, 4), (Axis::Head, 4), (Axis::Pos, 5)]);
    let mut label = drawn(&mut rng, &[(Axis::Batch, 16), (Axis::Pos, 5)]);
    for (index, value) in label.values.indexed_iter_mut() {
        *value -= 1.2 * at(&cells, &[index[0], 2, 1, index[1]]);
    }
    let found = correlate(&cells, &label, Coefficient::Spearman, 9)?;
    assert_eq!(
        found.significant(0.05).present().map(|(index, _)| index).collect::<Vec<_>>(),
        [[2, 1]]
    );
    assert!(at(&found.p_bh, &[2, 1]) < 0.05 && at(&found.p_by, &[2, 1]) < 0.1);
    let (r, bounds) = (at(&found.r, &[2, 1]), found.r.interval.as_ref().unwrap());
    assert!(r < -0.6 && bounds.high[IxDyn(&[2, 1])] < -0.5 && bounds.low[IxDyn(&[2, 1])] < r);
    let chance = found.shuffled.interval.as_ref().unwrap();
    assert!(chance.low.iter().all(|low| *low > -0.4) && chance.high.iter().all(|high| *high < 0.4));
    assert!(format!("{found:?}").contains("1 with p < 0.05 (max-T); strongest -0."), "{found:?}");
    assert!(format!("{found:?}").contains("at L2 H1"), "{found:?}");
    let again = correlate(&cells, &label, Coefficient::Spearman, 9)?;
    assert!(again == found, "a seed gives the same numbers");
    let other: Correlations = correlate(&cells, &label, Coefficient::Spearman, 10)?;
    assert!(other.r.interval != found.r.interval && other.r.values == found.r.values);
    Ok(())
}

#[test]
fn a_cell_that_never_changes_is_missing_and_counts_for_no_test() -> Result<()> {
    let mut rng = Rng::new(7);
    let mut cells = drawn(&mut rng, &[(Axis::Layer, 3), (Axis::Batch, 9)]);
    (0..9).for_each(|prompt| cells.values[IxDyn(&[1, prompt])] = 0.7);
    let label = drawn(&mut rng, &[(Axis::Batch, 9)]);
    let found = quick(Coefficient::Pearson).of(&cells, &label)?;
    assert!(!found.r.exists(&[1]) && !found.p_bh.exists(&[1]) && found.r.exists(&[2]));
    assert!(!found.significant(2.0).exists(&[1]) && found.significant(2.0).exists(&[2]));
    let rest = cells.select_many(Axis::Layer, &[0, 2])?;
    let rest = quick(Coefficient::Pearson).of(&rest, &label)?;
    near(at(&rest.p_bh, &[1]), at(&found.p_bh, &[2]), 1e-12);
    near(at(&rest.p_max_t, &[1]), at(&found.p_max_t, &[2]), 1e-12);
    Ok(())
}

#[test]
fn what_cannot_be_correlated_says_which_axis_or_prompt_it_lacks() -> Result<()> {
    let mut rng = Rng::new(8);
    let tokens = drawn(&mut rng, &[(Axis::Batch, 3), (Axis::Pos, 4)]);
    let label = drawn(&mut rng, &[(Axis::Batch, 3)]);
    let weights = drawn(&mut rng, &[(Axis::Layer, 3), (Axis::Head, 4)]);
    let pearson = || quick(Coefficient::Pearson);
    says(pearson().of(&tokens, &label), &["second grid", "[Batch 3]", "Pos", "average"]);
    says(pearson().of(&weights, &weights), &["[Layer 3, Head 4]", ".over(&[axis])"]);
    assert_eq!(pearson().over(&[Axis::Layer, Axis::Head]).of(&weights, &weights)?.n, 12);
    let short = tokens.clone().missing_where(|x| x == at(&tokens, &[1, 2]));
    says(pearson().of(&short, &tokens), &["prompt 1 alone has 3 samples", "Shuffle::Within"]);
    assert_eq!(pearson().shuffle(Shuffle::Within).of(&short, &tokens)?.n, 11);
    says(pearson().shuffle(Shuffle::Within).of(&label, &label), &["no two samples share a prompt"]);
    says(pearson().given(&label).of(&label, &label), &["3 samples", "expected 4"]);
    says(quick(Coefficient::Distance).given(&tokens).of(&tokens, &tokens), &["hold others fixed"]);
    let many = drawn(&mut rng, &[(Axis::Batch, 12_000)]);
    says(
        quick(Coefficient::Distance).of(&many, &many),
        &["1 cells over 12000 samples", "fewer cells or samples"],
    );
    says(pearson().shuffles(0).of(&label, &label), &["0 draws"]);
    let infinite = tokens.map(|x| if x > 0.0 { f64::INFINITY } else { x });
    says(pearson().of(&tokens, &infinite), &["the second grid is inf", "finite"]);
    Ok(())
}

#[test]
fn samples_of_other_prompts_or_another_order_are_not_paired() -> Result<()> {
    let mut rng = Rng::new(9);
    let tokens = drawn(&mut rng, &[(Axis::Batch, 5), (Axis::Pos, 4)]);
    let mixed = tokens.select_many(Axis::Batch, &[0, 1, 3, 2, 4])?;
    let how = quick(Coefficient::Pearson);
    let wrong =
        ["entry 2 of Batch is \"2\" in the first grid, \"3\" in", ".relabel(Axis::Batch, ..)"];
    says(how.of(&tokens, &mixed), &wrong);
    says(how.clone().given(&mixed).of(&tokens, &tokens), &[wrong[0], "what is given"]);
    let few = tokens.select_many(Axis::Pos, &[0, 1, 2])?;
    says(how.of(&tokens, &few), &["Pos has 4 entries in the first grid, 3 in the second grid"]);
    let named = mixed.relabel(Axis::Batch, tokens.labels(Axis::Batch)?)?;
    assert_eq!(how.of(&tokens, &named)?.n, 20);
    // Cells may be called what they like.
    let cells = drawn(&mut rng, &[(Axis::Head, 2), (Axis::Batch, 5), (Axis::Pos, 4)]);
    let renamed = cells.clone().relabel(Axis::Head, &["a", "b"])?;
    assert_eq!(how.of(&cells, &renamed)?.n, 20);
    Ok(())
}
