//! Logits and every site of random Llamas against reference activations, value by value.
//! `data/golden/make_golden.py` makes the references and checks them against transformers and
//! TransformerLens.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tch::{Device, Kind, Tensor};
use thalweg::{Axis, Model, Plan, Point, Run, Site, Tokens};

#[test]
fn every_site_agrees_with_the_reference_in_f32() {
    every_site_agrees(Kind::Float);
}

#[test]
fn every_site_agrees_with_the_reference_in_f64() {
    every_site_agrees(Kind::Double);
}

#[test]
fn the_reference_names_exactly_our_sites() {
    for golden in Golden::all() {
        let ours = sites(&golden.model(Kind::Float));
        let stored = golden.activations(Kind::Float);
        let names = stored.keys().chain(golden.same.keys()).filter(|n| !n.starts_with(PADDED));
        let mut theirs: Vec<Site> = names.map(|name| name.parse().unwrap()).collect();
        theirs.sort();
        assert_eq!(theirs, { sorted(ours) }, "{}", golden.name);
    }
}

#[test]
fn a_padded_batch_agrees_with_the_reference() {
    for (golden, kind) in padded_cases() {
        let batch = run_everything(&golden.model(kind), &golden.padded);
        let mut apart = Apart::new(&golden, kind);
        for (name, theirs) in golden.activations(kind) {
            let Some(name) = name.strip_prefix(PADDED) else { continue };
            let site: Site = name.parse().unwrap();
            let ours = batch.cache.get(site).unwrap();
            if site.point() == Some(Point::Scores) {
                // Whole: a padded query sees nothing and nothing sees a padded key.
                apart.note(name, gap(&ours, &theirs));
                continue;
            }
            for (row, ids) in golden.padded.iter().enumerate() {
                let [ours, theirs] = [&ours, &theirs].map(|t| own_part(t, site, row, ids.len()));
                apart.note(&format!("{name}, row {row}"), gap(&ours, &theirs));
            }
        }
        apart.done();
    }
}

#[test]
fn a_padded_batch_equals_its_rows_run_alone_at_every_site() {
    for (golden, kind) in padded_cases() {
        let model = golden.model(kind);
        let batch = run_everything(&model, &golden.padded);
        let mut apart = Apart::new(&golden, kind);
        for (row, ids) in golden.padded.iter().enumerate() {
            let alone = run_everything(&model, std::slice::from_ref(ids));
            for site in sites(&model) {
                let together = own_part(&batch.cache.get(site).unwrap(), site, row, ids.len());
                let alone = alone.cache.get(site).unwrap().get(0);
                apart.note(&format!("{site}, row {row}"), gap(&together, &alone));
            }
        }
        apart.done();
    }
}

#[test]
fn a_padded_query_has_pattern_and_z_exactly_zero() {
    for (golden, kind) in padded_cases() {
        let batch = run_everything(&golden.model(kind), &golden.padded);
        let width = golden.padded.iter().map(Vec::len).max().unwrap();
        for (row, ids) in golden.padded.iter().enumerate() {
            let padding = (width - ids.len()) as i64;
            let pattern = batch.cache.get(Point::Pattern.at(1)).unwrap().get(row as i64);
            let z = batch.cache.get(Point::Z.at(1)).unwrap().get(row as i64);
            assert_eq!(total(&pattern.narrow(1, 0, padding)), 0.0, "{}, row {row}", golden.name);
            assert_eq!(total(&z.narrow(0, 0, padding)), 0.0, "{}, row {row}", golden.name);
        }
    }
}

#[test]
fn text_becomes_the_ids_that_the_reference_tokenizer_gave() {
    let mut seen = 0;
    for golden in Golden::all() {
        for (text, ids) in &golden.texts {
            let tokens = golden.model(Kind::Float).tokens(text).unwrap();
            assert_eq!(tokens.ids(), std::slice::from_ref(ids), "{}: {text:?}", golden.name);
            seen += 1;
        }
    }
    assert!(seen > 0);
}

