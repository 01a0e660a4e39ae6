//! Factored matrices, OV and QK circuits, composition and copying: the identities they must keep.

use thalweg::prelude::*;
use thalweg::rng::Rng;
use thalweg::{
    Composition, Config, EdgePatching, FactoredMatrix, composition_effects, composition_scores,
    copying_scores, matching_scores, matching_scores_through, ov_circuit, qk_circuit,
    token_copying,
};

use super::near;
use crate::invariants::{models, others, tokens};
use crate::support::{config, distance, model_of, says, tensors};

fn normal(rng: &mut Rng, shape: [i64; 2]) -> Tensor {
    rng.normal_tensor(&shape).to_kind(Kind::Double)
}

fn factored(seed: u64, m: i64, r: i64, n: i64) -> FactoredMatrix {
    let mut rng = Rng::new(seed);
    FactoredMatrix::new(&normal(&mut rng, [m, r]), &normal(&mut rng, [r, n])).unwrap()
}

#[test]
fn the_factored_decomposition_is_that_of_the_dense_matrix() {
    for (m, r, n) in [(9, 3, 7), (8, 8, 8), (5, 7, 6)] {
        let matrix = factored(1, m, r, n);
        let (svd, dense) = (matrix.svd().unwrap(), matrix.dense());
        let (_, expected, _) = dense.svd(true, true);
        let k = r.min(m).min(n);
        assert!(distance(&svd.s.narrow(0, 0, k), &expected.narrow(0, 0, k)) < 1e-12);
        let back = (&svd.u * &svd.s).matmul(&svd.v.tr());
        assert!(distance(&back, &dense) < 1e-12);
        for vectors in [&svd.u, &svd.v] {
            let gram = vectors.tr().matmul(vectors);
            assert!(
                distance(&gram, &Tensor::eye(gram.size()[0], (Kind::Double, Device::Cpu))) < 1e-12
            );
        }
        near(matrix.norm(), dense.square().sum(None).sqrt().double_value(&[]));
        assert!(distance(&matrix.transpose().dense(), &dense.tr()) < 1e-14);
    }
}

#[test]
fn eigenvalues_of_a_b_are_those_of_b_a_and_zeros() {
    let matrix = factored(2, 9, 4, 9);
    let few = matrix.eigenvalues().unwrap();
    assert_eq!(few.len(), 4);
    let all = FactoredMatrix::new(&matrix.dense(), &Tensor::eye(9, (Kind::Double, Device::Cpu)));
    let all = all.unwrap().eigenvalues().unwrap();
    for (few, all) in few.iter().zip(&all) {
        near(few.0, all.0);
        near(few.1.abs(), all.1.abs());
    }
    assert!(all[4..].iter().all(|(re, im)| re.hypot(*im) < 1e-12));
    near(matrix.trace().unwrap(), few.iter().map(|(re, _)| re).sum());
    assert!(distance(&matrix.diagonal().unwrap(), &matrix.dense().diag(0)) < 1e-13);
}

#[test]
fn products_of_factored_matrices_are_those_of_dense_ones() {
    let (a, b) = (factored(3, 6, 2, 8), factored(4, 8, 5, 7));
    let product = a.times(&b).unwrap();
    assert_eq!((product.shape(), product.inner()), ((6, 7), 2));
    assert!(distance(&product.dense(), &a.dense().matmul(&b.dense())) < 1e-13);
    let back = b.transpose().times(&a.transpose()).unwrap();
    assert!(distance(&back.dense(), &product.dense().tr()) < 1e-13);
    let x = Tensor::ones([3, 2, 6], (Kind::Float, Device::Cpu));
    assert!(distance(&a.apply(&x).unwrap(), &x.to_kind(Kind::Double).matmul(&a.dense())) < 1e-13);
    says(a.times(&a), &["6 x 8", "agree"]);
    says(a.eigenvalues(), &["6 x 8", "square"]);
    says(a.apply(&Tensor::from(1.0)), &["6"]);
    says(FactoredMatrix::new(&a.dense(), &a.dense()), &["[6, 8]", "[m, r]"]);
}

