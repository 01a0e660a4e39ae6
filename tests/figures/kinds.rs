//! What each further chart draws: menus, sliders, comparisons, spectra, histograms, clusters.

use serde_json::{Value, json as value};
use thalweg::ndarray::{Array1, Array2, Array3, array};
use thalweg::{
    Axis, Figure, Grid, clustermap, compare, heatmap, histogram, increments, lines, scatter,
    silhouettes, spectrum, tokens, versus,
};

use super::gallery::wave;
use super::{TOKENS, json, lens, message};

fn head_scores() -> Grid {
    let values = Array2::from_shape_fn((2, 3), |(l, h)| wave(l * 3 + h));
    Grid::from_array(values, &[Axis::Layer, Axis::Head], "nats").unwrap()
}

#[test]
fn a_menu_holds_every_option_and_shows_the_first() {
    let probability = heatmap(&lens().map(|v| v * v).unit("probability")).unwrap();
    let figure =
        Figure::menu(&[("a <b>", heatmap(&lens()).unwrap()), ("probability", probability)])
            .unwrap();
    let drawn = json(&figure);
    let visible: Vec<_> =
        drawn["data"].as_array().unwrap().iter().map(|t| t["visible"].clone()).collect();
    assert_eq!(visible, [true, false]);
    let buttons = &drawn["layout"]["updatemenus"][0]["buttons"];
    assert_eq!(buttons[0]["label"], "a &lt;b&gt;");
    assert_eq!(buttons[1]["args"][0]["visible"], value!([false, true]));
    let bar = |i: usize| &buttons[i]["args"][1]["coloraxis"]["colorbar"]["title"]["text"];
    assert_eq!((bar(0), bar(1)), (&"logits".into(), &"probability".into()));
    assert!(figure.bundle().unwrap().svg.contains("not shown: probability"));
    assert!(format!("{figure:?}").starts_with("menu (a <b>, probability): heatmap"));
    let two =
        heatmap(&Grid::stack(Axis::Series, &[("x", &lens()), ("y", &lens())]).unwrap()).unwrap();
    let error = message(Figure::menu(&[("one", heatmap(&lens()).unwrap()), ("two", two)]));
    assert!(error.contains("equally many panels; \"two\""), "{error}");
    assert!(Figure::menu(&[]).is_err());
}

#[test]
fn a_slider_keeps_one_range_of_colours_and_of_axes() {
    let values = Array3::from_shape_fn((3, 2, 4), |(s, l, h)| s as f64 * wave(l * 4 + h));
    let grid = Grid::from_array(values, &[Axis::Step, Axis::Layer, Axis::Head], "score").unwrap();
    let drawn = json(&heatmap(&grid).unwrap().slider(Axis::Step).unwrap());
    let steps = drawn["layout"]["sliders"][0]["steps"].as_array().unwrap();
    assert_eq!((steps.len(), &drawn["layout"]["sliders"][0]["active"]), (3, &2.into()));
    assert!(
        steps.iter().all(|step| step["args"][1].get("coloraxis").is_none()),
        "colours never change"
    );
    let points = Array3::from_shape_fn((3, 5, 2), |(l, p, c)| l as f64 + wave(p * 2 + c));
    let points = Grid::from_array(points, &[Axis::Layer, Axis::Pos, Axis::Pc], "").unwrap();
    let whole = json(&scatter(&points).unwrap());
    let drawn = json(&scatter(&points).unwrap().slider(Axis::Layer).unwrap());
    assert_eq!(drawn["layout"]["xaxis"]["range"], whole["layout"]["xaxis"]["range"]);
    assert_eq!(drawn["layout"]["sliders"][0]["steps"][0]["label"], "L0");
    let error = message(heatmap(&lens()).unwrap().slider(Axis::Layer));
    assert!(error.contains("too little is left to draw; axes are [Layer 3, Pos 8]"), "{error}");
}

#[test]
fn logarithms_leave_out_what_has_none() {
    let figure = heatmap(&lens().unit("norm")).unwrap().with_log().unwrap();
    let drawn = json(&figure);
    let positive = lens().values.iter().filter(|v| **v > 0.0).count();
    let logs =
        drawn["data"][1]["z"].as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
    assert_eq!(logs.filter(|v| !v.is_null()).count(), positive);
    let bar = &drawn["layout"]["updatemenus"][0]["buttons"][1]["args"][1]["coloraxis"]["colorbar"];
    assert_eq!(bar["title"]["text"], "log10 norm");
    assert!(
        message(heatmap(&lens().map(|v| -v.abs())).unwrap().with_log()).contains("is positive")
    );
}

