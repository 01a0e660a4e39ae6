//! A plan is checked whole before any work: each mistake is one clear sentence.

use thalweg::tch::{Device, Kind, Tensor};
use thalweg::{
    Attention, Axis, Config, Index, Intervention, Plan, Point, Position, Run, Site, Sites, Tokens,
};

use crate::support::{config, model, model_of, says};

fn tokens() -> Tokens {
    Tokens::from_ids(&[vec![3, 1, 4, 1, 5], vec![9, 2, 6]]).unwrap()
}

/// Runs with an intervention in front that would panic if any work began.
fn run(plan: Plan) -> thalweg::anyhow::Result<Run> {
    let never = Intervention::custom("never", |_| panic!("the run began"));
    model().run(&tokens(), &plan.intervene(Site::Embed, never))
}

#[track_caller]
fn refused(site: Site, intervention: Intervention, words: &[&str]) {
    let named = format!("intervention at {site}: {intervention:?}");
    let text = says(run(Plan::new().intervene(site, intervention)), words);
    assert!(text.starts_with(&named), "{text}");
}

fn vector(len: i64) -> Tensor {
    Tensor::ones([len], (Kind::Double, Device::Cpu))
}

#[test]
fn every_site_has_a_name_that_reads_back() {
    for site in Site::all(12) {
        assert_eq!(site.to_string().parse::<Site>().unwrap(), site);
    }
}

#[test]
fn an_unknown_name_is_offered_the_nearest_one() {
    for (wrong, right) in [
        ("blocks.5.attn.hook_patern", "blocks.5.attn.hook_pattern"),
        ("blocks.11.hook_residpost", "blocks.11.hook_resid_post"),
        ("blocks.0.mlp.hook_post_linear", "blocks.0.mlp.hook_pre_linear"),
        ("hook_embeds", "hook_embed"),
        ("ln_final.hook_scales", "ln_final.hook_scale"),
        ("blocks.x.attn.hook_z", "blocks.0.attn.hook_z"),
        ("blocks.05.attn.hook_z", "blocks.5.attn.hook_z"),
        ("BLOCKS.0.attn.hook_z", "blocks.0.attn.hook_z"),
    ] {
        says(wrong.parse::<Site>(), &[wrong, &format!("did you mean {right}?")]);
    }
    for odd in ["", "blocks", "blocks.", "blocks.99999999999999999999.hook_z", "\u{1f600}"] {
        says(odd.parse::<Site>(), &["no site", "did you mean"]);
    }
}

#[test]
fn layers_heads_and_positions_have_their_range_told() {
    says(run(Plan::new().cache(Point::Z.at(2))), &["blocks.2.attn.hook_z", "layers 0..1"]);
    let z = Point::Z.at(0);
    let zero = Intervention::zero;
    says(run(Plan::new().intervene(Point::Z.at(9), zero())), &["did you mean layer 1?"]);
    refused(z, zero().head(4), &["axis Head has 4 entries", "index 4 is outside 0..4 (or -4..-1)"]);
    refused(z, zero().head(-5), &["index -5"]);
    refused(z, zero().head(2..5), &["range 2..5 is empty or leaves 0..4"]);
    refused(z, zero().head(Vec::<i64>::new()), &["list of indices is empty"]);
    refused(z, zero().head([0, 7]), &["index 7"]);
    refused(z, zero().head(usize::MAX), &["is outside 0..4"]);
    refused(z, zero().dim(6), &["axis DHead has 6 entries"]);
    refused(z, zero().batch(2), &["axis Batch has 2 entries"]);
    refused(z, zero().pos(4), &["row 1 has 3 tokens: no position 4"]);
    refused(z, zero().pos(-4), &["row 1 has 3 tokens: no position -4"]);
    refused(z, zero().pos(2..4), &["row 1 has 3 tokens", "2..4"]);
    refused(z, zero().pos(Position::PerRow(vec![0])), &["1 positions for 2 rows"]);
    refused(z, zero().pos(Position::PerRow(vec![0, 3])), &["row 1 has 3 tokens"]);
    refused(z, zero().pos("S2"), &["no role \"S2\"", "carry no roles"]);
    refused(Point::MlpPost.at(0), zero().neuron(20), &["axis DMlp has 20 entries"]);
    says(run(Plan::new().logits_at(4)), &["logits_at(4)", "row 1 has 3 tokens"]);
}

