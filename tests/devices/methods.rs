//! Every family of methods gives the numbers of the whole model on a model in two and three pieces.

use thalweg::anyhow::Result;
use thalweg::prelude::*;
use thalweg::rng::Rng;
use thalweg::{
    Ablation, AttributionPatching, CausalTrace, Circuit, Component, Composition, Config,
    EdgePatching, ImportanceMethod, Occlusion, PathRule, Receiver, Selection, Split, ablation,
    ablation_curve, ablation_study, alti, anisotropy, attention_knockout, attention_vectors,
    attribution_by, composition_effects, composition_scores, contribution_weights, copying_scores,
    deletion_curve, head_attribution, head_norms, head_scores, head_taxonomy, importance, lens_kl,
    lens_rank, matching_scores, mixing_sites, neuron_attribution, occlusion, repeated_tokens,
    token_copying, value_weighted_rollout, weight_difference,
};

use super::{deep, saved};

/// Numbers of any results, one after the other.
pub(super) struct Numbers(pub(super) Vec<f64>);

impl Numbers {
    pub(super) fn of(grids: &[&Grid]) -> Result<Numbers> {
        let all = grids.iter().flat_map(|grid| grid.values.iter().copied());
        Ok(Numbers(all.collect()))
    }

    pub(super) fn tensors(list: &[Tensor]) -> Result<Numbers> {
        let all = list
            .iter()
            .map(|x| Vec::<f64>::try_from(x.detach().flatten(0, -1).to_kind(Kind::Double)));
        Ok(Numbers(all.collect::<Result<Vec<_>, _>>()?.concat()))
    }
}

