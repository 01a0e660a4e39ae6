//! Figures: what is stored, what is escaped, what is refused.

mod browser;
mod gallery;
mod kinds;
mod limits;
mod shipped;
mod snapshots;
mod tools;
mod written;

use serde_json::Value;
use thalweg::ndarray::{Array2, Array3, Array4, ArrayD, array};
use thalweg::{Axis, Figure, Grid, Origin, attention, bars, heatmap, lines, scatter};

/// Tokens that a label renderer, HTML or SVG could take for something else; two are alike.
const TOKENS: [&str; 8] =
    ["<s>", " Mary", "$x$", "<script>alert(1)</script>", "a&amp;b", "\n", " Mary", "%{z}"];

fn lens() -> Grid {
    let values = Array2::from_shape_fn((3, 8), |(l, p)| (l as f64 - 1.0) * (p as f64 + 0.5) / 10.0);
    let grid = Grid::from_array(values, &[Axis::Layer, Axis::Pos], "logits").unwrap();
    grid.relabel(Axis::Pos, &TOKENS).unwrap().name("Lens")
}

fn patterns(heads: usize, len: usize) -> Grid {
    let values =
        Array3::from_shape_fn(
            (heads, len, len),
            |(_, q, k)| if k <= q { 1.0 / (q + 1) as f64 } else { 0.0 },
        );
    Grid::from_array(values, &[Axis::Head, Axis::Query, Axis::Key], "probability").unwrap()
}

fn json(figure: &Figure) -> Value {
    serde_json::from_str(&figure.bundle().unwrap().plotly).unwrap()
}

fn message<T: std::fmt::Debug>(result: thalweg::anyhow::Result<T>) -> String {
    result.unwrap_err().to_string()
}

/// Every kind of figure, with awkward labels.
fn gallery() -> Vec<Figure> {
    let points = Grid::from_array(
        Array2::from_shape_fn((8, 3), |(i, j)| (i * 3 + j) as f64),
        &[Axis::Pos, Axis::Pc],
        "",
    );
    let points = points.unwrap().relabel(Axis::Pos, &TOKENS).unwrap();
    let mean = lens().mean_interval(Axis::Layer).unwrap();
    vec![
        heatmap(&lens()).unwrap(),
        heatmap(&lens()).unwrap().text(&[TOKENS, TOKENS, TOKENS]).unwrap(),
        lines(&lens()).unwrap(),
        lines(&lens()).unwrap().along(Axis::Layer).unwrap(),
        lines(&mean).unwrap(),
        bars(&lens()).unwrap(),
        bars(&lens().top(5)).unwrap(),
        scatter(&points).unwrap().color_by(&TOKENS).unwrap(),
        attention(&patterns(3, 8).relabel(Axis::Key, &TOKENS).unwrap()).unwrap(),
        attention(&patterns(2, 80)).unwrap(),
    ]
}

#[test]
fn a_heatmap_keeps_repeated_tokens_apart_and_names_every_index() {
    let json = json(&heatmap(&lens()).unwrap());
    assert_eq!(json["data"][0]["x"], serde_json::json!([0, 1, 2, 3, 4, 5, 6, 7]));
    let axis = &json["layout"]["xaxis"];
    assert_eq!(axis["ticktext"].as_array().unwrap().len(), 8);
    assert_eq!(
        (axis["ticktext"][1].as_str(), axis["ticktext"][6].as_str()),
        (Some("␣Mary₁"), Some("␣Mary₆"))
    );
    assert_eq!(axis["labelalias"].as_object().unwrap().len(), 8);
    assert_eq!(json["config"]["typesetMath"], false);
    assert_eq!(json["layout"]["title"]["text"], "Lens");
    let hover = json["data"][0]["hovertemplate"].as_str().unwrap();
    assert!(hover.contains("layer <b>%{y}</b>") && hover.contains("logits"), "{hover}");
}