#[test]
fn an_axis_named_twice_or_lacking_lists_the_sites_axes() {
    let zero = Intervention::zero;
    let twice = "narrows the same axis twice; the axes are [Batch, Pos, Head, DHead]";
    refused(Point::Z.at(0), zero().head(0).head(1), &[".head", twice]);
    refused(Point::Z.at(0), zero().pos(0).pos(1), &[".pos", twice]);
    let stream = "its axes are [Batch, Pos, DModel]";
    refused(Point::ResidPre.at(0), zero().head(0), &[".head needs an axis", stream]);
    refused(Point::ResidPre.at(0), zero().neuron(0), &[".neuron", stream]);
    refused(Point::ResidPre.at(0), zero().query(0), &[".query", stream]);
    let attention = "its axes are [Batch, Head, Query, Key]";
    refused(Point::Pattern.at(0), zero().pos(0), &[".pos", attention]);
    refused(Point::Pattern.at(0), zero().dim(0), &[".dim", attention]);
    refused(Point::Ln1Scale.at(0), zero().dim(0), &[".dim", "[Batch, Pos, Scale]"]);
}

#[test]
fn query_heads_and_key_value_heads_are_not_the_same() {
    let kv = "its axes are [Batch, Pos, KvHead, DHead]";
    refused(Point::K.at(0), Intervention::zero().head(0), &[".head needs", kv]);
    refused(Point::V.at(0), Intervention::zero().head(0), &[".head needs", kv]);
    let q = "its axes are [Batch, Pos, Head, DHead]";
    refused(Point::Q.at(0), Intervention::zero().kv_head(0), &[".kv_head needs", q]);
    refused(Point::Z.at(0), Intervention::zero().kv_head(0), &[".kv_head needs", q]);
}

#[test]
fn directions_and_values_must_fit_the_site() {
    let stream = Point::ResidPost.at(0);
    refused(stream, Intervention::add(&vector(6), 1.0), &["[6]", "expected [DModel] = [12]"]);
    refused(Point::Z.at(0), Intervention::project_out(&vector(12)), &["[DHead] = [6]"]);
    refused(stream, Intervention::add(&vector(12), f64::NAN), &["finite strength"]);
    refused(stream, Intervention::add(&(vector(12) * f64::INFINITY), 1.0), &["non-finite"]);
    refused(stream, Intervention::project_out(&vector(12).zeros_like()), &["direction is zero"]);
    refused(stream, Intervention::scale(f64::INFINITY), &["finite factor"]);
    let whole = vector(12).to_kind(Kind::Int64);
    refused(stream, Intervention::add(&whole, 1.0), &["Int64", "floating kind"]);
    refused(stream, Intervention::set(&whole), &["Int64", "floating kind"]);
    refused(stream, Intervention::set(&vector(7)), &["[7]", "does not broadcast to [2, 5, 12]"]);
    let four = Tensor::zeros([1, 2, 5, 12], (Kind::Double, Device::Cpu));
    refused(stream, Intervention::set(&four), &["[1, 2, 5, 12]"]);
    refused(Point::Pattern.at(0), Intervention::add(&vector(5), 1.0), &["last axis is DModel"]);
    refused(Point::Ln1Scale.at(0), Intervention::add(&vector(1), 1.0), &["last axis is DModel"]);
}

#[test]
fn a_source_must_hold_the_site_in_a_shape_that_fits() {
    let source = model().run(&tokens(), &Plan::new().cache(Point::Z)).unwrap().cache;
    let words = ["blocks.0.hook_resid_pre was not cached", "blocks.{0..1}.attn.hook_z"];
    refused(Point::ResidPre.at(0), Intervention::patch(&source), &words);
    refused(Point::ResidPre.at(0), Intervention::mean(&source), &words);
    let other = Intervention::patch_from(&source, Point::Z.at(0));
    refused(Point::ResidPre.at(0), other, &["[Batch, Pos, Head, DHead]", "needs the same"]);
    let wider = model_of(Config { n_heads: 6, ..config() }, Kind::Double, 2);
    let wide = wider.run(&tokens(), &Plan::new().cache(Point::Z)).unwrap().cache;
    refused(
        Point::Z.at(0),
        Intervention::patch(&wide),
        &["[2, 5, 6, 6]", "this model has 4 on Head"],
    );
    let short = Tokens::from_ids(&[vec![1, 2], vec![3, 4]]).unwrap();
    let cut = model().run(&short, &Plan::new().cache(Point::Z)).unwrap().cache;
    refused(Point::Z.at(0), Intervention::patch(&cut), &["[2, 2] tokens", "[5, 3]"]);
    refused(Point::Z.at(0), Intervention::mean_by_pos(&cut), &["row 0 has 5 tokens", "2"]);
    // Logits at fewer places than tokens are not the logits of every place.
    let last = Plan::new().cache(Site::Logits).logits_at(-1);
    let last = model().run(&tokens(), &last).unwrap().cache;
    for intervention in [
        Intervention::patch(&last),
        Intervention::mean(&last),
        Intervention::mean_by_pos(&last),
        Intervention::resample(&last, &[0, 1]),
    ] {
        refused(Site::Logits, intervention, &["[2, 1, 23]", "its tokens ask for 5 on Pos"]);
    }
}

