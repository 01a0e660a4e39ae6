//! Steering: what is added, where, and what a dose-response says beside its controls.

use thalweg::prelude::*;
use thalweg::rng::Rng;
use thalweg::{DoseResponse, Sampling, SteeringVector, steering_vector};

use super::{real, sentiment, tiny_world};
use crate::support::{distance, model, same, says};

fn positive() -> Tokens {
    Tokens::from_ids(&[vec![3, 1, 4, 1], vec![5, 9, 2], vec![6, 5, 3, 5, 8]]).unwrap()
}

fn negative() -> Tokens {
    Tokens::from_ids(&[vec![2, 7, 1, 8, 2], vec![8, 1, 8]]).unwrap()
}

fn vector(model: &Model) -> SteeringVector {
    steering_vector(model, &positive(), &negative(), Point::ResidPost.at(0), -1).unwrap()
}

fn cached(model: &Model, tokens: &Tokens, plan: Plan, site: Site) -> Tensor {
    model.run(tokens, &plan.cache(site)).unwrap().cache.get(site).unwrap()
}

#[test]
fn the_vector_is_the_difference_of_the_means_at_the_position() {
    let model = model();
    let site = Point::ResidPost.at(0);
    let last = |tokens: &Tokens| {
        let x = cached(&model, tokens, Plan::new(), site); // padded on the left: the last column
        x.select(1, -1).mean_dim(0, false, Kind::Double)
    };
    let found = vector(&model);
    assert!(distance(&found.direction, &(last(&positive()) - last(&negative()))) < 1e-12);
    let first = steering_vector(&model, &positive(), &negative(), site, 0).unwrap();
    assert!(distance(&first.direction, &found.direction) > 1e-3);
    assert!(found.relative > 0.0 && format!("{found:?}").contains("3 prompts less 2"));
}

#[test]
fn what_is_added_is_strength_times_the_vector_there_and_nothing_before() {
    let (model, tokens) = (model(), positive());
    let (site, found) = (Point::ResidPost.at(0), vector(&model));
    let plain = cached(&model, &tokens, Plan::new(), site);
    let steered =
        |edit: Intervention| cached(&model, &tokens, Plan::new().intervene(site, edit), site);
    let absolute = steered(found.intervention(0.7).absolute());
    let expected = real(&(&found.direction * 0.7).expand_as(&plain), &tokens);
    assert!(distance(&(&absolute - &plain), &expected) < 1e-12);
    // In units of each row's mean norm, its first token and padding left out.
    let relative = steered(found.intervention(0.7).pos(-1)) - &plain;
    let unit = &found.direction / found.direction.norm();
    for (row, len) in tokens.lens().into_iter().enumerate() {
        let own =
            plain.get(row as i64).narrow(0, (tokens.width() - len + 1) as i64, len as i64 - 1);
        let norm = own.norm_scalaropt_dim(2, [-1i64].as_slice(), false).mean(Kind::Double);
        let added = relative.get(row as i64);
        assert!(distance(&added.select(0, -1), &(&unit * norm * 0.7)) < 1e-12);
        let before = added.narrow(0, 0, tokens.width() as i64 - 1);
        assert_eq!(before.abs().max().double_value(&[]), 0.0);
    }
    let below = Point::ResidPre.at(0);
    let plan = Plan::new().intervene(site, found.intervention(3.0).absolute());
    assert!(same(
        &cached(&model, &tokens, plan, below),
        &cached(&model, &tokens, Plan::new(), below)
    ));
}

#[test]
fn no_strength_changes_nothing_and_a_frozen_model_answers_in_proportion() {
    let (model, found) = (model(), vector(&model()));
    let tokens = Tokens::from_ids(&[vec![3, 1, 4, 1, 5]]).unwrap();
    let site = Point::ResidPost.at(0);
    let plain = model.run(&tokens, &Plan::new().cache(Sites::everything())).unwrap();
    let zero = Plan::new().intervene(site, found.intervention(0.0).absolute());
    let logits = model.logits(&tokens).unwrap();
    assert!(same(&model.run(&tokens, &zero).unwrap().logits, &logits));
    let change = |strength: f64| {
        let mut plan = Plan::new().intervene(site, found.intervention(strength).absolute());
        for what in [Freeze::Norm, Freeze::Pattern, Freeze::Gate] {
            plan = plan.freeze(what, &plain.cache);
        }
        model.run(&tokens, &plan).unwrap().logits - &plain.logits
    };
    let once = change(1.0);
    assert!(once.abs().max().double_value(&[]) > 1e-3);
    for strength in [-2.0, 0.5, 3.0] {
        assert!(distance(&change(strength), &(&once * strength)) < 1e-10, "{strength}");
    }
}

