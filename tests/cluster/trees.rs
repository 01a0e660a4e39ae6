//! Hierarchical clustering and HDBSCAN.

use thalweg::{Linkage, adjusted_rand_score, hdbscan, linkage};

use super::{blobs, golden, normal, tensor};
use crate::support::{distance, says};

const LINKAGES: [(Linkage, &str); 4] = [
    (Linkage::Ward, "ward"),
    (Linkage::Average, "average"),
    (Linkage::Complete, "complete"),
    (Linkage::Single, "single"),
];

#[test]
fn tables_leaves_and_cuts_are_those_of_scipy() {
    let golden = &golden("cluster")["linkage"];
    let x = tensor(&golden["x"], &[25, 3]);
    for (method, name) in LINKAGES {
        let (own, theirs) = (linkage(&x, method).unwrap(), &golden[name]);
        assert!(distance(&own.table(), &tensor(&theirs["table"], &[24, 4])) < 1e-12, "{name}");
        let whole = |key: &str| -> Vec<usize> {
            theirs[key].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect()
        };
        assert_eq!(own.leaves, whole("leaves"), "{name}");
        let four = own.cut(4).unwrap();
        assert_eq!(adjusted_rand_score(&four.groups, &whole("four")).unwrap(), 1.0, "{name}");
    }
}

#[test]
fn heights_rise_and_cuts_nest() {
    let x = normal(&[40, 3], 1);
    for (method, name) in LINKAGES {
        let tree = linkage(&x, method).unwrap();
        let heights: Vec<f64> = tree.heights.values.iter().copied().collect();
        assert!(heights.windows(2).all(|w| w[0] <= w[1] + 1e-12), "{name}: {heights:?}");
        let mut leaves = tree.leaves.clone();
        leaves.sort_unstable();
        assert!(leaves.into_iter().eq(0..40));
        assert_eq!((tree.cut(40).unwrap().k(), tree.cut(1).unwrap().k()), (40, 1));
        // Each group of six lies in one group of three.
        let (six, three) = (tree.cut(6).unwrap(), tree.cut(3).unwrap());
        let mut pairs: Vec<_> = six.groups.iter().zip(&three.groups).collect();
        pairs.sort_unstable();
        pairs.dedup();
        assert_eq!(pairs.len(), 6, "{name}");
        let between = (heights[34] + heights[35]) / 2.0;
        assert_eq!(tree.cut_at(between).unwrap().groups, tree.cut(5).unwrap().groups, "{name}");
    }
}

#[test]
fn every_linkage_and_hdbscan_find_planted_blobs() {
    let (x, planted) = blobs(&[12, 20, 16], 3);
    for (method, name) in LINKAGES {
        let found = linkage(&x, method).unwrap().cut(3).unwrap();
        assert_eq!(adjusted_rand_score(&found.groups, &planted).unwrap(), 1.0, "{name}");
    }
    let found = hdbscan(&x, 5).unwrap();
    assert_eq!((found.k(), adjusted_rand_score(&found.groups, &planted).unwrap()), (3, 1.0));
    // In many dimensions after a reduction.
    let (wide, planted) = blobs(&[30, 30], 80);
    let found = hdbscan(&wide, 5).unwrap();
    assert_eq!((found.k(), adjusted_rand_score(&found.groups, &planted).unwrap()), (2, 1.0));
}

#[test]
fn hdbscan_finds_the_groups_and_the_noise_of_scikit_learn() {
    let golden = &golden("cluster")["hdbscan"];
    let n = golden["n"].as_i64().unwrap();
    let theirs: Vec<i64> =
        golden["labels"].as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect();
    let found = hdbscan(&tensor(&golden["x"], &[n, 4]), 8).unwrap();
    assert_eq!(adjusted_rand_score(&found.groups, &theirs).unwrap(), 1.0);
    for (own, theirs) in found.groups.iter().zip(&theirs) {
        assert_eq!(*own == -1, *theirs == -1);
    }
    assert_eq!(found.sizes.provenance["noise"], found.noise().to_string());
}

#[test]
fn trees_say_what_they_cannot_do() {
    let x = normal(&[5, 2], 1);
    says(linkage(&x.narrow(0, 0, 1), Linkage::Ward), &["1 item", "at least 2"]);
    says(linkage(&x, Linkage::Ward).unwrap().cut(6), &["6 groups of 5 items"]);
    says(hdbscan(&x, 1), &["at least 1 of 5 items", "2 to 5"]);
    says(hdbscan(&(&x / 0.0), 2), &["non-finite"]);
    let tree = linkage(&x, Linkage::Ward).unwrap();
    assert!(format!("{tree:?}").starts_with("Ward linkage of rows: 5 items, last merge at "));
    assert_eq!(tree.labels().len(), 5);
}