#[test]
fn an_index_can_be_left_out_of_the_colours() {
    let norms = lens().map(f64::abs);
    let figure = heatmap(&norms).unwrap();
    let most = |figure: &Figure| json(figure)["layout"]["coloraxis"]["cmax"].as_f64().unwrap();
    let without = figure.clone().colors_without(Axis::Pos, &[-1]).unwrap();
    assert_eq!((most(&figure), most(&without)), (0.75, 0.65));
    assert!(without.bundle().unwrap().svg.contains("leaves out position %{z}"));
    assert!(message(figure.clone().colors_without(Axis::Pos, &[8])).contains("which has 8"));
    assert!(message(figure.colors_without(Axis::Head, &[0])).contains("no axis Head"));
}

#[test]
fn a_hover_names_the_site_and_says_what_was_given() {
    let told = [["one\ntwo <s>"; 8]; 3];
    let figure =
        heatmap(&lens()).unwrap().site("blocks.{layer}.hook_resid_post").hover(&told).unwrap();
    let drawn = json(&figure);
    let custom = &drawn["data"][0]["customdata"][2][1];
    assert_eq!(custom[0], "blocks.2.hook_resid_post @ \" Mary\"_1");
    assert_eq!(custom[1], "one<br>two &lt;s&gt;");
    let grid = lens().note("site", "blocks.{layer}.hook_resid_pre");
    let text = tokens(&grid).unwrap().bundle().unwrap().html;
    assert!(text.contains("blocks.1.hook_resid_pre @ &quot; Mary&quot;_6: 0 logits"), "{text}");
}

#[test]
fn points_show_their_token_in_its_text() {
    let values = Array2::from_shape_fn((8, 2), |(i, c)| wave(i * 2 + c));
    let grid = Grid::from_array(values, &[Axis::Pos, Axis::Pc], "").unwrap();
    let figure = scatter(&grid.relabel(Axis::Pos, &TOKENS).unwrap()).unwrap();
    let custom = &json(&figure)["data"][0]["customdata"];
    assert_eq!(
        custom[1],
        "&lt;s&gt;<b> Mary</b>&#36;x&#36;&lt;script&gt;alert(1)&lt;/script&gt;a&amp;amp;b↵ Mary&#37;{z}"
    );
    let told = json(&figure.clone().contexts(&["<i>"; 8]).unwrap());
    assert_eq!(told["data"][0]["customdata"][0], "<b></b>&lt;i&gt;");
    assert!(message(figure.contexts(&["x"])).contains("1 contexts given for 8 points"));
}

#[test]
fn two_measures_meet_on_the_diagonal() {
    let (exact, estimate) =
        (head_scores().name("patching"), head_scores().map(|v| v * v).name("attribution"));
    let figure = versus(&exact, &estimate).unwrap();
    let drawn = json(&figure);
    assert_eq!(drawn["layout"]["xaxis"]["range"], drawn["layout"]["yaxis"]["range"]);
    assert_eq!(
        (&drawn["data"][0]["line"]["dash"], &drawn["data"][0]["x"]),
        (&"dash".into(), &drawn["data"][0]["y"])
    );
    assert_eq!(drawn["layout"]["xaxis"]["title"]["text"], "patching (nats)");
    assert_eq!(drawn["data"][1]["hovertext"], value!(["L0H0", "L0H1", "L0H2"]));
    assert!(figure.bundle().unwrap().svg.contains("n = 6</text>"));
    assert!(message(versus(&exact, &lens())).contains("equal axes"));
    assert!(
        versus(&exact.map(|_| 1.0), &estimate)
            .unwrap()
            .bundle()
            .unwrap()
            .svg
            .contains("Pearson undefined")
    );
}

