//! Writing on, with keys and values kept, gives what running the whole text anew gives.

use thalweg::anyhow::Result;
use thalweg::rng::Rng;
use thalweg::tch::Kind;
use thalweg::{
    Config, Freeze, Generated, Intervention, Metric, Model, Plan, Point, Rope, RopeScaling,
    Sampling, Scope, Site, Sites, Tokens,
};

use crate::support::change::{everything, others, tokens};
use crate::support::{config, distance, model, model_of, says};

/// Largest distance at any site cached, and of the logits, between keeping and recomputing.
#[track_caller]
fn strays(model: &Model, tokens: &Tokens, sampling: Sampling, plan: &Plan) -> f64 {
    let kept = model.generate(tokens, sampling.clone(), plan).unwrap();
    let anew = model.generate(tokens, sampling.recompute(), plan).unwrap();
    assert_eq!(kept.new, anew.new);
    assert_eq!(kept.cache.tokens().ids(), anew.cache.tokens().ids());
    let sites: Vec<Site> = kept.cache.sites().collect();
    assert_eq!(sites, anew.cache.sites().collect::<Vec<_>>());
    let far = sites
        .iter()
        .map(|site| distance(&kept.cache.get(*site).unwrap(), &anew.cache.get(*site).unwrap()));
    far.fold(distance(&kept.logits, &anew.logits), f64::max)
}

fn everywhere() -> Plan {
    let extra = [Point::QInput, Point::KInput, Point::VInput, Point::MlpIn, Point::HeadResult];
    Plan::new().cache(Sites::everything()).cache(extra)
}

#[test]
fn kept_keys_and_values_give_what_the_whole_text_gives_at_every_site() {
    let biased = Config { attention_bias: true, mlp_bias: true, n_layers: 3, ..config() };
    for model in [model(), model_of(biased, Kind::Double, 4)] {
        for tokens in [tokens(), tokens().row(1).unwrap()] {
            let off = strays(&model, &tokens, 6.into(), &everywhere());
            assert!(off < 1e-10, "{off:.1e}");
            let fused = Plan::new().cache(Point::ResidPost);
            let off = strays(&model, &tokens, Sampling::new(6).temperature(1.5).seed(3), &fused);
            assert!(off < 1e-10, "fused: {off:.1e}");
        }
    }
}

#[test]
fn greedy_tokens_are_those_of_running_and_taking_the_best_again_and_again() {
    let (model, tokens) = (model(), tokens());
    let written = model.generate(&tokens, 5, &Plan::new()).unwrap();
    let mut rows = tokens.ids().to_vec();
    for _ in 0..5 {
        let longer = Tokens::from_ids(&rows).unwrap();
        let best = model.logits(&longer).unwrap().select(1, -1).argmax(-1, false);
        let best = Vec::<i64>::try_from(best).unwrap();
        rows.iter_mut().zip(best).for_each(|(row, id)| row.push(id));
    }
    assert_eq!(written.tokens.ids(), rows);
    assert_eq!(written.logits.size(), [2, 5, 23]);
    // the last token was never an input
    assert_eq!(written.cache.tokens().lens(), [9, 7]);
}

/// The same interventions on the whole text, in a plain run: where a scope acts is spelt out.
fn by_hand(model: &Model, written: &Generated, plan: &Plan) -> f64 {
    let run = model.run(written.cache.tokens(), &plan.clone().cache(Point::ResidPost)).unwrap();
    let n = written.logits.size()[1];
    let last = run.logits.narrow(1, run.logits.size()[1] - n, n);
    distance(&written.logits, &last)
}

