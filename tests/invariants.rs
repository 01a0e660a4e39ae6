//! What must hold in any Llama, whatever its weights: sums, cuts, identities, attention.

use thalweg::prelude::*;
use thalweg::{Config, Rope, RopeScaling};

use crate::support::{config, distance, model_of, same};

/// Grouped queries without biases, the same with biases everywhere, many-query with tied embeddings
/// and biases of the MLP alone, and one head for each query with a stretched rotation.
pub(crate) fn models(kind: Kind) -> Vec<Model> {
    let plain = Config { n_layers: 3, ..config() };
    let biased = Config { attention_bias: true, mlp_bias: true, ..plain.clone() };
    let one_kv = Config { n_kv_heads: 1, tied: true, mlp_bias: true, ..plain.clone() };
    let rope = Rope { theta: 100.0, scaling: RopeScaling::Linear { factor: 2.0 } };
    let all_kv = Config { n_kv_heads: 4, rope, attention_bias: true, ..plain.clone() };
    let each = [plain, biased, one_kv, all_kv].into_iter().enumerate();
    each.map(|(seed, config)| model_of(config, kind, 10 + seed as u64)).collect()
}

/// Three prompts, two of them padded.
pub(crate) fn tokens() -> Tokens {
    Tokens::from_ids(&[vec![3, 1, 4, 1, 5, 9], vec![2, 6, 5], vec![20, 0, 7, 7]]).unwrap()
}

/// Others of the same lengths.
pub(crate) fn others() -> Tokens {
    Tokens::from_ids(&[vec![11, 8, 4, 2, 2, 17], vec![0, 22, 1], vec![5, 5, 9, 13]]).unwrap()
}

/// Every site, those computed only when named too.
fn all_sites(model: &Model) -> Vec<Site> {
    Site::all(model.config().n_layers)
}

/// Records everything, with attention step by step.
fn full(model: &Model, tokens: &Tokens) -> Run {
    model.run(tokens, &eager().cache(all_sites(model))).unwrap()
}

fn eager() -> Plan {
    Plan::new().attention(Attention::Eager)
}

/// A run in which these sites hold what they held in `source`, all recorded.
fn patched(model: &Model, tokens: &Tokens, source: &Cache, sites: &[Site]) -> Run {
    let plan = eager().intervene(sites, Intervention::patch(source)).cache(all_sites(model));
    model.run(tokens, &plan).unwrap()
}

#[track_caller]
fn near(a: &Tensor, b: &Tensor, bound: f64, what: impl std::fmt::Display) {
    let apart = distance(a, b);
    assert!(apart < bound, "{what}: {apart}");
}

#[test]
fn the_residual_stream_is_the_sum_of_all_that_was_written_below() {
    for (kind, bound) in [(Kind::Double, 1e-12), (Kind::Float, 1e-5)] {
        for model in models(kind) {
            let cache = full(&model, &tokens()).cache;
            let at = |point: Point, layer| cache.get(point.at(layer)).unwrap();
            let mut sum = cache.get(Site::Embed).unwrap();
            for layer in 0..model.config().n_layers {
                near(&sum, &at(Point::ResidPre, layer), bound, format!("before {layer}"));
                if layer > 0 {
                    assert!(same(&at(Point::ResidPre, layer), &at(Point::ResidPost, layer - 1)));
                }
                sum = &sum + at(Point::AttnOut, layer);
                near(&sum, &at(Point::ResidMid, layer), bound, format!("within {layer}"));
                sum = &sum + at(Point::MlpOut, layer);
                near(&sum, &at(Point::ResidPost, layer), bound, format!("after {layer}"));
            }
        }
    }
}

#[test]
fn heads_and_neurons_add_up_to_what_attention_and_mlp_write_less_their_biases() {
    for (kind, bound) in [(Kind::Double, 1e-12), (Kind::Float, 1e-5)] {
        for model in models(kind) {
            let cache = full(&model, &tokens()).cache;
            for layer in 0..model.config().n_layers {
                let at = |point: Point| cache.get(point.at(layer)).unwrap();
                let weight = |which: W| model.weight(which, layer).unwrap();
                let heads = at(Point::HeadResult).sum_dim_intlist([2i64].as_slice(), false, None);
                near(&heads, &(at(Point::AttnOut) - weight(W::BO)), bound, "heads");
                // [Batch, Pos, DMlp, 1] x [DMlp, DModel]
                let each = at(Point::MlpPost).unsqueeze(-1) * weight(W::Out);
                let neurons = each.sum_dim_intlist([2i64].as_slice(), false, None);
                near(&neurons, &(at(Point::MlpOut) - weight(W::BOut)), bound, "neurons");
            }
        }
    }
}

