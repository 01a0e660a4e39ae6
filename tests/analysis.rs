//! Analyses: what they return on models small enough to know the answer.

use thalweg::prelude::*;
use thalweg::{Config, lens_at, lens_entropy, lens_kl, resid_updates, with_first};

use crate::support::{config, distance, model, model_of, says};

mod attribution;
mod figures;
mod heads;
mod pca;

/// Three prompts of different lengths.
fn batch() -> Tokens {
    Tokens::from_ids(&[vec![1, 4, 9, 2, 7], vec![3, 3, 8], vec![11, 0, 5, 6]]).unwrap()
}

fn prompt() -> Tokens {
    let pieces = ["<s>", "the", " cat", " the", " cat"].map(String::from).to_vec();
    Tokens::from_ids(&[vec![1, 4, 9, 4, 9]]).unwrap().labelled(vec![pieces]).unwrap()
}

fn stream() -> [Point; 3] {
    [Point::ResidPre, Point::ResidMid, Point::ResidPost]
}

/// The tiny model with biases everywhere.
fn biased() -> Model {
    model_of(Config { attention_bias: true, mlp_bias: true, ..config() }, Kind::Double, 5)
}

/// The tiny model with every block writing nothing.
fn silent() -> Model {
    let writes = |name: &str| name.contains("o_proj") || name.contains("down_proj");
    model()
        .with_weights(|name, w| Ok(if writes(name) { w.zeros_like() } else { w.shallow_clone() }))
        .unwrap()
}

fn cached(model: &Model, tokens: &Tokens, sites: impl Into<Sites>) -> Run {
    model.run(tokens, &Plan::new().cache(sites)).unwrap()
}

fn flat(grid: &Grid) -> Vec<f64> {
    grid.values.iter().copied().collect()
}

#[track_caller]
fn close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-10, "{a} against {b}");
}

#[test]
fn the_last_row_of_the_lens_is_what_the_model_says() {
    for model in [model(), biased()] {
        let tokens = prompt();
        let run = cached(&model, &tokens, Point::ResidPost);
        let lens = logit_lens(&model, &run.cache, 7).unwrap();
        let own = run.logits.log_softmax(-1, Kind::Double).select(2, 7).flatten(0, -1);
        assert_eq!(
            flat(&lens.select(Axis::Layer, -1).unwrap()),
            Vec::<f64>::try_from(own).unwrap()
        );
    }
}

#[test]
fn the_lens_has_a_row_for_each_place_cached_and_a_column_for_each_token() {
    let model = model();
    let run = cached(&model, &prompt(), stream());
    let lens = logit_lens(&model, &run.cache, 7).unwrap();
    assert_eq!(lens.labels(Axis::Layer).unwrap(), ["embed", "L0 mid", "L0", "L1 mid", "L1"]);
    assert_eq!(lens.labels(Axis::Pos).unwrap(), ["<s>", "the", " cat", " the", " cat"]);
    let run = cached(&model, &prompt(), vec![Point::ResidPre.at(1), Site::Embed]);
    let lens = logit_lens(&model, &run.cache, 7).unwrap();
    assert_eq!(lens.labels(Axis::Layer).unwrap(), ["embed", "L1 pre"]);
}

#[test]
fn the_lens_is_the_same_in_all_layers_when_no_block_writes() {
    let model = silent();
    let run = cached(&model, &prompt(), stream());
    let lens = logit_lens(&model, &run.cache, 3).unwrap();
    let first = flat(&lens.select(Axis::Layer, 0).unwrap());
    for layer in 1..lens.shape()[0] as i64 {
        assert_eq!(flat(&lens.select(Axis::Layer, layer).unwrap()), first);
    }
}

#[test]
fn the_lens_of_a_padded_batch_is_that_of_each_prompt_alone() {
    let (model, tokens) = (model(), batch());
    let run = cached(&model, &tokens, Point::ResidPost);
    let answers = vec![vec![2], vec![5, 6], vec![0]];
    let all = logit_lens(&model, &run.cache, answers.clone()).unwrap();
    assert_eq!(all.shape(), [3, 2, 5]);
    for (row, answer) in answers.into_iter().enumerate() {
        let own = &tokens.row(row).unwrap();
        let alone = cached(&model, own, Point::ResidPost);
        let alone = logit_lens(&model, &alone.cache, vec![answer]).unwrap();
        let here = all.select(Axis::Batch, row as i64).unwrap();
        let here: Vec<f64> = here.present().map(|(_, value)| value).collect();
        assert_eq!(here.len(), 2 * own.width());
        here.iter().zip(flat(&alone)).for_each(|(a, b)| close(*a, b));
    }
}

