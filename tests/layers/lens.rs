//! The logit lens in full.

use thalweg::prelude::*;
use thalweg::{Lens, lens_kl, lens_rank, lens_resolution, lens_settled, lens_top_k};

use super::{batch, biased, cached, close, flat, stream};
use crate::support::{model, model_f32, same, says};

#[test]
fn the_unembedding_of_the_last_stream_is_bitwise_the_models_logits() {
    for model in [model(), model_f32(), biased()] {
        let run = cached(&model, &batch(), Point::ResidPost);
        let last = Point::ResidPost.at(1);
        let read = Lens::logit(&model).unembed(last, &run.cache.get(last).unwrap()).unwrap();
        assert!(same(&read, &run.logits));
    }
}

#[test]
fn a_one_hot_residual_written_by_hand_is_read_as_its_token() {
    let model = model();
    let unembed = model.weight(W::U, 0).unwrap(); // [DModel, Vocab]
    let d = model.config().d_model as i64;
    for i in 0..d {
        let hot = Tensor::zeros([d], (Kind::Double, Device::Cpu));
        let _ = hot.get(i).fill_(3.0);
        let logits = Lens::logit(&model).unembed(Site::Embed, &hot).unwrap();
        let norm = model.weight(W::LnFinal, 0).unwrap().double_value(&[i]);
        let best = (unembed.get(i) * norm).argmax(0, false).int64_value(&[]);
        assert_eq!(logits.argmax(0, false).int64_value(&[]), best);
        let hot = 3.0 / (9.0 / d as f64 + model.config().eps).sqrt(); // after the norm
        close(logits.double_value(&[2]), unembed.double_value(&[i, 2]) * norm * hot);
    }
}

#[test]
fn without_the_norms_scale_no_rank_changes_and_without_its_weight_directions_do() {
    let model = model();
    let run = cached(&model, &batch(), stream());
    let lens = Lens::logit(&model);
    let (unscaled, bare) = (lens.clone().without_scale(), lens.clone().without_norm());
    let all = |lens: &Lens| lens.top_k(&run.cache, model.config().d_vocab).unwrap();
    assert_eq!(all(&lens).ids, all(&unscaled).ids);
    assert_ne!(all(&lens).prob.values, all(&unscaled).prob.values);
    let x = run.cache.get(Point::ResidPost.at(1)).unwrap();
    let read = |lens: &Lens| lens.unembed(Point::ResidPost.at(1), &x).unwrap();
    let run = cached(&model, &batch(), Site::FinalScale);
    let scale = run.cache.get(Site::FinalScale).unwrap();
    assert!((read(&unscaled) / scale - run.logits).abs().max().double_value(&[]) < 1e-12);
    let by_hand = x.matmul(&model.weight(W::U, 0).unwrap());
    assert!(same(&read(&bare), &by_hand));
    says(lens.without_norm().unembed(Site::Embed, &x.narrow(2, 0, 3)), &["3", "DModel"]);
    let grid = bare.entropy(&cached(&model, &batch(), stream()).cache).unwrap();
    assert_eq!(grid.provenance["final norm"], "none");
}

#[test]
fn the_k_most_likely_tokens_are_ranked_and_add_up() {
    let model = model();
    let run = cached(&model, &batch(), stream());
    let all = lens_top_k(&model, &run.cache, model.config().d_vocab).unwrap();
    assert_eq!(all.prob.shape(), [3, 5, 5, 23]);
    assert_eq!(all.prob.labels(Axis::Layer).unwrap(), ["embed", "L0 mid", "L0", "L1 mid", "L1"]);
    for (row, len) in [(0, 5), (1, 3), (2, 4)] {
        for pos in 5 - len..5 {
            let at = |layer: i64, rank: i64| all.prob.at(&[row, layer, pos, rank]).unwrap();
            for layer in 0..5 {
                let probs: Vec<f64> = (0..23).map(|rank| at(layer, rank)).collect();
                assert!(probs.is_sorted_by(|a, b| a >= b), "{probs:?}");
                close(probs.iter().sum(), 1.0);
            }
            let own = run.logits.get(row).get(pos);
            let best = own.argmax(0, false).int64_value(&[]);
            assert_eq!(all.ids[[row as usize, 4, pos as usize, 0]], best);
            assert_eq!(all.pieces[[row as usize, 4, pos as usize, 0]], best.to_string());
            let prob = own.softmax(0, Kind::Double).max().double_value(&[]);
            close(at(4, 0), prob);
        }
    }
    says(all.prob.at(&[1, 0, 0, 0]), &["does not exist"]);
    says(lens_top_k(&model, &run.cache, 24), &["24", "1 to 23"]);
    assert!(!format!("{all:?}").contains('\n'));
}

