//! Activation patching: every point split by every axis equals a loop of runs; what must hold in
//! any Llama; what is known of the induction circuit.

use thalweg::prelude::*;

use crate::induction_model::{Broken, broken, induction_model};
use crate::support::{model, model_f32, says};

/// Two prompts of equal length and their corruptions.
pub(crate) fn pair() -> (Tokens, Tokens) {
    let tokens = |rows: [[i64; 5]; 2]| Tokens::from_ids(&rows.map(Vec::from)).unwrap();
    (tokens([[3, 1, 4, 1, 5], [2, 6, 5, 9, 9]]), tokens([[3, 8, 4, 1, 5], [2, 6, 0, 7, 9]]))
}

pub(crate) fn metric() -> Metric {
    Metric::logit_diff([4, 11].as_slice(), [7, 2].as_slice())
}

/// The metric of each prompt, and its mean.
fn measure(model: &Model, tokens: &Tokens, plan: &Plan) -> Vec<f64> {
    let logits = model.run(tokens, plan).unwrap().logits;
    Vec::try_from(metric().of(&logits, tokens).unwrap().to_kind(Kind::Double)).unwrap()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn len(model: &Model, tokens: &Tokens, axis: Axis) -> usize {
    let c = model.config();
    match axis {
        Axis::Pos | Axis::Query | Axis::Key => tokens.width(),
        Axis::Head => c.n_heads,
        Axis::KvHead => c.n_kv_heads,
        Axis::DMlp => c.d_mlp,
        Axis::DHead => c.d_head,
        Axis::DModel => c.d_model,
        other => panic!("{other}"),
    }
}

fn narrowed(by: &[Axis], index: &[usize], mut edit: Intervention) -> Intervention {
    for (axis, i) in by.iter().zip(index) {
        edit = match axis {
            Axis::Pos => edit.pos(*i),
            Axis::Query => edit.query(*i),
            Axis::Key => edit.key(*i),
            Axis::Head => edit.head(*i),
            Axis::KvHead => edit.kv_head(*i),
            Axis::DMlp => edit.neuron(*i),
            _ => edit.dim(*i),
        };
    }
    edit
}

/// All ways to take some of the axes, at most `most`; single dimensions and neurons by themselves.
fn subsets(axes: &[Axis], most: usize) -> Vec<Vec<Axis>> {
    let take = |bits: usize| {
        let chosen = axes.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1);
        chosen.map(|(_, axis)| *axis).collect::<Vec<_>>()
    };
    let quick = |chosen: &Vec<Axis>| {
        let single = |axis: &Axis| matches!(axis, Axis::DModel | Axis::DHead | Axis::DMlp);
        chosen.len() <= most && (chosen.len() == 1 || !chosen.iter().any(single))
    };
    (0..1 << axes.len()).map(take).filter(quick).collect()
}

#[test]
fn every_point_split_by_its_axes_equals_a_loop_of_runs() {
    let (model, (clean, corrupt)) = (model(), pair());
    let pair = Patching::new(&model, &clean, &corrupt).unwrap();
    for point in Point::ALL {
        let cache = model.run(&clean, &Plan::new().cache(point)).unwrap().cache;
        // Single dimensions of the stream and of heads only at one point each, to be quick.
        let splits: Vec<Axis> = point
            .axes()
            .iter()
            .copied()
            .filter(|axis| match axis {
                Axis::Batch | Axis::Scale => false,
                Axis::DModel => point == Point::ResidMid,
                Axis::DHead => point == Point::RotK,
                Axis::DMlp => point == Point::MlpPost,
                _ => true,
            })
            .collect();
        let most = if point == Point::Pattern { 3 } else { 2 };
        for by in subsets(&splits, most) {
            let grid = pair.grid(point, &by, &metric()).unwrap();
            let axes: Vec<Axis> = grid.axes.iter().map(|named| named.axis).collect();
            assert_eq!(axes, [&[Axis::Layer], by.as_slice()].concat());
            let mut cells = 0;
            for (index, value) in grid.present() {
                let edit = narrowed(&by, &index[1..], Intervention::patch(&cache));
                let plan = Plan::new().intervene(point.at(index[0]), edit);
                let alone = mean(&measure(&model, &corrupt, &plan));
                assert!((value - alone).abs() < 1e-10, "{point:?} by {by:?} at {index:?}");
                cells += 1;
            }
            let all: usize = by.iter().map(|axis| len(&model, &corrupt, *axis)).product();
            let causal = by.contains(&Axis::Query) && by.contains(&Axis::Key);
            let expected = if causal { all / 25 * 15 } else { all };
            assert_eq!(cells, 2 * expected, "{point:?} by {by:?}");
        }
    }
}

