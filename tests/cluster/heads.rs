//! Heads and tokens of tiny-world, whose kinds are known.

use std::path::Path;

use thalweg::prelude::*;
use thalweg::{Items, Linkage, adjusted_rand_score, kmeans, linkage, repeated_tokens, silhouette};

fn tiny_world() -> Model {
    thalweg::tch::set_num_threads(1);
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/models/tiny-world");
    Model::load_on(dir, Device::Cpu, Kind::Float).unwrap()
}

fn heads(model: &Model) -> Items {
    let tokens = repeated_tokens(model, 8, 12, 1).unwrap();
    let cache = model.run(&tokens, &Plan::new().cache(Point::Pattern)).unwrap().cache;
    Items::patterns(&cache).unwrap()
}

/// What the model's card says of each head.
fn kind(head: &str) -> &'static str {
    match head {
        "L0H1" | "L0H3" | "L0H7" => "previous token",
        _ if head.starts_with("L1") => "induction",
        _ => "other",
    }
}

#[test]
fn clusters_of_patterns_are_the_induction_and_previous_token_heads() {
    let model = tiny_world();
    let items = heads(&model);
    let induction: Vec<bool> = items.labels.iter().map(|head| kind(head) == "induction").collect();
    let two = kmeans(&items, 2, 0).unwrap();
    assert_eq!(adjusted_rand_score(&two.groups, &induction).unwrap(), 1.0, "{two:?}");
    let four = kmeans(&items, 4, 0).unwrap();
    let groups: Vec<Vec<&str>> = (0..4).map(|group| four.members(group)).collect();
    assert!(groups.contains(&vec!["L0H1", "L0H3", "L0H7"]), "{groups:?}");
    let tree = linkage(items.clone().unit().unwrap(), Linkage::Average).unwrap().cut(4).unwrap();
    assert!((0..4).any(|group| {
        let members = tree.members(group);
        members.len() == 8 && members.iter().all(|head| kind(head) == "induction")
    }));
    assert!(silhouette(&items, &four).unwrap().mean > 0.2);
    // Without a mechanism there are no such groups.
    let none = heads(&model.shuffled(3).unwrap());
    let found = kmeans(&none, 2, 0).unwrap();
    let agreement = adjusted_rand_score(&found.groups, &induction).unwrap();
    assert!(agreement < 0.2, "{agreement}");
    let found = kmeans(&none, 4, 0).unwrap();
    assert!((0..4).all(|group| found.members(group) != ["L0H1", "L0H3", "L0H7"]));
}

/// Words of a kind.
const KINDS: [(&str, &str); 3] = [
    (
        "name",
        "Mary Anna Emma Lucy Alice Sarah Julia Laura Rose Clara Helen Nora John Tom James Peter Paul \
         David Mark Henry Oscar Simon Felix Jack",
    ),
    ("adjective", "great good lovely funny superb brilliant dull bad awful boring terrible poor"),
    ("noun", "dogs cats trees cars boats horses birds tables flowers houses boxes keys"),
];

#[test]
fn tokens_in_the_embedding_fall_apart_by_kind() {
    let (mut kinds, mut words) = (Vec::new(), Vec::new());
    for (kind, own) in KINDS {
        own.split(' ').for_each(|word| {
            kinds.push(kind);
            words.push(word);
        });
    }
    let agreement = |model: &Model| {
        let ids: Vec<i64> = words.iter().map(|word| model.token(word).unwrap()).collect();
        let embedding = model.weight(W::E, 0).unwrap().index_select(0, &Tensor::from_slice(&ids));
        let items = Items::new(&embedding, &words).unwrap();
        let groups = kmeans(items.unit().unwrap(), 3, 0).unwrap().groups;
        adjusted_rand_score(&groups, &kinds).unwrap()
    };
    let model = tiny_world();
    assert_eq!(agreement(&model), 1.0);
    let nothing = agreement(&model.shuffled(3).unwrap());
    assert!(nothing < 0.2, "{nothing}");
}
