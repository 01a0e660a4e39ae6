//! Coloured text, the attention viewer and graphs: what plotly does not draw.

use serde_json::Value;
use thalweg::ndarray::{Array2, Array4, array};
use thalweg::{
    Axis, Example, Figure, GraphLink, GraphNode, Grid, Prediction, attention_viewer, circuit,
    examples, graph, heatmap, predictions, tokens,
};

use super::gallery::{WORDS, patterns};
use super::{lens, message};

fn text() -> Grid {
    let values = array![0.0, -1.0, 1.0, 0.5];
    let grid = Grid::from_array(values, &[Axis::Pos], "logits").unwrap().name("Effect");
    grid.relabel(Axis::Pos, &["<s>", " Mary", "\n", " \"a\"&$b$"]).unwrap()
}

#[test]
fn zero_is_white_and_the_signs_are_red_and_blue_in_text() {
    let html = tokens(&text()).unwrap().bundle().unwrap().html;
    let span = |words: &str| {
        let end =
            html.find(&format!(">{words}</span>")).unwrap_or_else(|| panic!("{words}: {html}"));
        html[html[..end].rfind("<span").unwrap()..end].to_string()
    };
    assert!(span("&lt;s&gt;").contains("background:#ffffff"));
    assert!(
        span(" Mary").contains("background:#67001f") && span(" Mary").contains("color:#ffffff")
    );
    assert!(span("↵").contains("background:#053061"));
    assert!(
        span(" &quot;a&quot;&amp;$b$")
            .contains("title=\"position 3 “␣&quot;a&quot;&amp;$b$”: 0.5 logits\"")
    );
    assert!(html.contains("↵</span><br>"), "a newline ends the line");
}

#[test]
fn text_needs_no_script_and_is_no_plotly_figure() {
    for figure in [
        tokens(&text()).unwrap(),
        examples(&[snippet(vec![1.0, 2.0])]).unwrap(),
        predictions(&[prediction(-1.0)]).unwrap(),
    ] {
        let bundle = figure.bundle().unwrap();
        assert!(!bundle.html.contains("<script") && bundle.plotly.is_empty());
        assert!(bundle.html.contains("background:#fff"), "readable on a dark page");
        let error = message(figure.save(std::env::temp_dir().join("thalweg-text.json")));
        assert!(
            error.contains("plotly cannot draw") && error.contains("save .svg or .html"),
            "{error}"
        );
    }
}

#[test]
fn text_takes_any_axis_of_positions_and_one_line_for_each_other_index() {
    let both = Grid::stack(Axis::Series, &[("direct", &text()), ("patched", &text())]).unwrap();
    let turned = both.transpose(&[Axis::Pos, Axis::Series]).unwrap();
    let bundle = tokens(&turned).unwrap().bundle().unwrap();
    assert_eq!(bundle.html.matches("<tr style").count(), 2);
    assert!(bundle.html.contains(">direct</td>") && bundle.svg.contains(">patched</text>"));
    let key = lens().select(Axis::Layer, 0).unwrap();
    let heads = Grid::from_array(array![1.0, 2.0], &[Axis::Head], "").unwrap();
    assert!(tokens(&key).is_ok());
    assert!(message(tokens(&heads)).contains("needs an axis Pos, Query or Key, found [Head 2]"));
    assert!(message(tokens(&text().map(|_| f64::NAN))).starts_with("cannot draw NaN at pos 0"));
}

#[test]
fn a_token_without_a_value_has_no_colour() {
    let mut missing = text().missing_where(|v| v == 0.5);
    missing.code = Some("cache.get(Point::Z.at(0))?.get({pos})".into());
    let html = tokens(&missing).unwrap().bundle().unwrap().html;
    assert!(html.contains("no value"));
    assert!(html.contains("&#10;cache.get(Point::Z.at(0))?.get(1)\""), "the tooltip says the code");
}

fn prediction(log_prob: f64) -> Prediction {
    let top = vec![(" a".to_string(), -0.1), ("<b>".to_string(), -3.0)];
    Prediction { token: "<b>".into(), log_prob, rank: 1, top }
}

