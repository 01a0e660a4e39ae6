//! Interchange interventions put the source's part of a vector into the base, and no more.

use thalweg::prelude::*;
use thalweg::rng::Rng;
use thalweg::{CausalModel, Config, InterchangePairs, Subspace};

use crate::support::{config, distance, model, model_of, same, says};

fn pairs() -> InterchangePairs {
    let base = Tokens::from_ids(&[vec![1, 4, 9, 2, 7], vec![3, 3, 8], vec![11, 0, 5, 6]]).unwrap();
    let source = Tokens::from_ids(&[vec![5, 2], vec![7, 7, 1, 0], vec![12, 20, 3]]).unwrap();
    let items = [["a", "b"], ["b", "c"], ["d", "d"]];
    let items = items.iter().map(|pair| pair.map(String::from).to_vec()).collect();
    InterchangePairs::new(base, source, vec![1, 2, 3], items).unwrap()
}

fn at(k: usize, site: Site, d: usize) -> Subspace {
    Subspace::random(site, -1, (k, d), 5).unwrap()
}

/// Logits at the last token of the bases, as they are and with the sources' vectors at that token.
fn ends(model: &Model, site: Site) -> [Tensor; 2] {
    let pairs = pairs();
    let plain = model.run(&pairs.base, &Plan::new().logits_at(-1)).unwrap().logits.squeeze_dim(1);
    let vectors = at(0, site, 12).vectors(model, &pairs.source).unwrap();
    let patch = Intervention::custom("patch", {
        let held = std::sync::Mutex::new(vectors);
        move |x| Ok(held.lock().unwrap().unsqueeze(1).expand_as(x))
    });
    let plan = Plan::new().intervene(site, patch.pos(-1)).logits_at(-1);
    [plain, model.run(&pairs.base, &plan).unwrap().logits.squeeze_dim(1)]
}

#[test]
fn the_whole_space_is_a_patch_of_the_whole_vector_and_the_empty_one_changes_nothing() {
    let model = model();
    for site in [Point::ResidPost.at(0), Point::MlpOut.at(1), Point::AttnOut.at(0)] {
        let [plain, patched] = ends(&model, site);
        assert!(same(&at(0, site, 12).logits(&model, &pairs()).unwrap(), &plain));
        assert!(distance(&at(12, site, 12).logits(&model, &pairs()).unwrap(), &patched) < 1e-12);
        assert!(distance(&patched, &plain) > 1e-3, "the patch does something");
    }
}

#[test]
fn a_source_that_is_the_base_changes_nothing_to_the_bit() {
    let model = model();
    let pairs = InterchangePairs { source: pairs().base, ..pairs() };
    let plain = model.run(&pairs.base, &Plan::new().logits_at(-1)).unwrap().logits.squeeze_dim(1);
    for k in [1, 5, 12] {
        let subspace = at(k, Point::ResidPost.at(0), 12);
        assert!(same(&subspace.logits(&model, &pairs).unwrap(), &plain), "k = {k}");
    }
}

#[test]
fn the_component_in_the_subspace_is_the_source_s_and_the_rest_the_base_s() {
    let (model, pairs, site) = (model(), pairs(), Point::ResidMid.at(1));
    let subspace = at(3, site, 12);
    let rows = &subspace.rows;
    let eye = Tensor::eye(3, (Kind::Double, Device::Cpu));
    assert!((rows.matmul(&rows.tr()) - eye).abs().max().double_value(&[]) < 1e-10);
    let source = subspace.vectors(&model, &pairs.source).unwrap();
    let plan = Plan::new().intervene(site, subspace.intervention(&source)).cache(site);
    let mixed = model.run(&pairs.base, &plan).unwrap().cache.get(site).unwrap();
    let base = model.run(&pairs.base, &Plan::new().cache(site)).unwrap().cache.get(site).unwrap();
    assert!(same(&mixed.narrow(1, 0, 4), &base.narrow(1, 0, 4)), "other tokens stay");
    let [mixed, base] = [mixed, base].map(|x| x.select(1, 4));
    assert!(distance(&mixed.matmul(&rows.tr()), &source.matmul(&rows.tr())) < 1e-12);
    let outside = |x: &Tensor| x - x.matmul(&rows.tr()).matmul(rows);
    assert!(distance(&outside(&mixed), &outside(&base)) < 1e-12);
}

