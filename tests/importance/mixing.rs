//! Rollout and ALTI: rows that sum to 1, matrices known by hand.

use super::*;

/// Every method that mixes.
fn all(model: &Model, cache: &Cache) -> [Mixing; 3] {
    [
        attention_rollout(cache).unwrap(),
        value_weighted_rollout(model, cache).unwrap(),
        alti(model, cache).unwrap(),
    ]
}

#[test]
fn rows_of_every_layer_and_of_their_product_sum_to_one_over_earlier_tokens() {
    for model in models(Kind::Double) {
        let cache = recorded(&model, &tokens());
        for mixing in all(&model, &cache) {
            for grid in [&mixing.layers, &mixing.rollout] {
                assert_eq!(grid.shape(), [3, 3, 6, 6]);
                let mut sums = HashMap::new();
                for (index, value) in cells(grid) {
                    assert!(index[3] <= index[2] && value >= 0.0, "{mixing:?} at {index:?}");
                    *sums.entry(index[..3].to_vec()).or_insert(0.0) += value;
                }
                // Each row's own queries, in three layers.
                assert_eq!(sums.len(), 3 * (6 + 3 + 4));
                sums.into_iter().for_each(|(index, sum)| near(sum, 1.0, 1e-12, index));
                let later = grid.values.indexed_iter().filter(|(i, _)| i[3] > i[2]);
                assert!(later.into_iter().all(|(_, value)| *value == 0.0), "after the query");
            }
        }
    }
}

#[test]
fn the_product_is_that_of_the_layers_and_a_position_reads_one_row_of_it() {
    let model = &models(Kind::Double)[0];
    let one = tokens().row(0).unwrap();
    for mixing in all(model, &recorded(model, &one)) {
        let layer = |grid: &Grid, l: usize| {
            let flat: Vec<f64> =
                grid.values.index_axis(ndarray_axis(), l).iter().copied().collect();
            Tensor::from_slice(&flat).view([6, 6])
        };
        let mut product = layer(&mixing.layers, 0);
        for l in 1..3 {
            product = layer(&mixing.layers, l).matmul(&product);
            assert!(distance(&layer(&mixing.rollout, l), &product) < 1e-12);
        }
        let read = mixing.at(3).unwrap();
        assert_eq!((read.axes[0].axis, read.axes[1].axis), (Axis::Layer, Axis::Pos));
        assert_eq!(cells(&read).len(), 3 * 4);
        for (index, value) in cells(&read) {
            assert_eq!(value, mixing.rollout.at(&[index[0] as i64, 3, index[1] as i64]).unwrap());
        }
    }
}

fn ndarray_axis() -> thalweg::ndarray::Axis {
    thalweg::ndarray::Axis(0)
}

#[test]
fn a_padded_batch_mixes_as_its_rows_alone() {
    for model in models(Kind::Double) {
        let together = all(&model, &recorded(&model, &tokens()));
        for row in 0..3 {
            let own = tokens().row(row).unwrap();
            let padding = tokens().padding(row);
            let alone = all(&model, &recorded(&model, &own));
            for (together, alone) in together.iter().zip(&alone) {
                let (whole, own) = (together.at(-1).unwrap(), alone.at(-1).unwrap());
                for (index, value) in cells(&own) {
                    let at = [row as i64, index[0] as i64, (index[1] + padding) as i64];
                    near(whole.at(&at).unwrap(), value, 1e-12, (row, index));
                }
            }
        }
    }
}

#[test]
fn heads_that_look_at_themselves_alone_leave_the_identity() {
    let model = &models(Kind::Double)[0];
    let one = tokens().row(0).unwrap();
    let own = Intervention::set(&Tensor::eye(6, (Kind::Double, Device::Cpu)));
    let plan = Plan::new().intervene(Point::Pattern, own).cache(mixing_sites());
    let cache = model.run(&one, &plan).unwrap().cache;
    for mixing in all(model, &cache) {
        for (index, value) in cells(&mixing.rollout) {
            near(value, f64::from(index[1] == index[2]), 1e-12, (&mixing, index));
        }
    }
}

