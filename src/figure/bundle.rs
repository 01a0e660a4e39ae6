//! What a notebook stores for a figure, and how much of it.

use anyhow::{Result, ensure};

use super::scene::Page;
use super::{Content, Figure, plotly_json, svg, text};
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
    /// Empty if the figure holds something that plotly cannot draw: text, a viewer, a graph.
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
    pub(super) fn of(figure: &Figure) -> Result<Bundle> {
        let page = figure.page();
        let svg = svg::draw(&page);
        let plotly = plotly_of(figure, &page)?.unwrap_or_default();
        let mut html = if plotly.is_empty() { mixed(figure)? } else { html(&plotly, &svg) };
        let mut text = page.summary();
        let stored = 2 * plotly.len() + svg.len() + html.len() - plotly.len();
        if stored > WARN {
            let note = format!("this figure stores {:.1} MB in the notebook", stored as f64 / 1e6);
            text = format!("{text}; {note}");
            html = format!("{html}<div><small>{note}</small></div>");
        }
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

/// The figure as plotly JSON, if plotly can draw it as one.
fn plotly_of(figure: &Figure, page: &Page) -> Result<Option<String>> {
    let json = match &figure.content {
        Content::Choices(choices) => choices.json()?,
        _ if !page.pictures.is_empty() || !page.remarks.is_empty() => return Ok(None),
        _ => plotly_json::json(page)?,
    };
    Ok(Some(serde_json::to_string(&json)?))
}

fn html(plotly: &str, svg: &str) -> String {
    // Inside a script element only `<` could end it or open a comment.
    let data = plotly.replace('<', "\\u003c");
    let script = SCRIPT.replace("PLOTLY_JS_SUM", PLOTLY_JS_SUM).replace("PLOTLY_JS", PLOTLY_JS);
    format!(
        "<div class=\"thalweg-figure\"><div class=\"thalweg-static\">{svg}</div>\
         <script type=\"application/json\" class=\"thalweg-plotly\">{data}</script><script>{script}</script></div>"
    )
}

/// A figure that plotly cannot draw as one: each part in the format that suits it, side by side.
fn mixed(figure: &Figure) -> Result<String> {
    let (parts, title, direction) = match &figure.content {
        Content::Row(figures, title) => (figures, title, "row"),
        Content::Column(figures, title) => (figures, title, "column"),
        _ => {
            let page = figure.page();
            let svg = svg::draw(&page);
            return Ok(match (&page.pictures[..], plotly_of(figure, &page)?) {
                ([(_, _, picture)], _) if !picture.html.is_empty() => picture.html.clone(),
                (_, Some(plotly)) => html(&plotly, &svg),
                _ => svg,
            });
        }
    };
    let heading = if title.is_empty() {
        String::new()
    } else {
        format!("<div style=\"font:16px sans-serif\">{}</div>", escape(&text::visible_words(title)))
    };
    let parts: Vec<String> = parts.iter().map(mixed).collect::<Result<_>>()?;
    let parts: String = parts.iter().map(|part| format!("<div>{part}</div>")).collect();
    Ok(format!(
        "<div>{heading}<div style=\"display:flex;flex-flow:{direction} wrap;gap:14px\">{parts}</div></div>"
    ))
}