/// Random models without biases: grouped queries, several rotations.
fn plain() -> Vec<Model> {
    use thalweg::{Rope, RopeScaling};
    let base = Config { n_layers: 3, ..config() };
    let llama = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original: 16.0,
    };
    let one = Config { n_kv_heads: 1, rope: Rope { theta: 50.0, scaling: llama }, ..base.clone() };
    [base, one].map(|config| model_of(config, Kind::Double, 3)).into()
}

#[test]
fn the_qk_circuit_at_an_offset_gives_the_scores_at_that_offset() {
    for model in plain() {
        let prompt = tokens().row(0).unwrap();
        let plan = Plan::new().cache([Point::Ln1Normalized, Point::Scores]);
        let cache = model.run(&prompt, &plan).unwrap().cache;
        let root = (model.config().d_head as f64).sqrt();
        for (layer, head) in [(0, 0), (1, 3), (2, 1)] {
            let x = cache.get(Point::Ln1Normalized.at(layer)).unwrap().get(0);
            let scores = cache.get(Point::Scores.at(layer)).unwrap().get(0).get(head as i64);
            for (i, j) in [(0, 0), (5, 5), (5, 4), (5, 0), (3, 1)] {
                let qk = qk_circuit(&model, layer, head, i - j).unwrap();
                let read = qk.apply(&x.get(i).unsqueeze(0)).unwrap().squeeze_dim(0);
                near(read.dot(&x.get(j)).double_value(&[]) / root, scores.double_value(&[i, j]));
            }
        }
    }
    let model = &plain()[0];
    says(qk_circuit(model, 3, 0, 0), &["layer 3"]);
    says(ov_circuit(model, 2, 4), &["no head 4", "heads 0..3"]);
}

#[test]
fn the_ov_circuit_writes_what_the_head_writes_for_each_token_it_attends_to() {
    for model in plain() {
        let prompt = tokens().row(0).unwrap();
        let plan = Plan::new().cache([Point::Ln1Normalized, Point::Pattern, Point::HeadResult]);
        let cache = model.run(&prompt, &plan).unwrap().cache;
        for (layer, head) in [(0, 1), (1, 2), (2, 3)] {
            let get = |point: Point| cache.get(point.at(layer)).unwrap().get(0);
            let written =
                ov_circuit(&model, layer, head).unwrap().apply(&get(Point::Ln1Normalized));
            let mixed = get(Point::Pattern).get(head as i64).matmul(&written.unwrap());
            let expected = get(Point::HeadResult).select(1, head as i64);
            assert!(distance(&mixed, &expected) < 1e-12);
        }
    }
}

/// A model of one layer and one head as wide as the stream, whose values and output make the OV
/// circuit, or whose queries and keys make the QK circuit, `c` times the identity.
fn identity(c: f64, queries: bool) -> Model {
    let config = Config { n_layers: 1, n_heads: 1, n_kv_heads: 1, d_head: 12, ..config() };
    let mut all = tensors(&config, Kind::Double, 6);
    let eye = Tensor::eye(12, (Kind::Double, Device::Cpu));
    let (first, second) = if queries { ("q_proj", "k_proj") } else { ("v_proj", "o_proj") };
    for (part, value) in [(first, &eye * c), (second, eye.shallow_clone())] {
        all.insert(format!("model.layers.0.self_attn.{part}.weight"), value);
    }
    all.insert(
        "model.layers.0.input_layernorm.weight".into(),
        Tensor::ones([12], (Kind::Double, Device::Cpu)),
    );
    all.insert("model.norm.weight".into(), Tensor::ones([12], (Kind::Double, Device::Cpu)));
    let embed = all["model.embed_tokens.weight"].shallow_clone();
    all.insert("lm_head.weight".into(), embed);
    Model::from_parts(config, all, None).unwrap()
}

