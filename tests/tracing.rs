//! Attention knockout and causal tracing: equal to a loop of runs, and what must hold.

use thalweg::W;
use thalweg::prelude::*;
use thalweg::rng::Rng;

use crate::induction_model::{induction_model, prompt};
use crate::support::{config, model, model_of, says};

fn tokens() -> Tokens {
    Tokens::from_ids(&[vec![3, 1, 4, 1, 5], vec![2, 6, 5, 8, 1]]).unwrap()
}

fn metric() -> Metric {
    Metric::log_prob([4, 11].as_slice())
}

fn measure(model: &Model, tokens: &Tokens, plan: &Plan) -> Vec<f64> {
    let logits = model.run(tokens, plan).unwrap().logits;
    Vec::try_from(metric().of(&logits, tokens).unwrap().to_kind(Kind::Double)).unwrap()
}

fn change(model: &Model, plan: &Plan, base: &Plan) -> f64 {
    let [under, base] = [plan, base].map(|plan| measure(model, &tokens(), plan));
    under.iter().zip(&base).map(|(a, b)| a - b).sum::<f64>() / base.len() as f64
}

fn deep(n_layers: usize) -> Model {
    model_of(thalweg::Config { n_layers, ..config() }, Kind::Double, 2)
}

#[test]
fn a_knockout_takes_a_window_around_each_layer() {
    let model = deep(6);
    for (window, layers) in [
        (1, [0..1, 1..2, 2..3, 3..4, 4..5, 5..6]),
        (2, [0..1, 0..2, 1..3, 2..4, 3..5, 4..6]),
        (3, [0..2, 0..3, 1..4, 2..5, 3..6, 4..6]),
    ] {
        let grid =
            attention_knockout(&model, &tokens(), -1, 1..3, Some(window), &metric()).unwrap();
        assert_eq!(grid.shape(), [6]);
        for (layer, range) in layers.into_iter().enumerate() {
            let sites: Vec<Site> = range.map(|layer| Point::Scores.at(layer)).collect();
            let plan = Plan::new().intervene(sites, Intervention::knockout(-1, 1..3));
            let alone = change(&model, &plan, &Plan::new());
            assert!((grid.values[[layer]] - alone).abs() < 1e-10, "layer {layer} of {window}");
            assert!(alone.abs() > 1e-6);
        }
    }
    // Nine layers, but at most half of them.
    let by_default = attention_knockout(&model, &tokens(), -1, 1..3, None, &metric()).unwrap();
    assert_eq!(by_default.provenance["window"], "3 layers");
}

#[test]
fn a_window_over_all_layers_hides_the_token_from_all_that_follow() {
    let model = deep(3);
    let all = attention_knockout(&model, &tokens(), 2.., 1, Some(3), &metric()).unwrap();
    // Nobody looks at it: it might as well be another token.
    let other = Tokens::from_ids(&[vec![3, 9, 4, 1, 5], vec![2, 0, 5, 8, 1]]).unwrap();
    let elsewhere = attention_knockout(&model, &other, 2.., 1, Some(3), &metric()).unwrap();
    let base = |tokens: &Tokens| measure(&model, tokens, &Plan::new()).iter().sum::<f64>() / 2.0;
    let (a, b) = (all.values[[1]] + base(&tokens()), elsewhere.values[[1]] + base(&other));
    assert!((a - b).abs() < 1e-12 && (base(&tokens()) - base(&other)).abs() > 1e-3);
}

#[test]
fn knockout_finds_the_edges_of_the_induction_circuit() {
    let model = induction_model((60.0, 400.0));
    let tokens = prompt(&model);
    let ids = &tokens.ids()[0];
    let last = ids.len() - 2;
    let source = ids.iter().position(|id| *id == ids[last]).unwrap();
    let metric = Metric::logit(ids[last + 1]).at(last);
    let change = |query: usize, key: usize| {
        let grid = attention_knockout(&model, &tokens, query, key, Some(1), &metric).unwrap();
        [grid.values[[0]], grid.values[[1]]]
    };
    let whole = metric.of(&model.logits(&tokens).unwrap(), &tokens).unwrap().double_value(&[0]);
    // The answer's place looks one back in layer 0; the last place looks at the answer in layer 1.
    let [first, second] = change(source + 1, source);
    assert!((first + whole).abs() < 0.2 * whole && second.abs() < 1e-12, "{first}, {second}");
    let [first, second] = change(last, source + 1);
    assert!(first.abs() < 1e-12 && (second + whole).abs() < 0.2 * whole, "{first}, {second}");
    // An edge without attention.
    assert!(change(last, 1).iter().all(|value| value.abs() < 1e-12));
}

#[test]
fn a_wrong_knockout_is_an_error() {
    let model = deep(3);
    let knock = |keys: std::ops::RangeFrom<i64>, window| {
        attention_knockout(&model, &tokens(), 0, keys, window, &metric())
    };
    says(knock(0.., Some(1)), &["leave query 0", "no key"]);
    says(knock(1.., Some(1)), &["covers no pair"]);
    says(knock(0.., Some(4)), &["a window of 4 layers", "1 to 3"]);
    says(knock(0.., Some(0)), &["a window of 0 layers"]);
}

