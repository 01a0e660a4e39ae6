//! The prompts at which a feature is largest are those that a sort of everything finds.

use thalweg::prelude::*;
use thalweg::rng::Rng;
use thalweg::{FeatureExamples, max_activating};

use super::top_k;
use crate::support::{model, says};

/// Forty prompts of 2 to 9 tokens, in batches of 7.
fn batches() -> Vec<Tokens> {
    let mut rng = Rng::new(6);
    let rows: Vec<Vec<i64>> =
        (0..40).map(|_| (0..rng.range(2..10)).map(|_| rng.below(23) as i64).collect()).collect();
    rows.chunks(7).map(|rows| Tokens::from_ids(rows).unwrap()).collect()
}

fn examples(
    of: impl Into<thalweg::Features>,
    features: &[usize],
    k: usize,
) -> Vec<FeatureExamples> {
    let list = batches().into_iter().map(Ok);
    max_activating(&model(), list, of, features, k, 1).unwrap()
}

/// Value, prompt and position of each prompt's largest, largest first.
fn sorted(x: impl Fn(&Cache) -> Tensor, site: Site, feature: i64) -> Vec<(f64, usize, usize)> {
    let (model, mut all, mut prompt) = (model(), Vec::new(), 0);
    for tokens in batches() {
        let cache = model.run(&tokens, &Plan::new().cache(site)).unwrap().cache;
        let x = x(&cache).select(-1, feature);
        for row in 0..tokens.batch() {
            let padding = tokens.padding(row);
            let own = |pos: usize| x.double_value(&[row as i64, (padding + pos) as i64]);
            let best = (1..tokens.ids()[row].len()).map(|pos| (own(pos), pos));
            let (value, pos) = best.fold((f64::MIN, 0), |a, b| if b.0 > a.0 { b } else { a });
            all.push((value, prompt, pos));
            prompt += 1;
        }
    }
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    all
}

fn places(found: &FeatureExamples) -> Vec<(f64, usize, usize)> {
    found.top.iter().map(|s| (s.value, s.prompt, s.pos)).collect()
}

#[test]
fn the_largest_are_those_of_a_sort_of_all_prompts() {
    let site = Point::MlpPost.at(1);
    for found in examples(site, &[0, 13, 19], 5) {
        let all = sorted(|cache| cache.get(site).unwrap(), site, found.feature as i64);
        assert_eq!(places(&found), all[..5], "{found:?}");
        assert_eq!(found.prompts, 40);
    }
    let sae = top_k(Point::ResidPost.at(0), 6);
    let latents = |cache: &Cache| sae.encode(&cache.get(sae.site).unwrap()).unwrap();
    for found in examples(&sae, &[2, 29], 4) {
        let all = sorted(latents, sae.site, found.feature as i64);
        assert_eq!(places(&found), all[..4], "{found:?}");
    }
}

#[test]
fn a_snippet_holds_the_activation_at_every_token() {
    let site = Point::MlpPost.at(0);
    let found = examples(site, &[4], 3).remove(0);
    let rows: Vec<Tokens> = batches()
        .iter()
        .flat_map(|b| (0..b.batch()).map(|r| b.row(r).unwrap()).collect::<Vec<_>>())
        .collect();
    for snippet in found.top.iter().chain(&found.random) {
        let tokens = &rows[snippet.prompt];
        let x = model().run(tokens, &Plan::new().cache(site)).unwrap().cache.get(site).unwrap();
        let own = Vec::<f64>::try_from(x.get(0).select(1, 4)).unwrap();
        let grid = &snippet.activations;
        for (a, b) in grid.values.iter().zip(&own) {
            assert!((a - b).abs() < 1e-12);
        }
        assert_eq!(grid.axes[0].labels, tokens.pieces()[0]);
        assert!(!grid.exists(&[0]) && grid.exists(&[1]));
        assert_eq!(grid.values[[snippet.pos]], snippet.value);
    }
}

#[test]
fn what_a_notebook_shows_are_the_tokens_coloured_by_their_activations() {
    use thalweg::{Example, Show};
    let found = examples(Point::MlpPost.at(0), &[4], 3).remove(0);
    let content = found.content();
    let html = format!("{content:?}");
    assert!(html.contains("text/html"), "{html}");
    let example = Example::from(&found.top[0]);
    assert_eq!(example.tokens, found.top[0].tokens());
    assert!(example.values[0].is_nan());
    assert_eq!(example.values[found.top[0].pos], found.top[0].value);
    let line = format!("{found:?}");
    assert!(
        line.starts_with("blocks.0.mlp.hook_post 4: above 0 at ") && !line.contains('\n'),
        "{line}"
    );
}

