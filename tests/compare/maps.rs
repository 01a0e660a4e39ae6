//! Maps between the streams of two models: what they recover, carry over and let one model go on from.

use std::collections::HashMap;
use std::path::Path;

use thalweg::{
    DoseResponse, Probe, ProbeMethod, SteeringVector, Stitching, StreamFit, StreamMap,
    steering_vector,
};

use super::*;
use crate::support::{model, same};

const SITE: fn(usize) -> Site = |layer| Point::ResidPost.at(layer);

fn batch(n: usize) -> Tokens {
    let mut rng = Rng::new(5);
    let rows: Vec<Vec<i64>> =
        (0..n).map(|i| (0..9 - i % 3).map(|_| rng.below(23) as i64).collect()).collect();
    Tokens::from_ids(&rows).unwrap()
}

fn stream(model: &Model, tokens: &Tokens) -> Cache {
    let sites: Vec<Site> = std::iter::once(Point::ResidPre.at(0))
        .chain((0..model.config().n_layers).map(SITE))
        .collect();
    model.run(tokens, &Plan::new().cache(sites)).unwrap().cache
}

/// The same model with its stream turned: `x` becomes `x turn`. Norms' weights are folded into what
/// reads the stream first, for a norm with weights of 1 alone does not see a rotation.
fn turned(model: &Model, turn: &Tensor) -> Model {
    let model = model.untied().unwrap();
    let old: HashMap<String, Tensor> = model.named_weights();
    let turn = turn.to_kind(model.kind());
    let norm_of = |name: &str| {
        let own = |part: &str| {
            let layer = name.split(".self_attn").next().unwrap().split(".mlp").next().unwrap();
            old[&format!("{layer}.{part}.weight")].shallow_clone()
        };
        match name {
            "lm_head.weight" => old["model.norm.weight"].shallow_clone(),
            name if name.contains("self_attn") => own("input_layernorm"),
            _ => own("post_attention_layernorm"),
        }
    };
    model
        .with_weights(|name, w| {
            Ok(match name {
                name if name.contains("norm") => w.ones_like(),
                "model.embed_tokens.weight" => w.matmul(&turn),
                name if name.contains("o_proj") || name.contains("down_proj") => {
                    turn.tr().matmul(w)
                }
                name => (w * norm_of(name)).matmul(&turn),
            })
        })
        .unwrap()
}

#[test]
fn a_turned_stream_gives_back_its_rotation_and_carries_directions_with_it() {
    let (model, tokens, turn) = (model(), batch(40), rotation(12, 7));
    let other = turned(&model, &turn);
    assert!(distance(&model.logits(&tokens).unwrap(), &other.logits(&tokens).unwrap()) < 1e-9);
    let (a, b) = (stream(&model, &tokens), stream(&other, &tokens));
    let direction = Rng::new(3).normal_tensor(&[12]).to_kind(Kind::Double);
    for fit in [StreamFit::Procrustes, StreamFit::Ridge(0.0)] {
        let map = StreamMap::fit((&a, SITE(0)), (&b, SITE(0)), fit, 1).unwrap();
        assert!(distance(&map.matrix, &turn) < 1e-9, "{fit}: {map:?}");
        assert!(distance(&map.carry(&direction).unwrap(), &direction.matmul(&turn)) < 1e-9);
        assert!((map.r2 - 1.0).abs() < 1e-9 && map.shuffled_r2 < 0.2, "{map:?}");
        // Of 40 prompts of 9, 8 and 7 tokens, 8 are held out.
        assert!(map.n > 32 * 6 && map.n < 32 * 8, "{map:?}");
        let plan = map.stitched(&a, &b).unwrap();
        let logits = other.run(&tokens, &plan).unwrap().logits;
        assert!(distance(&logits, &b_logits(&other, &tokens)) < 1e-8);
        let control = map.shuffled().unwrap();
        assert!((control.r2 - map.shuffled_r2).abs() < 1e-15);
        let logits = other.run(&tokens, &control.stitched(&a, &b).unwrap()).unwrap().logits;
        assert!(distance(&logits, &b_logits(&other, &tokens)) > 0.1);
        assert!(!format!("{map:?}").contains('\n'));
    }
}

