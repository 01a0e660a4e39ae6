//! A sweep gives, plan by plan, what running each plan gives.

use thalweg::anyhow::Result;
use thalweg::rng::Rng;
use thalweg::tch::Kind;
use thalweg::{
    Attention, Axis, Cache, Config, Intervention, Metric, Model, Plan, Point, Position, Site,
    SweepOptions, Tokens,
};

use crate::support::change::{everything, others, tokens};
use crate::support::{config, model, model_f32, model_of, says, tensors};

/// The metric of each plan by a run of its own, in the sweep's attention.
fn one_by_one(
    model: &Model,
    tokens: &Tokens,
    plans: &[Plan],
    metric: &Metric,
    attention: Attention,
) -> Vec<f64> {
    let value = |plan: &Plan| {
        let run = model.run(tokens, &plan.clone().attention(attention)).unwrap();
        let values = metric.of(&run.logits, tokens).unwrap();
        Vec::<f64>::try_from(values.to_kind(Kind::Double)).unwrap()
    };
    plans.iter().flat_map(value).collect()
}

/// Largest difference between a sweep and its plans run one by one, in units of the largest logit.
#[track_caller]
fn strays(model: &Model, tokens: &Tokens, plans: &[Plan], metric: &Metric) -> f64 {
    let sweep = model.sweep(tokens, plans, metric).unwrap();
    assert_eq!(
        (sweep.done, sweep.values.shape()),
        (plans.len(), &[plans.len(), tokens.batch()][..])
    );
    let largest = f64::try_from(model.logits(tokens).unwrap().abs().max()).unwrap();
    let alone = one_by_one(model, tokens, plans, metric, sweep.attention);
    let each = sweep.values.values.iter().zip(&alone);
    each.map(|(a, b)| if a == b { 0.0 } else { (a - b).abs() / largest }).fold(0.0, f64::max)
}

/// A plan for every site and every kind of change that does well there, at places all over.
fn changes(source: &Cache, n_layers: usize, row_lens: &[usize]) -> Vec<Plan> {
    let mut rng = Rng::new(3);
    let direction = rng.normal_tensor(&[12]).to_kind(Kind::Double);
    let shortest = row_lens.iter().copied().min().unwrap() as i64;
    let mut plans = Vec::new();
    for site in Site::all(n_layers) {
        let axes = site.axes();
        let at = -1 - (rng.below(shortest as usize) as i64);
        let place = |i: Intervention| match axes {
            axes if axes.contains(&Axis::Pos) => i.pos(at),
            _ => i.query(at),
        };
        plans.push(Plan::new().intervene(site, place(Intervention::scale(0.5))));
        plans.push(Plan::new().intervene(site, place(Intervention::patch(source))));
        plans.push(Plan::new().intervene(site, Intervention::scale(1.5)));
        if axes.contains(&Axis::Pos) && axes.last() == Some(&Axis::DModel) && axes.len() == 3 {
            plans.push(Plan::new().intervene(site, place(Intervention::add(&direction, 0.7))));
            let fixed = Intervention::add(&direction, 0.7).absolute();
            plans.push(Plan::new().intervene(site, place(fixed)));
            plans.push(Plan::new().intervene(site, place(Intervention::project_out(&direction))));
        }
        if axes.contains(&Axis::Head) && axes.contains(&Axis::Pos) {
            let zero = Intervention::zero().head(rng.below(4) as i64);
            plans.push(Plan::new().intervene(site, place(zero)));
        }
        let custom = Intervention::custom("half", |x| Ok(x * 0.5));
        plans.push(Plan::new().intervene(site, custom));
    }
    let shut = Intervention::knockout(-1, -2);
    plans.push(Plan::new().intervene(Point::Scores.at(0), shut.clone()));
    plans.push(
        Plan::new()
            .intervene(Point::Scores, shut)
            .intervene(Point::Z.at(1), Intervention::zero().pos(0)),
    );
    plans.push(Plan::new());
    plans
}

