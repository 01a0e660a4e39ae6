//! An activation before and after an intervention, entry by entry.

use thalweg::anyhow::Result;
use thalweg::tch::Tensor;
use thalweg::{Attention, Cache, Intervention, Plan, Point, Run, Site, Sites, Tokens};

use super::model;

/// Two rows: 5 tokens, and 3 behind a padding of 2.
pub(crate) fn tokens() -> Tokens {
    let rows = [vec![3, 1, 4, 1, 5], vec![9, 2, 6]];
    Tokens::from_ids(&rows).unwrap().with_role("S", vec![1, 2]).unwrap()
}

pub(crate) fn others() -> Tokens {
    Tokens::from_ids(&[vec![7, 7, 8, 0, 2], vec![11, 12, 13]]).unwrap()
}

pub(crate) fn everything(tokens: &Tokens) -> Cache {
    let all = [Point::QInput, Point::KInput, Point::VInput, Point::MlpIn, Point::HeadResult];
    let plan = Plan::new().cache(Sites::everything()).cache(all);
    model().run(tokens, &plan).unwrap().cache
}

/// Eager, as a run that caches everything is: the same bits.
pub(crate) fn with(site: Site, intervention: Intervention) -> Result<Run> {
    let plan = Plan::new().attention(Attention::Eager).cache(site);
    model().run(&tokens(), &plan.intervene(site, intervention))
}

/// The activation before and after.
#[track_caller]
pub(crate) fn change(site: Site, intervention: Intervention) -> (Tensor, Tensor) {
    let before = everything(&tokens()).get(site).unwrap();
    let run = with(site, intervention).unwrap();
    assert_eq!(run.fired.len(), 1);
    (before, run.cache.get(site).unwrap())
}

/// Every index of a tensor.
pub(crate) fn indices(shape: &[i64]) -> Vec<Vec<i64>> {
    shape.iter().fold(vec![vec![]], |list, n| {
        list.iter().flat_map(|head| (0..*n).map(|i| [head.as_slice(), &[i]].concat())).collect()
    })
}

/// Adds 100 where the intervention acts; `covered` must say exactly where that is.
#[track_caller]
pub(crate) fn covers(
    site: Site,
    narrow: fn(Intervention) -> Intervention,
    covered: fn(&[i64]) -> bool,
) {
    let raise = Intervention::custom("raise", |x| Ok(x + 100.0));
    let (before, after) = change(site, narrow(raise));
    for index in indices(&before.size()) {
        let (old, new) = (before.double_value(&index), after.double_value(&index));
        let expected = if covered(&index) { old + 100.0 } else { old };
        assert_eq!(new, expected, "{site} at {index:?}, was {old}");
    }
}

/// Checks every entry of the activation against `expected(index, old value)`.
#[track_caller]
pub(crate) fn becomes(
    site: Site,
    intervention: Intervention,
    expected: impl Fn(&[i64], f64) -> f64,
) {
    let (before, after) = change(site, intervention);
    for index in indices(&before.size()) {
        let (old, new) = (before.double_value(&index), after.double_value(&index));
        let wanted = expected(&index, old);
        let close = new == wanted || (new - wanted).abs() <= 1e-12 * wanted.abs().max(1.0);
        assert!(close, "{site} at {index:?}: {new}, expected {wanted}, was {old}");
    }
}

/// Whether an index `[row, column, ..]` is a token and not padding.
pub(crate) fn real(i: &[i64]) -> bool {
    i[0] == 0 || i[1] >= 2
}

/// Whether a pair of an index `[row, head, query, key]` exists.
pub(crate) fn pair(i: &[i64]) -> bool {
    i[3] <= i[2] && (i[0] == 0 || i[3] >= 2)
}
