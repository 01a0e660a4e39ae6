//! Splits by group, control labels by unit, and intervals over groups.

use anyhow::{Result, ensure};
use tch::Tensor;

use super::{ProbeMethod, fit, numbered, scores};
use crate::interrupt::check_interrupt;
use crate::rng::Rng;

/// Resamples of the bootstrap over groups.
const RESAMPLES: usize = 1000;

/// The fold of each example: a group is whole in one, and groups whose most frequent class is the
/// same are dealt evenly, so that folds are balanced as far as groups allow.
pub(super) fn folds(
    groups: &[usize],
    y: &[usize],
    folds: usize,
    rng: &mut Rng,
) -> Result<Vec<usize>> {
    let n = groups.iter().max().map_or(0, |most| most + 1);
    ensure!(
        folds > 1 && folds <= n,
        "probe: {folds} folds of {n} groups, expected 2 to {n}: a group is never split"
    );
    let mut order: Vec<usize> = (0..n).collect();
    rng.shuffle(&mut order);
    let common = |group: usize| {
        let own = groups.iter().zip(y).filter(|(g, _)| **g == group).map(|(_, class)| *class);
        most_frequent(own)
    };
    order.sort_by_cached_key(|group| common(*group));
    let mut fold = vec![0; n];
    for (place, group) in order.into_iter().enumerate() {
        fold[group] = place % folds;
    }
    Ok(groups.iter().map(|group| fold[*group]).collect())
}

fn most_frequent(classes: impl Iterator<Item = usize>) -> usize {
    let mut counts = std::collections::BTreeMap::new();
    classes.for_each(|class| *counts.entry(class).or_insert(0) += 1);
    counts
        .into_iter()
        .max_by_key(|(class, n)| (*n, usize::MAX - class))
        .map_or(0, |(class, _)| class)
}

/// A class for each unit, dealt at random in the proportions that the classes have among examples,
/// one of each class at least, and given to all examples of the unit.
pub(super) fn control(units: &[usize], y: &[usize], rng: &mut Rng) -> Result<Vec<usize>> {
    let n = units.iter().max().map_or(0, |most| most + 1);
    let classes = y.iter().max().map_or(0, |most| most + 1);
    ensure!(
        n >= classes,
        "probe: {n} units for control labels of {classes} classes, expected {classes} or more"
    );
    let mut sorted = y.to_vec();
    sorted.sort_unstable();
    // The classes of the examples, in order, read at n places evenly apart.
    let mut dealt: Vec<usize> = (0..n).map(|i| sorted[(2 * i + 1) * y.len() / (2 * n)]).collect();
    // A class too rare to be read takes a unit of the most frequent one.
    for class in (0..classes).filter(|class| y.contains(class)) {
        if !dealt.contains(&class) {
            let common = most_frequent(dealt.iter().copied());
            let place = dealt.iter().position(|own| *own == common).unwrap_or(0);
            dealt[place] = class;
        }
    }
    rng.shuffle(&mut dealt);
    Ok(units.iter().map(|unit| dealt[*unit]).collect())
}

/// How to fit: the methods to choose from, and whether on standardised dimensions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fitting<'a> {
    pub(super) methods: &'a [ProbeMethod],
    pub(super) standardised: bool,
    /// Folds and seed of the choice.
    pub(super) folds: usize,
    pub(super) seed: u64,
}

impl Fitting<'_> {
    /// The method that is right most often on groups it was not fitted on, the first of equals.
    pub(super) fn choose(&self, x: &Tensor, y: &[usize], groups: &[usize]) -> Result<ProbeMethod> {
        let [first, .., _] = self.methods else { return Ok(self.methods[0]) };
        let names: Vec<String> = groups.iter().map(usize::to_string).collect();
        let (known, groups) = numbered(&names);
        let n = self.folds.min(known.len());
        let fold = folds(&groups, y, n, &mut Rng::new(self.seed))?;
        let mut best = (*first, 0);
        for method in self.methods {
            let one = Fitting { methods: std::slice::from_ref(method), ..*self };
            let hits = held_out(x, y, (&groups, &fold), one)?.iter().filter(|hit| **hit).count();
            if hits > best.1 {
                best = (*method, hits);
            }
        }
        Ok(best.0)
    }
}