#[test]
fn single_precision_gives_the_loop_too() {
    let (model, (clean, corrupt)) = (model_f32(), pair());
    let cache = model.run(&clean, &Plan::new().cache(Point::Z)).unwrap().cache;
    let grid = patching(&model, &clean, &corrupt, Point::Z, &[Axis::Pos, Axis::Head], &metric());
    for (index, value) in grid.unwrap().present() {
        let edit = Intervention::patch(&cache).pos(index[1]).head(index[2]);
        let plan = Plan::new().intervene(Point::Z.at(index[0]), edit);
        assert!((value - mean(&measure(&model, &corrupt, &plan))).abs() < 1e-5, "{index:?}");
    }
}

#[test]
fn patching_a_run_with_itself_changes_nothing() {
    let (model, (clean, _)) = (model(), pair());
    let base = mean(&measure(&model, &clean, &Plan::new()));
    for (point, by) in [(Point::ResidPre, Axis::Pos), (Point::Z, Axis::Head), (Point::K, Axis::Pos)]
    {
        let grid = patching(&model, &clean, &clean, point, &[by], &metric()).unwrap();
        assert!(grid.values.iter().all(|value| (value - base).abs() < 1e-12), "{point:?}");
    }
}

#[test]
fn a_position_changes_nothing_before_it() {
    let (model, (clean, corrupt)) = (model(), pair());
    for (point, axis) in [(Point::ResidPre, Axis::Pos), (Point::Pattern, Axis::Key)] {
        let pair = Patching::new(&model, &clean, &corrupt).unwrap().normalised();
        let grid = pair.grid(point, &[axis], &metric().at(2)).unwrap();
        for (index, value) in grid.present() {
            assert!(index[1] <= 2 || value == 0.0, "{point:?} at {index:?}: {value}");
        }
    }
}

#[test]
fn the_whole_stream_at_any_layer_gives_exactly_the_other_run() {
    let (model, (clean, corrupt)) = (model(), pair());
    for direction in [Direction::Denoise, Direction::Noise] {
        let pair = Patching::new(&model, &clean, &corrupt).unwrap().direction(direction);
        let other = direction.order(&clean, &corrupt).0;
        let whole = mean(&measure(&model, other, &Plan::new()));
        for point in [Point::ResidPre, Point::ResidMid, Point::ResidPost] {
            let grid = pair.grid(point, &[], &metric()).unwrap();
            assert!(grid.values.iter().all(|value| (value - whole).abs() < 1e-12), "{point:?}");
            let share = pair.clone().normalised().grid(point, &[], &metric()).unwrap();
            assert!(share.values.iter().all(|value| (value - 1.0).abs() < 1e-11), "{point:?}");
        }
        // The metric reads the last position alone, after the last layer.
        let last = pair.normalised().grid(Point::ResidPost, &[Axis::Pos], &metric()).unwrap();
        let last = last.select(Axis::Layer, -1).unwrap();
        for (index, value) in last.present() {
            let expected = if index[0] == 4 { 1.0 } else { 0.0 };
            assert!((value - expected).abs() < 1e-11, "position {}: {value}", index[0]);
        }
    }
}

