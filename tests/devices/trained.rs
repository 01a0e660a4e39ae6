//! The same for what is fitted, trained or steered by vectors.

use thalweg::prelude::*;
use thalweg::{
    Das, DirectionEffect, DoseResponse, FewShotPrompts, InterchangePairs, JacobianFit, Lens,
    LensOptimizer, ProbeMethod, Probing, Sae, Similarity, Stitching, StreamFit, TunedLensTraining,
    compare_layers, function_vectors, max_activating, orthogonalised,
};

use super::methods::{Method, Numbers, agree, clean, corrupt, drawn, metric};

fn sae(site: Site) -> Sae {
    let [w_enc, b_enc] = [drawn(4, &[12, 30]), drawn(5, &[30])];
    let [w_dec, b_dec] = [drawn(6, &[30, 12]), drawn(7, &[12])];
    Sae::new(site, &w_enc, &b_enc, &w_dec, &b_dec).unwrap()
}

/// Twelve prompts of four tokens.
fn many() -> Tokens {
    let rows: Vec<Vec<i64>> =
        (0..12).map(|i| vec![1 + i, 2 + (5 * i) % 19, (7 * i) % 23, 3 + i % 5]).collect();
    Tokens::from_ids(&rows).unwrap()
}

fn task(name: &str, shown: i64, answer: i64) -> FewShotPrompts {
    let rows = |row: Vec<i64>| Tokens::from_ids(&[row.clone(), row]).unwrap();
    FewShotPrompts {
        task: name.to_owned(),
        few_shot: rows(vec![1, shown, 2, shown, 3]),
        shuffled: rows(vec![1, 9, 2, 8, 3]),
        zero_shot: rows(vec![1, 3]),
        answers: vec![answer; 2],
    }
}

