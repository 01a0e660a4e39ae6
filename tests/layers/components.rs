//! What heads and MLPs write: lengths and directions.

use thalweg::prelude::*;
use thalweg::{Against, component_cosines, component_norms, head_cosines, head_norms};

use super::{batch, biased, cached, close, stream};
use crate::support::{model, says};

fn everything(model: &Model) -> Cache {
    let sites = vec![
        Sites::from(stream()),
        Sites::from([Point::AttnOut, Point::MlpOut, Point::Z, Point::HeadResult]),
        Sites::from(Site::Embed),
    ];
    cached(model, &batch(), sites).cache
}

fn cosine(a: &Tensor, b: &Tensor) -> f64 {
    (a.dot(b) / (a.norm() * b.norm())).double_value(&[])
}

#[test]
fn lengths_of_heads_by_their_gram_matrix_are_those_of_what_they_write() {
    for model in [model(), biased()] {
        let cache = everything(&model);
        let norms = head_norms(&model, &cache).unwrap();
        let before = head_cosines(&model, &cache, Against::Before).unwrap();
        let end = head_cosines(&model, &cache, Against::Final).unwrap();
        assert_eq!(norms.shape(), [3, 2, 4, 5]);
        assert_eq!(norms.present().count(), 2 * 4 * (4 + 2 + 3));
        for (index, length) in norms.present() {
            let [row, layer, head, pos] = index[..].try_into().unwrap();
            let at = |site: Site| cache.get(site).unwrap().get(row as i64).get(pos as i64);
            let own = at(Point::HeadResult.at(layer)).get(head as i64);
            close(length, own.norm().double_value(&[]));
            close(before.values[&index[..]], cosine(&own, &at(Point::ResidPre.at(layer))));
            close(end.values[&index[..]], cosine(&own, &at(Point::ResidPost.at(1))));
        }
    }
}

#[test]
fn lengths_and_cosines_of_components_are_those_of_their_vectors() {
    let model = biased();
    let cache = everything(&model);
    let norms = component_norms(&cache).unwrap();
    let before = component_cosines(&cache, Against::Before).unwrap();
    let end = component_cosines(&cache, Against::Final).unwrap();
    let labels = ["embed", "L0 attn", "L0 mlp", "L1 attn", "L1 mlp"];
    assert_eq!(norms.labels(Axis::Component).unwrap(), labels);
    assert_eq!(end.labels(Axis::Component).unwrap(), labels);
    assert_eq!(before.labels(Axis::Component).unwrap(), &labels[1..]);
    let at = |site: Site| cache.get(site).unwrap().get(2).get(3);
    let sites = [
        (Site::Embed, None),
        (Point::AttnOut.at(0), Some(Point::ResidPre.at(0))),
        (Point::MlpOut.at(0), Some(Point::ResidMid.at(0))),
        (Point::AttnOut.at(1), Some(Point::ResidPre.at(1))),
        (Point::MlpOut.at(1), Some(Point::ResidMid.at(1))),
    ];
    for ((site, read), label) in sites.into_iter().zip(labels) {
        close(norms.get(&["2", label, "-2"]).unwrap(), at(site).norm().double_value(&[]));
        let last = at(Point::ResidPost.at(1));
        close(end.get(&["2", label, "-2"]).unwrap(), cosine(&at(site), &last));
        if let Some(read) = read {
            close(before.get(&["2", label, "-2"]).unwrap(), cosine(&at(site), &at(read)));
        }
    }
    says(norms.get(&["1", "embed", "-4"]), &["does not exist"]);
}

#[test]
fn the_stream_below_serves_for_the_stream_before() {
    let model = model();
    let full = everything(&model);
    let sites = vec![
        Sites::from([Point::ResidPost, Point::ResidMid, Point::AttnOut, Point::MlpOut, Point::Z]),
        Sites::from(Site::Embed),
    ];
    let some = cached(&model, &batch(), sites).cache;
    for against in [Against::Before, Against::Final] {
        let [a, b] = [&full, &some].map(|cache| component_cosines(cache, against).unwrap());
        assert_eq!(a.axes, b.axes);
        a.present().zip(b.present()).for_each(|((_, a), (_, b))| assert_eq!(a, b));
        let [a, b] = [&full, &some].map(|cache| head_cosines(&model, cache, against).unwrap());
        a.present().zip(b.present()).for_each(|((_, a), (_, b))| assert_eq!(a, b));
    }
    let bare = cached(&model, &batch(), Point::Z).cache;
    says(head_cosines(&model, &bare, Against::Final), &["blocks.1.hook_resid_post"]);
    says(component_norms(&bare), &["not cached"]);
}

#[test]
fn a_head_that_writes_nothing_has_length_zero_and_no_direction() {
    let model = model()
        .with_weights(|name, w| {
            let none = name.contains("layers.1.self_attn.o_proj");
            Ok(if none { w.zeros_like() } else { w.shallow_clone() })
        })
        .unwrap();
    let cache = everything(&model);
    let norms = head_norms(&model, &cache).unwrap().select(Axis::Layer, 1).unwrap();
    assert!(norms.present().all(|(_, length)| length == 0.0));
    let cosines = head_cosines(&model, &cache, Against::Final).unwrap();
    assert_eq!(cosines.select(Axis::Layer, 1).unwrap().present().count(), 0);
    assert_eq!(cosines.select(Axis::Layer, 0).unwrap().present().count(), 4 * 9);
}

#[test]
fn a_component_that_writes_nothing_has_no_cosine() {
    let model = model()
        .with_weights(|name, w| {
            let none = name.contains("layers.1.mlp.down_proj");
            Ok(if none { w.zeros_like() } else { w.shallow_clone() })
        })
        .unwrap();
    for against in [Against::Before, Against::Final] {
        let cosines = component_cosines(&everything(&model), against).unwrap();
        let at = |label: &str| {
            let labels = cosines.labels(Axis::Component).unwrap();
            labels.iter().position(|own| own == label).unwrap()
        };
        assert!(!cosines.exists(&[0, at("L1 mlp"), 2]) && cosines.exists(&[0, at("L0 mlp"), 2]));
        assert!(cosines.present().all(|(_, value)| value.is_finite()));
    }
}
