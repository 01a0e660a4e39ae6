use thalweg::anyhow::Result;
use thalweg::prelude::*;
use thalweg::{
    Correlate, attention_entropies, attention_to, component_norms, head_norms, token_losses,
    token_outputs,
};

use super::near;
use crate::support::{model, says};

fn batch() -> Tokens {
    Tokens::from_ids(&[vec![1, 4, 9, 4, 7, 4, 9], vec![3, 3, 8, 3]]).unwrap()
}

fn cached(tokens: &Tokens) -> Run {
    let sites = [Point::Pattern, Point::AttnOut, Point::MlpOut, Point::Z, Point::K];
    let plan = sites.into_iter().fold(Plan::new(), |plan, point| plan.cache(point));
    model().run(tokens, &plan).unwrap()
}

fn mean_of(grid: &Grid, row: i64) -> f64 {
    let row = grid.select(Axis::Batch, row).unwrap();
    row.mean(Axis::Pos).unwrap().values.sum()
}

#[test]
fn the_mean_of_tokens_losses_is_the_loss() -> Result<()> {
    let run = cached(&batch());
    let (losses, outputs) = (token_losses(&run)?, token_outputs(&run)?);
    let expected = Vec::<f64>::try_from(Metric::loss().of(&run.logits, &batch())?)?;
    (0..2).for_each(|row| near(mean_of(&losses, row as i64), expected[row], 1e-12));
    assert_eq!(losses.present().count(), 6 + 3, "each row's last token predicts nothing");
    assert_eq!(outputs.select(Axis::Series, 0)?.values, losses.values);
    let next = run.logits.softmax(-1, Kind::Double).get(0).get(2);
    let entropy = -(&next * next.log()).sum(Kind::Double).double_value(&[]);
    near(outputs.at(&[0, 1, 2])?, entropy, 1e-12);
    near(outputs.at(&[0, 2, 2])?, next.max().double_value(&[]), 1e-12);
    let cut = model().run(&batch(), &Plan::new().logits_at(-1))?;
    says(token_losses(&cut), &["expected all positions [2, 7, ..]", "logits_at"]);
    Ok(())
}

#[test]
fn attention_is_read_where_a_motif_says_and_nowhere_else() -> Result<()> {
    let run = cached(&batch());
    let pattern = run.cache.get(Point::Pattern.at(1))?;
    let a = |query: i64, key: i64| pattern.double_value(&[0, 3, query, key]);
    let read = |motif: Motif| -> Result<Vec<Option<f64>>> {
        let grid = attention_to(&run.cache, motif)?;
        let own = |pos: usize| {
            grid.exists(&[0, 1, 3, pos]).then(|| grid.values[[0, 1, 3, pos].as_slice()])
        };
        Ok((0..7).map(own).collect())
    };
    // 1 4 9 4 7 4 9
    let close = |found: Vec<Option<f64>>, expected: [Option<f64>; 7]| {
        for (found, expected) in found.into_iter().zip(expected) {
            assert_eq!(found.is_some(), expected.is_some());
            near(found.unwrap_or(0.0), expected.unwrap_or(0.0), 1e-12);
        }
    };
    let none = None;
    let again = [none, none, none, Some(a(3, 1)), none, Some(a(5, 1) + a(5, 3)), Some(a(6, 2))];
    close(read(Motif::Duplicate)?, again);
    let after = [none, none, none, Some(a(3, 2)), none, Some(a(5, 2) + a(5, 4)), Some(a(6, 3))];
    close(read(Motif::Induction)?, after);
    let before =
        [none, none, Some(a(2, 1)), Some(a(3, 2)), Some(a(4, 3)), Some(a(5, 4)), Some(a(6, 5))];
    close(read(Motif::PreviousToken)?, before);
    let sink =
        [none, none, Some(a(2, 0)), Some(a(3, 0)), Some(a(4, 0)), Some(a(5, 0)), Some(a(6, 0))];
    close(read(Motif::FirstToken)?, sink);
    Ok(())
}

#[test]
fn the_mean_over_tokens_is_the_score_of_the_head() -> Result<()> {
    let tokens = repeated_tokens_of(&model(), &(0..23).collect::<Vec<_>>(), 3, 6, 2)?;
    let run = cached(&tokens);
    for motif in [Motif::PreviousToken, Motif::Duplicate, Motif::Induction, Motif::FirstToken] {
        let each = attention_to(&run.cache, motif)?.mean(Axis::Pos)?.mean(Axis::Batch)?;
        let score = head_scores(&run.cache, motif)?;
        each.values.iter().zip(&score.values).for_each(|(a, b)| near(*a, *b, 1e-12));
    }
    Ok(())
}

#[test]
fn numbers_of_a_padded_row_are_those_of_its_prompt_alone() -> Result<()> {
    let (run, alone) = (cached(&batch()), cached(&batch().row(1)?));
    type Read = fn(&Run) -> Result<Grid>;
    let reads: [(&str, Read); 4] = [
        ("losses", |run| token_losses(run)),
        ("outputs", |run| token_outputs(run)),
        ("induction", |run| attention_to(&run.cache, Motif::Induction)),
        ("entropies", |run| attention_entropies(&run.cache)),
    ];
    for (name, read) in reads {
        let (padded, alone) = (read(&run)?.select(Axis::Batch, 1)?, read(&alone)?);
        let padded = padded.select_many(Axis::Pos, &[3, 4, 5, 6])?;
        assert_eq!(padded.axes.len(), alone.axes.len(), "{name}");
        let (padded, alone): (Vec<_>, Vec<_>) =
            (padded.present().collect(), alone.present().collect());
        assert_eq!(padded.len(), alone.len(), "{name}");
        for ((at, a), (other, b)) in padded.iter().zip(&alone) {
            assert_eq!(at, other, "{name}");
            near(*a, *b, 1e-11);
        }
    }
    let entropy = attention_entropies(&run.cache)?;
    let a = run.cache.get(Point::Pattern.at(0))?.get(0).get(1).get(4).narrow(0, 0, 5);
    near(entropy.at(&[0, 0, 1, 4])?, -(&a * a.log()).sum(Kind::Double).double_value(&[]), 1e-12);
    Ok(())
}

#[test]
fn statistics_of_the_stream_go_with_outputs_of_components_and_of_the_model() -> Result<()> {
    let rows = (0..6).map(|row| (0..7).map(|i| (row * 5 + i * i) % 23).collect());
    let tokens = Tokens::from_ids(&rows.collect::<Vec<_>>())?;
    let sites = [Point::ResidPre, Point::ResidPost, Point::AttnOut, Point::MlpOut, Point::Z];
    let run = model().run(&tokens, &Plan::new().cache(sites))?;
    let quick = Correlate::new(Coefficient::Spearman, 1).shuffles(19).resamples(10);
    let stream = resid_norms(&run.cache)?;
    let components = quick.of(&stream, &component_norms(&run.cache)?)?;
    let axes = |grid: &Grid| grid.axes.iter().map(|axis| axis.axis).collect::<Vec<_>>();
    assert_eq!((axes(&components.r), components.n), (vec![Axis::Layer, Axis::Component], 6 * 6));
    // The stream begins as the embedding.
    near(components.r.get(&["embed", "embed"])?, 1.0, 1e-12);
    let heads = quick.of(&head_norms(&model(), &run.cache)?, &token_outputs(&run)?)?;
    assert_eq!(axes(&heads.r), [Axis::Layer, Axis::Head, Axis::Series]);
    assert_eq!((heads.r.shape(), heads.n, heads.clusters), ([2, 4, 3].as_slice(), 6 * 5, 6));
    Ok(())
}
