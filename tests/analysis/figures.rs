//! Every analysis returns what some figure takes.

use thalweg::prelude::*;

use super::{cached, prompt};
use crate::support::model;

#[test]
fn the_figures_draw_what_the_analyses_return() {
    let (model, tokens) = (model(), prompt());
    let run = cached(&model, &tokens, Sites::everything());
    let cache = &run.cache;
    let metric = Metric::logit_diff(2, 3);
    let top = lens_top(&model, cache).unwrap();
    let heads = head_attribution(&model, cache, &metric).unwrap();
    let zero = Intervention::zero();
    let curve = ablation_curve(&model, &tokens, &[(0, 1), (1, 2)], &zero, &metric).unwrap();
    let figures = [
        heatmap(&logit_lens(&model, cache, 7).unwrap()),
        heatmap(&top.prob).and_then(|figure| figure.text(&top.pieces)),
        heatmap(&resid_norms(cache).unwrap()),
        lines(&resid_cosines(cache).unwrap()),
        bars(&attribution(&model, cache, &metric).unwrap()),
        heatmap(&heads),
        bars(&heads.top(5)),
        attention(&attention_pattern(cache, 0).unwrap()),
        heatmap(&head_scores(cache, Motif::PreviousToken).unwrap()),
        lines(&Grid::stack(Axis::Series, &[("chosen", &curve), ("random", &curve)]).unwrap()),
        scatter(&pca(cache, Point::ResidPost.at(1), 2).unwrap().scores),
    ];
    for (at, figure) in figures.into_iter().enumerate() {
        let svg =
            figure.unwrap_or_else(|error| panic!("figure {at}: {error}")).bundle().unwrap().svg;
        assert!(svg.starts_with("<svg"), "figure {at}");
    }
}
