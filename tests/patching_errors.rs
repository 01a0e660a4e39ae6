//! What is said of a wrong request for patching.

use thalweg::prelude::*;

use crate::patching::{metric, pair};
use crate::support::{model, says};

#[test]
fn what_a_point_lacks_is_an_error_that_lists_what_it_has() {
    let (model, (clean, corrupt)) = (model(), pair());
    let pair = Patching::new(&model, &clean, &corrupt).unwrap();
    let grid = |point, by: &[Axis]| pair.grid(point, by, &metric());
    says(
        grid(Point::ResidPre, &[Axis::Head]),
        &["ResidPre by Head", "[Batch, Pos, DModel]", "expected some of [Pos, DModel]"],
    );
    says(grid(Point::K, &[Axis::Head]), &["K by Head", "key/value heads, KvHead"]);
    says(grid(Point::Q, &[Axis::KvHead]), &["query heads, Head"]);
    says(grid(Point::Pattern, &[Axis::Pos]), &["[Batch, Head, Query, Key]", "attends is Query"]);
    says(grid(Point::Ln1Scale, &[Axis::Scale]), &["expected some of [Pos]"]);
    says(grid(Point::Z, &[Axis::Batch]), &["expected some of [Pos, Head, DHead]"]);
    says(grid(Point::Z, &[Axis::Head, Axis::Head]), &["Head is named twice"]);
}

#[test]
fn a_pair_that_is_not_aligned_is_an_error_that_says_where() {
    let (model, (clean, corrupt)) = (model(), pair());
    let pair = |rows: &[Vec<i64>]| Patching::new(&model, &clean, &Tokens::from_ids(rows).unwrap());
    says(pair(&[vec![1, 2, 3, 4, 5]]), &["2 clean prompts and 1 corrupt ones"]);
    let rows = [corrupt.ids()[0].clone(), vec![2, 6, 5, 9]];
    says(pair(&rows), &["rows [1] differ", "row 1 has 5", "4 corrupt", "part at position 4"]);
}

#[test]
fn an_effect_between_equal_baselines_is_an_error() {
    let (model, (clean, corrupt)) = (model(), pair());
    let same = Patching::new(&model, &clean, &clean).unwrap().normalised();
    says(same.grid(Point::Z, &[], &metric()), &["logit_diff", "no difference to normalise by"]);
    // The second row's metric is that of its first position, which the pair shares.
    let early = metric().at(Position::PerRow(vec![4, 0]));
    let pair = Patching::new(&model, &clean, &corrupt).unwrap().normalised();
    assert!(pair.grid(Point::Z, &[], &early).is_ok());
    says(pair.each_prompt().grid(Point::Z, &[], &early), &["of prompt 1"]);
}
