//! What a notebook stores for a figure, and how much of it.

use anyhow::{Result, ensure};

use super::scene::Page;
use super::{plotly_json, svg};
use crate::show::escape;

/// plotly.js that an HTML figure asks for where no page has brought one, with its checksum.
const PLOTLY_JS: &str = "https://cdn.plot.ly/plotly-4.1.1.min.js";
const PLOTLY_JS_SUM: &str = "sha256-O24V1F27f8pb0glCkelh3cVHLNiHAJ5gCaVtq2aNch8=";
/// Stored bytes above which a figure says how large it is.
const WARN: usize = 1_000_000;
/// Stored bytes above which a figure is refused.
const REFUSE: usize = 10_000_000;
/// Cells above which a figure is refused without drawing it: a byte each in four formats is too much.
const MAX_CELLS: usize = 2_500_000;

/// One figure in four formats; a front end shows the best it knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// plotly JSON, `application/vnd.plotly.v1+json`: JupyterLab and VS Code with plotly's renderer.
    pub plotly: String,
    /// The SVG, and a script that turns it into the plotly figure where plotly.js is at hand or can
    /// be loaded; right offline as it is.
    pub html: String,
    /// The SVG alone: code hosts and papers.
    pub svg: String,
    /// One line with the numbers.
    pub text: String,
}

impl Bundle {
    pub(super) fn of(page: &Page) -> Result<Bundle> {
        let plotly = serde_json::to_string(&plotly_json::json(page)?)?;
        let svg = svg::draw(page);
        let mut text = page.summary();
        let stored = 2 * (plotly.len() + svg.len());
        let mut note = String::new();
        if stored > WARN {
            note = format!("this figure stores {:.1} MB in the notebook", stored as f64 / 1e6);
            text = format!("{text}; {note}");
        }
        let html = html(&plotly, &svg, &note);
        Ok(Bundle { plotly, html, svg, text })
    }

    /// Bytes of all four formats.
    pub fn size(&self) -> usize {
        self.plotly.len() + self.html.len() + self.svg.len() + self.text.len()
    }

    pub(super) fn check_size(&self) -> Result<()> {
        ensure!(
            self.size() <= REFUSE,
            "this figure would store {:.1} MB, more than {} MB: select or average first, or call forced()",
            self.size() as f64 / 1e6,
            REFUSE / 1_000_000
        );
        Ok(())
    }

    /// A whole HTML page that holds the figure.
    pub(super) fn page(&self) -> String {
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title></head>\n<body>{}</body></html>\n",
            escape(&self.text),
            self.html
        )
    }
}

/// Refuses a figure of more cells than any of its formats could hold in 10 MB.
pub(super) fn check_cells(cells: usize) -> Result<()> {
    ensure!(
        cells <= MAX_CELLS,
        "this figure has {cells} cells and would store more than {} MB: select or average first, or call forced()",
        REFUSE / 1_000_000
    );
    Ok(())
}

/// Turns every figure on the page that is still an SVG into plotly's, once plotly.js is there. A
/// page or another figure may have brought it; else one script is asked for, and if that cannot be
/// had (offline) the SVG stays.
const SCRIPT: &str = r#"(function () {
  function draw(box) {
    if (box.dataset.state) return;
    box.dataset.state = "drawing";
    var still = box.querySelector(".thalweg-static"), target = document.createElement("div");
    target.setAttribute("role", "img");
    target.setAttribute("aria-label", still.firstElementChild.getAttribute("aria-label"));
    try {
      var figure = JSON.parse(box.querySelector("script.thalweg-plotly").textContent);
      still.after(target);
      Promise.resolve(window.Plotly.newPlot(target, figure.data, figure.layout, figure.config)).then(function () {
        still.style.display = "none";
        box.dataset.state = "plotly";
      }, keep);
    } catch (error) { keep(); }
    function keep() { target.remove(); box.dataset.state = "static"; }
  }
  function all() { document.querySelectorAll(".thalweg-figure").forEach(draw); }
  if (window.Plotly) return all();
  if (window.thalwegPlotly) return window.thalwegPlotly.then(all, function () {});
  window.thalwegPlotly = new Promise(function (done, failed) {
    var script = document.createElement("script");
    script.src = "PLOTLY_JS";
    script.integrity = "PLOTLY_JS_SUM";
    script.crossOrigin = "anonymous";
    script.async = true;
    script.onload = done;
    script.onerror = failed;
    document.head.appendChild(script);
  });
  window.thalwegPlotly.then(all, function () {});
})();"#;

fn html(plotly: &str, svg: &str, note: &str) -> String {
    // Inside a script element only `<` could end it or open a comment.
    let data = plotly.replace('<', "\\u003c");
    let script = SCRIPT.replace("PLOTLY_JS_SUM", PLOTLY_JS_SUM).replace("PLOTLY_JS", PLOTLY_JS);
    let note =
        if note.is_empty() { String::new() } else { format!("<div><small>{note}</small></div>") };
    format!(
        "<div class=\"thalweg-figure\"><div class=\"thalweg-static\">{svg}</div>{note}\
         <script type=\"application/json\" class=\"thalweg-plotly\">{data}</script><script>{script}</script></div>"
    )
}