#[test]
fn a_head_that_writes_what_it_reads_copies_and_one_that_negates_it_suppresses() {
    for (c, copied) in [(0.7, 1.0), (-2.0, -1.0)] {
        near(copying_scores(&identity(c, false)).unwrap().values[[0, 0]], copied);
        near(matching_scores(&identity(c, true), 0).unwrap().values[[0, 0]], copied);
        let all: Vec<i64> = (0..23).collect();
        let shares = token_copying(&identity(c, false), &all, 5).unwrap();
        let [more, less] = if c > 0.0 {
            [&shares.copied, &shares.suppressed]
        } else {
            [&shares.suppressed, &shares.copied]
        };
        assert!(more.values[[0, 0]] > 0.9 && less.values[[0, 0]] == 0.0, "{shares:?}");
        near(shares.chance, 5.0 / 23.0);
    }
    let all: Vec<i64> = (0..22).collect();
    let silent = token_copying(&identity(0.0, false), &all, 11).unwrap();
    assert_eq!((silent.copied.values[[0, 0]], silent.suppressed.values[[0, 0]]), (0.0, 0.0));
    let model = identity(1.0, false);
    says(token_copying(&model, &[1, 2, 3], 2), &["2 highest of 3"]);
    says(token_copying(&model, &[1, 23], 1), &["23"]);
}

#[test]
fn copying_and_matching_are_the_eigenvalues_of_the_dense_matrices() {
    let model = &plain()[1];
    let share = |dense: Tensor| {
        let eye = Tensor::eye(dense.size()[0], (Kind::Double, Device::Cpu));
        let values = FactoredMatrix::new(&dense, &eye).unwrap().eigenvalues().unwrap();
        let size: f64 = values.iter().map(|(re, im)| re.hypot(*im)).sum();
        values.iter().map(|(re, _)| re).sum::<f64>() / size
    };
    let embed = model.weight(W::E, 0).unwrap();
    let unembed = model.weight_folded(W::U, 0).unwrap();
    let through = matching_scores_through(model, (0, 2), 1).unwrap();
    assert!(!through.exists(&[0, 0]));
    let before = ov_circuit(model, 0, 2).unwrap().dense();
    for (layer, head) in [(1, 1), (2, 3)] {
        let at = [layer as i64, head as i64];
        let ov = ov_circuit(model, layer, head).unwrap().dense();
        let qk = qk_circuit(model, layer, head, 1).unwrap().dense();
        let copying = copying_scores(model).unwrap().at(&at).unwrap();
        assert!((copying - share(embed.matmul(&ov).matmul(&unembed))).abs() < 1e-9);
        let matching = matching_scores(model, 1).unwrap().at(&at).unwrap();
        assert!((matching - share(embed.matmul(&qk).matmul(&embed.tr()))).abs() < 1e-9);
        let dense = embed.matmul(&qk).matmul(&before.tr()).matmul(&embed.tr());
        assert!((through.at(&at).unwrap() - share(dense)).abs() < 1e-9);
    }
}

#[test]
fn composition_is_the_norm_of_the_dense_product_over_the_norms() {
    let norm = |x: &Tensor| x.square().sum(None).sqrt().double_value(&[]);
    for model in plain() {
        let heads = model.config().n_heads;
        for (kind, offset) in
            [(Composition::Q, 0), (Composition::K, 0), (Composition::V, 0), (Composition::K, 2)]
        {
            let found = composition_scores(&model, kind, offset, 5).unwrap();
            let mean = found.random.values.sum() / found.random.values.len() as f64;
            let spread = found.random.values.std(1.0);
            for (from, to) in [((0, 0), (1, 3)), ((0, 3), (2, 0)), ((1, 1), (2, 2))] {
                let a = ov_circuit(&model, from.0, from.1).unwrap().dense();
                let b = match kind {
                    Composition::V => ov_circuit(&model, to.0, to.1).unwrap().dense(),
                    Composition::Q => qk_circuit(&model, to.0, to.1, offset).unwrap().dense(),
                    Composition::K => qk_circuit(&model, to.0, to.1, offset).unwrap().dense().tr(),
                };
                let expected = norm(&a.matmul(&b)) / (norm(&a) * norm(&b));
                let at = [from.0 * heads + from.1, to.0 * heads + to.1];
                near(found.scores.values[at], expected);
                near(found.z.values[at], (expected - mean) / spread);
            }
            assert!(!found.scores.exists(&[1, 2]) && !found.scores.exists(&[9, 1]));
            assert_eq!(found.scores.labels(Axis::Reader).unwrap()[11], "L2H3");
        }
    }
}