#[test]
fn tokens_reach_plotly_as_text() {
    let json = json(&heatmap(&lens()).unwrap().text(&[TOKENS; 3]).unwrap());
    let ticks = &json["layout"]["xaxis"]["ticktext"];
    assert_eq!(ticks[0], "&lt;s&gt;₀");
    assert_eq!(ticks[2], "&#36;x&#36;₂");
    assert_eq!(ticks[5], "↵₅");
    assert_eq!(ticks[7], "&#37;{z}₇");
    assert_eq!(json["data"][0]["text"][0][3], "&lt;script…");
    assert_eq!(json["data"][0]["customdata"][0][3][0], "&lt;script&gt;alert(1)&lt;/script&gt;");
}

/// Every kind twice: as the tests here name it, and as the gallery has it.
fn every_kind() -> Vec<Figure> {
    gallery().into_iter().chain(gallery::all().into_iter().map(|(_, figure)| figure)).collect()
}

#[test]
fn no_token_becomes_markup_in_html_or_svg() {
    for figure in every_kind() {
        let bundle = figure.bundle().unwrap();
        assert!(
            !bundle.html.contains("<script>alert") && !bundle.svg.contains("<script"),
            "{figure:?}"
        );
        for markup in ["<s>", "<b>verbs", "&amp;b<", "alert(1)</script>"] {
            assert!(!bundle.svg.contains(markup) && !bundle.html.contains(markup), "{figure:?}");
        }
        // Script elements are the data and what draws it, and nothing in the data ends one.
        let scripts = bundle.html.matches("<script").count();
        assert_eq!(bundle.html.matches("</script>").count(), scripts, "{figure:?}");
        assert!(scripts <= 2, "{figure:?}");
    }
}

#[test]
fn every_svg_is_well_formed_and_says_what_it_shows() {
    for figure in every_kind() {
        let bundle = figure.bundle().unwrap();
        let document = roxmltree::Document::parse(&bundle.svg).unwrap();
        let root = document.root_element();
        assert_eq!(root.attribute("role"), Some("img"));
        assert_eq!(root.attribute("aria-label"), Some(bundle.text.as_str()));
        for number in root
            .descendants()
            .flat_map(|node| node.attributes())
            .filter(|a| ["x", "y"].contains(&a.name()))
        {
            assert!(number.value().parse::<f64>().unwrap().is_finite());
        }
    }
}

#[test]
fn the_html_needs_no_network_and_no_requirejs_and_stores_no_plotly() {
    let html = heatmap(&lens()).unwrap().bundle().unwrap().html;
    assert!(html.starts_with("<div class=\"thalweg-figure\">") && html.contains("<svg "));
    assert!(!html.contains("require(") && html.len() < 60_000, "{}", html.len());
    assert!(html.contains("window.Plotly"));
}

#[test]
fn signed_values_are_red_white_blue_about_zero() {
    let json = json(&heatmap(&lens()).unwrap());
    let colors = &json["layout"]["coloraxis"];
    assert_eq!(colors["cmin"].as_f64().unwrap(), -colors["cmax"].as_f64().unwrap());
    let scale = colors["colorscale"].as_array().unwrap();
    assert_eq!(scale[scale.len() / 2], serde_json::json!([0.5, "rgb(255,255,255)"]));
    assert_eq!(scale[0][1], "rgb(103,0,31)");
    assert_eq!(scale[scale.len() - 1][1], "rgb(5,48,97)");
}

#[test]
fn values_of_one_sign_go_from_light_to_dark() {
    let scale = |figure: &Figure| json(figure)["layout"]["coloraxis"].clone();
    let positive = scale(&heatmap(&lens().map(|x| x.abs() + 0.1)).unwrap());
    assert_eq!(
        (positive["cmin"].as_f64(), &positive["colorscale"][0][1]),
        (Some(0.0), &"rgb(255,255,255)".into())
    );
    let negative = scale(&heatmap(&lens().map(|x| -x.abs())).unwrap());
    assert_eq!(
        (negative["cmax"].as_f64(), &negative["colorscale"][5][1]),
        (Some(0.0), &"rgb(255,255,255)".into())
    );
}

