//! The residual stream of a model that a server runs: the same numbers, the same methods, and plain
//! errors for what a server cannot give.

mod faults;
mod file;
mod server;

use std::path::PathBuf;
use std::time::Duration;

use thalweg::tch::{Device, Kind, Tensor};
use thalweg::{
    Axis, Cache, Config, Intervention, Items, Lens, Metric, Model, Plan, Point, Probing, Record,
    Remote, Similarity, Site, Statistics, Tokens, TunedLensTraining, compare_layers, lens_entropy,
    logit_lens, statistics,
};

use crate::support::{config, distance, model_of, same, says, scratch};
use server::Server;

fn four_layers() -> Config {
    Config { n_layers: 4, ..config() }
}

/// A model of four layers in a directory, and a server of it.
fn served(name: &str, kind: Kind) -> (PathBuf, Model, Server) {
    let dir = scratch(name);
    model_of(four_layers(), kind, 3).save(&dir).unwrap();
    let shared = dir.join("shared");
    std::fs::create_dir_all(&shared).unwrap();
    let model = Model::load_on(&dir, Device::Cpu, kind).unwrap();
    let server = Server::new(&model, &shared);
    (dir, model, server)
}

fn prompts() -> Tokens {
    Tokens::from_ids(&[vec![1, 2, 3, 4, 5], vec![6, 7], vec![8, 9, 10]]).unwrap()
}

fn stream() -> Plan {
    Plan::new().cache([Point::ResidPre, Point::ResidPost]).cache(Site::Embed)
}

/// Equal where there are tokens.
#[track_caller]
fn assert_equal(a: &Cache, b: &Cache, bound: f64) {
    let mask = a.tokens().mask(Device::Cpu).unsqueeze(-1);
    assert_eq!(a.sites().collect::<Vec<_>>(), b.sites().collect::<Vec<_>>());
    for site in a.sites() {
        let own = |cache: &Cache| cache.get(site).unwrap().to_kind(Kind::Double) * &mask;
        let apart = distance(&own(a), &own(b));
        assert!(apart <= bound, "{site}: {apart}");
    }
}

#[test]
fn a_servers_stream_is_the_local_one_at_every_layer() {
    let (_, model, server) = served("served", Kind::Float);
    let remote = server.remote();
    let cache = remote.run(&prompts(), &stream()).unwrap();
    let local = model.run(&prompts(), &stream()).unwrap().cache;
    // Each prompt alone there, padded here: to rounding.
    assert_equal(&cache, &local, 1e-5);
    assert_eq!(cache.tokens().ids(), prompts().ids());
    assert_eq!((cache.n_layers(), remote.n_layers(), remote.d_model()), (4, 4, 12));
    assert_eq!(remote.states(), [0, 1, 2, 3, 4]);
    let shown = format!("Remote tiny at {}: 4 layers, width 12, Float", server.url);
    assert_eq!(format!("{remote:?}"), shown);
    assert!(server.left().is_empty(), "what was read is removed: {:?}", server.left());
    let record = cache.record().unwrap();
    assert_eq!(record.model, format!("tiny at {}", server.url));
    assert_eq!((record.kind.as_str(), record.ids.len()), ("Float", 3));
}

