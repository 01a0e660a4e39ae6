//! Methods beside each other, and how far each agrees with the causal one.

use super::*;

/// Every method that suits a metric but the slow one, integrated gradients.
fn quick(metric: &Metric) -> Vec<ImportanceMethod> {
    let slow =
        |method: &ImportanceMethod| matches!(method, ImportanceMethod::IntegratedGradients(_));
    ImportanceMethod::all(metric).into_iter().filter(|method| !slow(method)).collect()
}

#[test]
fn every_method_stands_beside_the_causal_one_as_a_share_of_its_own_magnitude() {
    for tokens in [tokens(), tokens().row(0).unwrap()] {
        let model = &models(Kind::Double)[1];
        let one = tokens.batch() == 1;
        let methods = if one { ImportanceMethod::all(&metric()) } else { quick(&metric()) };
        let found = importance(model, &tokens, &metric(), &methods).unwrap();
        let names: Vec<&str> = found.methods.iter().map(|(name, _)| name.as_str()).collect();
        let mut expected = vec![
            "attention cut",
            "mean embedding put in",
            "integrated gradients",
            "gradient x input",
            "gradient norm",
            "direct attribution",
            "attention rollout",
            "value-weighted rollout",
            "ALTI",
        ];
        expected.retain(|name| one || *name != "integrated gradients");
        assert_eq!(names, expected);
        assert_eq!(found.shares.labels(Axis::Series).unwrap(), names);
        for (name, grid) in &found.methods {
            let series = found.shares.index_of(Axis::Series, name).unwrap();
            let shares = found.shares.select(Axis::Series, series as i64).unwrap();
            for row in 0..tokens.batch() {
                let own = |grid: &Grid| match tokens.batch() {
                    1 => grid.clone(),
                    _ => grid.select(Axis::Batch, row as i64).unwrap(),
                };
                let (shares, measured) = (own(&shares), own(grid));
                let total: f64 = cells(&shares).iter().map(|(_, value)| value.abs()).sum();
                near(total, 1.0, 1e-12, name);
                let sum: f64 = cells(&measured).iter().map(|(_, value)| value.abs()).sum();
                for (index, share) in cells(&shares) {
                    near(share * sum, measured.values[index.as_slice()], 1e-10, name);
                }
            }
        }
        let interval = found.agreement.interval.as_ref().unwrap();
        assert!(interval.method.contains(if tokens.batch() > 1 { "prompts" } else { "cells" }));
        assert_eq!(found.agreement.get(&["attention cut", "attention cut"]).unwrap(), 1.0);
        let signed = if one { 5 } else { 4 };
        assert_eq!(found.signed_agreement.shape(), [signed, signed]);
        let line = format!("{found:?}");
        assert!(line.contains("Spearman with attention cut: mean embedding put in"), "{line}");
        assert!(!line.contains('\n'));
    }
}

#[test]
fn a_list_without_a_causal_method_gets_attention_cut_and_the_first_occlusion_leads() {
    let (model, tokens) = (&models(Kind::Double)[0], tokens().row(0).unwrap());
    let run =
        |methods: &[ImportanceMethod]| importance(model, &tokens, &metric(), methods).unwrap();
    let found = run(&[ImportanceMethod::Alti]);
    assert_eq!(found.shares.labels(Axis::Series).unwrap(), ["attention cut", "ALTI"]);
    let put_in = ImportanceMethod::from(Occlusion::Token(7));
    let found = run(&[ImportanceMethod::Alti, put_in, Occlusion::AttentionCut.into()]);
    assert_eq!(
        found.shares.labels(Axis::Series).unwrap(),
        ["\"7\" put in", "ALTI", "attention cut"]
    );
    let alone = run(&[Occlusion::AttentionCut.into()]);
    assert_eq!(alone.agreement.shape(), [1, 1]);
    says(alone.method("alti"), &["no method \"alti\"", "attention cut"]);
}

#[test]
fn methods_that_must_agree_do() {
    let config = Config { n_layers: 3, eps: 1e16, ..config() };
    let model = model_of(config, Kind::Double, 4).with_weights(|name, w| {
        Ok(match name {
            _ if name.contains("norm") => w * 1e8,
            _ if name.contains("q_proj") || name.contains("down_proj") => w.zeros_like(),
            _ => w.shallow_clone(),
        })
    });
    let methods = [
        Occlusion::MeanEmbedding.into(),
        ImportanceMethod::IntegratedGradients(Baseline::MeanEmbedding),
    ];
    let found = importance(&model.unwrap(), &tokens(), &metric(), &methods).unwrap();
    let pair = ["mean embedding put in", "integrated gradients"];
    near(found.agreement.get(&pair).unwrap(), 1.0, 1e-12, pair);
    near(found.signed_agreement.get(&pair).unwrap(), 1.0, 1e-12, pair);
}