#[test]
fn a_comparison_shares_its_colours_and_zooms_together() {
    let (a, b) = (head_scores().name("base"), head_scores().map(|v| 2.0 * v).name("tuned"));
    let drawn = json(&compare(&a, &b).unwrap());
    let ends = |axis: &str| drawn["layout"][axis]["cmax"].as_f64().unwrap();
    assert_eq!(ends("coloraxis"), ends("coloraxis2"));
    assert!(ends("coloraxis3") < ends("coloraxis2"));
    assert_eq!(drawn["data"][2]["z"], drawn["data"][0]["z"], "2x less x is x");
    assert_eq!(
        (&drawn["layout"]["xaxis3"]["matches"], &drawn["layout"]["yaxis2"]["matches"]),
        (&"x".into(), &"y".into())
    );
    let one = |grid: &Grid| grid.select(Axis::Layer, 0).unwrap();
    let under = json(&compare(&one(&a), &one(&b)).unwrap());
    assert_eq!(under["data"][2]["name"], "tuned − base");
    assert!(message(compare(&a, &lens())).contains("cannot subtract"));
}

#[test]
fn a_spectrum_sums_to_the_whole() {
    let grid = Grid::from_array(array![6.0, 3.0, 1.0], &[Axis::Pc], "variance").unwrap();
    let drawn = json(&spectrum(&grid).unwrap());
    assert_eq!(drawn["data"][1]["y"], value!([0.6, 0.9, 1]));
    assert_eq!(drawn["layout"]["yaxis2"].get("matches"), None);
    assert_eq!(drawn["layout"]["xaxis2"]["matches"], "x");
    assert!(message(spectrum(&grid.map(|v| v - 2.0))).contains("no negative value, found -1 at"));
    let drawn = json(&increments(&grid).unwrap());
    assert_eq!(drawn["data"][1]["y"], value!([null, -3, -2]));
}

#[test]
fn heights_of_a_histogram_are_shares_of_each_class() {
    let values = Array2::from_shape_fn((2, 50), |(c, i)| c as f64 + wave(i));
    let grid = Grid::from_array(values, &[Axis::Series, Axis::Batch], "projection").unwrap();
    let grid = grid.missing_where(|v| v > 1.5);
    let drawn = json(&histogram(&grid).unwrap());
    for trace in &drawn["data"].as_array().unwrap()[..2] {
        let heights = trace["y"].as_array().unwrap().iter().map(|h| h.as_f64().unwrap());
        assert!((heights.sum::<f64>() - 1.0).abs() < 1e-3);
    }
    let same = Grid::from_array(Array1::from_elem(5, 2.0), &[Axis::Batch], "").unwrap();
    assert!(histogram(&same).unwrap().bundle().unwrap().svg.contains("mean 2, 5 values"));
    let many = Grid::from_array(Array2::zeros((9, 4)), &[Axis::Series, Axis::Batch], "").unwrap();
    assert!(message(histogram(&many)).contains("9 histograms"));
}

#[test]
fn a_cluster_map_is_ordered_and_names_its_groups() {
    let grid = Grid::from_array(
        array![[1.0, 0.2], [0.2, 1.0]],
        &[Axis::Component, Axis::Series],
        "correlation",
    );
    let grid = grid.unwrap().relabel(Axis::Component, &["p", "q"]).unwrap();
    let grid = grid.relabel(Axis::Series, &["p", "q"]).unwrap();
    let drawn = json(&clustermap(&grid, &[1, 0], &["first", "<s>"]).unwrap());
    assert_eq!(drawn["layout"]["yaxis"]["ticktext"], value!(["q", "p"]));
    assert_eq!(
        (&drawn["data"][1]["name"], &drawn["data"][1]["hovertext"]),
        (&"&lt;s&gt;".into(), &value!(["q"]))
    );
    assert_eq!(drawn["data"][3]["orientation"], "h");
    assert!(
        message(clustermap(&grid, &[0, 0], &["a", "b"])).contains("must name each of 0 to 1 once")
    );
    assert!(message(clustermap(&grid, &[0, 1], &["a"])).contains("1 groups given for 2 things"));
}

