//! Head scores on patterns made by hand, and heads taken out.

use thalweg::Config;
use thalweg::prelude::*;

use super::{batch, cached, close, flat, prompt, silent};
use crate::support::{config, model, model_of, says};

/// Head scores where every head's pattern is `cell(query, key)`.
fn scores_of(cell: impl Fn(i64, i64) -> f64, tokens: &Tokens, motif: Motif) -> f64 {
    let n = tokens.width() as i64;
    let values: Vec<f64> = (0..n * n).map(|i| cell(i / n, i % n)).collect();
    let pattern = Intervention::set(&Tensor::from_slice(&values).view([n, n]));
    let plan = Plan::new().intervene(Point::Pattern, pattern).cache(Point::Pattern);
    let cache = model().run(tokens, &plan).unwrap().cache;
    let scores = head_scores(&cache, motif).unwrap();
    assert_eq!(scores.shape(), [2, 4]);
    assert!(scores.values.iter().all(|score| *score == scores.values[[0, 0]]));
    scores.values[[0, 0]]
}

#[test]
fn a_head_that_follows_one_motif_only_scores_one_there_and_zero_elsewhere() {
    // A first token, then a block of 5 given twice.
    let tokens =
        Tokens::from_ids(&[[&[0i64][..], &[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5]].concat()]).unwrap();
    let one = |on: bool| f64::from(u8::from(on));
    use Motif::*;
    let motifs = [PreviousToken, Duplicate, Induction, FirstToken];
    let to: [&dyn Fn(i64) -> i64; 4] = [&|i| i - 1, &|i| i - 5, &|i| i - 4, &|_| 0];
    // The first copy has nothing to look back at: duplicate and induction heads act in the second.
    for (a, to) in to.iter().enumerate() {
        for (b, motif) in motifs.iter().enumerate() {
            let score = scores_of(|i, j| one((i > 5 || a % 3 == 0) && to(i) == j), &tokens, *motif);
            assert!(score == one(a == b), "{:?} scores {score} as {motif:?}", motifs[a]);
        }
    }
}

#[test]
fn a_uniform_pattern_scores_the_mean_share_of_the_scored_queries_only() {
    let block = [7i64, 8, 9];
    let tokens = Tokens::from_ids(&[[&block[..], &block].concat()]).unwrap();
    let share = |queries: std::ops::Range<i64>| {
        let n = (queries.end - queries.start) as f64;
        queries.map(|i| 1.0 / (i + 1) as f64).sum::<f64>() / n
    };
    let uniform = |i: i64, j: i64| if j <= i { 1.0 / (i + 1) as f64 } else { 0.0 };
    close(scores_of(uniform, &tokens, Motif::PreviousToken), share(2..6));
    close(scores_of(uniform, &tokens, Motif::Duplicate), share(3..6));
    close(scores_of(uniform, &tokens, Motif::Induction), share(3..6));
    let noisy = |i: i64, j: i64| if i - j == 2 && i > 2 { 0.25 } else { ((i * 7 + j) % 5) as f64 };
    close(scores_of(noisy, &tokens, Motif::Induction), 0.25);
}

#[test]
fn head_scores_average_over_prompts_and_want_a_repetition() {
    let model = model();
    let tokens = repeated_tokens(&model, 3, 4, 1).unwrap();
    let run = cached(&model, &tokens, Point::Pattern);
    let all = head_scores(&run.cache, Motif::Induction).unwrap();
    let alone = (0..3).map(|row| {
        let one = run.cache.row(row).unwrap();
        head_scores(&one, Motif::Induction).unwrap().at(&[1, 2]).unwrap()
    });
    close(all.at(&[1, 2]).unwrap(), alone.sum::<f64>() / 3.0);
    assert_eq!((all.n, all.interval.is_some()), (3, true));
    let other = cached(&model, &batch(), Point::Pattern);
    says(head_scores(&other.cache, Motif::Duplicate), &["prompt 0", "repeated_tokens"]);
    head_scores(&other.cache, Motif::PreviousToken).unwrap();
}