#[test]
fn stepping_through_the_blocks_by_hand_is_the_run() {
    for model in models(Kind::Double) {
        let tokens = tokens();
        let mut x = model.embed(&tokens).unwrap();
        for layer in 0..model.config().n_layers {
            x = model.block(layer, &x, &tokens).unwrap();
        }
        assert!(same(&model.unembed(&x).unwrap(), &model.logits(&tokens).unwrap()));
    }
}

#[test]
fn patching_the_whole_stream_at_any_place_gives_exactly_the_other_run() {
    for kind in [Kind::Double, Kind::Float] {
        for model in models(kind) {
            let (other, source) = (others(), full(&model, &tokens()));
            let points = [Point::ResidPre, Point::ResidMid, Point::ResidPost];
            let layers = 0..model.config().n_layers;
            let mut cuts: Vec<Vec<Site>> = layers
                .clone()
                .flat_map(|layer| points.map(|point| vec![point.at(layer)]))
                .chain([vec![Site::Embed], vec![Site::FinalNormalized]])
                .collect();
            let writes = layers.flat_map(|l| [Point::AttnOut.at(l), Point::MlpOut.at(l)]);
            cuts.push(std::iter::once(Site::Embed).chain(writes).collect());
            for cut in cuts {
                let run = patched(&model, &other, &source.cache, &cut);
                assert!(same(&run.logits, &source.logits), "{cut:?} of {model:?}");
            }
        }
    }
}

#[test]
fn patching_all_inputs_of_a_step_gives_exactly_the_other_runs_output() {
    use Point::*;
    let steps: [(&[Point], &[Point]); 11] = [
        (&[Ln1Normalized], &[Q, K, V]),
        (&[Q], &[RotQ]),
        (&[K], &[RotK]),
        (&[RotQ, RotK], &[Scores]),
        (&[Scores], &[Pattern]),
        (&[Pattern, V], &[Z]),
        (&[Z], &[AttnOut, HeadResult]),
        (&[Ln2Normalized], &[MlpPre, MlpPreLinear]),
        (&[MlpPre, MlpPreLinear], &[MlpPost]),
        (&[MlpPost], &[MlpOut]),
        (&[MlpIn], &[Ln2Scale, Ln2Normalized, MlpOut]),
    ];
    for model in models(Kind::Double) {
        let source = full(&model, &tokens()).cache;
        for layer in 0..model.config().n_layers {
            for (inputs, outputs) in steps {
                let sites: Vec<Site> = inputs.iter().map(|point| point.at(layer)).collect();
                let run = patched(&model, &others(), &source, &sites);
                for output in outputs.iter().map(|point| point.at(layer)) {
                    let found = run.cache.get(output).unwrap();
                    assert!(same(&found, &source.get(output).unwrap()), "{sites:?} to {output}");
                }
            }
        }
    }
}

/// What a site is computed from.
fn parents(site: Site, n_layers: usize) -> Vec<Site> {
    use Point::*;
    let Site::Block(layer, point) = site else {
        let top = ResidPost.at(n_layers - 1);
        return match site {
            Site::FinalScale => vec![top],
            Site::FinalNormalized => vec![top, Site::FinalScale],
            Site::Logits => vec![Site::FinalNormalized],
            _ => vec![],
        };
    };
    let here: &[Point] = match point {
        ResidPre if layer == 0 => return vec![Site::Embed],
        ResidPre => return vec![ResidPost.at(layer - 1)],
        QInput | KInput | VInput | Ln1Scale => &[ResidPre],
        Ln1Normalized => &[ResidPre, Ln1Scale],
        Q => &[Ln1Normalized, QInput],
        K => &[Ln1Normalized, KInput],
        V => &[Ln1Normalized, VInput],
        RotQ => &[Q],
        RotK => &[K],
        Scores => &[RotQ, RotK],
        Pattern => &[Scores],
        Z => &[Pattern, V],
        HeadResult => &[Z],
        AttnOut => &[Z, HeadResult],
        ResidMid => &[ResidPre, AttnOut],
        MlpIn => &[ResidMid],
        Ln2Scale => &[MlpIn],
        Ln2Normalized => &[MlpIn, Ln2Scale],
        MlpPre | MlpPreLinear => &[Ln2Normalized],
        MlpPost => &[MlpPre, MlpPreLinear],
        MlpOut => &[MlpPost],
        ResidPost => &[ResidMid, MlpOut],
    };
    here.iter().map(|point| point.at(layer)).collect()
}

