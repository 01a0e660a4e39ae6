//! What a run promises besides its numbers: gradients that are true, a grad mode left alone,
//! records that cannot rot.

use std::panic::{AssertUnwindSafe, catch_unwind};

use thalweg::rng::Rng;
use thalweg::tch::{self, Kind, Tensor};
use thalweg::{
    Attention, Cache, Config, Intervention, Metric, Model, Plan, Point, Position, Site, Sites,
    Tokens,
};

use crate::support::{config, distance, message, model, model_f32, model_of, same, says, scratch};

const NAMED: [Point; 5] =
    [Point::QInput, Point::KInput, Point::VInput, Point::MlpIn, Point::HeadResult];

fn tokens() -> Tokens {
    Tokens::from_ids(&[vec![3, 1, 4, 1, 5], vec![9, 2, 6]]).unwrap()
}

fn everything() -> Plan {
    Plan::new().cache(Sites::everything()).cache(NAMED)
}

fn metric() -> Metric {
    Metric::logit_diff(vec![7, 8], vec![2, 3])
}

/// The metric's sum over rows when `x` is put in at `site`.
fn put(model: &Model, site: Site, x: &Tensor, tokens: &Tokens) -> f64 {
    let plan = Plan::new().attention(Attention::Eager).intervene(site, Intervention::set(x));
    let run = model.run(tokens, &plan).unwrap();
    metric().of(&run.logits, tokens).unwrap().sum(Kind::Double).double_value(&[])
}

/// (f(x + h v) - f(x - h v)) / 2h along a random v against the recorded gradient along v.
fn check_gradient(model: &Model, site: Site, cache: &Cache, gradients: &Cache, tokens: &Tokens) {
    let x = cache.get(site).unwrap();
    let exists = x.isfinite();
    let v = Rng::new(17).normal_tensor(&x.size()).to_kind(Kind::Double);
    let v = v.masked_fill(&exists.logical_not(), 0.0);
    let h = 1e-5;
    let up = put(model, site, &(&x + &v * h), tokens);
    let down = put(model, site, &(&x - &v * h), tokens);
    let measured = (up - down) / (2.0 * h);
    // Padding is not put in, so that nothing was measured there.
    let at_tokens = if site.axes().contains(&thalweg::Axis::Pos) {
        let mut shape = vec![1; x.dim()];
        shape[..2].clone_from_slice(&x.size()[..2]);
        tokens.mask(x.device()).view(&shape[..]).to_kind(Kind::Double)
    } else {
        Tensor::from(1.0)
    };
    let gradient = gradients.get(site).unwrap();
    let claimed = (gradient * v * at_tokens).sum(Kind::Double).double_value(&[]);
    let error = (claimed - measured).abs() / measured.abs().max(1e-3);
    assert!(error < 1e-6, "{site}: the gradient says {claimed}, a small step {measured}");
    assert!(measured != 0.0, "{site}: the step changed nothing");
}

#[test]
fn gradients_equal_finite_differences_at_every_site_of_a_padded_batch() {
    let c = Config { attention_bias: true, mlp_bias: true, ..config() };
    let (model, tokens) = (model_of(c, Kind::Double, 5), tokens());
    let run = model.run(&tokens, &everything().gradients(metric())).unwrap();
    let gradients = run.gradients.unwrap();
    for site in Site::all(2) {
        check_gradient(&model, site, &run.cache, &gradients, &tokens);
    }
}

#[test]
fn asking_for_gradients_changes_no_logit() {
    let (model, tokens) = (model(), tokens());
    let eager = Plan::new().attention(Attention::Eager);
    let plain = model.run(&tokens, &eager).unwrap().logits;
    let run = model.run(&tokens, &everything().gradients(metric())).unwrap();
    assert!(plain.equal(&run.logits));
    assert!(!run.logits.requires_grad());
    for site in run.cache.sites() {
        assert!(!run.cache.get(site).unwrap().requires_grad(), "{site} keeps a graph");
    }
}