#[test]
fn a_model_whose_heads_write_nothing_keeps_every_token_where_it_is() {
    let plain = models(Kind::Double).remove(0);
    let silent = plain.with_weights(|name, w| {
        Ok(if name.contains("v_proj") { w.zeros_like() } else { w.shallow_clone() })
    });
    let silent = silent.unwrap();
    let cache = recorded(&silent, &tokens());
    for mixing in [value_weighted_rollout(&silent, &cache), alti(&silent, &cache)] {
        for (index, value) in cells(&mixing.unwrap().rollout) {
            near(value, f64::from(index[2] == index[3]), 1e-12, index);
        }
    }
    // Attention goes on looking about, and rollout takes it at its word.
    let rollout = attention_rollout(&cache).unwrap().rollout;
    assert!(rollout.at(&[0, 0, 5, 0]).unwrap() > 0.01);
}

#[test]
fn contributions_without_a_dimension_in_common_have_exactly_their_lengths_as_shares() {
    // Layer 0 of the induction model writes tokens one-hot beside the stream's own two ones.
    let model = induction_model((8.0, 14.0));
    let tokens = crate::induction_model::prompt(&model);
    let cache = recorded(&model, &tokens);
    let shares = alti(&model, &cache).unwrap().layers;
    let pattern = attention_pattern(&cache, 0).unwrap();
    let written = 1.0 / (2.0 / model.config().d_model as f64 + model.config().eps).sqrt();
    for (index, weight) in cells(&pattern) {
        let (query, key) = (index[1], index[2]);
        let stays = if query == key { 2.0 } else { 0.0 };
        let expected = (weight * written + stays) / (written + 2.0);
        let found = shares.at(&[0, query as i64, key as i64]).unwrap();
        near(found, expected, 1e-12, (query, key));
    }
}

#[test]
fn a_prompt_too_long_for_one_go_is_mixed_as_its_beginning_and_by_hand_at_its_end() {
    let model = induction_model((8.0, 14.0));
    let ids: Vec<i64> = (0..660).map(|at| (at * at + at / 7) % 13).collect();
    let [long, short] = [660, 6].map(|n| Tokens::from_ids(&[ids[..n].to_vec()]).unwrap());
    let cache = recorded(&model, &long);
    let shares = alti(&model, &cache).unwrap();
    for (index, value) in cells(&alti(&model, &recorded(&model, &short)).unwrap().rollout) {
        let at: Vec<i64> = index.iter().map(|i| *i as i64).collect();
        near(shares.rollout.at(&at).unwrap(), value, 1e-12, index);
    }
    let last = 659;
    let site = |point: Point| cache.get(point.at(1)).unwrap().get(0).get(last);
    let carried = attention_vectors(&model, &cache, 1, -1).unwrap().get(0).get(0); // [Key, DModel]
    let l1 = |x: &Tensor| x.abs().sum(None).double_value(&[]);
    let (before, after) = (site(Point::ResidPre), site(Point::ResidMid));
    let near_to = |key: i64| {
        let own = if key == last { before.shallow_clone() } else { before.zeros_like() };
        (l1(&after) - l1(&(&after - carried.get(key) - own))).max(0.0)
    };
    let all: Vec<f64> = (0..660).map(near_to).collect();
    let sum: f64 = all.iter().sum();
    for key in [0, 1, 300, 657, 658, 659] {
        let found = shares.layers.at(&[1, last, key]).unwrap();
        near(found, all[key as usize] / sum, 1e-12, key);
    }
}

#[test]
fn what_a_cache_lacks_is_named() {
    let model = &models(Kind::Double)[0];
    let cache = model.run(&tokens(), &Plan::new().cache(Point::Pattern)).unwrap().cache;
    says(alti(model, &cache), &["ALTI", "mixing_sites()", "blocks.0.attn.hook_v"]);
    says(value_weighted_attention(model, &cache), &["mixing_sites()", "hook_v"]);
    says(attention_rollout(&cache).unwrap().at(5), &["row 1 has 3 tokens"]);
}
