//! Frozen parts: values that do not move, gradients that add up to the logit.

use thalweg::prelude::*;

use crate::invariants::{models, others, tokens};
use crate::support::{distance, model, same, says};

const KINDS: [Freeze; 5] =
    [Freeze::Norm, Freeze::Pattern, Freeze::Gate, Freeze::Linear, Freeze::RelP];

fn eager() -> Plan {
    Plan::new().attention(Attention::Eager)
}

/// What holds the values that a freeze takes from a cache.
fn held(model: &Model, tokens: &Tokens) -> Cache {
    let points = [Point::Ln1Scale, Point::Ln2Scale, Point::Pattern, Point::MlpPre];
    model.run(tokens, &Plan::new().cache(points).cache(Site::FinalScale)).unwrap().cache
}

/// Sum over all but the rows: `[Batch]`.
fn by_row(x: Tensor) -> Tensor {
    x.flatten(1, -1).sum_dim_intlist([1i64].as_slice(), false, None)
}

/// Sum of gradient times value over the embeddings and the biases that a mode leaves in play.
fn parts(model: &Model, run: &Run, with_gate: bool) -> Tensor {
    let gradients = run.gradients.as_ref().unwrap();
    let at = |site: Site| gradients.get(site).unwrap();
    let mut sum = by_row(at(Site::Embed) * run.cache.get(Site::Embed).unwrap());
    for layer in 0..model.config().n_layers {
        let mut biases = vec![
            (Point::V, W::BV),
            (Point::AttnOut, W::BO),
            (Point::MlpPreLinear, W::BIn),
            (Point::MlpOut, W::BOut),
        ];
        if with_gate {
            biases.push((Point::MlpPre, W::BGate));
        }
        for (point, bias) in biases {
            sum += by_row(at(point.at(layer)) * model.weight(bias, layer).unwrap());
        }
    }
    sum
}

#[test]
fn gradients_of_a_frozen_llama_times_its_embeddings_and_biases_add_up_to_every_logit() {
    let sites = [Point::V, Point::AttnOut, Point::MlpPre, Point::MlpPreLinear, Point::MlpOut];
    for model in models(Kind::Double) {
        for mode in [Freeze::Linear, Freeze::RelP] {
            for (id, at) in [(0, -1), (7, -1), (22, 2)] {
                let metric = Metric::logit(id).at(at);
                let plan = Plan::new().freeze_own(mode).cache(Site::Embed).cache(sites);
                let run = model.run(&tokens(), &plan.gradients(metric.clone())).unwrap();
                let logit = metric.of(&run.logits, &tokens()).unwrap();
                let apart = distance(&parts(&model, &run, mode == Freeze::RelP), &logit);
                assert!(apart < 1e-12, "{mode}, id {id} at {at}: {apart}");
            }
        }
    }
}

