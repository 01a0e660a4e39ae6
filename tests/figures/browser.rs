//! Every kind of figure as a reader meets it: drawn by plotly.js in Chromium without a network, its
//! marks counted, one of them pointed at. `THALWEG_FIGURES=<folder>` keeps the page and a picture of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use thalweg::Figure;

use super::{gallery, tools};
use crate::support::scratch;

/// A page with every figure, plotly.js before them and the questions after.
fn page(figures: &[(&str, Figure)], plotly: &Path) -> String {
    let boxes = figures.iter().map(|(name, figure)| {
        let html = figure.bundle().unwrap().html;
        format!("<section id=\"{name}\"><h2>{name}</h2>{html}</section>\n")
    });
    format!(
        "<!DOCTYPE html><html><head><meta charset=\"utf-8\"><script src=\"file://{}\"></script></head><body>{}\
         <script>{}</script></body></html>",
        plotly.display(),
        boxes.collect::<String>(),
        include_str!("browser.js")
    )
}

fn open(chromium: &Path, work: &Path) -> Command {
    let mut command = Command::new(chromium);
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--hide-scrollbars",
    ]);
    command.args([
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]);
    command.args(["--host-resolver-rules=MAP * ~NOTFOUND", "--allow-file-access-from-files"]);
    command.arg("--virtual-time-budget=60000");
    command.arg(format!("--user-data-dir={}", work.join("profile").display()));
    command
}

/// What the page's script saw of each figure.
fn look(figures: &[(&str, Figure)], chromium: &Path, plotly: &Path) -> Value {
    let work = scratch("figures-browser");
    let kept = std::env::var_os("THALWEG_FIGURES").map(PathBuf::from);
    let file = kept.as_deref().unwrap_or(&work).join("figures.html");
    fs::write(&file, page(figures, plotly)).unwrap();
    let dom = open(chromium, &work).arg("--dump-dom").arg(&file).output().unwrap();
    let dom = String::from_utf8_lossy(&dom.stdout).into_owned();
    if let Some(folder) = &kept {
        let picture = folder.join("figures.png");
        let mut photo = open(chromium, &work);
        photo.arg(format!("--screenshot={}", picture.display())).arg("--window-size=1000,14000");
        assert!(photo.arg(&file).output().unwrap().status.success());
    }
    let (_, after) = dom.rsplit_once("thalweg-seen ").expect("the page's script ended");
    let told = after.split("</pre>").next().unwrap();
    let told = told.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    serde_json::from_str(&told).unwrap()
}

#[test]
fn chromium_draws_every_kind_as_plotly_s_schema_wants_it() {
    let (Some(chromium), Some(plotly)) = (tools::chromium(), tools::plotly_js()) else {
        return tools::skip("figures in a browser: no Chromium or no plotly.js here");
    };
    let figures: Vec<_> = gallery::all().into_iter().chain(gallery::large()).collect();
    let seen = look(&figures, &chromium, &plotly);
    let mut wrong = Vec::new();
    for (name, _) in &figures {
        let one = &seen[*name];
        let hover = one["hover"].as_str().unwrap_or_default();
        let whole = one["errors"] == json!([]) && one["marks"] == expected(name);
        if !(whole && hover.contains(pointed(name))) {
            wrong.push(format!("{name}: {one}"));
        }
    }
    assert!(wrong.is_empty(), "plotly.js {}:\n{}", seen["version"], wrong.join("\n"));
    assert_eq!(seen["alerts"], 0, "a token became markup");
}

/// Marks that a figure must have when drawn.
fn expected(name: &str) -> usize {
    match name {
        "heatmap" | "heatmap_text" => 32,
        "lines" => 8 * 4,
        "lines_bands" => 2 * 6,
        "bars" => 8,
        "scatter" => 32,
        "lens_menu" | "norms_log" => 32,
        "facets" => 3 * 32,
        "training_slider" | "scatter_slider" => 8,
        "versus" => 32,
        "spectrum" => 2 * 2 * 10,
        "increments" => 9 + 8,
        "histogram" => 2 * 30,
        "compare" => 3 * 32,
        "compare_lines" => 3 * 9,
        "composition" => 16,
        "reference" => 3 * 6,
        "clustermap" => 64 + 2 * 8,
        "silhouettes" => 8,
        "circuit" => 20,
        "large_heatmap" => 40 * 60 - 30,
        "large_scatter" => 1500,
        "attention" => 4 * 36,
        "attention_viewer" => 2 * 4,
        "tokens" => 2 * 80,
        "predictions" => 8,
        "examples" => 3 * 30,
        _ => panic!("how many marks has {name}?"),
    }
}

/// What pointing at a mark must say.
fn pointed(name: &str) -> &'static str {
    match name {
        "heatmap" => "blocks.1.hook_resid_post @ \" Mary\"_1",
        "heatmap_text" => "run.cache.get(Point::ResidPost.at(1))?.select(1, 1)",
        "lines" | "lines_bands" => "L1",
        "bars" | "scatter" => "␣Mary",
        "attention_viewer" => "L1H3 (key/value group 1): query “␣Mary” at 1 → key “<s>” at 0: 0.",
        "lens_menu" => "John <b> 12 %",
        "norms_log" | "compare_lines" => "L",
        "facets" => "residual",
        "versus" => "L0H1",
        "training_slider" => "L1H1",
        "scatter_slider" => "Mary",
        "spectrum" => "PC2",
        "increments" => "L0 mid",
        "histogram" => " to ",
        "compare" => "L1H1",
        "composition" => "L0H1 → L1H1",
        "reference" => "chance",
        "clustermap" => "L0H2",
        "silhouettes" => "H",
        "circuit" => " nats",
        "large_heatmap" => "position 1",
        "large_scatter" => "prompt ",
        "attention" => "key position ␣Mary₁",
        "tokens" => "position 1 “␣Mary”",
        "predictions" => "rank 1",
        "examples" => "prompt 0 <b> “␣Mary” at 1",
        _ => panic!("what does {name} say?"),
    }
}
