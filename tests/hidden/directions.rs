//! A direction taken out of the stream: while the model runs, and from its weights.

use thalweg::prelude::*;
use thalweg::rng::Rng;
use thalweg::steering_vector;
use thalweg::{Config, DirectionEffect, Probe, ProbeMethod};
use thalweg::{direction_ablation, direction_cosines, orthogonalised};

use super::{answers, cosine, real, sentiment, tiny_world};
use crate::support::{config, distance, model, model_of, same, says};

fn tokens() -> Tokens {
    Tokens::from_ids(&[vec![3, 1, 4, 1, 5], vec![2, 6, 5]]).unwrap()
}

fn direction() -> Tensor {
    Rng::new(3).normal_tensor(&[12]).to_kind(Kind::Double)
}

/// Without and with biases, and with the embedding tied to the unembedding.
fn models() -> [Model; 3] {
    let biased = Config { attention_bias: true, mlp_bias: true, ..config() };
    [
        model(),
        model_of(biased.clone(), Kind::Double, 5),
        model_of(Config { tied: true, ..biased }, Kind::Double, 7),
    ]
}

#[test]
fn ablating_a_direction_while_running_is_orthogonalising_the_weights() {
    for model in models() {
        let logits = |model: &Model, plan: &Plan| {
            real(&model.run(&tokens(), plan).unwrap().logits, &tokens())
        };
        let ablated = logits(&model, &direction_ablation(&direction()));
        let edited = orthogonalised(&model, &direction()).unwrap();
        assert!(distance(&logits(&edited, &Plan::new()), &ablated) < 1e-12, "{model:?}");
        assert!(distance(&ablated, &logits(&model, &Plan::new())) > 1e-2);
        // The length and sign of the direction do not matter.
        let other = orthogonalised(&model, &(direction() * -7.0)).unwrap();
        assert!(distance(&logits(&other, &Plan::new()), &ablated) < 1e-12);
    }
}

#[test]
fn nothing_of_the_direction_is_left_in_the_stream() {
    let unit = direction() / direction().norm();
    let streams = [Point::ResidPre, Point::ResidMid, Point::ResidPost];
    for model in models() {
        let edited = orthogonalised(&model, &direction()).unwrap();
        for (model, plan) in [(&model, direction_ablation(&direction())), (&edited, Plan::new())] {
            let run = model.run(&tokens(), &plan.cache(streams)).unwrap();
            for site in run.cache.sites().collect::<Vec<_>>() {
                let along = real(&run.cache.get(site).unwrap(), &tokens()).matmul(&unit);
                assert!(along.abs().max().double_value(&[]) < 1e-12, "{site}");
            }
        }
    }
}

#[test]
fn ablating_twice_is_ablating_once() {
    for model in models() {
        let once = orthogonalised(&model, &direction()).unwrap();
        let twice = orthogonalised(&once, &direction()).unwrap();
        let logits = once.logits(&tokens()).unwrap();
        assert!(distance(&twice.logits(&tokens()).unwrap(), &logits) < 1e-12);
        let again = once.run(&tokens(), &direction_ablation(&direction())).unwrap().logits;
        assert!(distance(&again, &logits) < 1e-12);
    }
}

#[test]
fn what_reads_the_stream_keeps_its_weights_tied_or_not() {
    for model in models() {
        let edited = orthogonalised(&model, &direction()).unwrap();
        for (which, layer) in [(W::U, 0), (W::Q, 1), (W::V, 0), (W::In, 1), (W::Gate, 0)] {
            let (own, before) = (edited.weight(which, layer), model.weight(which, layer));
            assert!(same(&own.unwrap(), &before.unwrap()), "{which:?}");
        }
        assert!(!same(&edited.weight(W::E, 0).unwrap(), &model.weight(W::E, 0).unwrap()));
        assert!(!edited.config().tied || !model.config().tied);
    }
    let [_, _, tied] = models();
    let untied = tied.untied().unwrap();
    assert!(!untied.config().tied && tied.config().tied);
    assert!(same(&untied.logits(&tokens()).unwrap(), &tied.logits(&tokens()).unwrap()));
    let plain = model().untied().unwrap();
    assert!(same(&plain.logits(&tokens()).unwrap(), &model().logits(&tokens()).unwrap()));
}

#[test]
fn the_effect_of_a_direction_is_a_loop_of_runs() {
    let model = model();
    let (metric, site) = (Metric::logit_diff(4, 11), Point::ResidPost.at(0));
    let effect = DirectionEffect::new(&model, &tokens(), &direction()).unwrap();
    let grid = effect.clone().draws(3).steered(site, 0.5).of(&metric).unwrap();
    let value = |plan: Plan| {
        let logits = model.run(&tokens(), &plan).unwrap().logits;
        metric.of(&logits, &tokens()).unwrap().mean(Kind::Double).double_value(&[])
    };
    let add = |strength: f64| {
        Plan::new().intervene(site, Intervention::add(&direction(), strength).pos(-1))
    };
    for (name, plan) in [
        ("unedited", Plan::new()),
        ("ablated", direction_ablation(&direction())),
        ("added", add(0.5)),
        ("subtracted", add(-0.5)),
    ] {
        let found = grid.get(&[name]).unwrap();
        assert!((found - value(plan)).abs() < 1e-9, "{name}: {found}");
    }
    let series = ["unedited", "ablated", "random ablated", "added", "subtracted", "random added"];
    assert_eq!(grid.labels(Axis::Series).unwrap(), series);
    assert_eq!(effect.of(&metric).unwrap().shape(), [3]);
    bars(&grid).unwrap();
}

