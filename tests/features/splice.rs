//! An SAE in a run: with its error term it changes nothing, and an edit changes its latent alone.

use thalweg::prelude::*;
use thalweg::{Sae, Splice};

use super::{batch, random, top_k};
use crate::support::{distance, model, same, says};

fn logits(model: &Model, splice: &Splice) -> Tensor {
    model.run(&batch(), &splice.plan(Plan::new()).unwrap()).unwrap().logits
}

/// A transcoder from what the MLP of layer 1 reads to what it writes.
fn transcoder() -> Sae {
    let sae = Sae { site_out: Point::MlpOut.at(1), ..random(Point::MlpIn.at(1)) };
    sae.check().unwrap();
    sae
}

#[test]
fn a_splice_with_its_error_leaves_the_logits_as_they_are_to_the_bit() {
    let model = model();
    let plain = model.logits(&batch()).unwrap();
    let z =
        Sae { site: Point::Z.at(1), site_out: Point::Z.at(1), ..random(Point::ResidPost.at(1)) };
    for sae in [random(Point::ResidPost.at(0)), top_k(Point::MlpOut.at(1), 4), transcoder()] {
        assert!(same(&logits(&model, &sae.splice()), &plain), "{sae:?}");
        assert!(same(&logits(&model, &sae.splice().pos(1..)), &plain), "{sae:?}");
        let blind = logits(&model, &sae.splice().without_error());
        assert!(distance(&blind, &plain) > 1e-3, "{sae:?}: the reconstruction is not exact");
    }
    says(model.run(&batch(), &z.splice().plan(Plan::new()).unwrap()), &["reads [.., 12]"]);
}

#[test]
fn without_its_error_the_reconstruction_takes_the_activation_s_place() {
    let model = model();
    let sae = top_k(Point::ResidPost.at(0), 4);
    let x = model.run(&batch(), &Plan::new().cache(sae.site)).unwrap().cache.get(sae.site).unwrap();
    let by_hand = Plan::new().intervene(sae.site, Intervention::set(&sae.reconstruct(&x).unwrap()));
    let by_hand = model.run(&batch(), &by_hand).unwrap().logits;
    assert!(same(&logits(&model, &sae.splice().without_error()), &by_hand));
    let sae = transcoder();
    let run = model.run(&batch(), &Plan::new().cache(sae.site)).unwrap();
    let y = sae.reconstruct(&run.cache.get(sae.site).unwrap()).unwrap();
    let by_hand = Plan::new().intervene(sae.site_out, Intervention::set(&y));
    let by_hand = model.run(&batch(), &by_hand).unwrap().logits;
    assert!(same(&logits(&model, &sae.splice().without_error()), &by_hand));
}

#[test]
fn an_edit_moves_the_activation_along_the_latent_s_direction_by_its_change() {
    let (model, tokens) = (model(), Tokens::from_ids(&[vec![1, 4, 9], vec![3, 3, 8]]).unwrap());
    for sae in [random(Point::ResidPost.at(0)), transcoder()] {
        let plan = Plan::new().cache([sae.site, sae.site_out].as_slice());
        let plain = model.run(&tokens, &plan).unwrap().cache;
        let latent = sae.encode(&plain.get(sae.site).unwrap()).unwrap().narrow(-1, 7, 1);
        let direction = sae.direction(7).unwrap();
        for (splice, change) in [
            (sae.splice().zero(7), -&latent),
            (sae.splice().scale(7, 3.0), &latent * 2.0),
            (sae.splice().set(7, 2.5), 2.5 - &latent),
            (sae.splice().add(7, 2.5), latent.full_like(2.5)),
            (sae.splice().scale(7, 2.0).add(7, 1.0), &latent + 1.0),
        ] {
            let plan = splice.plan(Plan::new().cache(sae.site_out)).unwrap();
            // What is recorded is what the last intervention left.
            let edited = model.run(&tokens, &plan).unwrap().cache.get(sae.site_out).unwrap();
            let expected = plain.get(sae.site_out).unwrap() + change * &direction;
            let off = distance(&edited, &expected);
            assert!(off < 1e-12, "{splice:?}: {off}");
        }
    }
}

#[test]
fn positions_left_out_stay_as_they_are() {
    let model = model();
    let sae = random(Point::ResidPost.at(0));
    let splice = sae.splice().set(3, 9.0).pos(-1);
    let plan = splice.plan(Plan::new().cache(sae.site)).unwrap();
    let edited = model.run(&batch(), &plan).unwrap().cache.get(sae.site).unwrap();
    let plain = model.run(&batch(), &Plan::new().cache(sae.site)).unwrap();
    let plain = plain.cache.get(sae.site).unwrap();
    assert!(same(&edited.narrow(1, 0, 4), &plain.narrow(1, 0, 4)));
    assert!(distance(&edited.select(1, 4), &plain.select(1, 4)) > 0.1);
}

#[test]
fn what_a_broken_run_has_read_does_not_come_into_another() {
    let model = model();
    let sae = transcoder();
    let splice = sae.splice().zero(3).set(7, 1.0);
    // Between the two sites, prompts of one row fail.
    let fail = Intervention::custom("fail", |x| match x.size()[0] {
        1 => Err(thalweg::anyhow::anyhow!("broken")),
        _ => Ok(x.shallow_clone()),
    });
    let plan = splice.plan(Plan::new().intervene(Point::Ln2Normalized.at(1), fail)).unwrap();
    let broken = |tokens: &Tokens| says(model.run(tokens, &plan), &["broken"]);
    for _ in 0..8 {
        let (model, plan) = (model.clone(), plan.clone());
        let run = move || model.run(&Tokens::from_ids(&[vec![2, 2, 2]]).unwrap(), &plan).is_err();
        assert!(std::thread::spawn(run).join().unwrap());
    }
    broken(&Tokens::from_ids(&[vec![9, 9]]).unwrap());
    let logits = model.run(&batch(), &plan).unwrap().logits;
    assert!(same(&logits, &self::logits(&model, &splice)));
}

#[test]
fn a_splice_says_in_one_line_what_it_does_and_what_is_wrong() {
    let sae = random(Point::ResidPost.at(0));
    let splice = sae.splice().zero(7).scale(2, 3.0).pos(1..);
    assert_eq!(
        format!("{splice:?}"),
        "Sae Standard at blocks.0.hook_resid_post: 12 -> 30 -> 12, Double: splice with its error, 7: Set(0.0), 2: Scale(3.0) at positions 1.."
    );
    says(sae.splice().zero(30).plan(Plan::new()), &["there is no latent 30", "0..29"]);
    says(sae.splice().set(1, f64::NAN).plan(Plan::new()), &["expected finite numbers"]);
}
