use thalweg::prelude::*;
use thalweg::{Component, ablation_study};

use crate::induction_model::induction_model;

#[test]
fn an_ablation_study_ranks_the_heads_of_the_induction_circuit_first() {
    let model = induction_model((60.0, 400.0));
    let pool: Vec<i64> = (1..13).collect();
    let tokens = repeated_tokens_of(&model, &pool, 6, 8, 0).unwrap();
    let others = repeated_tokens_of(&model, &pool, 6, 8, 1).unwrap();
    // The last token's next is the first of the block again.
    let loss = Metric::loss_at(10..);
    let config = model.config();
    let components = [Component::mlps(config), Component::heads(config)].concat();
    let baselines = [Ablation::zero(), Ablation::mean(&others), Ablation::resample(&others, 2, 3)];
    let study = ablation_study(&model, &tokens, &components, &baselines, &loss).unwrap();
    for baseline in 0..3 {
        let ranking = study.ranking(baseline).unwrap();
        for (component, effect) in &ranking[..2] {
            assert!(matches!(component, Component::Head(..)) && *effect > 0.5, "{ranking:?}");
        }
        // The control: MLPs write nothing, and nobody misses them.
        assert!(ranking[2..].iter().all(|(_, effect)| effect.abs() < 1e-9), "{ranking:?}");
    }
    let curve = study.knock_out(&model, 1, 12, 5).unwrap();
    let (ranked, random) = (&curve.ranked.values, &curve.random.values);
    assert!(ranked[[1]] - ranked[[0]] > 0.5 && random[[1]] < ranked[[1]], "{curve:?}");
    assert!((ranked[[2]] - ranked[[4]]).abs() < 1e-9, "what is left is not missed");
}

#[test]
fn the_study_finds_the_layers_of_the_induction_circuit_of_tiny_world() {
    let model = Model::load_on("data/models/tiny-world", Device::Cpu, Kind::Float).unwrap();
    thalweg::tch::set_num_threads(1);
    // The symbols that its repeated blocks are made of: a consonant and a vowel.
    let syllable = |piece: &str| {
        let letters: Vec<char> = piece.chars().collect();
        let vowel = |c: &char| "aeiou".contains(*c);
        letters.len() == 2
            && letters[0].is_ascii_lowercase()
            && !vowel(&letters[0])
            && vowel(&letters[1])
    };
    let word = |piece: &str| ["he", "to"].contains(&piece);
    let all = 0..model.config().d_vocab as i64;
    let pool: Vec<i64> =
        all.filter(|id| syllable(&model.piece(*id)) && !word(&model.piece(*id))).collect();
    assert_eq!(pool.len(), 64);
    let [tokens, others] =
        [0, 1].map(|seed| repeated_tokens_of(&model, &pool, 8, 16, seed).unwrap());
    let loss = Metric::loss_at(18..); // over the second copy
    let components = Component::attentions(model.config());
    let baselines = [Ablation::mean(&others), Ablation::resample(&others, 2, 7)];
    let study = ablation_study(&model, &tokens, &components, &baselines, &loss).unwrap();
    for baseline in 0..2 {
        let ranking = study.ranking(baseline).unwrap();
        for (component, effect) in &ranking {
            // Previous-token heads are in layer 0, induction heads in layer 1.
            match component {
                Component::Attention(0 | 1) => assert!(*effect > 2.0, "{ranking:?}"),
                _ => assert!(effect.abs() < 0.5, "{ranking:?}"),
            }
        }
    }
}
