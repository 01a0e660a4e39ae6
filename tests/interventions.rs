//! Every intervention does its own arithmetic on its own part.

use thalweg::anyhow::Result;
use thalweg::rng::Rng;
use thalweg::tch::{Kind, Tensor};
use thalweg::{Attention, Intervention, Plan, Point, Position, Site, Tokens};

use crate::support::change::{
    becomes, change, everything, indices, others, pair, real, tokens, with,
};
use crate::support::{distance, model, same, says};

#[test]
fn every_site_can_be_changed_and_shows_it() {
    let cache = everything(&tokens());
    let base = model().logits(&tokens()).unwrap();
    for site in Site::all(2) {
        let run = with(site, Intervention::scale(0.5)).unwrap();
        let (old, new) = (cache.get(site).unwrap(), run.cache.get(site).unwrap());
        let finite = old.isfinite();
        let both = [old, new].map(|x| x.masked_select(&finite));
        assert!(distance(&both[0], &both[1]) > 0.1, "{site} is as it was");
        assert!(distance(&base, &run.logits) > 1e-6, "the logits do not feel a change of {site}");
        assert_eq!(run.fired[0].site, site);
    }
}

#[test]
fn zero_and_scale_do_so() {
    becomes(Point::AttnOut.at(1), Intervention::zero(), |i, x| if real(i) { 0.0 } else { x });
    becomes(Point::Q.at(0), Intervention::scale(-2.5).head(1), |i, x| {
        if real(i) && i[2] == 1 { -2.5 * x } else { x }
    });
    becomes(Point::Scores.at(0), Intervention::zero(), |i, x| if pair(i) { 0.0 } else { x });
}

#[test]
fn mean_leaves_padding_out_and_mean_by_pos_counts_own_tokens() {
    let reference = everything(&others());
    for site in
        [Point::ResidMid.at(1), Point::Z.at(0), Point::Ln1Scale.at(1), Site::FinalNormalized]
    {
        let x = reference.get(site).unwrap();
        let own = |tail: &[i64], columns: &[[i64; 2]]| {
            let at = |c: &[i64; 2]| x.double_value(&[c.as_slice(), tail].concat());
            columns.iter().map(at).sum::<f64>() / columns.len() as f64
        };
        let all = [[0, 0], [0, 1], [0, 2], [0, 3], [0, 4], [1, 2], [1, 3], [1, 4]];
        becomes(site, Intervention::mean(&reference), |i, old| {
            if real(i) { own(&i[2..], &all) } else { old }
        });
        becomes(site, Intervention::mean_by_pos(&reference), |i, old| {
            let place = if i[0] == 0 { i[1] } else { i[1] - 2 };
            let columns = [[0, place], [1, place + 2]];
            let present = if place < 3 { &columns[..] } else { &columns[..1] };
            if real(i) { own(&i[2..], present) } else { old }
        });
    }
}

#[test]
fn patch_takes_the_same_place_of_the_source() {
    let source = everything(&others());
    for site in Site::all(2) {
        let x = source.get(site).unwrap();
        let at = site.axes().contains(&thalweg::Axis::Query);
        becomes(site, Intervention::patch(&source), |i, old| {
            if if at { pair(i) } else { real(i) } { x.double_value(i) } else { old }
        });
    }
    let stream = source.get(Point::ResidPre.at(0)).unwrap();
    let from = Intervention::patch_from(&source, Point::ResidPre.at(0)).pos(-1);
    becomes(
        Point::ResidPost.at(1),
        from,
        |i, old| {
            if i[1] == 4 { stream.double_value(i) } else { old }
        },
    );
}

#[test]
fn one_source_row_serves_every_row_of_its_length() {
    let one = Tokens::from_ids(&[vec![7, 7, 8, 0, 2]]).unwrap();
    let two = Tokens::from_ids(&[vec![3, 1, 4, 1, 5], vec![2, 7, 1, 8, 2]]).unwrap();
    let (source, site) = (everything(&one), Point::MlpOut.at(0));
    let plan = Plan::new().cache(site).intervene(site, Intervention::patch(&source));
    let after = model().run(&two, &plan).unwrap().cache.get(site).unwrap();
    let wanted = source.get(site).unwrap();
    assert!(same(&after.narrow(0, 0, 1), &wanted) && same(&after.narrow(0, 1, 1), &wanted));
}

#[test]
fn resample_takes_the_rows_named() {
    let three = [vec![1, 2, 3], vec![4, 5, 6, 7, 8], vec![9, 10, 11, 12, 13]];
    let source = everything(&Tokens::from_ids(&three).unwrap());
    for site in [Point::Z.at(1), Point::Pattern.at(0), Point::ResidPost.at(0)] {
        let x = source.get(site).unwrap();
        let attention = site == Point::Pattern.at(0);
        becomes(site, Intervention::resample(&source, &[2, 0]), |i, old| {
            let chosen = [&[[2, 0][i[0] as usize]], &i[1..]].concat();
            if if attention { pair(i) } else { real(i) } { x.double_value(&chosen) } else { old }
        });
    }
    let site = Point::Z.at(1);
    let error = with(site, Intervention::resample(&source, &[0, 0]));
    says(error, &["row 0 of the source has 3 tokens", "row 0 of this run has 5"]);
    says(with(site, Intervention::resample(&source, &[1])), &["1 rows chosen for 2 rows"]);
    says(with(site, Intervention::resample(&source, &[1, 3])), &["row 3", "has 3 rows"]);
}