#[test]
fn a_range_set_by_hand_keeps_zero_white() {
    let json = json(&heatmap(&lens()).unwrap().range(-1.0, 3.0).unwrap());
    let scale = json["layout"]["coloraxis"]["colorscale"].as_array().unwrap();
    let zero = scale.iter().find(|stop| stop[0] == 0.25).unwrap();
    assert_eq!(zero[1], "rgb(255,255,255)");
    assert!(message(heatmap(&lens()).unwrap().range(1.0, 1.0)).contains("smaller first"));
    assert!(message(heatmap(&lens()).unwrap().range(f64::NAN, 1.0)).contains("finite"));
}

#[test]
fn layer_zero_stands_at_the_bottom_unless_told_otherwise() {
    let range = |figure: &Figure| json(figure)["layout"]["yaxis"]["range"].clone();
    let figure = heatmap(&lens()).unwrap();
    assert_eq!(range(&figure), serde_json::json!([-0.5, 2.5]));
    assert_eq!(range(&figure.origin(Origin::Top)), serde_json::json!([2.5, -0.5]));
    let turned = heatmap(&lens().transpose(&[Axis::Pos, Axis::Layer]).unwrap()).unwrap();
    assert_eq!(range(&turned), serde_json::json!([7.5, -0.5]));
    assert_eq!(range(&turned.origin(Origin::Bottom)), serde_json::json!([-0.5, 7.5]));
}

#[test]
fn the_svg_stands_the_same_way_up() {
    let height = |origin: Origin, label: &str| {
        let svg = heatmap(&lens()).unwrap().origin(origin).bundle().unwrap().svg;
        let document = roxmltree::Document::parse(&svg).unwrap();
        let text = document
            .descendants()
            .find(|node| node.tag_name().name() == "text" && node.text() == Some(label));
        text.unwrap().attribute("y").unwrap().parse::<f64>().unwrap()
    };
    assert!(height(Origin::Bottom, "L0") > height(Origin::Bottom, "L2"));
    assert!(height(Origin::Top, "L0") < height(Origin::Top, "L2"));
}

#[test]
fn the_colour_bar_says_unit_and_what_zero_and_one_mean() {
    let grid = lens().unit("recovered").zero_one("corrupt", "clean");
    let json = json(&heatmap(&grid).unwrap());
    let title = json["layout"]["coloraxis"]["colorbar"]["title"]["text"].as_str().unwrap();
    assert_eq!(title.replace("<br>", " "), "recovered 0 = corrupt 1 = clean");
    assert_eq!(json["layout"]["coloraxis"]["cmax"].as_f64(), Some(1.0));
}

#[test]
fn a_value_that_is_not_finite_is_an_error_that_says_where() {
    let error = message(heatmap(&lens().map(|x| if x == 0.75 { f64::NAN } else { x })));
    assert!(error.starts_with("cannot draw NaN at L2 pos 7 \"%{z}\", one of 1 values"), "{error}");
    let bad = lens().map(|_| f64::INFINITY);
    for drawn in [lines(&bad), bars(&bad), scatter(&bad)] {
        assert!(message(drawn).contains("cannot draw inf at L0 pos 0"));
    }
    assert!(heatmap(&bad.missing_where(|x| x.is_infinite())).is_err());
}

#[test]
fn missing_cells_are_gaps() {
    let grid = lens().missing_where(|x| x == 0.0);
    let json = json(&heatmap(&grid).unwrap());
    assert!(json["data"][0]["z"][1].as_array().unwrap().iter().all(Value::is_null));
    let drawn = heatmap(&grid).unwrap().bundle().unwrap().svg.matches("<title>").count();
    assert_eq!(drawn, 1 + 16);
}

#[test]
fn attention_leaves_out_keys_that_come_later() {
    let json = json(&attention(&patterns(2, 3)).unwrap());
    assert_eq!(json["data"].as_array().unwrap().len(), 2);
    assert_eq!(json["data"][1]["z"], serde_json::json!([[1], [0.5, 0.5], [0.333, 0.333, 0.333]]));
    assert_eq!(json["data"][1]["name"], "H1");
    assert_eq!(json["data"][1]["coloraxis"], "coloraxis");
    assert_eq!(json["layout"]["coloraxis"]["cmax"].as_f64(), Some(1.0));
    assert_eq!(json["layout"]["yaxis"]["range"], serde_json::json!([2.5, -0.5]));
}

