//! The Jacobian lens against products of matrices, brute force and finite differences.

use thalweg::prelude::*;
use thalweg::{JacobianFit, JacobianLens, Lens};

use super::{affine, batch, biased, cached, eye, flat, mlp_matrix};
use crate::support::{distance, model, model_f32, same, says, scratch};

const FIRST: usize = 1;

fn fit(model: &Model, tokens: &Tokens) -> JacobianLens {
    JacobianFit::new(FIRST).run(model, tokens).unwrap()
}

/// Every derivative of the final stream at `target` by the stream before `layer` at `source`, of one
/// prompt: `[DModel, DModel]`, one backward pass an entry of the final stream.
fn derivative(run: &Run, layer: usize, source: i64, target: i64) -> Tensor {
    let end = run.cache.get(Point::ResidPost.at(1)).unwrap();
    let x = run.cache.get(Point::ResidPre.at(layer)).unwrap();
    let row = |i: i64| {
        let entry = end.get(0).get(target).get(i);
        Tensor::run_backward(&[entry], &[&x], true, false)[0].get(0).get(source)
    };
    Tensor::stack(&(0..end.size()[2]).map(row).collect::<Vec<_>>(), 0)
}

/// The mean over sources of the sum over targets, of one prompt.
fn by_hand(model: &Model, tokens: &Tokens, layer: usize, same_position: bool) -> Tensor {
    let plan = Plan::new().cache([Point::ResidPre, Point::ResidPost]).differentiable();
    let run = model.run(tokens, &plan).unwrap();
    let width = tokens.width() as i64;
    let sources = FIRST as i64..width;
    let n = (width - FIRST as i64) as f64;
    let sum = sources.flat_map(|p| {
        let targets = p..if same_position { p + 1 } else { width };
        targets.map(|q| derivative(&run, layer, p, q)).collect::<Vec<_>>()
    });
    sum.fold(Tensor::zeros([1], (Kind::Double, Device::Cpu)), |a, b| a + b) / n
}

#[test]
fn it_is_the_sum_of_all_derivatives_taken_one_by_one() {
    for model in [model(), biased()] {
        let whole = JacobianFit::new(FIRST).at_once(2).run(&model, &batch()).unwrap();
        let own = JacobianFit::new(FIRST).same_position().run(&model, &batch()).unwrap();
        for layer in 0..2 {
            for (lens, same_position) in [(&whole, false), (&own, true)] {
                let each = (0..3)
                    .map(|row| by_hand(&model, &batch().row(row).unwrap(), layer, same_position));
                let mean = each.fold(eye(12) * 0.0, |a, b| a + b) / 3.0;
                assert!(distance(&lens.matrix(layer).unwrap(), &mean) < 1e-12, "layer {layer}");
            }
        }
        assert!(distance(&own.matrix(0).unwrap(), &whole.matrix(0).unwrap()) > 1e-3);
    }
}

#[test]
fn it_is_what_finite_differences_find() {
    let model = model();
    let tokens = batch().row(0).unwrap();
    let lens = fit(&model, &tokens);
    let step = 1e-5;
    for layer in 0..2 {
        let site = Point::ResidPre.at(layer);
        let end = |source: i64, j: i64, by: f64| {
            let direction = eye(12).get(j);
            let push = Intervention::add(&direction, by).absolute().pos(source);
            let plan = Plan::new().intervene(site, push).cache(Point::ResidPost);
            let run = model.run(&tokens, &plan).unwrap();
            let end = run.cache.get(Point::ResidPost.at(1)).unwrap();
            end.get(0).sum_dim_intlist([0i64].as_slice(), false, None) // over all positions
        };
        let column = |j: i64| {
            let each = (1..5).map(|p| (end(p, j, step) - end(p, j, -step)) / (2.0 * step));
            each.fold(eye(12).get(0) * 0.0, |a, b| a + b) / 4.0
        };
        let found = Tensor::stack(&(0..12).map(column).collect::<Vec<_>>(), 1);
        let apart = distance(&lens.matrix(layer).unwrap(), &found);
        assert!(apart < 1e-6, "layer {layer}: {apart}");
    }
}

#[test]
fn in_an_affine_model_it_is_the_product_of_its_blocks_and_reads_their_sum_exactly() {
    let model = affine(0.0);
    let lens = fit(&model, &batch());
    for layer in 0..3 {
        let blocks = (layer..3).map(|l| eye(8) + mlp_matrix(&model, l));
        let whole = blocks.fold(eye(8), |below, block| block.matmul(&below));
        let apart = distance(&lens.matrix(layer).unwrap(), &whole);
        assert!(apart < 1e-11, "layer {layer}: {apart}");
    }
    // Without the biases of its MLPs the model is linear, and the lens says what it says.
    let linear = model
        .with_weights(|name, w| {
            let constant = name.ends_with("up_proj.bias") || name.ends_with("down_proj.bias");
            Ok(if constant { w.zeros_like() } else { w.shallow_clone() })
        })
        .unwrap();
    let lens = Lens::jacobian(&linear, &fit(&linear, &batch())).unwrap();
    let run = cached(&linear, &batch(), [Point::ResidPre, Point::ResidPost]);
    let kl = lens.kl(&run.cache).unwrap();
    assert!(kl.present().all(|(_, kl)| kl.abs() < 1e-11), "{kl:?}");
    let plain = thalweg::lens_kl(&linear, &run.cache).unwrap();
    assert!(plain.get(&["0", "embed", "-1"]).unwrap() > 1e-3);
}