fn b_logits(model: &Model, tokens: &Tokens) -> Tensor {
    model.logits(tokens).unwrap()
}

#[test]
fn a_penalty_shrinks_the_map_towards_the_mean() {
    let (model, tokens) = (model(), batch(40));
    let cache = stream(&model, &tokens);
    let of = |penalty: f64| {
        let fit = StreamFit::Ridge(penalty);
        StreamMap::fit((&cache, SITE(0)), (&cache, SITE(1)), fit, 1).unwrap()
    };
    let maps = [0.0, 10.0, 1e12].map(of);
    let length = |map: &StreamMap| map.matrix.norm().double_value(&[]);
    assert!(length(&maps[0]) > length(&maps[1]) && length(&maps[1]) > 1e3 * length(&maps[2]));
    assert!(maps[0].r2 > 0.5 && maps[2].r2.abs() < 0.1, "{maps:?}");
}

#[test]
fn the_identity_changes_nothing_and_first_tokens_keep_their_stream() {
    let (model, tokens) = (model(), batch(6));
    let own = stream(&model, &tokens);
    for site in [Point::ResidPre.at(0), SITE(0), SITE(1)] {
        let map = StreamMap::identity(site, site, 12);
        let plan = map.stitched(&own, &own).unwrap();
        assert!(same(&model.run(&tokens, &plan).unwrap().logits, &model.logits(&tokens).unwrap()));
        says(map.shuffled(), &["identity", "no shuffled control"]);
    }
    let plan = StreamMap::identity(SITE(1), SITE(0), 12).stitched(&own, &own).unwrap();
    let held = model.run(&tokens, &plan.cache(SITE(0))).unwrap().cache.get(SITE(0)).unwrap();
    for (row, len) in tokens.lens().into_iter().enumerate() {
        let at = |x: &Tensor, place: usize| x.get(row as i64).get((9 - len + place) as i64);
        assert!(same(&at(&held, 0), &at(&own.get(SITE(0)).unwrap(), 0)));
        assert!(same(&at(&held, 1), &at(&own.get(SITE(1)).unwrap(), 1)));
    }
}

#[test]
fn a_probe_read_through_a_map_scores_as_on_the_mapped_stream() {
    let (x, tokens) = (draw(30, 12, 2), batch(30));
    let labels: Vec<&str> = (0..30).map(|i| ["p", "q", "r"][i % 3]).collect();
    let cache = stream(&model(), &tokens);
    let fit = StreamFit::Ridge(1.0);
    let map = StreamMap::fit((&cache, SITE(0)), (&cache, SITE(1)), fit, 1).unwrap();
    for labels in [labels.clone(), labels.iter().map(|l| if *l == "r" { "p" } else { l }).collect()]
    {
        let probe = Probe::fit(&x, &labels, ProbeMethod::Lda { shrinkage: 0.1 }).unwrap();
        let read = map.probe(&probe).unwrap();
        let expected = probe.scores(&map.apply(&x).unwrap()).unwrap();
        assert!(distance(&read.scores(&x).unwrap(), &expected) < 1e-9);
    }
}

#[test]
fn what_cannot_be_mapped_is_said() {
    let (model, tokens) = (model(), batch(6));
    let cache = stream(&model, &tokens);
    let fit = |tokens: &Tokens, fit: StreamFit| {
        let own = stream(&model, tokens);
        StreamMap::fit((&own, SITE(0)), (&own, SITE(1)), fit, 1)
    };
    says(fit(&tokens.row(0).unwrap(), StreamFit::Procrustes), &["1 prompts", "held out"]);
    says(fit(&tokens, StreamFit::Ridge(-1.0)), &["penalty of -1"]);
    let other = stream(&model, &batch(5));
    let found = StreamMap::fit((&cache, SITE(0)), (&other, SITE(0)), StreamFit::Procrustes, 1);
    says(found, &["different tokens"]);
    let found =
        StreamMap::fit((&cache, Point::Z.at(0)), (&cache, SITE(0)), StreamFit::Procrustes, 1);
    says(found, &["DModel"]);
    let map = fit(&tokens, StreamFit::Ridge(1.0)).unwrap();
    says(map.carry(&draw(2, 5, 1)), &["[2, 5]", "[.., 12]"]);
}

