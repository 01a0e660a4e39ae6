use serde_json::Value;
use thalweg::rng::Rng;
use thalweg::{distance_correlation, partial_correlation, pearson, spearman};

use super::{near, normal};
use crate::support::says;

pub(super) fn golden() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/golden/analysis/correlation.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

pub(super) fn list(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

#[test]
fn coefficients_are_those_of_scipy_and_of_the_residuals_of_statsmodels() {
    for case in golden()["cases"].as_array().unwrap() {
        let (x, y) = (list(&case["x"]), list(&case["y"]));
        let of = |name: &str| case[name]["r"].as_f64().unwrap();
        near(pearson(&x, &y).unwrap(), of("pearson"), 1e-13);
        near(spearman(&x, &y).unwrap(), of("spearman"), 1e-13);
        near(distance_correlation(&x, &y).unwrap(), case["distance"].as_f64().unwrap(), 1e-12);
        let given: Vec<Vec<f64>> = case["given"].as_array().unwrap().iter().map(list).collect();
        let given: Vec<&[f64]> = given.iter().map(Vec::as_slice).collect();
        if !given.is_empty() {
            near(partial_correlation(&x, &y, &given).unwrap(), of("partial"), 1e-12);
        }
        near(partial_correlation(&x, &y, &[]).unwrap(), of("pearson"), 1e-13);
    }
}

#[test]
fn four_pictures_as_different_as_anscombes_have_one_pearson_correlation() {
    let cases = golden();
    let quartet = cases["cases"].as_array().unwrap().iter().filter(|case| {
        let name = case["name"].as_str().unwrap();
        name.starts_with("Anscombe")
    });
    let each: Vec<_> = quartet.map(|case| (list(&case["x"]), list(&case["y"]))).collect();
    assert_eq!(each.len(), 4);
    for (x, y) in &each {
        near(pearson(x, y).unwrap(), 0.8164, 3e-4);
    }
    // The third is a line but for one point, which ranks hardly mind.
    assert!(spearman(&each[2].0, &each[2].1).unwrap() > 0.99);
    near(spearman(&each[3].0, &each[3].1).unwrap(), 0.5, 1e-12);
}

#[test]
fn a_line_has_correlation_one_or_minus_one_whatever_its_slope_and_place() {
    let x = normal(&mut Rng::new(1), 30);
    for (slope, shift) in [(2.0, 0.0), (1e-6, 1e3), (-1e8, 5.0), (-0.3, -7.0)] {
        let y: Vec<f64> = x.iter().map(|x| slope * x + shift).collect();
        for r in [pearson(&x, &y), spearman(&x, &y)] {
            near(r.unwrap(), f64::signum(slope), 1e-9);
        }
        near(distance_correlation(&x, &y).unwrap(), 1.0, 1e-7);
    }
}

#[test]
fn monotone_maps_change_no_spearman_and_sides_may_be_swapped() {
    let mut rng = Rng::new(2);
    let x = normal(&mut rng, 50);
    let y: Vec<f64> = x.iter().map(|x| x + rng.normal()).collect();
    let bent: Vec<f64> = y.iter().map(|y| (3.0 * y).exp()).collect();
    let falling: Vec<f64> = y.iter().map(|y| -y.powi(3)).collect();
    let r = spearman(&x, &y).unwrap();
    near(spearman(&x, &bent).unwrap(), r, 1e-13);
    near(spearman(&falling, &x).unwrap(), -r, 1e-13);
    assert!((pearson(&x, &bent).unwrap() - pearson(&x, &y).unwrap()).abs() > 0.05);
    for of in [pearson, spearman, distance_correlation] {
        near(of(&x, &y).unwrap(), of(&y, &x).unwrap(), 1e-13);
        assert!(of(&x, &[1.5; 50]).unwrap().is_nan(), "a constant goes with nothing");
        assert!(of(&[0.1 + 0.2; 50], &x).unwrap().is_nan());
    }
}

#[test]
fn the_ends_of_a_planted_chain_are_independent_once_its_middle_is_given() {
    let mut rng = Rng::new(3);
    let n = 4000;
    let x = normal(&mut rng, n);
    let y: Vec<f64> = x.iter().map(|x| x + 0.5 * rng.normal()).collect();
    let z: Vec<f64> = y.iter().map(|y| y + 0.5 * rng.normal()).collect();
    assert!(pearson(&x, &z).unwrap() > 0.7);
    // Standard error 1 / sqrt(n).
    assert!(partial_correlation(&x, &z, &[&y]).unwrap().abs() < 3.0 / (n as f64).sqrt());
    assert!(partial_correlation(&x, &y, &[&z]).unwrap() > 0.5, "the link itself stays");
    // Off the inverse covariance: r = -P_xy / sqrt(P_xx P_yy).
    let (xy, xz, yz) =
        (pearson(&x, &y).unwrap(), pearson(&x, &z).unwrap(), pearson(&y, &z).unwrap());
    let closed = (xy - xz * yz) / ((1.0 - xz * xz) * (1.0 - yz * yz)).sqrt();
    near(partial_correlation(&x, &y, &[&z]).unwrap(), closed, 1e-12);
    // Given twice is given once, and a constant gives nothing.
    let again = partial_correlation(&x, &y, &[&z, &z, &vec![2.0; n]]).unwrap();
    near(again, closed, 1e-10);
    assert!(partial_correlation(&x, &y, &[&x]).unwrap().is_nan(), "nothing is left of x");
}

#[test]
fn distance_correlation_sees_a_circle_that_the_others_miss() {
    let angles: Vec<f64> = (0..200).map(|i| f64::from(i) * std::f64::consts::TAU / 200.0).collect();
    let (x, y): (Vec<f64>, Vec<f64>) = angles.iter().map(|a| (a.cos(), a.sin())).unzip();
    assert!(pearson(&x, &y).unwrap().abs() < 1e-12);
    let (circle, mut rng) = (distance_correlation(&x, &y).unwrap(), Rng::new(4));
    let mut mixed = y.clone();
    rng.shuffle(&mut mixed);
    assert!(circle > 0.15 && circle > 1.3 * distance_correlation(&x, &mixed).unwrap(), "{circle}");
}

#[test]
fn what_cannot_be_correlated_is_an_error_that_says_why() {
    says(pearson(&[1.0], &[1.0]), &["pearson", "1 samples"]);
    says(spearman(&[1.0, 2.0], &[1.0]), &["lists of 2 and 1 numbers"]);
    says(distance_correlation(&[1.0, f64::NAN], &[1.0, 2.0]), &["value 1 is NaN"]);
    says(pearson(&[1.0, 2.0], &[1.0, f64::INFINITY]), &["value 1 is inf"]);
    says(
        partial_correlation(&[1.0, 2.0, 4.0], &[1.0, 2.0, 0.0], &[&[3.0, 1.0, 2.0]]),
        &["3 samples with 1 given", "expected 4"],
    );
}
