//! How far to believe groups: silhouette, agreement, stability, the number of groups.

use thalweg::prelude::*;
use thalweg::{
    Clustering, Items, adjusted_rand_score, choose_k, hdbscan, kmeans,
    normalized_mutual_info_score, silhouette, stability,
};

use super::{blobs, golden, near, normal, tensor, values};
use crate::support::{distance, says};

#[test]
fn silhouettes_are_those_of_scikit_learn() {
    let golden = &golden("cluster")["kmeans"];
    let x = tensor(&golden["x"], &[90, 6]);
    let labels: Vec<i64> =
        golden["labels"].as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect();
    let groups = Clustering::new(&x, &labels).unwrap();
    let own = silhouette(&x, &groups).unwrap();
    near(own.mean, golden["silhouette"].as_f64().unwrap(), 1e-12);
    assert!(distance(&values(&own.items), &tensor(&golden["silhouettes"], &[90])) < 1e-10);
    for group in 0..4 {
        let of = groups.groups.iter().zip(own.items.values.iter()).filter(|(g, _)| **g == group);
        let widths: Vec<f64> = of.map(|(_, width)| *width).collect();
        near(
            own.groups.values[[group as usize]],
            widths.iter().sum::<f64>() / widths.len() as f64,
            1e-12,
        );
    }
}

#[test]
fn silhouettes_by_hand() {
    let x = Tensor::from_slice(&[0.0, 2.0, 6.0, 7.0, 20.0]).view([5, 1]);
    let groups = Clustering::new(&x, &[0, 0, 1, 1, 2]).unwrap();
    let own = silhouette(&x, &groups).unwrap();
    let by_hand = [(6.5 - 2.0) / 6.5, (4.5 - 2.0) / 4.5, (5.0 - 1.0) / 5.0, (6.0 - 1.0) / 6.0, 0.0];
    own.items.values.iter().zip(by_hand).for_each(|(a, b)| near(*a, b, 1e-12));
    // Noise takes no part: without it the widths are the same.
    let more = Tensor::cat(&[x.shallow_clone(), Tensor::from_slice(&[100.0]).view([1, 1])], 0);
    let noisy = silhouette(&more, &Clustering::new(&more, &[0, 0, 1, 1, 2, -1]).unwrap()).unwrap();
    near(noisy.mean, own.mean, 1e-12);
    assert!(!noisy.items.exists(&[5]));
    // Items on one spot have no width.
    let spot = Tensor::zeros([4, 2], (Kind::Double, Device::Cpu));
    assert_eq!(
        silhouette(&spot, &Clustering::new(&spot, &[0, 0, 1, 1]).unwrap()).unwrap().mean,
        0.0
    );
    says(
        silhouette(&x, &Clustering::new(&x, &[0; 5]).unwrap()),
        &["1 groups of 5 items", "2 to 4"],
    );
    says(silhouette(&x, &Clustering::new(&x, &[0, 1, 2, 3, 4]).unwrap()), &["5 groups of 5 items"]);
    says(silhouette(&x.narrow(0, 0, 3), &groups), &["5 groups given for 3 items"]);
}

#[test]
fn agreement_is_that_of_scikit_learn() {
    for pair in golden("cluster")["agreement"].as_array().unwrap() {
        let groups = |key: &str| -> Vec<i64> {
            pair[key].as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect()
        };
        let (a, b) = (groups("a"), groups("b"));
        near(adjusted_rand_score(&a, &b).unwrap(), pair["ari"].as_f64().unwrap(), 1e-12);
        near(normalized_mutual_info_score(&a, &b).unwrap(), pair["nmi"].as_f64().unwrap(), 1e-12);
    }
}

#[test]
fn a_grouping_agrees_with_itself_under_any_names_and_order_of_the_two() {
    let a = [0, 0, 1, 1, 1, 2, 2, 0];
    let renamed = a.map(|group| ["x", "y", "z"][(group + 1) % 3]);
    let b = [0, 1, 1, 0, 1, 2, 0, 0];
    for score in [
        (adjusted_rand_score(&a, &a), adjusted_rand_score(&a, &renamed)),
        (normalized_mutual_info_score(&a, &a), normalized_mutual_info_score(&a, &renamed)),
    ] {
        assert_eq!((score.0.unwrap(), score.1.unwrap()), (1.0, 1.0));
    }
    near(adjusted_rand_score(&a, &b).unwrap(), adjusted_rand_score(&b, &a).unwrap(), 1e-15);
    near(
        normalized_mutual_info_score(&a, &b).unwrap(),
        normalized_mutual_info_score(&b, &a).unwrap(),
        1e-15,
    );
    says(adjusted_rand_score(&a, &b[..3]), &["8 items and 3"]);
    says(normalized_mutual_info_score::<i32, i32>(&[], &[]), &["no items"]);
}

#[test]
fn planted_groups_come_again_and_groups_of_nothing_do_not() {
    let (x, _) = blobs(&[15, 15, 15], 4);
    let planted = stability(&x, 8, 0, |items| kmeans(items, 3, 0)).unwrap();
    assert!(planted.mean == 1.0 && planted.control < 0.8, "{planted:?}");
    let nothing = stability(&normal(&[45, 4], 7), 8, 0, |items| kmeans(items, 3, 0)).unwrap();
    assert!(nothing.mean < 0.8, "{nothing:?}");
    assert_eq!(planted.draws.shape(), [2, 8]);
    let dense = stability(&x, 4, 0, |items| hdbscan(items, 4)).unwrap();
    assert!(dense.mean > 0.9, "{dense:?}");
    says(stability(&x, 0, 0, |items| kmeans(items, 3, 0)), &["0 draws"]);
}

#[test]
fn the_number_of_planted_groups_is_chosen_and_shuffled_features_have_narrower_ones() {
    let (x, _) = blobs(&[10, 10, 10, 10], 5);
    let choice = choose_k(&x, 2..=6, 0).unwrap();
    assert_eq!(choice.k, 4);
    let best = choice.silhouettes.get(&["items", "4"]).unwrap();
    assert!(
        best > 0.9 && best > choice.silhouettes.get(&["features shuffled", "4"]).unwrap() + 0.1
    );
    lines(&choice.silhouettes).unwrap();
    says(choose_k(&x, 1..=3, 0), &["1 to 3 groups", "2 to 39"]);
}

#[test]
fn shuffled_features_keep_their_values_and_lose_their_rows() {
    let items = Items::from(&blobs(&[10, 10], 3).0);
    let shuffled = items.shuffled(1).unwrap();
    let sorted = |x: &Tensor| x.sort(0, false).0;
    assert!(distance(&sorted(&shuffled.x), &sorted(&items.x)) == 0.0);
    assert!(distance(&shuffled.x, &items.x) > 0.1);
    assert!(distance(&shuffled.x, &items.shuffled(1).unwrap().x) == 0.0);
}
