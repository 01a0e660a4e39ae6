//! Against loops over the definitions in Python: `data/golden/analysis/importance.py`.

use super::*;

#[test]
fn every_method_gives_the_numbers_of_the_reference_in_a_padded_batch() {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/data/golden");
    let file = format!("{data}/analysis/importance.safetensors");
    let mut stored: HashMap<String, Tensor> =
        Tensor::read_safetensors(file).unwrap().into_iter().collect();
    for name in ["gqa-llama3", "mqa-linear-biases"] {
        let model = Model::load_on(format!("{data}/{name}"), Device::Cpu, Kind::Double).unwrap();
        let mut take = |row: usize, what: &str| {
            stored.remove(&format!("{name}/{row}/{what}")).unwrap_or_else(|| panic!("{what}"))
        };
        let ids = [0, 1].map(|row| Vec::<i64>::try_from(take(row, "ids")).unwrap());
        let tokens = Tokens::from_ids(&ids).unwrap();
        assert!(tokens.is_padded());
        let cache = recorded(&model, &tokens);
        let metric = metric();
        let cut = |how| occlusion(&model, &tokens, &metric, &how).unwrap();
        for (what, grid) in [
            ("norms", value_weighted_attention(&model, &cache).unwrap()),
            ("shares", contribution_weights(&model, &cache).unwrap()),
            ("direct", token_attribution(&model, &cache, &metric).unwrap()),
            ("rollout", attention_rollout(&cache).unwrap().rollout),
            ("normed rollout", value_weighted_rollout(&model, &cache).unwrap().rollout),
            ("alti", alti(&model, &cache).unwrap().rollout),
            ("gradient x input", gradient_times_input(&model, &tokens, &metric, None).unwrap()),
            ("gradient norm", gradient_norm(&model, &tokens, &metric).unwrap()),
            ("removed", cut(Occlusion::AttentionCut)),
            ("replaced", cut(Occlusion::Token(7))),
        ] {
            for (row, own) in ids.iter().enumerate() {
                let theirs = take(row, what);
                let largest = theirs.abs().max().double_value(&[]);
                let padding = tokens.padding(row);
                let ours = grid.select(Axis::Batch, row as i64).unwrap();
                let mut compared = 0;
                for (index, value) in cells(&ours) {
                    let place = |(at, i): (usize, &usize)| match ours.axes[at].axis {
                        Axis::Pos | Axis::Query | Axis::Key => (i - padding) as i64,
                        _ => *i as i64,
                    };
                    let at: Vec<i64> = index.iter().enumerate().map(place).collect();
                    let apart = (value - theirs.double_value(&at)).abs() / largest;
                    assert!(apart < 1e-11, "{name}, row {row}, {what} at {at:?}: {apart}");
                    compared += 1;
                }
                let n = own.len();
                let least = if theirs.dim() == 1 { n - 1 } else { theirs.size()[0] as usize * n };
                assert!(compared >= least, "{what}: {compared} cells");
            }
        }
    }
    assert!(stored.is_empty(), "{:?}", stored.keys());
}
