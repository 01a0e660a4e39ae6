//! Ablation over layers, heads, neurons and positions: equal to a loop of runs, and what must hold.

mod planted;
mod study;

use std::sync::Mutex;

use thalweg::prelude::*;
use thalweg::rng::Rng;
use thalweg::{Config, W};

use crate::support::{config, model, model_of, says};

fn tokens() -> Tokens {
    Tokens::from_ids(&[vec![3, 1, 4, 1, 5], vec![2, 6, 5]]).unwrap()
}

/// Prompts to take means of and to draw from.
fn reference() -> Tokens {
    let rows = [vec![7, 7, 0, 2, 19], vec![8, 1, 20], vec![1, 1, 9, 3, 12], vec![22, 4, 6]];
    Tokens::from_ids(&rows).unwrap()
}

/// The mean over a cache's tokens but the first of each row, which has others.
fn mean(cache: &Cache, site: Site) -> Intervention {
    let x = cache.get(site).unwrap();
    let lens = cache.tokens().lens().into_iter().map(|len| len as i64);
    let own =
        |(row, len): (usize, i64)| x.get(row as i64).narrow(0, x.size()[1] - len + 1, len - 1);
    let rows: Vec<Tensor> = lens.enumerate().map(own).collect();
    Intervention::set(&Tensor::cat(&rows, 0).mean_dim([0i64].as_slice(), false, None))
}

fn metric() -> Metric {
    Metric::logit_diff([4, 11].as_slice(), [7, 2].as_slice())
}

fn measure(model: &Model, plan: &Plan) -> Vec<f64> {
    let logits = model.run(&tokens(), plan).unwrap().logits;
    Vec::try_from(metric().of(&logits, &tokens()).unwrap().to_kind(Kind::Double)).unwrap()
}

/// The change of the metric under these plans, the mean over prompts and plans.
fn change(model: &Model, plans: &[Plan]) -> f64 {
    let base = measure(model, &Plan::new());
    let each = plans.iter().flat_map(|plan| {
        let under = measure(model, plan);
        under.iter().zip(&base).map(|(a, b)| a - b).collect::<Vec<_>>()
    });
    each.sum::<f64>() / (plans.len() * base.len()) as f64
}

#[test]
fn every_ablation_equals_a_loop_of_runs() {
    let model = model();
    let cache = |point: Point| model.run(&reference(), &Plan::new().cache(point)).unwrap().cache;
    let directions = Rng::new(3).normal_tensor(&[12]);
    for (point, by) in [
        (Point::Z, vec![Axis::Head]),
        (Point::V, vec![Axis::KvHead]),
        (Point::MlpPost, vec![Axis::DMlp]),
        (Point::MlpOut, vec![]),
        (Point::AttnOut, vec![]),
    ] {
        let narrow = |edit: Intervention, index: &[usize]| match by.first() {
            Some(Axis::Head) => edit.head(index[1]),
            Some(Axis::KvHead) => edit.kv_head(index[1]),
            Some(Axis::DMlp) => edit.neuron(index[1]),
            _ => edit,
        };
        let cache = cache(point);
        let by_pos = Intervention::mean_by_pos(&cache);
        let off = Intervention::project_out(&directions);
        let baselines: [(Ablation, &dyn Fn(Site) -> Intervention); 4] = [
            (Ablation::zero(), &|_| Intervention::zero()),
            (Ablation::mean(&reference()), &|site| mean(&cache, site)),
            (Ablation::mean_by_pos(&reference()), &|_| by_pos.clone()),
            (Ablation::project_out(&directions).unwrap(), &|_| off.clone()),
        ];
        for (how, edit) in baselines {
            if format!("{how:?}").contains("projection") && (!by.is_empty() || point == Point::Z) {
                continue; // the direction is one of the stream
            }
            let grid = ablation(&model, &tokens(), point, &by, &how, &metric()).unwrap();
            for (index, value) in grid.present() {
                let site = point.at(index[0]);
                let plan = Plan::new().intervene(site, narrow(edit(site), &index));
                let alone = change(&model, &[plan]);
                assert!((value - alone).abs() < 1e-10, "{how:?}, {point:?} at {index:?}");
            }
            assert_eq!((grid.n, grid.unit.as_str()), (2, "nats"));
            assert!(grid.interval.is_some() && grid.name.contains("change of logit_diff"));
        }
    }
}