fn metrics(tokens: &Tokens) -> Vec<Metric> {
    let base = Rng::new(8).normal_tensor(&[23]).to_kind(Kind::Double);
    let first = tokens.lens().iter().map(|len| *len as i64 - 2).collect();
    vec![
        Metric::logit_diff(3, 5),
        Metric::log_prob(7).at(1),
        Metric::logit(4).at(Position::PerRow(first)),
        Metric::loss(),
        Metric::loss_at(-1),
        Metric::kl(&base),
        Metric::custom("norm", |x| Ok(x.square().sum_dim_intlist([1i64].as_slice(), false, None))),
    ]
}

#[test]
fn every_change_at_every_site_equals_its_own_run() {
    let padded = (tokens(), everything(&others()));
    let one = tokens().row(0).unwrap();
    let single = (one, everything(&others().row(0).unwrap()));
    let model = model();
    for (tokens, source) in [padded, single] {
        let all = changes(&source, 2, &tokens.lens());
        for (i, metric) in metrics(&tokens).into_iter().enumerate() {
            // the first metric sees every plan, each other one its share
            let mut plans = all.iter().skip(i).step_by(if i == 0 { 1 } else { 7 });
            let plans: Vec<Plan> = plans.by_ref().cloned().collect();
            let off = strays(&model, &tokens, &plans, &metric);
            assert!(off < 1e-10, "{metric:?}: {off:.1e}");
        }
    }
}

#[test]
fn the_same_holds_in_fused_attention_with_biases_and_in_f32() {
    let wide = Config { attention_bias: true, mlp_bias: true, n_layers: 3, ..config() };
    for (kind, most) in [(Kind::Double, 1e-10), (Kind::Float, 1e-5)] {
        let model = model_of(wide.clone(), kind, 4);
        let tokens = tokens();
        let all: Vec<Point> = vec![Point::ResidPre, Point::Z, Point::K, Point::V, Point::MlpPost];
        let source = model.run(&others(), &Plan::new().cache(all.clone())).unwrap().cache;
        let mut plans = Vec::new();
        for point in all {
            for layer in 0..3 {
                for at in 0..3 {
                    let patch = Intervention::patch(&source).pos(at);
                    plans.push(Plan::new().intervene(point.at(layer), patch));
                }
            }
        }
        let sweep = model.sweep(&tokens, &plans, &Metric::logit(2)).unwrap();
        assert_eq!(sweep.attention, Attention::Fused);
        for metric in [Metric::logit_diff(3, 5), Metric::loss()] {
            let off = strays(&model, &tokens, &plans, &metric);
            assert!(off < most, "{kind:?} {metric:?}: {off:.1e}");
        }
    }
}

#[test]
fn a_small_cap_cuts_batches_and_changes_no_value() {
    let (model, tokens) = (model(), tokens());
    let plans = changes(&everything(&others()), 2, &tokens.lens());
    let metric = Metric::logit_diff(3, 5);
    let whole = model.sweep(&tokens, &plans, &metric).unwrap().values;
    let small = SweepOptions::new().cap(10_000);
    says(
        model.sweep_with(&tokens, &plans, &metric, small),
        &["one plan on 2 prompts", "SweepOptions::cap"],
    );
    let options = SweepOptions::new().cap(100_000);
    let cut = model.sweep_with(&tokens, &plans, &metric, options).unwrap().values;
    let off = whole.values.iter().zip(&cut.values).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(off < 1e-11, "{off:.1e}");
}

