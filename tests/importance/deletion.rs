//! Deletion curves: where the answer is known to rest, and what cannot be asked.

use thalweg::deletion_curve;

use super::*;

#[test]
fn the_answer_falls_with_the_first_token_it_rests_on_and_stands_without_the_others() {
    let model = induction_model((60.0, 400.0));
    let known = broken(&model);
    let logit = measure(&model, &known.clean, &Plan::new(), &known.metric)[0];
    let lost = occlusion(&model, &known.clean, &known.metric, &Occlusion::Token(0)).unwrap();
    let curve = deletion_curve(&model, &known.clean, &known.metric, &lost, 6, 3).unwrap();
    assert_eq!(curve.shape(), [3, 7]);
    let at = |series: &str, k: &str| curve.get(&[series, k]).unwrap();
    for series in ["most important first", "in random order", "least important first"] {
        near(at(series, "0"), logit, 1e-9, series);
    }
    assert!(at("most important first", "1") < 0.3 * logit, "{curve:?}");
    assert!(at("least important first", "6") > 0.9 * logit, "{curve:?}");
    // One token of a random order is as good as one of the others, so that the order is what counts.
    let other = deletion_curve(&model, &known.clean, &known.metric, &lost, 6, 3).unwrap();
    assert_eq!(curve.values, other.values, "the seed decides");
}

#[test]
fn each_prompt_loses_its_own_tokens_and_never_the_first_or_the_asking_one() {
    let model = induction_model((60.0, 400.0));
    let tokens = thalweg::repeated_tokens(&model, 3, 8, 2).unwrap();
    let ids: Vec<i64> = tokens.ids().iter().map(|row| row[16]).collect();
    let metric = Metric::logit(&ids).at(15);
    // The values say: the first token and the asking one before all others.
    let sizes = |row: usize, at: usize| match at {
        0 | 15 => 100.0,
        8 => 10.0, // the answer, one after where the asking token stood before
        at => 1.0 / (1 + at + row) as f64,
    };
    let values = thalweg::ndarray::Array2::from_shape_fn((3, 17), |(row, at)| sizes(row, at));
    let importance = Grid::from_array(values, &[Axis::Batch, Axis::Pos], "size").unwrap();
    let curve = deletion_curve(&model, &tokens, &metric, &importance, 2, 0).unwrap();
    assert!(curve.interval.is_some() && curve.n == 3);
    let fall = curve.get(&["most important first", "1"]).unwrap();
    assert!(fall < 0.3 * curve.get(&["most important first", "0"]).unwrap(), "{curve:?}");
    says(deletion_curve(&model, &tokens, &metric, &importance, 15, 0), &["15 tokens", "1 to 14"]);
    let one = importance.select(Axis::Batch, 0).unwrap();
    says(deletion_curve(&model, &tokens, &metric, &one, 2, 0), &["3 x 17"]);
}
