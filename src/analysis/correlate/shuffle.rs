//! Orders of samples that are as likely as the one found, where nothing goes together.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use tch::Tensor;

use crate::rng::Rng;

/// What is put in random order for a p value: whatever would be exchangeable if nothing went
/// together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shuffle {
    /// Whole prompts, among those of as many samples: position by position, what a token has in
    /// common with its own prompt against what it has with another. Lets what hangs on the position
    /// alone stand. Of samples that are prompts, the samples.
    Prompts,
    /// Tokens, each within its own prompt. Takes the tokens of a prompt as independent.
    Within,
    /// All samples, as if there were no prompts.
    Samples,
}

impl Shuffle {
    pub(super) fn name(self) -> &'static str {
        match self {
            Shuffle::Prompts => "whole prompts",
            Shuffle::Within => "tokens within their prompts",
            Shuffle::Samples => "all samples",
        }
    }
}

/// Random orders, or all there are.
#[derive(Debug)]
pub(super) struct Orders {
    /// Samples that change places with each other, one list a unit; units of one class are alike.
    classes: Vec<Vec<Vec<usize>>>,
    /// Number of samples.
    n: usize,
    count: usize,
    /// Every order once, that found among them.
    pub(super) all: bool,
    rng: Rng,
    /// The last order of the units, where all are taken.
    last: Option<Vec<usize>>,
}

impl Orders {
    /// At most `count` orders of the samples of these groups (the group of each, ascending).
    pub(super) fn new(shuffle: Shuffle, groups: &[usize], count: usize, rng: Rng) -> Result<Self> {
        let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        groups.iter().enumerate().for_each(|(i, group)| members.entry(*group).or_default().push(i));
        if shuffle == Shuffle::Within && members.values().all(|list| list.len() < 2) {
            bail!(
                "correlate: no two samples share a prompt (of one prompt, each token counts for \
                 itself), and nothing can be shuffled within one: expected Shuffle::Prompts"
            );
        }
        let single = |list: &Vec<usize>| list.iter().map(|i| vec![*i]).collect::<Vec<_>>();
        let classes: Vec<Vec<Vec<usize>>> = match shuffle {
            Shuffle::Samples => vec![(0..groups.len()).map(|i| vec![i]).collect()],
            Shuffle::Within => members.values().map(single).collect(),
            Shuffle::Prompts => by_size(&members)?,
        };
        let all = match classes.as_slice() {
            [one] => (1..=one.len()).try_fold(1usize, |n, k| n.checked_mul(k)),
            _ => None,
        };
        let all = all.filter(|all| *all <= count);
        let n = groups.len();
        let count = all.unwrap_or(count);
        Ok(Orders { classes, n, count, all: all.is_some(), rng, last: None })
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The next order: sample `i` takes the place of sample `order[i]`.
    pub(super) fn next(&mut self) -> Tensor {
        let mut order = vec![0i64; self.n];
        for class in &self.classes {
            let taken: Vec<usize> = match (self.all, &self.last) {
                (true, None) => (0..class.len()).collect(),
                (true, Some(last)) => following(last),
                (false, _) => self.rng.sample(class.len(), class.len()),
            };
            for (unit, other) in class.iter().zip(&taken) {
                for (i, j) in unit.iter().zip(&class[*other]) {
                    order[*i] = *j as i64;
                }
            }
            if self.all {
                self.last = Some(taken);
            }
        }
        Tensor::from_slice(&order)
    }
}

/// Prompts by their number of samples, each number shared by two at least.
fn by_size(members: &BTreeMap<usize, Vec<usize>>) -> Result<Vec<Vec<Vec<usize>>>> {
    let mut sizes: BTreeMap<usize, Vec<(usize, Vec<usize>)>> = BTreeMap::new();
    for (group, list) in members {
        sizes.entry(list.len()).or_default().push((*group, list.clone()));
    }
    if let Some((size, alone)) = sizes.iter().find(|(_, alike)| alike.len() == 1) {
        bail!(
            "correlate: prompt {} alone has {size} samples, and to shuffle whole prompts two must have as \
             many; choose prompts of equal lengths, or .shuffle(Shuffle::Within)",
            alone[0].0
        );
    }
    Ok(sizes.into_values().map(|class| class.into_iter().map(|(_, list)| list).collect()).collect())
}

/// The next permutation in lexicographic order; the first after the last.
fn following(order: &[usize]) -> Vec<usize> {
    let mut next = order.to_vec();
    let Some(at) = next.windows(2).rposition(|pair| pair[0] < pair[1]) else {
        next.reverse();
        return next;
    };
    if let Some(other) = next.iter().rposition(|x| *x > next[at]) {
        next.swap(at, other);
    }
    next[at + 1..].reverse();
    next
}
