//! An analysis over a prompt set is that of its prompts, however they are cut into batches.

use std::path::Path;

use thalweg::anyhow::Result;
use thalweg::ndarray::ArrayD;
use thalweg::prelude::*;
use thalweg::rng::Rng;
use thalweg::{bootstrap_mean, each_prompt};

use crate::support::says;

fn data(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(path)
}

fn tiny_world() -> Model {
    thalweg::tch::set_num_threads(1);
    Model::load_on(data("models/tiny-world"), Device::Cpu, Kind::Float).unwrap()
}

fn set(task: &str) -> Prompts {
    Prompts::load(data(&format!("prompts/{task}.json"))).unwrap()
}

/// Logit difference of each prompt, `[Batch, Series]`.
fn difference(model: &Model, part: &Prompts) -> Result<Grid> {
    let part = part.aligned(model)?;
    let run = model.run(&part.clean, &Plan::new())?;
    let values = Metric::logit_diff(&part.right, &part.wrong).of(&run.logits, &part.clean)?;
    Grid::of(&values.unsqueeze(1), &[Axis::Batch, Axis::Series], "nats")
}

#[test]
fn however_prompts_are_cut_into_batches_the_numbers_are_the_same() -> Result<()> {
    let (model, prompts) = (tiny_world(), set("agree").first(10));
    let whole = each_prompt(&model, &prompts, 10, difference)?;
    assert_eq!((whole.shape(), whole.labels(Axis::Batch)?[9].as_str()), ([10, 1].as_slice(), "9"));
    for batch in [1, 3, 64] {
        let parts = each_prompt(&model, &prompts, batch, difference)?;
        assert_eq!(parts.axes, whole.axes);
        let apart = (&parts.values - &whole.values).mapv(f64::abs);
        assert!(apart.iter().all(|x| *x < 1e-4), "batches of {batch}: {apart}");
    }
    let mean = over_prompts(&model, &prompts, 4, difference)?;
    assert!((mean.at(&[0])? - whole.values.sum() / 10.0).abs() < 1e-5);
    assert_eq!((mean.n, mean.provenance["prompts"].as_str()), (10, "10 of `agree`, seed 11"));
    // Analyses of one prompt need no Batch, and tokens that differ become places.
    let norms = |model: &Model, part: &Prompts| -> Result<Grid> {
        let tokens = model.batch(&part.clean())?;
        resid_norms(&model.run(&tokens, &Plan::new().cache(Point::ResidPost))?.cache)
    };
    let (one, four) =
        (each_prompt(&model, &prompts, 1, norms)?, each_prompt(&model, &prompts, 5, norms)?);
    assert_eq!((one.shape(), &one.axes), (four.shape(), &four.axes));
    assert_eq!(one.labels(Axis::Pos)?, ["<s>", "The", "2", "near", "the", "5"]);
    assert!(!one.exists(&[3, 0, 0]) && one.exists(&[3, 0, 1]), "first tokens stay out");
    assert_eq!(over_prompts(&model, &prompts, 5, norms)?.present().count(), 4 * 5);
    Ok(())
}

#[test]
fn the_interval_is_that_of_means_of_prompts_drawn_again() -> Result<()> {
    let mut rng = Rng::new(1);
    let n = 80;
    let values: Vec<f64> =
        (0..n * 3).map(|i| rng.normal() * [1.0, 4.0, 0.0][i % 3] + 2.0).collect();
    let axes = [Axis::Batch, Axis::Head];
    let grid = Grid::from_array(ArrayD::from_shape_vec(vec![n, 3], values)?, &axes, "nats")?;
    let mean = bootstrap_mean(&grid, Axis::Batch, 4000, 7)?;
    let normal = grid.mean_interval(Axis::Batch)?;
    let (found, expected) = (mean.interval.as_ref().unwrap(), normal.interval.as_ref().unwrap());
    for head in 0..3 {
        let width = expected.high[[head].as_slice()] - expected.low[[head].as_slice()];
        for (a, b) in [(&found.low, &expected.low), (&found.high, &expected.high)] {
            let apart = (a[[head].as_slice()] - b[[head].as_slice()]).abs();
            assert!(apart <= 0.08 * width + 1e-12, "head {head}: {apart} of {width}");
        }
    }
    assert_eq!((mean.values.clone(), mean.n), (normal.values, 80));
    assert_eq!(found.method, "95 % bootstrap interval over 80 prompts");
    assert!(mean == bootstrap_mean(&grid, Axis::Batch, 4000, 7)?);
    // Cells that a prompt lacks neither count nor widen.
    let holes = grid.clone().missing_where(|x| x > 4.0);
    let means = bootstrap_mean(&holes, Axis::Batch, 500, 7)?;
    let bounds = means.interval.as_ref().unwrap();
    for head in 0..3 {
        let at = [head];
        let at = at.as_slice();
        assert!(bounds.low[at] <= means.values[at] && means.values[at] <= bounds.high[at]);
        assert!(bounds.high[at] < 4.0);
    }
    Ok(())
}

