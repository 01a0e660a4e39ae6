//! Linear probes: their closed forms, scikit-learn's numbers, and what holds of splits and controls.

use thalweg::prelude::*;
use thalweg::rng::Rng;
use thalweg::{Probe, ProbeReport};

use super::{answers, cosine, prompts, sentiment, tiny_world, words};
use crate::support::{distance, model, says};

const METHODS: [ProbeMethod; 4] = [
    ProbeMethod::MeanDifference,
    ProbeMethod::Lda { shrinkage: 0.1 },
    ProbeMethod::Ridge { alpha: 1.0 },
    ProbeMethod::Logistic { l2: 1.0 },
];

/// Normal numbers in f64.
fn normal(shape: &[i64], seed: u64) -> Tensor {
    Rng::new(seed).normal_tensor(shape).to_kind(Kind::Double)
}

/// `n` points of two classes, `apart` along a known direction: points, labels, direction.
fn planted(n: i64, d: i64, apart: f64, seed: u64) -> (Tensor, Vec<&'static str>, Tensor) {
    let direction = normal(&[d], seed + 1);
    let direction = &direction / direction.norm();
    let labels: Vec<&str> = (0..n).map(|i| if i % 2 == 0 { "a" } else { "b" }).collect();
    let sides: Vec<f64> = (0..n).map(|i| if i % 2 == 0 { -0.5 } else { 0.5 }).collect();
    let sides = Tensor::from_slice(&sides).unsqueeze(1) * apart;
    (normal(&[n, d], seed) + sides * &direction, labels, direction)
}

fn numbers(value: &serde_json::Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn matrix(value: &serde_json::Value) -> Tensor {
    let rows: Vec<Vec<f64>> = value.as_array().unwrap().iter().map(numbers).collect();
    Tensor::from_slice2(&rows)
}

#[test]
fn probes_are_those_of_scikit_learn() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/golden/analysis/probes.json");
    let file: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for case in file["cases"].as_array().unwrap() {
        let x = matrix(&case["x"]);
        let labels: Vec<String> = numbers(&case["y"]).iter().map(f64::to_string).collect();
        let number = |name: &str| case[name].as_f64().unwrap();
        let logistic = ProbeMethod::Logistic { l2: number("l2") };
        let ridge = ProbeMethod::Ridge { alpha: number("alpha") };
        let lda = ProbeMethod::Lda { shrinkage: number("shrinkage") };
        for (name, probe, tolerance) in [
            ("logistic", Probe::fit(&x, &labels, logistic), 1e-7),
            ("logistic standardised", Probe::fit_standardised(&x, &labels, logistic), 1e-7),
            ("ridge", Probe::fit(&x, &labels, ridge), 1e-9),
            ("lda", Probe::fit(&x, &labels, lda), 1e-9),
        ] {
            let (probe, golden) = (probe.unwrap(), &case[name]);
            let bias = Tensor::from_slice(&numbers(&golden["bias"]));
            // Of several classes LDA's scores are known up to what they share.
            let free = |x: &Tensor| match name == "lda" && x.size()[0] > 1 {
                true => x - x.mean_dim(0, true, Kind::Double),
                false => x.shallow_clone(),
            };
            let apart = distance(&free(&probe.weights), &free(&matrix(&golden["weights"])));
            assert!(apart < tolerance, "{} {name}: weights {apart:e}", case["name"]);
            let apart = distance(&free(&probe.bias), &free(&bias));
            assert!(apart < tolerance, "{} {name}: bias {apart:e}", case["name"]);
            let predicted: Vec<String> =
                numbers(&golden["predicted"]).iter().map(f64::to_string).collect();
            assert_eq!(probe.predict(&x).unwrap(), predicted, "{} {name}", case["name"]);
        }
        let nearest: Vec<String> =
            numbers(&case["nearest centroid"]).iter().map(f64::to_string).collect();
        let means = Probe::fit(&x, &labels, ProbeMethod::MeanDifference).unwrap();
        assert_eq!(means.predict(&x).unwrap(), nearest, "{}", case["name"]);
    }
}