#[test]
fn resampling_is_the_mean_of_its_draws_each_given_by_the_seed() {
    let model = model();
    let how = Ablation::resample(&reference(), 3, 5);
    let by = [Axis::Head];
    let grid = ablation(&model, &tokens(), Point::Z, &by, &how, &metric()).unwrap();
    let cache = model.run(&reference(), &Plan::new().cache(Point::Z)).unwrap().cache;
    // Rows as long as ours: 0 and 2 for the first prompt, 1 and 3 for the second.
    let mut rng = Rng::new(5);
    let draws: Vec<[usize; 2]> =
        (0..3).map(|_| [[0, 2][rng.below(2)], [1, 3][rng.below(2)]]).collect();
    for (index, value) in grid.present() {
        let plan = |rows: &[usize; 2]| {
            let edit = Intervention::resample(&cache, rows).head(index[1]);
            Plan::new().intervene(Point::Z.at(index[0]), edit)
        };
        let plans: Vec<Plan> = draws.iter().map(plan).collect();
        assert!((value - change(&model, &plans)).abs() < 1e-10, "{index:?}");
    }
    assert_eq!((grid.n, grid.interval.as_ref().unwrap().method.contains("prompts")), (6, true));
    let again = ablation(&model, &tokens(), Point::Z, &by, &how, &metric()).unwrap();
    assert_eq!(grid.values, again.values);
    let other = Ablation::resample(&reference(), 3, 6);
    let other = ablation(&model, &tokens(), Point::Z, &by, &other, &metric()).unwrap();
    assert_ne!(grid.values, other.values);
    // Of one prompt the interval is over draws.
    let one = tokens().row(0).unwrap();
    let metric = Metric::logit_diff(4, 7);
    let grid = ablation(&model, &one, Point::Z, &by, &how, &metric).unwrap();
    assert_eq!(grid.interval.unwrap().method, "95 % normal interval over draws");
    assert_eq!(grid.n, 3);
}

#[test]
fn a_prompt_stands_in_for_itself() {
    let model = model();
    let one = tokens().row(0).unwrap();
    let metric = Metric::logit_diff(4, 7);
    for how in [Ablation::mean_by_pos(&one), Ablation::resample(&one, 2, 0)] {
        for (point, by) in [(Point::Z, vec![Axis::Head]), (Point::ResidPre, vec![Axis::Pos])] {
            let grid = ablation(&model, &one, point, &by, &how, &metric).unwrap();
            assert!(grid.values.iter().all(|value| value.abs() < 1e-12), "{how:?}");
        }
    }
}

#[test]
fn a_position_is_counted_from_the_end_where_lengths_differ() {
    let model = model();
    let how = Ablation::zero();
    let grid = ablation(&model, &tokens(), Point::MlpOut, &[Axis::Pos], &how, &metric()).unwrap();
    for column in 2..5i64 {
        let places = Position::PerRow(vec![column, column - 2]);
        let plan = Plan::new().intervene(Point::MlpOut.at(1), Intervention::zero().pos(places));
        let value = grid.at(&[1, column]).unwrap();
        assert!((value - change(&model, &[plan])).abs() < 1e-10, "column {column}");
    }
    // The first two columns belong to the first prompt alone.
    let one = tokens().row(0).unwrap();
    let own = Metric::logit_diff(4, 7);
    let alone = ablation(&model, &one, Point::MlpOut, &[Axis::Pos], &how, &own).unwrap();
    for at in [[0, 0], [0, 1], [1, 1]] {
        assert!((grid.at(&at).unwrap() - alone.at(&at).unwrap()).abs() < 1e-10, "{at:?}");
    }
}