#[test]
fn a_served_model_gives_logits_and_cache_as_a_local_one_does() {
    let (dir, model, server) = served("served-model", Kind::Double);
    let remote = server.remote();
    let there = remote.model_on(&dir, Device::Cpu, Kind::Double).unwrap();
    let plan = stream()
        .cache([Site::FinalScale, Site::FinalNormalized, Site::Logits])
        .intervene(Site::Logits, Intervention::scale(2.0));
    let (own, local) =
        (there.run(&prompts(), &plan).unwrap(), model.run(&prompts(), &plan).unwrap());
    let mask = prompts().mask(Device::Cpu).unsqueeze(-1);
    assert!(distance(&(own.logits * &mask), &(local.logits * &mask)) < 1e-10);
    assert_eq!(own.fired, local.fired);
    let sites = [Site::FinalNormalized, Site::Embed, Point::ResidPost.at(3), Point::ResidPre.at(2)];
    for site in sites {
        let [own, local] = [&own.cache, &local.cache].map(|c| c.get(site).unwrap() * &mask);
        assert!(distance(&own, &local) < 1e-10, "{site}");
    }
    assert!(own.notes[0].contains("the residual stream is of tiny at http://127.0.0.1"));
    let last = there.run(&prompts(), &Plan::new().logits_at(-1)).unwrap().logits;
    let local = model.run(&prompts(), &Plan::new().logits_at(-1)).unwrap().logits;
    assert!(distance(&last, &local) < 1e-10);
    assert!(format!("{there:?}").contains(&format!(", blocks of tiny at {}: Llama", server.url)));
    let record: Record = there.run(&prompts(), &Plan::new()).unwrap().record().unwrap();
    assert!(record.model.contains("blocks of tiny") && record.weights.starts_with("sha256:"));
}

#[test]
fn analyses_that_read_the_stream_work_on_a_served_model_unchanged() {
    let (dir, model, server) = served("served-analyses", Kind::Double);
    let there = server.remote().model_on(&dir, Device::Cpu, Kind::Double).unwrap();
    let caches = [&model, &there].map(|m| m.run(&prompts(), &stream()).unwrap().cache);
    let near = |a: &thalweg::Grid, b: &thalweg::Grid, what: &str| {
        assert_eq!(a.shape(), b.shape(), "{what}");
        let cells = a.values.iter().zip(&b.values).enumerate();
        for (at, (x, y)) in cells {
            let hidden = a.missing.as_ref().is_some_and(|m| m.iter().nth(at) == Some(&true));
            assert!(hidden || (x - y).abs() < 1e-8, "{what}: {x} and {y}");
        }
    };
    let [here, far] = caches.each_ref();
    near(&logit_lens(&model, here, 3).unwrap(), &logit_lens(&there, far, 3).unwrap(), "lens");
    near(&lens_entropy(&model, here).unwrap(), &lens_entropy(&there, far).unwrap(), "entropy");
    let items = |cache: &Cache| Items::tokens(cache, Point::ResidPost.at(2)).unwrap().x;
    assert!(distance(&items(here), &items(far)) < 1e-10);
    let alike = compare_layers(here, far, Similarity::Cka, 0).unwrap();
    assert!((alike.values.get(&["L3", "L3"]).unwrap() - 1.0).abs() < 1e-9);
    // These run the model themselves.
    let fit =
        |model: &Model| TunedLensTraining::new(&prompts(), &prompts()).steps(5).run(model).unwrap();
    let (own, other) = (fit(&model), fit(&there));
    near(&own.held_out, &other.held_out, "tuned lens");
    let tuned = Lens::tuned(&there, &other.lens).unwrap().entropy(far).unwrap();
    near(&Lens::tuned(&model, &own.lens).unwrap().entropy(here).unwrap(), &tuned, "tuned entropy");
    let labels = ["a", "b", "a", "b", "a", "b"];
    let six = Tokens::from_ids(&(0..6).map(|i| vec![1, i + 3, 2]).collect::<Vec<_>>()).unwrap();
    let groups = ["p", "p", "q", "q", "r", "r"];
    let probe = |model: &Model| {
        Probing::new(&six, &labels, &groups).unwrap().folds(3).draws(2).run(model).unwrap()
    };
    let (own, other) = (probe(&model), probe(&there));
    let only = |grid: &thalweg::Grid| grid.select(Axis::Series, 0).unwrap();
    near(&only(&own.accuracy), &only(&other.accuracy), "probe");
    assert_eq!((own.accuracy.shape(), other.accuracy.shape()), (&[5, 4][..], &[5, 3][..]));
    assert_eq!(
        other.accuracy.provenance["no control of shuffled weights"],
        "the blocks run on a server"
    );
    assert!(!format!("{other:?}").contains("shuffled") && format!("{own:?}").contains("shuffled"));
    let gathered = |model: &Model| {
        let mut list = [Statistics::at(Point::ResidPost.at(1)).covariance()];
        statistics(model, [Ok(prompts())], &Plan::new(), &mut list).unwrap();
        list[0].covariance_matrix().unwrap()
    };
    assert!(distance(&gathered(&model), &gathered(&there)) < 1e-10);
}