#[test]
fn scopes_say_where_an_intervention_acts() {
    let (model, tokens) = (model(), tokens().row(0).unwrap());
    let direction = Rng::new(5).normal_tensor(&[12]).to_kind(Kind::Double);
    let add = || Intervention::add(&direction, 0.8).absolute();
    let site = Point::ResidMid.at(0);
    for (scope, places) in [(Scope::Prompt, 0..5i64), (Scope::Generated, 5..8), (Scope::All, 0..8)]
    {
        let plan = Plan::new().intervene(site, add().scope(scope));
        let written = model.generate(&tokens, 4, &plan).unwrap();
        let whole = Plan::new().intervene(site, add().pos(places));
        assert!(by_hand(&model, &written, &whole) < 1e-10, "{scope:?}");
        assert!(strays(&model, &tokens, 4.into(), &plan) < 1e-10, "{scope:?}");
    }
    let named = Plan::new().intervene(site, add().pos(-1));
    let written = model.generate(&tokens, 4, &named).unwrap();
    assert!(by_hand(&model, &written, &Plan::new().intervene(site, add().pos(4))) < 1e-10);
}

#[test]
fn every_intervention_at_every_site_survives_keeping() {
    let (model, tokens) = (model(), tokens());
    let source = everything(&others());
    for site in Site::all(2) {
        for intervention in [
            Intervention::scale(0.5),
            Intervention::patch(&source).scope(Scope::Prompt),
            Intervention::scale(2.0).scope(Scope::Generated),
        ] {
            let plan = Plan::new().intervene(site, intervention.clone()).cache(Point::ResidPost);
            let off = strays(&model, &tokens, 4.into(), &plan);
            assert!(off < 1e-10, "{site} {intervention:?}: {off:.1e}");
        }
    }
    let shut = Plan::new().intervene(Point::Scores, Intervention::knockout(.., 0));
    let shut_prompt = Intervention::knockout(-1, 1);
    let shut = shut.intervene(Point::Scores.at(0), shut_prompt).cache(Point::Pattern);
    // position 0 would be left without a key
    says(model.generate(&tokens, 3, &shut), &["no key"]);
    let shut =
        Plan::new().intervene(Point::Scores, Intervention::knockout(2.., 1)).cache(Point::Pattern);
    assert!(strays(&model, &tokens, 4.into(), &shut) < 1e-10);
}

#[test]
fn draws_follow_the_seed_the_temperature_and_the_nucleus() {
    let (model, tokens) = (model(), tokens());
    let write = |sampling: Sampling| model.generate(&tokens, sampling, &Plan::new()).unwrap().new;
    let warm = || Sampling::new(12).temperature(2.0);
    assert_eq!(write(warm().seed(1)), write(warm().seed(1)));
    assert_ne!(write(warm().seed(1)), write(warm().seed(2)));
    // so small a nucleus holds the best token alone
    assert_eq!(write(warm().seed(9).top_p(1e-6)), write(12.into()));
    assert_eq!(write(Sampling::new(12).temperature(1e-6)), write(12.into()));
    // a row's draws do not depend on its neighbours
    let alone = model.generate(&tokens.row(0).unwrap(), warm().seed(1), &Plan::new()).unwrap();
    assert_eq!(alone.new[0], write(warm().seed(1))[0]);
}

#[test]
fn draws_have_the_probabilities_of_the_logits() {
    let (model, one) = (model(), Tokens::from_ids(&[vec![3, 1, 4]]).unwrap());
    let many = Tokens::from_ids(&vec![vec![3, 1, 4]; 1500]).unwrap();
    let drawn =
        model.generate(&many, Sampling::new(1).temperature(1.0).seed(4), &Plan::new()).unwrap();
    let probs = model.logits(&one).unwrap().select(1, -1).softmax(-1, None::<Kind>).squeeze();
    let probs = Vec::<f64>::try_from(probs).unwrap();
    for (id, p) in probs.iter().enumerate() {
        let share = drawn.new.iter().filter(|new| new[0] == id as i64).count() as f64 / 1500.0;
        let error = (p * (1.0 - p) / 1500.0).sqrt();
        assert!((share - p).abs() < 4.5 * error, "id {id}: drawn {share:.3}, probability {p:.3}");
    }
}