#[test]
fn steered_generation_with_a_cache_of_keys_is_that_without() {
    let (model, tokens) = (model(), positive());
    let add = vector(&model).intervention(0.8).absolute();
    let plan = Plan::new().intervene(Point::ResidPost.at(0), add);
    let quick = model.generate(&tokens, Sampling::new(6), &plan).unwrap();
    let plain = model.generate(&tokens, Sampling::new(6), &Plan::new()).unwrap();
    let whole = model.generate(&tokens, Sampling::new(6).recompute(), &plan).unwrap();
    assert_eq!(quick.tokens.ids(), whole.tokens.ids());
    assert_ne!(quick.tokens.ids(), plain.tokens.ids());
}

#[test]
fn controls_are_as_long_as_the_vector_and_follow_from_their_seed() {
    let found = vector(&model());
    let length = found.direction.norm().double_value(&[]);
    for drawn in [found.random(30, 4), found.shuffled(30, 4).unwrap()] {
        let lengths = drawn.norm_scalaropt_dim(2, [-1i64].as_slice(), false);
        assert!((lengths - length).abs().max().double_value(&[]) < 1e-9 * length);
    }
    assert!(same(&found.random(3, 4), &found.random(3, 4)));
    assert!(!same(&found.random(3, 4), &found.random(3, 5)));
    // A shuffling is a difference of means of the same five activations.
    let sites = [Point::ResidPost.at(0)];
    let own = |tokens: &Tokens| cached(&model(), tokens, Plan::new(), sites[0]).select(1, -1);
    let all = Tensor::cat(&[own(&positive()), own(&negative())], 0);
    let shuffled = found.shuffled(40, 1).unwrap();
    let picks = |a: i64, b: i64| {
        let other: Vec<i64> = (0..5).filter(|i| *i != a && *i != b).collect();
        let mean = |rows: &[i64]| {
            all.index_select(0, &Tensor::from_slice(rows)).mean_dim(0, false, Kind::Double)
        };
        mean(&other) - mean(&[a, b])
    };
    let possible: Vec<Tensor> =
        (0..5).flat_map(|a| (a + 1..5).map(move |b| (a, b))).map(|(a, b)| picks(a, b)).collect();
    for i in 0..40 {
        let one = shuffled.get(i);
        let hit = possible.iter().any(|own| (super::cosine(&one, own) - 1.0).abs() < 1e-9);
        assert!(hit, "draw {i} is no difference of means");
    }
}

#[test]
fn a_dose_response_is_a_loop_of_runs_with_its_controls_beside_it() {
    let (model, tokens) = (model(), positive());
    let (site, found) = (Point::ResidPost.at(0), vector(&model));
    let metric = Metric::logit_diff(4, 11);
    let strengths = [-1.0, 0.0, 0.5];
    let response = DoseResponse::new(&model, &tokens, &found).strengths(&strengths).pos(1..);
    let grid = response.clone().draws(3).seed(9).of(&metric).unwrap();
    let value = |direction: &Tensor, strength: f64| {
        let add = Intervention::add(direction, strength).pos(1..);
        let run = model.run(&tokens, &Plan::new().intervene(site, add)).unwrap();
        metric.of(&run.logits, &tokens).unwrap().mean(Kind::Double).double_value(&[])
    };
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} against {b}");
    for (step, strength) in strengths.iter().enumerate() {
        close(grid.values[[step, 0].as_slice()], value(&found.direction, *strength));
        for (series, drawn) in [(1, found.random(3, 9)), (2, found.shuffled(3, 9).unwrap())] {
            let each = (0..3).map(|i| value(&drawn.get(i), *strength)).collect::<Vec<_>>();
            let at = [step, series];
            close(grid.values[at.as_slice()], each.iter().sum::<f64>() / 3.0);
            let interval = grid.interval.as_ref().unwrap();
            close(interval.low[at.as_slice()], each.iter().copied().fold(f64::INFINITY, f64::min));
            close(
                interval.high[at.as_slice()],
                each.iter().copied().fold(-f64::INFINITY, f64::max),
            );
        }
    }
    let unsteered = grid.select(Axis::Step, 1).unwrap();
    close(unsteered.values[[0].as_slice()], unsteered.values[[1].as_slice()]);
    lines(&grid).unwrap();
    let kl = response.clone().draws(2).kl().unwrap();
    close(kl.get(&["0", "steering vector"]).unwrap(), 0.0);
    assert!(kl.get(&["-1", "steering vector"]).unwrap() > 0.0);
    let probability = response.draws(2).probability(4).unwrap();
    assert!(probability.values.iter().all(|p| (0.0..=1.0).contains(p)));
    assert_eq!(probability.unit, "probability");
}