#[test]
fn a_change_reaches_all_that_is_computed_from_it_and_nothing_else() {
    let models = models(Kind::Double);
    for model in &models[..2] {
        let (base, source) = (full(model, &others()).cache, full(model, &tokens()).cache);
        let sites = all_sites(model);
        for &changed in &sites {
            let run = patched(model, &others(), &source, &[changed]);
            let mut reached = vec![changed];
            for &site in &sites {
                let parents = parents(site, model.config().n_layers);
                if parents.iter().any(|parent| reached.contains(parent)) {
                    reached.push(site);
                }
                let moved = !same(&run.cache.get(site).unwrap(), &base.get(site).unwrap());
                assert_eq!(moved, reached.contains(&site), "{changed} and {site}");
            }
        }
    }
}

#[test]
fn a_change_at_a_position_changes_nothing_before_it() {
    for model in models(Kind::Double) {
        let (base, source) = (full(&model, &others()), full(&model, &tokens()));
        for point in [Point::ResidPre, Point::V, Point::MlpPost, Point::ResidPost] {
            let patch = Intervention::patch(&source.cache).pos(2);
            let run = model.run(&others(), &eager().intervene(point.at(1), patch)).unwrap();
            for (row, len) in others().lens().into_iter().enumerate() {
                let first = others().padding(row) as i64;
                let part = |logits: &Tensor, start: i64, n: i64| {
                    logits.get(row as i64).narrow(0, first + start, n)
                };
                assert!(same(&part(&run.logits, 0, 2), &part(&base.logits, 0, 2)), "{point:?}");
                let rest = len as i64 - 2;
                assert!(!same(&part(&run.logits, 2, rest), &part(&base.logits, 2, rest)));
            }
        }
    }
}

#[test]
fn interventions_that_change_nothing_leave_every_bit_of_the_logits() {
    let keep = Intervention::custom("identity", |x| Ok(x.shallow_clone()));
    for (kind, tokens) in [(Kind::Double, others().row(0).unwrap()), (Kind::Float, tokens())] {
        for model in models(kind).into_iter().take(2) {
            for tokens in [tokens.clone()] {
                for attention in [Attention::Eager, Attention::Fused] {
                    let plan = Plan::new().attention(attention);
                    let plain = model.run(&tokens, &plan).unwrap().logits;
                    let held = |site: &Site| {
                        attention == Attention::Eager
                            || !matches!(site.point(), Some(Point::Scores | Point::Pattern))
                    };
                    let sites: Vec<Site> = all_sites(&model).into_iter().filter(held).collect();
                    let own = model.run(&tokens, &plan.clone().cache(sites.clone())).unwrap().cache;
                    let identities =
                        [Intervention::scale(1.0), Intervention::patch(&own), keep.clone()];
                    let mut every = plan.clone();
                    for site in sites {
                        for identity in &identities {
                            let run = model
                                .run(&tokens, &plan.clone().intervene(site, identity.clone()))
                                .unwrap();
                            assert!(
                                same(&run.logits, &plain),
                                "{identity:?} at {site}, {attention:?}"
                            );
                        }
                        every = every.intervene(site, identities[0].clone());
                    }
                    assert!(same(&model.run(&tokens, &every).unwrap().logits, &plain));
                }
            }
        }
    }
}

#[test]
fn recording_changes_no_bit_of_the_logits() {
    for kind in [Kind::Double, Kind::Float] {
        for model in models(kind) {
            let plain = model.run(&tokens(), &eager()).unwrap().logits;
            assert!(same(&full(&model, &tokens()).logits, &plain));
            let plain = model.logits(&tokens()).unwrap();
            let fused = all_sites(&model)
                .into_iter()
                .filter(|site| !matches!(site.point(), Some(Point::Scores | Point::Pattern)));
            let plan = Plan::new().cache(fused.collect::<Vec<_>>());
            assert!(same(&model.run(&tokens(), &plan).unwrap().logits, &plain));
        }
    }
}