#[test]
fn freezing_at_own_values_moves_no_bit_of_any_activation() {
    for kind in [Kind::Double, Kind::Float] {
        for model in models(kind) {
            let sites = Site::all(model.config().n_layers);
            let plain = model.run(&tokens(), &eager().cache(sites.clone())).unwrap();
            let own = held(&model, &tokens());
            let each = KINDS.map(|what| Plan::new().freeze_own(what));
            let at_cache = KINDS[..4].iter().map(|what| Plan::new().freeze(*what, &own));
            for plan in each.into_iter().chain(at_cache) {
                let plan = plan.attention(Attention::Eager).cache(sites.clone());
                for plan in [plan.clone(), plan.gradients(Metric::logit(3))] {
                    let run = model.run(&tokens(), &plan).unwrap();
                    assert!(same(&run.logits, &plain.logits), "{plan:?}");
                    for site in &sites {
                        let [a, b] = [&run, &plain].map(|run| run.cache.get(*site).unwrap());
                        assert!(same(&a, &b), "{site} under {plan:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_llama_frozen_at_a_cache_is_affine_in_its_embeddings() {
    for model in models(Kind::Double) {
        let own = held(&model, &tokens());
        let ends = [tokens(), others()].map(|tokens| model.embed(&tokens).unwrap());
        let logits = |share: f64| {
            let between = &ends[0] + (&ends[1] - &ends[0]) * share;
            let plan = Plan::new().freeze(Freeze::Linear, &own);
            let plan = plan.intervene(Site::Embed, Intervention::set(&between));
            model.run(&tokens(), &plan).unwrap().logits
        };
        let real = tokens().mask(Device::Cpu).unsqueeze(-1);
        let expected = (logits(0.0) * 0.7 + logits(1.0) * 0.3) * &real;
        let apart = distance(&(logits(0.3) * &real), &expected);
        assert!(apart < 1e-12, "{apart}");
        assert!(distance(&(logits(1.0) * &real), &(logits(0.0) * &real)) > 1e-3);
    }
}

#[test]
fn frozen_sites_and_all_that_acts_through_them_alone_have_gradient_zero_and_the_run_says_so() {
    use Point::*;
    let blind = [QInput, KInput, Q, K, RotQ, RotK, Scores, Pattern];
    let zero: [(Freeze, Vec<Point>); 5] = [
        (Freeze::Norm, vec![Ln1Scale, Ln2Scale]),
        (Freeze::Pattern, blind.to_vec()),
        (Freeze::Gate, vec![MlpPre]),
        (Freeze::Linear, [&blind[..], &[Ln1Scale, Ln2Scale, MlpPre]].concat()),
        (Freeze::RelP, [&blind[..], &[Ln1Scale, Ln2Scale]].concat()),
    ];
    for model in models(Kind::Double) {
        let sites = Site::all(model.config().n_layers);
        for (mode, zero) in &zero {
            let plan = Plan::new().freeze_own(*mode).cache(sites.clone());
            let run = model.run(&tokens(), &plan.gradients(Metric::logit(5))).unwrap();
            let gradients = run.gradients.unwrap();
            for layer in 0..model.config().n_layers {
                for point in Point::ALL {
                    let largest = gradients.get(point.at(layer)).unwrap().abs().max();
                    let is_zero = largest.double_value(&[]) == 0.0;
                    assert_eq!(is_zero, zero.contains(&point), "{point:?} under {mode}");
                }
            }
            let note = run.notes.iter().find(|note| note.contains("frozen")).unwrap();
            assert_eq!(note.contains("RotQ"), zero.contains(&Q), "{note}");
        }
    }
}

#[test]
fn relp_shares_the_gradient_of_gate_times_up_half_and_half() {
    let model = model();
    let points = [Point::MlpPre, Point::MlpPreLinear, Point::MlpPost];
    let plan = Plan::new().freeze_own(Freeze::RelP).cache(points).gradients(Metric::logit(5));
    let run = model.run(&tokens(), &plan).unwrap();
    let gradients = run.gradients.unwrap();
    for layer in 0..2 {
        let [gate, up, _] = points.map(|point| run.cache.get(point.at(layer)).unwrap());
        let [to_gate, to_up, out] = points.map(|point| gradients.get(point.at(layer)).unwrap());
        assert!(distance(&to_gate, &(&out * &up * gate.sigmoid() * 0.5)) < 1e-14);
        assert!(distance(&to_up, &(&out * gate.silu() * 0.5)) < 1e-14);
    }
}

#[test]
fn interventions_act_on_what_is_held() {
    let model = model();
    let own = held(&model, &others());
    let site = Point::Ln1Scale.at(1);
    let plan = Plan::new().freeze(Freeze::Norm, &own).cache(site);
    let run = model.run(&tokens(), &plan.intervene(site, Intervention::scale(2.0))).unwrap();
    let found = run.cache.get(site).unwrap().get(0);
    assert!(same(&found, &(own.get(site).unwrap().get(0) * 2.0)));
}

#[test]
fn a_freeze_that_cannot_be_says_why() {
    let model = model();
    let own = held(&model, &tokens());
    let run = |plan: Plan| model.run(&tokens(), &plan);
    says(run(Plan::new().freeze(Freeze::RelP, &own)), &["freeze(RelP)", "freeze_own"]);
    let twice = Plan::new().freeze_own(Freeze::Linear).freeze(Freeze::Norm, &own);
    says(run(twice), &["freeze(Norm)", "blocks.0.ln1.hook_scale", "already"]);
    let both = Plan::new().freeze_own(Freeze::RelP).freeze_own(Freeze::Gate);
    says(run(both), &["RelP", "Gate"]);
    let lacking = model.run(&tokens(), &Plan::new().cache(Point::Z)).unwrap().cache;
    let plan = Plan::new().freeze(Freeze::Pattern, &lacking);
    says(run(plan), &["freeze(Pattern)", "blocks.0.attn.hook_pattern was not cached"]);
    let fused = Plan::new().attention(Attention::Fused).freeze_own(Freeze::Pattern);
    says(run(fused), &["Fused", "Pattern"]);
    let shorter = held(&model, &Tokens::from_ids(&[vec![1, 2, 3]]).unwrap());
    says(run(Plan::new().freeze(Freeze::Norm, &shorter)), &["freeze(Norm)", "tokens"]);
    let plan = Plan::new().freeze_own(Freeze::Norm).freeze(Freeze::Pattern, &own);
    assert_eq!(format!("{plan:?}"), "Plan { freeze Norm; freeze Pattern at a cache }");
}