#[test]
fn what_a_server_cannot_give_is_an_error_that_names_the_local_way() {
    let (dir, _, server) = served("served-lacks", Kind::Float);
    let remote = server.remote();
    let model = remote.model(&dir).unwrap();
    server.asked();
    let zero = Intervention::zero();
    let plans = [
        (Plan::new().cache(Point::Pattern), "records blocks.0.attn.hook_pattern"),
        (Plan::new().cache(Point::ResidMid.at(1)), "records blocks.1.hook_resid_mid"),
        (stream().intervene(Point::ResidPost.at(1), zero), "changes blocks.1.hook_resid_post"),
        (stream().gradients(Metric::loss()), "needs gradients"),
        (stream().differentiable(), "needs gradients"),
        (stream().attention(thalweg::Attention::Eager), "forces Eager attention"),
        (stream().freeze_own(thalweg::Freeze::Norm), "freezes"),
    ];
    for (plan, what) in plans {
        let words = [what, "residual stream only", "Model::load(dir)", "load_spread"];
        says(model.run(&prompts(), &plan), &words);
        says(remote.run(&prompts(), &plan), &words);
    }
    says(remote.run(&prompts(), &Plan::new().cache(Site::Logits)), &["names unembed.hook_out"]);
    says(remote.run(&prompts(), &stream().logits_at(-1)), &["asks for logits"]);
    says(remote.run(&prompts(), &Plan::new()), &["records nothing"]);
    let no_layer = Plan::new().cache(Point::ResidPost.at(7));
    says(model.run(&prompts(), &no_layer), &["blocks.7.hook_resid_post", "layers 0..3"]);
    says(remote.run(&prompts(), &no_layer), &["after 8 blocks", "0..=4"]);
    let whole = "the blocks of this model run at http://127.0.0.1";
    let resid = Tensor::zeros([3, 5, 12], (Kind::Float, Device::Cpu));
    says(model.block(0, &resid, &prompts()).map(|_| ()), &["block", whole]);
    says(model.weight(thalweg::W::Q, 0).map(|_| ()), &["weight Q", whole]);
    says(model.sweep(&prompts(), &[Plan::new()], &Metric::loss()), &["sweep", whole]);
    says(model.generate(&prompts(), 2, &Plan::new()), &["generate", whole]);
    says(model.shuffled(1), &["weights edited", whole]);
    says(model.untied(), &["untied", whole]);
    says(model.save(dir.join("copy")), &["save", whole]);
    assert!(model.weight(thalweg::W::U, 0).is_ok() && model.embed(&prompts()).is_ok());
    assert_eq!(model.trainable().parameters().len(), 3);
    assert!(server.asked().is_empty(), "refused before anything is asked");
}

#[test]
fn a_server_of_another_model_is_found_out() {
    let (_, _, server) = served("served-other", Kind::Float);
    let remote = server.remote();
    let other = |name: &str, config: Config, seed: u64| {
        let dir = scratch(name);
        model_of(config, Kind::Float, seed).save(&dir).unwrap();
        remote.model(dir)
    };
    says(other("served-other-depth", config(), 3), &["2 layers of width 12", "4 of width 12"]);
    let words = ["does not begin with this model's embeddings", "another model"];
    says(other("served-other-seed", four_layers(), 4), &words);
    says(remote.model("no/such/place"), &["no/such/place is not a directory"]);
}

