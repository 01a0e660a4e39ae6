//! A model whose layers lie in pieces over several devices is the same model. Here every piece lies
//! on the CPU, so that all numbers must agree to the last bit.

mod methods;
mod trained;

use std::path::PathBuf;

use thalweg::tch::{Device, Kind, Tensor};
use thalweg::{
    Attention, Cache, Config, Freeze, Intervention, Metric, Model, Plan, Point, Site, Sites,
    Tokens, attribution, attribution_sites, logit_lens,
};

use crate::support::{config, model_of, same, says, scratch};

fn deep() -> Config {
    Config { n_layers: 5, ..config() }
}

fn saved(name: &str, config: Config) -> PathBuf {
    let dir = scratch(name);
    model_of(config, Kind::Double, 4).save(&dir).unwrap();
    dir
}

/// The model on one device, then in two, three and five pieces.
fn models(name: &str, config: Config) -> (Model, Vec<Model>) {
    let dir = saved(name, config);
    let spread = |pieces| Model::load_spread(&dir, &vec![Device::Cpu; pieces], Kind::Double);
    let pieces = [2, 3, 5].map(|pieces| spread(pieces).unwrap());
    (Model::load_on(&dir, Device::Cpu, Kind::Double).unwrap(), pieces.into())
}

fn tokens() -> Tokens {
    Tokens::from_ids(&[vec![1, 2, 3, 4, 5, 6], vec![7, 8, 9]]).unwrap()
}

#[track_caller]
fn assert_equal(a: &Cache, b: &Cache) {
    assert!(a.sites().eq(b.sites()));
    for site in a.sites() {
        assert!(same(&a.get(site).unwrap(), &b.get(site).unwrap()), "{site}");
    }
}

#[test]
fn logits_and_every_activation_agree() {
    for (name, tied) in [("spread", false), ("spread-tied", true)] {
        let (whole, pieces) = models(name, Config { tied, ..deep() });
        let plain = whole.logits(&tokens()).unwrap();
        let everything = Plan::new().cache(Sites::everything());
        let run = whole.run(&tokens(), &everything).unwrap();
        for model in pieces {
            assert!(same(&model.logits(&tokens()).unwrap(), &plain));
            let own = model.run(&tokens(), &everything).unwrap();
            assert!(same(&own.logits, &run.logits));
            assert_equal(&own.cache, &run.cache);
            assert_eq!(model.weights_hash(), whole.weights_hash());
        }
    }
}

#[test]
fn interventions_freezes_and_gradients_agree() {
    let (whole, pieces) = models("spread-plans", deep());
    let other = Tokens::from_ids(&[vec![9, 8, 7, 6, 5, 4], vec![3, 2, 1]]).unwrap();
    let run = |model: &Model| {
        let source = model.run(&other, &Plan::new().cache(Sites::everything())).unwrap().cache;
        let direction = Tensor::ones([12], (Kind::Double, Device::Cpu));
        let plan = Plan::new()
            .intervene(Point::Z.at(3), Intervention::patch(&source).head(1))
            .intervene(Point::Scores.at(4), Intervention::knockout(-1, 0))
            .intervene(Point::MlpOut.at(2), Intervention::mean(&source).pos(1))
            .intervene(Point::ResidPost.at(3), Intervention::add(&direction, 0.3))
            .intervene(Point::HeadResult.at(4), Intervention::scale(0.5).head(2))
            .freeze(Freeze::Norm, &source)
            .logits_at(-1);
        let changed = model.run(&tokens(), &plan).unwrap().logits;
        let sites = [Point::ResidPre, Point::Pattern, Point::Q, Point::MlpPost];
        let graph = Plan::new().cache(sites).cache(Site::Embed).gradients(Metric::loss());
        (changed, model.run(&tokens(), &graph).unwrap().gradients.unwrap())
    };
    let (changed, gradients) = run(&whole);
    for model in &pieces {
        let own = run(model);
        assert!(same(&own.0, &changed));
        assert_equal(&own.1, &gradients);
    }
}