#[test]
fn positions_of_rows_that_differ_are_counted_from_the_end() {
    let model = model();
    let run = cached(&model, &batch(), Point::ResidPost);
    let lens = logit_lens(&model, &run.cache, 7).unwrap();
    assert_eq!(lens.labels(Axis::Pos).unwrap(), ["-5", "-4", "-3", "-2", "-1"]);
    let equal = Tokens::from_ids(&[vec![1, 2, 3], vec![1, 4, 3]]).unwrap();
    let lens = logit_lens(&model, &cached(&model, &equal, Point::ResidPost).cache, 7).unwrap();
    assert_eq!(lens.labels(Axis::Pos).unwrap(), ["1", "1", "3"]);
}

#[test]
fn the_lens_reads_ranks_entropies_and_distances_too() {
    let model = model();
    let run = cached(&model, &prompt(), stream());
    let top = lens_top(&model, &run.cache).unwrap();
    let best: i64 = top.pieces[(4, 4)].parse().unwrap();
    let rank = lens(&model, &run.cache, &Metric::rank(best)).unwrap();
    assert!(!format!("{top:?}").contains('\n'));
    assert_eq!(rank.get(&["L1", "<s>"]).unwrap().fract(), 0.0);
    assert_eq!(rank.at(&[4, 4]).unwrap(), 0.0);
    let kl = lens_kl(&model, &run.cache).unwrap();
    assert!(flat(&kl.select(Axis::Layer, -1).unwrap()).iter().all(|x| *x == 0.0));
    assert!(kl.at(&[0, 2]).unwrap() > 0.0);
    let log_probs = run.logits.log_softmax(-1, Kind::Double).get(0).get(2);
    let entropy = -(log_probs.exp() * &log_probs).sum(None).double_value(&[]);
    close(lens_entropy(&model, &run.cache).unwrap().at(&[4, 2]).unwrap(), entropy);
    let best = log_probs.exp().max().double_value(&[]);
    close(top.prob.at(&[4, 2]).unwrap(), best);
}

#[test]
fn a_lens_at_the_metrics_position_ends_in_the_metric_itself() {
    let model = biased();
    let tokens = batch().with_role("S", vec![1, 0, 2]).unwrap();
    let run = cached(&model, &tokens, stream());
    for metric in [Metric::logit_diff(vec![2, 5, 8], 3), Metric::log_prob(4).at("S")] {
        let lens = lens_at(&model, &run.cache, &metric).unwrap();
        assert_eq!(lens.shape(), [3, 5]);
        let whole = Vec::<f64>::try_from(metric.of(&run.logits, &tokens).unwrap()).unwrap();
        let last = flat(&lens.select(Axis::Layer, -1).unwrap());
        last.iter().zip(whole).for_each(|(a, b)| close(*a, b));
    }
    says(lens_at(&model, &run.cache, &Metric::loss()), &["loss", "many positions"]);
}

#[test]
fn a_lens_that_cannot_be_read_says_what_it_needs() {
    let model = model();
    let run = cached(&model, &prompt(), Point::Z);
    says(logit_lens(&model, &run.cache, 7), &["no place of the residual stream", "ResidPost"]);
    let run = cached(&model, &batch(), Point::ResidPost);
    says(logit_lens(&model, &run.cache, 99), &["99", "outside the vocabulary"]);
    says(logit_lens(&model, &run.cache, vec![1, 2]), &["answers for 2 rows"]);
    says(lens(&model, &run.cache, &Metric::loss()), &["loss"]);
    says(lens_top(&model, &run.cache), &["3 prompts", "cache.row(0)"]);
}

