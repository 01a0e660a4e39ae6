//! k-means.

use thalweg::prelude::*;
use thalweg::rng::Rng;
use thalweg::{Clustering, Items, KMeans, adjusted_rand_score, kmeans};

use super::{blobs, golden, near, normal, tensor};
use crate::support::{distance, says};

#[test]
fn inertia_and_groups_are_those_of_scikit_learn() {
    let golden = &golden("cluster")["kmeans"];
    let x = tensor(&golden["x"], &[90, 6]);
    let groups = |key: &str| -> Vec<i64> {
        golden[key].as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect()
    };
    let found = kmeans(&x, 4, 0).unwrap();
    near(found.inertia, golden["inertia"].as_f64().unwrap(), 1e-12);
    assert_eq!(adjusted_rand_score(&found.groups, &groups("labels")).unwrap(), 1.0);
    assert_eq!(adjusted_rand_score(&found.groups, &groups("planted")).unwrap(), 1.0);
    // Where groups are not planted, many starts find what many of theirs do.
    let (seven, _) = KMeans::new(7).runs(400).tolerance(0.0).run(&x).unwrap();
    near(seven.inertia, golden["inertia_of_7"].as_f64().unwrap(), 1e-12);
}

#[test]
fn planted_blobs_are_found_and_numbered_from_the_largest() {
    let (x, planted) = blobs(&[10, 25, 15], 4);
    let found = kmeans(&x, 3, 7).unwrap();
    assert_eq!(adjusted_rand_score(&found.groups, &planted).unwrap(), 1.0);
    assert_eq!(found.sizes.values.as_slice().unwrap(), [25.0, 15.0, 10.0]);
    assert_eq!(found.groups[0], 2);
    assert_eq!(found.members(2)[..2], ["0", "1"]);
    let mean = x.narrow(0, 10, 25).mean_dim([0i64].as_slice(), false, None);
    assert!(distance(&found.centers.get(0), &mean) < 1e-12);
    let line = format!("{found:?}");
    assert_eq!(line, "groups of rows: 50 items in 3 of 25, 15, 10");
}

#[test]
fn inertia_never_rises_and_ends_as_the_sum_of_squares() {
    let x = normal(&[200, 3], 1);
    for seed in 0..5 {
        let (found, history) = KMeans::new(6).seed(seed).runs(1).tolerance(0.0).run(&x).unwrap();
        let history: Vec<f64> = history.values.iter().copied().collect();
        assert!(history.len() > 3 && history.windows(2).all(|w| w[1] <= w[0]), "{history:?}");
        near(*history.last().unwrap(), found.inertia, 1e-12);
    }
}

#[test]
fn as_many_groups_as_items_leave_no_distance() {
    let x = normal(&[12, 3], 2);
    let found = kmeans(&x, 12, 0).unwrap();
    assert!(found.k() == 12 && found.inertia == 0.0);
    // Fewer spots than groups.
    let spots = Tensor::cat(&[&x.narrow(0, 0, 2); 3], 0);
    let found = kmeans(&spots, 4, 0).unwrap();
    assert!(found.inertia < 1e-24 && found.k() <= 4);
    assert_eq!(kmeans(&x, 1, 0).unwrap().k(), 1);
}

#[test]
fn the_order_of_items_and_the_seed_change_nothing_where_groups_are_clear() {
    let (x, _) = blobs(&[12, 20, 16], 3);
    let order = Rng::new(4).sample(48, 48);
    let items = Items::from(&x);
    let (a, b) =
        (kmeans(&items, 3, 1).unwrap(), kmeans(items.select(&order).unwrap(), 3, 2).unwrap());
    let moved: Vec<i64> = order.iter().map(|i| a.groups[*i]).collect();
    assert_eq!(adjusted_rand_score(&moved, &b.groups).unwrap(), 1.0);
    near(a.inertia, b.inertia, 1e-12);
    let noise = normal(&[100, 3], 5);
    assert_eq!(kmeans(&noise, 5, 3).unwrap().groups, kmeans(&noise, 5, 3).unwrap().groups);
}

#[test]
fn at_unit_length_groups_are_directions() {
    // Two directions, each at many lengths.
    let lengths = (Tensor::arange(20, (Kind::Double, Device::Cpu)) * 0.5).exp().unsqueeze(1);
    let direction =
        |a: f64, b: f64| Tensor::from_slice(&[a, b]).unsqueeze(0) + normal(&[20, 2], 3) * 0.02;
    let x = Tensor::cat(&[direction(1.0, 0.2) * &lengths, direction(0.2, 1.0) * &lengths], 0);
    let planted: Vec<usize> = (0..40).map(|i| i / 20).collect();
    let agreement =
        |items: Items| adjusted_rand_score(&kmeans(items, 2, 0).unwrap().groups, &planted).unwrap();
    assert_eq!(agreement(Items::from(&x).unit().unwrap()), 1.0);
    assert!(agreement(Items::from(&x)) < 0.5);
    let zero = Tensor::zeros([3, 2], (Kind::Double, Device::Cpu));
    says(Items::from(&zero).unit(), &["item 0", "all zeros"]);
}

#[test]
fn groups_given_by_hand_are_numbered_by_size_and_noise_stays() {
    let x = normal(&[6, 2], 1);
    let found = Clustering::new(&x, &[7, 3, 3, -1, 3, 7]).unwrap();
    assert_eq!(found.groups, [1, 0, 0, -1, 0, 1]);
    assert_eq!((found.k(), found.noise()), (2, 1));
    assert_eq!(found.names()[2..4], ["group 0", "noise"]);
    assert!(thalweg::Show::content(&found).get("text/html").unwrap().contains("<code>4</code>"));
    says(Clustering::new(&x, &[0, 1]), &["2 groups given for 6 items"]);
}

#[test]
fn kmeans_says_what_it_cannot_do() {
    let x = normal(&[5, 2], 1);
    says(kmeans(&x, 6, 0), &["6 groups of 5 items", "1 to 5"]);
    says(kmeans(&x, 0, 0), &["0 groups"]);
    says(kmeans(&(&x / 0.0), 2, 0), &["non-finite"]);
    says(kmeans(&x.get(0), 1, 0), &["[2]", "[points, dimensions]"]);
    says(KMeans::new(2).runs(0).run(&x), &["a run and a step"]);
    says(Items::new(&x, &["a", "b"]), &["2 labels for 5 items"]);
    says(Items::from(&x).select(&[9]), &["no item 9"]);
}