#[test]
fn steps_by_hand_and_analyses_agree() {
    let (whole, pieces) = models("spread-analyses", deep());
    let metric = Metric::logit_diff(3, 4);
    let plans: Vec<_> = (0..5)
        .map(|l| Plan::new().intervene(Point::Z.at(l), Intervention::zero().head(0)))
        .chain([Plan::new()])
        .collect();
    let results = |model: &Model| {
        let plan = Plan::new().cache(attribution_sites()).attention(Attention::Eager);
        let cache = model.run(&tokens(), &plan).unwrap().cache;
        let mut x = model.embed(&tokens()).unwrap();
        for layer in 0..5 {
            x = model.block(layer, &x, &tokens()).unwrap();
        }
        let by_hand = model.unembed(&x).unwrap();
        let lens = logit_lens(model, &cache, 3).unwrap().values;
        let parts = attribution(model, &cache, &metric).unwrap().values;
        (by_hand, lens, parts)
    };
    let (by_hand, lens, parts) = results(&whole);
    let sweep = whole.sweep(&tokens(), &plans, &metric).unwrap().values.values;
    for model in &pieces {
        let own = results(model);
        assert!(same(&own.0, &by_hand));
        assert_eq!((own.1, own.2), (lens.clone(), parts.clone()));
        let own = model.sweep(&tokens(), &plans, &metric).unwrap();
        let furthest = (&own.values.values - &sweep).iter().fold(0.0f64, |m, x| m.max(x.abs()));
        assert!(furthest < 1e-10, "{furthest}");
    }
}

#[test]
fn generated_tokens_and_their_activations_agree() {
    let (whole, pieces) = models("spread-generate", deep());
    let plan = Plan::new().cache([Point::Z, Point::ResidPost]);
    let plan = plan.intervene(Point::MlpOut.at(4), Intervention::scale(1.5));
    let expected = whole.generate(&tokens(), 6, &plan).unwrap();
    for model in &pieces {
        let own = model.generate(&tokens(), 6, &plan).unwrap();
        assert_eq!(own.new, expected.new);
        assert!(same(&own.logits, &expected.logits));
        assert_equal(&own.cache, &expected.cache);
    }
}

#[test]
fn training_edits_and_files_agree() {
    let (whole, pieces) = models("spread-train", deep());
    let stepped = |model: &Model| {
        let model = model.trainable();
        let run = model.run(&tokens(), &Plan::new().differentiable()).unwrap();
        let loss = run.logits.square().mean(Kind::Double);
        thalweg::model::AdamW::new(model.parameters()).step(&loss, 0.01).unwrap();
        model.logits(&tokens()).unwrap()
    };
    let scaled = |model: &Model| model.with_weights(|_, w| Ok(w * 1.1)).unwrap();
    let dir = scratch("spread-again");
    for model in &pieces {
        assert!(same(&stepped(model), &stepped(&whole)));
        let edited = scaled(model);
        assert_eq!(edited.devices(), model.devices());
        assert!(same(
            &edited.logits(&tokens()).unwrap(),
            &scaled(&whole).logits(&tokens()).unwrap()
        ));
        model.save(&dir).unwrap();
        let back = Model::load_on(&dir, Device::Cpu, Kind::Double).unwrap();
        assert_eq!(back.weights_hash(), whole.weights_hash());
    }
}

#[test]
fn the_map_is_told_and_a_wrong_one_refused() {
    let dir = saved("spread-map", deep());
    let spread = |devices: &[Device]| Model::load_spread(&dir, devices, Kind::Double);
    let model = spread(&[Device::Cpu; 2]).unwrap();
    assert_eq!((model.device(), model.devices()), (Device::Cpu, vec![Device::Cpu; 5]));
    assert!(format!("{model:?}").ends_with("Double on Cpu, Cpu"));
    let record = model.run(&tokens(), &Plan::new()).unwrap().record().unwrap();
    assert_eq!(record.device, "Cpu, Cpu");
    says(spread(&[]), &["no devices"]);
    says(spread(&[Device::Cpu; 6]), &["6 devices for 5 layers"]);
    says(Model::load_spread(&dir, &[Device::Cpu], Kind::Int64), &["Int64", "BFloat16"]);
}