#[test]
fn a_padded_batch_with_gradients_holds_no_number_that_is_not_finite() {
    for attention in [Attention::Eager, Attention::Fused] {
        let sites = Site::all(2).into_iter().filter(|site| {
            let held = !matches!(site.point(), Some(Point::Scores | Point::Pattern));
            held || attention == Attention::Eager
        });
        let plan = Plan::new().cache(sites.collect::<Vec<_>>()).attention(attention);
        let run = model_f32().run(&tokens(), &plan.gradients(metric())).unwrap();
        for cache in [&run.cache, &run.gradients.unwrap()] {
            for site in cache.sites() {
                let x = cache.get(site).unwrap();
                // Scores alone are -inf where a query may not look; their gradient is not.
                let fine = x.isfinite().logical_or(&x.eq(f64::NEG_INFINITY));
                assert!(bool::try_from(fine.all()).unwrap(), "{site} {attention:?}");
            }
        }
    }
}

#[test]
fn a_gradient_is_zero_where_the_metric_does_not_reach() {
    let (model, tokens) = (model(), tokens());
    let plan = everything().gradients(metric().at(0));
    let gradients = model.run(&tokens, &plan).unwrap().gradients.unwrap();
    let late = gradients.get(Point::ResidPost.at(0)).unwrap().get(0).narrow(0, 1, 4);
    assert_eq!(late.abs().max().double_value(&[]), 0.0);
    let keys = gradients.get(Point::V.at(1)).unwrap().get(0).narrow(0, 1, 4);
    assert_eq!(keys.abs().max().double_value(&[]), 0.0);
    // At position 0 a softmax over one key is 1 whatever the query: libtorch may give no gradient.
    assert_eq!(gradients.get(Point::Q.at(1)).unwrap().abs().max().double_value(&[]), 0.0);
    assert_eq!(gradients.sites().count(), Site::all(2).len());
}

#[test]
fn a_value_put_in_whole_has_its_own_gradient() {
    let row = Tokens::from_ids(&[vec![3, 1, 4]]).unwrap();
    let (site, model) = (Point::ResidPre.at(1), model());
    let x = Rng::new(2).normal_tensor(&[1, 3, 12]).to_kind(Kind::Double);
    let plan = everything().gradients(metric_of_one()).intervene(site, Intervention::set(&x));
    let run = model.run(&row, &plan).unwrap();
    let gradients = run.gradients.unwrap();
    assert!(gradients.get(site).unwrap().abs().max().double_value(&[]) > 1e-3);
    let before = gradients.get(Point::ResidMid.at(0)).unwrap();
    assert_eq!(before.abs().max().double_value(&[]), 0.0);
}

fn metric_of_one() -> Metric {
    Metric::logit_diff(7, 2)
}

#[test]
fn gradients_work_inside_a_users_guard_and_leave_it_on() {
    let _guard = tch::no_grad_guard();
    assert!(model().run(&tokens(), &everything().gradients(metric())).is_ok());
    let x = Tensor::from(1.0).set_requires_grad(true);
    assert!(!(&x * 2.0).requires_grad(), "the user's guard was switched off");
}

/// Whether grad mode is on in this thread.
fn grad_is_on() -> bool {
    (Tensor::from(1.0).set_requires_grad(true) * 2.0).requires_grad()
}

