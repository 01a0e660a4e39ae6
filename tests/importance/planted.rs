//! Answers known beforehand: the induction circuit written by hand, and facts and names of tiny-world.

use super::*;

/// The values of a grid `[Pos]`, 0 where a cell does not exist.
fn values(grid: &Grid) -> Vec<f64> {
    let mut values = vec![0.0; grid.shape()[0]];
    grid.present().for_each(|(index, value)| values[index[0]] = value);
    values
}

/// The largest magnitude among these positions.
fn largest(values: &[f64], places: impl IntoIterator<Item = usize>) -> f64 {
    places.into_iter().map(|at| values[at].abs()).fold(0.0, f64::max)
}

/// What each method says of the tokens of one prompt.
fn said(model: &Model, tokens: &Tokens, metric: &Metric, by: &[ImportanceMethod]) -> Importance {
    importance(model, tokens, metric, by).unwrap()
}

const READING: [ImportanceMethod; 4] = [
    ImportanceMethod::Occlusion(Occlusion::AttentionCut),
    ImportanceMethod::Occlusion(Occlusion::Token(0)),
    ImportanceMethod::Alti,
    ImportanceMethod::ValueWeightedRollout,
];

#[test]
fn the_token_after_the_first_occurrence_matters_at_the_second() {
    let model = induction_model((60.0, 400.0));
    let known = broken(&model);
    let (answer, last, n) = (known.source + 1, known.last, known.clean.width());
    let logit = measure(&model, &known.clean, &Plan::new(), &known.metric)[0];
    let found = said(&model, &known.clean, &known.metric, &READING);
    let of = |name: &str| values(found.method(name).unwrap());
    // By cause the answer is worth the whole logit, and what it follows nearly so, for without it
    // nobody tells the answer what came before; the asking token itself can only be replaced.
    for (name, asked) in [("attention cut", vec![]), ("\"0\" put in", vec![last])] {
        let lost = of(name);
        near(lost[answer], logit, 1e-6, name);
        assert!(lost[known.source] > 0.9 * logit, "{name}: {lost:?}");
        // Cutting the token before the asking one changes the stream's length alone.
        let known = [known.source, answer, last - 1].into_iter().chain(asked);
        let known: Vec<usize> = known.collect();
        let rest = largest(&lost, (0..n).filter(|at| !known.contains(at)));
        assert!(rest < 0.02 * logit, "{name}: {lost:?}");
    }
    // In the stream are also the asking token and the one before it, answer or not.
    let earlier = |shares: &[f64]| {
        let rest = (0..last - 1).filter(|at| ![known.source, answer].contains(at));
        (shares[known.source].min(shares[answer]), largest(shares, rest))
    };
    for name in ["ALTI", "value-weighted rollout"] {
        let (both, rest) = earlier(&of(name));
        assert!(both > 0.04 && rest < 1e-9, "{name}: {both}, {rest}");
    }
    let cache = recorded(&model, &known.clean);
    let at = |key: usize| [1, 0, last as i64, key as i64];
    for grid in [value_weighted_attention(&model, &cache), contribution_weights(&model, &cache)] {
        let grid = grid.unwrap();
        let rest = (0..=last).filter(|key| *key != answer);
        let rest = rest.map(|key| grid.at(&at(key)).unwrap()).fold(0.0, f64::max);
        assert!(grid.at(&at(answer)).unwrap() > 0.999 && rest < 1e-9, "{grid:?}");
    }
    let direct = token_attribution(&model, &cache, &known.metric).unwrap();
    near(direct.at(&[1, 0, answer as i64]).unwrap(), logit, 1e-12, "direct");

    // A prompt that repeats nothing: no token has the answer, no earlier one stands out.
    let shuffled = Tokens::from_ids(&[(0..13).collect()]).unwrap();
    let metric = Metric::logit(6).at(-1);
    let found = said(&model, &shuffled, &metric, &READING);
    for name in ["attention cut", "\"0\" put in"] {
        let lost = values(found.method(name).unwrap());
        assert!(largest(&lost, 0..13) < 0.1 * logit, "{name}: {lost:?}");
    }
    for name in ["ALTI", "value-weighted rollout"] {
        let shares = values(found.method(name).unwrap());
        assert!(largest(&shares, 0..11) < 2.0 * shares[3], "{name}: {shares:?}");
    }
}

#[test]
fn saturated_attention_defeats_gradients_and_not_occlusion() {
    let model = induction_model((60.0, 400.0));
    let known = broken(&model);
    let methods = [
        Occlusion::AttentionCut.into(),
        ImportanceMethod::GradientTimesInput,
        ImportanceMethod::GradientNorm,
    ];
    let found = said(&model, &known.clean, &known.metric, &methods);
    let at = |name: &str, at: usize| found.method(name).unwrap().at(&[at as i64]).unwrap();
    let (source, answer) = (known.source, known.source + 1);
    let lost = at("attention cut", source);
    assert!(lost > 1.5, "{lost}");
    // Only where the induction head looks does the source matter, and that has no gradient left.
    let gradient = at("gradient x input", source);
    assert!(gradient.abs() < 1e-3 * lost, "{gradient} for {lost}");
    // What the answer's value writes is no matter of attention: there the gradient sees well.
    let value = at("gradient x input", answer) / at("attention cut", answer);
    assert!((0.5..1.0).contains(&value), "{value}");
    let norm = found.method("gradient norm").unwrap();
    assert!(cells(norm).len() == known.last + 1);
}