#[test]
fn the_part_that_the_output_map_cannot_read_changes_nothing() {
    let model = model();
    let site = Point::MlpPost.at(1); // 20 neurons, read by W_down into 12 dimensions
    let subspace = at(6, site, 20);
    let (read, dormant, share) = subspace.split(&model).unwrap();
    assert!(0.1 < share && share < 0.9, "{share}");
    let pairs = pairs();
    let plain = at(0, site, 20).logits(&model, &pairs).unwrap();
    assert!(distance(&dormant.logits(&model, &pairs).unwrap(), &plain) < 1e-12);
    assert!(distance(&read.logits(&model, &pairs).unwrap(), &plain) > 1e-3);
    let down = model.weight(W::Out, 1).unwrap();
    assert!(dormant.rows.matmul(&down).abs().max().double_value(&[]) < 1e-12);
    let whole = at(20, site, 20).split(&model).unwrap();
    assert_eq!((whole.0.k(), whole.1.k()), (12, 8));
    assert!((whole.2 - 0.4).abs() < 1e-12);
    // Heads: 24 entries read into 12 dimensions.
    let (read, dormant, _) = at(24, Point::Z.at(0), 24).split(&model).unwrap();
    assert_eq!((read.k(), dormant.k()), (12, 12));
    let plain = at(0, Point::Z.at(0), 24).logits(&model, &pairs).unwrap();
    assert!(distance(&dormant.logits(&model, &pairs).unwrap(), &plain) < 1e-12);
    says(at(2, Point::ResidPost.at(0), 12).split(&model), &["several maps read it", "MlpPost"]);
    let square = model_of(Config { n_heads: 2, n_kv_heads: 2, ..config() }, Kind::Double, 1);
    says(at(2, Point::Z.at(0), 12).split(&square), &["W_O has rank 12 of 12"]);
}

#[test]
fn a_split_keeps_lexical_items_apart() {
    let mut rng = Rng::new(1);
    let items: Vec<Vec<String>> =
        (0..200).map(|_| (0..2).map(|_| format!("noun {}", rng.below(12))).collect()).collect();
    let rows = Tokens::from_ids(&vec![vec![1]; 200]).unwrap();
    let all = InterchangePairs::new(rows.clone(), rows, (0..200).collect(), items).unwrap();
    let (a, b) = all.split(0.5, 3).unwrap();
    let words = |p: &InterchangePairs| {
        p.items.iter().flatten().cloned().collect::<std::collections::BTreeSet<_>>()
    };
    assert!(words(&a).is_disjoint(&words(&b)));
    assert!(a.len() + b.len() < 200 && a.len() > 20 && b.len() > 20);
    assert!(a.labels.iter().zip(&a.items).all(|(i, own)| all.items[*i as usize] == *own));
    assert_ne!(all.split(0.5, 4).unwrap().0.labels, a.labels);
    let shuffled = all.shuffled(1);
    let sorted = |p: &InterchangePairs| {
        let mut l = p.labels.clone();
        l.sort();
        l
    };
    assert_ne!(shuffled.labels, all.labels);
    assert_eq!(sorted(&shuffled), sorted(&all));
    says(all.split(0.0, 1), &["0 of 12 items on one side"]);
}

#[test]
fn what_does_not_fit_is_named() {
    let (model, site) = (model(), Point::ResidPost.at(0));
    says(at(2, site, 13).logits(&model, &pairs()), &["has 12 entries, the subspace lies in 13"]);
    says(at(2, Point::Pattern.at(0), 12).iia(&model, &pairs()), &["[Batch, Head, Query, Key]"]);
    says(at(2, Point::ResidPost.at(4), 12).iia(&model, &pairs()), &["layers 0..1"]);
    let twice = Tensor::ones([2, 12], (Kind::Double, Device::Cpu));
    says(Subspace::new(site, -1, &twice), &["2 rows depend on each other"]);
    says(Subspace::random(site, -1, (13, 12), 1), &["13 rows of 12 entries"]);
    says(Subspace::new(site, -1, &twice.get(0)), &["expected [k, D]"]);
    let p = pairs();
    says(
        InterchangePairs::new(p.base, p.source, vec![1], p.items),
        &["3 bases, 3 sources, 1 labels"],
    );
    let far = Subspace::random(site, 9, (1, 12), 1).unwrap();
    says(far.iia(&model, &pairs()), &["no position 9"]);
}