#[test]
fn prompts_drawn_at_random_are_the_same_for_every_feature_and_every_run() {
    let drawn = |found: &FeatureExamples| found.random.iter().map(|s| s.prompt).collect::<Vec<_>>();
    let found = examples(Point::MlpPost.at(0), &[1, 2], 6);
    assert_eq!(drawn(&found[0]), drawn(&found[1]));
    assert_eq!(drawn(&found[0]), drawn(&examples(Point::MlpPost.at(0), &[1], 6)[0]));
    assert_eq!(drawn(&found[0]).len(), 6);
    assert!(drawn(&found[0]).windows(2).all(|pair| pair[0] < pair[1]));
    // Over many seeds every prompt is drawn about equally often: 6 of 40.
    let mut times = [0; 40];
    for seed in 0..60 {
        let list = batches().into_iter().map(Ok);
        let one = max_activating(&model(), list, Point::MlpPost.at(0), &[0], 6, seed).unwrap();
        drawn(&one[0]).iter().for_each(|prompt| times[*prompt] += 1);
    }
    assert_eq!(times.iter().sum::<i32>(), 360);
    assert!(times.iter().all(|n| (1..=22).contains(n)), "{times:?}");
}

#[test]
fn density_is_the_share_of_tokens_above_zero() {
    let sae = top_k(Point::ResidPost.at(0), 6);
    let found = examples(&sae, &[5], 1).remove(0);
    let (mut on, mut n) = (0.0, 0.0);
    for tokens in batches() {
        let cache = model().run(&tokens, &Plan::new().cache(sae.site)).unwrap().cache;
        let x = sae.encode(&cache.get(sae.site).unwrap()).unwrap().select(-1, 5);
        for row in 0..tokens.batch() {
            let start = tokens.padding(row) as i64 + 1;
            let own = x.get(row as i64).narrow(0, start, tokens.width() as i64 - start);
            on += own.gt(0.0).sum(Kind::Double).double_value(&[]);
            n += own.numel() as f64;
        }
    }
    assert!((found.density - on / n).abs() < 1e-12);
}

#[test]
fn long_prompts_are_shown_around_the_largest() {
    let config = thalweg::Config { n_ctx: 128, ..crate::support::config() };
    let model = crate::support::model_of(config, Kind::Double, 1);
    let ids: Vec<i64> = (0..100).map(|i| i * 7 % 23).collect();
    let tokens = Tokens::from_ids(&[ids]).unwrap();
    let found = max_activating(&model, [Ok(tokens)], Point::MlpPost.at(0), &[3], 1, 1).unwrap();
    let snippet = &found[0].top[0];
    let (from, len) = (snippet.pos.saturating_sub(24), snippet.activations.shape()[0]);
    assert!(len <= 49);
    assert_eq!(snippet.activations.values[[snippet.pos - from]], snippet.value);
}

#[test]
fn features_that_do_not_exist_are_named() {
    let ask = |of: Site, features: &[usize], k| max_activating(&model(), [], of, features, k, 1);
    says(ask(Point::MlpPost.at(0), &[20], 1), &["no feature 20", "0..19"]);
    says(ask(Point::MlpPost.at(7), &[0], 1), &["the model has layers 0..1"]);
    says(ask(Point::Pattern.at(0), &[0], 1), &["its axes are [Batch, Head, Query, Key]"]);
    says(ask(Point::MlpPost.at(0), &[], 1), &["0 features"]);
    says(ask(Point::MlpPost.at(0), &[0], 1), &["no prompt has more than one token"]);
}

#[test]
fn prompts_of_one_token_take_no_place_among_the_random_ones() {
    let mut rows = vec![vec![4]; 30];
    rows.extend([vec![1, 2], vec![3, 4, 5], vec![6, 7]]);
    let batches = rows.chunks(7).map(Tokens::from_ids);
    let found = max_activating(&model(), batches, Point::MlpPost.at(1), &[3], 3, 1).unwrap();
    let prompts: Vec<usize> = found[0].random.iter().map(|snippet| snippet.prompt).collect();
    assert_eq!(prompts, [30, 31, 32]);
}