#[test]
fn random_weights_compose_as_random_factors_do() {
    let wide = Config { d_model: 32, d_head: 8, n_kv_heads: 4, ..config() };
    let found = composition_scores(&model_of(wide, Kind::Double, 8), Composition::K, 0, 1).unwrap();
    let z: Vec<f64> = found.z.present().map(|(_, z)| z).collect();
    let mean = z.iter().sum::<f64>() / z.len() as f64;
    assert!(mean.abs() < 1.0 && z.iter().all(|z| z.abs() < 5.0), "{z:?}");
    assert_eq!(found.random.shape(), [200]);
}

/// Two layers of one head each: the first writes along `to`, the second's values read along `from`.
fn directed(to: i64, from: i64) -> Model {
    let config = Config { n_heads: 1, n_kv_heads: 1, ..config() };
    let mut all = tensors(&config, Kind::Double, 9);
    let zeros = |rows, columns| Tensor::zeros([rows, columns], (Kind::Double, Device::Cpu));
    let put = |x: Tensor, row: i64, column: i64| {
        let _ = x.get(row).get(column).fill_(2.5);
        x
    };
    let name = |layer: usize, part: &str| format!("model.layers.{layer}.self_attn.{part}.weight");
    all.insert(name(0, "o_proj"), put(zeros(12, 6), to, 1));
    all.insert(name(0, "v_proj"), put(zeros(6, 12), 1, 4));
    all.insert(name(1, "v_proj"), put(zeros(6, 12), 2, from));
    all.insert(name(1, "o_proj"), put(zeros(12, 6), 7, 2));
    Model::from_parts(config, all, None).unwrap()
}

#[test]
fn orthogonal_heads_do_not_compose_and_aligned_ones_of_rank_one_do_wholly() {
    let score = |model: Model| {
        composition_scores(&model, Composition::V, 0, 0).unwrap().scores.values[[0, 1]]
    };
    assert_eq!(score(directed(3, 5)), 0.0);
    near(score(directed(3, 3)), 1.0);
}

#[test]
fn the_causal_number_of_a_composition_is_the_effect_of_one_edge() {
    let model = &models(Kind::Double)[0];
    let metric = Metric::logit_diff(5, 11);
    let patching = EdgePatching::new(model, &tokens(), &others()).unwrap();
    for (kind, readers) in [(Composition::Q, 4), (Composition::K, 2), (Composition::V, 2)] {
        let grid = composition_effects(&patching, kind, (0..2, 1..3), &metric).unwrap();
        assert_eq!(grid.shape(), [8, 2 * readers]);
        assert!(!grid.exists(&[5, 0]), "layer 1 does not write to layer 1");
        use thalweg::{Reader, Writer};
        let reader = match kind {
            Composition::Q => Reader::Query(2, 1),
            Composition::K => Reader::Key(2, 1),
            Composition::V => Reader::Value(2, 1),
        };
        let exact = patching.effects(&[(Writer::Head(1, 2), reader)], &metric).unwrap();
        let exact = exact.present().next().unwrap().1;
        near(grid.get(&["L1H2", &reader.to_string()]).unwrap(), -exact);
    }
    let backwards = composition_effects(&patching, Composition::K, (2..3, 0..1), &metric);
    says(backwards, &["comes after"]);
}
