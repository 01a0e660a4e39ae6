//! Hidden states: probes, Patchscopes, function vectors, steering, directions taken out.

mod directions;
mod functions;
mod patchscopes;
mod probes;
mod steering;

use std::path::Path;

use thalweg::prelude::*;
use thalweg::{DirectionEffect, FewShotPrompts, function_vectors};

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

#[test]
fn what_is_found_is_a_notebooks_own_prints_in_a_line_and_knows_its_runs() {
    fn kept<T: Clone + Send + std::fmt::Debug + 'static>(what: &T) {
        let text = format!("{what:?}");
        assert!(!text.contains('\n') && text.len() < 600, "{text}");
    }
    let model = crate::support::model();
    let rows: Vec<Vec<i64>> = (0..12).map(|i| vec![i, i + 3, (5 * i) % 23]).collect();
    let tokens = Tokens::from_ids(&rows).unwrap();
    let labels: Vec<&str> = (0..12).map(|i| ["x", "y"][i % 2]).collect();
    let groups: Vec<String> = (0..12).map(|i| (i / 2).to_string()).collect();
    let metric = Metric::logit_diff(4, 11);
    let weights = model.weights_hash();
    let known = |grid: &Grid| grid.records().iter().any(|record| record.weights == weights);

    let probing = Probing::new(&tokens, &labels, &groups).unwrap().draws(1);
    let report = probing.clone().method(ProbeMethod::MeanDifference).run(&model).unwrap();
    kept(&probing);
    kept(&report);
    kept(report.probe("L1").unwrap());
    assert!(known(&report.accuracy) && known(&report.selectivity));
    assert_eq!(report.accuracy.records().len(), 2); // the shuffled weights ran too

    let site = Point::ResidPost.at(0);
    let (some, others) = (tokens.rows(&[0, 1]).unwrap(), tokens.rows(&[2, 3, 4]).unwrap());
    let vector = steering_vector(&model, &some, &others, site, -1).unwrap();
    let response = DoseResponse::new(&model, &tokens, &vector).draws(2);
    let curve = response.of(&metric).unwrap();
    kept(&vector);
    kept(&response);
    assert_eq!(curve.records().len(), 3); // the prompts steered, and those of the difference

    let effect = DirectionEffect::new(&model, &tokens, &vector.direction).unwrap().draws(2);
    kept(&effect);
    assert!(known(&effect.of(&metric).unwrap()));

    let scope = Patchscope::new(&model, (&some, 0), (&others.row(0).unwrap(), -1)).unwrap();
    kept(&scope);
    assert_eq!(scope.grid(&metric).unwrap().records().len(), 2);
    let one = Patchscope::new(&model, (&some.row(0).unwrap(), 0), (&others.row(0).unwrap(), -1));
    kept(&one.unwrap().top().unwrap());

    let task = FewShotPrompts {
        task: "t".to_owned(),
        few_shot: some.clone(),
        shuffled: others.rows(&[0, 1]).unwrap(),
        zero_shot: some.clone(),
        answers: vec![1, 2],
    };
    let found = function_vectors(&model, std::slice::from_ref(&task)).unwrap();
    kept(&found);
    assert!(known(&found.effect) && known(&found.tasks));
    let added = found.added(&model, &task, &[(0, 1)], (2, 0)).unwrap();
    kept(&added);
    assert!(known(&added.zero_shot) && known(&added.shuffled));
}
