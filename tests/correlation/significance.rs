use thalweg::rng::Rng;
use thalweg::{benjamini_hochberg, benjamini_yekutieli, correlation_p, pearson, spearman};

use super::coefficients::{golden, list};
use super::{near, normal};
use crate::support::says;

/// Kolmogorov and Smirnov's distance of p values from the uniform distribution, in units of what 1 %
/// of uniform ones exceed.
pub(super) fn beyond_uniform(mut p: Vec<f64>) -> f64 {
    p.sort_by(f64::total_cmp);
    let n = p.len() as f64;
    let apart = p.iter().enumerate().map(|(i, p)| {
        let (before, after) = (i as f64 / n, (i + 1) as f64 / n);
        (p - before).abs().max((after - p).abs())
    });
    apart.fold(0.0, f64::max) * n.sqrt() / 1.63
}

#[test]
fn students_p_values_are_those_of_scipy_and_statsmodels() {
    for case in golden()["cases"].as_array().unwrap() {
        let (x, y, n) = (list(&case["x"]), list(&case["y"]), list(&case["x"]).len());
        let p = |name: &str| case[name]["p"].as_f64().unwrap();
        let relative = |found: f64, expected: f64| near(found / expected, 1.0, 1e-9);
        relative(correlation_p(pearson(&x, &y).unwrap(), n, 0).unwrap(), p("pearson"));
        relative(correlation_p(spearman(&x, &y).unwrap(), n, 0).unwrap(), p("spearman"));
        let given = case["given"].as_array().unwrap().len();
        if given > 0 {
            let r = case["partial"]["r"].as_f64().unwrap();
            relative(correlation_p(r, n, given).unwrap(), p("partial"));
        }
    }
    assert_eq!(correlation_p(1.0, 5, 0).unwrap(), 0.0);
    assert_eq!(correlation_p(-0.3, 2, 0).unwrap(), 1.0, "two points always lie on a line");
    assert!(correlation_p(f64::NAN, 9, 0).unwrap().is_nan());
    says(correlation_p(0.1, 3, 2), &["3 samples with 2 given", "expected 4"]);
    says(correlation_p(1.5, 9, 0), &["r is 1.5"]);
}

#[test]
fn where_nothing_goes_together_p_values_are_uniform() {
    let mut rng = Rng::new(1);
    let mut p = |rank: bool| {
        let (x, y) = (normal(&mut rng, 24), normal(&mut rng, 24));
        let r = if rank { spearman(&x, &y) } else { pearson(&x, &y) };
        correlation_p(r.unwrap(), 24, 0).unwrap()
    };
    for rank in [false, true] {
        let drawn: Vec<f64> = (0..1500).map(|_| p(rank)).collect();
        let found = beyond_uniform(drawn.clone());
        assert!(found < 1.0, "rank {rank}: {found}");
        let bent = drawn.iter().map(|p| p.powf(1.2)).collect();
        assert!(beyond_uniform(bent) > 1.0, "the test would see p values a little too small");
    }
}

#[test]
fn adjusted_p_values_are_those_of_statsmodels() {
    let golden = golden();
    let p = list(&golden["p"]);
    for (name, found) in [("fdr_bh", benjamini_hochberg(&p)), ("fdr_by", benjamini_yekutieli(&p))] {
        let found = found.unwrap();
        let expected = list(&golden["adjusted"][name]);
        found.iter().zip(&expected).for_each(|(a, b)| near(*a, *b, 1e-12));
    }
}

#[test]
fn adjusted_p_values_are_no_smaller_keep_the_order_and_count_no_missing_test() {
    let mut rng = Rng::new(2);
    let p: Vec<f64> = (0..40).map(|_| rng.uniform().powi(3)).collect();
    let (bh, by) = (benjamini_hochberg(&p).unwrap(), benjamini_yekutieli(&p).unwrap());
    let mut order: Vec<usize> = (0..40).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    for pair in order.windows(2) {
        assert!(bh[pair[0]] <= bh[pair[1]] && by[pair[0]] <= by[pair[1]]);
    }
    assert!((0..40).all(|i| p[i] <= bh[i] && bh[i] <= by[i] && by[i] <= 1.0));
    let mut gaps = p.clone();
    gaps.insert(7, f64::NAN);
    let mut adjusted = benjamini_hochberg(&gaps).unwrap();
    assert!(adjusted.remove(7).is_nan());
    assert_eq!(adjusted, bh);
    assert_eq!(benjamini_hochberg(&[]).unwrap(), [0.0; 0]);
    says(benjamini_yekutieli(&[0.5, 1.5]), &["value 1 is 1.5"]);
}

#[test]
fn benjamini_and_hochberg_hold_the_share_of_false_finds() {
    let (mut rng, runs, q) = (Rng::new(3), 2000, 0.1);
    for real in [0, 15] {
        let mut share = 0.0;
        for _ in 0..runs {
            // The first `real` tests have something to find.
            let p: Vec<f64> = (0..50)
                .map(|i| if i < real { rng.uniform().powi(8) } else { rng.uniform() })
                .collect();
            let adjusted = benjamini_hochberg(&p).unwrap();
            let found: Vec<usize> = (0..50).filter(|i| adjusted[*i] <= q).collect();
            let false_ones = found.iter().filter(|i| **i >= real).count();
            share += false_ones as f64 / found.len().max(1) as f64 / f64::from(runs);
        }
        // Exactly q times the share of true nulls, for independent tests; 4 standard errors.
        let expected = q * (50 - real) as f64 / 50.0;
        near(share, expected, 4.0 * (0.3 * 0.3 / f64::from(runs)).sqrt());
    }
}
