use thalweg::ndarray::{Array1, Array2};
use thalweg::rng::Rng;
use thalweg::{Axis, Grid, agreement, agreement_with, spearman};

use super::{near, normal};
use crate::support::says;

fn cells(values: Vec<f64>) -> Grid {
    Grid::from_array(Array1::from(values), &[Axis::Pos], "nats").unwrap()
}

fn prompts(values: Vec<f64>, rows: usize) -> Grid {
    let columns = values.len() / rows;
    let values = Array2::from_shape_vec((rows, columns), values).unwrap();
    Grid::from_array(values, &[Axis::Batch, Axis::Pos], "nats").unwrap()
}

#[test]
fn grids_agree_as_far_as_their_ranks_do_with_an_interval_that_holds_the_truth() {
    let mut rng = Rng::new(1);
    let x = normal(&mut rng, 60);
    let y: Vec<f64> = x.iter().map(|x| x + rng.normal()).collect();
    let z = normal(&mut rng, 60);
    let [a, b, c] = [&x, &y, &z].map(|values| cells(values.clone()));
    let pairs = agreement(&[("x", &a), ("y", &b), ("z", &c)]).unwrap();
    let r = spearman(&x, &y).unwrap();
    near(pairs.get(&["x", "y"]).unwrap(), r, 1e-12);
    near(pairs.get(&["y", "x"]).unwrap(), r, 1e-12);
    assert_eq!((pairs.get(&["z", "z"]).unwrap(), pairs.n), (1.0, 60));
    let interval = pairs.interval.as_ref().unwrap();
    assert_eq!(interval.method, "95 % bootstrap interval over cells");
    let bounds = |at: [usize; 2]| (interval.low[at.as_slice()], interval.high[at.as_slice()]);
    let (low, high) = bounds([0, 1]);
    assert!(0.3 < low && low < r && r < high && high < 0.95, "{low} {high}");
    let (low, high) = bounds([0, 2]);
    assert!(low < 0.0 && 0.0 < high, "what is unrelated may agree by chance: {low} {high}");
    // 95 % of chance: 1.96 / sqrt(n - 1).
    let chance = &pairs.provenance["shuffled"];
    let half: f64 = chance[chance.find('±').unwrap() + 2..][..5].parse().unwrap();
    assert!((0.22..0.29).contains(&half), "{chance}");
    assert_eq!(pairs, agreement(&[("x", &a), ("y", &b), ("z", &c)]).unwrap());
    let other = agreement_with(&[("x", &a), ("y", &b)], 200, 3).unwrap();
    assert_ne!(other.interval.unwrap().low[[0, 1].as_slice()], interval.low[[0, 1].as_slice()]);
}

#[test]
fn prompts_agree_each_within_itself_and_only_prompts_are_drawn_again() {
    // Each prompt has its own level, which would make pooled cells agree.
    let mut rng = Rng::new(2);
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for prompt in 0..40 {
        for _ in 0..8 {
            a.push(100.0 * f64::from(prompt) + rng.normal());
            b.push(50.0 * f64::from(prompt) + rng.normal());
        }
    }
    assert!(spearman(&a, &b).unwrap() > 0.9);
    let each: Vec<f64> =
        a.chunks(8).zip(b.chunks(8)).map(|(a, b)| spearman(a, b).unwrap()).collect();
    let (a, b) = (prompts(a, 40), prompts(b, 40));
    let pairs = agreement(&[("a", &a), ("b", &b)]).unwrap();
    near(pairs.get(&["a", "b"]).unwrap(), each.iter().sum::<f64>() / 40.0, 1e-12);
    assert_eq!(pairs.n, 40);
    let interval = pairs.interval.unwrap();
    assert_eq!(interval.method, "95 % bootstrap interval over prompts");
    let at = [0, 1].as_slice();
    assert!(interval.low[at] < 0.0 && interval.high[at] > 0.0 && interval.low[at] > -0.3);
}

#[test]
fn missing_cells_and_prompts_without_order_are_left_out() {
    let mut rng = Rng::new(3);
    let a = prompts(normal(&mut rng, 15), 3);
    let mut b = a.map(|x| 2.0 * x);
    for i in 0..5 {
        b.values[[1, i].as_slice()] = 7.0; // no order in prompt 1
    }
    b.values[[0, 0].as_slice()] = f64::INFINITY;
    let mut b = b.missing_where(f64::is_infinite);
    let pairs = agreement(&[("a", &a), ("b", &b)]).unwrap();
    near(pairs.get(&["a", "b"]).unwrap(), 1.0, 1e-12);
    assert_eq!(pairs.n, 2);
    // Where one prompt is left there is no interval over prompts.
    for i in 0..5 {
        b.values[[2, i].as_slice()] = 7.0;
    }
    let alone = agreement(&[("a", &a), ("b", &b)]).unwrap();
    let interval = alone.interval.as_ref().unwrap();
    assert_eq!(alone.n, 1);
    assert!([&interval.low, &interval.high].iter().all(|bound| bound[[0, 1].as_slice()].is_nan()));
    let short = cells(vec![1.0, 2.0]);
    says(agreement(&[("a", &short), ("b", &short)]), &["\"a\" and \"b\"", "no three cells"]);
    says(agreement(&[("a", &a)]), &["1 grids"]);
    says(agreement(&[("a", &a), ("b", &short)]), &["[Batch 3, Pos 5]", "[Pos 2]", "equal"]);
}