#[test]
fn the_shipped_model_gives_the_ids_and_logits_of_transformers() {
    let shipped = File::read().shipped;
    let model = data().join("../models/tiny-world");
    let model = Model::load_on(model, Device::Cpu, Kind::Float).unwrap();
    let texts: Vec<&str> = shipped.iter().map(|prompt| prompt.text.as_str()).collect();
    let tokens = model.batch(&texts).unwrap();
    let logits = model.logits(&tokens).unwrap();
    let theirs = &stored("tiny-world.f32.safetensors")["unembed.hook_out"];
    for (row, prompt) in shipped.iter().enumerate() {
        assert_eq!(tokens.ids()[row], prompt.ids, "{:?}", prompt.text);
        let [ours, theirs] =
            [&logits, theirs].map(|t| own_part(t, Site::Logits, row, prompt.ids.len()));
        let apart = gap(&ours, &theirs);
        assert!(apart <= 1e-5, "{:?}: {apart:.1e} apart", prompt.text);
    }
    assert!(shipped.len() >= 6);
}

#[test]
fn the_references_would_notice_another_rope() {
    for golden in Golden::all() {
        let folder = copy_without_rope_scaling(&golden);
        let model = Model::load_on(&folder, Device::Cpu, Kind::Double).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        let logits = run_everything(&model, &golden.ids).logits;
        let error = gap(&logits, &golden.activations(Kind::Double)["unembed.hook_out"]);
        let scaled = !golden.name.contains("bf16"); // the one model whose rope is the plain one
        assert_eq!(error > 1e-3, scaled, "{}: {error:.1e} apart without rope scaling", golden.name);
    }
}

const PADDED: &str = "padded/";

/// data/golden/golden.json.
#[derive(Deserialize)]
struct File {
    models: Vec<Golden>,
    shipped: Vec<Prompt>,
}