#[test]
fn shuffled_labels_always_make_a_difference_or_are_left_out() {
    let model = model();
    let (site, metric) = (Point::ResidPost.at(0), Metric::logit_diff(4, 11));
    // Of four prompts two and two are alike: a third of the shuffles differs in nothing.
    let [a, b] = [[vec![3, 1, 4], vec![3, 1, 4]], [vec![2, 7, 1], vec![2, 7, 1]]]
        .map(|rows| Tokens::from_ids(&rows).unwrap());
    let found = steering_vector(&model, &a, &b, site, -1).unwrap();
    let length = found.direction.norm().double_value(&[]);
    let drawn = found.shuffled(30, 0).unwrap();
    for i in 0..30 {
        assert!((drawn.get(i).norm().double_value(&[]) - length).abs() < 1e-9 * length);
        assert!((super::cosine(&drawn.get(i), &found.direction).abs() - 1.0).abs() < 1e-9);
    }
    let [one, other] = [&a, &b].map(|tokens| tokens.row(0).unwrap());
    let found = steering_vector(&model, &one, &other, site, -1).unwrap();
    says(found.shuffled(2, 0), &["1 + 1 prompts", "its opposite"]);
    let response = DoseResponse::new(&model, &one, &found).draws(2).of(&metric).unwrap();
    assert_eq!(response.labels(Axis::Series).unwrap(), ["steering vector", "random directions"]);
    assert!(response.provenance["shuffled labels"].starts_with("left out"));
    // One prompt is no sample of prompts.
    let interval = response.interval.as_ref().unwrap();
    assert!(interval.low[[0, 0].as_slice()].is_nan() && !interval.low[[0, 1].as_slice()].is_nan());
    for figure in [lines(&response), bars(&response.select(Axis::Step, -1).unwrap())] {
        let figure = figure.unwrap().bundle().unwrap();
        assert!(!figure.svg.contains("NaN"), "{}", figure.svg);
    }
}

#[test]
fn what_cannot_be_steered_is_said() {
    let (model, tokens) = (model(), positive());
    let site = Point::ResidPost.at(0);
    says(steering_vector(&model, &tokens, &tokens, site, -1), &["the same mean"]);
    says(steering_vector(&model, &tokens, &negative(), Point::Z.at(0), -1), &["[Batch, Pos, D]"]);
    says(steering_vector(&model, &tokens, &negative(), site, 4), &["no position 4"]);
    says(SteeringVector::of(site, &Tensor::zeros([12], (Kind::Float, Device::Cpu))), &["length 0"]);
    let own = SteeringVector::of(site, &Rng::new(1).normal_tensor(&[12])).unwrap();
    says(own.shuffled(2, 0), &["no examples"]);
    let response = DoseResponse::new(&model, &tokens, &own);
    let metric = Metric::logit(3);
    assert_eq!(response.clone().of(&metric).unwrap().labels(Axis::Series).unwrap().len(), 2);
    says(response.clone().strengths(&[]).of(&metric), &["no strengths"]);
    says(response.draws(1).of(&metric), &["1 draws", "2 or more"]);
}

#[test]
fn the_sentiment_vector_turns_the_answer_and_random_ones_do_not() {
    let (model, set) = (tiny_world(), sentiment());
    // Half of the things to fit on, the others to steer.
    let seen = |text: &str| ["song", "movie", "play"].iter().any(|thing| text.contains(thing));
    let of = |verb: &str, fit: bool| {
        let own = set.filter(|p| p.right[0] == verb && seen(&p.clean) == fit);
        model.batch(&own.clean()).unwrap()
    };
    let site = Point::ResidPost.at(1);
    let vector = steering_vector(&model, &of("loved", true), &of("hated", true), site, -1).unwrap();
    let [loved, hated] = ["loved", "hated"].map(|verb| model.token(verb).unwrap());
    let metric = Metric::logit_diff(loved, hated);
    for (tokens, sign) in [(of("hated", false), 1.0), (of("loved", false), -1.0)] {
        let strengths = [0.0, sign];
        let response = DoseResponse::new(&model, &tokens, &vector).pos(-1).strengths(&strengths);
        let grid = response.of(&metric).unwrap();
        let (low, high) = {
            let interval = grid.interval.as_ref().unwrap();
            (interval.low.clone(), interval.high.clone())
        };
        let at = |step: usize, series: usize| sign * grid.values[[step, series].as_slice()];
        assert!(at(0, 0) < -5.0, "unsteered: {:?}", grid.values);
        assert!(at(1, 0) > 5.0, "steered: {:?}", grid.values);
        // Not one of the twenty random directions turns it.
        let nearest = if sign > 0.0 { high[[1, 1].as_slice()] } else { -low[[1, 1].as_slice()] };
        assert!(nearest < 0.0, "random: {nearest}");
        assert!(at(1, 2) < at(1, 0) - 5.0, "shuffled labels: {:?}", grid.values);
    }
}
