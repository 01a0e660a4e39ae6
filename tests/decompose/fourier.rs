//! Waves over numbers: planted ones are found, and noise has none.

use std::f64::consts::TAU;

use thalweg::prelude::*;
use thalweg::rng::Rng;
use thalweg::{fourier, fourier_power, key_frequencies, sum_profile, sum_waves};

use crate::support::{distance, says};

/// `f(a, b, c)` for all numbers below `n`, `[n, n, n]`.
fn cube(n: usize, f: impl Fn(f64, f64, f64) -> f64) -> Tensor {
    let cell = |i: usize| f((i / (n * n)) as f64, (i / n % n) as f64, (i % n) as f64);
    Tensor::from_slice(&(0..n * n * n).map(cell).collect::<Vec<_>>()).view([n as i64; 3])
}

#[test]
fn the_transform_keeps_all_squares_for_odd_and_even_numbers() {
    for n in [2, 7, 8, 53] {
        let x = Rng::new(n as u64).normal_tensor(&[n as i64, 3]).to_kind(Kind::Double);
        let found = fourier(&x).unwrap();
        assert_eq!(found.shape(), [n, 3]);
        let squares: f64 = found.values.iter().map(|v| v * v).sum();
        let expected = x.square().sum(Kind::Double).double_value(&[]);
        assert!((squares / expected - 1.0).abs() < 1e-12, "{n}: {squares} of {expected}");
        let power = fourier_power(&x).unwrap();
        assert_eq!(power.shape(), [n / 2]);
        assert!((power.values.sum() - 1.0).abs() < 1e-12);
        // whatever is the same for all numbers has no frequency
        let shifted = fourier_power(&(x + 5.0)).unwrap();
        assert!(power.minus(&shifted).unwrap().values.iter().all(|d| d.abs() < 1e-12));
    }
}

#[test]
fn planted_rings_are_the_key_frequencies_and_noise_has_none() {
    let n = 31;
    let a = Tensor::arange(n, (Kind::Double, Device::Cpu)) * (TAU / n as f64);
    let ring = |k: f64, size: f64| [(&a * k).cos() * size, (&a * k).sin() * size];
    let [[c1, s1], [c2, s2]] = [ring(11.0, 1.0), ring(4.0, 2.0)];
    let planted = Tensor::stack(&[c1, s1, c2, s2], 1);
    let mix = Rng::new(1).normal_tensor(&[4, 16]).to_kind(Kind::Double);
    let power = fourier_power(&planted.matmul(&mix)).unwrap();
    let mut found = key_frequencies(&power, 0.999).unwrap();
    found.sort_unstable();
    assert_eq!(found, [4, 11]);
    let noise = Rng::new(2).normal_tensor(&[n, 64]);
    let power = fourier_power(&noise).unwrap();
    assert!(key_frequencies(&power, 0.9).unwrap().len() > 10, "{power:?}");
    assert!(key_frequencies(&power, 0.0).unwrap().is_empty());
    assert_eq!(key_frequencies(&power, 1.0).unwrap().len(), 15);
}

#[test]
fn waves_in_the_sum_are_told_from_waves_in_one_number() {
    let n = 13;
    let wave = |k: f64, x: f64| (TAU * k * x / n as f64 + 0.7).cos();
    let sum = cube(n, |a, b, c| (1.0 + c) * wave(3.0, a + b));
    let other = cube(n, |a, b, c| wave(5.0, a + b) + wave(3.0, a) + wave(3.0, a - b) + c);
    assert!(distance(&sum_waves(&(&sum + &other), &[3]).unwrap(), &sum) < 1e-12);
    assert!(distance(&sum_waves(&sum, &[3, 5]).unwrap(), &sum) < 1e-12);
    let none = sum_waves(&other, &[3]).unwrap().abs().max().double_value(&[]);
    assert!(none < 1e-12, "{none}");
}

#[test]
fn logits_of_the_difference_alone_are_explained_and_noise_is_not() {
    let n = 11;
    let wave = |x: f64| (TAU * 2.0 * x / n as f64).cos();
    let clean = cube(n, |a, b, c| 3.0 * wave(a + b - c) + a);
    let found = sum_profile(&clean).unwrap();
    assert!((found.explained - 1.0).abs() < 1e-12, "{found:?}");
    assert!((found.profile.get(&["4"]).unwrap() - 3.0 * wave(4.0)).abs() < 1e-12);
    let noise = Rng::new(3).normal_tensor(&[11, 11, 11]);
    assert!(sum_profile(&noise).unwrap().explained < 0.05);
    assert!(sum_profile(&cube(n, |a, _, c| wave(a - c))).unwrap().explained < 1e-12);
}

#[test]
fn what_has_no_circle_of_numbers_is_named() {
    let x = Tensor::ones([5, 2], (Kind::Float, Device::Cpu));
    says(fourier(&x.flatten(0, 1)), &["fourier", "[10]", "[n, D]"]);
    says(fourier_power(&x), &["all 5 rows are the same"]);
    says(sum_waves(&x, &[1]), &["[5, 2]", "[n, n, ..]"]);
    let square = Tensor::ones([5, 5, 5], (Kind::Float, Device::Cpu));
    says(sum_waves(&square, &[3]), &["no frequency 3", "1 to 2"]);
    says(sum_profile(&square), &["every answer has the same logit"]);
    says(sum_profile(&square.narrow(2, 0, 2)), &["[5, 5, 2]", "[n, n, n]"]);
    let power = fourier_power(&(&x * Tensor::from_slice(&[1.0, 2.0, 3.0, 4.0, 5.0]).view([5, 1])));
    says(key_frequencies(&power.unwrap(), 1.5), &["1.5", "0 to 1"]);
}