#[test]
fn predictions_mark_the_true_token_among_the_expected() {
    let html = predictions(&[prediction(-3.0)]).unwrap().bundle().unwrap().html;
    assert!(html.contains("<b> 2  &lt;b&gt;  5.0 %</b>"), "{html}");
    assert!(html.contains("probability 5.0 %, log-probability -3.00, rank 1"));
    assert!(html.contains(":hover") && html.contains("tabindex=\"0\""));
    let error = message(predictions(&[prediction(0.5)]));
    assert_eq!(error, "a log-probability is at most 0, found 0.5 at position 0 \"<b>\"");
    assert!(message(predictions(&[])).contains("no prediction"));
}

fn snippet(values: Vec<f64>) -> Example {
    let tokens = values.iter().enumerate().map(|(i, _)| format!(" t{i}")).collect();
    Example { source: "prompt 3".into(), tokens, values }
}

#[test]
fn examples_share_one_scale_and_stress_the_peak() {
    let all = [snippet(vec![0.0, 4.0]), snippet(vec![2.0, 1.0])];
    let html = examples(&all).unwrap().unit("post-GELU").unwrap().bundle().unwrap().html;
    let peak = html.split("font-weight:bold").nth(1).unwrap();
    assert!(peak.contains("> t1</span>"), "{peak}");
    assert_eq!(html.matches("background:#053061").count(), 1, "only the largest is darkest");
    assert!(html.contains("4 post-GELU"));
    let broken = Example { values: vec![1.0], ..snippet(vec![1.0, 2.0]) };
    assert_eq!(message(examples(&[broken])), "example 0 has 2 tokens and 1 values");
    assert!(message(examples(&[snippet(vec![f64::NAN])])).contains("no finite value"));
    assert!(message(tokens(&text()).unwrap().unit("x")).contains("is its grid's"));
}

fn stored(html: &str) -> Value {
    let data = html.split("class=\"thalweg-patterns\">").nth(1).unwrap();
    serde_json::from_str(data.split("</script>").next().unwrap()).unwrap()
}

#[test]
fn the_viewer_stores_a_byte_for_each_key_that_is_seen() {
    let bundle = attention_viewer(&patterns(2, 4, 6)).unwrap().bundle().unwrap();
    let data = stored(&bundle.html);
    // 8 heads of 6 * 7 / 2 cells, four characters of base64 for three bytes.
    assert_eq!(data["values"].as_str().unwrap().len(), (8 * 21usize).div_ceil(3) * 4);
    assert_eq!((&data["causal"], &data["heads"][7]), (&true.into(), &"L1H3".into()));
    assert_eq!(data["queries"][4], WORDS[4]);
    assert!(!bundle.html.contains("innerHTML") && !bundle.html.contains("http://cdn"));
    assert!(bundle.html.contains("thalweg-static") && bundle.svg.contains(">L1H3</text>"));
    roxmltree::Document::parse(&bundle.svg).unwrap();
}

#[test]
fn the_viewer_marks_heads_that_share_keys() {
    let figure = attention_viewer(&patterns(2, 4, 6)).unwrap();
    let html = figure.clone().kv_heads(2).unwrap().bundle().unwrap().html;
    assert_eq!(stored(&html)["groups"], serde_json::json!([0, 0, 1, 1, 0, 0, 1, 1]));
    let turned = patterns(2, 4, 6).transpose(&[Axis::Head, Axis::Layer, Axis::Query, Axis::Key]);
    let turned = attention_viewer(&turned.unwrap()).unwrap().kv_heads(2).unwrap();
    let groups = stored(&turned.bundle().unwrap().html)["groups"].clone();
    assert_eq!(groups, serde_json::json!([0, 0, 0, 0, 1, 1, 1, 1]));
    let some = patterns(2, 4, 6).select_many(Axis::Head, &[3, 1]).unwrap();
    let some = attention_viewer(&some).unwrap();
    assert!(message(some.kv_heads(2)).contains("head \"H3\", expected all heads of a layer"));
    assert!(message(figure.kv_heads(3)).contains("4 heads cannot share 3 key/value heads"));
    assert!(message(heatmap(&lens()).unwrap().kv_heads(1)).contains("attention viewer"));
}

#[test]
fn attention_too_large_for_a_notebook_is_refused() {
    let values = Array4::from_elem((8, 32, 96, 96), 0.1);
    let axes = [Axis::Layer, Axis::Head, Axis::Query, Axis::Key];
    let grid = Grid::from_array(values, &axes, "probability").unwrap();
    let bundle =
        attention_viewer(&grid.select_many(Axis::Layer, &[0, 1, 2, 3]).unwrap()).unwrap().bundle();
    assert!(bundle.unwrap().text.contains("this figure stores "), "more than 1 MB is said");
    let large = Array4::from_elem((8, 32, 128, 128), 0.1);
    let large = Grid::from_array(large, &axes, "probability").unwrap();
    assert!(
        message(attention_viewer(&large).unwrap().bundle()).contains("select or average first")
    );
}

