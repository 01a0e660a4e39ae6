use std::collections::HashSet;

use thalweg::anyhow::Result;
use thalweg::prelude::*;
use thalweg::rng::Rng;
use thalweg::{AblationStudy, Component, ablation_study};

use super::{mean, measure, metric, reference, tokens};
use crate::support::{model, says};

/// One component of every kind.
fn kinds() -> Vec<Component> {
    vec![
        Component::Head(1, 2),
        Component::Neuron(0, 7),
        Component::Attention(0),
        Component::Mlp(1),
        Component::Layer(0),
    ]
}

fn study(components: &[Component], baselines: &[Ablation]) -> Result<AblationStudy> {
    ablation_study(&model(), &tokens(), components, baselines, &metric())
}

fn near(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-10, "{a} against {b}");
}

/// The same taken out by hand.
fn by_hand(component: Component, edit: &dyn Fn(Site) -> Intervention) -> Plan {
    let at = |sites: &[Site], narrow: &dyn Fn(Intervention) -> Intervention| {
        sites.iter().fold(Plan::new(), |plan, site| plan.intervene(*site, narrow(edit(*site))))
    };
    match component {
        Component::Head(l, h) => at(&[Point::Z.at(l)], &|edit| edit.head(h)),
        Component::Neuron(l, n) => at(&[Point::MlpPost.at(l)], &|edit| edit.neuron(n)),
        Component::Attention(l) => at(&[Point::AttnOut.at(l)], &|edit| edit),
        Component::Mlp(l) => at(&[Point::MlpOut.at(l)], &|edit| edit),
        Component::Layer(l) => at(&[Point::AttnOut.at(l), Point::MlpOut.at(l)], &|edit| edit),
    }
}

#[test]
fn every_component_under_every_baseline_is_a_run_of_its_own() -> Result<()> {
    let model = model();
    let baselines = [
        Ablation::zero(),
        Ablation::mean(&reference()),
        Ablation::mean_by_pos(&reference()),
        Ablation::resample(&reference(), 3, 5),
    ];
    let study = study(&kinds(), &baselines)?;
    let points = [Point::Z, Point::MlpPost, Point::AttnOut, Point::MlpOut];
    let cache = model.run(&reference(), &Plan::new().cache(points))?.cache;
    let base = measure(&model, &Plan::new());
    study.base.iter().zip(&base).for_each(|(a, b)| near(*a, *b));
    let mean = |site: Site| mean(&cache, site);
    let mean_by_pos = |_: Site| Intervention::mean_by_pos(&cache);
    let edits: [&dyn Fn(Site) -> Intervention; 3] =
        [&|_| Intervention::zero(), &mean, &mean_by_pos];
    for (i, component) in kinds().into_iter().enumerate() {
        for (baseline, edit) in edits.iter().enumerate() {
            let under = measure(&model, &by_hand(component, edit));
            for row in 0..2 {
                near(study.each.values[[baseline, row, i].as_slice()], under[row] - base[row]);
            }
        }
        // Resamples are those that `ablation` draws with the same seed.
        let (point, by, at) = match component {
            Component::Head(l, h) => (Point::Z, vec![Axis::Head], vec![l, h]),
            Component::Neuron(l, n) => (Point::MlpPost, vec![Axis::DMlp], vec![l, n]),
            Component::Attention(l) => (Point::AttnOut, vec![], vec![l]),
            Component::Mlp(l) => (Point::MlpOut, vec![], vec![l]),
            Component::Layer(_) => continue,
        };
        let alone = ablation(&model, &tokens(), point, &by, &baselines[3], &metric())?;
        near(study.effects.values[[3, i].as_slice()], alone.values[at.as_slice()]);
    }
    assert_eq!(study.effects.labels(Axis::Component)?, ["L1H2", "L0N7", "L0 attn", "L1 mlp", "L0"]);
    assert_eq!(
        study.effects.interval.as_ref().unwrap().method,
        "95 % normal interval over prompts"
    );
    assert_eq!((study.effects.n, study.effects.unit.as_str()), (2, "nats"));
    let ranking = study.ranking(0)?;
    assert!(ranking.windows(2).all(|pair| pair[0].1.abs() >= pair[1].1.abs()));
    assert_eq!(
        ranking.iter().map(|(c, _)| *c).collect::<HashSet<_>>(),
        kinds().into_iter().collect()
    );
    assert!(format!("{study:?}").starts_with("Ablation of 5 components on 2 prompts"), "{study:?}");
    let agreement = study.agreement()?;
    assert_eq!(agreement.shape(), [4, 4]);
    Ok(())
}