impl File {
    fn read() -> File {
        let text = fs::read_to_string(data().join("golden.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

#[derive(Deserialize)]
struct Prompt {
    text: String,
    ids: Vec<i64>,
}

/// A random model.
#[derive(Deserialize)]
struct Golden {
    name: String,
    ids: Vec<Vec<i64>>,
    padded: Vec<Vec<i64>>,
    /// Prompts and their ids.
    texts: BTreeMap<String, Vec<i64>>,
    /// Sites not stored, each with the stored site that holds its values.
    same: BTreeMap<String, String>,
}

impl Golden {
    fn all() -> Vec<Golden> {
        let models = File::read().models;
        assert!(models.len() >= 4);
        models
    }

    fn folder(&self) -> PathBuf {
        data().join(&self.name)
    }

    fn model(&self, kind: Kind) -> Model {
        Model::load_on(self.folder(), Device::Cpu, kind).unwrap()
    }

    /// The stored references for a model of this kind, by name.
    fn activations(&self, kind: Kind) -> BTreeMap<String, Tensor> {
        let suffix = if kind == Kind::Double { "f64" } else { "f32" };
        stored(&format!("{}.{suffix}.safetensors", self.name))
    }

    /// The reference at a site in full, also where it is stored under another name.
    fn at(&self, stored: &BTreeMap<String, Tensor>, site: Site) -> Tensor {
        let name = site.to_string();
        let Some(same) = self.same.get(&name) else { return stored[&name].shallow_clone() };
        // The inputs per head repeat the stream once for each head that reads it.
        let reader = match site.point() {
            Some(Point::QInput) => Point::Q,
            Some(Point::KInput) => Point::K,
            Some(Point::VInput) => Point::V,
            _ => return stored[same].shallow_clone(),
        };
        let heads = stored[&reader.at(site.layer().unwrap()).to_string()].size()[2];
        stored[same].unsqueeze(2).expand([-1, -1, heads, -1], false)
    }
}

/// Distances that exceed the limit of a kind, collected so that the first one shows the cause.
struct Apart {
    case: String,
    limit: f64,
    over: Vec<String>,
}

impl Apart {
    fn new(golden: &Golden, kind: Kind) -> Self {
        let limit = if kind == Kind::Double { 1e-9 } else { 1e-5 };
        Apart { case: format!("{} in {kind:?}", golden.name), limit, over: Vec::new() }
    }

    fn note(&mut self, what: &str, gap: f64) {
        if gap.is_nan() || gap > self.limit {
            self.over.push(format!("{what}: {gap:.1e}"));
        }
    }

    fn done(self) {
        let Apart { case, limit, over } = self;
        assert!(over.is_empty(), "{case}: more than {limit:.0e} apart at\n  {}", over.join("\n  "));
    }
}

fn every_site_agrees(kind: Kind) {
    for golden in Golden::all() {
        let model = golden.model(kind);
        let stored = golden.activations(kind);
        let run = run_everything(&model, &golden.ids);
        let mut apart = Apart::new(&golden, kind);
        for site in sites(&model) {
            let ours = run.cache.get(site).unwrap();
            assert_eq!(ours.kind(), kind, "{site}");
            apart.note(&site.to_string(), gap(&ours, &golden.at(&stored, site)));
        }
        let logits = &stored["unembed.hook_out"];
        apart.note("logits", gap(&run.logits, logits));
        // Nothing recorded: the other attention arithmetic.
        let tokens = Tokens::from_ids(&golden.ids).unwrap();
        let plain = model.run(&tokens, &Plan::new()).unwrap();
        apart.note("logits of the plain run", gap(&plain.logits, logits));
        apart.done();
    }
}

fn run_everything(model: &Model, ids: &[Vec<i64>]) -> Run {
    let tokens = Tokens::from_ids(ids).unwrap();
    model.run(&tokens, &Plan::new().cache(sites(model))).unwrap()
}

fn sites(model: &Model) -> Vec<Site> {
    Site::all(model.config().n_layers)
}

fn sorted(mut sites: Vec<Site>) -> Vec<Site> {
    sites.sort();
    sites
}

fn padded_cases() -> Vec<(Golden, Kind)> {
    let with = |kind| Golden::all().into_iter().map(move |golden| (golden, kind));
    let both = with(Kind::Float).chain(with(Kind::Double));
    // `dynamic` rope depends on the row's length by definition, hence has no padded reference.
    let cases: Vec<_> = both.filter(|(golden, _)| !golden.padded.is_empty()).collect();
    assert!(cases.len() >= 6);
    cases
}

/// One row's own positions of a left-padded activation, its last `length`; the batch axis goes.
fn own_part(tensor: &Tensor, site: Site, row: usize, length: usize) -> Tensor {
    let mut part = tensor.get(row as i64);
    for (dim, axis) in site.axes()[1..].iter().enumerate() {
        if matches!(axis, Axis::Pos | Axis::Query | Axis::Key) {
            let width = part.size()[dim];
            part = part.narrow(dim as i64, width - length as i64, length as i64);
        }
    }
    part
}

/// max|ours - theirs| / max|theirs| over unmasked entries; infinite where shapes or masks differ.
fn gap(ours: &Tensor, theirs: &Tensor) -> f64 {
    let masked = theirs.isneginf();
    if ours.size() != theirs.size() || !ours.isneginf().equal(&masked) {
        return f64::INFINITY;
    }
    let [ours, theirs] = [ours, theirs].map(|t| t.to_kind(Kind::Double).masked_fill(&masked, 0.0));
    (ours - &theirs).abs().max().double_value(&[]) / theirs.abs().max().double_value(&[])
}

fn total(tensor: &Tensor) -> f64 {
    tensor.abs().sum(Kind::Double).double_value(&[])
}

/// A copy of the model's directory that says nothing of rope scaling.
fn copy_without_rope_scaling(golden: &Golden) -> PathBuf {
    let copy = std::env::temp_dir().join(format!("golden-{}-{}", golden.name, std::process::id()));
    fs::create_dir_all(&copy).unwrap();
    for entry in fs::read_dir(golden.folder()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
    }
    let config = fs::read_to_string(copy.join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    let keys = config.as_object_mut().unwrap();
    let rope = keys.remove("rope_parameters").or(keys.get("rope_theta").cloned()).unwrap();
    let theta = rope.get("rope_theta").unwrap_or(&rope).clone();
    keys.insert("rope_theta".into(), theta);
    keys.remove("rope_scaling");
    // Without `dynamic` a prompt beyond the context is refused.
    keys.insert("max_position_embeddings".into(), 512.into());
    fs::write(copy.join("config.json"), config.to_string()).unwrap();
    copy
}

fn stored(file: &str) -> BTreeMap<String, Tensor> {
    Tensor::read_safetensors(data().join(file)).unwrap().into_iter().collect()
}

fn data() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/data/golden"))
}