#[test]
fn a_watcher_sees_the_pace_and_can_stop_what_is_done_stays() {
    let (model, tokens) = (model(), tokens());
    let plan =
        |head: i64| Plan::new().intervene(Point::Z.at(0), Intervention::zero().head(head % 4));
    let custom = Intervention::custom("same", |x| Ok(x.copy()));
    let mut plans: Vec<_> = (0..12).map(plan).collect();
    plans.push(Plan::new().intervene(Point::Z.at(1), custom));
    let mut seen = Vec::new();
    let watcher = |progress: thalweg::Progress| {
        seen.push((progress.done, progress.total));
        progress.done < 12
    };
    let options = SweepOptions::new().watch(watcher);
    let sweep = model.sweep_with(&tokens, &plans, &Metric::logit(1), options).unwrap();
    assert_eq!(sweep.done, 12);
    assert_eq!(seen.last(), Some(&(12, 13)));
    assert!(
        sweep.notes.iter().any(|note| note.contains("stopped after 12 of 13")),
        "{:?}",
        sweep.notes
    );
    assert!(!sweep.values.exists(&[12, 0]) && sweep.values.exists(&[11, 1]));
}

#[test]
fn plans_that_change_nothing_the_metric_sees_cost_nothing_and_give_the_base() {
    let (model, tokens) = (model(), tokens());
    let late = Plan::new().intervene(Point::ResidPre.at(0), Intervention::zero().pos(-1));
    let sweep = model.sweep(&tokens, &[Plan::new(), late], &Metric::logit(1).at(0)).unwrap();
    for plan in 0..2 {
        for row in 0..2 {
            assert_eq!(sweep.values.values[[plan, row]], sweep.base[row]);
        }
    }
}

#[test]
fn patches_between_prompts_that_begin_alike_start_where_these_part() {
    let prompts = |first: i64, second: i64| {
        Tokens::from_ids(&[vec![3, 1, 4, first, 5, 9, 2], vec![8, 1, 7, 7, second, 2]]).unwrap()
    };
    let (clean, corrupt) = (prompts(1, 6), prompts(2, 11));
    let source = everything(&clean);
    for row in [None, Some(0)] {
        let part = |tokens: &Tokens| row.map_or(tokens.clone(), |row| tokens.row(row).unwrap());
        let source = row.map_or(source.clone(), |row| everything(&clean.row(row).unwrap()));
        let corrupt = part(&corrupt);
        let mut plans = Vec::new();
        for site in Site::all(2) {
            let patch = Intervention::patch(&source);
            plans.push(Plan::new().intervene(site, patch.clone()));
            if site.axes().contains(&Axis::Pos) {
                plans.push(Plan::new().intervene(site, patch.clone().pos(1)));
                plans.push(Plan::new().intervene(site, patch.pos(4)));
            }
        }
        for metric in metrics(&corrupt) {
            let off = strays(&model(), &corrupt, &plans, &metric);
            assert!(off < 1e-10, "{metric:?}: {off:.1e}");
        }
    }
}

#[test]
fn a_patch_of_what_is_there_already_gives_the_base_to_the_bit() {
    let prompt = |at_3: i64| Tokens::from_ids(&[vec![3, 1, 4, at_3, 5, 9, 2]]).unwrap();
    let model = model_f32();
    let source = model.run(&prompt(6), &Plan::new().cache(Point::Z)).unwrap().cache;
    let plan =
        |at| Plan::new().intervene(Point::Z.at(0), Intervention::patch(&source).pos(at as i64));
    let plans: Vec<_> = (0..7).map(plan).collect();
    let sweep = model.sweep(&prompt(7), &plans, &Metric::logit(1)).unwrap();
    for (at, value) in sweep.values.values.iter().enumerate() {
        assert_eq!(*value == sweep.base[0], at < 3, "position {at}");
    }
}