#[test]
fn columns_of_prompts_of_several_lengths_are_counted_from_the_end() -> Result<()> {
    let (model, prompts) = (tiny_world(), set("agree").first(6));
    // Three batches of one width: of one length, of several, and again of one.
    let mut labels = [["A", "cat", "is"], ["-3", "-2", "is"], ["A", "dog", "was"]].into_iter();
    let mut what = |_: &Model, part: &Prompts| -> Result<Grid> {
        let values = ArrayD::from_elem(vec![part.len(), 3], 1.0);
        let grid = Grid::from_array(values, &[Axis::Batch, Axis::Pos], "nats")?.n(7);
        grid.relabel(Axis::Pos, &labels.next().unwrap())
    };
    let each = each_prompt(&model, &prompts, 2, &mut what)?;
    assert_eq!(each.labels(Axis::Pos)?, ["-3", "-2", "-1"]);
    // Seven numbers of each prompt are still one prompt.
    assert_eq!((each.n, bootstrap_mean(&each, Axis::Batch, 10, 1)?.n), (1, 6));
    Ok(())
}

#[test]
fn every_task_of_the_shipped_sets_is_solved_with_its_interval_above_chance() -> Result<()> {
    let model = tiny_world();
    // Identity of the indirect object, induction, facts, greater than, agreement, sentiment, key and
    // value, and the two that the model was trained on beside them.
    let tasks =
        ["ioi", "repeat", "fact", "greater", "agree", "sentiment", "recall", "icl", "pronoun"];
    for task in tasks {
        let set = set(task);
        // Who has a thing the model does not always know; what somebody has, it does.
        let label = if task == "recall" { "k=2 what 1" } else { set.labels()[0] };
        let mean = over_prompts(&model, &set.labelled(label)?.first(16), 16, difference)?;
        let low = mean.interval.as_ref().unwrap().low[[0].as_slice()];
        assert!(low > 0.5, "{task}: {mean}");
    }
    Ok(())
}

#[test]
fn grids_that_lose_prompts_or_change_shape_are_errors_that_name_the_batch() -> Result<()> {
    let (model, prompts) = (tiny_world(), set("agree").first(6));
    let averaged = |model: &Model, part: &Prompts| difference(model, part)?.mean(Axis::Batch);
    says(
        over_prompts(&model, &prompts, 4, averaged),
        &["prompts 0..4 of `agree`", "[Series 1]", "Batch 4", "batches of 1"],
    );
    let growing = |model: &Model, part: &Prompts| {
        let grid = difference(model, part)?;
        if part.len() == 4 { Ok(grid) } else { Ok(grid.unit("bits")) }
    };
    says(each_prompt(&model, &prompts, 4, growing), &["prompts 4..6", "\"bits\"", "\"nats\""]);
    let failing = |_: &Model, part: &Prompts| -> Result<Grid> {
        thalweg::anyhow::bail!("nothing of {} prompts", part.len())
    };
    says(over_prompts(&model, &prompts, 4, failing), &["prompts 0..4 of `agree`: nothing of 4"]);
    says(over_prompts(&model, &prompts.first(1), 4, difference), &["1 prompts", "two at least"]);
    says(over_prompts(&model, &prompts, 0, difference), &["at least 1"]);
    Ok(())
}
