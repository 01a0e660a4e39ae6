//! Figures into the rendered pages, and one plotly.js for all of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Asks for the book's own plotly.js once a page, before its first figure: a figure that finds `thalwegPlotly` waits
/// for it and asks for nothing. Where the file cannot be read the figures stay the SVGs that they begin as.
const LOADER: &str = r#"<script>
window.thalwegPlotly = new Promise(function (done, failed) {
  var script = document.createElement("script");
  script.src = path_to_root + "plotly.min.js";
  script.onload = done;
  script.onerror = failed;
  document.head.appendChild(script);
});
window.thalwegPlotly.catch(function () {});
</script>"#;

/// plotly.js, from the sources of the plotly crate.
pub(crate) fn plotly_js() -> Result<String> {
    let scripts = plotly::Plot::offline_js_sources();
    let script = scripts.split("<script type=\"text/javascript\">").nth(1);
    let script = script
        .filter(|script| script.contains("plotly.js v"))
        .context("the plotly crate carries no plotly.js")?;
    let end = script.rfind("</script>").context("the plotly crate's script does not end")?;
    Ok(script[..end].to_owned())
}

/// Puts the figures into their pages; returns how many plotly.js will draw.
pub(crate) fn place(out: &Path, figures: &BTreeMap<String, Vec<String>>) -> Result<usize> {
    let mut live = 0;
    for (page, figures) in figures.iter().filter(|(_, figures)| !figures.is_empty()) {
        let path = out.join(page).with_extension("html");
        let mut text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(text.contains("path_to_root"), "{page}: mdBook no longer says where its root is");
        for (number, html) in figures.iter().enumerate() {
            let slot = format!("<div class=\"thalweg-slot\" id=\"slot-{number}\"></div>");
            ensure!(text.contains(&slot), "{page}: no place for figure {number}");
            let loader = if number == 0 { LOADER } else { "" };
            text = text.replacen(
                &slot,
                &format!("{loader}<div class=\"thalweg-html\">{html}</div>"),
                1,
            );
            live += html.matches("class=\"thalweg-figure\"").count();
        }
        fs::write(&path, text)?;
    }
    Ok(live)
}
