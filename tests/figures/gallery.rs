//! One small figure of each kind, with awkward labels: what snapshots hold and the browser draws.

use thalweg::ndarray::{Array2, Array3, Array4};
use thalweg::{
    Axis, Example, Figure, Grid, Prediction, attention, attention_viewer, bars, examples, heatmap,
    lines, predictions, scatter, tokens,
};

/// Words that a label renderer, HTML or SVG could take for something else; two are alike.
pub(super) const WORDS: [&str; 8] =
    ["<s>", " Mary", " gave", "$x$", "<script>alert(1)</script>", "\n", " Mary", " \"a\"&amp;b"];

/// Numbers without a pattern, the same each time.
pub(super) fn wave(i: usize) -> f64 {
    ((i * 7919 + 13) % 101) as f64 / 50.0 - 1.0
}

fn grid2(rows: usize, columns: usize, axes: [Axis; 2], unit: &str) -> Grid {
    let values = Array2::from_shape_fn((rows, columns), |(i, j)| wave(i * columns + j));
    Grid::from_array(values, &axes, unit).unwrap()
}

pub(super) fn lens() -> Grid {
    let grid = grid2(4, 8, [Axis::Layer, Axis::Pos], "logits");
    let grid = grid.relabel(Axis::Pos, &WORDS).unwrap().name("Logit difference by layer");
    grid.code("run.cache.get(Point::ResidPost.at({layer}))?.select(1, {pos})")
}

/// A causal pattern of each head of each layer.
pub(super) fn patterns(layers: usize, heads: usize, len: usize) -> Grid {
    let values = Array4::from_shape_fn((layers, heads, len, len), |(l, h, q, k)| {
        let weight = |k: usize| (2.0 * wave(l * 31 + h * 7 + q * 3 + k * 5)).exp();
        let total: f64 = (0..=q).map(weight).sum();
        if k <= q { weight(k) / total } else { 0.0 }
    });
    let axes = [Axis::Layer, Axis::Head, Axis::Query, Axis::Key];
    let grid = Grid::from_array(values, &axes, "probability").unwrap();
    let words: Vec<&str> = (0..len).map(|i| WORDS[i % WORDS.len()]).collect();
    let grid = grid.relabel(Axis::Query, &words).unwrap().relabel(Axis::Key, &words).unwrap();
    grid.name("Attention")
}

fn points() -> Grid {
    let values = Array3::from_shape_fn((4, 8, 2), |(l, p, c)| wave(l * 16 + p * 2 + c) + l as f64);
    let grid = Grid::from_array(values, &[Axis::Layer, Axis::Pos, Axis::Pc], "projection").unwrap();
    let grid = grid.relabel(Axis::Pos, &WORDS).unwrap().name("Residual stream");
    grid.relabel(Axis::Pc, &["PC1 (61 % of variance)", "PC2 (12 %)"]).unwrap()
}

fn banded() -> Grid {
    let grid = grid2(2, 6, [Axis::Series, Axis::Layer], "accuracy").map(|v| 0.7 + 0.2 * v);
    let grid = grid.relabel(Axis::Series, &["probe", "shuffled labels"]).unwrap();
    let (low, high) = (grid.values.clone() - 0.08, grid.values.clone() + 0.08);
    grid.name("Probe accuracy").interval(low, high, "95 % bootstrap over prompts").unwrap()
}

fn foreseen() -> Vec<Prediction> {
    let one = |(i, word): (usize, &&str)| {
        let listed = WORDS.iter().enumerate().map(|(k, word)| (word.to_string(), -0.5 - k as f64));
        let log_prob = if i == 0 { f64::NAN } else { -0.5 - i as f64 };
        Prediction { token: word.to_string(), log_prob, rank: i, top: listed.collect() }
    };
    WORDS.iter().enumerate().map(one).collect()
}

fn snippets() -> Vec<Example> {
    let one = |i: usize| Example {
        source: format!("prompt {i} <b>"),
        tokens: WORDS.iter().cycle().take(30).map(|word| word.to_string()).collect(),
        values: (0..30).map(|k| (wave(i * 30 + k) * 3.0 - i as f64 * 0.3).max(0.0)).collect(),
    };
    (0..3).map(one).collect()
}

/// Every kind of figure by name.
pub(super) fn all() -> Vec<(&'static str, Figure)> {
    let mean = lens().mean_interval(Axis::Layer).unwrap();
    let long: Vec<String> = WORDS.iter().cycle().take(80).map(|w| w.to_string()).collect();
    let text = grid2(2, 80, [Axis::Series, Axis::Pos], "logits").relabel(Axis::Pos, &long).unwrap();
    let text = text.relabel(Axis::Series, &["direct", "patched"]).unwrap().name("Effect by token");
    vec![
        ("heatmap", heatmap(&lens()).unwrap().site("blocks.{layer}.hook_resid_post")),
        ("heatmap_text", heatmap(&lens()).unwrap().text(&[WORDS; 4]).unwrap()),
        ("lines", lines(&lens()).unwrap().along(Axis::Layer).unwrap()),
        ("lines_bands", lines(&banded()).unwrap()),
        ("bars", bars(&mean).unwrap()),
        ("scatter", scatter(&points()).unwrap()),
        ("attention", attention(&patterns(1, 4, 8).select(Axis::Layer, 0).unwrap()).unwrap()),
        ("attention_viewer", attention_viewer(&patterns(2, 4, 12)).unwrap().kv_heads(2).unwrap()),
        ("tokens", tokens(&text).unwrap()),
        ("predictions", predictions(&foreseen()).unwrap()),
        ("examples", examples(&snippets()).unwrap().title("Neuron 3.17")),
    ]
}