#[test]
fn cosines_between_directions_see_signs_and_no_lengths() {
    let (a, b) = (direction(), Rng::new(4).normal_tensor(&[12]).to_kind(Kind::Double));
    let (long, back) = (&a * 7.0, &a * -0.1);
    let grid =
        direction_cosines(&[("a", &a), ("b", &b), ("long", &long), ("back", &back)]).unwrap();
    assert_eq!(grid.shape(), [4, 4]);
    for (x, y, expected) in
        [("a", "long", 1.0), ("a", "back", -1.0), ("b", "b", 1.0), ("b", "a", cosine(&a, &b))]
    {
        assert!((grid.get(&[x, y]).unwrap() - expected).abs() < 1e-12, "{x} {y}");
    }
    let zero = Tensor::zeros([12], (Kind::Double, Device::Cpu));
    says(direction_cosines(&[("a", &a), ("none", &zero)]), &["none", "length 0"]);
    says(direction_cosines(&[("a", &a), ("short", &a.narrow(0, 0, 5))]), &["short", "[5]", "[12]"]);
    says(direction_cosines(&[]), &["no directions"]);
}

#[test]
fn what_is_no_direction_is_said() {
    let model = model();
    let zero = Tensor::zeros([12], (Kind::Double, Device::Cpu));
    says(orthogonalised(&model, &zero), &["length 0"]);
    says(orthogonalised(&model, &Rng::new(0).normal_tensor(&[5])), &["[5]", "[12]"]);
    says(DirectionEffect::new(&model, &tokens(), &zero), &["length 0"]);
    says(model.run(&tokens(), &direction_ablation(&zero)), &["hook_embed"]);
}

#[test]
fn without_the_sentiment_direction_the_model_no_longer_knows_the_answer() {
    let (model, set) = (tiny_world(), sentiment());
    let of = |verb: &str| model.batch(&set.filter(|p| p.right[0] == verb).clean()).unwrap();
    let site = Point::ResidPost.at(2);
    let vector = steering_vector(&model, &of("loved"), &of("hated"), site, -1).unwrap();
    let tokens = set.aligned(&model).unwrap().clean;
    let right: Vec<i64> = answers(&set).iter().map(|verb| model.token(verb).unwrap()).collect();
    let effect = DirectionEffect::new(&model, &tokens, &vector.direction).unwrap();
    let grid = effect.of(&Metric::accuracy(&right)).unwrap();
    let share = |series: &str| grid.get(&[series]).unwrap();
    assert!(share("unedited") == 1.0 && share("ablated") <= 0.6, "{:?}", grid.values);
    // Not one of twenty random directions matters.
    let worst = grid.interval.as_ref().unwrap().low[[2].as_slice()];
    assert!(worst > 0.95, "{worst}");
    let edited = orthogonalised(&model, &vector.direction).unwrap();
    let logits = edited.logits(&tokens).unwrap();
    let own = Metric::accuracy(&right).of(&logits, &tokens).unwrap().mean(Kind::Double);
    assert!((own.double_value(&[]) - share("ablated")).abs() < 0.02);
}

#[test]
fn a_probes_direction_is_one_the_model_uses_and_a_random_one_is_not() {
    let (model, set) = (tiny_world(), sentiment());
    let tokens = set.aligned(&model).unwrap().clean;
    let run = model.run(&tokens, &Plan::new().cache(Point::ResidPost)).unwrap();
    let x = run.cache.get(Point::ResidPost.at(1)).unwrap().select(1, -1);
    let probe = Probe::fit(&x, &answers(&set), ProbeMethod::MeanDifference).unwrap();
    let direction = probe.direction("hated", "loved").unwrap();
    assert!(cosine(&direction, &probe.direction("loved", "hated").unwrap()) < -0.999);
    let hated = model.batch(&set.filter(|p| p.right[0] == "hated").clean()).unwrap();
    let metric = Metric::logit_diff(model.token("loved").unwrap(), model.token("hated").unwrap());
    let effect = DirectionEffect::new(&model, &hated, &direction).unwrap();
    let grid = effect.steered(Point::ResidPost.at(1), 1.0).of(&metric).unwrap();
    let value = |series: &str| grid.get(&[series]).unwrap();
    assert!(value("unedited") < -5.0 && value("added") > 5.0, "{:?}", grid.values);
    assert!(value("random added") < -4.0, "{:?}", grid.values);
}