#[test]
fn custom_functions_are_told_of_and_what_a_sweep_cannot_do_is_an_error() -> Result<()> {
    let (model, tokens) = (model_f32(), tokens());
    let metric = Metric::logit(1);
    let custom = Plan::new().intervene(Point::Z, Intervention::custom("same", |x| Ok(x.copy())));
    let sweep = model.sweep(&tokens, &[custom], &metric)?;
    assert!(sweep.notes[0].contains("1 of 1 plans hold a custom function"));
    let zero = |site: Site| Plan::new().intervene(site, Intervention::zero());
    says(model.sweep(&tokens, &[], &metric), &["no plans"]);
    let caches = Plan::new().cache(Point::Z);
    says(model.sweep(&tokens, &[Plan::new(), caches], &metric), &["plan 1", "records nothing"]);
    says(model.sweep(&tokens, &[zero(Point::Z.at(7))], &metric), &["plan 0", "layers 0..1"]);
    says(model.sweep(&tokens, &[Plan::new()], &Metric::logit(99)), &["sweep", "99"]);
    let fused = zero(Point::Z.at(0)).attention(Attention::Fused);
    let eager = zero(Point::Z.at(0)).attention(Attention::Eager);
    says(model.sweep(&tokens, &[fused, eager], &metric), &["plan 0 forces", "plan 1 needs Eager"]);
    Ok(())
}

#[test]
fn the_grid_of_a_sweep_says_which_run_and_which_plans_it_is_of() -> Result<()> {
    let (model, tokens) = (model(), tokens());
    let plan = |head: i64| Plan::new().intervene(Point::Z.at(0), Intervention::zero().head(head));
    let sweep = model.sweep(&tokens, &[plan(0), plan(3)], &Metric::logit(1))?;
    let records = sweep.values.records();
    assert_eq!((records.len(), &records[0].ids), (1, &tokens.ids().to_vec()));
    let plan = &records[0].plan;
    assert!(plan.starts_with("sweep of 2 plans") && plan.contains("zero().head(3)"), "{plan}");
    let line = format!("{sweep:?}");
    assert_eq!(line, "Sweep of 2 of 2 plans on 2 prompts, Fused attention: logit under each plan");
    Ok(())
}

#[test]
fn an_unedited_row_that_strays_from_its_own_run_is_an_error() {
    // Numbers that are none are equal to nothing, not even to themselves.
    let mut tensors = tensors(&config(), Kind::Double, 1);
    let norm = tensors.get_mut("model.norm.weight").unwrap();
    let _ = norm.get(0).fill_(f64::NAN);
    let model = Model::from_parts(config(), tensors, None).unwrap();
    let plan = Plan::new().intervene(Point::Z.at(0), Intervention::zero());
    says(model.sweep(&tokens(), &[plan], &Metric::logit(1)), &["unedited row", "strays"]);
}

#[test]
fn half_precision_stays_within_its_own_spread() {
    let wide = Config { d_model: 64, n_heads: 4, n_kv_heads: 2, d_head: 16, d_mlp: 96, ..config() };
    let model = model_of(wide, Kind::BFloat16, 4);
    let tokens = Tokens::from_ids(&[vec![3, 1, 4, 1, 5, 9, 2, 6]]).unwrap();
    let many = Tokens::from_ids(&vec![tokens.ids()[0].clone(); 16]).unwrap();
    let one = model.logits(&tokens).unwrap();
    let each = model.logits(&many).unwrap();
    let largest = f64::try_from(one.abs().max()).unwrap();
    let spread = f64::try_from((&each - &one).abs().max()).unwrap() / largest;
    let source =
        model.run(&Tokens::from_ids(&[vec![7; 8]]).unwrap(), &Plan::new().cache(Point::ResidPre));
    let source = source.unwrap().cache;
    let plan = |i: i64| {
        Plan::new()
            .intervene(Point::ResidPre.at(i as usize % 2), Intervention::patch(&source).pos(i / 2))
    };
    let plans: Vec<_> = (0..16).map(plan).collect();
    let off = strays(&model, &tokens, &plans, &Metric::logit(3));
    // half of a unit in the last place of bf16, 2^-9, is there even where the spread is nothing
    assert!(off <= 2.0 * spread.max(2f64.powi(-9)), "{off:.1e}, spread {spread:.1e}");
}