#[test]
fn set_takes_a_number_a_vector_a_part_and_one_value_per_row() {
    let site = Point::ResidPre.at(1);
    let number = Tensor::from(7.0);
    becomes(site, Intervention::set(&number).pos(1), |i, x| {
        if i[1] == [1, 3][i[0] as usize] { 7.0 } else { x }
    });
    let vector = Tensor::arange(12, (Kind::Double, thalweg::tch::Device::Cpu));
    becomes(
        site,
        Intervention::set(&vector).pos(-1),
        |i, x| {
            if i[1] == 4 { i[2] as f64 } else { x }
        },
    );
    let rows = Rng::new(4).normal_tensor(&[2, 12]).to_kind(Kind::Double);
    becomes(site, Intervention::set(&rows).pos(Position::PerRow(vec![3, 1])), |i, x| {
        if i[1] == 3 { rows.double_value(&[i[0], i[2]]) } else { x }
    });
    becomes(site, Intervention::set(&rows).pos("S"), |i, x| {
        if i[1] == [1, 4][i[0] as usize] { rows.double_value(&[i[0], i[2]]) } else { x }
    });
    let part = Rng::new(5).normal_tensor(&[2, 2, 6]).to_kind(Kind::Double);
    becomes(
        Point::Z.at(0),
        Intervention::set(&part).batch(0).pos(1..3).head([1, 3]),
        |i, x| match (i[0], i[1], i[2]) {
            (0, 1 | 2, 1 | 3) => part.double_value(&[i[1] - 1, i[2] / 2, i[3]]),
            _ => x,
        },
    );
    let full = Rng::new(6).normal_tensor(&[2, 5, 12]).to_kind(Kind::Double);
    becomes(site, Intervention::set(&full), |i, x| if real(i) { full.double_value(i) } else { x });
    let error = says(with(site, Intervention::set(&vector.narrow(0, 0, 5)).pos(-1)), &["[5]"]);
    assert!(error.contains("does not broadcast to [2, 5, 12] nor to the part covered, [2, 1, 12]"));
}

#[test]
fn add_is_relative_to_the_rows_norms_unless_absolute() {
    let site = Point::ResidPost.at(0);
    let direction = Rng::new(8).normal_tensor(&[12]).to_kind(Kind::Double) * 3.0;
    let d = |i: i64| direction.double_value(&[i]);
    becomes(site, Intervention::add(&direction, 0.5).absolute().pos(-1), |i, x| {
        if i[1] == 4 { x + 0.5 * d(i[2]) } else { x }
    });
    let (x, length) =
        (everything(&tokens()).get(site).unwrap(), direction.norm().double_value(&[]));
    let norms = x.norm_scalaropt_dim(2, [2i64].as_slice(), false);
    let mean = |row: i64| {
        let own = if row == 0 { 1..5 } else { 3..5 }; // without the first token and the padding
        own.clone().map(|p| norms.double_value(&[row, p])).sum::<f64>() / own.count() as f64
    };
    becomes(site, Intervention::add(&direction, -2.0), |i, x| {
        if real(i) { x - 2.0 * mean(i[0]) * d(i[2]) / length } else { x }
    });
}

#[test]
fn project_out_leaves_no_component_and_ignores_length() {
    let site = Point::Z.at(1);
    let direction = Rng::new(9).normal_tensor(&[6]).to_kind(Kind::Double) * 40.0;
    let (before, after) = change(site, Intervention::project_out(&direction).head(2));
    let unit = &direction / direction.norm();
    let along = |x: &Tensor| (x * &unit).sum_dim_intlist([3i64].as_slice(), false, Kind::Double);
    let (old, new) = (along(&before), along(&after));
    becomes(site, Intervention::project_out(&direction).head(2), |i, x| {
        let component = old.double_value(&i[..3]) * unit.double_value(&[i[3]]);
        if i[2] == 2 && real(i) { x - component } else { x }
    });
    assert!(new.select(2, 2).get(0).abs().max().double_value(&[]) < 1e-12);
}

