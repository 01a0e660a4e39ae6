//! Grids: labelled numbers that refuse what does not fit.

use thalweg::ndarray::{Array3, ArrayD, array};
use thalweg::tch::{Kind, Tensor};
use thalweg::{Axis, Grid, GridAxis};

fn effect() -> Grid {
    let values = array![[0.1, -0.8, 0.2], [0.0, 0.3, 0.75]];
    Grid::from_array(values, &[Axis::Layer, Axis::Head], "logits").unwrap().name("effect")
}

fn message<T: std::fmt::Debug>(result: thalweg::anyhow::Result<T>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_grid_needs_one_label_for_each_index() {
    let axis = GridAxis { axis: Axis::Pos, labels: vec!["a".into()] };
    let error = message(Grid::new(ArrayD::zeros(vec![2]), vec![axis], "nats"));
    assert_eq!(error, "axis Pos has 1 labels for 2 indices; axes are [Pos 1], values are [2]");
}

#[test]
fn a_grid_names_no_axis_twice() {
    let error = message(Grid::from_array(array![[1.0]], &[Axis::Pos, Axis::Pos], "nats"));
    assert!(error.contains("axis Pos is named twice"), "{error}");
    let error = message(Grid::from_array(array![[1.0]], &[Axis::Pos], "nats"));
    assert!(error.contains("1 axes named"), "{error}");
}

#[test]
fn a_tensor_of_any_kind_becomes_a_grid_that_shares_no_memory() {
    let tensor = Tensor::from_slice2(&[[1.5f32, 2.5], [3.5, 4.5]])
        .to_kind(Kind::BFloat16)
        .set_requires_grad(true);
    let labels = |names: [&str; 2]| names.map(String::from).to_vec();
    let axes = [(Axis::Layer, labels(["embed", "L0"])), (Axis::Pos, labels(["<s>", "a"]))];
    let grid = Grid::from_tensor(&tensor.transpose(0, 1), &axes, "nats").unwrap();
    let _ = tensor.detach().zero_();
    assert_eq!(grid.get(&["embed", "a"]).unwrap(), 3.5);
    assert!(message(Grid::of(&Tensor::new(), &[], "")).contains("undefined"));
}

#[test]
fn selecting_drops_the_axis_and_remembers_the_label() {
    let last = effect().select(Axis::Head, -1).unwrap();
    assert_eq!(last.values.as_slice().unwrap(), [0.2, 0.75]);
    assert_eq!(last.provenance["Head"], "H2");
    let two = effect().select_many(Axis::Head, &[-1, 0]).unwrap();
    assert_eq!(two.labels(Axis::Head).unwrap(), ["H2", "H0"]);
}

#[test]
fn a_wrong_place_is_an_error_that_says_what_there_is() {
    let grid = effect();
    let error = message(grid.select(Axis::Head, 3));
    assert_eq!(error, "index 3 is outside axis Head of length 3; axes are [Layer 2, Head 3]");
    assert_eq!(message(grid.select(Axis::Pos, 0)), "no axis Pos; axes are [Layer 2, Head 3]");
    assert_eq!(
        message(grid.get(&["L0", "H9"])),
        "axis Head has no label \"H9\": did you mean \"H0\"?"
    );
    assert!(message(grid.get(&["L0"])).contains("1 labels given for 2 axes"));
    assert!(message(grid.at(&[0, -4])).contains("index -4 is outside axis Head"));
    assert!(message(grid.transpose(&[Axis::Head, Axis::Head])).contains("names an axis twice"));
    assert!(message(grid.move_axis(Axis::Head, 2)).contains("cannot move to place 2"));
}

#[test]
fn a_mean_leaves_out_cells_that_do_not_exist() {
    let values = array![[1.0, f64::NAN], [2.0, 4.0]];
    let pattern = Grid::from_array(values, &[Axis::Query, Axis::Key], "probability")
        .unwrap()
        .causal()
        .unwrap();
    let mean = pattern.mean(Axis::Key).unwrap();
    assert_eq!(mean.values.as_slice().unwrap(), [1.0, 3.0]);
    assert_eq!((mean.n, pattern.mean(Axis::Query).unwrap().values[[1]]), (2, 4.0));
    assert!(message(pattern.at(&[0, 1])).contains("does not exist"));
}

#[test]
fn the_mean_of_ragged_prompts_counts_the_tokens_that_are_there() {
    let nan = f64::NAN;
    let values = array![[1.0, 2.0, 3.0], [5.0, nan, nan]];
    let loss = Grid::from_array(values, &[Axis::Batch, Axis::Pos], "nats").unwrap();
    let loss = loss.missing_where(f64::is_nan);
    for [first, second] in [[Axis::Batch, Axis::Pos], [Axis::Pos, Axis::Batch]] {
        assert_eq!(loss.mean(first).unwrap().mean(second).unwrap().n, 4, "{first} first");
    }
}

#[test]
fn a_mean_over_nothing_is_missing() {
    let grid = effect().missing_where(|value| value > 0.15).mean(Axis::Layer).unwrap();
    assert!(grid.exists(&[0]) && !grid.exists(&[2]));
}

#[test]
fn a_mean_interval_is_that_of_the_textbook() {
    let grid = Grid::from_array(array![1.0, 2.0, 3.0, 4.0], &[Axis::Batch], "nats").unwrap();
    let mean = grid.mean_interval(Axis::Batch).unwrap();
    let bounds = mean.interval.unwrap();
    // Standard deviation 1.29099, standard error 0.645497.
    assert!((bounds.high.first().unwrap() - (2.5 + 1.959964 * 0.6454972)).abs() < 1e-6);
    assert!((bounds.low.first().unwrap() - (2.5 - 1.959964 * 0.6454972)).abs() < 1e-6);
    assert!(
        message(effect().select_many(Axis::Head, &[0]).unwrap().mean_interval(Axis::Head))
            .contains("two entries")
    );
}

#[test]
fn ranking_goes_by_magnitude_or_by_sign() {
    let grid = effect();
    assert_eq!(grid.top(2).labels(Axis::Series).unwrap(), ["L0 H1", "L1 H2"]);
    assert_eq!(grid.highest(1).labels(Axis::Series).unwrap(), ["L1 H2"]);
    assert_eq!(grid.lowest(1).labels(Axis::Series).unwrap(), ["L0 H1"]);
    assert_eq!(grid.bottom(1).labels(Axis::Series).unwrap(), ["L1 H0"]);
    assert_eq!(grid.top(99).shape(), [6]);
}

#[test]
fn moving_axes_moves_values_bounds_and_marks_together() {
    let values =
        Array3::from_shape_fn((2, 3, 4), |(i, j, k)| (100 * i + 10 * j + k) as f64).into_dyn();
    let axes = [Axis::Head, Axis::Query, Axis::Key];
    let grid = Grid::from_array(values.clone(), &axes, "").unwrap().causal().unwrap();
    let grid = grid.interval(&values - 1.0, &values + 1.0, "test").unwrap();
    let moved = grid.move_axis(Axis::Head, 2).unwrap();
    assert_eq!(moved.at(&[2, 1, 1]).unwrap(), 121.0);
    assert!(!moved.exists(&[1, 3, 0]));
    assert_eq!(moved.interval.unwrap().high[[2, 1, 1]], 122.0);
}

#[test]
fn stacking_wants_equal_axes() {
    let grid = effect();
    let both = Grid::stack(Axis::Series, &[("a", &grid), ("b", &grid.map(|x| -x))]).unwrap();
    assert_eq!(both.get(&["b", "L0", "H1"]).unwrap(), 0.8);
    let error = message(Grid::stack(Axis::Series, &[("a", &grid), ("b", &grid.top(2))]));
    assert!(error.contains("axes, labels and unit must be equal"), "{error}");
}

#[test]
fn a_difference_is_missing_where_either_side_is() {
    let left = effect().missing_where(|x| x == 0.0);
    let right = effect().missing_where(|x| x == 0.1);
    let difference = left.minus(&right).unwrap();
    assert_eq!(difference.present().count(), 4);
    assert!(difference.present().all(|(_, value)| value == 0.0));
}

#[test]
fn a_grid_prints_one_line_and_shows_a_table() {
    let grid = effect();
    let line = "effect [Layer 2, Head 3] in logits: min -0.8 at L0 H1, max 0.75 at L1 H2";
    assert_eq!(format!("{grid:?}"), line);
    let table = grid.to_string();
    assert!(table.lines().any(|row| row == "L1       0   0.3  0.75"), "{table}");
}

#[test]
fn tokens_in_a_table_are_text_and_never_markup() {
    let grid = Grid::from_array(array![1.0, 2.0], &[Axis::Pos], "nats").unwrap();
    let html = grid.relabel(Axis::Pos, &["<script>alert(1)</script>", "<s>"]).unwrap().to_html();
    assert!(!html.contains("<script") && html.contains("&lt;s&gt;"), "{html}");
}

#[test]
fn json_keeps_labels_and_writes_missing_cells_as_null() {
    let grid = effect().missing_where(|x| x == 0.0).note("seed", "7");
    let json: serde_json::Value = serde_json::from_str(&grid.to_json().unwrap()).unwrap();
    assert_eq!(json["axes"][1]["labels"][2], "H2");
    assert!(json["values"][3].is_null() && json["values"][1] == -0.8);
    assert_eq!(json["provenance"]["seed"], "7");
}

#[test]
fn an_empty_grid_is_shown_without_a_crash() {
    let grid =
        Grid::from_array(Array3::zeros((2, 0, 3)), &[Axis::Layer, Axis::Pos, Axis::Head], "")
            .unwrap();
    assert!(grid.to_string().contains("Pos 0"));
    assert_eq!(grid.top(3).shape(), [0]);
    assert!(message(grid.select(Axis::Pos, 0)).contains("length 0"));
    assert!(Grid::of(&Tensor::from(2.0), &[], "nats").unwrap().to_string().contains('2'));
}