#[test]
fn classes_far_apart_are_told_apart_along_the_planted_direction() {
    let (x, labels, direction) = planted(4000, 8, 12.0, 3);
    for method in METHODS {
        let probe = Probe::fit(&x, &labels, method).unwrap();
        assert_eq!(probe.accuracy(&x, &labels).unwrap(), 1.0, "{method}");
        let found = cosine(&probe.direction("a", "b").unwrap(), &direction);
        assert!(found > 0.99, "{method}: cosine {found}");
        let back = cosine(&probe.direction("b", "a").unwrap(), &direction);
        assert!(back < -0.99, "{method}: cosine {back}");
    }
}

#[test]
fn noise_is_told_apart_no_better_than_by_chance() {
    let (x, labels, _) = planted(400, 8, 0.0, 5);
    let (other, _, _) = planted(2000, 8, 0.0, 6);
    let others: Vec<&str> = (0..2000).map(|i| if i % 2 == 0 { "a" } else { "b" }).collect();
    for method in METHODS {
        let share = Probe::fit(&x, &labels, method).unwrap().accuracy(&other, &others).unwrap();
        // Three standard deviations of a fair coin tossed 2000 times.
        assert!((share - 0.5).abs() < 3.0 * (0.25f64 / 2000.0).sqrt(), "{method}: {share}");
    }
}

#[test]
fn the_mean_difference_and_ridge_are_their_closed_forms() {
    for (n, d) in [(50, 6), (12, 20)] {
        let (x, labels, _) = planted(n, d, 2.0, 9);
        let of = |class: i64| {
            let rows: Vec<i64> = (0..n).filter(|i| i % 2 == class).collect();
            x.index_select(0, &Tensor::from_slice(&rows)).mean_dim(0, false, Kind::Double)
        };
        let (a, b) = (of(0), of(1));
        let probe = Probe::fit(&x, &labels, ProbeMethod::MeanDifference).unwrap();
        let direction = probe.direction("a", "b").unwrap();
        assert!(distance(&direction, &(&b - &a)) < 1e-12);
        let middle = probe.scores(&((&a + &b) / 2.0)).unwrap();
        assert!((middle.double_value(&[0]) - middle.double_value(&[1])).abs() < 1e-12);

        let probe = Probe::fit(&x, &labels, ProbeMethod::Ridge { alpha: 0.5 }).unwrap();
        let targets: Vec<f64> = (0..n).map(|i| if i % 2 == 0 { -1.0 } else { 1.0 }).collect();
        let targets = Tensor::from_slice(&targets);
        // The normal equations of the penalised sum of squares, intercept and all.
        let residual = x.matmul(&probe.weights.get(0)) + &probe.bias - &targets;
        let slope = x.tr().matmul(&residual) + probe.weights.get(0) * 0.5;
        assert!(slope.abs().max().double_value(&[]) < 1e-10);
        assert!(residual.sum(Kind::Double).double_value(&[]).abs() < 1e-10);
    }
}

#[test]
fn the_logistic_fit_has_no_slope_left() {
    for (n, d, l2) in [(60, 5, 0.3), (16, 40, 0.01), (60, 5, 0.0)] {
        let (x, labels, _) = planted(n, d, 1.0, 31);
        let probe = Probe::fit(&x, &labels, ProbeMethod::Logistic { l2 }).unwrap();
        let p = probe.scores(&x).unwrap().softmax(-1, Kind::Double).select(1, 1);
        let targets: Vec<f64> = (0..n).map(|i| (i % 2) as f64).collect();
        let off = p - Tensor::from_slice(&targets);
        let slope = x.tr().matmul(&off) + probe.weights.get(0) * l2;
        assert!(slope.abs().max().double_value(&[]) < 1e-7, "{n} {d} {l2}");
        assert!(off.sum(Kind::Double).double_value(&[]).abs() < 1e-7);
    }
}

