//! Analyses: what they return on models small enough to know the answer.

use thalweg::anyhow::Result;
use thalweg::prelude::*;
use thalweg::{
    Config, GridAxis, lens_entropy, lens_kl, neuron_attribution, pca_from, pca_of, resid_updates,
    with_first,
};

use crate::support::{config, distance, message, model, model_of, same, says};

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
fn attributions_of_all_components_add_up_to_the_logit_difference() {
    let tied = Config { tied: true, n_kv_heads: 1, ..config() };
    for model in [model(), biased(), model_of(tied, Kind::Double, 3)] {
        let tokens = batch();
        let run = cached(&model, &tokens, attribution_sites());
        let by_row = Metric::logit_diff(vec![2, 5, 8], vec![3, 1, 1]);
        let by_set = Metric::logit_diff(vec![vec![2, 4], vec![5], vec![8, 9, 10]], 0);
        for metric in
            [by_row.clone(), by_set, by_row.at(-2), Metric::logit(4), Metric::logit(4).at(1)]
        {
            let parts = attribution(&model, &run.cache, &metric).unwrap();
            let has_bias = model.config().mlp_bias;
            let labels = parts.labels(Axis::Component).unwrap();
            assert_eq!(labels.last().unwrap() == "bias", has_bias);
            let whole = Vec::<f64>::try_from(metric.of(&run.logits, &tokens).unwrap()).unwrap();
            for (row, whole) in whole.iter().enumerate() {
                close(flat(&parts.select(Axis::Batch, row as i64).unwrap()).iter().sum(), *whole);
            }
        }
    }
}

#[test]
fn attributions_of_heads_and_neurons_add_up_to_their_components() {
    for model in [model(), biased()] {
        let run = cached(&model, &prompt(), attribution_sites());
        let metric = Metric::logit_diff(2, 3);
        let parts = attribution(&model, &run.cache, &metric).unwrap();
        let heads = head_attribution(&model, &run.cache, &metric).unwrap();
        assert_eq!(heads.shape(), [2, 4]);
        for layer in 0..2 {
            let attn = flat(&heads.select(Axis::Layer, layer as i64).unwrap()).iter().sum();
            close(attn, parts.get(&[&format!("L{layer} attn")]).unwrap());
            let neurons = neuron_attribution(&model, &run.cache, &metric, layer).unwrap();
            close(flat(&neurons).iter().sum(), parts.get(&[&format!("L{layer} mlp")]).unwrap());
        }
    }
}

#[test]
fn attributions_of_a_difference_do_not_see_what_every_logit_gains() {
    let model = model();
    let metric = Metric::logit_diff(2, 3);
    let parts = |model: &Model| {
        let run = cached(model, &prompt(), attribution_sites());
        flat(&attribution(model, &run.cache, &metric).unwrap())
    };
    let shifted = model.with_weights(|name, w| {
        Ok(if name == "lm_head.weight" { w + 0.7 } else { w.shallow_clone() })
    });
    let shifted = parts(&shifted.unwrap());
    parts(&model).iter().zip(shifted).for_each(|(a, b)| close(*a, b));
}