#[test]
fn attention_of_every_head_is_one_panel_each_beyond_eight_axes() {
    let values = Array4::from_elem((3, 4, 5, 5), 0.2);
    let axes = [Axis::Layer, Axis::Head, Axis::Query, Axis::Key];
    let json = json(&attention(&Grid::from_array(values, &axes, "probability").unwrap()).unwrap());
    assert_eq!(json["data"].as_array().unwrap().len(), 12);
    assert_eq!(json["data"][11]["xaxis"], "x12");
    assert_eq!(json["layout"]["yaxis12"]["matches"], "y");
    assert!(json["layout"]["annotations"].as_array().unwrap().iter().any(|a| a["text"] == "L2H3"));
}

#[test]
fn attention_wants_queries_and_keys() {
    assert!(message(attention(&lens())).contains("attention takes axes Query and Key"));
}

#[test]
fn all_attention_of_a_small_model_stays_within_its_budget() {
    let values =
        Array4::from_shape_fn((4, 8, 64, 64), |(l, h, q, k)| ((l + h + q * k) % 97) as f64 / 97.0);
    let axes = [Axis::Layer, Axis::Head, Axis::Query, Axis::Key];
    let bundle = attention(&Grid::from_array(values, &axes, "probability").unwrap())
        .unwrap()
        .bundle()
        .unwrap();
    assert!(bundle.plotly.len() < 500_000, "{}", bundle.plotly.len());
    assert!(bundle.svg.len() < 300_000, "{}", bundle.svg.len());
    assert!(bundle.text.contains("this figure stores 1."), "{}", bundle.text);
}

#[test]
fn a_hover_carries_the_code_of_its_cell() {
    let grid = lens().code("run.cache.get(Point::ResidPost.at({layer}))?.i((0, {pos}))");
    let json = json(&heatmap(&grid).unwrap());
    assert_eq!(
        json["data"][0]["customdata"][2][7][0],
        "run.cache.get(Point::ResidPost.at(2))?.i((0, 7))"
    );
    assert!(json["data"][0]["hovertemplate"].as_str().unwrap().contains("%{customdata[0]}"));
}