#[test]
fn zero_and_one_are_the_receiving_run_and_the_source() {
    let (model, (clean, corrupt)) = (model(), pair());
    let pair = Patching::new(&model, &clean, &corrupt).unwrap();
    let of = |tokens: &Tokens| measure(&model, tokens, &Plan::new());
    for (direction, zero, one, names) in [
        (Direction::Denoise, of(&corrupt), of(&clean), ("the corrupt run", "the clean run")),
        (Direction::Noise, of(&clean), of(&corrupt), ("the clean run", "the corrupt run")),
    ] {
        let pair = pair.clone().direction(direction);
        let raw = pair.grid(Point::MlpOut, &[Axis::Pos], &metric()).unwrap();
        let share = pair.clone().normalised().grid(Point::MlpOut, &[Axis::Pos], &metric()).unwrap();
        let way = mean(&one) - mean(&zero);
        for (index, value) in share.present() {
            let expected = (raw.values[index.as_slice()] - mean(&zero)) / way;
            assert!((value - expected).abs() < 1e-10, "{index:?}");
        }
        assert_eq!(share.zero_one, Some((names.0.to_owned(), names.1.to_owned())));
        assert_eq!((raw.unit.as_str(), share.unit.as_str()), ("nats", "share of logit_diff moved"));
        assert_eq!(raw.zero_one, None);
        let each = pair.each_prompt();
        let raw = each.grid(Point::MlpOut, &[Axis::Pos], &metric()).unwrap();
        let share = each.normalised().grid(Point::MlpOut, &[Axis::Pos], &metric()).unwrap();
        for (index, value) in share.present() {
            let (zero, one) = (zero[index[0]], one[index[0]]);
            let expected = (raw.values[index.as_slice()] - zero) / (one - zero);
            assert!((value - expected).abs() < 1e-9, "{index:?}");
        }
    }
}

#[test]
fn several_prompts_give_their_mean_with_an_interval_or_each_its_own() {
    let (model, (clean, corrupt)) = (model(), pair());
    let pair = Patching::new(&model, &clean, &corrupt).unwrap();
    let by = [Axis::Pos];
    let averaged = pair.grid(Point::AttnOut, &by, &metric()).unwrap();
    let each = pair.clone().each_prompt().grid(Point::AttnOut, &by, &metric()).unwrap();
    assert_eq!((averaged.shape(), each.shape()), ([2, 5].as_slice(), [2, 2, 5].as_slice()));
    assert_eq!((averaged.n, each.n), (2, 1));
    let interval = averaged.interval.as_ref().unwrap();
    assert_eq!(interval.method, "95 % normal interval over prompts");
    for (index, value) in averaged.present() {
        let (a, b) = (each.values[[0, index[0], index[1]]], each.values[[1, index[0], index[1]]]);
        assert!((value - (a + b) / 2.0).abs() < 1e-12);
        let half = 1.959963984540054 * (a - b).abs() / 2.0;
        assert!((interval.high[index.as_slice()] - value - half).abs() < 1e-10, "{index:?}");
        assert!((value - interval.low[index.as_slice()] - half).abs() < 1e-10, "{index:?}");
    }
    for row in 0..2 {
        let (clean, corrupt) = (clean.row(row).unwrap(), corrupt.row(row).unwrap());
        let own = Metric::logit_diff([4, 11][row], [7, 2][row]);
        let alone = patching(&model, &clean, &corrupt, Point::AttnOut, &by, &own).unwrap();
        assert!(alone.interval.is_none());
        let ours = each.select(Axis::Batch, row as i64).unwrap();
        let apart = (&alone.values - &ours.values).mapv(f64::abs);
        assert!(apart.iter().all(|apart| *apart < 1e-10), "row {row}");
    }
}