#[test]
fn a_rotation_of_the_data_rotates_the_probe_and_changes_no_answer() {
    let (x, labels, _) = planted(60, 7, 2.0, 13);
    let (rotation, _) = Tensor::linalg_qr(&normal(&[7, 7], 14), "reduced");
    let turned = x.matmul(&rotation);
    for method in METHODS {
        let probe = Probe::fit(&x, &labels, method).unwrap();
        let other = Probe::fit(&turned, &labels, method).unwrap();
        assert!(distance(&other.weights, &probe.weights.matmul(&rotation)) < 1e-7, "{method}");
        assert!(distance(&other.scores(&turned).unwrap(), &probe.scores(&x).unwrap()) < 1e-7);
    }
}

#[test]
fn standardising_makes_a_probe_blind_to_the_scale_of_dimensions() {
    let (x, labels, _) = planted(60, 4, 2.0, 17);
    let scales = Tensor::from_slice(&[1.0, 100.0, 0.01, 3.0]);
    for method in METHODS {
        let probe = Probe::fit_standardised(&x, &labels, method).unwrap();
        let other = Probe::fit_standardised(&(&x * &scales), &labels, method).unwrap();
        assert!(distance(&(&other.weights * &scales), &probe.weights) < 1e-7, "{method}");
    }
}

/// `n` prompts of a random model, five tokens drawn from the seed.
fn random_prompts(n: usize, seed: u64) -> Tokens {
    let mut rng = Rng::new(seed);
    let rows: Vec<Vec<i64>> =
        (0..n).map(|_| (0..5).map(|_| rng.below(23) as i64).collect()).collect();
    Tokens::from_ids(&rows).unwrap()
}

#[test]
fn labels_at_random_leave_accuracy_and_selectivity_at_chance() {
    let n = 400;
    let tokens = random_prompts(n, 1);
    let mut rng = Rng::new(2);
    let labels: Vec<&str> = (0..n).map(|_| if rng.chance(0.5) { "x" } else { "y" }).collect();
    let groups: Vec<String> = (0..n).map(|i| i.to_string()).collect();
    let report = Probing::new(&tokens, &labels, &groups)
        .unwrap()
        .method(ProbeMethod::MeanDifference)
        .draws(20)
        .run(&model())
        .unwrap();
    let (bounds, chance) = (report.accuracy.interval.clone().unwrap(), 0.5);
    for layer in 0..3 {
        for series in 0..3 {
            let at = [layer, series];
            let share = report.accuracy.values[at.as_slice()];
            assert!((share - chance).abs() < 4.0 * (0.25 / n as f64).sqrt(), "{at:?}: {share}");
            assert!(bounds.low[at.as_slice()] <= share && share <= bounds.high[at.as_slice()]);
        }
        let selectivity = report.selectivity.values[[layer].as_slice()];
        assert!(selectivity.abs() < 0.1, "layer {layer}: {selectivity}");
    }
    assert_eq!((report.width, report.groups, report.control_units), (12, n, n));
    assert_eq!(report.accuracy.labels(Axis::Layer).unwrap(), ["embed", "L0", "L1"]);
    assert_eq!(report.probes.len(), 3);
}

