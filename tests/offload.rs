//! A cache that goes to a device or to a file as the run goes on is the cache kept in memory.

use thalweg::tch::{Device, Kind};
use thalweg::{Cache, Intervention, Metric, Model, Plan, Point, Site, Sites, Tokens};

use crate::support::{config, model, model_f32, model_of, same, says, scratch};

fn tokens() -> Tokens {
    Tokens::from_ids(&[vec![1, 2, 3, 4, 5], vec![6, 7, 8]]).unwrap()
}

fn everything() -> Plan {
    let change = Intervention::scale(0.5).head(1);
    Plan::new().cache(Sites::everything()).intervene(Point::Z.at(0), change).logits_at(-2..)
}

#[track_caller]
fn assert_equal(a: &Cache, b: &Cache) {
    assert!(a.sites().eq(b.sites()));
    assert_eq!((a.tokens().ids(), a.n_layers()), (b.tokens().ids(), b.n_layers()));
    for site in a.sites() {
        assert!(same(&a.get(site).unwrap(), &b.get(site).unwrap()), "{site}");
        assert_eq!(a.shape(site), b.shape(site));
    }
}

#[test]
fn a_cache_in_a_file_equals_the_cache_in_memory_bit_by_bit() {
    let dir = scratch("offload");
    let models = [model(), model_f32(), model_of(config(), Kind::BFloat16, 3)];
    for (i, model) in models.iter().enumerate() {
        let path = dir.join(format!("{i}.safetensors"));
        let kept = model.run(&tokens(), &everything()).unwrap();
        let plan = everything().offload_to(&path);
        let away = model.run(&tokens(), &plan).unwrap();
        assert!(same(&away.logits, &kept.logits));
        assert_eq!(away.cache.bytes(), 0);
        assert_equal(&away.cache, &kept.cache);
        assert_equal(&Cache::open(&path).unwrap(), &kept.cache);
        let record = away.record().unwrap();
        assert_eq!(Cache::open(&path).unwrap().record().unwrap(), record);
        assert!(record.plan.contains(&format!("offload to {}", path.display())));
        let saved = dir.join("saved.safetensors");
        away.cache.save(&saved).unwrap();
        assert_equal(&Cache::open(&saved).unwrap(), &kept.cache);
    }
    let names = std::fs::read_dir(&dir).unwrap().map(|file| file.unwrap().file_name());
    assert_eq!(names.count(), models.len() + 1, "nothing temporary is left");
}

#[test]
fn a_cache_moved_to_a_device_equals_the_cache_that_stayed() {
    let kept = model().run(&tokens(), &everything()).unwrap();
    let moved = model().run(&tokens(), &everything().offload(Device::Cpu)).unwrap();
    assert_equal(&moved.cache, &kept.cache);
    assert_eq!(moved.cache.bytes(), kept.cache.bytes());
}

#[test]
fn an_offloaded_cache_serves_patching_and_means() {
    let path = scratch("offload-patch").join("source.safetensors");
    let plan = Plan::new().cache(Point::Z);
    let source = Tokens::from_ids(&[vec![9, 8, 7, 6, 5], vec![4, 3, 2]]).unwrap();
    let kept = model().run(&source, &plan).unwrap().cache;
    let away = model().run(&source, &plan.offload_to(path)).unwrap().cache;
    for change in [Intervention::patch, Intervention::mean, Intervention::mean_by_pos] {
        let [a, b] = [&kept, &away].map(|cache| {
            let plan = Plan::new().intervene(Point::Z.at(1), change(cache));
            model().run(&tokens(), &plan).unwrap().logits
        });
        assert!(same(&a, &b));
    }
}

#[test]
fn a_plan_that_writes_to_a_file_needs_no_memory_for_its_cache() {
    let (model, path) = (model(), scratch("offload-cap").join("x.safetensors"));
    let plan = everything();
    assert!(plan.bytes(model.config(), &tokens(), Kind::Double) > 10_000);
    says(model.run(&tokens(), &plan.clone().cap(10_000)), &["would take", "10000 bytes"]);
    let to_device = plan.clone().offload(Device::Cpu).cap(10_000);
    says(model.run(&tokens(), &to_device), &["would take", "10000 bytes"]);
    let away = plan.offload_to(path);
    assert_eq!(away.bytes(model.config(), &tokens(), Kind::Double), 0);
    assert!(model.run(&tokens(), &away.cap(0)).is_ok());
}

#[test]
fn a_run_that_fails_leaves_no_file_and_the_older_one_as_it_was() {
    let dir = scratch("offload-fails");
    let path = dir.join("x.safetensors");
    let failing = |model: &Model| {
        let fail = Intervention::custom("fails", |_| thalweg::anyhow::bail!("on purpose"));
        let plan = Plan::new().cache(Site::Embed).intervene(Point::Z.at(1), fail);
        model.run(&tokens(), &plan.offload_to(&path))
    };
    says(failing(&model()), &["on purpose"]);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    let old = model().run(&tokens(), &Plan::new().cache(Site::Embed).offload_to(&path)).unwrap();
    says(failing(&model()), &["on purpose"]);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    assert!(old.cache.get(Site::Embed).is_ok());
    let new = model().run(&tokens(), &Plan::new().cache(Site::Embed).offload_to(&path)).unwrap();
    says(old.cache.get(Site::Embed), &["x.safetensors", "another cache has been since"]);
    assert!(new.cache.get(Site::Embed).is_ok());
}

#[test]
fn offloading_that_cannot_be_is_refused_before_any_work() {
    let (model, dir) = (model(), scratch("offload-refused"));
    let run = |plan: Plan| model.run(&tokens(), &plan);
    let cached = Plan::new().cache(Point::Z);
    let graph = cached.clone().gradients(Metric::loss());
    says(run(graph.offload(Device::Cpu)), &["offload", "not together with gradients"]);
    let graph = cached.clone().differentiable().offload_to(dir.join("x"));
    says(run(graph), &["offload", "differentiable"]);
    says(run(Plan::new().offload(Device::Cpu)), &["offload", "no site is cached"]);
    says(run(cached.clone().offload_to(&dir)), &["is a directory"]);
    says(run(cached.offload_to(dir.join("no/such/x"))), &["cannot write", "no/such/x"]);
}
