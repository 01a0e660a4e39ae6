//! One small figure of each kind, with awkward labels: what snapshots hold and the browser draws.

use thalweg::ndarray::{Array1, Array2, Array3, Array4, ArrayD};
use thalweg::{
    Axis, Example, Figure, Grid, Prediction, attention, attention_viewer, bars, circuit,
    clustermap, compare, examples, heatmap, histogram, increments, lines, predictions, scatter,
    silhouettes, spectrum, tokens, versus,
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

/// A lens with the likeliest token in each cell, three statistics in a dropdown.
fn menu() -> Figure {
    let one = |grid: Grid| {
        let figure = heatmap(&grid).unwrap().text(&[WORDS; 4]).unwrap();
        let top = Array2::from_elem((4, 8), "Mary 61 %\nJohn <b> 12 %".to_string());
        figure.hover(&top).unwrap().site("blocks.{layer}.hook_resid_post")
    };
    let prob = lens().map(|v| 0.5 + 0.5 * v).unit("probability").name("Logit lens");
    let rank = lens().map(|v| (v * 100.0).abs().round()).unit("rank").name("Logit lens");
    let entropy = lens().map(|v| 2.0 + v).unit("nats").name("Logit lens, entropy");
    let options = [("probability", one(prob)), ("rank", one(rank)), ("entropy <b>", one(entropy))];
    Figure::menu(&options).unwrap()
}

/// Norms whose first position is far larger.
fn norms() -> Figure {
    let values = Array2::from_shape_fn((4, 8), |(l, p)| {
        (2.0 + wave(l * 8 + p)) * if p == 0 { 900.0 } else { 1.0 + l as f64 }
    });
    let grid = Grid::from_array(values, &[Axis::Layer, Axis::Pos], "L2 norm").unwrap();
    let grid = grid.relabel(Axis::Pos, &WORDS).unwrap().name("Norm of the residual stream");
    heatmap(&grid).unwrap().colors_without(Axis::Pos, &[0]).unwrap().with_log().unwrap()
}

/// Layer by position, one panel for each component.
fn facets() -> Figure {
    let values = Array3::from_shape_fn((3, 4, 8), |(c, l, p)| wave(c * 32 + l * 8 + p));
    let axes = [Axis::Component, Axis::Layer, Axis::Pos];
    let grid = Grid::from_array(values, &axes, "logit difference").unwrap();
    let grid = grid.relabel(Axis::Component, &["residual", "attention", "MLP"]).unwrap();
    let grid = grid.relabel(Axis::Pos, &WORDS).unwrap().zero_one("corrupted run", "clean run");
    heatmap(&grid.name("Activation patching")).unwrap()
}

fn training() -> Figure {
    let values =
        Array3::from_shape_fn((5, 2, 4), |(s, l, h)| s as f64 / 4.0 * wave(l * 4 + h).abs());
    let grid = Grid::from_array(values, &[Axis::Step, Axis::Layer, Axis::Head], "score").unwrap();
    let grid = grid.relabel(Axis::Step, &["0", "100", "200", "500", "1000"]).unwrap();
    heatmap(&grid.name("Induction score")).unwrap().slider(Axis::Step).unwrap()
}

fn heads(seed: usize) -> Grid {
    let grid = grid2(4, 8, [Axis::Layer, Axis::Head], "nats");
    let noise = grid2(4, 8, [Axis::Layer, Axis::Head], "nats").map(|v| (v * 37.0).sin() * 0.1);
    let mut grid = grid;
    grid.values = grid.values + noise.values * seed as f64;
    grid
}

fn variances() -> Grid {
    let values =
        Array2::from_shape_fn((2, 10), |(s, i)| (10.0 - s as f64 * 3.0) * 0.6f64.powi(i as i32));
    let grid = Grid::from_array(values, &[Axis::Series, Axis::Pc], "variance").unwrap();
    grid.relabel(Axis::Series, &["L0", "L3"]).unwrap().name("Explained variance")
}

fn stream() -> Grid {
    let values: Vec<f64> = (0..9).map(|i| i as f64 * 0.4 + 0.5 * wave(i)).collect();
    let grid = Grid::from_array(Array1::from(values), &[Axis::Layer], "logits").unwrap();
    let places =
        ["L0 pre", "L0 mid", "L1 pre", "L1 mid", "L2 pre", "L2 mid", "L3 pre", "L3 mid", "final"];
    grid.relabel(Axis::Layer, &places).unwrap().name("Logit difference over the stream")
}

fn projections() -> Grid {
    let value = |(c, i): (usize, usize)| {
        (0..6).map(|k| wave(c * 977 + i * 6 + k)).sum::<f64>() + c as f64 * 2.0
    };
    let grid = Grid::from_array(
        Array2::from_shape_fn((2, 200), value),
        &[Axis::Series, Axis::Batch],
        "projection",
    );
    grid.unwrap()
        .relabel(Axis::Series, &["names", "<b>verbs"])
        .unwrap()
        .name("Projection on the direction")
}

fn composition() -> Figure {
    let labels = |layer: usize| (0..4).map(|h| format!("L{layer}H{h}")).collect::<Vec<_>>();
    let grid = grid2(4, 4, [Axis::Writer, Axis::Reader], "composition score").map(f64::abs);
    let grid =
        grid.relabel(Axis::Writer, &labels(0)).unwrap().relabel(Axis::Reader, &labels(1)).unwrap();
    heatmap(&grid.name("K-composition")).unwrap()
}

const GROUPS: [&str; 8] = ["a", "b", "a", "c", "b", "a", "c", "b"];

fn cluster() -> Figure {
    let near = |i: usize, j: usize| if GROUPS[i] == GROUPS[j] { 0.8 } else { 0.1 };
    let value =
        |(i, j)| if i == j { 1.0 } else { near(i, j) + 0.15 * wave(i.min(j) * 8 + i.max(j)) };
    let grid = Grid::from_array(
        Array2::from_shape_fn((8, 8), value),
        &[Axis::Component, Axis::Series],
        "correlation",
    );
    let names: Vec<String> = (0..8).map(|i| format!("L{}H{}", i / 4, i % 4)).collect();
    let grid = grid
        .unwrap()
        .relabel(Axis::Component, &names)
        .unwrap()
        .relabel(Axis::Series, &names)
        .unwrap();
    clustermap(&grid.name("Correlation of heads"), &[0, 2, 5, 1, 4, 7, 3, 6], &GROUPS).unwrap()
}

fn fits() -> Figure {
    let values: Vec<f64> = (0..8).map(|i| 0.4 + 0.55 * wave(i)).collect();
    let grid = Grid::from_array(Array1::from(values), &[Axis::Head], "silhouette").unwrap();
    silhouettes(&grid.name("Silhouettes of heads"), &GROUPS).unwrap()
}

/// Edges of a model of two layers with four heads that share two key/value heads.
fn edges() -> Grid {
    let layers = |l: usize| (0..4).map(move |h| format!("L{l}H{h}")).chain([format!("L{l} mlp")]);
    let writers: Vec<String> =
        ["embed".to_string()].into_iter().chain((0..2).flat_map(layers)).collect();
    let reads = |l: usize| {
        let queries = (0..4).map(move |h| format!("L{l}H{h} q"));
        let keys = (0..2).flat_map(move |g| [format!("L{l}G{g} k"), format!("L{l}G{g} v")]);
        queries.chain(keys).chain([format!("L{l} mlp")])
    };
    let readers: Vec<String> = (0..2).flat_map(reads).chain(["logits".to_string()]).collect();
    let layer = |name: &str| name[1..2].parse::<usize>().unwrap();
    let written = |name: &str| match name {
        "embed" => 0,
        name => 4 * layer(name) + if name.ends_with("mlp") { 4 } else { 2 },
    };
    let read = |name: &str| match name {
        "logits" => 99,
        name => 4 * layer(name) + if name.ends_with("mlp") { 3 } else { 1 },
    };
    let score = |(w, r): (usize, usize)| {
        let later = read(&readers[r]) > written(&writers[w]);
        if later { wave(w * 31 + r * 17).powi(3) } else { 0.0 }
    };
    let values = Array2::from_shape_fn((writers.len(), readers.len()), score);
    let grid = Grid::from_array(values, &[Axis::Writer, Axis::Reader], "nats").unwrap();
    let grid =
        grid.relabel(Axis::Writer, &writers).unwrap().relabel(Axis::Reader, &readers).unwrap();
    grid.name("EAP-IG")
}

/// Figures whose numbers are stored as bytes, one with gaps and one drawn by WebGL.
pub(super) fn large() -> Vec<(&'static str, Figure)> {
    let cells = grid2(40, 60, [Axis::Layer, Axis::Pos], "nats").map(|v| v * 0.12345);
    let gaps = ArrayD::from_shape_fn(vec![40, 60], |at| at[0] == 7 && at[1] >= 30);
    let points = grid2(1500, 2, [Axis::Batch, Axis::Pc], "").map(|v| v * 0.98765);
    vec![
        ("large_heatmap", heatmap(&cells.missing(gaps).unwrap()).unwrap()),
        ("large_scatter", scatter(&points).unwrap()),
    ]
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
        ("lens_menu", menu()),
        ("norms_log", norms()),
        ("facets", facets()),
        ("training_slider", training()),
        ("scatter_slider", scatter(&points()).unwrap().slider(Axis::Layer).unwrap()),
        ("versus", versus(&heads(0).name("patching"), &heads(3).name("attribution")).unwrap()),
        ("spectrum", spectrum(&variances()).unwrap()),
        ("increments", increments(&stream()).unwrap()),
        ("histogram", histogram(&projections()).unwrap()),
        ("compare", compare(&heads(0).name("base"), &heads(3).name("tuned")).unwrap()),
        (
            "compare_lines",
            compare(&stream().name("base"), &stream().map(|x| x * x).name("tuned")).unwrap(),
        ),
        ("composition", composition()),
        ("reference", lines(&banded()).unwrap().reference(0.5, "chance").unwrap()),
        ("clustermap", cluster()),
        ("silhouettes", fits()),
        ("circuit", circuit(&edges()).unwrap()),
        ("attention_viewer", attention_viewer(&patterns(2, 4, 6)).unwrap().kv_heads(2).unwrap()),
        ("tokens", tokens(&text).unwrap()),
        ("predictions", predictions(&foreseen()).unwrap()),
        ("examples", examples(&snippets()).unwrap().title("Neuron 3.17")),
    ]
}
