//! Two models: what they say, and their weights.

use thalweg::{Config, lens_divergence, lens_kl, prediction_kl, weight_difference};

use super::*;
use crate::support::{config, model, model_of};

fn batch() -> Tokens {
    Tokens::from_ids(&[vec![1, 4, 9, 2, 7], vec![3, 3, 8]]).unwrap()
}

fn run(model: &Model) -> Run {
    model.run(&batch(), &Plan::new().cache([Point::ResidPre, Point::ResidPost])).unwrap()
}

#[test]
fn predictions_diverge_by_the_metric_kl_and_a_model_from_itself_not_at_all() {
    let (a, b) = (run(&model()), run(&model_of(config(), Kind::Double, 2)));
    let found = prediction_kl(&a, &b).unwrap();
    assert_eq!((found.shape(), found.present().count()), (&[2, 5][..], 8));
    for row in 0..2 {
        let base = a.logits.get(row).get(3);
        let other = b.logits.get(row).get(3).unsqueeze(0);
        let expected = Metric::kl(&base).of_row(&other).unwrap().double_value(&[0]);
        near(found.at(&[row, 3]).unwrap(), expected);
    }
    assert!(prediction_kl(&a, &a).unwrap().present().all(|(_, kl)| kl == 0.0));
    let last = model().run(&batch(), &Plan::new().logits_at(-1)).unwrap();
    says(prediction_kl(&a, &last), &["all positions", "logits_at"]);
    let other = model().run(&batch().row(0).unwrap(), &Plan::new()).unwrap();
    says(prediction_kl(&a, &other), &["different tokens"]);
}

#[test]
fn lenses_diverge_rung_by_rung_and_end_in_the_predictions() {
    let (one, two) = (model(), model_of(Config { d_model: 16, ..config() }, Kind::Double, 2));
    let (a, b) = (run(&one), run(&two));
    let found = lens_divergence((&one, &a.cache), (&two, &b.cache)).unwrap();
    assert_eq!(found.labels(Axis::Layer).unwrap(), ["embed", "L0", "L1"]);
    let said = prediction_kl(&a, &b).unwrap();
    let last = found.select(Axis::Layer, -1).unwrap();
    last.present().zip(said.present()).for_each(|((_, a), (_, b))| near(a, b));
    let itself = lens_divergence((&one, &a.cache), (&one, &a.cache)).unwrap();
    assert!(itself.present().all(|(_, kl)| kl == 0.0));
    // A rung against the last one is another question.
    assert!(lens_kl(&one, &a.cache).unwrap().at(&[0, 0, 2]).unwrap() > 0.0);
    let fewer = two.run(&batch(), &Plan::new().cache(Point::ResidPost)).unwrap();
    says(lens_divergence((&one, &a.cache), (&two, &fewer.cache)), &["embed", "L0"]);
}

#[test]
fn a_planted_change_of_rank_two_is_found_in_its_matrix_and_nowhere_else() {
    let a = model();
    let mut rng = Rng::new(4);
    let mut thin =
        |rows: i64, columns: i64| rng.normal_tensor(&[rows, columns]).to_kind(Kind::Double);
    let change = thin(20, 2).matmul(&thin(2, 12)); // of up_proj, [DMlp, DModel]
    let all = thin(24, 12) * 0.1; // of q_proj: in every direction
    let b = a
        .with_weights(|name, w| {
            Ok(match name {
                "model.layers.1.mlp.up_proj.weight" => w + &change,
                "model.layers.0.self_attn.q_proj.weight" => w + &all,
                _ => w.shallow_clone(),
            })
        })
        .unwrap();
    let found = weight_difference(&a, &b, 5).unwrap();
    let before = a.weight(W::In, 1).unwrap().norm().double_value(&[]);
    let expected = change.norm().double_value(&[]) / before;
    near(found.relative.get(&["L1", "In"]).unwrap(), expected);
    assert_eq!(found.relative.values.iter().filter(|x| **x > 0.0).count(), 2);
    assert_eq!(found.rank.present().count(), 2, "equal matrices differ in no direction");
    assert!(found.rank.get(&["L1", "In"]).unwrap() <= 2.0 + 1e-9);
    assert!(found.rank.get(&["L0", "Q"]).unwrap() > 5.0);
    let singular =
        |layer: &str, part: &str, at: &str| found.spectrum.get(&[layer, part, at]).unwrap();
    assert!(singular("L1", "In", "2") > 1.0 && singular("L1", "In", "3") < 1e-9);
    assert!(singular("L0", "Q", "5") > 0.1 && singular("L0", "K", "1") == 0.0);
    let rest: f64 = ["1", "2"].iter().map(|at| singular("L1", "In", at).powi(2)).sum();
    near(rest.sqrt(), change.norm().double_value(&[]));
    let wide = model_of(Config { d_mlp: 24, ..config() }, Kind::Double, 1);
    says(weight_difference(&a, &wide, 3), &["Gate of layer 0", "[12, 20]", "[12, 24]"]);
    assert!(!format!("{found:?}").contains('\n'));
}