#[test]
fn a_group_is_never_split_so_that_a_prompt_learnt_by_heart_does_not_count() {
    // Forty prompts, ten times each, every one with a label of its own drawn at random: a split by
    // example has seen each prompt, a split by prompt none.
    let (kinds, tokens) = (40, random_prompts(40, 3));
    let rows: Vec<usize> = (0..400).map(|i| i % kinds).collect();
    let tokens = tokens.rows(&rows).unwrap();
    let mut rng = Rng::new(4);
    let own: Vec<&str> = (0..kinds).map(|_| if rng.chance(0.5) { "x" } else { "y" }).collect();
    let labels: Vec<&str> = rows.iter().map(|kind| own[*kind]).collect();
    let by_prompt: Vec<String> = rows.iter().map(usize::to_string).collect();
    let by_example: Vec<String> = (0..400).map(|i| i.to_string()).collect();
    let best = |groups: &[String]| {
        let probing = Probing::new(&tokens, &labels, groups).unwrap().draws(1);
        let probing = probing.method(ProbeMethod::Logistic { l2: 1e-3 });
        let report = probing.run(&model()).unwrap();
        report.accuracy.select(Axis::Series, 0).unwrap().select(Axis::Layer, -1).unwrap()
    };
    let (split_by_prompt, split_by_example) = (best(&by_prompt), best(&by_example));
    let value = |grid: &Grid| *grid.values.iter().next().unwrap();
    assert!(value(&split_by_example) > value(&split_by_prompt) + 0.1, "{split_by_example:?}");
    assert!((value(&split_by_prompt) - 0.5).abs() < 0.25, "{split_by_prompt:?}");
    // The interval is over groups: forty of them say less than four hundred.
    let wide = |grid: &Grid| {
        let interval = grid.interval.as_ref().unwrap();
        interval.high.iter().next().unwrap() - interval.low.iter().next().unwrap()
    };
    assert!(wide(&split_by_prompt) > 1.5 * wide(&split_by_example));
}

#[test]
fn fewer_prompts_than_dimensions_are_probed_as_by_hand() {
    let tokens = random_prompts(10, 15);
    let labels: Vec<&str> = (0..10).map(|i| ["x", "y"][i % 2]).collect();
    let groups: Vec<String> = (0..10).map(|i| i.to_string()).collect();
    let run = model().run(&tokens, &Plan::new().cache(Point::ResidPost)).unwrap();
    let x = run.cache.get(Point::ResidPost.at(1)).unwrap().select(1, -1);
    for method in METHODS {
        let probing = Probing::new(&tokens, &labels, &groups).unwrap().folds(10).draws(1);
        let report = probing.method(method).run(&model()).unwrap();
        let hits = (0..10).filter(|out| {
            let rows: Vec<i64> = (0..10).filter(|row| row != out).collect();
            let known: Vec<&str> = rows.iter().map(|row| labels[*row as usize]).collect();
            let probe = Probe::fit(&x.index_select(0, &Tensor::from_slice(&rows)), &known, method);
            let held = x.narrow(0, *out, 1);
            probe.unwrap().predict(&held).unwrap()[0] == labels[*out as usize]
        });
        let share = hits.count() as f64 / 10.0;
        assert!((report.accuracy.get(&["L1", "probe"]).unwrap() - share).abs() < 1e-12, "{method}");
    }
}

#[test]
fn a_penalty_is_chosen_on_the_groups_fitted_on() {
    let tokens = random_prompts(60, 12);
    // The class is which half of the vocabulary the last token is of.
    let class = |row: &Vec<i64>| if row[4] > 11 { "large" } else { "small" };
    let labels: Vec<&str> = tokens.ids().iter().map(class).collect();
    let groups: Vec<String> = (0..60).map(|i| i.to_string()).collect();
    let probing = Probing::new(&tokens, &labels, &groups).unwrap().draws(1);
    let [weak, strong] = [1.0, 1e6].map(|alpha| ProbeMethod::Ridge { alpha });
    let run = |probing: Probing| probing.run(&model()).unwrap();
    let (alone, huge) = (run(probing.clone().method(weak)), run(probing.clone().method(strong)));
    let chosen = run(probing.clone().methods(&[strong, weak]));
    let share = |report: &ProbeReport| report.accuracy.get(&["embed", "probe"]).unwrap();
    // A huge penalty leaves the most frequent class.
    assert!(share(&alone) > share(&huge) + 0.1, "{alone:?} {huge:?}");
    assert_eq!(chosen.probes[0].method, weak);
    assert_eq!(share(&chosen), share(&alone));
    assert_eq!(run(probing.clone().methods(&[weak])).accuracy.values, alone.accuracy.values);
    says(probing.methods(&[]).run(&model()), &["no methods"]);
}