#[test]
fn top_heads_come_best_first() {
    let values = thalweg::ndarray::array![[0.1, 0.9], [0.5, -2.0]];
    let scores = Grid::from_array(values, &[Axis::Layer, Axis::Head], "attention").unwrap();
    assert_eq!(top_heads(&scores, 3).unwrap(), [(0, 1), (1, 0), (0, 0)]);
    says(top_heads(&scores.select(Axis::Layer, 0).unwrap(), 1), &["[Head]", "[Layer, Head]"]);
}

#[test]
fn repeated_prompts_hold_a_block_of_distinct_tokens_twice_and_follow_their_seed() {
    let model = model_of(Config { bos: Some(2), eos: vec![4], ..config() }, Kind::Float, 1);
    let tokens = repeated_tokens(&model, 20, 9, 3).unwrap();
    for row in tokens.ids() {
        assert_eq!((row.len(), row[0]), (19, 2));
        assert_eq!(row[1..10], row[10..]);
        let distinct: std::collections::HashSet<_> = row[1..10].iter().collect();
        assert_eq!(distinct.len(), 9);
        assert!(!row[1..].contains(&2) && !row.contains(&4));
    }
    assert_eq!(repeated_tokens(&model, 20, 9, 3).unwrap().ids(), tokens.ids());
    assert_ne!(repeated_tokens(&model, 20, 9, 4).unwrap().ids(), tokens.ids());
    says(repeated_tokens(&model, 1, 16, 0), &["33 tokens", "context is 32"]);
    let long = Config { n_ctx: 99, ..config() };
    says(repeated_tokens(&model_of(long, Kind::Float, 1), 1, 24, 0), &["24", "pool of 23"]);
    says(thalweg::repeated_tokens_of(&model, &[5, 6, 5], 1, 2, 0), &["5 is twice"]);
}

#[test]
fn an_ablation_curve_starts_at_the_model_and_takes_heads_out_one_by_one() {
    let model = model();
    let tokens = batch();
    let metric = Metric::logit_diff(2, 3);
    let heads = [(1, 3), (0, 2), (1, 0)];
    let curve = ablation_curve(&model, &tokens, &heads, &Intervention::zero(), &metric).unwrap();
    assert_eq!(curve.labels(Axis::Count).unwrap(), ["0", "1", "2", "3"]);
    let plan = Plan::new()
        .intervene(Point::Z.at(1), Intervention::zero().head([0, 3]))
        .intervene(Point::Z.at(0), Intervention::zero().head(2));
    for (at, plan) in [(0, Plan::new()), (3, plan)] {
        let run = model.run(&tokens, &plan).unwrap();
        let mean = metric.of(&run.logits, &tokens).unwrap().mean(None).double_value(&[]);
        close(curve.at(&[at]).unwrap(), mean);
    }
    let twice = [(1, 3), (1, 3)];
    says(
        ablation_curve(&model, &tokens, &twice, &Intervention::zero(), &metric),
        &["L1H3", "twice"],
    );
}

#[test]
fn ablating_a_head_that_writes_nothing_changes_nothing() {
    let model = silent();
    let metric = Metric::log_prob(3);
    let heads = [(0, 0), (1, 1)];
    let curve = ablation_curve(&model, &prompt(), &heads, &Intervention::zero(), &metric).unwrap();
    assert!(flat(&curve).iter().all(|value| *value == curve.values[[0]]));
}

#[test]
fn random_heads_are_other_heads() {
    let model = model();
    let chosen = [(0, 1), (1, 2)];
    let random = random_heads(&model, 6, &chosen, 9).unwrap();
    assert_eq!(random.len(), 6);
    assert!(chosen.iter().all(|head| !random.contains(head)));
    assert_eq!(random, random_heads(&model, 6, &chosen, 9).unwrap());
    says(random_heads(&model, 7, &chosen, 9), &["7 random heads", "6 are left of 8"]);
}
