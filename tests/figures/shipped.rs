//! Figures of a shipped model, from the methods' own results. `THALWEG_FIGURES=<folder>` keeps them.

use std::path::Path;

use thalweg::tch::{Device, Kind};
use thalweg::{
    Axis, Direction, EdgeAttribution, Figure, Metric, Model, Plan, Point, Prediction,
    attention_patterns, attention_viewer, circuit, heatmap, lens_top, logit_lens, predictions,
    tokens,
};

#[test]
fn results_of_a_shipped_model_become_figures() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/models/tiny-world");
    let model = Model::load_on(folder, Device::Cpu, Kind::Float).unwrap();
    let clean =
        model.tokens("When Mary and John went to the store , John gave a drink to").unwrap();
    let corrupt =
        model.tokens("When Mary and John went to the store , Mary gave a drink to").unwrap();
    let mary = model.token("Mary").unwrap();
    let plan = Plan::new().cache(Point::Pattern).cache(Point::ResidPre).cache(Point::ResidPost);
    let run = model.run(&clean, &plan).unwrap();
    let patterns = attention_patterns(&run.cache).unwrap();
    let viewer = attention_viewer(&patterns).unwrap();
    let lens = logit_lens(&model, &run.cache, mary).unwrap();
    let top = lens_top(&model, &run.cache).unwrap();
    let likeliest = heatmap(&top.prob).unwrap().text(&top.pieces).unwrap();
    let menu =
        Figure::menu(&[("likeliest", likeliest), ("Mary", heatmap(&lens).unwrap())]).unwrap();
    let metric = Metric::logit_diff(mary, model.token("John").unwrap());
    let edges =
        EdgeAttribution::new(&metric, Direction::Noise).run(&model, &clean, &corrupt).unwrap();
    let graph = circuit(&edges.scores).unwrap();
    let last = lens.select(Axis::Layer, -1).unwrap();
    let written = tokens(&last).unwrap();
    let figures = [
        ("viewer", viewer),
        ("lens", menu),
        ("circuit", graph),
        ("tokens", written),
        ("predictions", foreseen(&model, &clean)),
    ];
    for (name, figure) in &figures {
        let bundle = figure.bundle().unwrap();
        assert!(bundle.size() < 800_000, "{name}: {}", bundle.size());
        roxmltree::Document::parse(&bundle.svg).unwrap();
        if let Some(kept) = std::env::var_os("THALWEG_FIGURES") {
            figure.save(Path::new(&kept).join(format!("shipped-{name}.html"))).unwrap();
        }
    }
    let answer = figures[4].1.bundle().unwrap().text;
    assert!(answer.contains("mean loss"), "{answer}");
}

/// What the model expects in the place of each token.
fn foreseen(model: &Model, text: &thalweg::Tokens) -> Figure {
    let logits = model.logits(text).unwrap().get(0).log_softmax(-1, Kind::Double);
    let pieces = &text.pieces()[0];
    let one = |(i, (piece, id)): (usize, (&String, &i64))| {
        if i == 0 {
            return Prediction {
                token: piece.clone(),
                log_prob: f64::NAN,
                rank: 0,
                top: Vec::new(),
            };
        }
        let here = logits.get(i as i64 - 1);
        let log_prob = here.double_value(&[*id]);
        let rank = here.gt(log_prob).sum(Kind::Int64).int64_value(&[]) as usize;
        let (values, ids) = here.topk(5, -1, true, true);
        let name = |k: i64| model.piece(ids.int64_value(&[k]));
        let top = (0..5).map(|k| (name(k), values.double_value(&[k]))).collect();
        Prediction { token: piece.clone(), log_prob, rank, top }
    };
    let all: Vec<Prediction> = pieces.iter().zip(&text.ids()[0]).enumerate().map(one).collect();
    predictions(&all).unwrap()
}