#[test]
fn control_labels_are_of_every_class_however_rare() {
    // One prompt in twelve is of class "y": read evenly at four units, it would be of none.
    let tokens = random_prompts(12, 6);
    let labels: Vec<&str> = (0..12).map(|i| if i == 0 { "y" } else { "x" }).collect();
    let groups: Vec<String> = (0..12).map(|i| (i / 3).to_string()).collect();
    let probing = Probing::new(&tokens, &labels, &groups).unwrap().folds(4).draws(8);
    let report = probing.method(ProbeMethod::MeanDifference).run(&model()).unwrap();
    // Of labels that are all one class nothing could be wrong.
    let share = report.accuracy.get(&["L0", "control labels"]).unwrap();
    assert!(share < 1.0, "{report:?}");
    let three: Vec<&str> = (0..12).map(|i| ["x", "y", "z"][i % 3]).collect();
    let pair: Vec<String> = (0..12).map(|i| (i % 2).to_string()).collect();
    let probing = Probing::new(&tokens, &three, &pair).unwrap().folds(2);
    says(probing.run(&model()), &["2 units", "3 classes"]);
}

#[test]
fn the_same_seed_gives_the_same_report_in_batches_of_any_kind() {
    let tokens = random_prompts(70, 8); // two batches
    let labels: Vec<&str> = (0..70).map(|i| ["x", "y", "z"][i % 3]).collect();
    let groups: Vec<String> = (0..70).map(|i| (i / 2).to_string()).collect();
    let probing = Probing::new(&tokens, &labels, &groups).unwrap().draws(2).standardised();
    let probing = probing.method(ProbeMethod::Ridge { alpha: 1.0 }).at(2).point(Point::Z);
    let [a, b] = [1, 1].map(|seed| probing.clone().seed(seed).run(&model()).unwrap());
    assert_eq!(a.accuracy.values, b.accuracy.values);
    assert_eq!(a.classes.len(), 3);
    // The probe of the report is the one that its vectors give.
    let run = model().run(&tokens, &Plan::new().cache(Point::Z)).unwrap();
    let z = run.cache.get(Point::Z.at(1)).unwrap().select(1, 2).flatten(1, -1);
    let own = Probe::fit_standardised(&z, &labels, ProbeMethod::Ridge { alpha: 1.0 }).unwrap();
    assert!(distance(&a.probe("L1").unwrap().weights, &own.weights) < 1e-9);
}

#[test]
fn what_cannot_be_fitted_is_said() {
    let x = normal(&[6, 9], 21);
    let two = ["a", "a", "a", "b", "b", "b"];
    says(Probe::fit(&x, &["a"; 6], METHODS[0]), &["all of class \"a\"", "two classes"]);
    says(Probe::fit(&x, &two[..4], METHODS[0]), &["4 labels", "[6, 9]"]);
    says(Probe::fit(&x, &two, ProbeMethod::Lda { shrinkage: 0.0 }), &["singular", "shrinkage"]);
    says(Probe::fit(&x, &two, ProbeMethod::Lda { shrinkage: 2.0 }), &["0..=1"]);
    says(Probe::fit(&x, &two, ProbeMethod::Ridge { alpha: 0.0 }), &["alpha 0", "positive"]);
    says(Probe::fit(&x, &two, ProbeMethod::Logistic { l2: 0.0 }), &["l2 above 0"]);
    says(Probe::fit(&(&x * f64::NAN), &two, METHODS[0]), &["non-finite"]);
    let probe = Probe::fit(&x, &two, METHODS[0]).unwrap();
    says(probe.direction("a", "c"), &["no class \"c\"", "a, b"]);
    says(probe.scores(&normal(&[2, 3], 1)), &["[2, 3]", "[.., 9]"]);
    let tokens = random_prompts(6, 5);
    says(Probing::new(&tokens, &two, &["g"; 5]), &["5 groups", "6 prompts"]);
    let probing = Probing::new(&tokens, &two, &["g", "g", "g", "h", "h", "h"]).unwrap();
    says(probing.run(&model()), &["5 folds of 2 groups"]);
}

