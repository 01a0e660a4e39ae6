//! Hidden states: probes, Patchscopes, function vectors, steering, directions taken out.

mod directions;
mod functions;
mod patchscopes;
mod probes;
mod steering;

use std::path::Path;

use thalweg::prompts::Prompts;
use thalweg::tch::{Device, Kind, Tensor};
use thalweg::{Model, Tokens};

/// The trained model, and one of its prompt sets.
fn tiny_world() -> Model {
    thalweg::tch::set_num_threads(1);
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/models/tiny-world");
    Model::load_on(data, Device::Cpu, Kind::Float).unwrap()
}

fn prompts(task: &str) -> Prompts {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/prompts");
    Prompts::load(data.join(format!("{task}.json"))).unwrap()
}

/// "The song was awful . I", answered by "loved" or "hated": half of each.
fn sentiment() -> Prompts {
    prompts("sentiment").labelled("verb").unwrap()
}

/// The word at this place of each prompt.
fn words(set: &Prompts, place: usize) -> Vec<String> {
    let word = |text: &str| text.split(' ').nth(place).unwrap().to_owned();
    set.clean().into_iter().map(word).collect()
}

/// The right answer of each prompt.
fn answers(set: &Prompts) -> Vec<String> {
    set.prompts.iter().map(|prompt| prompt.right[0].clone()).collect()
}

/// `x [Batch, Pos, ..]` with zeros for padding, which interventions leave alone.
fn real(x: &Tensor, tokens: &Tokens) -> Tensor {
    x.masked_fill(&tokens.mask(Device::Cpu).logical_not().unsqueeze(-1), 0.0)
}

fn cosine(a: &Tensor, b: &Tensor) -> f64 {
    let [a, b] = [a, b].map(|x| x.to_kind(Kind::Double).flatten(0, -1));
    (a.dot(&b) / (a.norm() * b.norm())).double_value(&[])
}