const METHODS: &[Method] = &[
    ("probes", |model| {
        let labels: Vec<&str> = (0..12).map(|i| if i % 2 == 0 { "even" } else { "odd" }).collect();
        let groups: Vec<String> = (0..12).map(|i| format!("group {}", i / 2)).collect();
        let mut all = Vec::new();
        for method in [ProbeMethod::Logistic { l2: 1.0 }, ProbeMethod::Ridge { alpha: 1.0 }] {
            let probing = Probing::new(&many(), &labels, &groups)?.folds(3).draws(2).method(method);
            let report = probing.run(model)?;
            all.extend(report.accuracy.values.iter());
            all.extend(Numbers::tensors(&[report.probe("L3")?.direction("even", "odd")?])?.0);
        }
        Ok(Numbers(all))
    }),
    ("steering and its dose response", |model| {
        let site = Point::ResidPost.at(2);
        let vector = steering_vector(model, &clean(), &corrupt(), site, 2)?;
        let dose = DoseResponse::new(model, &clean(), &vector).strengths(&[0.5, 1.0]).draws(2);
        let mut all = Numbers::of(&[&dose.of(&metric())?, &dose.kl()?])?;
        all.0.extend(Numbers::tensors(&[vector.direction])?.0);
        Ok(all)
    }),
    ("direction ablation", |model| {
        let direction = drawn(1, &[12]);
        let effect = DirectionEffect::new(model, &clean(), &direction)?.draws(3);
        let effect = effect.steered(Point::ResidPost.at(3), 1.0).of(&metric())?;
        let plan = model.run(&clean(), &direction_ablation(&direction))?.logits;
        let weights = orthogonalised(model, &direction)?.logits(&clean())?;
        let mut all = Numbers::of(&[&effect])?;
        all.0.extend(Numbers::tensors(&[plan, weights])?.0);
        Ok(all)
    }),
    ("Patchscope", |model| {
        let scope = Patchscope::new(model, (&clean(), 2), (&corrupt(), -1))?;
        Numbers::of(&[&scope.grid(&metric())?])
    }),
    ("function vectors", |model| {
        let tasks = [task("a", 5, 6), task("b", 7, 8)];
        let found = function_vectors(model, &tasks)?;
        let heads = found.heads(3)?;
        let added = found.added(model, &tasks[0], &heads, (2, 1))?;
        let mut all = Numbers::of(&[&found.effect, &added.zero_shot, &added.shuffled])?;
        all.0.extend(Numbers::tensors(&[found.vector("a", &heads)?])?.0);
        Ok(all)
    }),
    ("SAE splice", |model| {
        let sae = sae(Point::ResidPost.at(2));
        let plan = sae.splice().zero(3).add(5, 1.0).plan(Plan::new())?;
        let blind = sae.splice().without_error().plan(Plan::new())?;
        let logits = [plan, blind].map(|plan| model.run(&clean(), &plan).map(|run| run.logits));
        let [edited, blind] = logits;
        Numbers::tensors(&[edited?, blind?])
    }),
    ("max activating", |model| {
        let batches = || [Ok(clean()), Ok(corrupt()), Ok(many())];
        let of_sae = max_activating(model, batches(), &sae(Point::ResidPost.at(2)), &[1, 4], 3, 2)?;
        let of_site = max_activating(model, batches(), Point::MlpPost.at(4), &[0, 7], 3, 2)?;
        let all = of_sae.iter().chain(&of_site).flat_map(|examples| {
            let snippets = examples.top.iter().chain(&examples.random);
            snippets.flat_map(|s| s.values()).chain([examples.density]).collect::<Vec<_>>()
        });
        Ok(Numbers(all.collect()))
    }),
    ("statistics", |model| {
        let mut all = [Point::Z.at(1), Point::ResidPost.at(4)]
            .map(|site| Statistics::at(site).covariance().top(2));
        statistics(model, [Ok(clean()), Ok(many())], &Plan::new(), &mut all)?;
        let maxima = all[1].maxima(3)?.iter().map(|m| m.value).collect::<Vec<_>>();
        let mut found = Numbers(maxima);
        for one in &all {
            found.0.extend(Numbers::tensors(&[one.mean()?, one.covariance_matrix()?])?.0);
        }
        Ok(found)
    }),
    ("distributed alignment search", |model| {
        let tokens = many();
        let rows = |range: std::ops::Range<usize>| tokens.rows(&range.collect::<Vec<_>>());
        let items = (0..6).map(|i| vec![i.to_string()]).collect();
        let labels = vec![1, 2, 3, 1, 2, 3];
        let pairs = InterchangePairs::new(rows(0..6)?, rows(6..12)?, labels, items)?;
        let das = Das { steps: 5, batch: 4, ..Das::new(Point::ResidPost.at(1), -1, 2, 1) };
        let (subspace, loss) = das.fit(model, &pairs)?;
        let mut all = Numbers::of(&[&loss])?;
        all.0.extend(Numbers::tensors(&[subspace.logits(model, &pairs)?, subspace.rows])?.0);
        Ok(all)
    }),
    ("tuned lens training", |model| {
        let mut all = Vec::new();
        for optimizer in [LensOptimizer::Adam, LensOptimizer::Sgd { momentum: 0.9 }] {
            let training = TunedLensTraining::new(&many(), &clean()).steps(3).prompts(4);
            let fit = training.rate(0.01).optimizer(optimizer).run(model)?;
            let plan = Plan::new().cache([Point::ResidPre, Point::ResidPost]);
            let cache = model.run(&clean(), &plan)?.cache;
            let read = Lens::tuned(model, &fit.lens)?.read(&cache, &metric())?;
            all.extend(Numbers::of(&[&fit.loss, &fit.held_out, &read])?.0);
        }
        Ok(Numbers(all))
    }),
    ("Jacobian lens", |model| {
        let lens = JacobianFit::new(1).run(model, &clean())?;
        let plan = Plan::new().cache([Point::ResidPre, Point::ResidPost]);
        let cache = model.run(&clean(), &plan)?.cache;
        let read = Lens::jacobian(model, &lens)?.read(&cache, &metric())?;
        let mut all = Numbers::of(&[&read])?;
        all.0.extend(Numbers::tensors(&[lens.matrix(1)?])?.0);
        Ok(all)
    }),
    ("comparisons of two models", |model| {
        let other = model.with_weights(|_, w| Ok(w * 1.02))?;
        let stitched = Stitching::new(model, &other, &many(), &clean()).by(StreamFit::Ridge(1.0));
        let plan = Plan::new().cache([Point::ResidPre, Point::ResidPost]);
        let [a, b] = [model, &other].map(|model| model.run(&many(), &plan));
        let alike = compare_layers(&a?.cache, &b?.cache, Similarity::Cka, 1)?;
        Numbers::of(&[&stitched.kl()?.values, &alike.values])
    }),
];

#[test]
fn what_is_fitted_trained_or_steered_agrees() {
    agree("spread-trained", METHODS);
}