#[test]
fn lines_run_along_the_ordered_axis_with_a_band_for_bounds() {
    let grid = Grid::from_array(Array2::from_elem((4, 2), 1.0), &[Axis::Layer, Axis::Head], "nats")
        .unwrap();
    let names = |figure: &Figure| {
        json(figure)["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| t["name"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&lines(&grid).unwrap()), ["H0", "H1"]);
    assert_eq!(names(&lines(&grid).unwrap().along(Axis::Head).unwrap()), ["L0", "L1", "L2", "L3"]);
    assert!(message(lines(&grid).unwrap().along(Axis::Pos)).contains("axes are [Layer 4, Head 2]"));
    let low = ArrayD::from_elem(vec![4, 2], 0.5);
    let json =
        json(&lines(&grid.interval(low.clone(), low + 1.0, "95 % bootstrap").unwrap()).unwrap());
    assert_eq!(json["data"].as_array().unwrap().len(), 6);
    assert_eq!(json["data"][1]["fill"], "tonexty");
    assert!(json.to_string().contains("bounds: 95 &#37; bootstrap"));
    assert_eq!(json["layout"]["hovermode"], "x unified");
}

#[test]
fn bars_are_blue_above_and_red_below_zero_with_whiskers() {
    let grid = Grid::from_array(array![1.0, -2.0], &[Axis::Component], "logits").unwrap();
    let grid =
        grid.interval(array![0.5, -2.5].into_dyn(), array![1.5, -1.0].into_dyn(), "test").unwrap();
    let json = json(&bars(&grid).unwrap());
    assert_eq!(
        json["data"][0]["marker"]["color"],
        serde_json::json!(["rgb(33,102,172)", "rgb(178,24,43)"])
    );
    assert_eq!(json["data"][0]["error_y"]["arrayminus"], serde_json::json!([0.5, 0.5]));
    assert_eq!(json["data"][0]["error_y"]["array"], serde_json::json!([0.5, 1.0]));
}

#[test]
fn a_scatter_titles_its_axes_and_colours_by_group() {
    let values = Array3::from_shape_fn((2, 3, 2), |(l, p, c)| (l * 6 + p * 2 + c) as f64);
    let grid = Grid::from_array(values, &[Axis::Layer, Axis::Pos, Axis::Pc], "projection").unwrap();
    let grid = grid.relabel(Axis::Pc, &["PC1 (60 %)", "PC2 (9 %)"]).unwrap();
    let figure = scatter(&grid).unwrap();
    let drawn = json(&figure);
    assert_eq!(drawn["layout"]["xaxis"]["title"]["text"], "PC1 (60 &#37;)");
    assert_eq!(
        (&drawn["data"][1]["name"], &drawn["data"][1]["hovertext"][2]),
        (&"L1".into(), &"L1, position 2".into())
    );
    let turned = json(&figure.clone().components(-1, 0).unwrap().color_by_axis(Axis::Pos).unwrap());
    assert_eq!(turned["layout"]["xaxis"]["title"]["text"], "PC2 (9 &#37;)");
    assert_eq!(turned["data"].as_array().unwrap().len(), 3);
    assert!(message(figure.clone().color_by(&["a"])).contains("1 group names given for 6 points"));
    assert!(message(figure.clone().components(0, 2)).contains("components 0 and 2 of 2"));
    assert!(message(figure.color_by_axis(Axis::Pc)).contains("holds the coordinates"));
}

#[test]
fn figures_join_in_rows_and_columns_with_their_own_colours() {
    let (one, two) = (heatmap(&lens()).unwrap(), attention(&patterns(2, 4)).unwrap());
    let row = Figure::row(&[one.clone(), two, lines(&lens()).unwrap()]).title("Together");
    let both = Figure::column(&[row, bars(&lens().top(3)).unwrap()]);
    let json = json(&both);
    assert_eq!(json["data"][0]["coloraxis"], "coloraxis");
    assert_eq!(json["data"][1]["coloraxis"], "coloraxis2");
    assert_eq!(json["layout"]["hovermode"], "closest");
    let width = |figure: &Figure| self::json(figure)["layout"]["width"].as_u64().unwrap();
    assert!(width(&both) > width(&one)); // the third goes on below
    let bundle = both.bundle().unwrap();
    roxmltree::Document::parse(&bundle.svg).unwrap();
    assert!(bundle.text.contains("Together; heatmap: Lens [Layer 3, Pos 8]"), "{}", bundle.text);
    assert!(Figure::row(&[]).bundle().is_ok());
}

#[test]
fn a_figure_prints_one_line_with_its_numbers() {
    let figure = heatmap(&lens()).unwrap().title("A lens");
    let line = "heatmap: A lens [Layer 3, Pos 8] in logits: min -0.75 at L0 pos 7 \"%{z}\", max 0.75 at L2 pos 7 \"%{z}\"";
    assert_eq!(format!("{figure:?}"), line);
    assert_eq!(figure.bundle().unwrap().text, line);
    for figure in gallery() {
        assert!(!format!("{figure:?}").contains('\n'));
    }
}

#[test]
fn a_figure_can_cross_threads() {
    fn check<T: Clone + Send + std::fmt::Debug>() {}
    check::<Figure>();
    check::<Grid>();
}

#[test]
fn likely_is_dark_for_log_probabilities_and_for_scores_from_zero_to_one() {
    let colors = |grid: &Grid| json(&heatmap(grid).unwrap())["layout"]["coloraxis"].clone();
    let ends = |axis: &Value| {
        let scale = axis["colorscale"].as_array().unwrap();
        (scale[0][1].clone(), scale[scale.len() - 1][1].clone())
    };
    let light_to_dark = ("rgb(255,255,255)".into(), "rgb(5,48,97)".into());
    let log = colors(&lens().map(|x| -x.abs() - 1.0).unit("nats (log-probability)"));
    assert_eq!((log["cmax"].as_f64(), ends(&log)), (Some(0.0), light_to_dark.clone()));
    let score = colors(&lens().map(f64::abs).unit("attention").zero_one("none of it", "all of it"));
    assert_eq!((score["cmin"].as_f64(), score["cmax"].as_f64()), (Some(0.0), Some(1.0)));
    assert_eq!(ends(&score), light_to_dark);
}
