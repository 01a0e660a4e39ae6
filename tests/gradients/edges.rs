//! Edge attribution: the sums it must keep, and the same numbers the long way round.

use super::*;
use crate::induction_model::{induction_model, prompt};
use thalweg::{Edges, Reader, Rule, Writer, edge_count};

fn edges(model: &Model, settings: EdgeAttribution) -> Edges {
    settings.run(model, &tokens(), &others()).unwrap()
}

fn new() -> EdgeAttribution {
    EdgeAttribution::new(&metric(), Direction::Noise)
}

/// Sum over all edges out of a writer, or into a receiver.
fn cut(edges: &Edges, keep: impl Fn(Writer, Reader) -> bool) -> f64 {
    edges.ranked().iter().filter(|edge| keep(edge.from, edge.to)).map(|edge| edge.score).sum()
}

#[test]
fn the_number_of_edges_is_that_of_the_formula() {
    let formula = |[layers, h, g]: [usize; 3]| -> usize {
        let below = |l: usize| 1 + l * (h + 1);
        let layer = |l: usize| below(l) * (h + 2 * g) + below(l) + h;
        (0..layers).map(layer).sum::<usize>() + 1 + layers * (h + 1)
    };
    for (sizes, known) in
        [([12, 12, 12], 32_491), ([16, 32, 8], 195_865), ([32, 32, 8], 805_681), ([2, 1, 1], 0)]
    {
        let [n_layers, n_heads, n_kv_heads] = sizes;
        let count = edge_count(&Config { n_layers, n_heads, n_kv_heads, ..config() });
        assert_eq!(count, formula(sizes));
        assert!(known == 0 || count == known, "{count}");
    }
    for model in models(Kind::Double) {
        let c = model.config();
        let scored = edges(&model, new()).ranked().len();
        assert_eq!(scored, formula([c.n_layers, c.n_heads, c.n_kv_heads]));
    }
}

#[test]
fn in_a_linear_model_edges_out_of_the_input_and_into_the_logits_add_up_to_the_difference() {
    let model = linear_model();
    for direction in [Direction::Noise, Direction::Denoise] {
        let settings = EdgeAttribution::new(&metric(), direction);
        for settings in [settings.clone(), settings.integrated(3)] {
            let edges = edges(&model, settings);
            assert!(edges.completeness_error < 1e-6, "{edges:?}");
            for sum in [
                cut(&edges, |from, _| from == Writer::Embed),
                cut(&edges, |_, to| to == Reader::Logits),
            ] {
                near(sum, edges.difference, 1e-6, direction);
            }
        }
    }
    let [there, back] = [Direction::Noise, Direction::Denoise]
        .map(|direction| edges(&model, EdgeAttribution::new(&metric(), direction)).scores);
    for (index, value) in there.present() {
        near(-back.values[index.as_slice()], value, 1e-6, format!("{index:?}"));
    }
}

#[test]
fn the_edges_out_of_the_input_add_up_to_the_difference_as_the_steps_grow() {
    for model in models(Kind::Double).into_iter().take(2) {
        let errors = [2, 8, 32].map(|n| edges(&model, new().integrated(n)).completeness_error);
        assert!(errors[2] < 1e-2 && errors[2] < errors[1] / 4.0, "{errors:?}");
        let left = edges(&model, new().integrated_by(Rule::LeftFromCorrupt, 32));
        assert!(left.completeness_error > 4.0 * errors[2], "{left:?} against {errors:?}");
        assert_eq!(left.path, Some((Rule::LeftFromCorrupt, 32)));
        let sum = cut(&left, |from, _| from == Writer::Embed);
        near(
            (sum - left.difference).abs() / left.difference.abs(),
            left.completeness_error,
            1e-9,
            "left",
        );
    }
}

#[test]
fn the_left_rule_begins_at_the_corrupt_prompt_in_either_direction() {
    let model = &models(Kind::Double)[0];
    let scores = |direction| {
        let settings = EdgeAttribution::new(&metric(), direction);
        edges(model, settings.integrated_by(Rule::LeftFromCorrupt, 1)).scores
    };
    let (noise, denoise) = (scores(Direction::Noise), scores(Direction::Denoise));
    // One step: the gradient of the corrupt run, which is the one that denoising receives in.
    let plain = edges(model, EdgeAttribution::new(&metric(), Direction::Denoise)).scores;
    for (index, value) in plain.present() {
        near(denoise.values[index.as_slice()], value, 1e-9, "denoise");
        near(-noise.values[index.as_slice()], value, 1e-9, "noise");
    }
}