#[test]
fn a_circuit_joins_what_writes_and_what_reads() {
    let values = array![[0.5, 0.0, -2.0], [0.0, 0.0, 1.0]];
    let grid = Grid::from_array(values, &[Axis::Writer, Axis::Reader], "nats").unwrap();
    let grid = grid.relabel(Axis::Writer, &["embed", "L0H3"]).unwrap();
    let grid = grid.relabel(Axis::Reader, &["L0G1 k", "L0 mlp", "logits"]).unwrap().name("EAP <b>");
    let bundle = circuit(&grid).unwrap().bundle().unwrap();
    for link in ["embed → L0G1 k: 0.5 nats", "embed → logits: -2 nats", "L0H3 → logits: 1 nats"]
    {
        assert!(bundle.svg.contains(link), "{link}");
    }
    assert!(!bundle.svg.contains("mlp"), "a node without links is not drawn");
    assert!(bundle.text.contains("heaviest embed → logits: -2 nats"), "{}", bundle.text);
    assert!(bundle.svg.contains("stroke-dasharray"), "the head is tied to its key/value head");
    let odd = grid.clone().relabel(Axis::Writer, &["embed", "head 3"]).unwrap();
    assert!(message(circuit(&odd)).contains("\"head 3\" is no component of a circuit"));
    for large in ["L0H18446744073709551615", "L9999999999999999999 mlp", "L0H1048577"] {
        let large = grid.clone().relabel(Axis::Writer, &["embed", large]).unwrap();
        assert!(message(circuit(&large)).contains("is no component of a circuit"));
    }
    assert!(message(circuit(&lens())).contains("no axis Writer"));
}

#[test]
fn a_graph_keeps_the_heaviest_links_and_runs_upwards() {
    let node = |row, column| GraphNode { name: format!("{row}@{column}"), row, column };
    let nodes: Vec<_> =
        (0..2).flat_map(|row| (0..20).map(move |column| node(row, column))).collect();
    let link = |i: usize| GraphLink {
        from: i % 20,
        to: 20 + i / 20,
        weight: i as f64,
        port: String::new(),
    };
    let links: Vec<_> = (0..400).map(link).collect();
    let bundle = graph(&nodes, &links, "share").unwrap().title("Flow").bundle().unwrap();
    assert_eq!(bundle.html.matches("data-weight=\"").count(), 300);
    assert_eq!(bundle.svg.matches("data-weight=\"").count(), 40);
    assert!(bundle.svg.contains("the 100 lightest links are left out"));
    let down = GraphLink { from: 25, to: 3, weight: 1.0, port: String::new() };
    assert!(message(graph(&nodes, &[down], "")).contains("does not run upwards: rows 1 and 0"));
    assert!(message(graph(&nodes, &[], "")).contains("no link"));
    let lost = GraphLink { from: 0, to: 99, weight: 1.0, port: String::new() };
    assert!(message(graph(&nodes, &[lost], "")).contains("joins nodes 0 and 99 of 40"));
}

#[test]
fn text_and_charts_stand_side_by_side() {
    let row = Figure::row(&[tokens(&text()).unwrap(), heatmap(&lens()).unwrap()]).title("Both <s>");
    let bundle = Figure::column(&[row.clone(), row]).bundle().unwrap();
    assert!(bundle.plotly.is_empty());
    assert_eq!(bundle.html.matches("class=\"thalweg-text\"").count(), 2);
    assert_eq!(bundle.html.matches("class=\"thalweg-figure\"").count(), 2);
    assert!(bundle.html.contains("Both &lt;s&gt;"));
    roxmltree::Document::parse(&bundle.svg).unwrap();
    let record = tokens(&text()).unwrap().record();
    assert_eq!(record["grids"][0]["name"], "Effect");
    let wide = Array2::from_elem((2, 3), 1.0);
    let wide = Grid::from_array(wide, &[Axis::Layer, Axis::Pos], "").unwrap();
    assert!(format!("{:?}", tokens(&wide).unwrap()).starts_with("tokens: [Layer 2, Pos 3]"));
}