#[test]
fn both_arithmetics_of_attention_agree_to_rounding() {
    for (kind, bound) in [(Kind::Double, 1e-13), (Kind::Float, 2e-6)] {
        for model in models(kind) {
            let eager = model.run(&tokens(), &eager()).unwrap().logits;
            near(&model.logits(&tokens()).unwrap(), &eager, bound, "fused against eager");
        }
    }
}

#[test]
fn knocked_out_keys_get_nothing_and_the_rest_still_adds_up_to_one() {
    for model in models(Kind::Double) {
        let plan = Plan::new()
            .intervene(Point::Scores, Intervention::knockout(-1, 1))
            .intervene(Point::Scores.at(1), Intervention::knockout(1.., 0).head([0, 2]))
            .cache(Point::Pattern);
        let tokens = tokens();
        let cache = model.run(&tokens, &plan).unwrap().cache;
        for layer in 0..model.config().n_layers {
            let pattern = cache.get(Point::Pattern.at(layer)).unwrap();
            for (row, len) in tokens.lens().into_iter().enumerate() {
                let (first, len) = (tokens.padding(row) as i64, len as i64);
                let own = pattern.get(row as i64).narrow(1, first, len).narrow(2, first, len);
                let sums = own.sum_dim_intlist([-1i64].as_slice(), false, None);
                near(&sums, &sums.ones_like(), 1e-14, "sum over keys");
                let gone = own.select(1, len - 1).select(1, 1).abs().max().double_value(&[]);
                assert_eq!(gone, 0.0);
                if layer == 1 {
                    let gone = own.get(2).narrow(0, 1, len - 1).select(1, 0);
                    assert_eq!(gone.abs().max().double_value(&[]), 0.0);
                }
            }
        }
    }
}

#[test]
fn a_query_that_sees_itself_alone_takes_its_own_value() {
    for model in models(Kind::Double) {
        let plan = Plan::new()
            .intervene(Point::Scores.at(1), Intervention::knockout(2, ..2))
            .cache([Point::Z.at(1), Point::V.at(1)]);
        let tokens = others().row(0).unwrap();
        let cache = model.run(&tokens, &plan).unwrap().cache;
        let at = |point: Point| cache.get(point.at(1)).unwrap().get(0).get(2);
        let group = model.config().group() as i64;
        let values = at(Point::V).repeat_interleave_self_int(group, 0, None::<i64>);
        assert!(same(&at(Point::Z), &values));
    }
}

#[test]
fn a_token_cut_off_from_all_others_is_predicted_from_alone() {
    for model in models(Kind::Double) {
        let plan = Plan::new().intervene(Point::Scores, Intervention::knockout(2, ..2));
        let logits = |ids: [i64; 4]| {
            let tokens = Tokens::from_ids(&[ids.to_vec()]).unwrap();
            model.run(&tokens, &plan).unwrap().logits.get(0)
        };
        let (a, b) = (logits([1, 2, 3, 4]), logits([9, 8, 3, 4]));
        near(&a.get(2), &b.get(2), 1e-13, "the token cut off");
        assert!(distance(&a.get(3), &b.get(3)) > 1e-3);
    }
}

#[test]
fn a_model_that_writes_nothing_unembeds_its_embeddings() {
    for model in models(Kind::Double) {
        let plan = Plan::new().intervene([Point::AttnOut, Point::MlpOut], Intervention::zero());
        let logits = model.run(&tokens(), &plan).unwrap().logits;
        let embed = model.embed(&tokens()).unwrap();
        let real = tokens().mask(Device::Cpu).unsqueeze(-1);
        let expected = model.unembed(&embed).unwrap();
        assert!(same(&(logits * &real), &(expected * &real)));
    }
}

#[test]
fn ablating_heads_in_either_order_is_the_same() {
    for model in models(Kind::Double) {
        let heads = [(0usize, 1), (1, 0), (1, 3), (2, 2)];
        let run = |order: &mut dyn Iterator<Item = &(usize, i64)>| {
            let plan = order.fold(Plan::new(), |plan, (layer, head)| {
                plan.intervene(Point::Z.at(*layer), Intervention::zero().head(*head))
            });
            model.run(&tokens(), &plan).unwrap().logits
        };
        assert!(same(&run(&mut heads.iter()), &run(&mut heads.iter().rev())));
    }
}