#[test]
fn without_any_component_the_embedding_alone_is_left() -> Result<()> {
    let model = model();
    let parts = [Component::attentions(model.config()), Component::mlps(model.config())].concat();
    let metric = metric();
    let study = ablation_study(&model, &tokens(), &parts, &[Ablation::zero()], &metric)?;
    let curve = study.knock_out(&model, 0, 5, 1)?;
    let alone = model.unembed(&model.embed(&tokens())?)?;
    let expected = metric.of(&alone, &tokens())?.mean(Kind::Double).double_value(&[]);
    near(curve.ranked.values[[4]], expected);
    near(curve.random.values[[4]], expected);
    // Whole layers, or attention and MLPs: the same is gone.
    let layers = Component::layers(model.config());
    let study = ablation_study(&model, &tokens(), &layers, &[Ablation::zero()], &metric)?;
    near(study.knock_out(&model, 0, 2, 1)?.ranked.values[[2]], expected);
    Ok(())
}

#[test]
fn a_knock_out_curve_takes_out_one_more_at_each_step_in_whatever_order() -> Result<()> {
    let model = model();
    let heads = Component::heads(model.config());
    let baselines = [Ablation::zero(), Ablation::mean(&reference())];
    let study = study(&heads, &baselines)?;
    let curve = study.knock_out(&model, 1, 8, 4)?;
    let cache = model.run(&reference(), &Plan::new().cache(Point::Z))?.cache;
    let over_prompts = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
    let mut plan = Plan::new();
    near(curve.ranked.values[[0]], over_prompts(measure(&model, &plan)));
    for (gone, component) in curve.order.iter().enumerate() {
        let Component::Head(layer, head) = component else { panic!("{component}") };
        let site = Point::Z.at(*layer);
        plan = plan.intervene(site, mean(&cache, site).head(*head));
        near(curve.ranked.values[[gone + 1]], over_prompts(measure(&model, &plan)));
    }
    // Random orders begin and end where the ranked one does, and lie apart between.
    let band = curve.random.interval.as_ref().unwrap();
    for end in [0, 8] {
        near(curve.random.values[[end]], curve.ranked.values[[end]]);
        near(band.low[[end]], band.high[[end]]);
    }
    assert!((1..8).any(|step| band.high[[step]] - band.low[[step]] > 1e-3));
    let both = curve.grid()?;
    assert_eq!(
        (both.shape(), both.labels(Axis::Series)?[1].as_str()),
        ([2, 9].as_slice(), "random order")
    );
    assert!(both.interval.as_ref().unwrap().method.contains("random order: range of 95 %"));
    lines(&both)?;
    assert_eq!(curve.random.values, study.knock_out(&model, 1, 8, 4)?.random.values);
    assert_ne!(curve.random.values, study.knock_out(&model, 1, 8, 5)?.random.values);
    // Of one prompt the band over orders is still there.
    let one = ablation_study(
        &model,
        &tokens().row(0)?,
        &heads,
        &baselines[..1],
        &Metric::logit_diff(4, 7),
    )?;
    assert!(one.effects.interval.is_none());
    assert!(
        one.knock_out(&model, 0, 4, 4)?.grid()?.interval.unwrap().method.contains("no interval")
    );
    Ok(())
}

#[test]
fn no_constant_does_less_harm_than_the_optimal_one() -> Result<()> {
    let model = model();
    // The divergence from the unedited run at the last position, over the reference's own prompts.
    let logits = model.run(&reference(), &Plan::new().logits_at(-1))?.logits.squeeze_dim(1);
    let harm = Metric::kl(&logits);
    let baselines = [
        Ablation::zero(),
        Ablation::mean(&reference()),
        Ablation::optimal(&reference(), &harm, 60),
    ];
    let components = [&kinds()[..], &[Component::Neuron(1, 3)]].concat();
    let study = ablation_study(&model, &reference(), &components, &baselines, &harm)?;
    let effect = |baseline: usize, i: usize| study.effects.values[[baseline, i].as_slice()];
    for (i, component) in components.iter().enumerate() {
        let (zero, mean, optimal) = (effect(0, i), effect(1, i), effect(2, i));
        assert!(optimal >= 0.0 && optimal <= zero + 1e-12 && optimal <= mean + 1e-12);
        // The mean is not the best, but of a single neuron nearly.
        assert!(optimal < 0.98 * zero.min(mean), "{component}: {zero} {mean} {optimal}");
    }
    // Of one neuron every constant can be tried.
    let under = |constant: f64| -> Result<f64> {
        let edit = Intervention::set(&Tensor::from_slice(&[constant])).neuron(3);
        let plan = Plan::new().intervene(Point::MlpPost.at(1), edit);
        let logits = model.run(&reference(), &plan)?.logits;
        Ok(harm.of(&logits, &reference())?.mean(Kind::Double).double_value(&[]))
    };
    let tried = (-200..=200).map(|i| under(f64::from(i) * 0.01)).collect::<Result<Vec<_>>>()?;
    let best = tried.into_iter().fold(f64::INFINITY, f64::min);
    assert!((effect(2, 5) / best - 1.0).abs() < 2e-3, "{} against {best}", effect(2, 5));
    Ok(())
}