#[test]
fn prompts_of_different_lengths_are_counted_from_their_ends() {
    let model = model();
    let clean = Tokens::from_ids(&[vec![3, 1, 4, 1, 5], vec![6, 5, 9]]).unwrap();
    let corrupt = Tokens::from_ids(&[vec![3, 8, 4, 1, 5], vec![0, 5, 9]]).unwrap();
    let pair = Patching::new(&model, &clean, &corrupt).unwrap();
    for (point, by) in [
        (Point::ResidPre, vec![Axis::Pos]),
        (Point::Z, vec![Axis::Pos, Axis::Head]),
        (Point::Pattern, vec![Axis::Query, Axis::Key]),
    ] {
        let each = pair.clone().each_prompt().grid(point, &by, &metric()).unwrap();
        for (row, padding) in [(0, 0), (1, 2)] {
            let own = Metric::logit_diff([4, 11][row], [7, 2][row]);
            let [clean, corrupt] = [&clean, &corrupt].map(|tokens| tokens.row(row).unwrap());
            let alone = patching(&model, &clean, &corrupt, point, &by, &own).unwrap();
            let mut cells = 0;
            for (index, value) in alone.present() {
                let shift = |(i, axis): (usize, &Axis)| match axis {
                    Axis::Head => index[i + 1],
                    _ => index[i + 1] + padding,
                };
                let mut at = vec![row, index[0]];
                at.extend(by.iter().enumerate().map(shift));
                assert!(each.exists(&at), "{point:?} at {at:?}");
                assert!((value - each.values[at.as_slice()]).abs() < 1e-10, "{point:?} at {at:?}");
                cells += 1;
            }
            let ours = each.select(Axis::Batch, row as i64).unwrap();
            assert_eq!(ours.present().count(), cells, "{point:?}, row {row}");
        }
        // Two columns belong to one prompt alone: a mean, but no interval.
        let averaged = pair.grid(point, &by, &metric()).unwrap();
        assert!(averaged.interval.is_none() && averaged.provenance.contains_key("interval"));
    }
}

#[test]
fn sites_outside_the_blocks_have_no_layer_axis() {
    let (model, (clean, corrupt)) = (model(), pair());
    let pair = Patching::new(&model, &clean, &corrupt).unwrap();
    let sites = [Site::Embed, Site::FinalScale, Site::FinalNormalized, Site::Logits];
    for site in sites {
        let cache = model.run(&clean, &Plan::new().cache(site)).unwrap().cache;
        for by in [vec![], vec![Axis::Pos]] {
            let grid = pair.grid(site, &by, &metric()).unwrap();
            assert_eq!(grid.shape(), if by.is_empty() { [].as_slice() } else { [5].as_slice() });
            for (index, value) in grid.present() {
                let edit = narrowed(&by, &index, Intervention::patch(&cache));
                let plan = Plan::new().intervene(site, edit);
                let alone = mean(&measure(&model, &corrupt, &plan));
                assert!((value - alone).abs() < 1e-10, "{site} at {index:?}");
            }
        }
        let whole = pair.clone().normalised().grid(site, &[], &metric()).unwrap();
        assert_eq!((whole.values[[]] - 1.0).abs() < 1e-11, site != Site::FinalScale, "{site}");
    }
    says(pair.grid(Site::Embed, &[Axis::Head], &metric()), &["hook_embed by Head"]);
    says(pair.grid(sites, &[], &metric()), &["hook_embed and others", "expected one point"]);
    says(pair.layers(1).grid(Site::Embed, &[], &metric()), &["hook_embed: it lies in none"]);
}

#[test]
fn a_key_after_its_query_is_missing_from_grid_and_figure() {
    let (model, (clean, corrupt)) = (model(), pair());
    let by = [Axis::Head, Axis::Query, Axis::Key];
    let grid = patching(&model, &clean, &corrupt, Point::Pattern, &by, &metric()).unwrap();
    let one = grid.select(Axis::Layer, 0).unwrap().select(Axis::Head, 1).unwrap();
    for (query, key) in (0..5).flat_map(|query| (0..5).map(move |key| (query, key))) {
        assert_eq!(one.exists(&[query, key]), key <= query);
    }
    assert!(grid.mean(Axis::Query).unwrap().values.iter().all(|value| value.is_finite()));
    let json = heatmap(&one).unwrap().bundle().unwrap().plotly;
    assert!(!json.contains("NaN"), "{json}");
}