#[test]
fn frozen_attention_enters_with_the_column_sums_of_its_pattern() {
    let model = affine(1.0)
        .with_weights(|name, w| {
            Ok(if name.contains("down_proj") { w.zeros_like() } else { w.shallow_clone() })
        })
        .unwrap();
    let tokens = batch().row(0).unwrap();
    let frozen = Plan::new().freeze_own(Freeze::Pattern);
    let lens = JacobianFit::new(FIRST).plan(frozen).run(&model, &tokens).unwrap();
    let pattern = cached(&model, &tokens, Point::Pattern).cache;
    let pattern = pattern.get(Point::Pattern.at(2)).unwrap().get(0); // [Head, Query, Key]
    let value = model.weight(W::V, 2).unwrap().get(0); // one key/value head
    let out = model.weight(W::O, 2).unwrap();
    let mut expected = eye(8);
    for head in 0..2 {
        let sums = pattern.get(head).sum_dim_intlist([0i64].as_slice(), false, None);
        let mean = sums.narrow(0, 1, 4).mean(None).double_value(&[]);
        expected += value.matmul(&out.get(head)).tr() * mean;
    }
    let apart = distance(&lens.matrix(2).unwrap(), &expected);
    assert!(apart < 1e-11, "{apart}");
}

#[test]
fn below_a_block_that_writes_nothing_it_is_the_identity() {
    let writes = ["layers.1.self_attn.o_proj", "layers.1.mlp.down_proj"];
    let model = model()
        .with_weights(|name, w| {
            let none = writes.iter().any(|part| name.contains(part));
            Ok(if none { w.zeros_like() } else { w.shallow_clone() })
        })
        .unwrap();
    let lens = fit(&model, &batch());
    assert!(distance(&lens.matrix(1).unwrap(), &eye(12)) < 1e-15);
    assert!(distance(&lens.matrix(0).unwrap(), &eye(12)) > 0.1);
    let run = cached(&model, &batch(), Point::ResidPost);
    let read = Lens::jacobian(&model, &lens).unwrap().log_prob(&run.cache, 4).unwrap();
    let last = read.select(Axis::Layer, -1).unwrap();
    let plain = logit_lens(&model, &run.cache, 4).unwrap().select(Axis::Layer, -1).unwrap();
    assert_eq!(flat(&last), flat(&plain));
}

#[test]
fn parts_merged_are_the_whole_whatever_the_batches() {
    let model = model();
    let tokens = batch();
    let whole = fit(&model, &tokens);
    let mut parts = fit(&model, &tokens.rows(&[0]).unwrap());
    parts.merge(&fit(&model, &tokens.rows(&[1, 2]).unwrap())).unwrap();
    let singly = JacobianFit::new(FIRST).at_once(1).run(&model, &tokens).unwrap();
    assert_eq!((parts.prompts(), singly.prompts()), (3, 3));
    for layer in 0..2 {
        let whole = whole.matrix(layer).unwrap();
        assert!(distance(&parts.matrix(layer).unwrap(), &whole) < 1e-13);
        assert!(distance(&singly.matrix(layer).unwrap(), &whole) < 1e-13);
    }
    let other = JacobianFit::new(2).run(&model, &tokens).unwrap();
    says(parts.merge(&other), &["cannot be merged"]);
    says(parts.merge(&fit(&biased(), &tokens)), &["cannot be merged"]);
}

#[test]
fn it_is_saved_with_its_model_and_refuses_any_other() {
    let model = model_f32();
    let lens = fit(&model, &batch());
    let path = scratch("jacobian").join("lens.safetensors");
    lens.save(&path).unwrap();
    let back = JacobianLens::open(&path).unwrap();
    assert_eq!(format!("{back:?}"), format!("{lens:?}"));
    assert!(same(&back.matrix(1).unwrap(), &lens.matrix(1).unwrap()));
    Lens::jacobian(&model, &back).unwrap();
    says(Lens::jacobian(&biased(), &back), &["Jacobian lens", "another model"]);
    says(thalweg::TunedLens::open(&path), &["not a tuned lens", "Jacobian"]);
    says(lens.matrix(2), &["no layer 2", "0..1"]);
}

#[test]
fn prompts_too_short_and_plans_that_record_are_refused() {
    let model = model();
    says(JacobianFit::new(3).run(&model, &batch()), &["prompt 1", "first 3"]);
    let plan = Plan::new().cache(Point::Z);
    says(JacobianFit::new(1).plan(plan).run(&model, &batch()), &["caches sites"]);
}
