//! Scores of an SAE are those that one computes by hand.

use thalweg::prelude::*;
use thalweg::{Sae, SaeKind};

use super::{batch, random, top_k};
use crate::support::{distance, model, says};

/// Vectors of all tokens but the first ones.
fn own(x: &Tensor, tokens: &Tokens) -> Tensor {
    let row = |row: usize| {
        let start = tokens.padding(row) as i64 + 1;
        x.get(row as i64).narrow(0, start, tokens.width() as i64 - start)
    };
    Tensor::cat(&(0..tokens.batch()).map(row).collect::<Vec<_>>(), 0)
}

fn loss(model: &Model, tokens: &Tokens, plan: &Plan) -> f64 {
    let rows = Metric::loss().of(&model.run(tokens, plan).unwrap().logits, tokens).unwrap();
    let each = Vec::<f64>::try_from(rows).unwrap();
    let n: Vec<f64> = tokens.lens().iter().map(|len| *len as f64 - 1.0).collect();
    each.iter().zip(&n).map(|(loss, n)| loss * n).sum::<f64>() / n.iter().sum::<f64>()
}

#[test]
fn scores_are_those_computed_by_hand_also_over_batches() {
    let (model, tokens) = (model(), batch());
    let sae = top_k(Point::ResidPost.at(0), 5);
    let scores = sae.scores(&model, std::slice::from_ref(&tokens)).unwrap();
    let x = model.run(&tokens, &Plan::new().cache(sae.site)).unwrap().cache.get(sae.site).unwrap();
    let x = own(&x, &tokens);
    let latents = sae.encode(&x).unwrap();
    let on = latents.ne(0.0).to_kind(Kind::Double);
    let l0 = on.sum_dim_intlist([1i64].as_slice(), false, None).mean(None).double_value(&[]);
    let centred = &x - x.mean_dim([0i64].as_slice(), false, None);
    let error = &x - sae.reconstruct(&x).unwrap();
    let fvu = (error.square().sum(None) / centred.square().sum(None)).double_value(&[]);
    let dead = on.amax([0i64].as_slice(), false).eq(0.0).to_kind(Kind::Double).mean(None);
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} against {b}");
    close(scores.l0, l0);
    close(scores.fvu, fvu);
    close(scores.dead, dead.double_value(&[]));
    close(scores.frequency.values.sum(), l0);
    let at = |by: Intervention| Plan::new().intervene(sae.site, by.pos(1..));
    let mean = x.mean_dim([0i64].as_slice(), false, None);
    close(scores.loss_clean, loss(&model, &tokens, &Plan::new()));
    close(scores.loss_zero, loss(&model, &tokens, &at(Intervention::zero())));
    close(scores.loss_mean, loss(&model, &tokens, &at(Intervention::set(&mean))));
    let spliced = sae.splice().without_error().pos(1..).plan(Plan::new()).unwrap();
    close(scores.loss_spliced, loss(&model, &tokens, &spliced));
    assert_eq!(scores.tokens, 9);
    let rows: Vec<Tokens> = (0..3).map(|row| tokens.row(row).unwrap()).collect();
    let apart = sae.scores(&model, &rows).unwrap();
    for (a, b) in scores.grid().unwrap().values.iter().zip(apart.grid().unwrap().values.iter()) {
        assert!((a - b).abs() < 1e-9, "{a} against {b}");
    }
}

#[test]
fn an_exact_sae_loses_nothing_and_one_of_the_mean_recovers_what_the_mean_does() {
    let (model, tokens) = (model(), batch());
    let site = Point::ResidPost.at(0);
    let eye = Tensor::eye(12, (Kind::Double, Device::Cpu));
    let both = Tensor::cat(&[&eye, &-&eye], 0);
    let zeros = |n: i64| Tensor::zeros([n], (Kind::Double, Device::Cpu));
    let exact = Sae::new(site, &both.tr(), &zeros(24), &both, &zeros(12)).unwrap();
    let scores = exact.scores(&model, std::slice::from_ref(&tokens)).unwrap();
    assert_eq!((scores.fvu, scores.l0, scores.loss_recovered), (0.0, 12.0, 1.0));
    let x = model.run(&tokens, &Plan::new().cache(site)).unwrap().cache.get(site).unwrap();
    let mean = own(&x, &tokens).mean_dim([0i64].as_slice(), false, None);
    let silent = Sae::new(site, &both.tr(), &(zeros(24) - 1e9), &both, &mean).unwrap();
    let scores = silent.scores(&model, &[tokens]).unwrap();
    assert!((scores.fvu - 1.0).abs() < 1e-12);
    assert_eq!((scores.l0, scores.dead), (0.0, 1.0));
    assert!(scores.loss_recovered_mean.abs() < 1e-9);
}

#[test]
fn a_transcoder_is_scored_at_what_it_writes() {
    let (model, tokens) = (model(), batch());
    let sae = Sae { site_out: Point::MlpOut.at(1), ..random(Point::MlpIn.at(1)) };
    let scores = sae.scores(&model, std::slice::from_ref(&tokens)).unwrap();
    let run = model.run(&tokens, &Plan::new().cache([sae.site, sae.site_out].as_slice())).unwrap();
    let [x, y] = [sae.site, sae.site_out].map(|site| own(&run.cache.get(site).unwrap(), &tokens));
    let centred = &y - y.mean_dim([0i64].as_slice(), false, None);
    let error = &y - sae.reconstruct(&x).unwrap();
    let fvu = (error.square().sum(None) / centred.square().sum(None)).double_value(&[]);
    assert!((scores.fvu / fvu - 1.0).abs() < 1e-12);
    assert!(distance(&sae.reconstruct(&x).unwrap(), &y) > 0.1);
}

#[test]
fn an_sae_of_another_model_is_refused() {
    let model = model();
    says(random(Point::ResidPost.at(9)).scores(&model, &[batch()]), &["the model has layers 0..1"]);
    let sae = random(Point::MlpPost.at(0));
    says(sae.scores(&model, &[batch()]), &["blocks.0.mlp.hook_post has 20 entries, the SAE 12"]);
    let sae = random(Point::ResidPost.at(0));
    says(sae.scores(&model, &[]), &["no prompts"]);
    let short = Tokens::from_ids(&[vec![1]]).unwrap();
    says(sae.scores(&model, &[short]), &["row 0 is one token"]);
    let k = SaeKind::TopK { k: 31, by_decoder_norm: false };
    says(Sae { kind: k, ..sae }.scores(&model, &[batch()]), &["k = 31: expected 1 to 30"]);
}
