//! What is known of the induction circuit written by hand, in memory and in the shipped directory.

#[path = "../examples/induction_by_hand/mod.rs"]
mod by_hand;

use thalweg::prelude::*;

use crate::support::distance;
pub(crate) use by_hand::induction_model;
use by_hand::{EPS, VOCAB};

/// `[BOS, perm, perm]` of all ids but BOS.
pub(crate) fn prompt(model: &Model) -> Tokens {
    thalweg::repeated_tokens(model, 1, VOCAB - 1, 5).unwrap()
}

/// The prompt, and the same with another token before the answer in the first copy: nothing to find
/// there any more.
pub(crate) struct Broken {
    pub(crate) clean: Tokens,
    pub(crate) corrupt: Tokens,
    /// Where they differ.
    pub(crate) source: usize,
    /// Where the answer is asked for, by `metric`.
    pub(crate) last: usize,
    pub(crate) metric: Metric,
}

pub(crate) fn broken(model: &Model) -> Broken {
    let clean = prompt(model);
    let ids = &clean.ids()[0];
    let last = ids.len() - 2;
    let source = ids.iter().position(|id| *id == ids[last]).unwrap();
    let mut other = ids.clone();
    other[source] = *ids.iter().find(|id| **id != 0 && **id != ids[last]).unwrap();
    let corrupt = Tokens::from_ids(&[other]).unwrap();
    let metric = Metric::logit(ids[last + 1]).at(last);
    Broken { clean, corrupt, source, last, metric }
}

const BLOCK: usize = VOCAB - 1;

fn everything(model: &Model, tokens: &Tokens) -> Run {
    let plan = Plan::new().cache(Sites::everything()).cache(Point::HeadResult);
    model.run(tokens, &plan).unwrap()
}

/// The logit of every answer, by hand: one-hot parts written through three norms.
fn answer_logit() -> f64 {
    let d = (3 * VOCAB + 1) as f64;
    let rms = |square: f64| (square / d + EPS).sqrt();
    let b = 1.0 / rms(2.0); // what layer 0 writes
    let c = 1.0 / rms(2.0 + b * b); // what layer 1 writes
    c / rms(2.0 + b * b + c * c)
}

fn best(logits: &Tensor) -> Vec<i64> {
    Vec::try_from(logits.argmax(-1, false)).unwrap()
}

#[test]
fn the_previous_token_head_and_the_induction_head_score_one() {
    let model = induction_model((60.0, 400.0));
    let run = everything(&model, &prompt(&model));
    let previous = head_scores(&run.cache, Motif::PreviousToken).unwrap();
    assert!((previous.get(&["L0", "H0"]).unwrap() - 1.0).abs() < 1e-12);
    assert!(previous.get(&["L1", "H0"]).unwrap() < 0.3);
    let induction = head_scores(&run.cache, Motif::Induction).unwrap();
    assert!((induction.get(&["L1", "H0"]).unwrap() - 1.0).abs() < 1e-12);
    assert!(induction.get(&["L0", "H0"]).unwrap() < 1e-12);
    let pattern = attention_pattern(&run.cache, 1).unwrap();
    for i in BLOCK + 1..=2 * BLOCK {
        let cell = pattern.at(&[0, i as i64, (i + 1 - BLOCK) as i64]).unwrap();
        assert!((cell - 1.0).abs() < 1e-12, "query {i}: {cell}");
    }
}

#[test]
fn every_token_of_the_second_copy_is_predicted_with_the_logit_worked_out_by_hand() {
    let model = induction_model((60.0, 400.0));
    let tokens = prompt(&model);
    let logits = model.logits(&tokens).unwrap().get(0);
    let ids = &tokens.ids()[0];
    let best = best(&logits);
    assert!((answer_logit() - 1.7477).abs() < 5e-5);
    for i in BLOCK + 1..2 * BLOCK {
        assert_eq!(best[i], ids[i + 1], "after position {i}");
        let row = Vec::<f64>::try_from(logits.get(i as i64)).unwrap();
        for (id, logit) in row.iter().enumerate() {
            let expected = if id as i64 == ids[i + 1] { answer_logit() } else { 0.0 };
            assert!((logit - expected).abs() < 1e-12, "id {id} after position {i}: {logit}");
        }
    }
}

#[test]
fn the_stream_decomposes_without_remainder_and_the_answer_comes_from_layer_1_alone() {
    let model = induction_model((60.0, 400.0));
    let tokens = prompt(&model);
    let run = everything(&model, &tokens);
    let mut sum = run.cache.get(Site::Embed).unwrap();
    for layer in 0..2 {
        sum = &sum + run.cache.get(Point::HeadResult.at(layer)).unwrap().squeeze_dim(2);
    }
    assert_eq!(distance(&sum, &run.cache.get(Point::ResidPost.at(1)).unwrap()), 0.0);
    let answer = tokens.ids()[0][2 * BLOCK];
    let metric = Metric::logit(answer).at(-2);
    let parts = attribution(&model, &run.cache, &metric).unwrap();
    assert_eq!(
        parts.labels(Axis::Component).unwrap(),
        ["embed", "L0 attn", "L0 mlp", "L1 attn", "L1 mlp"]
    );
    let parts: Vec<f64> = parts.values.iter().copied().collect();
    assert_eq!((parts[0], parts[1], parts[2], parts[4]), (0.0, 0.0, 0.0, 0.0));
    assert!((parts[3] - answer_logit()).abs() < 1e-12);
    let whole = metric.of(&run.logits, &tokens).unwrap().double_value(&[0]);
    assert!((parts[3] - whole).abs() < 1e-14);
}