#[test]
fn a_model_goes_on_from_its_turned_streams_as_from_its_own() {
    let (model, tokens) = (model(), batch(40));
    let other = turned(&model, &rotation(12, 7));
    let stitching =
        Stitching::new(&model, &other, &tokens, &batch(6)).by(StreamFit::Procrustes).seed(2);
    let found = stitching.kl().unwrap();
    assert_eq!(found.values.labels(Axis::OtherLayer).unwrap(), ["embed", "L0", "L1"]);
    let at = |grid: &Grid, i: i64, j: i64| grid.at(&[i, j]).unwrap();
    for i in 0..3 {
        assert!(at(&found.values, i, i).abs() < 1e-9, "{:?}", found.values.values);
        assert!(at(&found.r2, i, i) > 1.0 - 1e-9);
        for j in 0..3 {
            assert!(at(&found.shuffled, i, j) > 0.01, "{:?}", found.shuffled.values);
            assert!(i == j || at(&found.values, i, j) > 1e-3, "{:?}", found.values.values);
        }
    }
    // A cell by hand, through another metric.
    let (a, b) = (stream(&model, &tokens), stream(&other, &tokens));
    let map = StreamMap::fit((&a, SITE(0)), (&b, SITE(1)), StreamFit::Procrustes, 2).unwrap();
    let few = batch(6);
    let plan = map.stitched(&stream(&model, &few), &stream(&other, &few)).unwrap();
    let metric = Metric::logit_diff(4, 11);
    let logits = other.run(&few, &plan).unwrap().logits;
    let by_hand = metric.of(&logits, &few).unwrap().mean(Kind::Double).double_value(&[]);
    near(stitching.of(&metric).unwrap().values.get(&["L0", "L1"]).unwrap(), by_hand);
}

fn tiny_world() -> (Model, Prompts) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let set = Prompts::load(root.join("data/prompts/sentiment.json")).unwrap();
    (Model::load(root.join("data/models/tiny-world")).unwrap(), set.labelled("verb").unwrap())
}