#[test]
fn norms_and_cosines_are_those_of_the_vectors_and_leave_the_first_token_out() {
    let model = model();
    let run = cached(&model, &prompt(), Point::ResidPost);
    let (low, high) = (
        run.cache.get(Point::ResidPost.at(0)).unwrap().get(0).get(2),
        run.cache.get(Point::ResidPost.at(1)).unwrap().get(0).get(2),
    );
    let norms = resid_norms(&run.cache).unwrap();
    close(norms.at(&[1, 2]).unwrap(), high.norm().double_value(&[]));
    let cosines = resid_cosines(&run.cache).unwrap();
    assert_eq!(cosines.labels(Axis::Layer).unwrap(), ["L0 to L1"]);
    let expected = low.dot(&high) / (low.norm() * high.norm());
    close(cosines.at(&[0, 2]).unwrap(), expected.double_value(&[]));
    let update = (&high - &low).norm() / low.norm();
    close(resid_updates(&run.cache).unwrap().at(&[0, 2]).unwrap(), update.double_value(&[]));
    says(norms.at(&[1, 0]), &["does not exist"]);
    let mean = norms.mean(Axis::Pos).unwrap();
    let row = flat(&norms.select(Axis::Layer, 1).unwrap());
    close(mean.at(&[1]).unwrap(), row[1..].iter().sum::<f64>() / 4.0);
    let all = with_first(norms, &run.cache).unwrap().mean(Axis::Pos).unwrap();
    close(all.at(&[1]).unwrap(), row.iter().sum::<f64>() / 5.0);
}

#[test]
fn blocks_that_write_nothing_turn_nothing() {
    let model = silent();
    let run = cached(&model, &batch(), stream());
    for (_, cosine) in resid_cosines(&run.cache).unwrap().present() {
        close(cosine, 1.0);
    }
    let updates = resid_updates(&run.cache).unwrap();
    assert_eq!(updates.present().count(), 4 * (4 + 2 + 3));
    assert!(updates.present().all(|(_, update)| update == 0.0));
}

#[test]
fn attention_grids_hold_what_exists_and_nothing_else() {
    let model = model();
    let run = cached(&model, &prompt(), Point::Pattern);
    let one = attention_pattern(&run.cache, 1).unwrap();
    let all = attention_patterns(&run.cache).unwrap();
    assert_eq!((one.shape(), all.shape()), (&[4, 5, 5][..], &[2, 4, 5, 5][..]));
    assert_eq!(one.present().count(), 4 * 15);
    assert_eq!(one.labels(Axis::Key).unwrap()[2], " cat");
    assert_eq!(all.at(&[1, 2, 3, 1]).unwrap(), one.at(&[2, 3, 1]).unwrap());
    let run = cached(&model, &batch(), Point::Pattern);
    let padded = attention_pattern(&run.cache, 0).unwrap();
    assert_eq!(padded.present().count(), 4 * (15 + 6 + 10));
    let total: f64 = padded.present().map(|(_, value)| value).sum();
    close(total, 4.0 * (5 + 3 + 4) as f64);
}

#[test]
fn a_row_of_a_cache_is_the_cache_of_that_prompt() {
    let (model, tokens) = (model(), batch());
    let sites = Sites::everything();
    let all = cached(&model, &tokens, sites.clone()).cache;
    for row in 0..3 {
        let own = all.row(row).unwrap();
        let alone = cached(&model, &tokens.row(row).unwrap(), sites.clone()).cache;
        assert_eq!(own.sites().collect::<Vec<_>>(), alone.sites().collect::<Vec<_>>());
        for site in own.sites() {
            let apart = distance(&own.get(site).unwrap(), &alone.get(site).unwrap());
            assert!(apart < 1e-12, "{site} of row {row}: {apart}");
        }
    }
    says(all.row(3), &["row 3"]);
}

#[test]
fn loss_over_all_positions_is_the_loss_and_over_some_the_mean_of_theirs() {
    let (model, tokens) = (model(), batch());
    let logits = model.logits(&tokens).unwrap();
    let each = model.loss(&tokens).unwrap();
    let some = Metric::loss_at([1, 2]).of(&logits, &tokens).unwrap();
    // Row 1 has two tokens of padding: its own position 1 is predicted in column 2.
    let expected = (each.double_value(&[1, 2]) + each.double_value(&[1, 3])) / 2.0;
    close(some.double_value(&[1]), expected);
    let all = Metric::loss().of(&logits, &tokens).unwrap();
    close(all.double_value(&[1]), expected);
    says(Metric::loss_at(0).of(&logits, &tokens), &["position 0 of row 0"]);
    close(
        Metric::logit(4).of(&logits, &tokens).unwrap().double_value(&[2]),
        logits.double_value(&[2, 4, 4]),
    );
}
