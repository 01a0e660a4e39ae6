//! Direct logit attribution adds up.

use thalweg::prelude::*;
use thalweg::{Config, neuron_attribution};

use super::{batch, biased, cached, close, flat, prompt};
use crate::support::{config, model, model_of, says};

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
