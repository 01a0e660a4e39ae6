//! The autoencoder shipped for tiny-world does what its card says.

use thalweg::prelude::*;
use thalweg::rng::Rng;
use thalweg::{Sae, TopKTraining};

use super::{data, shipped, tiny_world};

/// Prompts that end in one of two words.
struct Two {
    tokens: Tokens,
    /// Whether the second word is right.
    second: Vec<bool>,
    ids: [i64; 2],
}

fn two(model: &Model, task: &str, words: [&str; 2], n: usize) -> Two {
    let all = Prompts::load(data(&format!("prompts/{task}.json"))).unwrap();
    let mut rows: Vec<_> =
        all.prompts.iter().filter(|p| words.contains(&p.right[0].as_str())).collect();
    Rng::new(3).shuffle(&mut rows);
    rows.truncate(n);
    let texts: Vec<&str> = rows.iter().map(|p| p.clean.as_str()).collect();
    let second = rows.iter().map(|p| p.right[0] == words[1]).collect();
    let ids = words.map(|word| model.token(word).unwrap());
    Two { tokens: model.batch(&texts).unwrap(), second, ids }
}

/// Which latents are on at the last token, as 0 and 1: `[Batch, d_sae]`.
fn on(model: &Model, sae: &Sae, two: &Two) -> Tensor {
    let run = model.run(&two.tokens, &Plan::new().cache(sae.site)).unwrap();
    let last = run.cache.get(sae.site).unwrap().select(1, -1);
    sae.encode(&last).unwrap().gt(0.0).to_kind(Kind::Double)
}

/// For each latent, the share of prompts told apart by its being on before the second word.
fn tells(on: &Tensor, second: &[bool]) -> Vec<f64> {
    let kind = Tensor::from_slice(second).to_kind(Kind::Double).unsqueeze(1);
    let share = |kind: &Tensor| {
        (on * kind).sum_dim_intlist([0i64].as_slice(), false, None) / kind.sum(None)
    };
    Vec::<f64>::try_from((share(&kind) - share(&(1.0 - &kind)) + 1.0) / 2.0).unwrap()
}

/// Mean fall of the logit difference at the prompts before the second word, when latents are turned
/// off at their last token.
fn fall(model: &Model, sae: &Sae, two: &Two, latents: &[usize]) -> f64 {
    let rows: Vec<usize> = (0..two.second.len()).filter(|row| two.second[*row]).collect();
    let tokens = two.tokens.rows(&rows).unwrap();
    let metric = Metric::logit_diff(two.ids[1], two.ids[0]);
    let splice = latents.iter().fold(sae.splice().pos(-1), |splice, latent| splice.zero(*latent));
    let plan = splice.plan(Plan::new()).unwrap();
    let value = |plan: &Plan| {
        let run = model.run(&tokens, plan).unwrap();
        metric.of(&run.logits, &tokens).unwrap().mean(Kind::Double).double_value(&[])
    };
    value(&Plan::new()) - value(&plan)
}

#[test]
fn a_latent_of_the_shipped_sae_carries_a_variable_and_random_ones_do_not() {
    let (model, sae) = (tiny_world(), shipped());
    for (task, words) in [("agree", ["is", "are"]), ("pronoun", ["he", "she"])] {
        let two = two(&model, task, words, 60);
        let on = on(&model, &sae, &two);
        let tells = tells(&on, &two.second);
        // A variable may be split among a few latents.
        let own: Vec<usize> = (0..tells.len()).filter(|latent| tells[*latent] > 0.95).collect();
        assert!((1..=4).contains(&own.len()), "{task}: {own:?} tell {words:?} apart");
        let cost = fall(&model, &sae, &two, &own);
        assert!(cost > 5.0, "{task}: without {own:?} the difference falls by {cost} nats");
        let best = own.iter().map(|latent| fall(&model, &sae, &two, &[*latent]));
        let best = best.fold(0.0, f64::max);
        assert!(best > 3.0, "{task}: the best of them is worth {best} nats");
        // Control: others that are on at the same tokens.
        let row = two.second.iter().position(|second| *second).unwrap() as i64;
        let others = Vec::<i64>::try_from(on.get(row).nonzero().squeeze_dim(1)).unwrap();
        for other in others.into_iter().map(|o| o as usize).filter(|other| !own.contains(other)) {
            let random = fall(&model, &sae, &two, &[other]);
            assert!(random < 0.3 * cost, "{task}: latent {other} costs {random}, {own:?} {cost}");
        }
    }
}

#[test]
fn an_sae_finds_the_number_of_the_subject_in_tiny_world_and_not_in_shuffled_weights() {
    let model = tiny_world();
    let site = Point::ResidPost.at(2);
    let two = two(&model, "agree", ["is", "are"], 240);
    let best = |model: &Model| {
        let run = model.run(&two.tokens, &Plan::new().cache(site).logits_at(-1)).unwrap();
        let x = run.cache.get(site).unwrap();
        let rows = (0..two.tokens.batch()).map(|row| {
            let start = two.tokens.padding(row) as i64 + 1;
            x.get(row as i64).narrow(0, start, two.tokens.width() as i64 - start)
        });
        let x = Tensor::cat(&rows.collect::<Vec<_>>(), 0);
        let short =
            TopKTraining { steps: 150, batch: 256, rate: 4e-3, ..TopKTraining::new(128, 6, 1) };
        let (sae, _) = short.train(site, &x).unwrap();
        tells(&on(model, &sae, &two), &two.second).into_iter().fold(0.0, f64::max)
    };
    let (own, control) = (best(&model), best(&model.shuffled(1).unwrap()));
    assert!(own > 0.95, "the best latent tells {own} apart");
    assert!(control < 0.8, "with shuffled weights {control}");
}

#[test]
fn the_shipped_sae_explains_its_site_with_few_latents_and_loses_nearly_nothing() {
    let (model, sae) = (tiny_world(), shipped());
    let tokens: Vec<Tokens> = ["ioi", "sentiment", "fact", "recall"]
        .map(|task| {
            let set = Prompts::load(data(&format!("prompts/{task}.json"))).unwrap();
            model.batch(&set.first(24).clean()).unwrap()
        })
        .into();
    let scores = sae.scores(&model, &tokens).unwrap();
    assert!(scores.l0 <= 8.0 && scores.fvu < 0.06, "{scores:?}");
    assert!(scores.loss_recovered > 0.99 && scores.loss_recovered_mean > 0.99, "{scores:?}");
    assert!(
        std::fs::metadata(data("models/tiny-world-sae/sae_weights.safetensors")).unwrap().len()
            < 700_000
    );
}