#[test]
fn rank_and_probability_agree_with_the_ranked_tokens() {
    let model = model();
    let run = cached(&model, &batch(), stream());
    let top = lens_top_k(&model, &run.cache, 23).unwrap();
    let answers = vec![2, 5, 0];
    let rank = lens_rank(&model, &run.cache, &answers).unwrap();
    let prob = Lens::logit(&model).prob(&run.cache, &answers).unwrap();
    assert_eq!((rank.unit.as_str(), prob.unit.as_str()), ("rank", "probability"));
    for (index, found) in rank.present() {
        let here = [&index[..], &[found as usize]].concat();
        assert_eq!(top.ids[&here[..]], answers[index[0]]);
        close(top.prob.values[&here[..]], prob.values[&index[..]]);
    }
    assert_eq!(rank.present().count(), 5 * (5 + 3 + 4));
}

/// Blocks passed before `id` is the most likely token for good, by hand.
fn by_hand(rank: &Grid, row: i64, pos: i64) -> Option<f64> {
    let depth = [0.0, 0.5, 1.0, 1.5, 2.0];
    let ranks: Vec<f64> = (0..5).map(|layer| rank.at(&[row, layer, pos]).unwrap()).collect();
    let stays = |from: usize| ranks[from..].iter().all(|rank| *rank == 0.0);
    (0..5).find(|from| stays(*from)).map(|from| depth[from])
}

#[test]
fn a_token_is_settled_where_it_first_is_the_most_likely_and_stays_so() {
    let model = model();
    let tokens = batch();
    let run = cached(&model, &tokens, stream());
    let (mut seen, mut found) = (Vec::new(), 0);
    for id in 0..23 {
        let rank = lens_rank(&model, &run.cache, id).unwrap();
        let settled = lens_resolution(&model, &run.cache, id).unwrap();
        assert_eq!((settled.shape(), settled.unit.as_str()), (&[3, 5][..], "blocks passed"));
        for (row, len) in [(0, 5), (1, 3), (2, 4)] {
            for pos in 5 - len..5 {
                let expected = by_hand(&rank, row, pos);
                assert_eq!(settled.at(&[row, pos]).ok(), expected, "id {id}, row {row} at {pos}");
                seen.extend(expected);
                found += usize::from(expected.is_some());
            }
        }
    }
    assert_eq!(found, 5 + 3 + 4, "each prediction of the model is settled somewhere");
    assert!(seen.contains(&2.0) && seen.iter().any(|x| *x < 2.0), "{seen:?}");
    let own = lens_settled(&model, &run.cache).unwrap();
    let mut own: Vec<f64> = own.present().map(|(_, depth)| depth).collect();
    own.sort_by(f64::total_cmp);
    seen.sort_by(f64::total_cmp);
    assert_eq!(own, seen);
}

#[test]
fn a_set_of_answers_is_settled_by_any_of_them_and_a_tie_settles_nothing() {
    let model = model();
    let run = cached(&model, &batch().row(0).unwrap(), stream());
    let all: Vec<i64> = (0..23).collect();
    let settled = lens_resolution(&model, &run.cache, vec![all]).unwrap();
    assert_eq!(flat(&settled), [0.0; 5]);
    let flat_model = model
        .with_weights(|name, w| {
            Ok(if name == "lm_head.weight" { w.zeros_like() } else { w.shallow_clone() })
        })
        .unwrap();
    let settled = lens_resolution(&flat_model, &run.cache, 3).unwrap();
    assert_eq!(settled.present().count(), 0);
}

#[test]
fn questions_about_the_end_need_the_last_layer() {
    let model = model();
    let run = cached(&model, &batch(), Point::ResidPre);
    says(lens_resolution(&model, &run.cache, 1), &["blocks.1.hook_resid_post", "not cached"]);
    says(lens_settled(&model, &run.cache), &["blocks.1.hook_resid_post"]);
    says(lens_kl(&model, &run.cache), &["blocks.1.hook_resid_post"]);
    let whole = cached(&model, &batch(), stream());
    says(lens_resolution(&model, &whole.cache, vec![1, 2]), &["answers for 2 rows"]);
    // The recorded logits do as well for the divergence.
    let sites = vec![Sites::from(Point::ResidPre), Sites::from(Site::Logits)];
    let run = cached(&model, &batch(), sites);
    let kl = lens_kl(&model, &run.cache).unwrap();
    let from_stream = lens_kl(&model, &whole.cache).unwrap();
    close(kl.at(&[0, 0, 2]).unwrap(), from_stream.at(&[0, 0, 2]).unwrap());
}