#[test]
fn a_server_that_shows_some_layers_gives_those() {
    let (dir, model, server) = served("served-some", Kind::Float);
    server.change(|state| state.states = vec![1, 3]);
    let remote = server.remote();
    let plan = Plan::new().cache([Point::ResidPost.at(0), Point::ResidPre.at(3)]);
    let cache = remote.run(&prompts(), &plan).unwrap();
    assert_equal(&cache, &model.run(&prompts(), &plan).unwrap().cache, 1e-5);
    assert!(format!("{remote:?}").ends_with("shows [1, 3]"));
    let words = ["does not show the stream after 2 blocks", "[1, 3] of 0..=4"];
    says(remote.run(&prompts(), &Plan::new().cache(Point::ResidPost.at(1))), &words);
    says(remote.model(&dir), &["after the last block", "Remote::run"]);
}

#[test]
fn kinds_are_kept_and_never_narrowed() {
    let (dir, model, server) = served("served-bf16", Kind::BFloat16);
    let remote = server.remote();
    assert_eq!(remote.kind(), Kind::BFloat16);
    let there = remote.model(&dir).unwrap();
    assert_eq!(there.kind(), Kind::BFloat16);
    let one = prompts().row(0).unwrap();
    let x = |model: &Model| {
        model.run(&one, &stream()).unwrap().cache.get(Point::ResidPost.at(3)).unwrap()
    };
    assert!(same(&x(&there), &x(&model)), "a prompt alone is the same to the bit");
    let wide = remote.model_on(&dir, Device::Cpu, Kind::Float).unwrap();
    assert_eq!(x(&wide).kind(), Kind::Float);
    // Weights in bf16, a server that computes in f32.
    let shared = dir.join("shared");
    let server = Server::new(&Model::load_on(&dir, Device::Cpu, Kind::Float).unwrap(), &shared);
    assert_eq!(server.remote().model(&dir).unwrap().kind(), Kind::Float);
    let narrow = server.remote().model_on(&dir, Device::Cpu, Kind::BFloat16);
    says(narrow, &["BFloat16 does not hold", "Float"]);
}

#[test]
fn prompts_are_asked_for_side_by_side_and_no_more_than_said() {
    let (_, _, server) = served("served-many", Kind::Float);
    let rows: Vec<Vec<i64>> = (0..20).map(|i| vec![i % 20, 3, 4]).collect();
    let tokens = Tokens::from_ids(&rows).unwrap();
    let remote = server.remote();
    server.change(|state| state.pause = Duration::from_millis(30));
    let four = remote.clone().in_flight(4).run(&tokens, &stream()).unwrap();
    assert_eq!(server.most(), 4);
    server.change(|state| state.pause = Duration::ZERO);
    let one = remote.in_flight(1).run(&tokens, &stream()).unwrap();
    assert_equal(&four, &one, 0.0);
    assert!(server.left().is_empty());
}

#[test]
fn a_server_that_steers_adds_vectors_as_a_local_model_does() {
    let (dir, model, server) = served("served-steered", Kind::Float);
    server.change(|state| state.steers = true);
    let remote = server.remote();
    assert!(remote.steers() && format!("{remote:?}").ends_with("Float, steers"));
    let there = remote.model(&dir).unwrap();
    let x = |i: i64| Tensor::arange(12, (Kind::Float, Device::Cpu)).sin() * i;
    let add = |i: i64| Intervention::add(&x(i), 1.5).absolute();
    let plans = [
        stream().intervene(Point::ResidPost.at(1), add(1)),
        stream().intervene([Point::ResidPost.at(0), Point::ResidPost.at(2)], add(2).pos(-1)),
        stream().intervene(Point::ResidPost.at(2), add(1).batch([0, 2])),
        stream().intervene(Point::ResidPost.at(2), add(1).batch(0).pos([1, 3])),
        stream()
            .intervene(Point::ResidPost.at(3), add(1))
            .intervene(Point::ResidPost.at(3), add(2)),
    ];
    let mask = prompts().mask(Device::Cpu).unsqueeze(-1);
    let plain = model.run(&prompts(), &stream()).unwrap();
    for plan in &plans {
        let (own, local) =
            (there.run(&prompts(), plan).unwrap(), model.run(&prompts(), plan).unwrap());
        assert_equal(&own.cache, &local.cache, 1e-5);
        assert!(distance(&(&own.logits * &mask), &(&local.logits * &mask)) < 1e-4);
        assert!(distance(&(&own.logits * &mask), &(&plain.logits * &mask)) > 1e-2, "{plan:?}");
        assert_eq!(own.fired, local.fired);
        assert_equal(&remote.run(&prompts(), plan).unwrap(), &local.cache, 1e-5);
    }
    let salts = server.change(|state| std::mem::take(&mut state.salts));
    let mut different = salts.clone();
    different.sort();
    different.dedup();
    assert!(different.len() == salts.len() && salts.iter().all(|salt| salt.contains("thalweg ")));
    let written = Plan::new().intervene(Point::ResidPost.at(1), add(3));
    let local = model.generate(&prompts(), 5, &written).unwrap().new;
    assert_eq!(remote.generate(&prompts(), 5, &written).unwrap(), local);
    assert_ne!(remote.generate(&prompts(), 5, &Plan::new()).unwrap(), local);
    assert!(server.left().is_empty());
}