#[test]
fn integrated_gradients_share_the_answer_between_the_two_tokens_that_carry_it() {
    let model = induction_model((8.0, 14.0));
    let known = broken(&model);
    let shares = |changed: [usize; 2]| {
        let mut ids = known.clean.ids()[0].clone();
        changed.iter().for_each(|at| ids[*at] = 0);
        let baseline = Tokens::from_ids(&[ids]).unwrap();
        let found = integrated_gradients(&model, &known.clean, &known.metric, &baseline).unwrap();
        assert!(found.completeness_error < 0.01, "{found:?}");
        (values(&found.tokens), found.difference[0])
    };
    let (source, answer) = (known.source, known.source + 1);
    let (own, whole) = shares([source, answer]);
    assert!(whole > 1.5 && own[source] > 0.1 * whole && own[answer] > 0.1 * whole, "{own:?}");
    near(own[source] + own[answer], whole, 0.01 * whole, "both");
    let (others, whole) = shares([3, 4]);
    assert!(largest(&others, 0..others.len()) < 0.01 && whole.abs() < 0.01, "{others:?}");
}

fn tiny_world() -> Model {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/data/models/tiny-world");
    Model::load_on(dir, Device::Cpu, Kind::Float).unwrap()
}

/// The first prompts of a kind, and right less wrong answers.
fn prompts(model: &Model, task: &str, label: &str) -> (thalweg::prompts::Aligned, Metric) {
    let file = format!("{}/data/prompts/{task}.json", env!("CARGO_MANIFEST_DIR"));
    let set = Prompts::load(file).unwrap().labelled(label).unwrap().first(8);
    let set = set.aligned(model).unwrap();
    let metric = Metric::logit_diff(&set.right, &set.wrong);
    (set, metric)
}

/// The mean over prompts of each method's numbers.
fn means(found: &Importance, name: &str) -> Vec<f64> {
    values(&found.method(name).unwrap().mean(Axis::Batch).unwrap())
}

#[test]
fn the_subject_of_a_fact_matters_and_the_words_around_it_do_not() {
    let methods = [
        Occlusion::AttentionCut.into(),
        ImportanceMethod::TokenAttribution,
        ImportanceMethod::Alti,
        ImportanceMethod::AttentionRollout,
    ];
    let model = tiny_world();
    let (set, metric) = prompts(&model, "fact", "capital of");
    let subject = set.position("subject").unwrap();
    let found = said(&model, &set.clean, &metric, &methods);
    let rest = |values: &[f64]| largest(values, (0..values.len()).filter(|at| *at != subject));
    // ALTI describes how tokens mix, whatever comes of it, and shares more out.
    for (name, times) in [("attention cut", 4.0), ("direct attribution", 4.0), ("ALTI", 1.5)] {
        let means = means(&found, name);
        assert!(means[subject] > times * rest(&means), "{name}: {means:?}");
    }
    // Rollout takes looking for reading: it gives the first tokens more than the subject.
    let rollout = means(&found, "attention rollout");
    assert!(rollout[subject] < rest(&rollout), "{rollout:?}");
    let cut = found.agreement.get(&["attention cut", "ALTI"]).unwrap();
    let looked = found.agreement.get(&["attention cut", "attention rollout"]).unwrap();
    assert!(cut > 0.4 && looked < 0.0, "ALTI {cut}, rollout {looked}");
    // The same weights in another order know no capitals.
    let control = said(&model.shuffled(3).unwrap(), &set.clean, &metric, &methods[..2]);
    let (lost, direct) = (means(&control, "attention cut"), means(&control, "direct attribution"));
    let known = means(&found, "attention cut")[subject];
    assert!(largest(&lost, 0..lost.len()) < 0.1 * known, "{lost:?}");
    assert!(largest(&direct, 0..direct.len()) < 0.1 * known, "{direct:?}");
}

#[test]
fn the_names_of_an_indirect_object_matter_and_a_neutral_word_does_not() {
    let model = tiny_world();
    let (set, metric) = prompts(&model, "ioi", "T1 BABA");
    let at = |role: &str| set.position(role).unwrap();
    let methods = [Occlusion::AttentionCut.into(), ImportanceMethod::TokenAttribution];
    let found = said(&model, &set.clean, &metric, &methods);
    for (name, second) in [("attention cut", 0.2), ("direct attribution", 0.2)] {
        let means = means(&found, name);
        let whole = means[at("IO")];
        assert!(whole > 5.0, "{name}: {means:?}");
        assert!(means[at("S1")] < -0.2 * whole, "{name}: S1 speaks for the other name: {means:?}");
        assert!(means[at("S2")] > second * whole, "{name}: S2 says which to leave: {means:?}");
        let neutral = [at("place") - 1, at("place"), at("object") - 1, at("object")];
        assert!(largest(&means, neutral) < 0.02 * whole, "{name}: {means:?}");
    }
    let control = said(&model.shuffled(3).unwrap(), &set.clean, &metric, &methods);
    for name in ["attention cut", "direct attribution"] {
        let (lost, known) = (means(&control, name), means(&found, name)[at("IO")]);
        assert!(largest(&lost, 0..lost.len()) < 0.1 * known, "{name}: {lost:?}");
    }
}
