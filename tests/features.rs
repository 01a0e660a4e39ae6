//! Dictionaries of latents, what makes features fire, learned subspaces.

use thalweg::prelude::*;
use thalweg::rng::Rng;
use thalweg::{Sae, SaeKind};

mod das;
mod interchange;
mod maxima;
mod saelens;
mod scores;
mod shipped;
mod splice;
mod topk;

fn data(path: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(path)
}

fn tiny_world() -> Model {
    thalweg::tch::set_num_threads(1);
    Model::load_on(data("models/tiny-world"), Device::Cpu, Kind::Float).unwrap()
}

fn shipped() -> Sae {
    Sae::load(data("models/tiny-world-sae")).unwrap()
}

/// Three prompts of different lengths for the tiny random model.
fn batch() -> Tokens {
    Tokens::from_ids(&[vec![1, 4, 9, 2, 7], vec![3, 3, 8], vec![11, 0, 5, 6]]).unwrap()
}

/// A random autoencoder of the tiny random model's stream (12 -> 30), f64.
fn random(site: Site) -> Sae {
    let mut rng = Rng::new(4);
    let mut draw = |shape: &[i64]| rng.normal_tensor(shape).to_kind(Kind::Double);
    let [w_enc, b_enc, w_dec, b_dec] = [draw(&[12, 30]), draw(&[30]), draw(&[30, 12]), draw(&[12])];
    Sae::new(site, &w_enc, &b_enc, &w_dec, &b_dec).unwrap()
}

fn top_k(site: Site, k: usize) -> Sae {
    let sae = Sae { kind: SaeKind::TopK { k, by_decoder_norm: false }, ..random(site) };
    sae.check().unwrap();
    sae
}

fn count(x: &Tensor) -> i64 {
    x.to_kind(Kind::Int64).sum(Kind::Int64).int64_value(&[])
}