#[test]
fn a_sentiment_direction_carried_to_a_turned_model_does_there_what_it_did() {
    let (a, set) = tiny_world();
    let b = turned(&a, &rotation(a.config().d_model as i64, 9));
    let seen = |text: &str| ["song", "movie", "play"].iter().any(|thing| text.contains(thing));
    let of = |verb: &str, fit: bool| {
        a.batch(&set.filter(|p| p.right[0] == verb && seen(&p.clean) == fit).clean()).unwrap()
    };
    let site = SITE(1);
    let vector = steering_vector(&a, &of("loved", true), &of("hated", true), site, -1).unwrap();
    // The map is fitted on prompts that are not steered.
    let fitted = a.batch(&set.filter(|p| seen(&p.clean)).clean()).unwrap();
    let runs = [stream(&a, &fitted), stream(&b, &fitted)];
    let map = StreamMap::fit((&runs[0], site), (&runs[1], site), StreamFit::Ridge(0.1), 1).unwrap();
    assert!(map.r2 > 0.95 && map.shuffled_r2 < 0.5, "{map:?}");
    let (loved, hated) = (a.token("loved").unwrap(), a.token("hated").unwrap());
    let steered = |model: &Model, direction: &Tensor| {
        let vector = SteeringVector::of(site, direction).unwrap();
        let response = DoseResponse::new(model, &of("hated", false), &vector);
        response
            .pos(-1)
            .absolute()
            .strengths(&[0.0, 1.0])
            .of(&Metric::logit_diff(loved, hated))
            .unwrap()
    };
    let at = |grid: &Grid, step: i64, series: i64| grid.at(&[step, series]).unwrap();
    // As long as the stream there.
    let push = &vector.direction / vector.relative;
    let there = steered(&a, &push);
    let here = steered(&b, &map.carry(&push).unwrap());
    let raw = steered(&b, &push);
    let (before, after) = (at(&here, 0, 0), at(&here, 1, 0));
    let by_chance: Vec<f64> = (1..=5)
        .map(|seed| {
            let ends = ((&runs[0], site), (&runs[1], site));
            let map = StreamMap::fit(ends.0, ends.1, StreamFit::Ridge(0.1), seed).unwrap();
            at(&steered(&b, &map.shuffled().unwrap().carry(&push).unwrap()), 1, 0)
        })
        .collect();
    assert!(before < -5.0 && after > 5.0, "{:?}", here.values);
    assert!((after - at(&there, 1, 0)).abs() < 0.05 * (after - before), "{:?}", there.values);
    // Twenty random directions of its length, maps of shuffled tokens, the direction as it is.
    let random = here.interval.as_ref().unwrap().high[[1, 1].as_slice()];
    let control = by_chance.iter().sum::<f64>() / 5.0;
    for other in [random, control, at(&raw, 1, 0)] {
        assert!(other < 0.0, "{other}");
    }
}

#[test]
fn a_sentiment_probe_reads_a_turned_model_through_a_map_and_not_without() {
    let (a, set) = tiny_world();
    let b = turned(&a, &rotation(a.config().d_model as i64, 9));
    let seen = |text: &str| ["song", "movie", "play"].iter().any(|thing| text.contains(thing));
    let (fit, test) = (set.filter(|p| seen(&p.clean)), set.filter(|p| !seen(&p.clean)));
    let labels = |set: &Prompts| -> Vec<String> {
        set.prompts.iter().map(|prompt| prompt.right[0].clone()).collect()
    };
    let runs = |set: &Prompts| {
        let tokens = a.batch(&set.clean()).unwrap();
        [stream(&a, &tokens), stream(&b, &tokens)]
    };
    let site = SITE(2);
    let last = |cache: &Cache| cache.get(site).unwrap().select(1, -1);
    let (fitted, other) = (runs(&fit), runs(&test));
    let probe =
        Probe::fit(&last(&fitted[0]), &labels(&fit), ProbeMethod::Ridge { alpha: 1.0 }).unwrap();
    let back = StreamMap::fit((&fitted[1], site), (&fitted[0], site), StreamFit::Ridge(0.1), 1);
    let back = back.unwrap();
    let right = |probe: &Probe| probe.accuracy(&last(&other[1]), &labels(&test)).unwrap();
    let through = right(&back.probe(&probe).unwrap());
    let control = right(&back.shuffled().unwrap().probe(&probe).unwrap());
    assert!(through > 0.95 && control < 0.75 && right(&probe) < 0.75, "{through}, {control}");
}

#[test]
fn tiny_world_goes_on_from_its_turned_streams_and_not_through_maps_of_shuffled_tokens() {
    let (a, set) = tiny_world();
    let b = turned(&a, &rotation(a.config().d_model as i64, 9));
    let tokens = a.batch(&set.first(60).clean()).unwrap();
    let few = a.batch(&set.first(12).clean()).unwrap();
    let found = Stitching::new(&a, &b, &tokens, &few).by(StreamFit::Ridge(0.1)).kl().unwrap();
    for layer in 0..=a.config().n_layers as i64 {
        let (own, control) = (
            found.values.at(&[layer, layer]).unwrap(),
            found.shuffled.at(&[layer, layer]).unwrap(),
        );
        assert!(own < 0.05 && control > 10.0 * own.max(0.02), "{layer}: {own}, {control}");
    }
}