#[test]
fn a_role_says_where_in_base_and_source() {
    let (model, site, plain) = (model(), Point::ResidPost.at(0), pairs());
    let role = |tokens: &Tokens, places| tokens.clone().with_role("it", places).unwrap();
    let base = role(&plain.base, vec![1, 0, 2]);
    let source = role(&plain.source, vec![0, 3, 1]);
    let pairs = InterchangePairs { base, source, ..plain };
    let whole = Subspace::random(site, Position::Role("it".into()), (12, 12), 1).unwrap();
    let vectors = whole.vectors(&model, &pairs.source).unwrap();
    let plan = Plan::new().intervene(site, whole.intervention(&vectors)).cache(site);
    let mixed = model.run(&pairs.base, &plan).unwrap().cache.get(site).unwrap();
    let own = model.run(&pairs.source, &Plan::new().cache(site)).unwrap().cache.get(site).unwrap();
    for (row, (to, from)) in [(1, 0), (0, 3), (2, 1)].into_iter().enumerate() {
        let [to, from] =
            [(&pairs.base, to), (&pairs.source, from)].map(|(t, at)| t.padding(row) + at);
        let [a, b] = [(&mixed, to), (&own, from)].map(|(x, at)| x.get(row as i64).get(at as i64));
        assert!(distance(&a, &b) < 1e-12, "row {row}");
    }
}

#[test]
fn a_causal_model_gives_what_follows_from_its_variables() {
    let model = CausalModel::new(&["x", "y", "z"])
        .unwrap()
        .variable("equal", |v| Ok(i64::from(v.get("x")? == v.get("y")?)))
        .unwrap()
        .variable("answer", |v| Ok(v.get("equal")? * 10 + v.get("z")?))
        .unwrap();
    assert_eq!(model.output(&[1, 1, 3]).unwrap(), 13);
    assert_eq!(model.interchange(&[1, 1, 3], &[1, 2, 4], &["equal"]).unwrap(), 3);
    assert_eq!(model.interchange(&[1, 1, 3], &[1, 2, 4], &[]).unwrap(), 13);
    assert_eq!(model.interchange(&[1, 1, 3], &[1, 2, 4], &["answer"]).unwrap(), 4);
    assert_eq!(format!("{model:?}"), "CausalModel(x, y, z -> equal -> answer)");
    says(model.output(&[1]), &["1 inputs", "expected 3"]);
    says(model.interchange(&[1, 1, 3], &[1, 2, 4], &["z"]), &["no variable \"z\""]);
    says(CausalModel::new(&["x", "x"]), &["named twice"]);
    let lost = CausalModel::new(&["x"]).unwrap().variable("a", |v| v.get("b")).unwrap();
    says(lost.output(&[1]), &["variable \"a\"", "no value \"b\": there are x"]);
    says(CausalModel::new(&["x"]).unwrap().output(&[1]), &["no variables"]);
}

#[test]
fn in_a_half_model_nothing_is_rounded_before_the_end() {
    let (model, pairs, site) =
        (model_of(config(), Kind::BFloat16, 1), pairs(), Point::ResidMid.at(1));
    let subspace = at(3, site, 12);
    let source = subspace.vectors(&model, &pairs.source).unwrap();
    let plan = Plan::new().intervene(site, subspace.intervention(&source)).cache(site);
    let mixed = model.run(&pairs.base, &plan).unwrap().cache.get(site).unwrap().select(1, 4);
    let base = subspace.vectors(&model, &pairs.base).unwrap();
    let change = (source - &base).matmul(&subspace.rows.tr()).matmul(&subspace.rows);
    assert!(same(&mixed, &(base + change).to_kind(Kind::BFloat16)));
}