#[test]
fn the_lens_finds_the_answer_after_layer_1_and_nothing_before() {
    let model = induction_model((60.0, 400.0));
    let tokens = prompt(&model);
    let run = everything(&model, &tokens);
    let answer = tokens.ids()[0][2 * BLOCK];
    let lens = logit_lens(&model, &run.cache, answer).unwrap().select(Axis::Pos, -2).unwrap();
    let uniform = -(VOCAB as f64).ln();
    assert!((lens.get(&["embed"]).unwrap() - uniform).abs() < 1e-12);
    assert!((lens.get(&["L0"]).unwrap() - uniform).abs() < 1e-12);
    let own = answer_logit();
    let expected = own - (own.exp() + (VOCAB - 1) as f64).ln();
    assert!((lens.get(&["L1"]).unwrap() - expected).abs() < 1e-12);
}

#[test]
fn a_residual_vector_written_by_hand_unembeds_to_its_token() {
    let model = induction_model((60.0, 400.0));
    let mut vector = vec![0.0; 3 * VOCAB + 1];
    vector[2 * VOCAB + 7] = 1.0;
    assert_eq!(best(&model.unembed(&Tensor::from_slice(&vector).unsqueeze(0)).unwrap()), [7]);
}

#[test]
fn without_the_previous_token_head_there_is_no_induction() {
    let model = induction_model((60.0, 400.0));
    let tokens = prompt(&model);
    let ids = &tokens.ids()[0];
    let metric = Metric::logit_diff(ids[2 * BLOCK], ids[5]).at(-2);
    let curve = ablation_curve(&model, &tokens, &[(0, 0), (1, 0)], &Intervention::zero(), &metric);
    let curve = curve.unwrap();
    assert!((curve.get(&["0"]).unwrap() - answer_logit()).abs() < 1e-12);
    assert!(curve.get(&["1"]).unwrap() < 0.0);
    assert_eq!(curve.get(&["2"]).unwrap(), 0.0);
    let plan = Plan::new().intervene(Point::Z.at(0), Intervention::zero()).cache(Point::Pattern);
    let cache = model.run(&tokens, &plan).unwrap().cache;
    let score = head_scores(&cache, Motif::Induction).unwrap().get(&["L1", "H0"]).unwrap();
    assert!(score < 0.1, "{score}");
}

#[test]
fn another_tokens_query_moves_the_answer_to_that_tokens_successor() {
    let model = induction_model((60.0, 400.0));
    let tokens = prompt(&model);
    let ids = tokens.ids()[0].clone();
    // The same prompt, but its last token is one of the block's middle.
    let mut other = ids.clone();
    let last = other.len() - 1;
    other[last] = ids[4];
    let other = Tokens::from_ids(&[other]).unwrap();
    let source = everything(&model, &other).cache;
    for point in [Point::Q, Point::RotQ] {
        let plan =
            Plan::new().intervene(point.at(1), Intervention::patch(&source).pos(-1)).logits_at(-1);
        let logits = model.run(&tokens, &plan).unwrap().logits.get(0);
        assert_eq!(best(&logits), [ids[5]]);
    }
}

#[test]
fn cutting_the_edge_to_the_answer_takes_it_away_and_cutting_an_unused_edge_does_not() {
    let model = induction_model((60.0, 400.0));
    let tokens = prompt(&model);
    let (query, answer) = (2 * BLOCK - 1, tokens.ids()[0][2 * BLOCK]);
    let logit = |key: usize| {
        let cut = Intervention::knockout(query, key);
        let plan = Plan::new().intervene(Point::Scores.at(1), cut);
        let run = model.run(&tokens, &plan).unwrap();
        Metric::logit(answer).at(-2).of(&run.logits, &tokens).unwrap().double_value(&[0])
    };
    assert!(logit(query + 1 - BLOCK) < 0.2);
    assert!((logit(3) - answer_logit()).abs() < 1e-12);
}

#[test]
fn soft_heads_still_prefer_their_keys() {
    let model = induction_model((8.0, 14.0));
    let cache = everything(&model, &prompt(&model)).cache;
    let score = |motif, head: [&str; 2]| head_scores(&cache, motif).unwrap().get(&head).unwrap();
    let (previous, induction) =
        (score(Motif::PreviousToken, ["L0", "H0"]), score(Motif::Induction, ["L1", "H0"]));
    assert!(previous > 0.99 && previous < 1.0, "{previous}");
    assert!(induction > 0.9 && induction < 1.0, "{induction}");
}

#[test]
fn the_shipped_directory_is_what_the_code_makes_bit_for_bit() {
    let dir =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/models/induction-by-hand");
    let made = crate::support::scratch("induction-by-hand");
    by_hand::write(&made).unwrap();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&dir).unwrap() {
        let name = entry.unwrap().file_name();
        let read = |dir: &std::path::Path| std::fs::read(dir.join(&name)).unwrap();
        assert!(read(&dir) == read(&made), "{name:?} is not what the code writes");
        names.push(name);
    }
    assert_eq!(names.len(), std::fs::read_dir(&made).unwrap().count());
    let model = Model::load(&dir).unwrap();
    assert_eq!(model.kind(), Kind::Double);
    let tokens = model.tokens("c a f b l c a f").unwrap();
    let best = model.top(&tokens, 1).unwrap().rows.remove(0).remove(0);
    assert!(best.piece == "b" && (best.prob - 0.3236).abs() < 1e-4, "{best:?}");
}
