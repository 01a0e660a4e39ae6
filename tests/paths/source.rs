//! Direct logit attribution split by source token, head and neuron: the parts add up.

use thalweg::prelude::*;
use thalweg::{Split, attribution_by, mixing_sites, token_attribution};

use super::near;
use crate::invariants::{models, tokens};

fn metrics() -> [Metric; 3] {
    [Metric::logit_diff(5, 11), Metric::logit(4).at(-2), Metric::logit_diff(vec![vec![2, 4]], 7)]
}

#[test]
fn source_tokens_of_a_head_add_up_to_its_attribution() {
    for model in models(Kind::Double) {
        let plan = Plan::new().cache(mixing_sites()).cache(attribution_sites());
        let run = model.run(&tokens(), &plan).unwrap();
        for metric in metrics() {
            let sources = token_attribution(&model, &run.cache, &metric).unwrap();
            let heads = head_attribution(&model, &run.cache, &metric).unwrap();
            for (at, head) in heads.present() {
                let own = |index: &[usize]| index[..3] == at[..];
                let parts = sources.present().filter(|(index, _)| own(index));
                near(parts.map(|(_, x)| x).sum(), head);
            }
        }
        let sources = token_attribution(&model, &run.cache, &metrics()[1]).unwrap();
        // Row 1 has three tokens after three of padding, and is read at its last but one.
        assert!(!sources.exists(&[1, 0, 0, 2]) && sources.exists(&[1, 0, 0, 3]));
        assert_eq!(sources.at(&[1, 0, 0, 5]).unwrap(), 0.0);
    }
}

#[test]
fn a_token_that_is_not_attended_to_gives_nothing() {
    let model = &models(Kind::Double)[1];
    let plan = Plan::new()
        .intervene(Point::Scores.at(1), Intervention::knockout(-1, 2).head(3))
        .cache(mixing_sites());
    let prompt = tokens().row(0).unwrap();
    let run = model.run(&prompt, &plan).unwrap();
    let sources = token_attribution(model, &run.cache, &metrics()[0]).unwrap();
    assert_eq!(sources.at(&[1, 3, 2]).unwrap(), 0.0);
    assert!(sources.at(&[1, 2, 2]).unwrap() != 0.0);
}

#[test]
fn every_split_of_what_is_written_adds_up_to_the_metric_with_a_row_for_biases() {
    for model in models(Kind::Double) {
        let run = model.run(&tokens(), &Plan::new().cache(attribution_sites())).unwrap();
        let c = model.config();
        let biased = usize::from(c.attention_bias || c.mlp_bias);
        for metric in metrics() {
            let whole = Vec::<f64>::try_from(metric.of(&run.logits, &tokens()).unwrap()).unwrap();
            for (split, parts) in [
                (Split::Layers, 2),
                (Split::Heads, c.n_heads + 1),
                (Split::Neurons, 1 + c.d_mlp),
                (Split::HeadsAndNeurons, c.n_heads + c.d_mlp),
            ] {
                let grid = attribution_by(&model, &run.cache, &metric, split).unwrap();
                assert_eq!(grid.shape(), [3, 1 + c.n_layers * parts + biased]);
                let labels = grid.labels(Axis::Component).unwrap();
                assert_eq!(labels.last().unwrap() == "bias", biased == 1);
                for (row, whole) in whole.iter().enumerate() {
                    near(grid.select(Axis::Batch, row as i64).unwrap().values.sum(), *whole);
                }
            }
        }
        let grid =
            attribution_by(&model, &run.cache, &metrics()[0], Split::HeadsAndNeurons).unwrap();
        let heads = head_attribution(&model, &run.cache, &metrics()[0]).unwrap();
        assert_eq!(grid.get(&["1", "L2H3"]).unwrap(), heads.at(&[1, 2, 3]).unwrap());
        let neurons = thalweg::neuron_attribution(&model, &run.cache, &metrics()[0], 1).unwrap();
        assert_eq!(grid.get(&["2", "L1N7"]).unwrap(), neurons.at(&[2, 7]).unwrap());
    }
}

#[test]
fn attention_entropy_is_nothing_for_one_key_and_the_logarithm_for_even_attention() {
    let model = &models(Kind::Double)[0];
    let of = |scores: Intervention| {
        let plan = Plan::new().intervene(Point::Scores, scores).cache(Point::Pattern);
        thalweg::head_entropy(&model.run(&tokens().row(0).unwrap(), &plan).unwrap().cache).unwrap()
    };
    let even = of(Intervention::zero());
    let expected = (3..=6).map(|keys| f64::from(keys).ln()).sum::<f64>() / 4.0;
    assert!(even.values.iter().all(|nats| (nats - expected).abs() < 1e-12));
    assert_eq!(even.provenance["of even attention"], format!("{expected:.6}"));
    let one = of(Intervention::knockout(0.., 1..));
    assert!(one.values.iter().all(|nats| *nats == 0.0));
}