#[test]
fn a_knockout_must_leave_every_query_a_key() {
    let scores = Point::Scores.at(1);
    let first = Intervention::knockout(0, 0);
    let says_so = |plan: Plan, words: &[&str]| says(run(plan), words);
    let words = ["blocks.1.attn.hook_attn_scores", "query 0 of row 0, head 0", "no key"];
    says_so(Plan::new().intervene(scores, first.clone()), &words);
    says_so(Plan::new().intervene(Point::Scores, first), &["query 0 of row 0"]);
    // Each alone leaves a key, together they leave none.
    let last = || Intervention::knockout(-1, ..2).head(3).batch(1);
    let rest = || Intervention::knockout(2, -1).head([1, 3]);
    assert!(model().run(&tokens(), &Plan::new().intervene(scores, last())).is_ok());
    assert!(model().run(&tokens(), &Plan::new().intervene(scores, rest())).is_ok());
    let both = Plan::new().intervene(scores, last()).intervene(scores, rest());
    says_so(both, &["query 2 of row 1, head 3"]);
    let apart = Plan::new().intervene(Point::Scores.at(0), last()).intervene(scores, rest());
    assert!(model().run(&tokens(), &apart).is_ok());
    says_so(Plan::new().intervene(scores, Intervention::knockout(0, 1)), &["covers no pair"]);
    refused(Point::Pattern.at(1), Intervention::knockout(1, 0), &["use Point::Scores.at(1)"]);
}

#[test]
fn scores_without_a_finite_one_for_some_query_are_an_error() {
    let at = |intervention: Intervention| {
        model().run(&tokens(), &Plan::new().intervene(Point::Scores.at(0), intervention))
    };
    let words = ["blocks.0.attn.hook_attn_scores", "no finite score left"];
    let masked = Tensor::from(f64::NEG_INFINITY);
    says(at(Intervention::set(&masked).query(1)), &words);
    says(at(Intervention::custom("mask", |x| Ok(x.ones_like() * f64::NEG_INFINITY))), &words);
    says(at(Intervention::custom("nan", |x| Ok(x * f64::NAN))), &words);
    says(at(Intervention::set(&Tensor::from(f64::INFINITY)).query(0)), &words);
    assert!(at(Intervention::set(&masked).query(1).key(0)).is_ok());
}

#[test]
fn fused_attention_is_refused_with_scores_or_pattern_and_chosen_without() {
    let fused = || Plan::new().attention(Attention::Fused);
    for plan in [
        fused().cache(Point::Pattern),
        fused().cache(Point::Scores.at(1)),
        fused().intervene(Point::Pattern.at(1), Intervention::scale(1.0)),
        fused().cache(Sites::everything()),
    ] {
        says(run(plan), &["attention(Fused)", "Scores or Pattern", "use Eager"]);
    }
    let chosen = |plan: &Plan| model().run(&tokens(), plan).unwrap().attention;
    assert_eq!(chosen(&Plan::new().cache(Point::Z).cache(Site::Logits)), Attention::Fused);
    assert_eq!(chosen(&Plan::new().cache(Point::Pattern.at(0))), Attention::Eager);
    assert_eq!(chosen(&Plan::new().cache(Point::Scores.at(1))), Attention::Eager);
    assert_eq!(chosen(&Plan::new().attention(Attention::Eager)), Attention::Eager);
}

