//! Where numbers come from is known of every result, and goes with it into a file.

use serde_json::Value;
use thalweg::tch::{Device, Kind, Tensor};
use thalweg::{
    Axis, Cache, Figure, Grid, Intervention, Metric, Model, Plan, Point, Record, Sampling, Tokens,
    heatmap, lens, resid_norms,
};

use crate::support::{config, model_f32, model_of, says, scratch};

fn tokens() -> Tokens {
    Tokens::from_ids(&[vec![1, 2, 3], vec![4, 5, 6]]).unwrap()
}

fn stream(model: &Model) -> Cache {
    model.run(&tokens(), &Plan::new().cache(Point::ResidPost)).unwrap().cache
}

#[test]
fn a_record_says_what_ran_and_comes_back_from_its_file() {
    let model = model_f32();
    let run = model.run(&tokens(), &Plan::new().cache(Point::Z.at(1)).logits_at(-1)).unwrap();
    let record = run.record().unwrap();
    assert_eq!(record.weights, model.weights_hash());
    assert_eq!(record.ids, tokens().ids());
    assert_eq!(record.config, model.config().to_json());
    assert_eq!((record.kind.as_str(), record.device.as_str()), ("Float", "Cpu"));
    assert_eq!(record.attention, "Fused");
    assert_eq!(record.plan, "Plan { cache blocks.1.attn.hook_z; logits at -1 }");
    assert_eq!(record.thalweg, env!("CARGO_PKG_VERSION"));
    let numbers = record.libtorch.split(['.', '+']).take(3);
    assert!(numbers.clone().count() == 3, "libtorch {}", record.libtorch);
    assert!(numbers.into_iter().all(|n| n.parse::<u32>().is_ok()), "libtorch {}", record.libtorch);
    let text = record.to_string();
    for word in ["sha256:", "Fused", "blocks.1.attn.hook_z", "prompts 2, 6 tokens: 1|2|3"] {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert!(!format!("{record:?}").contains('\n'));
    let path = scratch("record").join("run.record.json");
    record.save(&path).unwrap();
    assert_eq!(Record::open(&path).unwrap(), record);
    std::fs::write(&path, "[]").unwrap();
    says(Record::open(&path), &["run.record.json", "not a record"]);
}

#[test]
fn the_weights_hash_is_of_the_numbers_and_of_nothing_else() {
    let model = model_f32();
    let hash = model.weights_hash();
    assert_eq!(hash.len(), "sha256:".len() + 64);
    assert_eq!(model.clone().weights_hash(), hash);
    assert_eq!(model_f32().weights_hash(), hash, "the same numbers in other memory");
    let dir = scratch("hash");
    model.save(&dir).unwrap();
    let back = Model::load_on(&dir, Device::Cpu, Kind::Float).unwrap();
    assert_eq!(back.weights_hash(), hash, "through a file");
    let half = Model::load_on(&dir, Device::Cpu, Kind::BFloat16).unwrap();
    assert_ne!(half.weights_hash(), hash, "another kind");
    let edited = model.with_weights(|name, w| {
        Ok(if name.ends_with("layers.1.mlp.down_proj.weight") {
            let mut one = Tensor::zeros_like(w);
            let _ = one.get(0).get(0).fill_(1e-3);
            one += w;
            one
        } else {
            w.shallow_clone()
        })
    });
    assert_ne!(edited.unwrap().weights_hash(), hash, "one entry changed");
    assert_eq!(model.weights_hash(), hash);
    assert_ne!(model.shuffled(1).unwrap().weights_hash(), hash);
}

#[test]
fn a_record_never_names_weights_that_the_run_did_not_have() {
    let model = model_f32().trainable();
    let before = model.run(&tokens(), &Plan::new()).unwrap();
    let hash = before.record().unwrap().weights;
    assert_eq!(hash, model_f32().weights_hash());
    let late = model.run(&tokens(), &Plan::new()).unwrap();
    let unasked = model.trainable();
    let unhashed = unasked.run(&tokens(), &Plan::new()).unwrap();
    for model in [&model, &unasked] {
        let _guard = thalweg::tch::no_grad_guard();
        let _ = model.parameters()[0].get(0).fill_(0.5);
    }
    assert_eq!(late.record().unwrap().weights, hash, "known from before the change");
    let after = model.run(&tokens(), &Plan::new()).unwrap().record().unwrap().weights;
    assert_ne!(after, hash);
    assert_eq!(after, model.weights_hash());
    assert!(unhashed.record().unwrap().weights.contains("changed in place since"));
    let gone = model_f32().run(&tokens(), &Plan::new()).unwrap();
    assert!(gone.record().unwrap().weights.contains("the model was dropped"));
}

#[test]
fn a_cache_carries_its_record_through_files_rows_and_devices() {
    let model = model_f32();
    let cache = stream(&model);
    let record = cache.record().unwrap();
    assert_eq!(cache.row(1).unwrap().record().unwrap(), record);
    assert_eq!(cache.to_device(Device::Cpu).unwrap().record().unwrap(), record);
    let path = scratch("cache-record").join("x.safetensors");
    cache.save(&path).unwrap();
    assert_eq!(Cache::open(&path).unwrap().record().unwrap(), record);
    let plan = Plan::new().cache(Point::Z).gradients(Metric::loss());
    let run = model.run(&tokens(), &plan).unwrap();
    assert_eq!(run.gradients.as_ref().unwrap().record().unwrap(), run.record().unwrap());
}

#[test]
fn grids_keep_the_runs_they_were_made_from() {
    let (model, other) = (model_f32(), model_of(config(), Kind::Float, 2));
    let [a, b] = [&model, &other].map(|model| resid_norms(&stream(model)).unwrap());
    assert_eq!(a.records(), [stream(&model).record().unwrap()]);
    assert_eq!(a.mean(Axis::Batch).unwrap().records(), a.records());
    let hashes = |grid: &Grid| -> Vec<String> {
        grid.records().into_iter().map(|record| record.weights).collect()
    };
    let both = [model.weights_hash(), other.weights_hash()];
    assert_eq!(hashes(&a.minus(&b).unwrap()), both);
    assert_eq!(hashes(&Grid::stack(Axis::Series, &[("a", &a), ("b", &b)]).unwrap()), both);
    assert_eq!(hashes(&a.minus(&a).unwrap()), both[..1], "each run once");
    let metric = Metric::log_prob(3);
    assert_eq!(hashes(&lens(&model, &stream(&model), &metric).unwrap()), both[..1]);
    let own = Grid::of(&Tensor::from_slice(&[1.0]), &[Axis::Layer], "nats").unwrap();
    assert!(own.records().is_empty());
    assert_eq!(own.of_run(&a.records()[0]).records(), a.records());
}

#[test]
fn a_sweep_and_a_generation_say_what_was_run() {
    let model = model_f32();
    let plans = [Plan::new(), Plan::new().intervene(Point::Z.at(1), Intervention::zero())];
    let sweep = model.sweep(&tokens(), &plans, &Metric::log_prob(3)).unwrap();
    let records = sweep.values.records();
    assert_eq!(records[0].weights, model.weights_hash());
    assert!(records[0].plan.starts_with("sweep of 2 plans"), "{}", records[0].plan);
    assert!(records[0].plan.contains("blocks.1.attn.hook_z: zero()"), "{}", records[0].plan);
    let drawn = Sampling::new(3).temperature(0.8).seed(41);
    let record = model.generate(&tokens(), drawn, &Plan::new()).unwrap().record().unwrap();
    assert_eq!((record.seed, record.ids.as_slice()), (Some(41), tokens().ids()));
    assert!(record.plan.starts_with("generate with Sampling"), "{}", record.plan);
    assert!(record.to_string().contains("seed 41"));
    let greedy = model.generate(&tokens(), 2, &Plan::new().cache(Point::Z)).unwrap();
    assert_eq!(greedy.cache.record().unwrap().seed, None, "nothing was drawn");
}

#[test]
fn a_saved_figure_has_its_record_beside_it() {
    let (model, other) = (model_f32(), model_of(config(), Kind::Float, 2));
    let grid = |model: &Model| {
        let norms = resid_norms(&stream(model)).unwrap().mean(Axis::Batch).unwrap();
        heatmap(&norms.note("seed", "7")).unwrap()
    };
    let figure = Figure::row(&[grid(&model), grid(&other), grid(&model)]);
    let dir = scratch("figure-record");
    figure.save(dir.join("norms.svg")).unwrap();
    let text = std::fs::read_to_string(dir.join("norms.record.json")).unwrap();
    let record: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(record["runs"].as_array().unwrap().len(), 2, "each run once");
    assert_eq!(record["runs"][0]["weights"], model.weights_hash());
    assert_eq!(record["runs"][1]["weights"], other.weights_hash());
    assert_eq!(record["runs"][0]["ids"][1][2], 6);
    assert_eq!(record["grids"][2]["runs"][0], 0);
    assert_eq!(record["grids"][1]["provenance"]["seed"], "7");
    assert_eq!(record["grids"][0]["unit"], "L2 norm");
}