/// A name, and what the method finds in a model.
pub(super) type Method = (&'static str, fn(&Model) -> Result<Numbers>);

pub(super) fn clean() -> Tokens {
    Tokens::from_ids(&[vec![1, 2, 3, 4, 5, 6], vec![7, 8, 9, 1, 2, 4]]).unwrap()
}

pub(super) fn corrupt() -> Tokens {
    Tokens::from_ids(&[vec![1, 2, 9, 4, 5, 6], vec![7, 3, 9, 1, 2, 4]]).unwrap()
}

pub(super) fn metric() -> Metric {
    Metric::logit_diff(3, 4)
}

/// One prompt, for the methods that look at one at a time.
fn one() -> Tokens {
    clean().rows(&[0]).unwrap()
}

fn cache(model: &Model) -> Result<Cache> {
    let plan = Plan::new().cache(mixing_sites()).cache(attribution_sites());
    let plan = plan.cache([Point::HeadResult, Point::Z, Point::ResidPre, Point::ResidPost]);
    Ok(model.run(&clean(), &plan.attention(Attention::Eager))?.cache)
}

fn edges(model: &Model) -> Result<thalweg::Edges> {
    EdgeAttribution::new(&metric(), Direction::Noise).integrated(3).run(model, &clean(), &corrupt())
}

const METHODS: &[Method] = &[
    ("patching", |model| {
        let grid = |by: &[Axis], point| patching(model, &clean(), &corrupt(), point, by, &metric());
        Numbers::of(&[&grid(&[Axis::Pos], Point::ResidPre)?, &grid(&[Axis::Head], Point::Z)?])
    }),
    ("attribution patching", |model| {
        let atp = AttributionPatching::new(&metric(), Direction::Denoise).qk_fix().grad_drop();
        let found = atp.points([Point::Z, Point::Q, Point::K]).run(model, &clean(), &corrupt())?;
        let compared = found.compare(Point::Z, &[Axis::Head])?;
        Numbers::of(&[&found.grid(Point::Q, &[Axis::Head])?, &compared.estimate, &compared.exact])
    }),
    ("attribution patching, RelP", |model| {
        let atp = AttributionPatching::new(&metric(), Direction::Denoise).freeze(Freeze::RelP);
        let found = atp.points([Point::AttnOut]).run(model, &clean(), &corrupt())?;
        Numbers::of(&[&found.grid(Point::AttnOut, &[Axis::Pos])?])
    }),
    ("edge attribution", |model| {
        let edges = edges(model)?;
        let mut all = Numbers::of(&[&edges.scores])?;
        all.0.extend([edges.difference, edges.completeness_error]);
        Ok(all)
    }),
    ("path patching", |model| {
        let pair = Patching::new(model, &clean(), &corrupt())?;
        let found = [Receiver::q(3, 1), Receiver::logits()].map(|receiver| {
            pair.paths(Point::Z, &[Axis::Head], &[receiver], PathRule::MlpsFrozen, &metric())
        });
        let [q, logits] = found;
        Numbers::of(&[&q?, &logits?])
    }),
    ("edge patching and circuits", |model| {
        let patching = EdgePatching::new(model, &clean(), &corrupt())?;
        let circuit = Circuit::best(&edges(model)?, 12, Selection::Greedy);
        let curve =
            patching.curve(&edges(model)?, Selection::Top, &[0.1, 0.5, 1.0], &metric(), 2, 1)?;
        let mean = EdgePatching::with_mean(model, &clean(), &corrupt())?;
        let mut all = Numbers::of(&[&curve.curve, &curve.random])?;
        all.0.push(patching.faithfulness(&circuit, &metric())?);
        all.0.extend(mean.values(&circuit, &metric())?);
        let k = composition_effects(&patching, Composition::K, (0..1, 1..2), &metric())?;
        all.0.extend(k.values.iter());
        Ok(all)
    }),
    ("causal tracing", |model| {
        let trace = CausalTrace::new(model, &clean(), 1..3)?.draws(3).window(2);
        Numbers::of(&[&trace.grid(Point::MlpOut, &metric())?])
    }),
    ("integrated gradients", |model| {
        let by_tokens = integrated_gradients(model, &clean(), &metric(), &corrupt())?;
        let mut all = Numbers::of(&[&by_tokens.tokens])?;
        all.0.extend(by_tokens.difference);
        let baseline = thalweg::Baseline::MeanEmbedding;
        let grid = integrated_gradients(model, &one(), &metric(), baseline)?.tokens;
        all.0.extend(grid.values.iter());
        Ok(all)
    }),
    ("importance by every method", |model| {
        let found = importance(model, &one(), &metric(), &ImportanceMethod::all(&metric()))?;
        let all: Vec<&Grid> = found.methods.iter().map(|(_, grid)| grid).collect();
        Numbers::of(&all)
    }),
    ("occlusion and deletion", |model| {
        let how = [Occlusion::AttentionCut, Occlusion::Token(5), Occlusion::MeanEmbedding];
        let [cut, token, mean] = how.map(|how| occlusion(model, &one(), &metric(), &how));
        let (cut, token, mean) = (cut?, token?, mean?);
        let curve = deletion_curve(model, &one(), &metric(), &cut, 3, 1)?;
        Numbers::of(&[&cut, &token, &mean, &curve])
    }),
    ("rollout, ALTI and what attention carries", |model| {
        let cache = cache(model)?;
        let (alti, rollout) = (alti(model, &cache)?, value_weighted_rollout(model, &cache)?);
        let weights = contribution_weights(model, &cache)?;
        let mut all = Numbers::of(&[&alti.rollout, &alti.layers, &rollout.rollout, &weights])?;
        all.0.extend(Numbers::tensors(&[attention_vectors(model, &cache, 4, -1)?])?.0);
        Ok(all)
    }),
    ("direct attribution", |model| {
        let (cache, of) = (cache(model)?, metric());
        Numbers::of(&[
            &attribution_by(model, &cache, &of, Split::Heads)?,
            &head_attribution(model, &cache, &of)?,
            &neuron_attribution(model, &cache, &of, 4)?,
            &head_norms(model, &cache)?,
        ])
    }),
    ("lenses and the stream", |model| {
        let cache = cache(model)?;
        Numbers::of(&[
            &lens_rank(model, &cache, 3)?,
            &lens_kl(model, &cache)?,
            &anisotropy(&cache)?,
        ])
    }),
    ("ablation grids", |model| {
        let by =
            |how: Ablation| ablation(model, &clean(), Point::Z, &[Axis::Head], &how, &metric());
        let reference = corrupt();
        let curve =
            ablation_curve(model, &clean(), &[(0, 1), (4, 2)], &Intervention::zero(), &metric())?;
        Numbers::of(&[
            &by(Ablation::zero())?,
            &by(Ablation::mean(&reference))?,
            &by(Ablation::resample(&reference, 2, 3))?,
            &attention_knockout(model, &clean(), -1, 1..3, Some(2), &metric())?,
            &curve,
        ])
    }),
    ("ablation study", |model| {
        let heads: Vec<Component> = Component::heads(model.config()).into_iter().take(9).collect();
        let baselines = [
            Ablation::zero(),
            Ablation::mean_by_pos(&corrupt()),
            Ablation::optimal(&corrupt(), &metric(), 3),
        ];
        let study = ablation_study(model, &clean(), &heads, &baselines, &metric())?;
        let out = study.knock_out(model, 0, 2, 1)?;
        Numbers::of(&[&study.effects, &study.each, &out.ranked, &out.random])
    }),
    ("head taxonomy", |model| {
        let tokens = repeated_tokens(model, 3, 6, 1)?;
        let found = head_taxonomy(model, &tokens, 2)?;
        let run = model.run(&tokens, &Plan::new().cache(Point::Pattern))?;
        let induction = head_scores(&run.cache, Motif::Induction)?;
        Numbers::of(&[&found.scores, &found.shuffled, &induction])
    }),
    ("token copying and head circuits", |model| {
        let found = token_copying(model, &[1, 2, 3, 4, 5, 6], 2)?;
        Numbers::of(&[
            &found.copied,
            &found.suppressed,
            &copying_scores(model)?,
            &matching_scores(model, 1)?,
        ])
    }),
    ("composition scores", |model| {
        let [q, v] =
            [Composition::Q, Composition::V].map(|kind| composition_scores(model, kind, 0, 1));
        Numbers::of(&[&q?.scores, &v?.z])
    }),
    ("weights of two models", |model| {
        let other = model.with_weights(|_, w| Ok(w * 1.01))?;
        Numbers::of(&[&weight_difference(model, &other, 3)?.relative])
    }),
    ("sweeps over all metrics and sites", |model| {
        let metrics = [metric(), Metric::loss(), Metric::log_prob(3).at(1)];
        let sites = [Site::Embed, Point::Scores.at(1), Point::MlpPost.at(4), Site::Logits];
        let plans = sites.map(|site| Plan::new().intervene(site, Intervention::scale(0.5)));
        let found = metrics.iter().map(|metric| model.sweep(&clean(), &plans, metric));
        let found = found.collect::<Result<Vec<_>>>()?;
        Numbers::of(&found.iter().map(|sweep| &sweep.values).collect::<Vec<_>>())
    }),
];

/// Each method's numbers on pieces are those of the whole model. They are not all equal, so that a
/// method that finds nothing would not pass.
#[track_caller]
pub(super) fn agree(name: &str, methods: &[Method]) {
    for tied in [false, true] {
        let dir = saved(&format!("{name}-{tied}"), Config { tied, ..deep() });
        let whole = Model::load_on(&dir, Device::Cpu, Kind::Double).unwrap();
        let pieces = [2, 3].map(|pieces| {
            Model::load_spread(&dir, &vec![Device::Cpu; pieces], Kind::Double).unwrap()
        });
        for (name, method) in methods {
            let numbers = |model| method(model).unwrap_or_else(|error| panic!("{name}: {error}")).0;
            let expected = numbers(&whole);
            let varied = expected.iter().any(|x| x.is_finite() && *x != expected[0]);
            assert!(varied, "{name}: {} numbers, all alike", expected.len());
            for model in &pieces {
                let found = numbers(model);
                assert_eq!(found.len(), expected.len(), "{name}");
                for (a, b) in found.iter().zip(&expected) {
                    let same = a == b || a.is_nan() && b.is_nan();
                    assert!(same || (a - b).abs() < 1e-10, "{name}: {a} on pieces, {b} whole");
                }
            }
        }
    }
}

#[test]
fn every_method_that_reads_or_changes_runs_agrees() {
    agree("spread-methods", METHODS);
}

/// A random matrix that is the same for every model.
pub(super) fn drawn(seed: u64, shape: &[i64]) -> Tensor {
    Rng::new(seed).normal_tensor(shape).to_kind(Kind::Double)
}