#[test]
fn an_attribution_says_what_it_needs() {
    let model = model();
    let run = cached(&model, &prompt(), Point::AttnOut);
    says(attribution(&model, &run.cache, &Metric::logit(1)), &["attribution_sites()"]);
    let run = cached(&model, &prompt(), attribution_sites());
    says(attribution(&model, &run.cache, &Metric::log_prob(1)), &["log_prob", "not linear"]);
    says(attribution(&model, &run.cache, &Metric::logit(23)), &["attribution", "23"]);
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
    assert_eq!(curve.labels(Axis::Plan).unwrap(), ["0", "1", "2", "3"]);
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

/// Eigenvalues (descending) and eigenvectors (rows) of a symmetric matrix, by Jacobi's rotations:
/// slow, short, and independent of libtorch.
fn jacobi(mut a: Vec<Vec<f64>>) -> Vec<(f64, Vec<f64>)> {
    let n = a.len();
    let mut v: Vec<Vec<f64>> =
        (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    for _ in 0..60 {
        for p in 0..n {
            for q in p + 1..n {
                if a[p][q].abs() < 1e-300 {
                    continue;
                }
                let angle = 0.5 * (2.0 * a[p][q]).atan2(a[p][p] - a[q][q]);
                let (s, c) = angle.sin_cos();
                for row in a.iter_mut() {
                    (row[p], row[q]) = (c * row[p] + s * row[q], c * row[q] - s * row[p]);
                }
                for i in 0..n {
                    (a[p][i], a[q][i]) = (c * a[p][i] + s * a[q][i], c * a[q][i] - s * a[p][i]);
                    (v[p][i], v[q][i]) = (c * v[p][i] + s * v[q][i], c * v[q][i] - s * v[p][i]);
                }
            }
        }
    }
    let mut pairs: Vec<_> = (0..n).map(|i| (a[i][i], v[i].clone())).collect();
    pairs.sort_by(|x, y| y.0.total_cmp(&x.0));
    pairs
}

fn cloud(n: i64, d: i64, seed: u64) -> Tensor {
    let mut rng = thalweg::rng::Rng::new(seed);
    let x = rng.normal_tensor(&[n, d]).to_kind(Kind::Double);
    let widths: Vec<f64> = (0..d).map(|i| 3.0 / (1.0 + i as f64)).collect();
    let mix = rng.normal_tensor(&[d, d]).to_kind(Kind::Double);
    (x * Tensor::from_slice(&widths)).matmul(&mix) + 5.0
}

#[test]
fn principal_components_are_those_of_an_independent_computation() {
    // More points than dimensions, and fewer: libtorch's eigenvalues and its singular values.
    for (n, d) in [(40, 6), (7, 11)] {
        let x = cloud(n, d, n as u64);
        let k = d.min(n - 1) as usize;
        let pca = pca_of(&x, k).unwrap();
        let centred = &x - x.mean_dim([0i64].as_slice(), true, None);
        let covariance = centred.tr().matmul(&centred) / (n - 1) as f64;
        let rows = (0..d).map(|i| Vec::<f64>::try_from(covariance.get(i)).unwrap()).collect();
        for (i, (value, vector)) in jacobi(rows).into_iter().take(k).enumerate() {
            close(pca.variance.values[[i]] / value, 1.0);
            let own = Vec::<f64>::try_from(pca.components.get(i as i64)).unwrap();
            let along: f64 = own.iter().zip(&vector).map(|(a, b)| a * b).sum();
            close(along.abs(), 1.0);
            let largest = own.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap();
            assert!(largest > 0.0, "the largest loading of component {i} is {largest}");
        }
    }
}

#[test]
fn all_principal_components_together_hold_all_variance_and_all_data() {
    for (n, d) in [(40, 6), (7, 11)] {
        let x = cloud(n, d, 2);
        let k = d.min(n - 1) as usize;
        let pca = pca_of(&x, k).unwrap();
        close(pca.variance.values.sum() / pca.total, 1.0);
        close(pca.explained.values.sum(), 1.0);
        let unit = pca.components.matmul(&pca.components.tr());
        assert!(distance(&unit, &Tensor::eye(k as i64, (Kind::Double, Device::Cpu))) < 1e-12);
        let scores = pca.transform(&x).unwrap();
        assert!(distance(&(scores.matmul(&pca.components) + &pca.mean), &x) < 1e-12);
        let spread = scores.tr().matmul(&scores) / (n - 1) as f64;
        let variance = Vec::<f64>::try_from(spread.diagonal(0, 0, 1)).unwrap();
        variance.iter().zip(pca.variance.values.iter()).for_each(|(a, b)| close(a / b, 1.0));
        assert!(distance(&spread, &spread.diag(0).diag(0)) < 1e-12);
    }
}

#[test]
fn explained_variance_is_a_share_of_the_total_and_not_of_what_is_kept() {
    let x = cloud(40, 6, 4);
    let (two, all) = (pca_of(&x, 2).unwrap(), pca_of(&x, 6).unwrap());
    assert_eq!(flat(&two.explained), flat(&all.explained)[..2]);
    assert!(two.explained.values.sum() < 0.999);
    assert!(two.scores.labels(Axis::Pc).unwrap()[0].starts_with("PC1 ("));
}

#[test]
fn a_planted_plane_is_found() {
    let mut rng = thalweg::rng::Rng::new(8);
    let plane = rng.normal_tensor(&[2, 30]).to_kind(Kind::Double);
    let points = rng.normal_tensor(&[50, 2]).to_kind(Kind::Double);
    let pca = pca_of(&points.matmul(&plane), 2).unwrap();
    close(pca.explained.values.sum(), 1.0);
    let back = plane.matmul(&pca.components.tr()).matmul(&pca.components);
    assert!(distance(&back, &plane) < 1e-10);
}

#[test]
fn pca_of_a_cache_leaves_out_padding_and_first_tokens() {
    let (model, tokens) = (model(), batch());
    let cache = cached(&model, &tokens, [Point::ResidPost, Point::Z]).cache;
    let site = Point::ResidPost.at(1);
    let own = pca(&cache, site, 2).unwrap();
    assert_eq!(
        own.scores.labels(Axis::Series).unwrap(),
        ["4", "9", "2", "7", "3", "8", "0", "5", "6"]
    );
    let x = cache.get(site).unwrap();
    let rows = [x.get(0).narrow(0, 1, 4), x.get(1).narrow(0, 3, 2), x.get(2).narrow(0, 2, 3)];
    let by_hand = pca_of(&Tensor::cat(&rows, 0), 2).unwrap();
    assert!(same(&own.components, &by_hand.components));
    assert_eq!(flat(&own.scores), flat(&by_hand.scores));
    assert_eq!(pca_from(&cache, site, 2, 0).unwrap().scores.shape(), [12, 2]);
    assert_eq!(pca(&cache, Point::Z.at(0), 3).unwrap().components.size(), [3, 24]);
    let one = cache.row(0).unwrap();
    let axes: Vec<GridAxis> = pca(&one, site, 2).unwrap().scores.axes;
    assert_eq!((axes[0].axis, axes[0].len()), (Axis::Pos, 4));
}

#[test]
fn pca_says_what_it_cannot_do() -> Result<()> {
    let x = cloud(5, 8, 1);
    says(pca_of(&x, 5), &["5 components of 5 points", "1 to 4"]);
    says(pca_of(&Tensor::ones([4, 3], (Kind::Float, Device::Cpu)), 1), &["all 4 points are equal"]);
    says(pca_of(&(x / 0.0), 1), &["non-finite"]);
    let cache = cached(&model(), &prompt(), [Point::Pattern, Point::ResidPost]).cache;
    says(pca(&cache, Point::Pattern.at(0), 1), &["blocks.0.attn.hook_pattern", "[Batch, Pos, ..]"]);
    let error = message(pca(&cache, Point::ResidPost.at(0), 9));
    assert_eq!(
        error,
        "pca at blocks.0.hook_resid_post: 9 components of 4 points in 12 dimensions, expected 1 to 3"
    );
    Ok(())
}
