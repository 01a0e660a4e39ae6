//! Gradient times input and integrated gradients: what they must add up to.

use super::*;
use crate::induction_model::{induction_model, prompt};

#[test]
fn integrated_gradients_add_up_to_the_difference_of_the_metric() {
    for model in models(Kind::Double).into_iter().skip(1).take(2) {
        for baseline in [Baseline::Prompt(others()), Baseline::MeanEmbedding] {
            let shares = integrated_gradients(&model, &tokens(), &metric(), baseline).unwrap();
            assert!(shares.completeness_error < 0.01, "{shares:?}");
            assert_eq!(shares.tokens.shape(), [3, 6]);
            for row in 0..3 {
                let own = shares.tokens.select(Axis::Batch, row).unwrap();
                let sum: f64 = own.present().map(|(_, value)| value).sum();
                near(sum, shares.difference[row as usize], 0.01, format!("row {row}"));
            }
        }
        let own = |tokens| {
            Vec::<f64>::try_from(measure(&model, &tokens, &Plan::new(), &metric())).unwrap()
        };
        let (clean, corrupt) = (own(tokens()), own(others()));
        let shares = integrated_gradients(&model, &tokens(), &metric(), &others()).unwrap();
        for row in 0..3 {
            near(shares.difference[row], clean[row] - corrupt[row], 1e-12, "difference");
        }
    }
}

#[test]
fn in_a_linear_model_the_shares_are_complete_at_once_and_those_of_gradient_times_difference() {
    let model = linear_model();
    let shares = integrated_gradients(&model, &tokens(), &metric(), &others()).unwrap();
    assert!(shares.completeness_error < 1e-6 && shares.steps == 16, "{shares:?}");
    let settings = AttributionPatching::new(&metric(), Direction::Denoise).points(Site::Embed);
    let estimates = settings.run(&model, &tokens(), &others()).unwrap();
    let estimates = estimates.at(Site::Embed, &[Axis::Pos]).unwrap();
    for (index, value) in shares.tokens.present() {
        near(estimates.values[index.as_slice()], value, 1e-6, format!("{index:?}"));
    }
}

#[test]
fn a_token_that_is_the_same_in_both_prompts_has_no_share() {
    let model = &models(Kind::Double)[0];
    let [a, b] = [[3, 1, 4, 1], [3, 9, 4, 1]].map(|ids| Tokens::from_ids(&[ids.to_vec()]).unwrap());
    let shares = integrated_gradients(model, &a, &metric(), &b).unwrap();
    let shares: Vec<f64> = shares.tokens.values.iter().copied().collect();
    assert_eq!((shares[0], shares[2], shares[3]), (0.0, 0.0, 0.0));
    assert!(shares[1].abs() > 1e-3);
}

#[test]
fn soft_induction_needs_more_steps_and_says_how_complete_it_is() {
    let model = induction_model((8.0, 14.0));
    let clean = prompt(&model);
    let mut ids = clean.ids()[0].clone();
    let answer = ids[17];
    ids.swap(4, 5); // another token follows the one at 16 in the first copy
    let corrupt = Tokens::from_ids(&[ids]).unwrap();
    let metric = Metric::logit(answer).at(16);
    let shares = integrated_gradients(&model, &clean, &metric, &corrupt).unwrap();
    assert!(shares.completeness_error < 0.01, "{shares:?}");
    assert!(shares.difference[0].abs() > 0.5, "{shares:?}");
    let later: f64 = shares.tokens.values.iter().skip(17).map(|share| share.abs()).sum();
    assert_eq!(later, 0.0);
}

#[test]
fn gradient_times_input_of_the_linear_mode_adds_up_to_the_logit() {
    let model = &models(Kind::Double)[0]; // no biases
    let logit = Metric::logit(9);
    let expected = measure(model, &tokens(), &Plan::new(), &logit);
    for mode in [Freeze::Linear, Freeze::RelP] {
        let grid = gradient_times_input(model, &tokens(), &logit, Some(mode)).unwrap();
        for row in 0..3 {
            let own = grid.select(Axis::Batch, row).unwrap();
            let sum: f64 = own.present().map(|(_, value)| value).sum();
            near(sum, expected.double_value(&[row]), 1e-11, mode);
        }
    }
    let one = tokens().row(0).unwrap();
    let plain = gradient_times_input(model, &one, &logit, None).unwrap();
    assert_eq!(plain.shape(), [6]);
    let plan = Plan::new().cache(Site::Embed).gradients(logit);
    let run = model.run(&one, &plan).unwrap();
    let products =
        run.cache.get(Site::Embed).unwrap() * run.gradients.unwrap().get(Site::Embed).unwrap();
    near(
        plain.at(&[2]).unwrap(),
        products.get(0).get(2).sum(Kind::Double).double_value(&[]),
        1e-12,
        "2",
    );
}

#[test]
fn tokens_that_cancel_do_not_ask_for_more_steps_than_their_shares_need() {
    let model = &models(Kind::Double)[1];
    let tokens = tokens().row(0).unwrap();
    let difference = |word: i64| {
        let found =
            integrated_gradients(model, &tokens, &Metric::logit(word), Baseline::MeanEmbedding);
        found.unwrap().difference[0]
    };
    let (nine, five) = (difference(9), difference(5));
    // on the way from the baseline this metric changes, and comes back to where it began
    let metric = Metric::custom("in balance", move |logits| {
        Ok(logits.select(-1, 9) * five - logits.select(-1, 5) * nine)
    });
    let shares = integrated_gradients(model, &tokens, &metric, Baseline::MeanEmbedding).unwrap();
    let largest = shares.tokens.values.iter().fold(0f64, |most, share| most.max(share.abs()));
    assert!(shares.difference[0].abs() < 1e-9 * largest, "{shares:?}");
    assert!(shares.steps <= 256, "{shares:?}");
    assert!(shares.tokens.values.sum().abs() < 1e-8 * largest, "{shares:?}");
}

#[test]
fn a_baseline_of_another_length_is_refused() {
    let model = &models(Kind::Double)[0];
    let one = Tokens::from_ids(&[vec![1, 2]]).unwrap();
    says(
        integrated_gradients(model, &tokens(), &metric(), &one),
        &["3 clean prompts and 1 corrupt"],
    );
}
