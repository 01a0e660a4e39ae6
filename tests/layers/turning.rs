//! Angles, cosines with the mean taken off, and how alike the streams of different tokens are.

use thalweg::prelude::*;
use thalweg::{anisotropy, resid_angles, resid_angles_across, resid_cosines_centred};

use super::{batch, cached, close, stream};
use crate::support::{model, says};

/// The model with every block writing nothing.
fn silent() -> Model {
    let writes = |name: &str| name.contains("o_proj") || name.contains("down_proj");
    model()
        .with_weights(|name, w| Ok(if writes(name) { w.zeros_like() } else { w.shallow_clone() }))
        .unwrap()
}

#[test]
fn angles_are_the_arc_cosine_of_the_cosines_over_pi() {
    let model = model();
    let run = cached(&model, &batch(), stream());
    let (angles, cosines) = (resid_angles(&run.cache).unwrap(), resid_cosines(&run.cache).unwrap());
    assert_eq!(angles.axes, cosines.axes);
    for ((_, angle), (_, cosine)) in angles.present().zip(cosines.present()) {
        close((angle * std::f64::consts::PI).cos(), cosine);
    }
    assert_eq!(angles.present().count(), cosines.present().count());
    let silent = silent();
    let run = cached(&silent, &batch(), stream());
    // The arc cosine has an infinite slope at 1: a last bit of the cosine shows as 1e-8.
    assert!(resid_angles(&run.cache).unwrap().present().all(|(_, angle)| angle < 1e-7));
    let across = resid_angles_across(&run.cache).unwrap();
    assert!(across.present().all(|(_, angle)| angle < 1e-7));
}

#[test]
fn angles_across_blocks_are_means_over_tokens_of_the_places_they_join() {
    let model = model();
    let run = cached(&model, &batch(), stream());
    let across = resid_angles_across(&run.cache).unwrap();
    assert_eq!((across.shape(), across.n), (&[2, 2][..], 4 + 2 + 3));
    assert!(across.get(&["L1", "2"]).is_err(), "there are no two blocks from layer 1 on");
    let own = cached(&model, &batch(), [Point::ResidPre, Point::ResidPost]);
    let near = resid_angles(&own.cache).unwrap();
    for (layer, label) in [("L0", "embed to L0"), ("L1", "L0 to L1")] {
        let row = near.index_of(Axis::Layer, label).unwrap() as i64;
        let row = near.select(Axis::Layer, row).unwrap();
        let mean = row.present().map(|(_, x)| x).sum::<f64>() / 9.0;
        close(across.get(&[layer, "1"]).unwrap(), mean);
    }
    let run = cached(&model, &batch(), Point::ResidPre);
    says(resid_angles_across(&run.cache), &["blocks.1.hook_resid_post"]);
}

#[test]
fn a_common_part_raises_the_plain_cosines_and_not_the_centred_ones() {
    let model = model();
    let tokens = batch();
    let push = Tensor::ones([12], (Kind::Double, Device::Cpu)) * 50.0;
    // Added above the last norm that reads it, so that nothing but the stream itself changes.
    let plan = Plan::new().cache(Point::ResidPost);
    let plain = model.run(&tokens, &plan).unwrap().cache;
    let shift = Intervention::add(&push, 1.0).absolute();
    let post = [Point::ResidPost.at(0), Point::ResidPost.at(1)];
    let frozen = model.run(&tokens, &Plan::new().cache(Sites::everything())).unwrap().cache;
    let plan = plan.freeze(Freeze::Block(1), &frozen).intervene(post[0], shift.clone());
    let moved = model.run(&tokens, &plan).unwrap().cache;
    let [a, b] = [&plain, &moved].map(|cache| resid_cosines_centred(cache).unwrap());
    a.present().zip(b.present()).for_each(|((_, a), (_, b))| close(a, b));
    let [a, b] = [&plain, &moved].map(|cache| resid_cosines(cache).unwrap());
    assert!(b.present().all(|(_, cosine)| cosine > 0.97), "{b:?}");
    assert!(a.present().any(|(_, cosine)| cosine < 0.9), "{a:?}");
    let [a, b] = [&plain, &moved].map(|cache| anisotropy(cache).unwrap());
    assert!(
        b.get(&["as it is", "L0"]).unwrap() > 0.97 && a.get(&["as it is", "L0"]).unwrap() < 0.6
    );
    for layer in ["L0", "L1"] {
        let centred = ["less its mean", layer];
        close(a.get(&centred).unwrap(), b.get(&centred).unwrap());
    }
}

#[test]
fn anisotropy_is_the_mean_over_pairs_of_tokens() {
    let model = model();
    let run = cached(&model, &batch(), Point::ResidPost);
    let x = run.cache.get(Point::ResidPost.at(1)).unwrap();
    let mut rows = Vec::new();
    for (row, first) in [(0, 1), (1, 3), (2, 2)] {
        rows.extend((first..5).map(|pos| x.get(row).get(pos)));
    }
    let mut cosines = Vec::new();
    for (i, a) in rows.iter().enumerate() {
        for b in &rows[..i] {
            cosines.push((a.dot(b) / (a.norm() * b.norm())).double_value(&[]));
        }
    }
    let found = anisotropy(&run.cache).unwrap();
    assert_eq!((cosines.len(), found.n), (36, 36));
    let mean = cosines.iter().sum::<f64>() / 36.0;
    close(found.get(&["as it is", "L1"]).unwrap(), mean);
    let one = Tokens::from_ids(&[vec![1, 2]]).unwrap();
    let run = cached(&model, &one, Point::ResidPost);
    says(anisotropy(&run.cache), &["two at least", "has 1"]);
    says(resid_cosines_centred(&run.cache), &["two at least"]);
}

#[test]
fn directions_that_turn_nothing_when_scaled_have_the_same_cosines() {
    let model = model();
    let run = cached(&model, &batch(), stream());
    let scaled = Plan::new()
        .cache(Point::ResidPost)
        .intervene(Point::ResidPost.at(1), Intervention::scale(7.0));
    let scaled = model.run(&batch(), &scaled).unwrap();
    let plain = cached(&model, &batch(), Point::ResidPost);
    assert!(run.cache.contains(Point::ResidMid.at(0)));
    for measure in [resid_cosines, resid_cosines_centred, resid_angles] {
        let [a, b] = [&plain, &scaled].map(|run| measure(&run.cache).unwrap());
        a.present().zip(b.present()).for_each(|((_, a), (_, b))| close(a, b));
    }
}