/// Whether each example is put in its class by a probe fitted, and its method chosen, without its
/// fold.
pub(super) fn held_out(
    x: &Tensor,
    y: &[usize],
    (groups, fold): (&[usize], &[usize]),
    how: Fitting,
) -> Result<Vec<bool>> {
    let mut right = vec![false; y.len()];
    let last = fold.iter().copied().max().unwrap_or(0);
    for test in 0..=last {
        check_interrupt()?;
        let rows = |inside: bool| -> Vec<i64> {
            (0..y.len()).filter(|i| (fold[*i] == test) == inside).map(|i| i as i64).collect()
        };
        let (train, held) = (rows(false), rows(true));
        let names: Vec<String> = train.iter().map(|i| y[*i as usize].to_string()).collect();
        let (classes, own) = numbered(&names);
        let class = |c: usize| classes[c].parse::<usize>().unwrap_or(usize::MAX);
        let guess = |i: i64, c: usize| (i as usize, class(c) == y[i as usize]);
        if classes.len() == 1 {
            // Nothing to tell apart in what it is fitted on: that one class for all.
            held.iter().map(|i| guess(*i, 0)).for_each(|(i, hit)| right[i] = hit);
            continue;
        }
        let pick = |rows: &[i64]| x.index_select(0, &Tensor::from_slice(rows));
        let seen: Vec<usize> = train.iter().map(|i| groups[*i as usize]).collect();
        let known = pick(&train);
        let method = how.choose(&known, &own, &seen)?;
        let fitted = fit(&known, &own, classes.len(), method, how.standardised)?;
        let best = scores(&pick(&held), &fitted.weights, &fitted.bias).argmax(-1, false);
        for (i, c) in held.iter().zip(Vec::<i64>::try_from(best)?) {
            let (i, hit) = guess(*i, c as usize);
            right[i] = hit;
        }
    }
    Ok(right)
}

/// How many of a group's examples are right (of several draws, their mean), and how many it has.
#[derive(Debug, Clone)]
pub(super) struct ByGroup {
    pub(super) right: Vec<f64>,
    pub(super) count: Vec<f64>,
}

impl ByGroup {
    pub(super) fn new(groups: &[usize], draws: &[Vec<bool>]) -> Self {
        let n = groups.iter().max().map_or(0, |most| most + 1);
        let (mut right, mut count) = (vec![0.0; n], vec![0.0; n]);
        for (i, group) in groups.iter().enumerate() {
            count[*group] += 1.0;
            let hits = draws.iter().filter(|draw| draw[i]).count();
            right[*group] += hits as f64 / draws.len().max(1) as f64;
        }
        ByGroup { right, count }
    }

    /// Share right among these groups.
    fn share(&self, chosen: impl Iterator<Item = usize>) -> f64 {
        let (right, count) =
            chosen.fold((0.0, 0.0), |(r, c), g| (r + self.right[g], c + self.count[g]));
        right / count
    }

    /// Share right, less another's on the same groups, with its 95 % bootstrap interval over groups:
    /// `(share, low, high)`.
    pub(super) fn interval(&self, less: Option<&ByGroup>, rng: &mut Rng) -> (f64, f64, f64) {
        let n = self.count.len();
        let value = |chosen: &[usize]| {
            let of = |each: &ByGroup| each.share(chosen.iter().copied());
            of(self) - less.map_or(0.0, of)
        };
        let draws: Vec<f64> = (0..RESAMPLES)
            .map(|_| value(&(0..n).map(|_| rng.below(n)).collect::<Vec<_>>()))
            .collect();
        let (low, high) = super::super::states::central(&draws);
        (value(&(0..n).collect::<Vec<_>>()), low, high)
    }
}