#[test]
fn layers_can_be_chosen() {
    let (model, (clean, corrupt)) = (model(), pair());
    let pair = Patching::new(&model, &clean, &corrupt).unwrap();
    let all = pair.grid(Point::Z, &[Axis::Head], &metric()).unwrap();
    let one = pair.clone().layers(-1).grid(Point::Z, &[Axis::Head], &metric()).unwrap();
    assert_eq!(one.labels(Axis::Layer).unwrap(), ["L1"]);
    let apart =
        &all.select(Axis::Layer, 1).unwrap().values - &one.select(Axis::Layer, 0).unwrap().values;
    assert!(apart.iter().all(|apart| apart.abs() < 1e-12));
    let named = pair.grid([Point::Z.at(1)], &[Axis::Head], &metric()).unwrap();
    assert_eq!((&named.axes, &named.values), (&one.axes, &one.values));
    says(pair.clone().layers(2).grid(Point::Z, &[], &metric()), &["layers", "the model has 2"]);
    says(pair.grid(Point::Z.at(2), &[], &metric()), &["did you mean layer 1?"]);
}

#[test]
fn labels_show_both_tokens_where_the_pair_differs() {
    let (model, (clean, corrupt)) = (model(), pair());
    let [clean, corrupt] = [clean, corrupt].map(|tokens| tokens.row(0).unwrap());
    let pair = Patching::new(&model, &clean, &corrupt).unwrap();
    let grid = pair.grid(Point::ResidPre, &[Axis::Pos], &Metric::logit(4)).unwrap();
    assert_eq!(grid.labels(Axis::Pos).unwrap(), ["3", "1/8", "4", "1", "5"]);
    assert_eq!(pair.differences(), [[1]]);
    assert_eq!(grid.provenance["tokens differ at"], "[1]");
    let runs: Vec<Vec<i64>> = grid.records().into_iter().flat_map(|run| run.ids).collect();
    assert_eq!(runs, [corrupt.ids()[0].clone(), clean.ids()[0].clone()]);
    assert!(grid.code.unwrap().contains("Point::ResidPre.at({layer})"));
}

#[test]
fn a_place_where_prompts_differ_is_named_by_its_role() {
    let rows = |a: i64, b: i64| Tokens::from_ids(&[vec![3, a, 4], vec![3, b, 4]]).unwrap();
    let clean = rows(1, 2).with_role("S", vec![1, -2]).unwrap();
    let clean = clean.with_role("apart", vec![0, 1]).unwrap();
    let pair = Patching::new(&model(), &clean, &rows(5, 6)).unwrap();
    let grid = pair.grid(Point::ResidPre, &[Axis::Pos], &Metric::logit(4)).unwrap();
    assert_eq!(grid.labels(Axis::Pos).unwrap(), ["3", "S", "4"]);
}

#[test]
fn patching_finds_the_induction_circuit() {
    let model = induction_model((60.0, 400.0));
    let Broken { clean, corrupt, source, last, metric } = broken(&model);
    let pair = Patching::new(&model, &clean, &corrupt).unwrap().normalised();
    let at = |point: Point, by: &[Axis]| pair.grid(point, by, &metric).unwrap();
    // The previous-token head writes the source token where the answer stands; the induction head
    // reads it there and writes the answer at the end.
    let heads = at(Point::Z, &[Axis::Pos]);
    for (index, value) in heads.present() {
        let on = index == [0, source + 1] || index == [1, last];
        let expected = if on { 1.0 } else { 0.0 };
        assert!((value - expected).abs() < 1e-9, "z at {index:?}: {value}");
    }
    let keys = at(Point::K, &[Axis::Pos]);
    for (index, value) in keys.present() {
        let expected = if index == [1, source + 1] { 1.0 } else { 0.0 };
        assert!((value - expected).abs() < 1e-9, "k at {index:?}: {value}");
    }
    for point in [Point::Q, Point::MlpOut] {
        assert!(at(point, &[Axis::Pos]).values.iter().all(|value| value.abs() < 1e-9), "{point:?}");
    }
    let edges = at(Point::Pattern, &[Axis::Query, Axis::Key]);
    let edge = edges.at(&[1, last as i64, source as i64 + 1]).unwrap();
    assert!(edge > 0.4, "{edge}"); // what else the query looked at stays
}
