//! Where a model keeps what three of its tasks need: the second name of `ioi`, the subject of a fact,
//! the bindings of `recall`.

use super::lists::{Ask, recall_of};
use super::prompt_sets::{prompt, prompt_set};
use super::sentence::{Draw, Split, Task};
use std::fmt::Write;
use thalweg::anyhow::Result;
use thalweg::rng::Rng;
use thalweg::{
    Axis, CausalTrace, Grid, Intervention, Metric, Model, Patching, Plan, Point, attribution_by,
    attribution_sites,
};

/// Prompts of a kind that patching looks at.
const PROMPTS: usize = 24;

/// What `ioi` is made of.
#[derive(Debug, Clone)]
pub struct IoiPath {
    /// Share of the logit difference that patching `ResidPre` brings back, by layer: at the second
    /// mention of the subject, and at the last token. The corrupt prompts name the other giver.
    pub s2: Vec<f64>,
    /// The same at the last token.
    pub end: Vec<f64>,
    /// Heads and MLPs, the most helpful first, that add up to 80 % of the logit difference.
    pub parts: Vec<(String, f64)>,
    /// The whole logit difference.
    pub whole: f64,
}

impl IoiPath {
    /// The first layer that finds at least half of the recovery at the last token: the one before
    /// it has moved the name there.
    pub fn transfer(&self) -> Option<usize> {
        self.end.iter().position(|share| *share >= 0.5).map(|layer| layer.saturating_sub(1))
    }

    /// The lowest, over layers, of what both places bring back together.
    pub fn together(&self) -> f64 {
        self.s2.iter().zip(&self.end).map(|(a, b)| a + b).fold(f64::INFINITY, f64::min)
    }
}

/// The path of `ioi` on fresh prompts of both orders of the first template.
pub fn ioi_path(model: &Model, seed: u64) -> Result<IoiPath> {
    let (mut s2, mut end) =
        (vec![0.0; model.config().n_layers], vec![0.0; model.config().n_layers]);
    let (mut all, mut whole) = (Vec::<(String, f64)>::new(), 0.0);
    let kinds = ["T1 ABBA", "T1 BABA"];
    for kind in kinds {
        let set = prompt_set(Task::Ioi, seed).labelled(kind)?.first(PROMPTS).aligned(model)?;
        let metric = Metric::logit_diff(set.right.clone(), set.wrong.clone());
        let pair = Patching::new(model, &set.clean, set.corrupted("swap")?)?.normalised();
        let grid = pair.grid(Point::ResidPre, &[Axis::Pos], &metric)?;
        for (share, role) in [(&mut s2, "S2"), (&mut end, "END")] {
            let at = set.position(role)?;
            for (layer, share) in share.iter_mut().enumerate() {
                *share += grid.values[[layer, at]] / kinds.len() as f64;
            }
        }
        let run = model.run(&set.clean, &Plan::new().cache(attribution_sites()))?;
        let parts = attribution_by(model, &run.cache, &metric, thalweg::Split::Heads)?;
        let parts = parts.mean(Axis::Batch)?;
        whole += parts.values.sum() / kinds.len() as f64;
        for (i, name) in parts.labels(Axis::Component)?.iter().enumerate() {
            let value = parts.values[[i]] / kinds.len() as f64;
            match all.iter_mut().find(|(own, _)| own == name) {
                Some((_, sum)) => *sum += value,
                None => all.push((name.clone(), value)),
            }
        }
    }
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut sum = 0.0;
    let enough = all.iter().position(|(_, value)| {
        sum += value;
        sum >= 0.8 * whole
    });
    all.truncate(enough.map_or(all.len(), |at| at + 1));
    Ok(IoiPath { s2, end, parts: all, whole })
}

/// With a third giver: the logit of the name said first less that of the second, and of the one that
/// the generator wrote down as the answer less the other; means over prompts.
pub fn third_giver(model: &Model, seed: u64) -> Result<(f64, f64)> {
    let set = prompt_set(Task::Ioi, seed).filter(|p| p.label.ends_with('C'));
    let (mut first, mut answer) = (0.0, 0.0);
    for p in &set.prompts {
        let tokens = model.tokens(&p.clean)?;
        let metric = Metric::logit_diff(model.token(&p.right[0])?, model.token(&p.right[1])?);
        let diff = metric.of(&model.logits(&tokens)?, &tokens)?.double_value(&[0]);
        answer += diff / set.len() as f64;
        let sign = if p.label.ends_with("ABC") { 1.0 } else { -1.0 };
        first += sign * diff / set.len() as f64;
    }
    Ok((first, answer))
}

/// Causal tracing of `The capital of X is`: the share of the log probability that restoring the MLPs
/// of a layer brings back, `[Layer, Pos]`, and where the subject stands.
pub fn fact_trace(model: &Model, seed: u64) -> Result<(Grid, usize)> {
    let set = prompt_set(Task::Fact, seed).labelled("capital of")?;
    let set = set.filter(|p| p.split == "test").aligned(model)?;
    let subject = set.position("subject")?;
    let trace = CausalTrace::new(model, &set.clean, subject)?.draws(3).seed(seed).window(1);
    let grid = trace.normalised().grid(Point::MlpOut, &Metric::log_prob(set.right.clone()))?;
    Ok((grid, subject))
}