#[test]
fn grad_mode_is_what_it_was_after_success_an_error_and_a_panic() {
    let (model, tokens) = (model(), tokens());
    let fails = Intervention::custom("fails", |_| thalweg::anyhow::bail!("as asked"));
    let panics = Intervention::custom("panics", |_| panic!("as asked"));
    let plain = || Plan::new().cache(Point::Z);
    let plans = [plain(), plain().gradients(metric()), plain().differentiable()];
    let check = |expected: bool| {
        for plan in &plans {
            model.run(&tokens, plan).unwrap();
            assert_eq!(grad_is_on(), expected, "after {plan:?}");
            let failing = plan.clone().intervene(Point::MlpOut.at(1), fails.clone());
            says(model.run(&tokens, &failing), &["as asked"]);
            assert_eq!(grad_is_on(), expected, "after an error in {plan:?}");
            let panicking = plan.clone().intervene(Point::MlpOut.at(1), panics.clone());
            let run = catch_unwind(AssertUnwindSafe(|| model.run(&tokens, &panicking)));
            assert!(run.is_err());
            assert_eq!(grad_is_on(), expected, "after a panic in {plan:?}");
        }
    };
    check(true);
    let guard = tch::no_grad_guard();
    check(false);
    drop(guard);
    check(true);
}

#[test]
fn a_differentiable_run_keeps_its_graph_and_any_other_keeps_none() {
    let (model, tokens) = (model(), tokens());
    let site = Point::ResidPost.at(1);
    let run = model.run(&tokens, &Plan::new().cache(site).differentiable()).unwrap();
    let loss = run.logits.square().mean(None);
    let found = Tensor::run_backward(&[loss], &[run.cache.get(site).unwrap()], false, false);
    assert!(found[0].abs().max().double_value(&[]) > 0.0);
    let run = model.run(&tokens, &Plan::new().cache(site)).unwrap();
    assert!(!run.logits.requires_grad() && !run.cache.get(site).unwrap().requires_grad());
    assert!(model.named_weights().values().all(|w| !w.requires_grad()));
}

#[test]
fn a_record_changed_in_place_is_refused_by_name() {
    let (model, tokens) = (model(), tokens());
    let run = model.run(&tokens, &Plan::new().cache(Point::ResidPost).cache(Site::Embed)).unwrap();
    let site = Point::ResidPost.at(0);
    let mut x = run.cache.get(site).unwrap();
    let old = x.copy();
    x += 1.0;
    says(run.cache.get(site), &["blocks.0.hook_resid_post was changed in place", "copy"]);
    assert!(run.cache.get(Site::Embed).is_ok());
    let mut x = run.cache.get(Site::Embed).unwrap().narrow(1, 0, 1);
    let _ = x.fill_(0.0);
    says(run.clone().cache.get(Site::Embed), &["hook_embed was changed in place"]);
    says(run.cache.stack(Point::ResidPost), &["blocks.0.hook_resid_post"]);
    let fresh = model.run(&tokens, &Plan::new().cache(site)).unwrap();
    assert!(same(&fresh.cache.get(site).unwrap(), &old));
}

#[test]
fn a_cache_comes_back_from_its_file_bit_by_bit_when_asked() {
    let path = scratch("cache").join("run.safetensors");
    let run = model_f32().run(&tokens(), &everything()).unwrap();
    run.cache.save(&path).unwrap();
    let back = Cache::open(&path).unwrap();
    assert_eq!(back.bytes(), 0, "nothing is read before it is asked for");
    assert_eq!(back.tokens().ids(), tokens().ids());
    assert!(back.sites().eq(run.cache.sites()));
    for site in run.cache.sites() {
        assert!(same(&back.get(site).unwrap(), &run.cache.get(site).unwrap()), "{site}");
        assert_eq!(back.shape(site), run.cache.shape(site));
    }
    let patched = Plan::new().intervene(Point::Z.at(0), Intervention::patch(&back));
    assert!(model_f32().run(&tokens(), &patched).is_ok());
    std::fs::write(&path, b"short").unwrap();
    says(Cache::open(&path), &["run.safetensors", "damaged", "8 bytes"]);
}

#[test]
fn stack_puts_the_layers_in_front_and_a_missing_site_lists_what_there_is() {
    let run = model().run(&tokens(), &Plan::new().cache(Point::Z).cache(Site::Embed)).unwrap();
    assert_eq!(run.cache.stack(Point::Z).unwrap().size(), [2, 2, 5, 4, 6]);
    let listed = ["blocks.0.attn.hook_q was not cached", "blocks.{0..1}.attn.hook_z", "hook_embed"];
    says(run.cache.get(Point::Q.at(0)), &listed);
}