#[test]
fn scores_equal_those_of_materialised_head_results_and_split_inputs() {
    for model in models(Kind::Double) {
        let edges = edges(&model, new());
        let written = [Point::HeadResult, Point::MlpOut];
        let read = [Point::QInput, Point::KInput, Point::VInput, Point::MlpIn, Point::ResidPost];
        let plan = Plan::new().cache(written).cache(Site::Embed);
        let from = model.run(&others(), &plan).unwrap().cache;
        let plan = plan.cache(read).gradients(metric());
        let to = model.run(&tokens(), &plan).unwrap();
        let gradients = to.gradients.unwrap();
        let change = |site: Site| from.get(site).unwrap() - to.cache.get(site).unwrap();
        for edge in edges.ranked() {
            let written = match edge.from {
                Writer::Embed => change(Site::Embed),
                Writer::Head(l, h) => change(Point::HeadResult.at(l)).select(2, h as i64),
                Writer::Mlp(l) => change(Point::MlpOut.at(l)),
            };
            let at = |point: Point, layer: usize| gradients.get(point.at(layer)).unwrap();
            let read = match edge.to {
                Reader::Query(l, h) => at(Point::QInput, l).select(2, h as i64),
                Reader::Key(l, g) => at(Point::KInput, l).select(2, g as i64),
                Reader::Value(l, g) => at(Point::VInput, l).select(2, g as i64),
                Reader::Mlp(l) => at(Point::MlpIn, l),
                Reader::Logits => at(Point::ResidPost, model.config().n_layers - 1),
            };
            let expected = (written * read).sum(Kind::Double).double_value(&[]) / 3.0;
            let apart = (edge.score - expected).abs();
            assert!(apart < 1e-11, "{edge}, expected {expected}");
        }
    }
}

#[test]
fn a_batch_has_the_mean_of_its_prompts_scores() {
    let model = &models(Kind::Double)[1];
    let all = edges(model, new()).scores;
    assert_eq!(all.n, 3);
    let rows = (0..3).map(|row| {
        let [clean, corrupt] = [tokens(), others()].map(|tokens| tokens.row(row).unwrap());
        new().run(model, &clean, &corrupt).unwrap().scores
    });
    let rows: Vec<Grid> = rows.collect();
    for (index, value) in all.present() {
        let mean = rows.iter().map(|grid| grid.values[index.as_slice()]).sum::<f64>() / 3.0;
        assert!((mean - value).abs() < 1e-10, "{index:?}: {mean}, {value}");
    }
}

#[test]
fn the_induction_circuit_is_found_edge_by_edge() {
    let model = induction_model((8.0, 14.0));
    let clean = prompt(&model);
    let mut ids = clean.ids()[0].clone();
    let (answer, wrong) = (ids[17], ids[3]);
    ids.swap(4, 5); // in the first copy another token now follows the one at 16
    let corrupt = Tokens::from_ids(&[ids]).unwrap();
    let metric = Metric::logit_diff(answer, wrong).at(16);
    let settings = EdgeAttribution::new(&metric, Direction::Noise).integrated(500);
    let edges = settings.run(&model, &clean, &corrupt).unwrap();
    assert!(edges.completeness_error < 0.01, "{edges:?}");
    let part = |label: [&str; 2]| edges.scores.get(&label).unwrap().abs();
    // The previous-token head tells the induction head's keys; its values come from the embedding.
    let circuit =
        [["embed", "L0G0 v"], ["L0H0", "L1G0 k"], ["embed", "L1G0 v"], ["L1H0", "logits"]];
    for edge in circuit {
        assert!(part(edge) > 0.05 * edges.difference.abs(), "{edge:?}: {}", part(edge));
    }
    let none = [["L0H0", "logits"], ["embed", "logits"], ["embed", "L0 mlp"], ["L0 mlp", "logits"]];
    for edge in none {
        assert!(part(edge) < 0.01 * edges.difference.abs(), "{edge:?}: {}", part(edge));
    }
}

#[test]
fn what_cannot_be_attributed_to_edges_says_why() {
    let model = &models(Kind::Double)[0];
    let one = Tokens::from_ids(&[vec![1, 2]]).unwrap();
    says(new().run(model, &tokens(), &one), &["3 clean prompts and 1 corrupt"]);
    says(new().integrated(0).run(model, &tokens(), &others()), &["0 steps"]);
}