/// By layer: the share of questions answered with the other statement's word once the streams after
/// that layer, at some `places` of the two statements (word 3 is the object, 4 the full stop), come
/// from the prompt with the two names exchanged. All words stay where they are, the names among
/// them: only whose the objects are changes.
pub fn bindings_swapped(model: &Model, ask: Ask, places: &[usize], seed: u64) -> Result<Vec<f64>> {
    let mut rng = Rng::new(seed);
    let mut followed = vec![0.0; model.config().n_layers];
    for k in 2..6 {
        let (mut clean, mut swapped, mut at) = (Vec::new(), Vec::new(), Vec::new());
        let (mut own, mut other) = (Vec::new(), Vec::new());
        while clean.len() < PROMPTS {
            let asked = rng.below(k);
            let rival = (asked + 1 + rng.below(k - 1)) % k;
            let mut draw = Draw::new(&mut rng, Split::Test);
            let Some(s) = recall_of(&mut draw, k, asked, ask) else { continue };
            let mut turned = s.clone();
            turned.words.swap(5 * asked, 5 * rival);
            let answer = if ask == Ask::Who { 5 * rival } else { 5 * rival + 3 };
            own.push(model.token(s.words[s.end()])?);
            other.push(model.token(s.words[answer])?);
            // BOS comes before the words
            let both = places.iter().flat_map(|p| [5 * asked + p + 1, 5 * rival + p + 1]);
            at.push(both.collect::<Vec<_>>());
            clean.push(prompt(&s).clean);
            swapped.push(prompt(&turned).clean);
        }
        let texts = |v: &[String]| model.batch(&v.iter().map(String::as_str).collect::<Vec<_>>());
        let (clean, swapped) = (texts(&clean)?, texts(&swapped)?);
        let source = model.run(&swapped, &Plan::new().cache(Point::ResidPost))?.cache;
        for (layer, followed) in followed.iter_mut().enumerate() {
            let mut plan = Plan::new();
            for (row, places) in at.iter().enumerate() {
                let patch = Intervention::patch(&source).batch(row as i64);
                plan = plan.intervene(Point::ResidPost.at(layer), patch.pos(places.as_slice()));
            }
            let logits = model.run(&clean, &plan)?.logits;
            let right = Metric::accuracy(other.as_slice()).of(&logits, &clean)?;
            *followed += right.mean(thalweg::tch::Kind::Double).double_value(&[]) / 4.0;
        }
    }
    Ok(followed)
}

/// The section of the card about these three circuits.
pub fn circuits(model: &Model, seed: u64) -> Result<String> {
    let mut text = String::from("\n## Circuits\n\n");
    let shares = |v: &[f64]| v.iter().map(|x| format!("{x:.2}")).collect::<Vec<_>>().join(", ");
    let (first, answer) = third_giver(model, seed)?;
    let _ = writeln!(
        text,
        "- `ioi` with a third giver (ABC, BAC): the logit of the name said first is {first:+.2} above that of the second, \
         that of the word written down as the answer {answer:+.2} above the other's."
    );
    let path = ioi_path(model, seed)?;
    let parts = path.parts.iter().map(|(name, value)| format!("{name} {value:+.1}"));
    let _ = writeln!(
        text,
        "- `ioi`: patching the stream before layers 0, 1, ... brings back {} of the logit difference at the second mention \
         of the subject and {} at the last token. Of a difference of {:.1} these parts give 80 %: {}.",
        shares(&path.s2),
        shares(&path.end),
        path.whole,
        parts.collect::<Vec<_>>().join(", ")
    );
    let (grid, subject) = fact_trace(model, seed)?;
    let at = |pos: usize| {
        (0..grid.shape()[0]).map(|layer| grid.values[[layer, pos]]).collect::<Vec<_>>()
    };
    let _ = writeln!(
        text,
        "- `fact`: of what noise on the subject destroys, restoring the MLP of layers 0, 1, ... at the subject brings back \
         {}, at the last token {}.",
        shares(&at(subject)),
        shares(&at(grid.shape()[1] - 1))
    );
    for (name, ask) in [("What", Ask::What), ("Who", Ask::Who)] {
        let at = |places: &[usize]| bindings_swapped(model, ask, places, seed).map(|v| shares(&v));
        let (object, stop, both) = (at(&[3])?, at(&[4])?, at(&[3, 4])?);
        let _ = writeln!(
            text,
            "- `recall`: with the owners of two objects exchanged in the stream after layer 0, 1, ... the answer to `{name}` \
             follows in {object} of the prompts (at the objects), {stop} (at the full stops after them), {both} (at both)."
        );
    }
    Ok(text)
}