#[test]
fn a_cap_refuses_before_running_and_says_how_much() {
    let plan = || Plan::new().cache(Sites::everything());
    let need = plan().bytes(&config(), &tokens(), Kind::Double);
    let took = format!("the cache would take {need} bytes");
    says(run(plan().cap(need - 1)), &[&took, "the plan's cap", "Plan::cap"]);
    assert!(model().run(&tokens(), &plan().cap(need)).is_ok());
    assert!(model().run(&tokens(), &Plan::new().cap(0)).is_ok());
    let huge = Config { n_ctx: 1 << 30, ..config() };
    let bytes = Plan::new().cache(Point::Pattern).bytes(&huge, &tokens(), Kind::Float);
    assert_eq!(bytes, 2 * 2 * 4 * 5 * 5 * 4);
}

#[test]
fn bytes_said_beforehand_are_the_bytes_taken() {
    let named = [Point::QInput, Point::KInput, Point::VInput, Point::MlpIn, Point::HeadResult];
    for kind in [Kind::Double, Kind::Float, Kind::BFloat16] {
        let model = model_of(config(), kind, 3);
        for plan in [
            Plan::new(),
            Plan::new().cache(Sites::everything()),
            Plan::new().cache(Sites::everything()).cache(named),
            Plan::new().cache(Point::Pattern).cache(Point::Pattern.at(1)),
            Plan::new().cache(vec![Site::Logits, Site::Embed]).logits_at([0, -1]),
            Plan::new().cache(Site::FinalScale).cache(Point::Ln2Normalized),
        ] {
            let said = plan.bytes(model.config(), &tokens(), kind);
            let run = model.run(&tokens(), &plan).unwrap();
            assert_eq!(said, run.cache.bytes(), "{plan:?} in {kind:?}");
            for site in run.cache.sites() {
                let x = run.cache.get(site).unwrap();
                assert!(x.is_contiguous(), "{site} is a view of something larger");
            }
        }
    }
}

#[test]
fn everything_is_all_but_what_is_computed_only_when_named() {
    let run = model().run(&tokens(), &Plan::new().cache(Sites::everything())).unwrap();
    let sites: Vec<_> = run.cache.sites().collect();
    assert_eq!(sites.len(), 2 * 20 + 4);
    for site in Site::all(2) {
        let named_only = site.point().is_some_and(Point::only_when_named);
        assert_eq!(sites.contains(&site), !named_only, "{site}");
    }
}

#[test]
fn empty_lists_and_odd_pairs_are_errors() {
    says(run(Plan::new().cache(Vec::<Site>::new())), &["cache: the list of sites is empty"]);
    let nowhere = Plan::new().intervene(Vec::<Point>::new(), Intervention::zero());
    says(run(nowhere), &["zero()", "list of sites is empty"]);
    let plan = Plan::new().logits_at(-1).intervene(Site::Logits, Intervention::zero());
    says(run(plan), &["unembed.hook_out", "logits_at"]);
}

#[test]
fn a_plan_is_printed_as_it_was_built() {
    let plan = Plan::new()
        .cache(Point::Pattern)
        .cache(vec![Point::Z.at(1), Site::Embed])
        .intervene(Point::Scores.at(0), Intervention::knockout(-1, 0).head([1, 2]))
        .intervene(Point::ResidPost.at(1), Intervention::add(&vector(12), 2.0).absolute().pos("S"))
        .logits_at(Position::Last)
        .attention(Attention::Eager)
        .cap(1000);
    assert_eq!(
        format!("{plan:?}"),
        "Plan { cache blocks.*.attn.hook_pattern, blocks.1.attn.hook_z, hook_embed; \
         blocks.0.attn.hook_attn_scores: knockout.query(-1).key(0).head([1, 2]); \
         blocks.1.hook_resid_post: add(.., 2).absolute().pos(\"S\"); logits at last; \
         attention Eager; cap 1000 bytes }"
    );
}

#[test]
fn an_index_counts_from_the_end_and_refuses_what_is_not_there() {
    assert_eq!(Index::from(vec![3, -1, 0]).resolve(4).unwrap(), [0, 3]);
    assert_eq!(Index::from(..2).resolve(4).unwrap(), [0, 1]);
    assert_eq!(Index::from(..-1i64).resolve(4).unwrap(), [0, 1, 2]);
    for bad in
        [Index::from(2..2), Index::Range(3, Some(1)), Index::from(0..5), Index::from(i64::MIN)]
    {
        assert!(bad.resolve(4).is_err(), "{bad}");
    }
    assert!(Index::All.resolve(0).is_err());
    assert_eq!(Point::Pattern.axes(), [Axis::Batch, Axis::Head, Axis::Query, Axis::Key]);
}