/// The subject's embeddings with the trace's noise, made by hand.
fn noise(model: &Model, draws: usize, seed: u64) -> Vec<Intervention> {
    let embedding = model.weight(W::E, 0).unwrap().to_kind(Kind::Double);
    let mean = embedding.mean(Kind::Double);
    let n = embedding.numel() as f64;
    let sigma =
        ((&embedding - mean).square().sum(Kind::Double).double_value(&[]) / (n - 1.0)).sqrt();
    let embed = model.embed(&tokens()).unwrap();
    let mut rng = Rng::new(seed);
    let mut draw = || {
        let noised =
            &embed + rng.normal_tensor(&embed.size()).to_kind(Kind::Double) * (3.0 * sigma);
        Intervention::set(&noised).pos(1..3)
    };
    (0..draws).map(|_| draw()).collect()
}

#[test]
fn a_trace_is_the_mean_over_draws_of_what_restoring_brings_back() {
    let model = deep(4);
    let trace = CausalTrace::new(&model, &tokens(), 1..3).unwrap().draws(2).seed(7);
    let points =
        [Point::ResidPre, Point::ResidMid, Point::ResidPost, Point::AttnOut, Point::MlpOut];
    let clean = model.run(&tokens(), &Plan::new().cache(points)).unwrap().cache;
    for (point, window) in [
        (Point::ResidPre, 1),
        (Point::ResidMid, 1),
        (Point::ResidPost, 1),
        (Point::AttnOut, 2),
        (Point::MlpOut, 2),
    ] {
        let grid = trace.grid(point, &metric()).unwrap();
        assert_eq!(grid.shape(), [4, 5]);
        assert_eq!(grid.provenance["window"], format!("{window} layers"));
        for (index, value) in grid.present() {
            let first = index[0].saturating_sub(window / 2);
            let sites: Vec<Site> = (first..=index[0]).map(|layer| point.at(layer)).collect();
            let each = noise(&model, 2, 7).into_iter().map(|noise| {
                let noised = Plan::new().intervene(Site::Embed, noise);
                let restore = Intervention::patch(&clean).pos(index[1]);
                change(&model, &noised.clone().intervene(sites.clone(), restore), &noised)
            });
            let by_hand = each.sum::<f64>() / 2.0;
            assert!((value - by_hand).abs() < 1e-10, "{point:?} at {index:?}");
        }
        assert_eq!(grid.n, 4);
    }
}

#[test]
fn restoring_the_subject_before_the_first_layer_gives_the_clean_run() {
    let model = deep(3);
    let one = CausalTrace::new(&model, &tokens(), 2).unwrap().draws(3).normalised();
    let grid = one.grid(Point::ResidPre, &metric()).unwrap();
    assert!((grid.values[[0, 2]] - 1.0).abs() < 1e-10);
    // What comes before the subject was not noised; what is noised comes back at the end.
    assert!(grid.values[[0, 1]].abs() < 1e-10 && grid.values[[2, 0]].abs() < 1e-10);
    let last = one.grid(Point::ResidPost, &metric()).unwrap();
    assert!((last.values[[2, 4]] - 1.0).abs() < 1e-10);
    let names = ("the noised run".to_owned(), "the clean run".to_owned());
    assert_eq!(grid.zero_one, Some(names));
    let each = one.each_prompt().grid(Point::ResidPre, &metric()).unwrap();
    assert_eq!(each.shape(), [2, 3, 5]);
    for row in 0..2 {
        assert!((each.values[[row, 0, 2]] - 1.0).abs() < 1e-10);
    }
}

#[test]
fn without_noise_there_is_nothing_to_bring_back() {
    let model = model();
    let trace = CausalTrace::new(&model, &tokens(), 1..3).unwrap().noise(0.0).draws(2);
    for point in [Point::ResidPost, Point::MlpOut] {
        let grid = trace.grid(point, &metric()).unwrap();
        assert!(grid.values.iter().all(|value| value.abs() < 1e-12));
    }
    says(trace.normalised().grid(Point::ResidPost, &metric()), &["causal trace", "no difference"]);
}

#[test]
fn a_seed_gives_the_same_trace_and_another_seed_another() {
    let model = model();
    let of = |seed| {
        let trace = CausalTrace::new(&model, &tokens(), 1).unwrap().draws(2).seed(seed);
        trace.grid(Point::ResidPost, &metric()).unwrap().values
    };
    assert_eq!(of(1), of(1));
    assert_ne!(of(1), of(2));
}

#[test]
fn a_wrong_trace_is_an_error() {
    let model = model();
    says(CausalTrace::new(&model, &tokens(), 9), &["the subject", "no position 9"]);
    let trace = CausalTrace::new(&model, &tokens(), 1).unwrap();
    let grid = |trace: CausalTrace, point| trace.grid(point, &metric());
    says(grid(trace.clone(), Point::Z), &["causal trace of Z", "MlpOut"]);
    says(grid(trace.clone().draws(0), Point::MlpOut), &["0 draws"]);
    says(grid(trace.clone().noise(-1.0), Point::MlpOut), &["-1 standard deviations"]);
    says(grid(trace.window(3), Point::MlpOut), &["a window of 3 layers", "1 to 2"]);
}
