//! Weights that can be trained go through the same forward page, and no other weights change.

use thalweg::tch::{self, Kind, Tensor};
use thalweg::{Config, Intervention, Metric, Model, Plan, Point, Tokens};

use crate::support::{config, distance, model_of, same};

fn tokens() -> Tokens {
    Tokens::from_ids(&[vec![3, 1, 4, 1, 5], vec![9, 2, 6]]).unwrap()
}

fn loss(model: &Model) -> Tensor {
    let run = model.run(&tokens(), &Plan::new().differentiable()).unwrap();
    Metric::loss().of(&run.logits, &tokens()).unwrap().mean(None)
}

#[test]
fn a_step_down_the_gradient_lowers_the_loss_and_touches_the_copy_alone() {
    for tied in [false, true] {
        let base = model_of(Config { tied, attention_bias: true, ..config() }, Kind::Double, 3);
        let before = base.logits(&tokens()).unwrap();
        let model = base.trainable();
        let old = loss(&model);
        old.backward();
        let norm: f64 = model
            .parameters()
            .iter()
            .map(|w| w.grad().square().sum(Kind::Double))
            .map(|x| x.double_value(&[]))
            .sum();
        let step = 1e-4;
        {
            let _guard = tch::no_grad_guard();
            for mut w in model.parameters() {
                assert!(w.grad().abs().max().double_value(&[]) > 0.0, "{:?}", w.size());
                w -= w.grad() * step;
            }
        }
        // To first order the loss falls by the step times the squared gradient.
        let fall = (&old - loss(&model)).double_value(&[]);
        assert!((fall / (step * norm) - 1.0).abs() < 0.05, "{fall} of {}", step * norm);
        assert!(same(&base.logits(&tokens()).unwrap(), &before));
        assert!(base.parameters().iter().all(|w| !w.requires_grad()));
    }
}

#[test]
fn a_trainable_model_gives_the_same_logits_and_keeps_no_graph_unasked() {
    let base = model_of(config(), Kind::Double, 3);
    let model = base.trainable();
    let run = model.run(&tokens(), &Plan::new().cache(Point::Z)).unwrap();
    assert!(!run.logits.requires_grad());
    assert!(same(&run.logits, &base.logits(&tokens()).unwrap()));
    let weights = model.named_weights();
    assert!(weights.values().all(|w| !w.requires_grad()));
    let copy = model.with_weights(|_, w| Ok(w.shallow_clone())).unwrap();
    assert!(copy.parameters().iter().all(|w| !w.requires_grad()));
}

#[test]
fn every_parameter_is_given_once() {
    for tied in [false, true] {
        let c = Config { tied, mlp_bias: true, attention_bias: true, ..config() };
        let model = model_of(c, Kind::Double, 3);
        let total: usize = model.parameters().iter().map(Tensor::numel).sum();
        assert_eq!(total, model.config().n_params());
    }
}

#[test]
fn a_direction_inside_a_plan_can_be_searched_through_the_graph() {
    // The gradient of a loss with respect to what a closure adds, as steering by descent needs.
    let model = model_of(config(), Kind::Double, 3);
    let direction = Tensor::zeros([12], (Kind::Double, tch::Device::Cpu)).set_requires_grad(true);
    let own = std::sync::Mutex::new(direction.shallow_clone());
    let add = Intervention::custom("add", move |x| {
        let held = own.lock().map_err(|_| thalweg::anyhow::anyhow!("poisoned"))?;
        Ok(x + &*held)
    });
    let plan = Plan::new().differentiable().intervene(Point::ResidPost.at(0), add);
    let run = model.run(&tokens(), &plan).unwrap();
    run.logits.square().mean(None).backward();
    assert!(direction.grad().abs().max().double_value(&[]) > 0.0);
    assert!(distance(&run.logits.detach(), &model.logits(&tokens()).unwrap()) < 1e-14);
}

#[test]
fn an_untrained_model_has_the_shape_of_the_trained_one_and_none_of_its_numbers() {
    let c = Config { mlp_bias: true, attention_bias: true, ..config() };
    let base = model_of(c, Kind::Double, 3);
    let [one, again, other] = [1, 1, 2].map(|seed| base.untrained(seed).unwrap().named_weights());
    for (name, trained) in base.named_weights() {
        let w = &one[&name];
        assert_eq!((w.size(), w.kind()), (trained.size(), trained.kind()), "{name}");
        assert!(same(w, &again[&name]) && !same(w, &trained), "{name}");
        match w.size()[..] {
            [_, inputs] => {
                assert!(!same(w, &other[&name]), "{name}");
                let variance = if name.contains("embed") { 1.0 } else { 1.0 / inputs as f64 };
                let found = w.square().mean(Kind::Double).double_value(&[]);
                assert!((found / variance - 1.0).abs() < 0.5, "{name}: {found}, not {variance}");
            }
            _ => {
                let expected = if name.ends_with(".bias") { 0.0 } else { 1.0 };
                assert!(w.eq(expected).all().int64_value(&[]) == 1, "{name}");
            }
        }
    }
}