#[test]
fn a_head_that_writes_nothing_is_missed_by_nobody() {
    let base = model_of(Config { n_layers: 2, ..config() }, Kind::Double, 4);
    let model = base
        .with_weights(|name, weight| {
            // Columns of head 2 of layer 1.
            if name == "model.layers.1.self_attn.o_proj.weight" {
                let silent = weight.copy();
                let _ = silent.narrow(1, 12, 6).zero_();
                return Ok(silent);
            }
            Ok(weight.shallow_clone())
        })
        .unwrap();
    assert_eq!(model.weight(W::O, 1).unwrap().get(2).abs().max().double_value(&[]), 0.0);
    let heads = [Axis::Head];
    let grid = ablation(&model, &tokens(), Point::Z, &heads, &Ablation::zero(), &metric()).unwrap();
    for (index, value) in grid.present() {
        assert_eq!(value.abs() < 1e-12, index == [1, 2], "{index:?}: {value}");
    }
}

#[test]
fn a_projection_leaves_nothing_of_its_subspace_and_depends_on_the_span_alone() {
    let model = model();
    let rows = Rng::new(9).normal_tensor(&[3, 12]).to_kind(Kind::Double);
    let mixed = Tensor::from_slice2(&[[2.0, 1.0, 0.0], [0.0, 1.0, 5.0], [1.0, 0.0, 1.0]]);
    let span = |rows: &Tensor| {
        let how = Ablation::project_out(rows).unwrap();
        ablation(&model, &tokens(), Point::ResidMid, &[], &how, &metric()).unwrap()
    };
    let (one, other) = (span(&rows), span(&mixed.matmul(&rows)));
    for (index, value) in one.present() {
        assert!((value - other.values[index.as_slice()]).abs() < 1e-10);
        // By hand: x - Qᵀ Q x.
        let (q, _) = Tensor::linalg_qr(&rows.tr(), "reduced");
        let onto = Mutex::new(q.matmul(&q.tr()));
        let edit = Intervention::custom("project", move |x| {
            Ok(x - x.matmul(&onto.lock().expect("no panic holds it")))
        });
        let plan = Plan::new().intervene(Point::ResidMid.at(index[0]), edit);
        assert!((value - change(&model, &[plan])).abs() < 1e-10);
        assert!(value.abs() > 1e-6);
    }
    says(Ablation::project_out(&Tensor::cat(&[&rows, &rows], 0)), &["depend on each other"]);
    // A sum rounded to its kind depends on its terms; a short row of its own does not.
    let sum = Tensor::from_slice2(&[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.3, 0.7, 0.0]]);
    for kind in [Kind::Double, Kind::Float, Kind::Half, Kind::BFloat16] {
        let rounded = rows.to_kind(kind).to_kind(Kind::Double);
        let dependent = sum.matmul(&rounded).to_kind(kind);
        says(Ablation::project_out(&dependent), &["depend on each other"]);
        let short = Tensor::from_slice(&[1.0, 1.0, 1e-3]).unsqueeze(1) * &rounded;
        assert!(Ablation::project_out(&short.to_kind(kind)).is_ok(), "{kind:?}");
    }
    says(Ablation::project_out(&Tensor::zeros([12], (Kind::Double, Device::Cpu))), &["zero"]);
    says(
        Ablation::project_out(&Tensor::zeros([1, 2, 3], (Kind::Double, Device::Cpu))),
        &["[K, D]"],
    );
}

#[test]
fn a_wrong_ablation_is_an_error_that_says_what_to_do() {
    let model = model();
    let run =
        |point, by: &[Axis], how: &Ablation| ablation(&model, &tokens(), point, by, how, &metric());
    says(run(Point::MlpOut, &[Axis::Head], &Ablation::zero()), &["ablation of MlpOut by Head"]);
    let short = reference().rows(&[0, 2]).unwrap();
    says(
        run(Point::Z, &[], &Ablation::resample(&short, 2, 0)),
        &["row 1 has 3 tokens", "[5, 5]", "one as long"],
    );
    says(run(Point::Z, &[], &Ablation::resample(&reference(), 0, 0)), &["0 resamples"]);
    let direction = Ablation::project_out(&Rng::new(0).normal_tensor(&[12])).unwrap();
    says(run(Point::ResidPre, &[Axis::DModel], &direction), &["takes the last axis whole"]);
}