#[test]
fn which_tokens_matter_goes_by_magnitude_and_which_speak_for_it_by_sign() {
    let (model, one) = (&models(Kind::Double)[0], tokens().row(0).unwrap());
    let methods = [Occlusion::AttentionCut.into(), ImportanceMethod::GradientTimesInput];
    let found = importance(model, &one, &metric(), &methods).unwrap();
    let list = |name: &str| -> Vec<f64> {
        let grid = found.method(name).unwrap();
        (0..5).map(|at| grid.at(&[at]).unwrap()).collect() // the last token cannot be cut off
    };
    let pair = ["attention cut", "gradient x input"];
    let [cut, gradient] = pair.map(list);
    let size = |list: &[f64]| list.iter().map(|value| value.abs()).collect::<Vec<_>>();
    let sizes = thalweg::spearman(&size(&cut), &size(&gradient)).unwrap();
    let signs = thalweg::spearman(&cut, &gradient).unwrap();
    assert!((sizes - signs).abs() > 0.1, "{sizes} and {signs}: the test needs them apart");
    near(found.agreement.get(&pair).unwrap(), sizes, 1e-12, "magnitudes");
    near(found.signed_agreement.get(&pair).unwrap(), signs, 1e-12, "signs");
}

#[test]
fn tokens_after_the_metrics_place_are_missing_and_a_loss_reads_every_place() {
    let (model, one) = (&models(Kind::Double)[0], tokens().row(0).unwrap());
    let found = importance(model, &one, &metric().at(3), &quick(&metric())).unwrap();
    for (name, grid) in &found.methods {
        let exist = if name == "attention cut" { 3 } else { 4 };
        assert_eq!(cells(grid).len(), exist, "{name}");
    }
    let methods = quick(&Metric::loss());
    let found = importance(model, &one, &Metric::loss(), &methods).unwrap();
    let alti = found.method("ALTI").unwrap();
    assert_eq!(cells(alti).len(), 5);
    near(cells(alti).iter().map(|(_, value)| value).sum(), 1.0, 1e-12, "mean over places");
    assert!(found.method("direct attribution").is_err());
}

#[test]
fn a_metric_that_saturates_and_a_method_that_cannot_are_said() {
    let (model, one) = (&models(Kind::Double)[0], tokens().row(0).unwrap());
    let found = importance(model, &one, &Metric::prob_diff(5, 11), &[ImportanceMethod::Alti]);
    assert!(found.unwrap().notes[0].contains("saturates"));
    let direct =
        importance(model, &one, &Metric::log_prob(5), &[ImportanceMethod::TokenAttribution]);
    says(direct, &["importance: direct attribution", "log_prob"]);
}

#[test]
fn by_word_adds_up_pieces_and_compares_words() {
    let (model, one) = (&models(Kind::Double)[0], tokens().row(0).unwrap());
    let pieces = ["The", " ca", "ts", " sl", "ee", "p"].map(str::to_owned).to_vec();
    let tokens = one.labelled(vec![pieces]).unwrap();
    let found = importance(model, &tokens, &metric(), &quick(&metric())).unwrap();
    let words: Importance = found.by_word().unwrap();
    assert_eq!(words.shares.labels(Axis::Pos).unwrap(), ["The", "cats", "sleep"]);
    let (pieces, word) = (found.method("ALTI").unwrap(), words.method("ALTI").unwrap());
    let expected = pieces.at(&[1]).unwrap() + pieces.at(&[2]).unwrap();
    assert_eq!(word.get(&["cats"]).unwrap(), expected);
}

#[test]
fn the_norm_of_the_gradient_is_that_of_its_vector() {
    let model = &models(Kind::Double)[0];
    let norms = gradient_norm(model, &others(), &metric()).unwrap();
    let plan = Plan::new().cache(Site::Embed).gradients(metric());
    let gradients = model.run(&others(), &plan).unwrap().gradients.unwrap();
    let gradients = gradients.get(Site::Embed).unwrap();
    for (index, value) in cells(&norms) {
        let own = gradients.get(index[0] as i64).get(index[1] as i64);
        near(value, own.norm().double_value(&[]), 1e-12, index);
    }
}

#[test]
fn every_metric_can_be_asked_and_one_without_a_gradient_says_so() {
    let (model, one) = (&models(Kind::Double)[0], tokens().row(0).unwrap());
    let base = model.logits(&tokens().row(1).unwrap()).unwrap().get(0).get(-1);
    let smooth = [
        Metric::logit(5),
        Metric::logit_diff(vec![vec![5, 6]], 11),
        Metric::log_prob(5),
        Metric::prob_diff(5, 11).at(2),
        Metric::loss_at([3, 5]),
        Metric::kl(&base),
        Metric::custom("sum of squares", |logits| {
            Ok(logits.square().sum_dim_intlist([-1i64].as_slice(), false, None))
        }),
    ];
    for metric in &smooth {
        let found = importance(model, &one, metric, &quick(metric)).unwrap();
        for (name, grid) in &found.methods {
            let any = cells(grid).iter().any(|(_, value)| *value != 0.0);
            assert!(any, "{metric:?}: {name}: {grid:?}");
        }
    }
    for metric in [Metric::rank(5), Metric::accuracy(5)] {
        let causal = [Occlusion::AttentionCut.into(), Occlusion::MeanEmbedding.into()];
        importance(model, &one, &metric, &causal).unwrap();
        let refused = importance(model, &one, &metric, &[ImportanceMethod::GradientTimesInput]);
        says(refused, &["gradient x input", &format!("{metric:?}"), "gradient"]);
    }
}