#[test]
fn a_component_that_is_the_same_everywhere_is_missed_by_nobody_at_its_mean() -> Result<()> {
    let model = model();
    // One token, said by itself: each head's value is the same at every place.
    let alike = Tokens::from_ids(&[vec![5, 5, 5, 5], vec![5, 5, 5, 5]])?;
    let metric = Metric::logit_diff(4, 7);
    let loss = Metric::log_prob(4);
    let how = [
        Ablation::mean(&alike),
        Ablation::optimal(
            &alike,
            &Metric::kl(&model.run(&alike, &Plan::new().logits_at(-1))?.logits.squeeze_dim(1)),
            3,
        ),
    ];
    let heads = [Component::Head(0, 1), Component::Head(1, 3)];
    for metric in [metric, loss] {
        let study = ablation_study(&model, &alike, &heads, &how, &metric)?;
        assert!(study.effects.values.iter().all(|x| x.abs() < 1e-10), "{:?}", study.effects.values);
    }
    Ok(())
}

#[test]
fn a_row_of_one_token_keeps_it_in_the_mean() -> Result<()> {
    let model = model();
    let rows = Tokens::from_ids(&[vec![7], vec![2, 9, 4], vec![5, 1]])?;
    let mlp = [Component::Mlp(1)];
    let site = Point::MlpOut.at(1);
    let x = model.run(&rows, &Plan::new().cache(site))?.cache.get(site)?;
    let kept = [(0, 2), (1, 1), (1, 2), (2, 2)].map(|(row, at)| x.get(row).get(at));
    let by_hand = Intervention::set(&(kept.iter().sum::<Tensor>() / 4.0));
    let study = study(&mlp, &[Ablation::mean(&rows)])?;
    let label = "mean over 3 prompts, first tokens left out";
    assert_eq!(study.effects.labels(Axis::Series)?, [label]);
    let under = measure(&model, &Plan::new().intervene(site, by_hand));
    (0..2).for_each(|row| {
        near(study.each.values[[0, row, 0].as_slice()], under[row] - study.base[row])
    });
    Ok(())
}

#[test]
fn baselines_of_one_name_are_numbered_and_are_themselves() -> Result<()> {
    let mut rng = Rng::new(2);
    let mut off = || Ablation::project_out(&rng.normal_tensor(&[6]));
    let heads = Component::heads(model().config());
    let study = study(&heads, &[off()?, Ablation::zero(), off()?, off()?])?;
    let label = "projection off 1 directions";
    assert_eq!(
        study.effects.labels(Axis::Series)?,
        [label, "zero", &format!("{label} (2)"), &format!("{label} (3)")]
    );
    let effect = |baseline: usize| study.effects.values[[baseline, 0].as_slice()];
    assert!(effect(0) != effect(2) && effect(2) != effect(3) && effect(0) != effect(3));
    assert_eq!(study.agreement()?.shape(), [4, 4]);
    Ok(())
}

#[test]
fn a_wrong_study_is_an_error_that_names_the_component() -> Result<()> {
    let zero = [Ablation::zero()];
    says(study(&[Component::Head(1, 4)], &zero), &["L1H4", "heads 0..3"]);
    says(study(&[Component::Mlp(2)], &zero), &["L2 mlp", "layers 0..1"]);
    says(study(&[Component::Mlp(0), Component::Mlp(0)], &zero), &["L0 mlp is listed twice"]);
    says(study(&kinds(), &[Ablation::zero(), Ablation::zero()]), &["\"zero\" is listed twice"]);
    let along = Rng::new(0).normal_tensor(&[model().config().d_mlp as i64]);
    let off = [Ablation::zero(), Ablation::project_out(&along)?];
    says(
        study(&[Component::Neuron(0, 7)], &off),
        &["L0N7", "takes the last axis whole", "leave neurons out"],
    );
    says(study(&[], &zero), &["no components"]);
    says(study(&kinds(), &[]), &["no baselines"]);
    let found = study(&kinds(), &zero)?;
    says(found.ranking(1), &["no baseline 1", "zero"]);
    says(found.knock_out(&model(), 0, 1, 0), &["1 random orders"]);
    let optimal = Ablation::optimal(&reference(), &Metric::loss(), 2);
    says(
        ablation(&model(), &tokens(), Point::Z, &[Axis::Head], &optimal, &metric()),
        &["an optimal constant belongs to a component", "ablation_study"],
    );
    Ok(())
}