#[test]
fn silhouettes_are_sorted_within_their_cluster() {
    let grid = Grid::from_array(array![0.1, 0.9, 0.5, -0.2], &[Axis::Pos], "silhouette").unwrap();
    let figure = silhouettes(&grid, &["a", "b", "a", "b"]).unwrap();
    let drawn = json(&figure);
    assert_eq!(
        (&drawn["data"][0]["x"], &drawn["data"][1]["x"]),
        (&value!([0.5, 0.1]), &value!([0.9, -0.2]))
    );
    assert_eq!(drawn["data"][0]["hovertext"], value!(["2", "0"]));
    assert!(figure.bundle().unwrap().svg.contains("mean 0.325, 2 clusters"));
    assert!(message(silhouettes(&grid.map(|v| v * 4.0), &["a"; 4])).contains("lies in -1 to 1"));
}

#[test]
fn a_reference_is_a_dotted_line_with_a_name() {
    let accuracy = Grid::from_array(array![0.9, 0.8], &[Axis::Layer], "accuracy").unwrap();
    let drawn = json(&lines(&accuracy).unwrap().reference(0.5, "chance").unwrap());
    let names: Vec<&Value> = drawn["data"].as_array().unwrap().iter().map(|t| &t["name"]).collect();
    assert_eq!(names, ["accuracy", "chance"]);
    assert_eq!(drawn["data"][1]["line"]["dash"], "dot");
    assert!(
        message(heatmap(&lens()).unwrap().reference(0.5, "x"))
            .contains("compared with a reference")
    );
}

#[test]
fn what_zero_and_one_mean_is_a_note_where_the_axis_has_no_room_for_it() {
    let grid = Grid::from_array(array![0.0, 1.0, 0.5], &[Axis::Layer], "share").unwrap();
    let axis = |zero: &str, one: &str| {
        let drawn = json(&lines(&grid.clone().zero_one(zero, one)).unwrap());
        drawn["layout"]["yaxis"]["title"]["text"].as_str().unwrap().to_owned()
    };
    assert_eq!(axis("corrupt", "clean"), "share (0 = corrupt, 1 = clean)");
    let (zero, one) = ("the run of the corrupted prompts", "the run of the clean prompts");
    assert_eq!(axis(zero, one), "share");
    let svg = lines(&grid.zero_one(zero, one)).unwrap().bundle().unwrap().svg;
    assert!(svg.contains(&format!("0 = {zero}, 1 = {one}")));
}

#[test]
fn few_points_carry_their_labels() {
    let values = Array2::from_shape_fn((8, 2), |(i, c)| (i * (c + 2)) as f64);
    let grid = Grid::from_array(values, &[Axis::Pos, Axis::Pc], "").unwrap();
    let figure = scatter(&grid.relabel(Axis::Pos, &TOKENS).unwrap()).unwrap();
    let drawn = json(&figure);
    assert_eq!(drawn["data"][0]["mode"], "markers+text");
    assert_eq!(drawn["data"][0]["text"][0], "&lt;s&gt;₀");
    assert!(figure.bundle().unwrap().svg.contains(">&lt;s&gt;₀</text>"));
}

#[test]
fn a_region_is_shaded_behind_the_lines_and_explained() {
    let loss = Grid::from_array(Array1::from_elem(6, 1.0), &[Axis::Pos], "nats").unwrap();
    let figure = lines(&loss).unwrap().region(0, 2, "first copy").unwrap();
    let drawn = json(&figure);
    assert_eq!(
        (&drawn["data"][0]["x"], &drawn["data"][1]["fill"]),
        (&value!([-0.5, 2.5]), &"tonexty".into())
    );
    assert!(figure.clone().bundle().unwrap().svg.contains("shaded, 0 to 2: first copy"));
    assert!(message(figure.region(3, 6, "")).contains("no region from 3 to 6 on an axis of 6"));
}

#[test]
fn a_row_goes_on_below_where_it_would_be_wider_than_a_notebooks_page() {
    let size = |figure: &Figure| {
        let plotly: Value = serde_json::from_str(&figure.bundle().unwrap().plotly).unwrap();
        ["width", "height"].map(|side| plotly["layout"][side].as_f64().unwrap())
    };
    let one = lines(&lens()).unwrap();
    let [width, height] = size(&one);
    let fit = (1000.0 / width) as usize;
    let [row, more] = [fit, fit + 1].map(|n| size(&Figure::row(&vec![one.clone(); n])));
    assert!(row[0] > width * (fit as f64 - 0.5) && row[1] == height, "{row:?}");
    assert!(more[0] <= row[0] && more[1] > 2.0 * height, "{more:?}, {row:?}");
}
