//! Sizes, shapes and files: what is thinned, sampled or refused.

use thalweg::ndarray::{Array1, Array2, Array3, ArrayD};
use thalweg::{Axis, Grid, attention, bars, heatmap, lines, scatter};

use super::{json, lens, message};

#[test]
fn a_figure_too_large_is_refused_unless_forced() {
    // 4900 cells, each with 1200 bytes of code in its hover.
    let values = Array2::from_shape_fn((70, 70), |(i, j)| (i * j) as f64);
    let grid = Grid::from_array(values, &[Axis::Pos, Axis::DModel], "")
        .map(|grid| grid.code(&"x".repeat(1200)));
    let figure = heatmap(&grid.unwrap()).unwrap();
    let error = message(figure.bundle());
    assert!(error.contains("MB, more than 10 MB") && error.contains("forced()"), "{error}");
    assert!(figure.forced().bundle().is_ok());
    let huge =
        Grid::from_array(Array2::zeros((2000, 2000)), &[Axis::Pos, Axis::DModel], "").unwrap();
    assert!(message(heatmap(&huge).unwrap().bundle()).contains("4000000 cells"));
}

#[test]
fn ticks_are_thinned_and_the_last_is_kept() {
    let grid =
        Grid::from_array(Array2::from_elem((130, 90), 1.0), &[Axis::Layer, Axis::Pos], "nats")
            .unwrap();
    let json = json(&heatmap(&grid).unwrap());
    for (axis, last) in [("xaxis", "89"), ("yaxis", "L129")] {
        let ticks = json["layout"][axis]["ticktext"].as_array().unwrap();
        assert!(ticks.len() <= 41, "{axis}: {}", ticks.len());
        assert_eq!(ticks.last().unwrap(), last);
    }
    assert_eq!(json["layout"]["yaxis"]["labelalias"].as_object().unwrap().len(), 130);
}

#[test]
fn text_in_cells_has_the_shape_of_the_cells_and_a_limit() {
    assert!(
        message(heatmap(&lens()).unwrap().text(&[["a"]]))
            .contains("3 rows by 8 columns has rows of [1]")
    );
    let large = Grid::from_array(Array2::zeros((40, 40)), &[Axis::Layer, Axis::Pos], "").unwrap();
    assert!(message(heatmap(&large).unwrap().text_values()).contains("1500 at most"));
    assert!(message(lines(&lens()).unwrap().text_values()).contains("cells of a heatmap"));
    let json = json(&heatmap(&lens()).unwrap().text_values().unwrap());
    assert_eq!(json["data"][0]["text"][0][7], "-0.750");
    assert_eq!(json["data"][0]["texttemplate"], "%{text}");
    let words = Array2::from_elem((3, 8), "word".to_string());
    assert!(heatmap(&lens()).unwrap().text(&words).is_ok());
}

#[test]
fn a_scatter_of_many_points_is_sampled_and_says_so() {
    let values = Array2::from_shape_fn((7000, 2), |(i, c)| (i * (c + 1) % 977) as f64);
    let grid = Grid::from_array(values, &[Axis::Batch, Axis::Pc], "").unwrap().name("Residuals");
    let json = json(&scatter(&grid).unwrap());
    assert_eq!(json["layout"]["title"]["text"], "Residuals (5000 of 7000 points)");
    assert_eq!(json["data"][0]["x"].as_array().unwrap().len(), 5000);
    assert_eq!(json["data"][0]["type"], "scattergl");
}

#[test]
fn saving_goes_by_the_ending() {
    let figure = heatmap(&lens()).unwrap();
    let folder = std::env::temp_dir().join(format!("thalweg-figures-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for (ending, start) in [("svg", "<svg "), ("html", "<!DOCTYPE html>"), ("json", "{\"data\"")] {
        let path = folder.join(format!("lens.{ending}"));
        figure.save(&path).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().starts_with(start));
    }
    let error = message(figure.save(folder.join("lens.png")));
    assert!(error.ends_with("the ending must be .svg, .html or .json"), "{error}");
    let error = message(figure.save(folder.join("no/such/lens.svg")));
    assert!(error.starts_with("cannot write "), "{error}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_cannot_be_drawn_is_an_error() {
    let empty = Grid::from_array(Array2::zeros((0, 3)), &[Axis::Layer, Axis::Pos], "").unwrap();
    assert!(message(heatmap(&empty)).contains("axis Layer is empty"));
    assert!(message(lines(&empty)).contains("axis Layer is empty"));
    let five = ArrayD::zeros(vec![2; 5]);
    let axes = [Axis::Layer, Axis::Head, Axis::Pos, Axis::Query, Axis::Key];
    assert!(message(heatmap(&Grid::from_array(five, &axes, "").unwrap())).contains("1 to 4 axes"));
    let one = Grid::from_array(Array1::zeros(3), &[Axis::Pc], "").unwrap();
    assert!(message(scatter(&one)).contains("needs points and two coordinates"));
    for drawn in [heatmap(&one), lines(&one), bars(&one)] {
        assert!(drawn.unwrap().bundle().is_ok());
    }
}

#[test]
fn panels_that_cannot_be_read_are_refused() {
    let many =
        Grid::from_array(Array3::zeros((100, 3, 3)), &[Axis::Batch, Axis::Layer, Axis::Pos], "");
    assert!(message(heatmap(&many.unwrap())).contains("100 panels, 36 at most"));
    let heads = Array3::zeros((300, 3, 3));
    let heads = Grid::from_array(heads, &[Axis::Head, Axis::Query, Axis::Key], "").unwrap();
    assert!(message(attention(&heads)).contains("300 panels, 256 at most"));
}