#[test]
fn logits_at_gives_the_same_numbers_at_fewer_places() {
    let (model, tokens) = (model(), tokens());
    let all = model.logits(&tokens).unwrap();
    let at =
        |positions: Position| model.run(&tokens, &Plan::new().logits_at(positions)).unwrap().logits;
    assert!(distance(&at(Position::Last), &all.narrow(1, 4, 1)) < 1e-12);
    let per_row = at(Position::PerRow(vec![1, 0]));
    assert_eq!(per_row.size(), [2, 1, 23]);
    assert!(distance(&per_row.get(0).get(0), &all.get(0).get(1)) < 1e-12);
    assert!(distance(&per_row.get(1).get(0), &all.get(1).get(2)) < 1e-12);
    let two = model.run(&tokens, &Plan::new().logits_at([0, -1])).unwrap().logits;
    assert!(distance(&two.get(1).get(0), &all.get(1).get(2)) < 1e-12);
    let uneven = model.run(&tokens, &Plan::new().logits_at(1..));
    says(uneven, &["logits_at(1..)", "2 positions in row 1, 4 in row 0"]);
}

#[test]
fn the_pass_by_hand_gives_the_same_bits_as_a_run() {
    let (model, tokens) = (model(), tokens());
    let mut x = model.embed(&tokens).unwrap();
    for layer in 0..2 {
        x = model.block(layer, &x, &tokens).unwrap();
    }
    let run = model.run(&tokens, &Plan::new().cache(Point::ResidPost)).unwrap();
    assert!(same(&x, &run.cache.get(Point::ResidPost.at(1)).unwrap()));
    assert!(same(&model.unembed(&x).unwrap(), &run.logits));
    let f32 = x.to_kind(Kind::Float);
    assert!(
        distance(&model.block(0, &f32, &tokens).unwrap(), &model.block(0, &x, &tokens).unwrap())
            < 1e-5
    );
    says(model.block(2, &x, &tokens), &["no layer 2", "layers 0..1"]);
    says(model.block(0, &x.narrow(1, 0, 2), &tokens), &["[2, 2, 12]", "[2, 5, 12]"]);
    says(model.unembed(&x.narrow(2, 0, 3)), &["[2, 5, 3]", "[.., 12]"]);
}

#[test]
fn gradients_that_cannot_be_are_refused_before_the_run() {
    let (model, tokens) = (model(), tokens());
    let never = Intervention::custom("never", |_| panic!("the run began"));
    let refused = |metric: Metric, words: &[&str]| {
        let plan = Plan::new().cache(Point::Z).intervene(Site::Embed, never.clone());
        says(model.run(&tokens, &plan.gradients(metric)), words);
    };
    refused(Metric::logit_diff(99, 1), &["gradients: logit_diff", "answer 99 of row 0", "23"]);
    refused(Metric::log_prob(vec![1, 2, 3]), &["answers for 3 rows, the run has 2"]);
    refused(Metric::log_prob(1).at(3), &["row 1 has 3 tokens: no position 3"]);
    refused(Metric::kl(&Tensor::zeros([5], (Kind::Double, tch::Device::Cpu))), &["[5]", "[23]"]);
    let plan = Plan::new().intervene(Site::Embed, never.clone()).gradients(metric());
    says(model.run(&tokens, &plan), &["gradients: no site is cached"]);
    let both = Plan::new().cache(Point::Z).logits_at(-1).intervene(Site::Embed, never);
    says(model.run(&tokens, &both.gradients(metric())), &["not together with logits_at"]);
    let blunt = Plan::new().cache(Point::Z).gradients(Metric::accuracy(1));
    assert!(message(model.run(&tokens, &blunt)).contains("does not depend"));
}