#[test]
fn a_server_that_does_not_steer_is_not_believed() {
    let (dir, _, server) = served("served-unsteered", Kind::Float);
    let x = Tensor::ones([12], (Kind::Float, Device::Cpu));
    let add = || Intervention::add(&x, 2.0).absolute();
    let steered = stream().intervene(Point::ResidPost.at(1), add());
    let there = server.remote().model(&dir).unwrap();
    let words = ["adds to blocks.1.hook_resid_post", "capture serve --steering"];
    says(there.run(&prompts(), &steered), &words);
    let unrecorded = Plan::new().intervene(Point::ResidPost.at(1), add());
    says(server.remote().generate(&prompts(), 2, &unrecorded), &words);
    server.change(|state| state.steers = true);
    let remote = server.remote();
    let there = remote.model(&dir).unwrap();
    server.faults([server::Fault::Unsteered]);
    says(
        there.run(&prompts().row(0).unwrap(), &steered),
        &["steering is Some(\"none\")", "another server?"],
    );
    let at = |site: Point, change: Intervention| stream().intervene(site.at(1), change);
    for plan in [
        at(Point::ResidPost, Intervention::add(&x, 2.0)),
        at(Point::ResidPost, add().dim(3)),
        at(Point::ResidPre, add()),
        at(Point::ResidPost, Intervention::zero()),
    ] {
        let words = ["changes blocks.1.hook_resid_p", "add(..).absolute()", "Model::load(dir)"];
        says(there.run(&prompts(), &plan), &words);
    }
    let wide = Intervention::add(&Tensor::ones([13], (Kind::Float, Device::Cpu)), 1.0).absolute();
    let wide = stream().intervene(Point::ResidPost.at(1), wide);
    says(remote.run(&prompts(), &wide), &["the direction is [13]", "[12]"]);
    let no_layer = stream().intervene(Point::ResidPost.at(9), add());
    says(remote.run(&prompts(), &no_layer), &["layers 0..3"]);
    says(remote.generate(&prompts(), 2, &stream()), &["generate records nothing here"]);
    says(remote.generate(&prompts(), 62, &Plan::new()), &["prompt 0 has 5 tokens", "takes 2"]);
}

#[test]
fn activations_found_elsewhere_make_a_cache() {
    fn kept<T: Clone + Send + std::fmt::Debug + 'static>() {}
    kept::<Remote>();
    kept::<Model>();
    let tokens = prompts();
    let x = || Tensor::zeros([3, 5, 12], (Kind::Float, Device::Cpu));
    let from = |site: Site, x: Tensor| Cache::from_parts(&tokens, 4, vec![(site, x)]);
    assert!(from(Point::ResidPost.at(3), x()).is_ok());
    says(from(Point::ResidPost.at(4), x()), &["hook_resid_post", "4 layers"]);
    let wrong = from(Site::Embed, x().narrow(1, 0, 4));
    says(wrong, &["hook_embed", "[3, 4, 12]", "3 rows and 5 positions"]);
}
