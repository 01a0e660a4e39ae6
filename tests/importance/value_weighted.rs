//! What attention carries: vectors that add up to what heads write, and numbers of them.

use super::*;

#[test]
fn the_vectors_carried_add_up_to_what_each_head_writes() {
    for model in models(Kind::Double) {
        let cache = recorded(&model, &tokens());
        for layer in 0..3 {
            for at in [0, 2, -1] {
                let vectors = attention_vectors(&model, &cache, layer, at).unwrap();
                assert_eq!(vectors.size(), [3, 4, 6, 12]);
                let written = vectors.sum_dim_intlist([2i64].as_slice(), false, None);
                let result = cache.get(Point::HeadResult.at(layer)).unwrap();
                for row in 0..3 {
                    let own = tokens().places(Position::At(at)).unwrap()[row][0];
                    let column = (own + tokens().padding(row)) as i64;
                    let expected = result.get(row as i64).get(column);
                    assert!(distance(&written.get(row as i64), &expected) < 1e-12);
                }
            }
        }
    }
}

#[test]
fn norms_are_those_of_the_vectors_and_shares_are_projections_that_sum_to_one() {
    for model in models(Kind::Double) {
        let cache = recorded(&model, &tokens());
        let norms = value_weighted_attention(&model, &cache).unwrap();
        let shares = contribution_weights(&model, &cache).unwrap();
        for layer in 0..3 {
            let vectors = attention_vectors(&model, &cache, layer, -1).unwrap();
            for row in 0..3 {
                let own = vectors.get(row); // [Head, Key, DModel]
                let sum = own.sum_dim_intlist([0i64, 1].as_slice(), false, None);
                let squared = sum.square().sum(None).double_value(&[]);
                let mut total = 0.0;
                for (head, key) in (0..4).flat_map(|h| (0..6).map(move |k| (h, k))) {
                    let index = [row, layer as i64, head, 5, key];
                    if (key as usize) < tokens().padding(row as usize) {
                        assert!(norms.at(&index).is_err());
                        continue;
                    }
                    let vector = own.get(head).get(key);
                    let norm = vector.norm().double_value(&[]);
                    near(norms.at(&index).unwrap(), norm, 1e-12, index);
                    let share = vector.dot(&sum).double_value(&[]) / squared;
                    near(shares.at(&index).unwrap(), share, 1e-10, index);
                    total += shares.at(&index).unwrap();
                }
                near(total, 1.0, 1e-10, (layer, row));
            }
        }
    }
}

#[test]
fn values_of_one_length_leave_attention_as_it_is() {
    // Every value is the bias: the same vector at every token.
    let biased = models(Kind::Double).remove(1);
    let alike = biased.with_weights(|name, w| {
        Ok(if name.contains("v_proj.weight") { w.zeros_like() } else { w.shallow_clone() })
    });
    let alike = alike.unwrap();
    let cache = recorded(&alike, &tokens());
    let weighted = value_weighted_attention(&alike, &cache).unwrap();
    let patterns = attention_patterns(&cache).unwrap();
    let mut lengths = HashMap::new();
    for (index, value) in cells(&weighted) {
        let ratio = value / patterns.values[index.as_slice()];
        let length = *lengths.entry(index[1..3].to_vec()).or_insert(ratio);
        near(ratio, length, 1e-10 * length, index);
    }
    assert_eq!(lengths.len(), 3 * 4);
}

#[test]
fn attribution_by_token_adds_up_to_that_by_head() {
    for model in models(Kind::Double) {
        let cache = recorded(&model, &tokens());
        for metric in [metric(), metric().at(1), metric().at(vec![4, 0, 2])] {
            let by_token = token_attribution(&model, &cache, &metric).unwrap();
            let by_head = head_attribution(&model, &cache, &metric).unwrap();
            for (index, value) in cells(&by_head) {
                let mut own = by_token.clone();
                for (axis, i) in [Axis::Batch, Axis::Layer, Axis::Head].into_iter().zip(index) {
                    own = own.select(axis, i as i64).unwrap();
                }
                let sum: f64 = cells(&own).iter().map(|(_, value)| value).sum();
                near(sum, value, 1e-10, &own);
            }
        }
    }
    let model = &models(Kind::Double)[0];
    let log_prob = token_attribution(model, &recorded(model, &tokens()), &Metric::log_prob(3));
    says(log_prob, &["log_prob", "not linear"]);
}
