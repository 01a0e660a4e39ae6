//! Every function of TransformerLens' patching module, value by value, on a random Llama with
//! grouped queries. `data/golden/make_golden.py` makes the reference.

use std::collections::BTreeMap;

use thalweg::prelude::*;

/// The reference, the pair it was made with, and the metric.
struct Golden {
    stored: BTreeMap<String, Tensor>,
    pair: Patching,
    metric: Metric,
}

impl Golden {
    fn new() -> Golden {
        let data = concat!(env!("CARGO_MANIFEST_DIR"), "/data/golden/gqa-llama3");
        let stored: BTreeMap<String, Tensor> =
            Tensor::read_safetensors(format!("{data}.patching.safetensors"))
                .unwrap()
                .into_iter()
                .collect();
        let model = Model::load_on(data, Device::Cpu, Kind::Double).unwrap();
        let tokens = |name: &str| {
            let rows: Vec<Vec<i64>> = Vec::try_from(&stored[name]).unwrap();
            Tokens::from_ids(&rows).unwrap()
        };
        let ids = |name: &str| Vec::<i64>::try_from(&stored[name]).unwrap();
        let pair = Patching::new(&model, &tokens("clean"), &tokens("corrupt")).unwrap();
        let metric = Metric::logit_diff(ids("right"), ids("wrong"));
        Golden { stored, pair, metric }
    }

    fn grid(&self, point: Point, by: &[Axis]) -> Grid {
        self.pair.grid(point, by, &self.metric).unwrap()
    }

    /// Compares with a stored grid whose axes are ours.
    fn compare(&mut self, name: &str, ours: &Grid) {
        let theirs = self.stored.remove(&format!("get_act_patch_{name}")).expect(name);
        let shape: Vec<i64> = ours.shape().iter().map(|n| *n as i64).collect();
        assert_eq!(theirs.size(), shape, "{name}");
        for (index, value) in ours.present() {
            let at: Vec<i64> = index.iter().map(|i| *i as i64).collect();
            let theirs = theirs.double_value(&at);
            assert!((value - theirs).abs() < 1e-5, "{name} at {index:?}: {value}, there {theirs}");
        }
    }
}

#[test]
fn every_function_of_the_patching_module_of_transformer_lens_gives_our_numbers() {
    use Axis::{Head, Key, KvHead, Pos, Query};
    let mut golden = Golden::new();
    for (name, point, by) in [
        ("resid_pre", Point::ResidPre, vec![Pos]),
        ("resid_mid", Point::ResidMid, vec![Pos]),
        ("attn_out", Point::AttnOut, vec![Pos]),
        ("mlp_out", Point::MlpOut, vec![Pos]),
        ("attn_head_out_all_pos", Point::Z, vec![Head]),
        ("attn_head_q_all_pos", Point::Q, vec![Head]),
        ("attn_head_k_all_pos", Point::K, vec![KvHead]),
        ("attn_head_v_all_pos", Point::V, vec![KvHead]),
        ("attn_head_pattern_all_pos", Point::Pattern, vec![Head]),
        ("attn_head_out_by_pos", Point::Z, vec![Pos, Head]),
        ("attn_head_q_by_pos", Point::Q, vec![Pos, Head]),
        ("attn_head_k_by_pos", Point::K, vec![Pos, KvHead]),
        ("attn_head_v_by_pos", Point::V, vec![Pos, KvHead]),
        ("attn_head_pattern_by_pos", Point::Pattern, vec![Head, Query]),
        ("attn_head_pattern_dest_src_pos", Point::Pattern, vec![Head, Query, Key]),
    ] {
        let ours = golden.grid(point, &by);
        golden.compare(name, &ours);
    }
    let every = golden.pair.block_every(&golden.metric).unwrap();
    golden.compare("block_every", &every);
    golden.compare_heads("attn_head_all_pos_every", |pair, m| pair.head_all_pos_every(m).unwrap());
    golden.compare_heads("attn_head_by_pos_every", |pair, m| pair.head_by_pos_every(m).unwrap());
    let left: Vec<&String> =
        golden.stored.keys().filter(|name| name.starts_with("get_act_patch_")).collect();
    assert!(left.is_empty(), "not compared: {left:?}");
}

impl Golden {
    /// There the rows of K and V hold the key/value heads first, then zeros; here each query head
    /// has the number of its group.
    fn compare_heads(&mut self, name: &str, grid: impl Fn(&Patching, &Metric) -> Grid) {
        let ours = grid(&self.pair, &self.metric);
        assert_eq!(ours.labels(Axis::Series).unwrap(), ["Z", "Q", "K", "V", "Pattern"]);
        let theirs = self.stored.remove(&format!("get_act_patch_{name}")).expect(name);
        let group = 2;
        for (index, value) in ours.present() {
            let mut at: Vec<i64> = index.iter().map(|i| *i as i64).collect();
            if matches!(at[0], 2 | 3) {
                *at.last_mut().unwrap() /= group;
            }
            let theirs = theirs.double_value(&at);
            assert!((value - theirs).abs() < 1e-5, "{name} at {index:?}: {value}, there {theirs}");
        }
        assert_eq!(ours.present().count(), theirs.numel());
    }
}

#[test]
fn the_baselines_are_those_of_the_reference() {
    let golden = Golden::new();
    let grid = golden.grid(Point::MlpOut, &[]);
    for run in ["clean", "corrupt"] {
        let theirs = golden.stored[&format!("{run}_metric")].double_value(&[]);
        let noted = &grid.provenance[&format!("{run} run")];
        let ours: f64 = noted.split(' ').next().unwrap().parse().unwrap();
        assert!((ours - theirs).abs() < 2e-6, "{run}: {noted}, there {theirs}");
        assert!(noted.contains("mean of 2 prompts"));
    }
}