#[test]
fn a_row_ends_at_its_stop_token_and_the_others_go_on() {
    let (model, tokens) = (model(), tokens());
    let free = model.generate(&tokens, 8, &Plan::new()).unwrap();
    let first = |row: usize, id: i64| free.new[row].iter().position(|new| *new == id);
    let stop = free.new[0][2];
    let written = model.generate(&tokens, Sampling::new(8).stop_at(&[stop]), &Plan::new()).unwrap();
    assert_eq!(written.ended[0], first(0, stop));
    let longest = [first(0, stop), first(1, stop)];
    assert_eq!(written.ended[1], longest[1]);
    let n = if longest[1].is_some() { longest.iter().flatten().max().unwrap() + 1 } else { 8 };
    assert_eq!(written.new[0], free.new[0][..n]);
}

#[test]
fn dynamic_rope_beyond_its_context_is_computed_anew_and_says_so() {
    let rope = Rope { theta: 100.0, scaling: RopeScaling::Dynamic { factor: 4.0 } };
    let model = model_of(Config { rope, n_ctx: 6, ..config() }, Kind::Double, 2);
    let tokens = tokens();
    let written = model.generate(&tokens, 4, &Plan::new()).unwrap();
    assert!(written.notes.iter().any(|note| note.contains("anew")), "{:?}", written.notes);
    let whole = model.logits(written.cache.tokens()).unwrap();
    let last = whole.select(1, -1);
    assert!(distance(&written.logits.select(1, -1), &last) < 1e-12);
}

#[test]
fn what_cannot_be_generated_is_an_error_in_one_line() -> Result<()> {
    let (model, tokens) = (model(), tokens());
    let none = Plan::new();
    says(model.generate(&tokens, 0, &none), &["0 tokens", "at least 1"]);
    says(model.generate(&tokens, 29, &none), &["context of 32", "at most 28"]);
    model.generate(&tokens, 28, &none)?;
    says(model.generate(&tokens, Sampling::new(1).temperature(-1.0), &none), &["temperature -1"]);
    says(model.generate(&tokens, Sampling::new(1).top_p(0.0), &none), &["top_p 0"]);
    let at = |i: Intervention| Plan::new().intervene(Point::ResidPre.at(0), i);
    let add = Intervention::add(&Rng::new(1).normal_tensor(&[12]).to_kind(Kind::Double), 1.0);
    says(model.generate(&tokens, 2, &at(add.clone())), &["mean norm", ".absolute()"]);
    says(model.run(&tokens, &at(add.absolute().scope(Scope::Generated))), &["no generated tokens"]);
    let placed = Intervention::zero().pos(1).scope(Scope::All);
    says(model.generate(&tokens, 2, &at(placed)), &["count in the prompt", "Scope::Prompt"]);
    let patch = Intervention::patch(&everything(&others()));
    says(model.generate(&tokens, 2, &at(patch)), &["each position of the prompt"]);
    says(model.generate(&tokens, 2, &Plan::new().logits_at(-1)), &["logits_at"]);
    let gradients = Plan::new().cache(Point::Z).gradients(Metric::logit(1));
    says(model.generate(&tokens, 2, &gradients), &["gradients"]);
    let frozen = Plan::new().freeze(Freeze::Norm, &everything(&tokens));
    says(model.generate(&tokens, 2, &frozen), &["freeze at a cache"]);
    let tiny = Plan::new().cache(Point::ResidPost).cap(100);
    says(model.generate(&tokens, 2, &tiny), &["the plan's cap is 100 bytes"]);
    Ok(())
}

#[test]
fn the_shipped_model_writes_words() -> Result<()> {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/models/tiny-world");
    let model = Model::load_on(dir, thalweg::tch::Device::Cpu, Kind::Float)?;
    let tokens = model.tokens("The capital of France is")?;
    let written = model.generate(&tokens, 2, &Plan::new().cache(Point::ResidPost))?;
    assert_eq!(written.texts, ["Paris ."]);
    let line = format!("{written:?}");
    assert!(
        line.starts_with("Generated 2 tokens in 1 rows: [\"Paris .\"]; Cache of 4 sites"),
        "{line}"
    );
    assert_eq!(written.tokens.pieces()[0].last().map(String::as_str), Some("."));
    Ok(())
}