#[test]
fn sentiment_is_read_by_a_probe_and_control_labels_are_not() {
    let (model, set) = (tiny_world(), sentiment());
    let tokens = set.aligned(&model).unwrap().clean;
    let (labels, adjectives) = (answers(&set), words(&set, 3));
    let probing = Probing::new(&tokens, &labels, &adjectives).unwrap().folds(6).draws(5);
    let report = probing.method(ProbeMethod::Logistic { l2: 1.0 }).run(&model).unwrap();
    let share = |layer: &str, series: &str| report.accuracy.get(&[layer, series]).unwrap();
    for layer in ["L1", "L2", "L3"] {
        assert!(share(layer, "probe") > 0.95, "{report:?}");
        assert!(share(layer, "control labels") < 0.65, "{report:?}");
        assert!(share(layer, "shuffled weights") < 0.8, "{report:?}");
        assert!(report.selectivity.get(&[layer]).unwrap() > 0.35, "{report:?}");
    }
    // The last token is "I" in all of them: its embedding says nothing.
    assert!(share("embed", "probe") <= 0.5, "{report:?}");
    assert_eq!((report.groups, report.width), (12, 128));
}

#[test]
fn the_subjects_number_is_read_by_a_probe_and_control_labels_are_not() {
    let model = tiny_world();
    let set = prompts("agree").labelled("incongruent long").unwrap();
    let tokens = set.aligned(&model).unwrap().clean;
    // A noun's singular and plural are one group: "boxes" and "box".
    let lemma = |noun: &String| noun.trim_end_matches('s').trim_end_matches("xe").to_owned();
    let lemma = |noun: &String| lemma(noun).trim_end_matches('x').to_owned();
    let nouns: Vec<String> = words(&set, 1).iter().map(lemma).collect();
    let report = Probing::new(&tokens, &answers(&set), &nouns)
        .unwrap()
        .method(ProbeMethod::Ridge { alpha: 10.0 })
        .run(&model)
        .unwrap();
    let share = |layer: &str, series: &str| report.accuracy.get(&[layer, series]).unwrap();
    assert!(share("L3", "probe") > 0.95, "{report:?}\n{:?}", report.accuracy.values);
    assert!(share("L3", "control labels") < 0.65, "{:?}", report.accuracy.values);
    assert!(
        share("L3", "probe") > share("L3", "shuffled weights") + 0.2,
        "{:?}",
        report.accuracy.values
    );
}

#[test]
fn control_labels_of_things_that_recur_can_be_learnt_by_heart_and_the_control_says_so() {
    let (model, set) = (tiny_world(), sentiment());
    let tokens = set.aligned(&model).unwrap().clean;
    // Split by the thing spoken of: every adjective is among those fitted on.
    let probing = Probing::new(&tokens, &answers(&set), &words(&set, 1)).unwrap().folds(3).draws(6);
    let probing = probing.method(ProbeMethod::Ridge { alpha: 1.0 });
    let by_thing = probing.clone().run(&model).unwrap();
    let by_adjective = probing.control_by(&words(&set, 3)).unwrap().run(&model).unwrap();
    let control = |report: &ProbeReport| report.accuracy.get(&["L0", "control labels"]).unwrap();
    assert!(control(&by_thing) < 0.65, "{by_thing:?}");
    assert!(control(&by_adjective) > 0.9, "{by_adjective:?}");
    assert_eq!((by_thing.control_units, by_adjective.control_units), (6, 12));
    let own = |report: &ProbeReport| report.accuracy.select(Axis::Series, 0).unwrap();
    assert_eq!(own(&by_thing).values, own(&by_adjective).values);
    assert_eq!(own(&by_thing).interval, own(&by_adjective).interval);
    let figure = lines(&by_adjective.accuracy).unwrap().bundle().unwrap();
    assert!(figure.text.contains("[Layer 5, Series 4]"), "{}", figure.text);
}