#[test]
fn knockout_takes_the_pair_away_and_the_rest_share_its_weight() {
    let (scores, pattern) = (Point::Scores.at(1), Point::Pattern.at(1));
    let plan = Plan::new().cache([scores, pattern]);
    let plan = plan.intervene(scores, Intervention::knockout(-1, 0).head(2));
    let run = model().run(&tokens(), &plan).unwrap();
    let old = everything(&tokens());
    let (old, new) = (old.get(pattern).unwrap(), run.cache.get(pattern).unwrap());
    for i in indices(&old.size()) {
        let first = if i[0] == 0 { 0 } else { 2 };
        let wanted = match (i[1], i[2], i[3] == first) {
            (2, 4, true) => 0.0,
            (2, 4, false) => old.double_value(&i) / (1.0 - old.double_value(&[i[0], 2, 4, first])),
            _ => old.double_value(&i),
        };
        assert!((new.double_value(&i) - wanted).abs() < 1e-14, "{i:?}");
    }
    let kept = run.cache.get(scores).unwrap();
    assert_eq!(kept.double_value(&[0, 2, 4, 0]), f64::NEG_INFINITY);
    assert_eq!(kept.double_value(&[1, 2, 4, 2]), f64::NEG_INFINITY);
}

#[test]
fn several_at_one_site_act_in_order_and_the_record_is_what_comes_out() {
    let site = Point::MlpOut.at(0);
    let shift = |by: f64| Intervention::custom("shift", move |x| Ok(x + by));
    let twice = Plan::new().attention(Attention::Eager).cache(site).intervene(site, shift(1.0));
    let run =
        model().run(&tokens(), &twice.intervene(site, Intervention::scale(3.0).pos(0))).unwrap();
    let (old, new) = (everything(&tokens()).get(site).unwrap(), run.cache.get(site).unwrap());
    assert_eq!(new.double_value(&[0, 0, 4]), (old.double_value(&[0, 0, 4]) + 1.0) * 3.0);
    assert_eq!(new.double_value(&[0, 1, 4]), old.double_value(&[0, 1, 4]) + 1.0);
    let named: Vec<_> = run.fired.iter().map(|f| f.intervention.as_str()).collect();
    assert_eq!(named, ["custom(\"shift\")", "scale(3).pos(0)"]);
}

#[test]
fn one_intervention_at_many_sites_fires_at_each() {
    let plan = Plan::new().intervene(Point::Z, Intervention::zero().head(0));
    let plan = plan.intervene(vec![Site::Embed, Point::MlpOut.at(1)], Intervention::scale(2.0));
    let run = model().run(&tokens(), &plan).unwrap();
    let sites: Vec<_> = run.fired.iter().map(|f| f.site).collect();
    assert_eq!(sites, [Point::Z.at(0), Point::Z.at(1), Site::Embed, Point::MlpOut.at(1)]);
}

#[test]
fn custom_must_keep_shape_and_kind_and_its_error_names_the_place() {
    let site = Point::Z.at(0);
    let custom = |f: fn(&Tensor) -> Result<Tensor>| with(site, Intervention::custom("mine", f));
    let place = "intervention at blocks.0.attn.hook_z: custom(\"mine\")";
    let shapes = ["Double [5, 4, 6]", "expected Double [2, 5, 4, 6]"];
    says(custom(|x| Ok(x.get(0))), &[&[place], shapes.as_slice()].concat());
    says(custom(|x| Ok(x.to_kind(Kind::Float))), &[place, "Float", "expected Double"]);
    says(custom(|_| thalweg::anyhow::bail!("no luck")), &[place, "no luck"]);
}

#[test]
fn custom_may_not_change_its_argument_in_place() {
    // The argument may be memory that other steps of the pass hold too.
    let grow = Intervention::custom("grow", |x| Ok(x.shallow_clone().g_add_scalar_(1.0)));
    says(with(Point::MlpIn.at(0), grow), &["blocks.0.hook_mlp_in", "grow", "in place", "copy"]);
}

#[test]
fn set_add_and_project_out_copied_their_tensor() {
    let site = Point::ResidPost.at(0);
    let mut value = Rng::new(3).normal_tensor(&[12]).to_kind(Kind::Double);
    let makers: [fn(&Tensor) -> Intervention; 3] =
        [|v| Intervention::set(v), |v| Intervention::add(v, 1.0), |v| Intervention::project_out(v)];
    let all: Vec<_> = makers.iter().map(|make| make(&value)).collect();
    let results = |all: &[Intervention]| -> Vec<Tensor> {
        all.iter().map(|one| with(site, one.clone()).unwrap().logits).collect()
    };
    let before = results(&all);
    value += 5.0;
    for (old, new) in before.iter().zip(results(&all)) {
        assert!(same(old, &new));
    }
}

#[test]
fn a_plan_does_not_share_the_memory_it_records() {
    let row = Tokens::from_ids(&[vec![3, 1, 4]]).unwrap();
    let site = Point::ResidPost.at(0);
    let full = Rng::new(3).normal_tensor(&[1, 3, 12]).to_kind(Kind::Double);
    let plan = Plan::new().cache(site).intervene(site, Intervention::set(&full));
    let run = model().run(&row, &plan).unwrap();
    let mut recorded = run.cache.get(site).unwrap();
    recorded += 1.0;
    assert!(same(&model().run(&row, &plan).unwrap().cache.get(site).unwrap(), &full));
}
